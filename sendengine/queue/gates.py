"""The gate on Redis: the account is written, every worker is told of every lane, and what needs a worker is put into the index."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sendengine.ports import Gated
from sendengine.queue import keys, scripts
from sendengine.queue.link import Argument, Caller
from sendengine.queue.redis import spread_news


async def set_gate(
    link: Caller, cut_delay: str, account: str, seen: Mapping[str, str], fields: Mapping[str, str], before_us: float | None, line: bytes
) -> Gated:
    flat: list[Argument] = [len(seen), *(item for pair in [*seen.items(), *fields.items()] for item in pair)]
    limit, key = "" if before_us is None else f"{before_us:.0f}", keys.account(account)
    status, *rest = await scripts.commit(link, "gate", (key,), cut_delay, limit, line, *flat, mark=keys.mark(key))
    if not rest:
        return Gated(status.decode())
    for lane, number, at in zip(rest[1::3], rest[2::3], rest[3::3], strict=True):
        await tell(link, account + lane.decode(), number, float(at))
    if status == b"same":  # who asked before may have died before it told anybody
        for name in await lanes(link, account):
            await tell(link, name)
    return Gated(status.decode(), float(rest[0]))


async def tell(link: Caller, lane: str, cut: int = 0, cut_us: float = 0.0) -> None:
    """Workers hear of it; a lane that none is attached to goes into the index for its next need."""
    await spread_news(link, lane, cut, cut_us)
    need, leases, *_ = await scripts.run(link, "need", (keys.account(lane),))
    if not leases and float(need) >= 0:
        await link.call("ZADD", keys.INDEX, "LT", need, lane)


async def lanes(link: Caller, account: str) -> list[str]:
    """Those that there are."""
    names = [account + channel for channel in keys.CHANNELS]
    found = await asyncio.gather(*(link.call("EXISTS", keys.account(name)) for name in names))
    return [name for name, exists in zip(names, found, strict=True) if exists]
