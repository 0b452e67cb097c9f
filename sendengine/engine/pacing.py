"""Permits on the worker's clock, and the wheel that says whose turn it is. Pure bookkeeping: times come in as arguments.

A permit is a delay from the script's now, counted on this worker's monotonic clock from the reply: late by a round trip, never early.
Permits end in two ways, lapse and cut (design 3.2); they are never given back one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

PACE_WINDOW = 60.0
PACE_GAP = 0.5  # seconds beyond which a silence was no part of the pacing


class Run:
    """Permits granted in one visit: n of them, `interval` apart, the next one due at `at` (monotonic s)."""

    __slots__ = ("at", "cut", "deal", "held", "interval", "left", "offset", "used")

    def __init__(
        self, at: float, interval: float, n: int, cut: int, offset: float, deal: bytes = b"", held: Sequence[Any] = ()
    ) -> None:
        self.at = at
        self.interval = interval
        self.left = n
        self.cut = cut  # the cut number they were granted under
        self.offset = offset  # Redis time = monotonic + offset, as this visit saw it
        self.deal = deal
        self.held = held  # what the places in the deal stand for
        self.used = 0

    @property
    def end(self) -> float:
        """When the last permit is due."""
        return self.at + (self.left - 1) * self.interval

    def pop(self) -> tuple[float, Any]:
        """The next permit: (due, whose turn it is; None where nothing is shared)."""
        due, turn = self.at, self.held[self.deal[self.used]] if self.deal else None
        self.at += self.interval
        self.left -= 1
        self.used += 1
        return due, turn


class Permits:
    """An account's permits in this worker, in the order of their times. Owner: its lane."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: deque[Run] = deque()

    def grant(self, run: Run) -> None:
        if run.left > 0:
            self.runs.append(run)

    def put_back(self, run: Run) -> None:
        """A permit that was taken out and not used: among the others by its time."""
        place = 0
        while place < len(self.runs) and self.runs[place].at < run.at:
            place += 1
        self.runs.insert(place, run)

    def next_due(self) -> float | None:
        return self.runs[0].at if self.runs else None

    def end(self) -> float | None:
        """When the last permit held is due."""
        return self.runs[-1].end if self.runs else None

    def is_due(self, before: float) -> bool:
        """The next one is due before that."""
        runs = self.runs
        return bool(runs) and runs[0].at < before

    def count(self) -> int:
        return sum(run.left for run in self.runs)

    def pop(self, before: float) -> tuple[float, Any, Run] | None:
        """The next permit, if it is due before that: (due, turn, run)."""
        run = self.runs[0] if self.runs else None
        if run is None or run.at >= before:
            return None
        due, turn = run.pop()
        if not run.left:
            self.runs.popleft()
        return due, turn, run

    def lapse(self, before: float) -> None:
        """Those due before it are over, unused."""
        while self.is_due(before):
            self.pop(before)

    def apply_cut(self, number: int, cut_us: float) -> None:
        """Permits later than cut_us (Redis time) and granted under a smaller number are void."""
        kept: deque[Run] = deque()
        for run in self.runs:
            if run.cut < number:
                last = cut_us / 1e6 - run.offset
                while run.left and run.end > last:
                    run.left -= 1
            if run.left:
                kept.append(run)
        self.runs = kept


class Wheel(Generic[Item]):
    """Items by the tick in which they fall due; an item may stand in several places, who takes it out decides what that means."""

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._buckets: dict[int, list[Item]] = {}
        self._done = -1  # buckets up to here were taken out

    def put(self, when: float, item: Item) -> None:
        number = max(int(when / self._tick), self._done + 1)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [item]
        else:
            bucket.append(item)

    def take(self, until: float) -> list[Item]:
        """All items due before `until`, to the resolution of a tick; never one that is due later than until + tick."""
        last = int(until / self._tick)
        if not self._buckets:
            self._done = last
            return []
        if last - self._done > len(self._buckets):
            numbers = sorted(n for n in self._buckets if n <= last)
        else:
            numbers = [n for n in range(self._done + 1, last + 1) if n in self._buckets]
        self._done = last
        return [item for n in numbers for item in self._buckets.pop(n)]


class Pace:
    """The achieved rate against the contracted one, over windows of a minute without a gap (domain 1.3)."""

    __slots__ = ("first", "interval", "last", "n")

    def __init__(self) -> None:
        self.first = self.last = self.interval = 0.0
        self.n = 0

    def add(self, at: float, interval: float) -> float | None:
        """A MAIL at this time; the rate error when it ends a window. A pause, or another rate, begins a new one."""
        if interval != self.interval or not interval or at - self.last > 2 * interval + PACE_GAP:
            self.first, self.n, self.interval = at, 0, interval
        self.n += 1
        self.last = max(self.last, at)
        if self.last - self.first < PACE_WINDOW or self.n < 2:
            return None
        error = (self.n - 1) / (self.last - self.first) * interval - 1
        self.first, self.n = self.last, 1
        return error
