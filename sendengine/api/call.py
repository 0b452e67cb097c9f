"""One request on its way, and what all requests of a process share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from starlette.requests import Request

from sendengine.api import access, problems, reading
from sendengine.api.access import Door
from sendengine.api.early import Early
from sendengine.api.problems import Problem
from sendengine.client import Client
from sendengine.config import ApiConfig
from sendengine.policy.apikeys import ApiKey
from sendengine.sink.metrics_api import ApiMeter
from sendengine.types import Provider

T = TypeVar("T")
Providers = Mapping[str, Provider]


class Services:
    """Owner of the pool that reads uploads. `stopping` is set when the process is to leave: what lasts ends then. `bulk` is a client with a
    connection of its own, for uploads: replies come in order, and nobody else shall wait behind a list."""

    def __init__(
        self, client: Client, limits: ApiConfig, meter: ApiMeter, bulk: Client | None = None, providers: Providers | None = None
    ) -> None:
        self.client, self.limits, self.meter, self.bulk = client, limits, meter, bulk or client
        self.providers, self.early = providers or {}, Early()  # who carries SMS, and their receipts that came early
        self.door = Door(client.desk, limits.requests_per_s, limits.uploads, limits.streams)
        self.pool = ThreadPoolExecutor(limits.uploads, "upload")
        self.stopping = asyncio.Event()
        self.requests = 0  # on their way now

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class Call:
    """What a handler knows of a request: its key was let in, and its operation is one that the key opens."""

    def __init__(self, request: Request, key: ApiKey, services: Services) -> None:
        self.request, self.key, self.services = request, key, services
        self.client, self.limits = services.client, services.limits

    @property
    def who(self) -> str:
        """As the audit trail names them."""
        return f"{self.key.seat} (key {self.key.id})"

    def account(self) -> str:
        """That of the path. Raises NotFound for any but the key's own."""
        return self.account_named(self.request.path_params["account"])

    def account_named(self, given: str | None) -> str:
        """That of a body or a query; an account's key needs name none. Raises NotFound for any but the key's own."""
        return access.account_of(self.key, given)

    async def send(self) -> str:
        """The full name of the path's send."""
        return await access.send_of(self.client.desk, self.key, self.request.path_params["send"])

    async def body(self, type_: type[T]) -> T:
        body = await reading.body_of(self.request, self.limits.max_body_mib << 20)
        return reading.decoded(body, type_, self.limits.max_depth)

    def query(self, *known: str) -> reading.Query:
        return reading.Query(self.request, known)

    def idempotency_key(self) -> str | None:
        """Raises Problem for one that is none."""
        text = self.request.headers.get("idempotency-key")
        if text is not None and not (0 < len(text) <= 255 and text.isascii() and text.isprintable()):
            raise Problem(problems.BAD_REQUEST, "the Idempotency-Key is 1 to 255 printable ASCII letters")
        return text

    def upload(self) -> AsyncIterator[bytes]:
        return reading.chunks_of(self.request, self.limits.idle_s, self.go_on)

    async def go_on(self) -> None:
        """Raises Problem when a request that lasts is to end: its key was revoked, or the process leaves."""
        if self.services.stopping.is_set():
            raise Problem(problems.BUSY, "the process leaves", headers={"Retry-After": "1"})
        if not await self.services.door.stands(self.key):
            raise Problem(problems.UNAUTHORISED, "the key was revoked meanwhile")


class Reply(msgspec.Struct, frozen=True):
    """A handler's answer with a status or a head of its own."""

    value: object
    status: int = 200
    headers: dict[str, str] = {}
