"""A provider and our binds to it: made on demand, kept, made anew after trouble (ports.Site).

A bind stays while the worker lives: receipts come by it. Failures in a row are backed off from, the longer the more there are; a refused
password for minutes, so that nobody locks the account. What the provider throttles is sent more slowly (policy/slowing.py), by all binds of
this worker together.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

import msgspec

from sendengine.channel.closing import closed
from sendengine.channel.smpp.session import Session, State
from sendengine.policy.slowing import Slowing
from sendengine.ports import Clock, Feed
from sendengine.types import Attempt, Fault, Provider, Stage

CONNECT_S = 30.0
BACK_OFF_FIRST, BACK_OFF_MOST, BACK_OFF_SPREAD = 1.0, 20.0, 0.3
AUTH_BACK_OFF = 300.0
TICK = 0.25
EARLY = 0.01  # a loop's timer may ring by its clock's resolution too soon


class SmppTrouble(msgspec.Struct):
    attempt: Attempt
    since: float
    retry_at: float


class Connection(asyncio.Protocol):
    """The asyncio side of one bind. Owned by its site."""

    def __init__(self, site: SmppSite, took: float) -> None:
        self._site, self._took = site, took
        self._is_paused = False
        self._alarm = 0.0  # when the pace lets the next part go

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        site = self._site
        now = site.clock.monotonic()
        self.session = Session(site.provider, site.feed, site.pace, now, self._took, site.feed.receipt, site.is_on_trial)
        site.add(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        was = self.session.state
        self.session.receive(data, self._site.clock.monotonic())
        if was is State.BINDING and self.session.state is State.BOUND:
            self._site.bound()
        self.pull()

    def connection_lost(self, error: Exception | None) -> None:
        self.session.break_off(self._site.clock.monotonic(), Fault.DISCONNECTED, str(error) if error else "the provider hung up")
        self._site.remove(self)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self.pull()

    def pull(self) -> None:
        if not self._is_paused:
            self._wake_in(self.session.pull(self._site.clock.monotonic()))
        self.flush()

    def _wake_in(self, wait: float) -> None:
        if not wait:
            return
        clock = self._site.clock
        at = clock.monotonic() + wait
        if not clock.monotonic() < self._alarm <= at:
            self._alarm = at
            clock.call_at(at, self.pull)

    def flush(self) -> None:
        out = self.session.take_output()
        if out and not self._transport.is_closing():
            self._transport.write(out)
        if self.session.state is State.ENDED:
            self._transport.close()

    def tick(self, now: float) -> None:
        self.session.tick(now)
        self.pull()

    def abort(self, detail: str) -> None:
        self.session.break_off(self._site.clock.monotonic(), Fault.DISCONNECTED, detail)
        self._transport.abort()


class SmppSite:
    def __init__(
        self, provider: Provider, feed: Feed, on_change: Callable[[], None], clock: Clock, random: Callable[[], float]
    ) -> None:  # fmt: skip
        self.relay = self.provider = provider
        self.feed, self.clock = feed, clock
        self.pace = Slowing(provider.rate)
        self.eightbit = True
        self.together = provider.window
        self._on_change, self._random = on_change, random
        self._connections: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._trouble: SmppTrouble | None = None
        self._failures = 0
        self._throttled_until = 0.0
        self._has_carried = False  # by a bind that has ended
        self._is_wanted = self._is_closing = self._is_ticking = False
        self._empty = asyncio.Event()

    @property
    def is_on_trial(self) -> bool:
        """The last bind broke, or could not be made, and none has carried anything since."""
        return self._failures > 0

    @property
    def sessions(self) -> int:
        return sum(connection.session.state is State.BOUND for connection in self._connections)

    @property
    def idle(self) -> int:
        return sum(connection.session.has_room for connection in self._connections)

    @property
    def is_open(self) -> bool:
        return self.sessions > 0 and not self._throttled_until

    @property
    def trouble(self) -> SmppTrouble | None:
        return None if self.is_open else self._trouble

    def wake(self) -> None:
        self._is_wanted = True
        self._wake()

    def _wake(self) -> None:
        for connection in self._connections:
            if connection.session.has_room:
                connection.pull()
        self._open_those_wanted()

    def warm(self) -> None:
        self._is_wanted = True
        self._open_those_wanted()

    def rest(self) -> None:
        """Where something was sent, receipts may come still: for them it is bound to anew."""
        self._is_wanted = self._has_carried or any(connection.session.has_carried for connection in self._connections)

    def share(self, workers: int) -> None:
        self.pace.share(workers)

    def throttle(self, seconds: float, reason: str) -> None:
        now = self.clock.monotonic()
        if now + seconds <= self._throttled_until:
            return
        self._throttled_until = now + seconds
        attempt = Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, now, detail=reason)
        self._trouble = SmppTrouble(attempt, now, self._throttled_until)
        self._let(False)
        self.clock.call_at(self._throttled_until, self._unthrottle)
        self._on_change()

    async def close(self, timeout: float) -> None:
        self._is_closing = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._connections):
            connection.session.unbind(self.clock.monotonic())
            connection.flush()
        await closed(self._connections, self._opening, self._empty, timeout)

    # what connections tell

    def add(self, connection: Connection) -> None:
        self._connections.append(connection)
        self._empty.clear()
        if not self._is_ticking:
            self._is_ticking = True
            self.clock.call_at(self.clock.monotonic() + TICK, self._tick)

    def bound(self) -> None:
        if not self._throttled_until:
            self._trouble = None
        self._let(not self._throttled_until)
        if self.sessions == 1:
            self._on_change()
        self._open_those_wanted()

    def remove(self, connection: Connection) -> None:
        was_open = self.is_open
        if connection in self._connections:
            self._connections.remove(connection)
        if connection.session.has_carried:
            self._failures = 0
            self._has_carried = True
        if connection.session.ended_by is not None and not self._is_closing:
            self._back_off(connection.session.ended_by)
        if not self._connections:
            self._empty.set()
        if not self.is_open or not was_open:
            self._on_change()

    # opening

    def _open_those_wanted(self) -> None:
        now = self.clock.monotonic()
        may = not self._is_closing and not self._throttled_until and (self._trouble is None or now >= self._trouble.retry_at - EARLY)
        while may and self._is_wanted and len(self._connections) + len(self._opening) < self.provider.binds:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
            may = self._failures == 0  # on trial: one at a time

    async def _open(self) -> None:
        provider, started = self.provider, self.clock.monotonic()
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, self.clock.monotonic() - started),
                    provider.host, provider.port, ssl=ssl.create_default_context() if provider.tls else None,
                )  # fmt: skip
        except (OSError, TimeoutError, ssl.SSLError) as error:
            fault = Fault.TLS if isinstance(error, ssl.SSLError) else Fault.TIMEOUT if isinstance(error, TimeoutError) else Fault.REFUSED
            self._back_off(Attempt(Stage.CONNECT, None, fault, 0.0, self.clock.monotonic(), detail=str(error) or "no answer"))
            self._on_change()

    # trouble

    def _back_off(self, attempt: Attempt) -> None:
        now = self.clock.monotonic()
        if self._trouble is not None and now < self._trouble.retry_at and attempt.stage is not Stage.AUTH:
            return  # of the same trouble: a provider that restarts cuts all binds at once
        self._failures += 1
        delay = AUTH_BACK_OFF if attempt.stage is Stage.AUTH else min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(self._failures - 1, 16))
        since = self._trouble.since if self._trouble else now
        self._trouble = SmppTrouble(attempt, since, now + delay * (1.0 + BACK_OFF_SPREAD * self._random()))
        self.clock.call_at(self._trouble.retry_at, self._open_those_wanted)

    def _let(self, may: bool) -> None:
        for connection in self._connections:
            connection.session.may_pull = may

    def _unthrottle(self) -> None:
        if self._throttled_until and self._throttled_until <= self.clock.monotonic() + EARLY:
            self._throttled_until = 0.0
            self._trouble = None
            self._let(True)
            self._on_change()
            self._wake()

    def _tick(self) -> None:
        self._is_ticking = False
        now = self.clock.monotonic()
        for connection in list(self._connections):
            connection.tick(now)
        if self._connections:
            self._is_ticking = True
            self.clock.call_at(now + TICK, self._tick)
