"""How much one key may ask: so many requests a second, so many long ones at a time. Plain arithmetic; time is passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sendengine.api import problems
from sendengine.api.problems import Problem

BURST_S = 2.0
SHARE = 4  # a single key gets one in so many


class Bucket:
    """Fills by `per_second`, up to BURST_S seconds' worth, at least one."""

    def __init__(self, per_second: float, now: float) -> None:
        self._rate, self._size = per_second, max(1.0, BURST_S * per_second)
        self._left, self._at = self._size, now

    def take(self, now: float) -> float:
        """0 when there was one; else the seconds until there is, and nothing is taken."""
        self._fill(now)
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0

    def is_full(self, now: float) -> bool:
        self._fill(now)
        return self._left >= self._size

    def _fill(self, now: float) -> None:
        self._left = min(self._size, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now


class Quota:
    """Requests that last. Owner of the count of those that go on."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most, self._each = what, most, max(1, most // SHARE)
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        return self._held.total()

    @contextmanager
    def one(self, holder: str) -> Iterator[None]:
        """Raises Problem where all are taken, by everybody or by this one."""
        if self.held >= self._most:
            raise Problem(problems.BUSY, f"{self._most} {self._what} go on in this process", headers={"Retry-After": "5"})
        if self._held[holder] >= self._each:
            raise Problem(problems.TOO_MANY, f"a key gets {self._each} {self._what} at a time", headers={"Retry-After": "5"})
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
