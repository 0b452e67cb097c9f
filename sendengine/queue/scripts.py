"""The Lua scripts: each file's head says its contract; `-- include:` names the shared parts put in front of it."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from sendengine.queue.link import Argument, Link

SHARED = ("lib", "settling")


@cache
def source(name: str) -> str:
    """The whole text of a script, shared parts first."""
    text = (files("sendengine.queue") / "lua" / f"{name}.lua").read_text()
    first = text.split("\n", 1)[0]
    wanted = first.removeprefix("-- include:").split() if first.startswith("-- include:") else []
    return "".join(source(part) for part in wanted) + text


@cache
def digest(name: str) -> bytes:
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest().encode()


async def run(link: Link, name: str, keys: tuple[Argument, ...], *args: Argument) -> Any:
    """EVALSHA; the script is loaded when the server does not know it (first use, SCRIPT FLUSH, failover)."""
    try:
        return await link.call(b"EVALSHA", digest(name), len(keys), *keys, *args)
    except NoScriptError:
        return await link.call(b"EVAL", source(name), len(keys), *keys, *args)
