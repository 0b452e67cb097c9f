"""Repair: what it is told to take out goes wherever it stands, what should stand somewhere does, and nothing else is touched."""

from __future__ import annotations

import pytest
from queue_bench import SETTINGS, Bench, addresses, batches, deferred, ended, outcomes, settlement

from sendengine.ports import Repair
from sendengine.records import NO_ROWS, TRANSACTIONAL, mask_of, seen

LONG = 3_600_000


@pytest.fixture
async def stirred(bench: Bench) -> Bench:
    """Of 300: batch 0 leased less rows 0-9 sent and 10-19 in retry, batch 1 given back, batch 2 waiting."""
    await bench.account()
    await bench.campaign("c", 300)
    leases = {lease.batch: lease.token for lease in (await bench.take(200)).leases}
    await bench.settle(
        settlement(leases[0], outcomes(range(10)), deferred(range(10, 20), LONG)), settlement(leases[1], back=range(100))
    )
    return bench


async def last_entry(bench: Bench) -> str:
    return (await bench.desk.outcomes("m1", "c", "", 1000))[-1].entry


async def repair(bench: Bench, batch: int, ended: bytes = NO_ROWS, twice: bytes = NO_ROWS, wanted: bytes = NO_ROWS, **counts: int) -> int:
    told = Repair(await last_entry(bench), seen(await bench.fields("c")), counts, {batch: ended}, {batch: twice}, {batch: wanted})
    return await bench.desk.restore("m1", "c", told)


async def test_rows_that_stand_are_not_put_back(stirred: Bench) -> None:
    before = await stirred.where("c")
    for batch in range(3):
        assert await repair(stirred, batch, wanted=mask_of(range(10 if batch == 0 else 0, 100))) == 0
    assert await stirred.where("c") == before == {"ready": 200, "leased": 80, "retry": 10}


async def test_rows_that_stand_nowhere_are_put_back(stirred: Bench) -> None:
    assert await repair(stirred, 0, wanted=mask_of(range(5))) == 5
    assert (await stirred.where("c"))["ready"] == 205


@pytest.mark.parametrize(("batch", "place"), [(1, "ready"), (2, "ready")])
async def test_ended_rows_are_taken_out_of_where_they_wait(stirred: Bench, batch: int, place: str) -> None:
    before = (await stirred.where("c"))[place]
    assert await repair(stirred, batch, ended=mask_of([1, 2, 99])) == 0
    assert (await stirred.where("c"))[place] == before - 3


async def test_ended_rows_are_taken_out_of_lease_and_retry(stirred: Bench) -> None:
    await repair(stirred, 0, ended=mask_of([10, 50, 51]))
    assert await stirred.where("c") == {"ready": 200, "leased": 78, "retry": 9}
    fields = await stirred.fields("c")
    assert (fields["leased"], fields["deferred"]) == ("78", "9")


async def test_rows_that_stand_twice_stand_once(stirred: Bench) -> None:
    """Row 50 is leased, and is left there; row 10 waits for a retry, and is put back without it."""
    assert await repair(stirred, 0, twice=mask_of([10, 50]), wanted=mask_of([10, 50])) == 1
    assert await stirred.where("c") == {"ready": 201, "leased": 80, "retry": 9}


async def test_counts_are_written(stirred: Bench) -> None:
    await repair(stirred, 1, sent=7)
    assert ended(await stirred.fields("c")) == {"sent": 7}


async def test_nothing_is_changed_when_it_moved_on(stirred: Bench) -> None:
    before, fields = await stirred.where("c"), await stirred.fields("c")
    told = Repair("1-1", seen(fields), {"sent": 99}, {1: mask_of([1])}, {1: NO_ROWS}, {1: mask_of([2])})
    assert await stirred.desk.restore("m1", "c", told) == -1
    assert await stirred.where("c") == before
    assert await stirred.fields("c") == fields
    assert await stirred.desk.restore("m1", "other", told) == -1


async def test_the_text_of_a_single_message_is_kept_until_its_outcome_and_it_can_be_put_back(bench: Bench) -> None:
    await bench.account()
    await bench.desk.create("m1", TRANSACTIONAL, b"d", None, b"", SETTINGS)
    assert not await bench.desk.has_message("m1", 0)
    assert (await bench.desk.transact("m1", b"payload", b"text", "key", bytes(8))).number == 0

    async def told(ended: bytes, wanted: bytes) -> int:
        fields = seen(await bench.fields(TRANSACTIONAL))
        return await bench.desk.restore("m1", TRANSACTIONAL, Repair("", fields, {}, {0: ended}, {0: NO_ROWS}, {0: wanted}))

    assert await told(mask_of([0]), NO_ROWS) == 0
    assert await bench.where(TRANSACTIONAL) == {"ready": 0, "leased": 0, "retry": 0}
    assert await told(NO_ROWS, mask_of([0])) == 1
    assert await bench.desk.has_message("m1", 0)
    (lease,) = (await bench.take()).leases
    assert lease.message == b"text"
    await bench.settle(settlement(lease.token, outcomes([0])))
    assert not await bench.desk.has_message("m1", 0)
    assert (await bench.fields(TRANSACTIONAL))["state"] == "sending"


@pytest.mark.parametrize("what", ["submit", "pause", "cancel"])
async def test_nothing_is_changed_when_it_was_submitted_to_or_steered(bench: Bench, what: str) -> None:
    await bench.account()
    first, second = batches(addresses(200))
    await bench.campaign("c", sealed=False)
    await bench.load("c", [first], sealed=False)
    told = Repair("", seen(await bench.fields("c")), {"accepted": 100, "cancelled": 0}, {}, {}, {})
    if what == "submit":
        await bench.desk.submit("m1", "c", second)
    else:
        await getattr(bench.desk, what)("m1", "c")
    fields = await bench.fields("c")
    assert await bench.desk.restore("m1", "c", told) == -1
    assert await bench.fields("c") == fields


async def test_nothing_is_changed_when_a_lease_of_a_cancelled_send_ended(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 100)
    (lease,) = (await bench.take()).leases
    await bench.desk.cancel("m1", "c")
    told = Repair("", seen(await bench.fields("c")), {"cancelled": 0}, {}, {}, {})
    await bench.settle(settlement(lease.token, back=range(100)))
    assert await bench.desk.restore("m1", "c", told) == -1
    assert (await bench.fields("c"))["cancelled"] == "100"
