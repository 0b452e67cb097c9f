"""The worker's ports with faults in them: decorators around Queue, Feed and a session's transport. Production knows nothing of them.

Beside the failpoints there are controls: rules of the protocol left out, one at a time, to show that the account finds what they cost.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from sendengine import records
from sendengine.channel.smtp import SmtpChannel, SmtpSettings
from sendengine.errors import Fenced, Unavailable
from sendengine.ports import Appended, Clock, Feed, Settlement, Site, Taken, Visited
from sendengine.queue.link import Argument, Link
from sendengine.queue.redis import RedisQueue
from sendengine.types import Attempt, Envelope, Fault, Relay, Reply, Stage
from tests.failures.failpoints import Faults

# intents do not stand before the bytes; a refused append is taken for an accepted one; `sent` is settled before the reply; an append's
# answer stays fresh for ever; an append is answered before it is written; a connection that was lost is taken for a yes; now and then a
# yes is taken for a connection that was lost
CONTROLS = ("journal_off", "fence_off", "ack_first", "never_stale", "write_behind", "hopeful", "deaf")
DEAF_EVERY = 1000
WRITTEN_LATE_S = 1.0
LOST = "Redis is away: the answer never came"


class FaultyLink(Link):
    """Knows the one step that lies inside a call of the queue: the journal is deleted, its registration stands."""

    def __init__(self, url: str, faults: Faults) -> None:
        super().__init__(url)
        self._faults = faults
        self.is_rescuing = False

    async def call(self, *args: Argument) -> Any:
        if self.is_rescuing and args[0] == "SREM":
            self._faults.reach("mid_bury", Unavailable(LOST))
        return await super().call(*args)


# In the task that takes over, and in those that it begins for the accounts.
_is_rescue: ContextVar[bool] = ContextVar("is_rescue", default=False)


class FaultyQueue(RedisQueue):
    """`raise` before a call means that it never left, after it that the script has run and its answer was lost."""

    def __init__(self, url: str, cut_delay_us: float, faults: Faults, control: str = "") -> None:
        super().__init__(url, cut_delay_us)
        self._link = self._faulty = FaultyLink(url, faults)
        self._faults, self._control = faults, control
        self._late: set[asyncio.Task[None]] = set()

    async def take(
        self, account: str, worker: str, rows: int, tokens: Sequence[bytes], has_first: Sequence[str], has_retries: Sequence[str]
    ) -> Taken:
        taken = await super().take(account, worker, rows, tokens, has_first, has_retries)
        if taken.leases:
            self._faults.reach("after_take", Unavailable(LOST))
        return taken

    async def visit(
        self, account: str, want: int, horizon_us: float, bind: str, held: Sequence[str], settlements: Sequence[Settlement],
        lead_us: float = 0.0,
    ) -> Visited:  # fmt: skip
        is_rescue = _is_rescue.get()
        if settlements and not is_rescue:
            self._faults.reach("before_settle", Unavailable(LOST))
        visited = await super().visit(account, want, horizon_us, bind, held, settlements, lead_us)
        step = "after_rescue_visit" if is_rescue else "after_settle" if settlements else "after_visit"
        self._faults.reach(step, Unavailable(LOST))
        return visited

    async def append(
        self, worker: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]
    ) -> Appended:
        has_intents = any(name.isdigit() and _has_intent(blob) for name, blob in _pairs(fields))
        if gone:
            self._faults.reach("before_trim", Unavailable(LOST))
        if has_intents:
            self._faults.reach("before_append", Unavailable(LOST))
        if self._control == "journal_off":
            fields = [part for name, blob in _pairs(fields) for part in (name, _without_intents(blob) if name.isdigit() else blob)]
        if self._control == "write_behind":
            self._late.add(asyncio.create_task(self._write_late(worker, token, seen, gone, fields)))
            return Appended(time.time() * 1e6, seen, ())
        try:
            answer = await super().append(worker, token, seen, gone, fields)
        except Fenced:
            if self._control != "fence_off":
                raise
            answer = Appended(time.time() * 1e6, seen, ())
        if has_intents:
            self._faults.reach("after_append", Unavailable(LOST))
        return answer

    async def _write_late(self, *append: Any) -> None:
        """In their order, each as late as the others."""
        await asyncio.sleep(WRITTEN_LATE_S)
        await super().append(*append)

    async def revoke(self, worker: str, token: bytes, beat: bytes) -> Mapping[bytes, bytes]:
        journal = await super().revoke(worker, token, beat)
        if journal:
            _is_rescue.set(True)
            self._faults.reach("after_revoke", Unavailable(LOST))
        return journal

    async def offer(self, account: str, need_us: float) -> None:
        if _is_rescue.get():
            self._faults.reach("before_index", Unavailable(LOST))
        await super().offer(account, need_us)

    async def bury(self, worker: str) -> None:
        if _is_rescue.get():
            self._faults.reach("before_bury", Unavailable(LOST))
        self._faulty.is_rescuing = _is_rescue.get()
        await super().bury(worker)
        self._faulty.is_rescuing = False
        _is_rescue.set(False)


def _pairs(fields: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(fields[::2], fields[1::2], strict=True)


def _has_intent(blob: bytes) -> bool:
    return any(kind == records.KIND_INTENT for kind, _, _ in records.journal_entries(blob))


def _without_intents(blob: bytes) -> bytes:
    kept = [entry for entry in records.journal_entries(blob) if entry[0] != records.KIND_INTENT]
    return b"".join(records.ENTRY.pack(kind, lease) + body for kind, lease, body in kept)


class FaultyFeed:
    """ports.Feed: the moment between a reply and the engine's knowledge of it; and, as a control, `sent` said too early."""

    def __init__(self, inner: Feed, faults: Faults, control: str) -> None:
        self._inner, self._faults = inner, faults
        self._is_early, self._is_hopeful, self._is_deaf = control == "ack_first", control == "hopeful", control == "deaf"
        self._done = 0

    def next(self, in_company: bool = False) -> Envelope | None:
        delivery = self._inner.next(in_company)
        if delivery is not None and self._is_early:
            now = time.monotonic()
            self._inner.done(delivery, Attempt(Stage.DOT, Reply(250, "2.0.0", "said before it was heard"), None, now, now))
        return delivery

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        try:
            self._faults.reach("after_reply", ConnectionResetError("reset"), delivery.recipient.decode())
        except ConnectionResetError as error:  # the reset came first: the reply was never read
            attempt = msgspec.structs.replace(attempt, reply=None, fault=Fault.DISCONNECTED, detail=str(error))
        if self._is_hopeful and attempt.fault is not None:
            attempt = msgspec.structs.replace(attempt, stage=Stage.DOT, reply=Reply(250, "2.0.0", "never said"), fault=None)
        self._done += 1
        if self._is_deaf and self._done % DEAF_EVERY == 0:
            attempt = msgspec.structs.replace(attempt, reply=None, fault=Fault.DISCONNECTED, detail="never heard")
        if not self._is_early:
            self._inner.done(delivery, attempt)


