"""Takeover of dead workers, by any live one, any number at once, restartable at every step (design 3.2).

Dead = this rescuer has read the same beat for `dead_after` seconds of its own monotonic clock, over one unbroken connection, at least five
times, and could write its own all the while (a full server refuses everybody's). Order: revoke by compare-and-set, read, settle each lease
(outcomes; intent without outcome = doubt; the rest READY), put the accounts into the index, only then delete the journal. What a dead
worker had in hand and nowhere written (an account just found, a lease just taken) is found by the sweep, which is asked for at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import structlog

from sendengine import records
from sendengine.engine.settings import EngineSettings
from sendengine.ports import Blame, Queue, Settlement
from sendengine.types import Outcome

log = structlog.get_logger("sendengine.takeover")

LEAST_READINGS = 5
ALL_ROWS = b"\xff" * records.MASK_OCTETS
DIED = msgspec.json.encode(["4.3.0", "the worker died between its intent and an answer", ""])


class Sighting(msgspec.Struct):
    """What a rescuer has seen of a worker: its token and beat, since when, how often."""

    token: bytes
    beat: bytes
    since: float
    readings: int


class Takeover:
    """Owner of the sightings. `wall`: Redis' time in seconds, by which the dead worker's MAIL times are read."""

    def __init__(self, queue: Queue, worker: str, settings: EngineSettings, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._queue, self._worker, self._settings, self._now, self._wall = queue, worker, settings, now, wall
        self._seen: dict[str, Sighting] = {}
        self._generation = -1

    def forget(self) -> None:
        """What was seen proves nothing: nobody's beat could be written."""
        self._seen.clear()

    async def watch(self) -> None:
        """One round: read the beats of the others, rescue what is dead."""
        if self._generation != self._queue.generation:
            self._seen.clear()
            self._generation = self._queue.generation
        others = [name for name in await self._queue.workers() if name != self._worker]
        self._seen = {name: seen for name, seen in self._seen.items() if name in others}
        for name in others:
            await self._look_at(name)

    async def _look_at(self, name: str) -> None:
        beat = await self._queue.beat(name)
        now = self._now()
        if beat is None:  # the journal is gone and only its registration stands: a takeover died in its last step
            await self._bury(name)
            return
        seen = self._seen.get(name)
        if seen is None or (seen.token, seen.beat) != beat or self._generation != self._queue.generation:
            self._seen[name] = Sighting(*beat, since=now, readings=1)
            return
        seen.readings += 1
        if now - seen.since >= self._settings.dead_after and seen.readings >= LEAST_READINGS:
            await self._rescue(name, seen)

    async def _rescue(self, name: str, seen: Sighting) -> None:
        journal = await self._queue.revoke(name, seen.token, seen.beat)
        if not journal:
            self._seen.pop(name, None)
            return
        rescued = settlements_of(journal, int(self._wall() * 1000))
        for account, settlements in rescued.items():
            await self._queue.visit(account, 0, 0.0, "=", [], settlements)
            await self._queue.leave(account)
        for account in rescued:
            await self._queue.offer(account, 0)
        await self._bury(name)
        self._seen.pop(name, None)
        log.warning("worker_taken_over", worker=name, accounts=len(rescued), leases=sum(map(len, rescued.values())))

    async def _bury(self, name: str) -> None:
        await self._queue.bury(name)
        await self._queue.ask_sweep()

    async def sweep(self) -> None:
        """Accounts with work that stand nowhere go back into the index; a lease without a journal was never sent from."""
        lives: dict[str, bool] = {}  # a worker without a journal never gets one
        for account in await self._queue.accounts():
            need, leases = await self._queue.need(account)
            for worker in set(leases.values()) - lives.keys():
                lives[worker] = await self._queue.beat(worker) is not None
            orphans = [token for token, worker in leases.items() if not lives[worker]]
            if orphans:
                await self._queue.visit(account, 0, 0.0, "=", [], [give_back(token, Blame.SUSPECT) for token in orphans])
            if (need >= 0 and len(orphans) == len(leases)) or orphans:
                await self._queue.offer(account, max(need, 0.0))


