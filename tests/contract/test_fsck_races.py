"""A repair is planned on one state and applied to another: a worker took, settled or freed rows meanwhile. What it did stands, what was
planted is mended, fsck finds nothing afterwards, and everybody ends once.

Who may send and who stands in line is computed by the repairing script itself, so nothing can come between; verbs and submits are in
test_queue_repair.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from struct import pack
from typing import Any

import msgspec
import pytest
from queue_bench import Bench, deferred, doubts, outcomes, rows, settlement

from sendengine.ports import Repair
from sendengine.queue.desk import RedisDesk
from sendengine.queue.memory import MemoryDesk
from sendengine.queue.memory_state import Portion
from sendengine.records import NO_ROWS, decode_outcomes, mask_of, seen
from sendengine.scheduler import fsck
from sendengine.scheduler.names import Ref

N = 300
REF = Ref("m1", "c")
LEASED, MOVING = 42, range(30, 60)  # of batch 0: rows that a worker holds, and what it does something with
FREE = 7  # a row of any batch that nobody touches


class Stirred:
    """Batch 0 is leased, but for rows 0-9, which were sent, and 10-19, which wait for a retry; batch 1 was given back; batch 2 waits."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.token = b""

    async def begin(self) -> None:
        bench = self.bench
        await bench.account()
        await bench.campaign("c", N)
        leases = {lease.batch: lease.token for lease in (await bench.take(200)).leases}
        self.token = leases[0]
        await bench.settle(
            settlement(leases[0], outcomes(range(10)), deferred(range(10, 20), 0)), settlement(leases[1], back=range(100))
        )

    async def restore(self, batch: int, ended: bytes = NO_ROWS, wanted: bytes = NO_ROWS, **counts: int) -> None:
        """The hand that slips: the repair itself, told what is not so."""
        last = (await self.bench.desk.outcomes("m1", "c", "", 1000))[-1].entry
        told = Repair(last, seen(await self.bench.fields("c")), counts, {batch: ended}, {batch: NO_ROWS}, {batch: wanted})
        assert await self.bench.desk.restore("m1", "c", told) >= 0

    async def wait_too(self, batch: int, row: int) -> None:
        """A row that stands elsewhere is given back as well."""
        desk, mask = self.bench.desk, mask_of([row])
        if isinstance(desk, MemoryDesk):
            desk._store.accounts["m1"].campaigns["c"].given_back.append(Portion(batch, 0, int.from_bytes(mask, "little"), {}))
        else:
            assert isinstance(desk, RedisDesk)
            await desk._link.call("RPUSH", "{m1}:c:c:b", pack("<IB", batch, 0) + mask)

    async def places(self, batch: int, row: int) -> list[str]:
        """Where it stands."""
        standing = await self.bench.desk.standing("m1", "c")
        parts = {"ready": standing.ready, "leased": standing.leased, "retry": standing.retry}
        bit = 1 << row
        return [
            name for name, part in parts.items() for mask in part.get(batch, []) if int.from_bytes(mask, "little") & bit
        ]

    async def outcomes(self) -> Counter[int]:
        chunks = await self.bench.desk.outcomes("m1", "c", "", 1000)
        return Counter(100 * chunk.batch + record.row for chunk in chunks for record in decode_outcomes(chunk.records))

    async def drain(self) -> None:
        """The worker settles what it holds, then whatever can be taken."""
        await self.bench.settle(settlement(self.token, outcomes(range(100))))
        while leases := (await self.bench.take()).leases:
            for lease in leases:
                await self.bench.settle(settlement(lease.token, outcomes(rows(lease))))


Act = Callable[[Stirred], Awaitable[Any]]

PLANTS: dict[str, Act] = {
    "a lease lost a row": lambda s: s.restore(0, ended=mask_of([LEASED])),
    "a retry lost a row": lambda s: s.restore(0, ended=mask_of([15])),
    "what was given back lost a row": lambda s: s.restore(1, ended=mask_of([FREE])),
    "an entry lost a row": lambda s: s.restore(2, ended=mask_of([FREE])),
    "one that has ended waits again": lambda s: s.restore(0, wanted=mask_of([5])),
    "one that is leased waits too": lambda s: s.wait_too(0, LEASED),
    "one waits twice": lambda s: s.wait_too(2, FREE),
    "the count of an outcome is off": lambda s: s.restore(2, sent=13),
}


async def _settled(s: Stirred) -> None:
    assert await s.bench.settle(settlement(s.token, outcomes(MOVING))) == (1,)


async def _deferred(s: Stirred) -> None:
    assert await s.bench.settle(settlement(s.token, deferred=deferred(MOVING, 3_600_000))) == (1,)


async def _doubted(s: Stirred) -> None:
    assert await s.bench.settle(settlement(s.token, doubts=doubts(MOVING))) == (1,)


