"""What comes in: JSON bodies within their limits, uploads of any length, parameters of the query."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import msgspec.inspect
from starlette.requests import ClientDisconnect, Request

from sendengine.api import problems
from sendengine.api.problems import Problem

T = TypeVar("T")
Speed = str | int | float  # a tier's name, or messages per hour
JSON_TYPES = ("application/json", "")
LIST_TYPES = ("application/x-ndjson", "application/jsonl", "text/csv", "text/plain", "application/octet-stream", "")
BODY_S = 30.0  # for a whole JSON body
_SHAPES = "correct what the detail names: /openapi.json has each field and its values"
_GRANULE = 1 << 16


async def body_of(request: Request, most: int, kinds: tuple[str, ...] = JSON_TYPES) -> bytes:
    """The whole body. Raises Problem for one that is too large, however its length was announced, or too slow."""
    if not _has_body(request):
        return b""
    check_type(request, kinds)
    if (announced := announced_length(request)) is not None and announced > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(BODY_S):
            parts, size = [], 0
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
    except TimeoutError:
        raise Problem(problems.TIMED_OUT, f"the body was not complete after {BODY_S:g} s") from None
    return b"".join(parts)


def decoded(body: bytes, type_: type[T], deepest: int) -> T:
    """Raises Problem naming the place of what is off."""
    try:
        found = msgspec.json.decode(body or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise _off(str(error), type_) from None
    except msgspec.DecodeError as error:
        raise Problem(problems.BAD_REQUEST, f"the body is no JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise Problem(problems.BAD_REQUEST, f"the body is not UTF-8: {error.reason} at octet {error.start}") from None
    except RecursionError:
        raise Problem(problems.BAD_REQUEST, f"values stand in each other deeper than {deepest}") from None
    if not is_flat(msgspec.structs.asdict(found) if isinstance(found, msgspec.Struct) else found, deepest):
        raise Problem(problems.BAD_REQUEST, f"values stand in each other deeper than {deepest}")
    return found


def _off(said: str, type_: Any) -> Problem:
    """msgspec's words on a body of another shape, the field first."""
    what, at, place = said.rpartition(" - at `$")
    what, place = (what, place.strip(".`")) if at else (said, "")
    if (odd := _FIELD.fullmatch(what)) is None:
        one_of = values_at(type_, place) if what.startswith("Invalid enum value") else []
    else:
        one_of = fields_at(type_, place) if odd["unknown"] else []
        place = f"{place}.{odd['name']}".lstrip(".")
        what = "there is no such field" if odd["unknown"] else "is missing"
    remedy = f"one of {', '.join(one_of)}" if one_of else _SHAPES
    return Problem(problems.BAD_REQUEST, f"{place or 'the body'}: {what}", remedy)


def speed_of(given: Speed) -> str:
    """As people write it: a number is one of messages per hour."""
    return f"{given:.6f}".rstrip("0").rstrip(".") if isinstance(given, float) else str(given)


def fields_at(type_: Any, place: str) -> list[str]:
    """Of the object that stands at a place of a body."""
    return [field.encode_name for field in _fields(_types_at(type_, place))]


def values_at(type_: Any, place: str) -> list[str]:
    """Of the enumeration that stands at a place of a body, as in `relay.tls` or `scopes[0]`."""
    at = _types_at(type_, place)
    values = [value for each in at if isinstance(each, msgspec.inspect.EnumType) for value in each.cls]
    return [str(value) for value in (*values, *(v for each in at if isinstance(each, msgspec.inspect.LiteralType) for v in each.values))]


def _types_at(type_: Any, place: str) -> list[msgspec.inspect.Type]:
    at = [msgspec.inspect.type_info(type_)]
    for name in filter(None, _PLACE_IN_LIST.sub("", place).split(".")):
        at = [field.type for field in _fields(at) if field.encode_name == name]
        while any(isinstance(each, _WRAPPED) for each in at):
            at = [inner for each in at for inner in _unwrapped(each)]
    return at


