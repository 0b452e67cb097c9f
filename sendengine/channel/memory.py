"""The channel's twin without a network: a function says what happens to each delivery, a clock says when.

It keeps the promises of ports.Site and ports.Feed: pulls at the moment of "writing", reports each delivery once.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sendengine.ports import Clock, Feed
from sendengine.types import Attempt, Envelope, Fault, Relay, Reply, Stage

Script = Callable[[Envelope], Attempt]

EARLY = 0.001  # a loop's timer may ring by its clock's resolution too soon
DELIVERED = Attempt(Stage.DOT, Reply(250, "2.0.0", "Ok: queued"), None, 0.0, 0.0)


class MemoryTrouble(msgspec.Struct):
    attempt: Attempt
    since: float
    retry_at: float


class MemorySite:
    """Opens all its sessions at once when first woken or warmed; each carries up to `together` deliveries for `latency`."""

    def __init__(
        self, relay: Relay, feed: Feed, on_change: Callable[[], None], channel: MemoryChannel, clock: Clock
    ) -> None:
        self.relay = relay
        self.sessions = 0
        self.idle = 0
        self.eightbit = True
        self.together = channel.together
        self.feed = feed
        self.on_change = on_change
        self._channel = channel
        self._clock = clock
        self._trouble: MemoryTrouble | None = None

    @property
    def is_open(self) -> bool:
        return self.sessions > 0 and self._trouble is None

    @property
    def trouble(self) -> MemoryTrouble | None:
        return self._trouble

    def wake(self) -> None:
        self.warm()
        while self.is_open and self.idle and not self._channel.is_closed:
            delivery = self.feed.next()
            if delivery is None:
                return
            self.idle -= 1
            self._carry(self._company_of(delivery), self._clock.monotonic())

    def warm(self) -> None:
        if not self.sessions and self._trouble is None:
            self.sessions = self.idle = self._channel.sessions
            self.on_change()

    def rest(self) -> None:
        """Its trouble ends by itself."""

    def share(self, workers: int) -> None:
        """A relay has no rate of its own."""

    def throttle(self, seconds: float, reason: str) -> None:
        self.fail(Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, self._clock.monotonic(), detail=reason), seconds)

    def fail(self, attempt: Attempt, seconds: float) -> None:
        """The relay cannot be reached for so long; what is on the wire goes on."""
        now = self._clock.monotonic()
        self._trouble = MemoryTrouble(attempt, now, now + seconds)
        self._clock.call_at(now + seconds, self._recover)
        self.on_change()

    def _recover(self) -> None:
        if self._trouble and self._trouble.retry_at <= self._clock.monotonic() + EARLY:
            self._trouble = None
            self.on_change()
            self.wake()

    def _company_of(self, first: Envelope) -> list[Envelope]:
        """Those that go with it: none where it goes alone."""
        together = [first]
        while not first.is_alone and len(together) < self.together and (another := self.feed.next(True)) is not None:
            together.append(another)
        return together

    def _carry(self, deliveries: list[Envelope], mail_at: float) -> None:
        def end() -> None:
            self.idle += 1
            for delivery in deliveries:
                attempt = self._channel.script(delivery)
                stamp = 0.0 if attempt.fault is Fault.UNSUITABLE else mail_at
                now = self._clock.monotonic()
                self.feed.done(delivery, msgspec.structs.replace(attempt, mail_at=stamp, ended_at=now))
            self.wake()

        self._clock.call_at(mail_at + self._channel.latency, end)


class MemoryChannel:
    """`script` answers every delivery; it may be replaced at any time. Users test with it too."""

    def __init__(
        self, clock: Clock, script: Script = lambda _: DELIVERED, sessions: int = 4, latency: float = 0.001,
        together: int = 1,
    ) -> None:  # fmt: skip
        self.script = script
        self.sessions = sessions
        self.together = together  # messages that a session carries at once
        self.latency = latency
        self.is_closed = False
        self.sites: dict[Relay, MemorySite] = {}
        self._clock = clock

    def site(self, relay: Relay, feed: Feed, on_change: Callable[[], None]) -> MemorySite:
        if relay not in self.sites:
            self.sites[relay] = MemorySite(relay, feed, on_change, self, self._clock)
        return self.sites[relay]

    async def close(self, timeout: float) -> None:
        """Takes nothing more; what is on the wire ends as its clock is turned."""
        self.is_closed = True
