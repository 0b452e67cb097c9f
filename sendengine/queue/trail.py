"""An account's audit trail on Redis: lines are noted in the account's slot with the change that they tell of, and moved from there to a
stream that outlives the account."""

from __future__ import annotations

from collections.abc import Callable

from sendengine.queue import keys, scripts
from sendengine.queue.link import Argument, Caller

LATELY = 100


async def fill(link: Caller, account: str, kept_from_ms: float = 0.0) -> None:
    """All there is to tell by now: of runs that go on, or were broken off, too."""
    if await link.call("EXISTS", keys.account(account) + ":runs"):
        await scripts.commit(link, "fold", (keys.account(account),), mark=keys.mark(keys.account(account)))
    await move(link, account, kept_from_ms)


async def move(link: Caller, account: str, kept_from_ms: float = 0.0) -> None:
    """What was noted goes where it outlives the account. Who noted it may have died before: the next one comes by."""
    noted = keys.account(account) + ":audit"
    flat = await link.call("HGETALL", noted)
    if not flat:
        return
    lines = sorted(zip(map(int, flat[::2]), flat[1::2], strict=True))
    await write(link, account, [part for number, line in lines for part in (number, *line.split(b" ", 1))], kept_from_ms)
    await link.call("HDEL", noted, *flat[::2])


async def write(link: Caller, account: str, lines: list[Argument], kept_from_ms: float = 0.0) -> None:
    """Number ("" is the next one), µs and line of each; those older than they are kept go."""
    key = keys.trail(account)
    await scripts.commit(link, "audit", (key,), f"{max(0.0, kept_from_ms):.0f}", *lines, mark=keys.mark(keys.INDEX))


async def has_lately(link: Caller, account: str, is_it: Callable[[bytes], bool]) -> bool:
    """Whether one of its last lines is such a one."""
    last = await link.call("XREVRANGE", keys.trail(account), "+", "-", "COUNT", LATELY)
    return any(is_it(flat[1]) for _, flat in last)
