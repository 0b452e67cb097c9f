"""When a send will be through: its account's rate shared out over all that the account has to do.

Pure, and a fluid model: every send that runs has an equal share of the rate, and when one ends or waits the others have
all of it at once (domain rule 1.6). It steps from event to event (an end, a start, a window, a change of rate), each step
costs one look at every send, and a send ends once: O(n^2) for n sends without windows.
The last of N messages leaves one interval before N/r is over, since the first leaves at nought; so that much is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from sendengine.policy.window import Window

_HOUR = 3600.0
_NOTHING = 1e-6  # messages: what arithmetic leaves over
_BLINK = 1e-6  # seconds; UNIX time as a float is exact to a quarter of that, and a step must end what it was to end
_MAX_STEPS = 10_000  # some thirteen years of openings and closings every day


class Job(msgspec.Struct, frozen=True):
    """One send as the estimate sees it. Of the sequential ones the lowest rank runs, the others wait for it."""

    remaining: int  # recipients never tried
    starts_at: float = 0.0  # UNIX seconds; what has passed means now
    sequential_rank: int | None = None
    window: Window | None = None
    paused: bool = False


def estimate(
    now: float,
    rate_per_hour: float | None,
    jobs: Sequence[Job],
    index: int,
    changes: Sequence[tuple[float, float]] = (),
) -> float | None:
    """UNIX seconds at which jobs[index] will be through, or None when nothing that is known brings it there.

    `now` is when the account's next message may leave. `changes` are the later (time, rate per hour), ascending: boosts that
    begin or end. A rate of None is one nobody knows yet.
    """
    left = [float(job.remaining) for job in jobs]
    rate = (rate_per_hour or 0.0) / _HOUR
    doors = _Doors()
    at, coming = now, [change for change in changes if change[0] > now]
    for _ in range(2 * len(jobs) + len(coming) + _MAX_STEPS):
        if left[index] <= 0.0:
            return max(now, at - 1.0 / rate) if rate and jobs[index].remaining else at
        running = _running(jobs, left, at, doors)
        share = rate / len(running) if running else 0.0
        end = at + min(left[job] for job in running) / share if share else None
        event = _next_event(jobs, left, at, coming, doors)
        upto = min(time for time in (end, event) if time is not None) if end or event else None
        if upto is None:
            return None
        for job in running:
            left[job] -= share * (upto - at)
            if left[job] < max(_NOTHING, share * _BLINK):
                left[job] = 0.0
        at = upto
        while coming and coming[0][0] <= at:
            rate = coming.pop(0)[1] / _HOUR
    return None


class _Doors:
    """Which windows are open, and until when. Each is asked only when that time has come: it is the costly part."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bool, float]] = {}

    def state(self, window: Window, at: float) -> tuple[bool, float]:
        known = self._known.get(window.text)
        if known is None or at >= known[1]:
            is_open = window.is_open(at)
            turn = window.next_close(at) if is_open else window.next_open(at)
            known = self._known[window.text] = is_open, inf if turn is None else turn
        return known


def _running(jobs: Sequence[Job], left: Sequence[float], at: float, doors: _Doors) -> list[int]:
    """Those that get a share at this time. A send outside its window keeps its turn in the line; a paused one loses it."""
    ready = [which for which, job in enumerate(jobs) if left[which] and not job.paused and job.starts_at <= at]
    ranks = [rank for which in ready if (rank := jobs[which].sequential_rank) is not None]
    turn = min(ranks, default=None)
    ready = [which for which in ready if jobs[which].sequential_rank in (None, turn)]
    return [which for which in ready if (window := jobs[which].window) is None or doors.state(window, at)[0]]


def _next_event(
    jobs: Sequence[Job], left: Sequence[float], at: float, coming: Sequence[tuple[float, float]], doors: _Doors
) -> float | None:
    """The next time at which something but an end changes who runs or how fast."""
    times = [change[0] for change in coming[:1]]
    for which, job in enumerate(jobs):
        if not left[which] or job.paused:
            continue
        if job.starts_at > at:
            times.append(job.starts_at)
        elif job.window is not None:
            times.append(doors.state(job.window, at)[1])
    return min((time for time in times if time < inf), default=None)
