"""How soon a verb is in force: from its return to the last message under the state before it, some hundred times.

Twenty accounts send at once and are paused, resumed, made faster and slower again and again, each at its own moments. What counts is the
time at which the sink read MAIL.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from benchmarks import csink
from benchmarks.bench import Bench, Chart, Figure, Result, bench
from benchmarks.punctual import Lateness, observed
from benchmarks.tier_change import FAST, SLOW, Script

TITLE = "verbs: from a verb's return to the last message under the old state"
_GAPS = 4  # a stretch of so many gaps tells the rates apart, whatever a busy sink does to one of them
_BETWEEN = (_GAPS * 3600 / SLOW + _GAPS * 3600 / FAST) / 2
_LONGEST_S = 1.0  # after a verb; what comes later under the old state is a miss whatever its time
LIMITS = {"pause": 0.1, "slower": 0.3}


async def run(quick: bool) -> Result:
    accounts, cycles = (5, 3) if quick else (20, 15)
    async with bench() as b, observed() as lateness:
        sink = csink.start(b.stage)
        b.stage.worker()
        await b.workers_ready()
        played = await asyncio.gather(*(_play(b, f"m{1001 + place}", cycles, place * 0.173, sink.port) for place in range(accounts)))
        await asyncio.to_thread(b.stage.stop, sink.process)
        seen: dict[int, list[float]] = {}
        for at, account in csink.mails(sink.ledger):
            seen.setdefault(account, []).append(at)
    delays: dict[str, list[float]] = {"pause": [], "slower": [], "resume": [], "faster": []}
    for place, own in enumerate(played):
        for cycle in own:
            for verb, delay in _delays(sorted(seen[1001 + place]), cycle).items():
                delays[verb].append(delay)
    return _result(delays, lateness)


async def _play(b: Bench, account: str, cycles: int, offset: float, port: int) -> list[Script]:
    await asyncio.sleep(offset)
    await b.account(account, str(SLOW), port)
    send = await b.submit(account, int(cycles * 7.0 * SLOW / 3600))
    played = []
    await asyncio.sleep(2.0)
    for _ in range(cycles):
        await b.client.set_tier(account, str(FAST))
        faster = time.time()
        await asyncio.sleep(1.3)
        await b.client.set_tier(account, str(SLOW))
        slower = time.time()
        await asyncio.sleep(1.6)
        await b.client.pause(send.id)
        paused = time.time()
        await asyncio.sleep(1.1)
        await b.client.resume(send.id)
        played.append(Script(faster, slower, paused, time.time()))
        await asyncio.sleep(1.3 + offset / 20)
    await b.client.cancel(send.id)
    return played


def _delays(times: Sequence[float], cycle: Script) -> dict[str, float]:
    """At least 0: under the old state before the verb returned is no delay."""
    quick = [
        (late, late - early < _BETWEEN)
        for early, late in zip(times, times[_GAPS:], strict=False)
        if cycle.doubled - 1 < late < cycle.paused
    ]
    fast_until = max((at for at, is_quick in quick if is_quick and at < cycle.halved + _LONGEST_S), default=cycle.halved)
    fast_from = min((at for at, is_quick in quick if is_quick and at > cycle.doubled), default=cycle.doubled + _LONGEST_S)
    sent_until = max(at for at in times if at < cycle.resumed)
    sent_from = min((at for at in times if at >= cycle.resumed), default=cycle.resumed + _LONGEST_S)
    return {
        "pause": max(0.0, sent_until - cycle.paused),
        "slower": max(0.0, fast_until - cycle.halved),
        "resume": sent_from - cycle.resumed,
        "faster": max(0.0, fast_from - cycle.doubled),
    }


def _result(delays: dict[str, list[float]], lateness: Lateness) -> Result:
    rows, figures = [], []
    for verb, found in delays.items():
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        rows.append([verb, str(len(found)), *(f"{1e3 * cuts[at]:,.0f}" for at in (49, 89, 98)), f"{1e3 * max(found):,.0f}"])
        if verb in LIMITS:
            limit, what = LIMITS[verb], f"{verb}, p99 of {len(found)}"
            figures.append(Figure(what, f"<= {1e3 * limit:.0f} ms", f"{1e3 * cuts[98]:,.0f} ms", cuts[98] <= limit, str(lateness)))
    series = {
        verb: [(100 * (place + 1) / len(found), 1e3 * delay) for place, delay in enumerate(sorted(found))] for verb, found in delays.items()
    }
    columns = ["verb", "times", "p50 ms", "p90 ms", "p99 ms", "most ms"]
    return Result(TITLE, columns, rows, figures, Chart("percent of the verbs", "ms", series), {"delays": delays})
