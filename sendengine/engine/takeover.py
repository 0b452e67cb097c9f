"""Takeover of dead workers, by any live one, any number at once, restartable at every step (design 3.2).

Dead = this rescuer has read the same beat for `dead_after` seconds of its own monotonic clock, over one unbroken connection, at least five
times, and could write its own all the while (a full server refuses everybody's). Order: revoke by compare-and-set, read, settle each lease
(outcomes; intent without outcome = doubt; the rest READY), put the accounts into the index, only then delete the journal. One that is
revoked already belongs to whoever meets it, at once: nobody can append to it, and its rescuer may have died. What a dead worker had in
hand and nowhere written (an account just found, a lease just taken) is found by the sweep, which is asked for at once.
A damaged journal stops nobody: what can be read of it stands, the rest is in doubt (docs/design/011).
A worker or an account whose slot of a Cluster is away keeps no other waiting: each has a bounded time, and the next round meets it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
import structlog

from sendengine import records
from sendengine.batch import unpack
from sendengine.engine.identity import Identity
from sendengine.engine.remains import ALL_ROWS, Remains, marks_in, read, settle_untold, settlements_of
from sendengine.engine.settings import EngineSettings
from sendengine.errors import SendEngineError, Unavailable
from sendengine.policy.suppression import pack_mark
from sendengine.ports import Blame, Queue, Settlement

log = structlog.get_logger("sendengine.takeover")

LEAST_READINGS = 5
PATIENCE = 1.0  # seconds that one worker's beat, or one account, is waited for
AT_ONCE = 32  # of them
DAMAGE_SHOWN, DAMAGE_SHOWN_FIELDS = 256, 5  # octets a field, fields


class Sighting(msgspec.Struct):
    """What a rescuer has seen of a worker: its token and beat, since when, how often."""

    token: bytes
    beat: bytes
    since: float
    readings: int


class Takeover:
    """Owner of the sightings. `wall`: Redis' time in seconds, by which the dead worker's MAIL times are read."""

    def __init__(self, queue: Queue, own: Identity, settings: EngineSettings, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._queue, self._own, self._settings, self._now, self._wall = queue, own, settings, now, wall
        self._seen: dict[str, Sighting] = {}
        self._freed: dict[str, set[str]] = {}  # of a worker whose journal stands yet: accounts that it has no lease of any more
        self._strays: list[str] = []  # accounts with work that stood nowhere when they were looked at
        self._generation = -1

    def forget(self) -> None:
        """What was seen proves nothing: nobody's beat could be written."""
        self._seen.clear()

    async def watch(self) -> None:
        """One round: read the beats of the others, rescue what is dead."""
        if self._generation != self._queue.generation:
            self._seen.clear()
            self._freed.clear()
            self._generation = self._queue.generation
        others = [name for name in await self._queue.workers() if name != self._own.id]
        self._seen = {name: seen for name, seen in self._seen.items() if name in others}
        self._freed = {name: freed for name, freed in self._freed.items() if name in others}
        beats: dict[str, tuple[float, tuple[bytes, bytes] | None]] = {}

        async def look_at(name: str) -> None:
            beat = await self._queue.beat(name)
            beats[name] = self._now(), beat

        for name in await _each(others, look_at):
            self._seen.pop(name, None)  # it may not have been able to write its beat either
        for name, (at, beat) in beats.items():
            try:
                await self._judge(name, at, beat)
            except Unavailable as error:
                log.warning("worker_not_taken_over", worker=name, error=str(error))

    async def _judge(self, name: str, now: float, beat: tuple[bytes, bytes] | None) -> None:
        """`now`: when that beat was read."""
        if beat is None:  # the journal is gone and only its registration stands: a takeover died in its last step
            await self._bury(name)
            return
        if beat[0] == records.REVOKED:
            await self._rescue(name, *beat)
            return
        seen = self._seen.get(name)
        if seen is None or (seen.token, seen.beat) != beat or self._generation != self._queue.generation:
            self._seen[name] = Sighting(*beat, since=now, readings=1)
            return
        seen.readings += 1
        if now - seen.since >= self._settings.dead_after and seen.readings >= LEAST_READINGS:
            await self._rescue(name, *beat)

    async def _rescue(self, name: str, token: bytes, beat: bytes) -> None:
        journal = await self._queue.revoke(name, token, beat)
        if not journal:
            self._seen.pop(name, None)
            return
        remains = read(journal)
        rescued = settlements_of(remains, int(self._wall() * 1000))
        if remains.damaged:
            _log_damage(name, remains, journal)
        is_told = not remains.lacks_notes or await self._add_untold(name, remains, rescued)
        self._seen.pop(name, None)
        if not await self._free(name, rescued, {note.token: note for note in remains.notes.values()}) or not is_told:
            return
        await self._bury(name)
        self._freed.pop(name, None)
        log.warning("worker_taken_over", worker=name, accounts=len(rescued), leases=sum(map(len, rescued.values())))

    async def _free(self, name: str, rescued: Mapping[str, list[Settlement]], notes: Mapping[bytes, records.Note]) -> bool:
        """Its leases, account by account, and each back into the index. False while one is out of reach, as its slot of a Cluster may be
        alone: the journal stands until that one is freed, and the others' permits are cut once."""
        freed = self._freed.setdefault(name, set())

        async def free(account: str) -> None:
            marked = await asyncio.gather(*(self._marked(account, notes, settlement) for settlement in rescued[account]))
            await self._queue.visit(account, 0, 0.0, "=", [], marked)
            await self._queue.leave(account)
            await self._queue.offer(account, 0)
            freed.add(account)

        for account, why in (await _each([account for account in rescued if account not in freed], free)).items():
            log.warning("account_not_freed", worker=name, account=account, error=why)
        return freed >= rescued.keys()

    async def _marked(self, account: str, notes: Mapping[bytes, records.Note], settlement: Settlement) -> Settlement:
        """With what its outcomes say of their addresses, as their worker would have settled them; which had bounced softly before is not
        known here, so that each success is one."""
        found, note = marks_in(settlement), notes.get(settlement.token)
        if not found or note is None or (stored := await self._queue.payload(account, note.campaign, note.batch)) is None:
            return settlement
        try:
            batch = unpack(stored)
        except SendEngineError:  # nobody can read it, or this release cannot: its outcomes stand all the same
            return settlement
        names = dict(zip(batch.positions, batch.recipients, strict=True))
        marks = [pack_mark(row, mark, names[row].encode(), self._settings.limits) for row, mark in found.items() if row in names]
        return msgspec.structs.replace(settlement, marks=b"".join(marks))

    async def _add_untold(self, name: str, remains: Remains, rescued: dict[str, list[Settlement]]) -> bool:
        """Its leases that no readable note names. Without a note lacking they were never sent from, and are the sweep's. False while an
        account is out of reach: that one is freed when all its leases are known."""
        noted = {note.token for note in remains.notes.values()}

        async def add(account: str) -> None:
            _, leases = await self._queue.need(account)
            untold = [token for token, worker in leases.items() if worker == name and token not in noted]
            if untold:
                rescued.setdefault(account, []).extend(settle_untold(remains, token) for token in untold)

        unknown = await _each(await self._queue.accounts(), add)
        for account in unknown:
            rescued.pop(account, None)
        return not unknown

    async def _bury(self, name: str) -> None:
        await self._queue.bury(name)
        await self._queue.ask_sweep()

    async def sweep(self) -> None:
        """Accounts with work that stand nowhere go back into the index; a lease without a journal was never sent from. An account that is
        due may just have been found, and two workers of it would get in each other's way: `look_at_strays` decides."""
        lives: dict[str, bool] = {}  # a worker without a journal never gets one
        await _each(await self._queue.accounts(), lambda account: self._sweep_one(account, lives))

    async def _sweep_one(self, account: str, lives: dict[str, bool]) -> None:
        need, leases = await self._queue.need(account)
        for worker in set(leases.values()) - lives.keys():
            lives[worker] = await self._queue.beat(worker) is not None
        orphans = [token for token, worker in leases.items() if not lives[worker]]
        if orphans:
            await self._queue.visit(account, 0, 0.0, "=", [], [give_back(token, Blame.SUSPECT) for token in orphans])
            await self._queue.offer(account, max(need, 0.0))
        elif need >= 0 and not leases and not await self._queue.hasten(account, need):
            self._strays.append(account)

    @property
    def has_strays(self) -> bool:
        """Some wait for their second look."""
        return bool(self._strays)

    async def look_at_strays(self) -> None:
        """Some time after the sweep: who had just found one holds a lease of it by now."""
        strays, self._strays = self._strays, []
        self._strays += await _each(strays, self._offer_stray)

    async def _offer_stray(self, account: str) -> None:
        need, leases = await self._queue.need(account)
        if need >= 0 and not leases:
            await self._queue.offer(account, need)


