"""Errors as RFC 9457 problem documents: each has a title, what happened, and a remedy."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from sendengine.errors import ConfigError, Conflict, Fenced, LacksCredit, NotFound, RefusedInput, SendEngineError, Unavailable, UnknownName
from sendengine.policy.billing import Forged

TYPE = "application/problem+json"
UNFORESEEN = "an error that nobody foresaw"
PREFIX = "urn:sendengine:problem:"


class Kind(msgspec.Struct, frozen=True):
    name: str
    status: int
    title: str
    remedy: str  # where the error has none of its own


BAD_REQUEST = Kind("refused", 400, "The request is off, and changed nothing", "correct what the detail names")
UNAUTHORISED = Kind("no-key", 401, "No API key that opens anything", "Authorization: Bearer se_…, a key of POST /v1/accounts/{id}/keys")
FORGED = Kind("forged", 401, "No event of ours", "sign the octets as they are sent, and now: docs/billing.md")
FORBIDDEN = Kind("scope", 403, "The key does not open this", "use a key with the scope that the detail names")
NOT_FOUND = Kind("not-found", 404, "There is no such thing", "look at the id: a key sees the things of its own account only")
NO_METHOD = Kind("method", 405, "The path knows other methods", "the header Allow names them")
CONFLICT = Kind("conflict", 409, "Its state forbids this", "look at it, and choose another id or wait")
NO_CREDIT = Kind("credits", 402, "Too little credit: the send stands and waits", "buy credits, and repeat the request")
NOT_PAID = Kind("credits-message", 402, "Too little credit: nothing was sent", "buy credits, and repeat the request")
TIMED_OUT = Kind("timeout", 408, "The request came too slowly", "repeat it: what stands already is recognised")
TOO_LARGE = Kind("too-large", 413, "The body is too large", "send long lists to /v1/sends/{id}/recipients: they have no limit")
NO_MEDIA = Kind("media-type", 415, "The body is of another kind", "send what the detail names, without a content encoding")
TOO_MANY = Kind("too-many", 429, "Too many requests", "wait as long as Retry-After says")
HEAD_TOO_LARGE = Kind("head", 431, "The head of the request is too large", "send fewer and shorter header fields")
BUG = Kind("bug", 500, "This is our fault", "repeat the request; the log of the process has the error")
AWAY = Kind("away", 503, "Redis is away or full", "repeat the request later: nothing is made twice")
BUSY = Kind("busy", 503, "The process has all it can do", "wait as long as Retry-After says")

# The first that fits; every class of sendengine.errors has its line.
KINDS: tuple[tuple[type[SendEngineError], Kind], ...] = (
    (Forged, FORGED), (ConfigError, BUG), (UnknownName, BAD_REQUEST), (NotFound, NOT_FOUND),
    (Conflict, CONFLICT), (LacksCredit, NO_CREDIT), (RefusedInput, BAD_REQUEST), (Unavailable, AWAY),
    (Fenced, BUG), (SendEngineError, BUG),
)  # fmt: skip


class Problem(Exception):
    """An answer of the API's own."""

    def __init__(self, kind: Kind, detail: str, remedy: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.remedy, self.headers = kind, detail, remedy or kind.remedy, dict(headers or {})


class ProblemDocument(msgspec.Struct, frozen=True):
    """RFC 9457; `remedy` says what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str


def problem_of(error: BaseException, in_path: bool = True) -> Problem:
    """What the client is told of an error; of a bug it is told nothing but that it is one. `in_path`: the path names something. Where it
    does not, what is not found was named by the body or the query, and that is what is off."""
    if isinstance(error, Problem):
        return error
    for type_, kind in KINDS:
        if isinstance(error, type_):
            if kind is NOT_FOUND and not in_path:
                return Problem(BAD_REQUEST, _detail(BAD_REQUEST, error), error.way.http)
            if isinstance(error, LacksCredit):
                return _unpaid(error)
            return Problem(kind, _detail(kind, error), error.way.http, {"Retry-After": "1"} if kind.status == 503 else None)
    return Problem(BUG, UNFORESEEN)


def _unpaid(error: LacksCredit) -> Problem:
    if not error.send:
        return Problem(NOT_PAID, str(error), error.way.http)
    return Problem(NO_CREDIT, str(error), error.way.http, {"Location": f"/v1/sends/{error.send}"})


def _detail(kind: Kind, error: SendEngineError) -> str:
    """Of our own affairs (addresses, paths) strangers are told nothing; the log has it."""
    if kind is BUG:
        return UNFORESEEN
    if kind is AWAY:
        return str(error).partition(":")[0]
    field = error.field if isinstance(error, RefusedInput) and kind is not NOT_FOUND else ""  # that is of the path
    return f"{field}: {str(error).removeprefix(field + ' ')}" if field else str(error)


def answer(problem: Problem) -> Response:
    return Response(octets(problem), problem.kind.status, problem.headers, TYPE)


def octets(problem: Problem) -> bytes:
    kind = problem.kind
    return msgspec.json.encode(ProblemDocument(PREFIX + kind.name, kind.title, kind.status, problem.detail, problem.remedy))
