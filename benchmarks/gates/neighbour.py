"""A neighbour's rate at the relay before, while and after everything of a large account is purged.

The purge is over soon, and what it unlinked is freed beside what the server answers; so what counts is a window that begins with it and is
as long as the ones before and after it. The longest gap between two MAILs in it is told, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from benchmarks.bench import Figure, Result, figure_of, message, write_list
from benchmarks.gates.scene import Scene, between, burst, rate, scene
from benchmarks.plots import Chart
from sendengine.policy.term import DAY
from sendengine.queue import keys
from sendengine.queue.link import Link

TITLE = "gates.neighbour: one account's rate while another one's rows are purged"
BOUND_S = 900.0
PER_HOUR = 600_000
_OWN, _LARGE, _SENDS, _RAMP_S, _WANTED = "m1001", "m1002", 10, 1.0, 0.02


class Found(msgspec.Struct, frozen=True):
    rows: int
    keys: int  # of the large account
    megabytes: float  # that its keys held
    took: float  # seconds, of the purge
    left: int  # of its keys
    rates: dict[str, float]  # before, while, after: messages a second, by their spacing
    gaps: dict[str, float]  # the longest between two MAILs, s
    excess: float

    @property
    def change(self) -> float:
        return max(abs(self.rates[name] / self.rates["before"] - 1) for name in ("while", "after"))


async def run(quick: bool) -> Result:
    return result(await measure(*((200_000, 5.0) if quick else (10_000_000, 20.0))))


async def measure(count: int, window: float, per_hour: int = PER_HOUR) -> Found:
    async with scene() as s:
        await _load(s, count)
        await s.workers(1)
        await s.account(_OWN, per_hour)
        await s.submit(_OWN, int(per_hour / 3600 * (3 * window + _RAMP_S + 5)))
        link = Link(s.stage.url)
        try:
            names = await link.call("KEYS", keys.account(_LARGE) + "*")
            held = sum([await link.call("MEMORY", "USAGE", name, "SAMPLES", 0) or 0 for name in names])
            await s.until_seen(_OWN, 1)
            await asyncio.sleep(window + _RAMP_S)
            ends = await s.redis_now() - 11 * DAY  # now: a worker purges by itself what is due when it starts
            await s.client.desk.set_gate(_LARGE, {}, {"term": "active", "term_ends": f"{ends * 1e6:.0f}"})
            asked = s.now()
            await s.client.purge(_LARGE)
            took = s.now() - asked
            await asyncio.sleep(2 * window)
            left = len(await link.call("KEYS", keys.account(_LARGE) + "*"))
        finally:
            await link.close()
        times = s.times(_OWN)
        starts = {"before": asked - window, "while": asked, "after": asked + window}
        parts = {name: between(times, at, at + window) for name, at in starts.items()}
        return Found(
            count, len(names), held / 1e6, took, left, {name: rate(part) for name, part in parts.items()},
            {name: _longest(part) for name, part in parts.items()}, burst(times, per_hour),
        )  # fmt: skip


async def _load(s: Scene, count: int) -> None:
    """In several sends; paused, so that no worker sends them."""
    await s.account(_LARGE, 1_000_000)
    path, share = s.stage.folder / "list.csv", count // _SENDS
    await asyncio.to_thread(write_list, path, _LARGE, share)
    for number in range(_SENDS):
        await s.client.submit(account=_LARGE, message=message(_LARGE), recipients=path, campaign=f"bench-{number}")
        await s.client.pause(f"{_LARGE}:bench-{number}")
    path.unlink()


def _longest(times: Sequence[float]) -> float:
    return max(late - early for early, late in pairwise(times))


def result(found: Found) -> Result:
    rows = [[name, f"{found.rates[name]:.3f}/s", f"{1e3 * found.gaps[name]:,.1f} ms"] for name in found.rates]
    about = f"{found.rows:,} rows, {found.keys} keys, {found.megabytes:,.0f} MB, purged in {1e3 * found.took:,.0f} ms"
    figures = [
        figure_of(f"the neighbour's rate ({about}): change, %", "within 2", [100 * found.change], found.change <= _WANTED),
        Figure("keys left", "0", f"{found.left}", not found.left),
        figure_of("above the ceiling, over the whole ledger", "<= 0", [found.excess], found.excess <= 0, 1),
    ]
    chart = Chart("", "messages/s", {name: [(0.0, each)] for name, each in found.rates.items()}, "bars")
    return Result(TITLE, ["neighbour", "rate", "longest gap"], rows, figures, chart, msgspec.to_builtins(found))
