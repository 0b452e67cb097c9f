"""The purge of an account with everything it can own, killed at each of its steps and run again.

Before each command that it sends, and behind each one of which it gets no answer: a process that dies leaves no more behind than the
commands it sent. The whole server is put back before each try, so that it is always the same account.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from benchmarks.bench import Figure, Result
from benchmarks.gates import estate
from benchmarks.gates.estate import DOOMED, NEIGHBOUR
from benchmarks.gates.scene import scene
from benchmarks.plots import Chart
from sendengine.policy.term import purge_line
from sendengine.queue import keys, purging
from sendengine.queue.link import Argument, Link

TITLE = "gates.purge: killed at each step and run again"
LINE = purge_line("bench")
_NAMES = re.compile(DOOMED.encode() + rb"(?![0-9])")


class Killed(Exception):
    """The process that purges is no more."""


class Mortal:
    """A link that dies behind so many commands: before the next one leaves, or when that one was done and nobody hears of it."""

    def __init__(self, link: Link, lives: int, hears: bool) -> None:
        self._link, self._left, self._hears = link, lives, hears
        self.commands = 0

    @property
    def generation(self) -> int:
        return self._link.generation

    async def call(self, *args: Argument) -> Any:
        return await self._step(self._link.call(*args))

    async def commit(self, *args: Argument, mark: Argument | None = None) -> Any:
        return await self._step(self._link.commit(*args, mark=mark))

    async def _step(self, command: Any) -> Any:
        if self.commands == self._left and self._hears:
            command.close()
            raise Killed
        answer = await command
        self.commands += 1
        if self.commands > self._left:
            raise Killed
        return answer

    async def masters(self) -> Sequence[Link]:
        return await self._link.masters()

    async def at(self, key: str) -> Any:
        return self

    async def connect(self) -> None: ...
    def drop(self, reason: str) -> None: ...
    async def close(self) -> None: ...


class Found(msgspec.Struct, frozen=True):
    keys: int  # that the account had
    missing: list[str]  # kinds of keys that it did not have
    steps: int  # commands of a purge that nobody kills
    kills: int
    incomplete: int  # tries behind which the next run did not complete
    left: list[str]  # keys under its tag, and what names it elsewhere, of all tries
    touched: int  # tries in which anything of the neighbour changed
    trails: int  # in which tombstone or audit trail did not stand


async def run(quick: bool) -> Result:
    return result(await measure(10 if quick else 1))


async def measure(stride: int) -> Found:
    """Of all steps each `stride`th one."""
    async with scene(*estate.FLAGS) as s:
        await estate.build(s)
        link = Link(s.stage.url)
        try:
            return await _measure(link, stride)
        finally:
            await link.close()


async def _measure(link: Link, stride: int) -> Found:
    whole = await _dump(link)
    names = {name.decode() for name, _, _ in whole}
    lines = await _trail(link)
    steps = await _purge(link, 10**9, True)
    tries = [(step, hears) for step in range(0, steps, stride) for hears in (True, False)]
    incomplete = touched = trails = 0
    left = await _left(link)
    for step, hears in tries:
        await _restore(link, whole)
        before = await _digest(link)  # of this try: what is restored may lie in another order
        assert await _purge(link, step, hears) <= step + 1
        touched += await _digest(link) != before
        is_found = DOOMED in await purging.due(link)
        answer = await purging.purge(link, DOOMED, LINE)
        incomplete += answer != ("done" if is_found else "gone")
        left += await _left(link)
        touched += await _digest(link) != before
        trails += not (await link.call("HEXISTS", keys.GONE, DOOMED) and await _trail(link) == [*lines, LINE])
    owned = sum(name.startswith(keys.account(DOOMED)) for name in names)
    return Found(owned, estate.missing(names), steps, len(tries), incomplete, sorted(set(left)), touched, trails)


async def _purge(link: Link, lives: int, hears: bool) -> int:
    """Commands that it got through with."""
    mortal = Mortal(link, lives, hears)
    try:
        await purging.purge(mortal, DOOMED, LINE)
    except Killed:
        pass
    return mortal.commands


async def _dump(link: Link) -> list[tuple[bytes, bytes, int]]:
    """Every key of the server, with its ms to live."""
    names = await link.call("KEYS", "*")
    values = await asyncio.gather(*(link.call("DUMP", name) for name in names))
    lives = await asyncio.gather(*(link.call("PTTL", name) for name in names))
    return [(name, value, max(0, life)) for name, value, life in zip(names, values, lives, strict=True) if value is not None]


async def _restore(link: Link, whole: Sequence[tuple[bytes, bytes, int]]) -> None:
    await link.call("FLUSHDB", "SYNC")
    await asyncio.gather(*(link.call("RESTORE", name, life, value) for name, value, life in whole))


async def _digest(link: Link) -> str:
    """Of every key of the neighbour, and of its names elsewhere."""
    digest, own = hashlib.sha256(), keys.account(NEIGHBOUR)
    for name in sorted(await link.call("KEYS", own + "*")):
        digest.update(name + (await link.call("DUMP", name) or b""))
    lanes = [NEIGHBOUR + channel for channel in keys.CHANNELS]
    elsewhere = [("SMISMEMBER", keys.ACCOUNTS, *lanes), ("ZMSCORE", keys.INDEX, *lanes), ("ZSCORE", keys.HOOKS, NEIGHBOUR),
                 ("DUMP", keys.api_keys(NEIGHBOUR)), ("DUMP", keys.trail(NEIGHBOUR)), ("HEXISTS", keys.GONE, NEIGHBOUR)]  # fmt: skip
    for send in await link.call("ZRANGE", own + ":sends", 0, -1):
        elsewhere.append(("SMISMEMBER", keys.holders(send.decode()), *lanes))
    opened = await link.call("HKEYS", keys.api_keys(NEIGHBOUR))
    elsewhere.append(("HMGET", keys.API_KEYS, *opened))
    for command in elsewhere:
        digest.update(repr(await link.call(*command)).encode())
    return digest.hexdigest()


async def _left(link: Link) -> list[str]:
    """Keys under its tag, and shared ones that name it; but its tombstone and its audit trail."""
    found = [name.decode() for name in await link.call("KEYS", keys.account(DOOMED) + "*")]
    for name in await link.call("KEYS", "{x}*"):
        if name.decode() not in (keys.GONE, keys.trail(DOOMED)) and _NAMES.search(repr(await _content(link, name)).encode()):
            found.append(name.decode())
    return found


async def _content(link: Link, name: bytes) -> Any:
    match await link.call("TYPE", name):
        case b"hash":
            return await link.call("HGETALL", name)
        case b"set":
            return await link.call("SMEMBERS", name)
        case b"zset":
            return await link.call("ZRANGE", name, 0, -1)
        case b"stream":
            return await link.call("XRANGE", name, "-", "+")
        case _:
            return await link.call("GET", name)


async def _trail(link: Link) -> list[bytes]:
    return [fields[1] for _, fields in await link.call("XRANGE", keys.trail(DOOMED), "-", "+")]


def result(found: Found) -> Result:
    rows = [["keys of the account", f"{found.keys:,}"], ["steps of its purge", f"{found.steps}"], ["kills", f"{found.kills}"]]
    figures = [
        Figure("kinds of keys that it did not own", "none", " ".join(found.missing) or "none", not found.missing),
        Figure("runs that did not complete behind a kill", "0", f"{found.incomplete}", not found.incomplete),
        Figure("keys left under its tag, or that name it", "none", " ".join(found.left) or "none", not found.left),
        Figure("tries that touched the neighbour", "0", f"{found.touched}", not found.touched),
        Figure("tries without tombstone, or with another audit trail", "0", f"{found.trails}", not found.trails),
    ]
    chart = Chart("", "", {"keys": [(0.0, float(found.keys))], "steps": [(0.0, float(found.steps))]}, "bars")
    return Result(TITLE, ["", ""], rows, figures, chart, msgspec.to_builtins(found))