def give_back(token: bytes, blame: Blame = Blame.NONE) -> Settlement:
    """All of a lease."""
    return Settlement(token, records.NO_ROWS, b"", b"{}", records.NUMS.pack(*[0] * 8, 0.0, 0.0, 0.0), back=ALL_ROWS, blame=blame)


def settlements_of(journal: Mapping[bytes, bytes], now_ms: int) -> dict[str, list[Settlement]]:
    """A dead worker's journal as one settlement a lease, by account. Pure: the last entry of a row is what became of it."""
    notes: dict[int, records.Note] = {}
    replies: dict[int, bytes] = {}
    ticks: list[tuple[int, bytes]] = []
    for name, value in journal.items():
        if name[:1] == b"L":
            notes[int(name[1:])] = records.decode_note(value)
        elif name[:1] == b"R":
            replies[int(name[1:])] = value
        elif name.isdigit():
            ticks.append((int(name), value))
    rows: dict[int, dict[int, tuple[int, bytes]]] = {number: {} for number in notes}
    for _, blob in sorted(ticks):
        for kind, lease, body in records.journal_entries(blob):
            if lease in rows:
                rows[lease][body[0]] = (kind, body)
    by_account: dict[str, list[Settlement]] = {}
    blamed: set[tuple[str, str, int]] = set()
    for number, note in notes.items():
        batch = note.account, note.campaign, note.batch
        blame = Blame.NONE
        if batch not in blamed and _may_have_killed(note, rows[number]):
            blame = Blame.KILL
            blamed.add(batch)  # a death counts once, however many leases of a batch it left
        by_account.setdefault(note.account, []).append(_settlement(note.token, rows[number], replies, now_ms, blame))
    return by_account


def _may_have_killed(note: records.Note, rows: Mapping[int, tuple[int, bytes]]) -> bool:
    """Its batch was being opened, or something of it was on its way (docs/design/010)."""
    return note.is_opening or any(kind == records.KIND_INTENT for kind, _ in rows.values())


def _settlement(
    token: bytes, rows: Mapping[int, tuple[int, bytes]], replies: Mapping[int, bytes], now_ms: int, blame: Blame
) -> Settlement:  # fmt: skip
    finals, deferred, doubts = bytearray(), bytearray(), bytearray()
    final_rows: list[int] = []
    used: dict[int, None] = {}
    counts, tried = [0] * 6, 0
    times: list[tuple[float, bool]] = []
    for row, (kind, body) in rows.items():
        if mail_ms := records.mail_ms(kind, body):
            times.append((records.unwrap_ms(mail_ms, now_ms) * 1000.0, body[1] >= records.FIRST_TRY))
        if kind == records.KIND_OUTCOME:
            finals += body
            final_rows.append(row)
            counts[body[1] % records.FIRST_TRY - 1] += 1
            tried += body[1] >= records.FIRST_TRY
            used[int.from_bytes(body[3:5], "little")] = None
        elif kind == records.KIND_DEFERRED:
            deferred += body
        elif kind == records.KIND_DOUBT:
            doubts += body
            used[int.from_bytes(body[3:5], "little")] = None
        elif kind == records.KIND_INTENT:
            what = Outcome.UNKNOWN | records.FIRST_TRY
            doubts += records.DOUBT.pack(row, what, 1, records.NO_REPLY - 1, 0, 0.0, 0.0, 0, 0)
            used[records.NO_REPLY - 1] = None
    texts = {**replies, records.NO_REPLY - 1: DIED}
    dictionary = b",".join(b'"%d":%b' % (n, texts[n]) for n in used if n in texts)
    return Settlement(
        token=token,
        final=records.mask_of(final_rows),
        records=bytes(finals),
        dictionary=b"{" + dictionary + b"}",
        nums=records.NUMS.pack(*counts, tried, len(times), *_span(times)),
        deferred=bytes(deferred),
        doubts=bytes(doubts),
        back=ALL_ROWS,
        blame=blame,
    )


def _span(times: list[tuple[float, bool]]) -> tuple[float, float, float]:
    """First first try's MAIL, last first try's, last of all; 0.0 where there is none."""
    first = [at for at, is_first in times if is_first]
    return min(first, default=0.0), max(first, default=0.0), max((at for at, _ in times), default=0.0)
