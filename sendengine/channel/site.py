"""A relay and our sessions to it: opened on demand, kept while useful, backed off from when it is in trouble.

Sessions double while all are busy. The relay is on trial while none of them has carried anything and one has failed: the last that had
carried broke, or one could not be opened or carried nothing. Then one at a time is opened, and the next only when that one has carried
something, which ends the trial, or has said nothing for as long as a failure would be backed off from. So a relay that went away meets one
connection and not all, one that only greets is no better than one that does not, and one session that hangs does not stop the others.
A relay that ends sessions between messages, or one by one while others carry on, is not in trouble.

A session takes deliveries from the feed by itself; the site only decides how many sessions there are. It knows nothing
of accounts or verdicts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import msgspec
from asyncio_throttle.throttler import Throttler

from sendengine.channel.closing import closed
from sendengine.channel.opening import Opened, TlsContexts, open_session
from sendengine.channel.protocol import Connection
from sendengine.channel.session import Session
from sendengine.channel.settings import SmtpSettings
from sendengine.ports import Clock, Feed
from sendengine.types import Attempt, Fault, Relay, Stage

BACK_OFF_FIRST, BACK_OFF_MOST = 1.0, 20.0  # a relay that comes back has its mail within half a minute
BACK_OFF_SPREAD = 0.3  # upwards only: never two attempts within a second
EARLY = 0.01  # a loop's timer may ring by its clock's resolution too soon
AUTH_BACK_OFF = 300.0  # a wrong password stays wrong until somebody changes it; do not have the account locked for it


class SiteTrouble(msgspec.Struct):
    attempt: Attempt
    since: float
    retry_at: float


class SmtpSite:
    """See ports.Site. `random` gives numbers in [0, 1) for the back-off."""

    def __init__(
        self,
        relay: Relay,
        feed: Feed,
        on_change: Callable[[], None],
        settings: SmtpSettings,
        contexts: TlsContexts,
        hostname: Callable[[], str],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.relay = relay
        self.sessions = 0
        self.idle = 0
        self.together = 1  # until a session can do more
        self.eightbit = False  # until a session says otherwise: what is rendered before must suit any
        self._feed = feed
        self._on_change = on_change
        self._settings = settings
        self._contexts = contexts
        self._hostname = hostname
        self._clock = clock
        self._random = random
        rate = settings.connect_rate
        self._pace = Throttler(rate_limit=max(1, round(rate)), period=max(1.0, 1.0 / rate))
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the last used is the first taken: the others may grow old and be closed
        self._opening: set[asyncio.Task[None]] = set()
        self._trouble: SiteTrouble | None = None
        self._failures = 0  # in a row
        self._cut_at = -math.inf  # when a session was lost last that was not left between messages
        self._is_on_trial = False
        self._awaited_until = 0.0  # on trial: so long the session that was opened last is given to carry something
        self._takes_chunks = True  # until BDAT proves unknown to a relay that offers CHUNKING
        self._is_wanted = False  # work waits, as far as we were told
        self._is_resting = False  # no account sends here
        self._throttled_until = 0.0
        self._is_closing = False
        self._is_ticking = False
        self._empty = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self.sessions > 0 and not self._is_throttled

    @property
    def trouble(self) -> SiteTrouble | None:
        return None if self.is_open else self._trouble

    def wake(self) -> None:
        self._is_resting = False
        self._wake()

    def _wake(self) -> None:
        if self._is_closing or self._is_throttled:
            return
        was_full = not self._idle
        while self._idle:
            connection = self._idle.pop()
            self.idle = len(self._idle)
            if not connection.pull():
                self._keep_idle(connection)
                return
        if was_full:
            self._open_one_more()

    def warm(self) -> None:
        self._is_resting = False
        if not self.sessions:
            self._open_one_more()

    def rest(self) -> None:
        self._is_resting = True

    def share(self, workers: int) -> None:
        """A relay has no rate of its own."""

    def throttle(self, seconds: float, reason: str) -> None:
        now = self._clock.monotonic()
        if now + seconds <= self._throttled_until:
            return
        self._throttled_until = now + seconds
        attempt = Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, now, detail=reason)
        self._trouble = SiteTrouble(attempt, now, self._throttled_until)
        for connection in self._connections:
            connection.session.may_pull = False
        self._clock.call_at(self._throttled_until, self._unthrottle)
        self._on_change()

    async def close(self, timeout: float) -> None:
        self._is_closing = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._connections):
            connection.retire()
        await closed(self._connections, self._opening, self._empty, timeout)

    # What connections tell (protocol.Pool)

    def became_idle(self, connection: Connection) -> None:
        self._is_wanted = False
        self._keep_idle(connection)

    def ended(self, connection: Connection) -> None:
        session = connection.session
        self._look_at_trial()
        self._connections.discard(connection)
        self.sessions = len(self._connections)
        if connection in self._idle:
            self._idle.remove(connection)
            self.idle = len(self._idle)
        self._note_end(connection)
        if not self._connections:
            self._empty.set()
            self._on_change()
        self._takes_chunks &= not session.is_chunking_refused
        if session.is_worn_out or (session.ended_by is not None and not (self._is_being_cut() and self._opening)):
            # It may have left work behind that nobody will announce again. Of a relay that dies, one session takes it.
            self._open_one_more()

    def _note_end(self, connection: Connection) -> None:
        session, now = connection.session, self._clock.monotonic()
        if session.ended_by is not None and session.ended_by.fault is not Fault.STALE:
            self._cut_at = now
        if session.has_carried:
            if session.ended_by is not None and self._is_being_cut() and not self._has_carriers():
                self._begin_trial()
        elif session.ended_by is not None:
            self._back_off(session.ended_by)
        elif now - connection.opened_at < BACK_OFF_FIRST and not self._is_closing:
            # Nothing was in flight yet; what is being prepared would open the next one, at every tick.
            self._back_off(Attempt(Stage.MAIL, None, Fault.DISCONNECTED, 0.0, now, detail="the relay greeted and hung up"))

    def _is_being_cut(self) -> bool:
        """A session was lost just now in the midst of a message: others that are lost between theirs have met the same."""
        return self._clock.monotonic() - self._cut_at < BACK_OFF_FIRST

    # Opening

    def _open_one_more(self) -> None:
        """Beside others that are being opened: doubles the sessions per time that opening one takes, up to the limit, but on trial."""
        self._is_wanted = True
        opening = len(self._opening)
        if opening + self.sessions >= self._settings.sessions or opening > self.sessions or not self._may_connect(opening):
            return
        task = asyncio.get_running_loop().create_task(self._open())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _may_connect(self, opening: int) -> bool:
        """Beside `opening` others: nothing is known that forbids it."""
        now = self._clock.monotonic()
        if self._is_closing or self._is_resting or self._is_throttled or now < self._retry_at:
            return False
        self._look_at_trial()
        if self._is_on_trial and now < self._awaited_until:
            return False
        return opening == 0 or not (self._is_on_trial or self._failures)

    async def _open(self) -> None:
        async with self._pace:
            if not self._may_connect(len(self._opening) - 1):  # trouble began while it waited
                self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))
                return
            started = self._clock.monotonic()
            result = await open_session(self.relay, self._settings, self._contexts, self._hostname(), started)
        self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))  # before anybody counts again
        if isinstance(result, Attempt):
            self._back_off(msgspec.structs.replace(result, ended_at=self._clock.monotonic()))
            self._on_change()
        elif self._is_closing:
            result.transport.abort()
        else:
            self._add(result, self._clock.monotonic() - started)

    def _add(self, opened: Opened, took: float) -> None:
        settings = self._settings
        features = opened.features
        if not self._takes_chunks:
            features = msgspec.structs.replace(features, chunking=False)
        session = Session(self._feed, features, settings.timeouts, took, settings.max_messages, settings.chunk_messages)
        session.may_pull = not self._is_throttled
        connection = Connection(opened.transport, session, self, self._clock.monotonic)
        self._connections.add(connection)
        self._empty.clear()
        self.sessions = len(self._connections)
        self.eightbit = opened.features.eightbit
        self.together = session.together
        self._watch()
        if not self._is_throttled:
            self._trouble = None
        if self.sessions == 1:
            self._on_change()
        if self._is_on_trial:
            self._await_trial()
        else:
            self._failures = 0
        connection.pull()

    def _keep_idle(self, connection: Connection) -> None:
        self._idle.append(connection)
        self.idle = len(self._idle)

    # Trouble

    @property
    def _is_throttled(self) -> bool:
        return self._throttled_until > 0.0

    @property
    def _retry_at(self) -> float:
        return self._trouble.retry_at if self._trouble else 0.0

    def _has_carriers(self) -> bool:
        """A session has carried something and lives."""
        return any(connection.session.has_carried for connection in self._connections)

    def _begin_trial(self) -> None:
        if not self._is_on_trial:
            self._is_on_trial, self._failures = True, 0
        self._awaited_until = 0.0

    def _look_at_trial(self) -> None:
        if self._is_on_trial and self._has_carriers():
            self._is_on_trial, self._failures = False, 0

    def _await_trial(self) -> None:
        self._awaited_until = self._clock.monotonic() + _delay(self._failures + 1)
        self._clock.call_at(self._awaited_until, self._await_no_longer)

    def _await_no_longer(self) -> None:
        """Its silence was one more failure, and has been waited for as one."""
        now = self._clock.monotonic()
        self._look_at_trial()
        if self._is_on_trial and 0.0 < self._awaited_until <= now + EARLY:
            self._awaited_until = 0.0
            self._failures += 1
            if self._is_wanted:
                self._open_one_more()

    def _back_off(self, attempt: Attempt) -> None:
        """Each failure in a row doubles the wait; those that come while one is waited for are of the same trouble: a relay that
        restarts cuts all sessions at once."""
        now = self._clock.monotonic()
        is_same = self._trouble is not None and now < self._retry_at and self._failures > 0
        has_carriers = self._has_carriers()
        if not has_carriers:
            self._begin_trial()
        if is_same and not _is_auth_refused(attempt):
            return
        self._failures = 1 if has_carriers else self._failures + 1
        delay = AUTH_BACK_OFF if _is_auth_refused(attempt) else _delay(self._failures)
        since = self._trouble.since if self._trouble else now
        self._trouble = SiteTrouble(attempt, since, now + delay * (1.0 + BACK_OFF_SPREAD * self._random()))
        self._clock.call_at(self._trouble.retry_at, self._retry)

    def _retry(self) -> None:
        now = self._clock.monotonic()
        if self._trouble and self._trouble.retry_at <= now + EARLY and self._is_wanted and not self._opening:
            self._trouble.retry_at = now
            self._open_one_more()

    def _unthrottle(self) -> None:
        now = self._clock.monotonic()
        if self._is_throttled and self._throttled_until <= now + EARLY:
            self._throttled_until = 0.0
            if self._retry_at <= now + EARLY:
                self._trouble = None
            for connection in self._connections:
                connection.session.may_pull = True
            self._on_change()
            self._wake()

    # Time

    def _watch(self) -> None:
        if not self._is_ticking and self._connections:
            self._is_ticking = True
            self._clock.call_at(self._clock.monotonic() + self._settings.tick, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        now = self._clock.monotonic()
        for connection in list(self._connections):
            connection.tick(now)
        for connection in list(self._idle):
            if now - connection.idle_since >= self._settings.idle_timeout:
                self._idle.remove(connection)
                self.idle = len(self._idle)
                connection.retire()
        self._watch()


def _delay(failures: int) -> float:
    """How long a relay is left alone after so many failures in a row."""
    return min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(failures - 1, 16))


def _is_auth_refused(attempt: Attempt) -> bool:
    is_permanent = attempt.reply.code >= 500 if attempt.reply else attempt.fault in (Fault.REFUSED, Fault.TLS)
    return attempt.stage is Stage.AUTH and is_permanent