async def _freed(s: Stirred) -> None:
    assert await s.bench.settle(settlement(s.token, back=MOVING)) == (1,)


async def _freed_all(s: Stirred) -> None:
    """Its lease ends with it."""
    assert await s.bench.settle(settlement(s.token, back=range(100))) == (1,)


async def _looked_at(s: Stirred) -> None:
    """Nothing but a heartbeat of the account: a repair is not held up by it."""
    assert await s.bench.settle(settlement(s.token)) == (1,)


CHANGES: dict[str, tuple[Act, list[str]]] = {  # and where the rows of MOVING stand then
    "settled": (_settled, []),
    "deferred": (_deferred, ["retry"]),
    "in doubt": (_doubted, ["ready"]),
    "freed": (_freed, ["ready"]),
    "freed whole": (_freed_all, ["ready"]),
    "only looked at": (_looked_at, ["leased"]),
}


WHERE = ("memory", "redis")  # the scripts are those of one slot: a Cluster adds nothing here


@pytest.fixture
async def stirred(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Stirred:
    monkeypatch.setattr(fsck, "_PAUSE_S", 0)
    stirred = Stirred(bench)
    await stirred.begin()
    return stirred


def race(s: Stirred, act: Act) -> list[Repair]:
    """It happens between the reading and the first repair. What was planned, try by try."""
    restore, planned = s.bench.desk.restore, []

    async def racing(account: str, campaign: str, repair: Repair) -> int:
        planned.append(repair)
        if len(planned) == 1:
            await act(s)
        return await restore(account, campaign, repair)

    s.bench.desk.restore = racing  # type: ignore[method-assign]
    return planned


@pytest.mark.parametrize("bench", WHERE, indirect=True)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("plant", PLANTS)
async def test_what_happened_since_the_reading_stands(stirred: Stirred, plant: str, change: str) -> None:
    desk = stirred.bench.desk
    await PLANTS[plant](stirred)
    act, stand = CHANGES[change]
    planned = race(stirred, act)
    assert (await fsck.check(desk, REF, repair=True)).findings
    assert len(planned) == (2 if change == "settled" else 1)  # outcomes that it has not read make it look again
    for row in MOVING:
        if row != LEASED or plant not in ("a lease lost a row", "one that is leased waits too"):
            assert await stirred.places(0, row) == stand, row
    assert (await fsck.check(desk, REF)).findings == []
    await _ends(stirred)


@pytest.mark.parametrize("bench", WHERE, indirect=True)
@pytest.mark.parametrize("plant", [name for name in PLANTS if name not in ("one that is leased waits too", "one waits twice")])
async def test_what_was_taken_since_the_reading_stays_taken(stirred: Stirred, plant: str) -> None:
    """Not what waited twice or had been leased before: who takes such a one holds it beside another, and both may have begun it."""
    taken: list[tuple[int, int]] = []

    async def take(s: Stirred) -> None:
        for lease in (await s.bench.take(400)).leases:
            taken.extend((lease.batch, row) for row in rows(lease))

    desk = stirred.bench.desk
    await PLANTS[plant](stirred)
    race(stirred, take)
    assert (await fsck.check(desk, REF, repair=True)).findings
    assert (1, 50) in taken
    for batch, row in taken:
        has_ended = (batch, row) == (0, 5)  # it waited again: nobody need send it
        assert await stirred.places(batch, row) == ([] if has_ended else ["leased"]), (batch, row)
    assert (await fsck.check(desk, REF)).findings == []


async def _ends(stirred: Stirred) -> None:
    """Everybody once. A retry that is not due yet is left."""
    await stirred.drain()
    found = await stirred.outcomes()
    standing = await stirred.bench.desk.standing("m1", "c")
    waiting = sum(int.from_bytes(mask, "little").bit_count() for masks in standing.retry.values() for mask in masks)
    assert set(found.values()) == {1}
    assert len(found) + waiting == N
    assert waiting in (0, len(MOVING), len(MOVING) - 1)
    assert (await fsck.check(stirred.bench.desk, REF)).findings == []


async def test_a_repair_that_looked_at_nothing_would_spoil_what_was_settled(stirred: Stirred) -> None:
    """The control: the same plan, told to be of the present state."""
    await PLANTS["a lease lost a row"](stirred)
    restore = stirred.bench.desk.restore

    async def blind(account: str, campaign: str, repair: Repair) -> int:
        await _settled(stirred)
        last = (await stirred.bench.desk.outcomes("m1", "c", "", 1000))[-1].entry
        return await restore(account, campaign, msgspec.structs.replace(repair, last_entry=last))

    stirred.bench.desk.restore = blind  # type: ignore[method-assign]
    await fsck.check(stirred.bench.desk, REF, repair=True)
    assert "the count 'sent' is not what the records say" in {found.what for found in (await fsck.check(stirred.bench.desk, REF)).findings}
