"""A session on a transport: bytes in, bytes out, time looked at. It decides nothing.

One write and one read per message; no task, future or timer per message. The transport's high-water mark is the least
it can be: then "paused" means that octets of the last write are still here, and nothing is written behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sendengine.channel.flight import State
from sendengine.channel.session import Session

# Between the feed's look at the clock and the write lie microseconds, unless the process stands still just there: then a MAIL that was in
# time may follow a pause by seconds. A second look leaves a few of them, into which no process can look.
IN_TIME = 0.1

_ENDED = State.ENDED  # a global: looking it up in the Enum costs more than comparing it


class Pool(Protocol):
    """Who owns the sessions: told when one has nothing to do, and when one is over."""

    def became_idle(self, connection: Connection) -> None: ...
    def ended(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """The asyncio side of one session. Owned by its pool; made for a transport whose EHLO is done."""

    def __init__(
        self, transport: asyncio.Transport, session: Session, pool: Pool, time: Callable[[], float]
    ) -> None:
        self.session = session
        self.opened_at = time()
        self.is_idle = False
        self.idle_since = 0.0
        self._transport = transport
        self._pool = pool
        self._time = time
        self._is_paused = False
        self._is_over = False
        # A TLS transport pauses at its mark, a TCP one above it: at zero the former would call an empty buffer full.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1, low=0)
        transport.set_protocol(self)

    def pull(self) -> bool:
        """Writes what is due: the next delivery if there is one. True if anything was written."""
        if self._is_paused or self._is_over:
            return False
        return self._pump(self._time())

    def tick(self, now: float) -> None:
        self.session.tick(now, self._unflushed())
        if self.session.state is _ENDED:
            self._finish()

    def retire(self) -> None:
        """No further delivery; QUIT when all is answered."""
        self.session.retire()
        self.pull()

    def abort(self, detail: str) -> None:
        self.session.lost(self._time(), detail, self._unflushed())
        self._finish()

    def data_received(self, data: bytes) -> None:
        session = self.session
        now = self._time()
        if self._is_paused:
            session.note_unflushed(self._transport.get_write_buffer_size())
        session.receive(data, now)
        if session.state is _ENDED:
            self._finish()
        elif not self._is_paused:
            self._pump(now)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if not self._is_over:
            self._pump(self._time())

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.lost(self._time(), str(exc or "the peer closed the connection"))
        self._finish()

    def _unflushed(self) -> int:
        return self._transport.get_write_buffer_size() if self._is_paused else 0

    def _pump(self, now: float) -> bool:
        session = self.session
        octets = self._in_time(session.next_write(now), now)
        if not octets:
            if not self.is_idle and session.is_idle:
                self.is_idle = True
                self.idle_since = now
                self._pool.became_idle(self)
            return False
        self.is_idle = False
        self._transport.write(octets)
        while session.has_more and not self._is_paused:
            now = self._time()
            self._transport.write(self._in_time(session.next_write(now), now))
        return True

    def _in_time(self, octets: bytes, looked_at: float) -> bytes:
        now = self._time()
        return octets if now - looked_at <= IN_TIME else self.session.take_back(octets, now)

    def _finish(self) -> None:
        """A session that ended is never used again: whatever is unwritten or unread goes with it."""
        if self._is_over:
            return
        self._is_over = True
        self._transport.abort()
        self._pool.ended(self)
