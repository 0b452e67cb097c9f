"""The Lua scripts: each file's head says its contract; `-- include:` names the shared parts put in front of it.

Visits, by far the most calls, are kept as functions of the server, where the shared parts are made once; all others are scripts, which make
theirs in each call (docs/design/025). Both have a digest of their text in their name, so releases beside each other keep their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache, partial
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from sendengine.errors import Unavailable
from sendengine.queue.link import Argument, Caller, FunctionMissing

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


# what is kept as a function

IN_EACH_CALL = ("lib", "visit")  # of the parts of a visit; the others define functions only
FOUND_WITHIN = 5  # loads: a slot of a Cluster may move meanwhile
PAUSE = 0.02  # seconds before the second load; before each later one it is twice as long
_LOADED = "already exists"  # by another call of the first moment


async def run_kept(link: Caller, name: str, keys: tuple[Argument, ...], *args: Argument) -> Any:
    """As `run`, of a function that the server keeps."""
    return await _run_kept(link.call, name, keys, args)


async def commit_kept(link: Caller, name: str, keys: tuple[Argument, ...], *args: Argument, mark: Argument | None = None) -> Any:
    """As `commit`, of a function that the server keeps."""
    return await _run_kept(partial(link.commit, mark=mark), name, keys, args)


async def _run_kept(call: Callable[..., Awaitable[Any]], name: str, keys: tuple[Argument, ...], args: tuple[Argument, ...]) -> Any:
    """It is loaded where it was missed: the table of slots may be older than the answer."""
    for load in range(FOUND_WITHIN):
        try:
            return await call(b"FCALL", function(name), len(keys), *keys, *args)
        except FunctionMissing as error:
            where = error.link
        if load:
            await asyncio.sleep(PAUSE * 2 ** (load - 1))
        await _load(where, name)
    raise Unavailable(f"Redis forgets the function {name} as soon as it is loaded", "the same call may go through later")


async def _load(link: Caller, name: str) -> None:
    try:
        await link.call(b"FUNCTION", b"LOAD", library(name))
    except ResponseError as error:
        if _LOADED not in str(error):
            raise


@cache
def function(name: str) -> bytes:
    return b"sendengine_" + digest(name)


@cache
def library(name: str) -> str:
    """Its one function. While a library is loaded hardly anything may be called: the parts are made with the first call."""
    parts = list(dict.fromkeys(_parts(name)))
    made = "".join(_text(part) for part in parts if part not in IN_EACH_CALL)
    called = "".join(_text(part) for part in parts if part in IN_EACH_CALL)
    known = function(name).decode()
    return (
        f"#!lua name={known}\nlocal function make()\n{made}return function(KEYS, ARGV)\n{called}end end\nlocal main\n"
        f"redis.register_function('{known}', function(KEYS, ARGV) main = main or make() return main(KEYS, ARGV) end)\n"
    )
