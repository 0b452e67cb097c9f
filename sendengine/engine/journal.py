"""The worker's journal: intents before bytes, outcomes before settlement, trimmed exactly (design 3.1.5 and 3.2).

One append a tick writes what is about to go and what became of what went; no acknowledged append, no bytes. A tick is one field of the
journal. It goes when nothing in it is open or unsettled, and everything before it has gone; an intent that stays open for long, and an
outcome that its account does not settle, are written anew in a later tick, so that neither a slow relay nor an account out of reach pins
anything (docs/design/014). The journal knows nothing of rates or SMTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile

import structlog

from sendengine import records
from sendengine.engine.identity import Identity
from sendengine.engine.settings import EngineSettings
from sendengine.engine.work import Delivery, Lease, Unsettled
from sendengine.errors import Unavailable
from sendengine.ports import Meter, News, Queue

log = structlog.get_logger("sendengine.journal")

CARRY_EVERY = 1.0
# An answer is the older the longer it took: what was asked so long before it came tells of a past in which a pause, a cancel or a rescuer
# had not been. With `append_fresh` it bounds how late a MAIL follows the append, well within the second in which a pause acts.
ANSWERED_WITHIN = 0.5
RESYNC_TICKS = 200  # fields written in one append when everything is written again


class Tick:
    """One field of the journal. `unresolved` counts intents without outcome and outcomes without settlement that stand in it; `awaited`
    the later ticks in which something of it was written anew and which do not stand yet."""

    __slots__ = (
        "acked_at", "awaited", "blob", "fields", "intents", "number", "outcomes", "picked", "repeats", "resolved_at", "unresolved",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.blob = bytearray()
        self.fields: list[bytes] = []  # notes and replies that must stand with it
        self.picked: list[Delivery] = []  # to be released when the append is answered
        self.intents: dict[Delivery, None] = {}  # open: picked here, or carried over from an older tick
        self.outcomes: list[Delivery] = []
        self.repeats: list[Tick] = []  # older ones of which something is written anew here
        self.unresolved = 0
        self.awaited = 0
        self.acked_at = 0.0
        self.resolved_at = 0.0


class Journal:
    """Owner of the ticks. `released` is told which deliveries may go, `news` what came in the inbox; `unsettled` tells what waits for its
    settlement."""

    def __init__(
        self, queue: Queue, identity: Identity, settings: EngineSettings, meter: Meter, now: Callable[[], float],
        released: Callable[[list[Delivery]], None], news: Callable[[News], None], resolved: Callable[[Lease], None],
        unsettled: Callable[[], Iterable[Unsettled]],
    ) -> None:  # fmt: skip
        self._queue = queue
        self._identity = identity
        self._settings, self._meter, self._now = settings, meter, now
        self._released, self._news, self._resolved, self._unsettled = released, news, resolved, unsettled
        self._ticks: deque[Tick] = deque()
        self._current = Tick(0)
        self._notes: dict[int, bytes] = {}
        self._replies: dict[bytes, int] = {}
        self._texts: list[bytes] = []
        self._gone: list[bytes] = []
        self._seen = 0  # news taken from the inbox, ever
        self._generation = queue.generation
        self._rewritten_at = 0.0
        self._carry_at = 0.0
        self._appending: set[asyncio.Task[None]] = set()
        self.doubtful = 0  # W: intents without a journalled outcome
        self.is_away = False
        self.asked_at = self.answered_at = now()  # when the last append was sent, and when one was answered
        self.wall_offset = 0.0  # Redis time = monotonic + wall_offset
        self._best_round_trip = float("inf")
        self.latency = 0.0  # of the last append, seconds
        self.failure: BaseException | None = None  # an append raised what is no outage: fenced, or a bug

    def begin(self) -> None:
        """The journal stands at the server, as new."""
        self._generation = self._queue.generation

    # what is written

    def note(self, lease: Lease, account: str, is_opening: bool = False) -> None:
        """The lease's number means this lease from now on."""
        value = records.encode_note(records.Note(account, lease.token, lease.campaign.id, lease.batch, is_opening))
        self._notes[lease.number] = value
        self._current.fields += (b"L%d" % lease.number, value)

    async def note_opening(self, lease: Lease, account: str) -> None:
        """The same of a suspect batch, and the note stands when this returns. Raises Unavailable: then the lease is unknown here."""
        self.note(lease, account, is_opening=True)
        appending = self.append()
        if appending is not None:
            await asyncio.wait([appending])
        if self.is_away or self.failure is not None:
            self.forget(lease)
            raise Unavailable("Redis is away: the note of a suspect batch does not stand")

    def forget(self, lease: Lease) -> None:
        """The lease has ended: nobody need know its number."""
        if self._notes.pop(lease.number, None) is not None:
            self._gone.append(b"L%d" % lease.number)

    def reply(self, text: bytes) -> int:
        """The number of a distinct reply, its text written before anything refers to it; NO_REPLY when all numbers are used."""
        number = self._replies.get(text)
        if number is None:
            if len(self._replies) >= records.RESCUER_REPLY:
                return records.NO_REPLY
            number = self._replies[text] = len(self._replies)
            self._texts.append(text)
            self._current.fields += (b"R%d" % number, text)
        return number

    def reply_text(self, number: int) -> bytes:
        return self._texts[number]

    def intend(self, delivery: Delivery) -> None:
        """It is about to go."""
        self._current.picked.append(delivery)
        self._open_intent(delivery)

    def _open_intent(self, delivery: Delivery) -> None:
        tick, lease = self._current, delivery.lease
        delivery.tick = tick
        tick.intents[delivery] = None
        tick.unresolved += 1
        tick.blob += records.INTENT.pack(records.KIND_INTENT, lease.number, delivery.row)
        self.doubtful += 1

    def resolve(self, delivery: Delivery, kind: int, body: bytes, mail_wall: float, reply: int) -> None:
        """What became of it (kind and body: records.py)."""
        tick = self._current
        delivery.is_resolved = True
        delivery.kind, delivery.record, delivery.mail_wall, delivery.reply = kind, body, mail_wall, reply
        tick.outcomes.append(delivery)
        tick.blob += records.ENTRY.pack(kind, delivery.lease.number) + body
        if kind != records.KIND_WITHDRAWN:
            tick.unresolved += 1

    @property
    def in_flight(self) -> int:
        """Appends on their way."""
        return len(self._appending)

    @property
    def has_entries(self) -> bool:
        return bool(self._current.blob or self._current.fields)

    @property
    def picked(self) -> int:
        """Intents that wait for the next append."""
        return len(self._current.picked)

    @property
    def waiting(self) -> int:
        """Intents and outcomes that wait for the next append."""
        return len(self._current.picked) + len(self._current.outcomes)

    # the append

    def lose(self, error: Exception) -> None:
        """Redis is away, whoever has met it: nothing is sent until `recover`."""
        if not self.is_away:
            log.warning("redis_away", error=str(error))
        self.is_away = True

    def append(self) -> asyncio.Task[None] | None:
        """Send the present tick; several may be on their way. While Redis is away nothing is sent: `recover` does it."""
        if self.is_away:
            return None
        self._carry()
        tick, self._current = self._current, Tick(self._current.number + 1)
        if tick.blob:
            self._ticks.append(tick)
        task = asyncio.get_running_loop().create_task(self._append(tick))
        self._appending.add(task)
        task.add_done_callback(self._appended)
        return task

    def _appended(self, task: asyncio.Task[None]) -> None:
        self._appending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()

    async def _append(self, tick: Tick) -> None:
        fields = list(tick.fields)
        if tick.blob:
            fields += (b"%d" % tick.number, bytes(tick.blob))
        try:
            asked = await self._write(self._trim(), fields)
        except Unavailable as error:
            self.lose(error)
            return
        if self._queue.generation != self._generation:
            self.is_away = True  # a new connection: Redis may have lost its last writes, and takes are among them
            return
        self._acknowledge(tick, asked)
        self._meter.appended(self.latency, self.doubtful)

    async def _write(self, gone: list[bytes], fields: list[bytes]) -> float:
        """One append; its news are delivered; when it was asked. News are numbered since the journal began: the same ones read twice count
        once."""
        asked = self.asked_at = self._now()
        try:
            reply = await self._queue.append(self._identity.id, self._identity.token, self._seen, gone, fields)
        except BaseException:  # cancelled, too: what may not have been deleted is deleted again
            self._gone += gone
            raise
        self.answered_at = self._now()
        self.latency = self.answered_at - asked
        if self.latency <= self._best_round_trip * 1.5:
            self._best_round_trip = min(self._best_round_trip, self.latency)
            self.wall_offset = reply.now_us / 1e6 - (asked + self.answered_at) / 2
        unseen = reply.news[max(0, self._seen - reply.confirmed) :]
        self._seen = max(self._seen, reply.confirmed + len(reply.news))
        for item in unseen:
            self._news(item)
        return asked

    def _acknowledge(self, tick: Tick, asked: float) -> None:
        """Its intents may go, while the answer is fresh; its outcomes may be settled."""
        now = tick.acked_at = self._now()
        fresh_since = min(now, asked + ANSWERED_WITHIN)
        for older in tick.repeats:
            older.awaited -= 1
        tick.repeats = []
        self._absorb(tick)
        picked, tick.picked = tick.picked, []
        if picked:
            for delivery in picked:
                delivery.acked_at = fresh_since
            self._released(picked)

    def _absorb(self, tick: Tick) -> None:
        """Each outcome to its lease."""
        outcomes, tick.outcomes = tick.outcomes, []
        leases: dict[Lease, int] = {}
        for delivery in outcomes:
            lease, intent = delivery.lease, delivery.tick
            if intent is not None:  # else it was decided without a byte: unrenderable, expired
                del intent.intents[delivery]
                self.doubtful -= 1
                if delivery.kind == records.KIND_WITHDRAWN:
                    intent.unresolved -= 1
                    intent.resolved_at = tick.acked_at
                    continue
                refs = lease.refs
                refs[intent] = refs.get(intent, 0) + 1
            lease.absorb(delivery, tick.acked_at)
            leases[lease] = leases.get(lease, 0) + 1
        for lease, n in leases.items():
            lease.refs[tick] = lease.refs.get(tick, 0) + n
            self._resolved(lease)

    # what goes

    def settled(self, refs: dict[Tick, int]) -> None:
        """A settlement was accepted: what it took from these ticks need not stand for long."""
        now = self._now()
        for tick, n in refs.items():
            tick.unresolved -= n
            tick.resolved_at = now

    def _trim(self) -> list[bytes]:
        """Fields to delete, oldest first, never over an open intent; what was written anew goes only when the new stands."""
        gone, self._gone = self._gone, []
        limit = self._now() - self._settings.retain
        while self._ticks:
            tick = self._ticks[0]
            if tick.unresolved or tick.awaited or not tick.acked_at or max(tick.resolved_at, tick.acked_at) > limit:
                break
            self._ticks.popleft()
            if tick.blob:
                gone.append(b"%d" % tick.number)
        return gone

    def _carry(self) -> None:
        """What keeps old ticks is written anew, so that they can go: intents with a late answer, outcomes whose account is out of reach."""
        now = self._now()
        if now < self._carry_at:
            return
        self._carry_at = now + CARRY_EVERY
        limit = now - self._settings.carry_after
        old = list(takewhile(lambda tick: 0.0 < tick.acked_at <= limit, self._ticks))
        for tick in old:
            self._carry_intents(tick)
        if any(tick.unresolved for tick in old):
            self._carry_outcomes(set(old))

    def _carry_intents(self, old: Tick) -> None:
        """The open ones; not one whose outcome is on its way: the last entry counts."""
        still_open = [delivery for delivery in old.intents if not delivery.is_resolved]
        for delivery in still_open:
            del old.intents[delivery]
            old.unresolved -= 1
            self.doubtful -= 1
            self._open_intent(delivery)
        if still_open:
            self._await_new(old)

    def _carry_outcomes(self, old: set[Tick]) -> None:
        """Those of whole leases: nothing later is said of their rows, and a settlement that comes twice acts once."""
        new = self._current
        for unsettled in self._unsettled():
            if old.isdisjoint(unsettled.refs):
                continue
            for kind, bodies in unsettled.bodies:
                new.blob += records.entries(kind, unsettled.lease, bodies)
            for tick, n in unsettled.refs.items():
                tick.unresolved -= n
                self._await_new(tick)
            unsettled.refs.clear()
            unsettled.refs[new] = 1
            new.unresolved += 1

    def _await_new(self, old: Tick) -> None:
        old.awaited += 1
        self._current.repeats.append(old)

    # Redis was away

    async def recover(self) -> bool:
        """Write everything that is live again: Redis may have lost its last writes. True when it stands; nothing goes before `resume`."""
        self._seen = 0  # the inbox may have gone back, too
        try:
            # Connects: from here on it must be one connection. A beat that only deletes: all that a full server takes.
            await self._write(self._trim(), [])
            self._generation = self._queue.generation
            await self._write([], [item for n, value in self._notes.items() for item in (b"L%d" % n, value)])
            await self._write([], [item for text, n in self._replies.items() for item in (b"R%d" % n, text)])
            ticks, self._rewritten_at = list(self._ticks), self._now()
            for at in range(0, len(ticks), RESYNC_TICKS):
                part = ticks[at : at + RESYNC_TICKS]
                await self._write([], [item for tick in part for item in (b"%d" % tick.number, bytes(tick.blob))])
        except Unavailable:
            return False
        return self._generation == self._queue.generation  # else what the first connection took may be lost again

    def resume(self) -> bool:
        """What `recover` wrote counts as answered, and all goes on. False when the connection was lost meanwhile."""
        if self._generation != self._queue.generation:
            return False
        self.is_away = False
        for tick in list(self._ticks):
            if not tick.acked_at:
                self._acknowledge(tick, self._rewritten_at)
        log.info("journal_resynced", ticks=len(self._ticks), leases=len(self._notes))
        return True

    async def drain(self) -> None:
        """Wait until no append is on its way."""
        while self._appending:
            await asyncio.gather(*self._appending, return_exceptions=True)