async def _each(names: Iterable[str], work: Callable[[str], Awaitable[None]]) -> dict[str, str]:
    """Some at a time, each within PATIENCE. Of those that are out of reach: why."""
    failed: dict[str, str] = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with places:
            try:
                async with asyncio.timeout(PATIENCE):
                    await work(name)
            except Unavailable as error:
                failed[name] = str(error)
            except TimeoutError:
                failed[name] = f"no answer for {PATIENCE:g} s"

    await asyncio.gather(*map(one, names))
    return failed


def _log_damage(worker: str, remains: Remains, journal: Mapping[bytes, bytes]) -> None:
    """All that is kept of a damaged journal: its fields' names, and the first octets of a few."""
    names = remains.damaged
    octets = {repr(name): journal[name][:DAMAGE_SHOWN].hex() for name in names[:DAMAGE_SHOWN_FIELDS] if name in journal}
    log.error(
        "journal_damaged", worker=worker, damaged=len(names), notes_lack=remains.lacks_notes, ticks_lack=remains.lacks_ticks,
        leases_noted=len(remains.notes), octets=octets,
    )  # fmt: skip


def ask_after(token: bytes) -> Settlement:
    """Nothing of a lease: whether it acts tells whether the lease stands."""
    return give_back(token, rows=b"")


def give_back(token: bytes, blame: Blame = Blame.NONE, rows: bytes = ALL_ROWS) -> Settlement:
    """All of a lease, or these rows of it."""
    return Settlement(token, records.NO_ROWS, b"", b"{}", records.NUMS.pack(*[0] * 8, 0.0, 0.0, 0.0), back=rows, blame=blame)
