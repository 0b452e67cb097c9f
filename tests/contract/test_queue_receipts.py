"""Receipts find the recipient that they are of, whoever asks, and change no outcome and no money."""

from __future__ import annotations

from queue_bench import Bench, settlement
from test_queue_money import LANE, Till, ended, priced
from test_queue_money import till as till

from sendengine.records import pack_ref
from sendengine.types import Receipt


async def test_receipt_is_kept_with_its_recipient_and_counted(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(3))
    refs = {f"id{row}": pack_ref(LANE, "a", 0, row) for row in range(3)}
    await till.queue.expect("p", refs)
    before = await till.facts()
    unknown = [Receipt("nobody", "DELIVRD"), Receipt("id9", "UNDELIV")]
    some = [Receipt("id0", "DELIVRD", "000"), unknown[0], Receipt("id1", "UNDELIV", "012"), unknown[1]]
    assert await till.queue.receive("p", some) == unknown
    assert await till.queue.receive("other", [Receipt("id2", "DELIVRD")]) == [Receipt("id2", "DELIVRD")]
    found = await till.desk.receipts(LANE, "a", [(0, 0), (0, 1), (0, 2), (7, 7)])
    assert [each and each[:2] for each in found] == [("DELIVRD", "000"), ("UNDELIV", "012"), None, None]
    fields = await till.desk.campaign(LANE, "a")
    assert (fields["delivered"], fields["undelivered"]) == ("1", "1")
    assert await till.facts() == before


async def test_of_several_parts_one_that_failed_decides(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(2))
    for part in ("x", "y", "z"):
        await till.queue.expect("p", {part: pack_ref(LANE, "a", 0, 0)})
    for part, state in (("x", "DELIVRD"), ("y", "EXPIRED"), ("z", "DELIVRD")):
        assert await till.queue.receive("p", [Receipt(part, state)]) == []
    [found] = await till.desk.receipts(LANE, "a", [(0, 0)])
    assert found is not None
    assert found[0] == "EXPIRED"
    fields = await till.desk.campaign(LANE, "a")
    assert (fields["delivered"], fields["undelivered"]) == ("0", "1")


async def test_receipt_of_a_send_that_is_gone_makes_nothing(till: Till) -> None:
    await till.open(1_000_000)
    await till.queue.expect("p", {"x": pack_ref(LANE, "gone", 0, 0)})
    assert await till.queue.receive("p", [Receipt("x", "DELIVRD")]) == []
    assert await till.desk.campaign(LANE, "gone") == {}
    assert await till.queue.receive("p", [Receipt("x", "DELIVRD")]) == [Receipt("x", "DELIVRD")]


async def test_receipt_that_comes_twice_in_one_call_is_known_both_times(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(1))
    await till.queue.expect("p", {"x": pack_ref(LANE, "a", 0, 0)})
    assert await till.queue.receive("p", [Receipt("x", "DELIVRD")] * 2) == []
    assert (await till.desk.campaign(LANE, "a"))["delivered"] == "1"
    assert await till.queue.receive("p", [Receipt("x", "DELIVRD")]) == [Receipt("x", "DELIVRD")]


async def test_late_receipt_follows_the_outcome(till: Till, bench: Bench) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(1))
    [lease] = await till.take()
    await till.queue.expect("p", {"x": pack_ref(LANE, "a", 0, 0)})
    await till.settle(settlement(lease.token, ended([0])))
    assert (await till.desk.campaign(LANE, "a"))["state"] == "finished"
    assert await till.queue.receive("p", [Receipt("x", "REJECTD")]) == []
    assert (await till.desk.campaign(LANE, "a"))["undelivered"] == "1"
    assert await till.facts() == (0, 2_000, 998_000)


async def test_workers_that_send_by_a_provider_are_counted_while_they_say_so(bench: Bench) -> None:
    queue = bench.queue
    assert [await queue.share("acme", worker, 60.0) for worker in ("w1", "w2", "w1")] == [1, 2, 2]
    assert await queue.share("other", "w1", 60.0) == 1
    assert await queue.share("acme", "w3", 0.0) == 3
    assert await queue.share("acme", "w2", 60.0) == 2
