"""How fast a provider is sent to that asks us to go slower. Pure bookkeeping; times come in as arguments, in seconds.

A throttling answer halves what was lately reached and stops sending for a moment; then the pace grows by a quarter each second, until it is
twice what it was when the peer last complained: from there on only the provider's own `rate` binds, if it has one.
"""

from __future__ import annotations

STOP = 0.5  # after a throttling answer
SLOWEST = 1.0  # parts a second
GROWTH = 1.25  # a second
FREE_AT = 2.0  # times the rate at which the peer complained
BURST = 0.02  # seconds' worth that may go at once: a loop's timers ring late


class Slowing:
    def __init__(self, rate: float = 0.0) -> None:
        self._rate = self._most = rate or float("inf")  # the provider's own, and this worker's part of it
        self._pace = self._most
        self._complained_at = float("inf")  # the rate that was too much
        self._next = self._grown = 0.0  # when the next part may go; up to when the pace has grown
        self._complained = float("-inf")
        self._count, self._since, self._reached = 0, 0.0, 0.0

    @property
    def is_slowed(self) -> bool:
        return self._pace < self._most

    def share(self, workers: int) -> None:
        """So many have equal parts of the provider's own rate."""
        is_slowed, self._most = self.is_slowed, self._rate / workers
        self._pace = min(self._pace, self._most) if is_slowed else self._most

    def wait(self, now: float) -> float:
        """Seconds until a part may go; 0: now."""
        self._grow(now)
        return max(0.0, self._next - now)

    def sent(self, now: float) -> None:
        self._count += 1
        if now - self._since >= 1.0:
            self._reached, self._count, self._since = self._count / max(1.0, now - self._since), 0, now
        if self._pace < float("inf"):
            interval = 1 / self._pace
            self._next = max(self._next, now - max(BURST, interval)) + interval

    def throttled(self, now: float) -> None:
        """Answers to what was on its way already are of the same complaint."""
        if self.is_slowed and now - self._complained < STOP:
            return
        self._complained = now
        lately = max(self._reached, self._count / max(1.0, now - self._since))
        if not self.is_slowed or lately < self._complained_at:
            self._complained_at = max(SLOWEST, min(lately, self._pace))
        self._pace = max(SLOWEST, min(lately, self._pace) / 2)
        self._next, self._grown = now + STOP, now

    def _grow(self, now: float) -> None:
        if not self.is_slowed or now - self._grown < 1.0:
            return
        self._pace *= GROWTH ** (now - self._grown)
        self._grown = now
        if self._pace >= FREE_AT * self._complained_at or self._pace >= self._most:
            self._pace = self._most