class FaultyChannel(SmtpChannel):
    def __init__(self, settings: SmtpSettings, clock: Clock, faults: Faults, control: str = "") -> None:
        super().__init__(settings, clock)
        self._faults, self._control = faults, control

    def site(self, relay: Relay, feed: Feed, on_change: Callable[[], None]) -> Site:  # type: ignore[override]
        return super().site(relay, FaultyFeed(feed, self._faults, self._control), on_change)


class FaultyTransport:
    """A session's transport that breaks between two octets: what came before has left for the peer, what follows has not."""

    def __init__(self, inner: asyncio.Transport, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        if self._inner.get_write_buffer_size():  # its order would be lost
            self._inner.write(data)
            return
        for step, end in cuts(data):
            action = self._faults.pass_(step)
            if action is not None:
                self._break(action, data, end)
                return
        self._inner.write(data)

    def _break(self, action: str, data: bytes, end: int) -> None:
        """By the socket itself: the transport would keep the octets until the loop turns, and it may turn no more."""
        left = os.write(self._inner.get_extra_info("socket").fileno(), data[:end])
        self._faults.act(action, "{}:{}".format(*self._inner.get_extra_info("sockname")))
        if action == "raise":
            self._inner.abort()
        elif rest := data[left:]:
            self._inner.write(rest)


def cuts(data: bytes) -> Iterator[tuple[str, int]]:
    """The steps that a session's write passes, each with the octets that have left by then. A write is a message (DATA or BDAT) with
    the next commands behind it, or commands alone."""
    start, end = 0, 0
    if data.startswith(b"BDAT "):
        head, _, _ = data.partition(b"\r\n")
        start = len(head) + 2
        end = start + int(head.split()[1])
        yield from (("mid_body", (start + end) // 2), ("before_dot", end - 2), ("after_dot", end))
    elif (found := data.find(b"\r\n.\r\n")) >= 0:
        end = found + 5
        yield from (("mid_body", found // 2), ("before_dot", found + 2), ("after_dot", end))
    at = data.find(b"MAIL FROM:<", end)
    if at >= 0:
        yield "after_mail", data.index(b"\r\n", at) + 2