def _fields(at: list[msgspec.inspect.Type]) -> Iterator[msgspec.inspect.Field]:
    return (field for each in at if isinstance(each, msgspec.inspect.StructType) for field in each.fields)


_FIELD = re.compile(r"Object (?:contains (?P<unknown>unknown)|missing required) field `(?P<name>.*)`", re.DOTALL)
_PLACE_IN_LIST = re.compile(r"\[[^]]*\]")
_WRAPPED = (msgspec.inspect.UnionType, msgspec.inspect.ListType, msgspec.inspect.Metadata)


def _unwrapped(found: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    match found:
        case msgspec.inspect.UnionType():
            return list(found.types)
        case msgspec.inspect.ListType():
            return [found.item_type]
        case msgspec.inspect.Metadata():
            return [found.type]
    return [found]


def is_flat(value: Any, deepest: int) -> bool:
    """Whether no more than so many lists and objects stand in each other. A loop, not a recursion: who asks may have sent a million."""
    level = [value]
    for _ in range(deepest):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _within(outer)]
        if not level:
            return True
    return not any(isinstance(value, dict | list) for value in level)


def _within(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def check_type(request: Request, known: tuple[str, ...]) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(problems.NO_MEDIA, "the body has a content encoding", "send it as it is", {"Accept-Encoding": "identity"})
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in known:
        raise Problem(problems.NO_MEDIA, f"the content type is {given}", f"one of {', '.join(filter(None, known))}")


def _has_body(request: Request) -> bool:
    """RFC 9112 6.3."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def announced_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() else None


async def chunks_of(request: Request, idle: float, is_over: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    """A body of any length. `is_over` is asked about once a second and raises when it is to end. Raises Problem when nothing comes for
    `idle` seconds, or the sender is gone."""
    check_type(request, LIST_TYPES)
    loop = asyncio.get_running_loop()
    stream, asked_at, parts, size = request.stream(), loop.time(), [], 0
    try:
        while True:
            async with asyncio.timeout(idle):
                part = await anext(stream, None)
            if part is None:
                break
            parts.append(part)
            size += len(part)
            if size >= _GRANULE:
                yield b"".join(parts)
                parts, size = [], 0
            if loop.time() - asked_at >= 1.0:
                asked_at = loop.time()
                await is_over()
    except TimeoutError:
        raise Problem(problems.TIMED_OUT, f"no part of the list came for {idle:g} s") from None
    except ClientDisconnect:
        raise Problem(problems.TIMED_OUT, "the sender is gone before the end of its list") from None
    if parts:
        yield b"".join(parts)


def _too_large(most: int) -> Problem:
    return Problem(problems.TOO_LARGE, f"the body is over {most >> 20} MiB")


class Query:
    """The parameters of a request's query. Each must be known and stand once."""

    def __init__(self, request: Request, known: tuple[str, ...]) -> None:
        self._values = dict(request.query_params)
        for name, _ in request.query_params.multi_items():
            if name not in known:
                remedy = f"one of {', '.join(known)}" if known else "leave it out"
                raise Problem(problems.BAD_REQUEST, f"unknown parameter {name!r}", remedy)
        if len(self._values) != len(request.query_params.multi_items()):
            raise Problem(problems.BAD_REQUEST, "a parameter stands twice", "write each once")

    def text(self, name: str) -> str | None:
        return self._values.get(name) or None

    def flag(self, name: str) -> bool:
        text = self._values.get(name, "false")
        if text not in ("true", "false", "1", "0", ""):
            raise Problem(problems.BAD_REQUEST, f"{name} is true or false, not {text!r}")
        return text in ("true", "1", "")

    def count(self, name: str, default: int | None = None, most: int = 10**12) -> int | None:
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) <= 13 and int(text) <= most):
            raise Problem(problems.BAD_REQUEST, f"{name} is a number from 0 to {most}, not {text[:20]!r}")
        return int(text)
