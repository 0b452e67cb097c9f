"""The Lua scripts: each file's head says its contract; `-- include:` names the shared parts put in front of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, partial
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from sendengine.queue.link import Argument, Caller

INCLUDE = "-- include:"


@cache
def source(name: str) -> str:
    """The whole text of a script, shared parts first, each once."""
    return "".join(_text(part) for part in dict.fromkeys(_parts(name)))


def _parts(name: str) -> list[str]:
    first = _text(name).split("\n", 1)[0]
    wanted = first.removeprefix(INCLUDE).split() if first.startswith(INCLUDE) else []
    return [part for other in wanted for part in _parts(other)] + [name]


def _text(name: str) -> str:
    return (files("sendengine.queue") / "lua" / f"{name}.lua").read_text()


@cache
def digest(name: str) -> bytes:
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest().encode()


async def run(link: Caller, name: str, keys: tuple[Argument, ...], *args: Argument) -> Any:
    """EVALSHA; the script is loaded when the server does not know it (first use, SCRIPT FLUSH, failover)."""
    return await _run(link.call, name, keys, args)


async def commit(link: Caller, name: str, keys: tuple[Argument, ...], *args: Argument, mark: Argument | None = None) -> Any:
    """As `run`, for a write that a replica must have where one is waited for (Link.commit)."""
    return await _run(partial(link.commit, mark=mark), name, keys, args)


async def _run(call: Callable[..., Awaitable[Any]], name: str, keys: tuple[Argument, ...], args: tuple[Argument, ...]) -> Any:
    try:
        return await call(b"EVALSHA", digest(name), len(keys), *keys, *args)
    except NoScriptError:
        return await call(b"EVAL", source(name), len(keys), *keys, *args)
