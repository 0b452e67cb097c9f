"""A cancelled account sends on at full rate, to the second its term ends; what is left then is held, and fails nowhere (domain 3)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec

from benchmarks.bench import Figure, Result, figure_of
from benchmarks.gates.scene import WATCHED, WITHIN, between, burst, rate, scene
from benchmarks.plots import Chart
from sendengine.scheduler.status import Status

TITLE = "gates.cancelled: rate before and after `subscription.cancelled`, and what becomes of the rest"
PER_HOUR = 200_000
_ACCOUNT, _PROCESSES, _RAMP_S = "m1001", 2, 1.0
_WANTED = 0.01


class Found(msgspec.Struct, frozen=True):
    before: float  # messages a second, by their spacing
    after: float
    last: float  # seconds from the end of the term to the last MAIL; negative: it came before
    phases: tuple[str, str]  # of the term: behind the event, behind its end
    binding: str
    state: str
    sent: int
    pending: int
    failed: int  # in any outcome but `sent`
    excess: float
    times: list[float]

    @property
    def change(self) -> float:
        return self.after / self.before - 1


async def run(quick: bool) -> Result:
    return result(await measure(5.0 if quick else 60.0))


async def measure(half: float, per_hour: int = PER_HOUR) -> Found:
    """The event comes in the middle of the `2 * half` seconds for which the term goes on."""
    async with scene() as s:
        await s.workers(_PROCESSES)
        await s.account(_ACCOUNT, per_hour)
        ends = await s.redis_now() + 2 * half + _RAMP_S
        await s.event(_ACCOUNT, "subscription.renewed", ends=datetime.fromtimestamp(ends, UTC))
        await s.submit(_ACCOUNT, int(per_hour / 3600 * (2 * half + 10)))
        await asyncio.sleep(half + _RAMP_S)
        asked = s.now()
        await s.event(_ACCOUNT, "subscription.cancelled")
        returned, phase = s.now(), (await s.client.term(_ACCOUNT)).phase
        at = await s.at(ends)
        await asyncio.sleep(at - s.now() + WATCHED)
        status, times = await s.status(_ACCOUNT), s.times(_ACCOUNT)
        before, after = between(times, times[0] + _RAMP_S, asked), between(times, returned, at)
        return Found(
            rate(before), rate(after), times[-1] - at, (str(phase), str((await s.client.term(_ACCOUNT)).phase)),
            status.binding.limit if status.binding else "none", status.state, status.sent, status.pending, _failed(status),
            burst(times, per_hour), times,
        )  # fmt: skip


def _failed(status: Status) -> int:
    return status.bounced + status.expired + status.suppressed + status.cancelled + status.unknown


def result(found: Found) -> Result:
    rows = [
        ["before the event", f"{found.before:.3f}/s", ""], ["after it", f"{found.after:.3f}/s", f"{100 * found.change:+.3f} %"],
        ["behind the end of the term", found.state, f"binds: {found.binding}, {found.pending:,} held"],
    ]  # fmt: skip
    figures = [
        figure_of("rate after the cancel against before, %", "within 1", [100 * found.change], abs(found.change) <= _WANTED),
        figure_of("end of the term to the last MAIL, s", f"-{WITHIN:g} to {WITHIN:g}", [found.last], abs(found.last) <= WITHIN),
        Figure("phases", "cancelled_active, grace", ", ".join(found.phases), found.phases == ("cancelled_active", "grace")),
        Figure("held, failed", "the rest, 0", f"{found.pending:,}, {found.failed}", found.binding == "term" and not found.failed),
        figure_of("above the ceiling, over the whole ledger", "<= 0", [found.excess], found.excess <= 0, 1),
    ]
    curve = [(at - found.times[0], float(place + 1)) for place, at in enumerate(found.times)]
    chart = Chart("seconds", "messages so far", {"sent": curve}, "-")
    return Result(TITLE, ["", "rate", ""], rows, figures, chart, msgspec.to_builtins(found))
