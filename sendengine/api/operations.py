"""What an operation is: the one description that routes, access and the OpenAPI document are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sendengine.api.call import Call
from sendengine.policy.apikeys import Scope

JSON = "application/json"
Handler = Callable[[Call], Awaitable[Any]]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No member."""


class Param(msgspec.Struct, frozen=True):
    """Of the query or the head. `schema` as OpenAPI has it."""

    name: str
    summary: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    place: str = "query"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`path` as Starlette writes it; `scope` is demanded of the key (None: there is none, a signature says who asks), and with `operators`
    that it is the operator's. `answer` is the type of the value, or of one line or event of a stream (`media`); `body` that of the request,
    `upload`: a list of any length instead."""

    name: str
    method: str
    path: str
    scope: Scope | None
    summary: str
    handler: Handler
    operators: bool = False
    body: Any = None
    upload: bool = False
    answer: Any = None
    media: str = JSON
    status: int = 200
    others: tuple[int, ...] = ()  # further statuses of success
    params: tuple[Param, ...] = ()


IDEMPOTENCY = Param(
    "Idempotency-Key",
    "The same key again is the same request: it makes nothing twice, and answers 409 where it says something else.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "header",
)
