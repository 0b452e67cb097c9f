"""The last second of the grace, and the first one behind it: renewed there it resumes, here it is refused and everything of it is purged.

Redis' clock is everybody's and stays what it is: the end of the term is put back by the days instead, which is all that anybody compares
it with. On a clock that is moved itself: tests/engine/test_gate.py.
"""

from __future__ import annotations

import asyncio

import msgspec

from benchmarks.bench import Figure, Result, figure_of
from benchmarks.gates.scene import SOON, WATCHED, WITHIN, Scene, Whole, burst, scene
from benchmarks.plots import Chart
from sendengine.errors import Conflict
from sendengine.policy.term import DAY

TITLE = "gates.grace: a renewal at 9 d 23 h 59 m 59 s, and one at 10 d 0 h 0 m 1 s"
PER_HOUR = 72_000
_IN_TIME, _LATE = "m1001", "m1002"
_GRACE = 10 * DAY


class Found(msgspec.Struct, frozen=True):
    sent: tuple[int, int]  # when the term had ended: of both accounts
    asked: float  # seconds from the call of the renewal to the first MAIL
    resumed: float  # from its return
    whole: Whole
    excess: float
    event: str  # status of the event that renews too late
    verb: str  # what the verb says
    came: int  # MAILs of that account behind its end
    purged: bool  # gone, with its tombstone and its line, and nothing else


async def run(quick: bool) -> Result:
    return result(await measure(200 if quick else 1000))


async def measure(count: int, per_hour: int = PER_HOUR) -> Found:
    async with scene() as s:
        await s.workers(2)
        for account in (_IN_TIME, _LATE):
            await s.account(account, per_hour)
            await s.event(account, "subscription.renewed", ends=None)
            await s.submit(account, count)
        for account in (_IN_TIME, _LATE):
            await s.until_seen(account, count // 3)
            await s.event(account, "subscription.expired")
        await asyncio.sleep(WATCHED)
        sent = len(s.seen(_IN_TIME)), len(s.seen(_LATE))
        await _end(s, _IN_TIME, _GRACE - 1.0)
        asked = s.now()
        await s.event(_IN_TIME, "subscription.renewed", ends=None)
        renewed = s.now()
        await _end(s, _LATE, _GRACE + 1.0)
        event = await s.event(_LATE, "subscription.renewed", ends=None)
        verb = await _refusal(s)
        await s.client.purge(_LATE)
        await s.finished(_IN_TIME, SOON + count * 3600 / per_hour)
        times = s.times(_IN_TIME)
        return Found(
            sent, times[sent[0]] - asked, times[sent[0]] - renewed, await s.whole(_IN_TIME, count), burst(times, per_hour),
            event.status, verb, len(s.seen(_LATE)) - sent[1], await _is_purged(s),
        )  # fmt: skip


async def _end(s: Scene, account: str, ago: float) -> None:
    ends = await s.redis_now() - ago
    assert (await s.client.desk.set_gate(account, {}, {"term_ends": f"{ends * 1e6:.0f}"})).status == "done"


async def _refusal(s: Scene) -> str:
    try:
        await s.client.set_term(_LATE, "renew", ends="+30d")
    except Conflict as error:
        return str(error)
    return "renewed"


async def _is_purged(s: Scene) -> bool:
    desk = s.client.desk
    trail = [entry.what async for entry in s.client.audit(_LATE)]
    return not await desk.account(_LATE) and await desk.gone(_LATE) is not None and trail[-1] == "purged"


def result(found: Found) -> Result:
    rows = [
        ["1 s before the end of the grace", "renewed", f"first MAIL after {1e3 * found.resumed:,.0f} ms"],
        ["1 s behind it", found.event, "purged" if found.purged else "not purged"],
    ]
    whole = found.whole
    is_refused = found.event == "refused" and "its grace ended" in found.verb
    figures = [
        figure_of("renewal to the first MAIL, s", f"<= {WITHIN:g}", [found.resumed], found.asked >= 0 and found.resumed <= WITHIN),
        Figure("lost, twice", "0, 0", f"{whole.lost}, {whole.twice}", whole.is_whole),
        figure_of("above the ceiling, over the whole ledger", "<= 0", [found.excess], found.excess <= 0, 1),
        Figure("too late: event, verb", "refused", f"{found.event}: {found.verb}", is_refused),
        Figure("too late: MAILs, purged", "0, yes", f"{found.came}, {'yes' if found.purged else 'no'}", found.came == 0 and found.purged),
    ]
    chart = Chart("", "s", {"renewal to the first MAIL": [(0.0, found.resumed)]}, "bars")
    return Result(TITLE, ["renewed", "answer", ""], rows, figures, chart, msgspec.to_builtins(found))
