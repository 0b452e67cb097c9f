"""Events from billing at the state: whose turn it is, and that one comes as a whole, once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from queue_bench import Bench

from sendengine.policy.credits import Purchase
from sendengine.ports import Booked, Booking
from sendengine.queue.desk import RedisDesk

SPEED = {"tier": "60k", "rate": "60000.0", "iv": "60000.000"}


def booking(sequence: int, name: str = "", digest: str = "d", **more: Any) -> Booking:
    return Booking(sequence, name or f"e{sequence}", digest, b"event %d" % sequence, b'{"what":"x"}', **more)


async def seats(bench: Bench) -> str | None:
    return (await bench.desk.account("m1")).get("seats")


@pytest.fixture
async def sold(bench: Bench) -> Bench:
    await bench.account(per_hour=36_000)
    return bench


async def test_one_after_the_other(sold: Bench) -> None:
    for at in (1, 2, 3):
        assert await sold.desk.book("m1", booking(at, fields={"seats": str(at)})) == Booked("done", at)
    fields = await sold.desk.account("m1")
    assert (fields["seq"], fields["seats"]) == ("3", "3")
    lines = await sold.desk.audit("m1", "", 100)
    assert [line.line for line in lines] == [b'{"what":"x"}'] * 3


async def test_a_repeat_changes_nothing(sold: Bench) -> None:
    await sold.desk.book("m1", booking(1, fields={"seats": "1"}))
    await sold.desk.book("m1", booking(2, fields={"seats": "2"}))
    for at in (1, 2):
        assert await sold.desk.book("m1", booking(at, fields={"seats": "9"})) == Booked("known", 2)
    assert await seats(sold) == "2"
    assert len(await sold.desk.audit("m1", "", 100)) == 2


@pytest.mark.parametrize(
    ("other", "status"), [(booking(1, "e1", "other"), "altered"), (booking(2, "e1"), "altered"), (booking(1, "another"), "taken")]
)
async def test_another_event_of_the_same_name_or_place(sold: Bench, other: Booking, status: str) -> None:
    await sold.desk.book("m1", booking(1))
    assert await sold.desk.book("m1", other) == Booked(status, 1)
    assert (await sold.desk.account("m1"))["seq"] == "1"


async def test_one_that_is_ahead_waits(sold: Bench) -> None:
    assert await sold.desk.book("m1", booking(3, fields={"seats": "3"})) == Booked("early", 0)
    assert await sold.desk.book("m1", booking(3, fields={"seats": "3"})) == Booked("early", 0)
    assert await seats(sold) is None
    assert [await sold.desk.early_event("m1", at) for at in (1, 2, 3)] == [None, None, b"event 3"]
    for at in (1, 2, 3):
        assert await sold.desk.book("m1", booking(at, fields={"seats": str(at)})) == Booked("done", at)
    assert await sold.desk.early_event("m1", 3) is None
    assert await seats(sold) == "3"


async def test_since_when_they_wait(sold: Bench) -> None:
    before = await sold.desk.now_us()
    for at in (3, 5, 3):
        await sold.desk.book("m1", booking(at))
    found = await sold.desk.early("m1")
    assert found.keys() == {3, 5}
    assert before <= found[3] <= found[5] <= await sold.desk.now_us()
    assert await sold.desk.early("m9") == {}


async def test_events_of_the_release_before_that_wait_are_read(sold: Bench) -> None:
    """They stood without the time at which they came."""
    if not isinstance(sold.desk, RedisDesk):
        pytest.skip("memory keeps nothing of a release before")
    old = b'{"id":"e2","why":"two words"}'
    await sold.desk._link.call("HSET", "{m1}:early", 2, old)
    assert await sold.desk.early("m1") == {2: 0.0}
    assert await sold.desk.early_event("m1", 2) == old
    assert await sold.desk.book("m1", msgspec.structs.replace(booking(2), event=old)) == Booked("early", 0)
    assert await sold.desk.book("m1", booking(2)) == Booked("occupied", 0)
    for at in (1, 2):
        assert await sold.desk.book("m1", booking(at)) == Booked("done", at)
    assert await sold.desk.early("m1") == {}


async def test_lots_come_with_their_event_or_not_at_all(sold: Bench) -> None:
    lots = (Purchase(500_000, 1e15, 0.0, "shop", "Ärger, \"quoted\""), Purchase(70_000, 1e15, 2e15, "", ""))
    assert await sold.desk.book("m1", booking(1, seen={"seats": "9"}, lots=lots)) == Booked("moved", 0)
    assert await sold.desk.book("m1", booking(2, lots=lots)) == Booked("early", 0)
    assert await sold.desk.lots("m1/sms") == []
    assert await sold.desk.book("m1", booking(1, lots=lots, fields={"seats": "2"})) == Booked("done", 1)
    for other in (booking(1, lots=lots), booking(1, "x", lots=(Purchase(1000, 1e15, 0.0, "", ""),))):
        assert (await sold.desk.book("m1", other)).status in ("known", "taken")
    found = await sold.desk.lots("m1/sms")
    assert [(lot.number, lot.granted, lot.reserved, lot.spent, lot.bought_us, lot.fixed_us) for lot in found] == [
        (1, 500_000, 0, 0, 1e15, 0.0), (2, 70_000, 0, 0, 1e15, 2e15),
    ]  # fmt: skip
    told = [entry.what for entry in await sold.desk.ledger("m1/sms", "", 10)]
    assert [(each.who, each.why, each.lots) for each in told] == [("shop", "Ärger, \"quoted\"", {1: 500_000}), ("", "", {2: 70_000})]


async def test_a_grant_by_hand_is_in_no_events_way(sold: Bench) -> None:
    assert await sold.desk.grant_credits("m1/sms", "e1", 5000, 1e15, 2e15, "", "") == 1
    assert await sold.desk.book("m1", booking(1, lots=(Purchase(6000, 1e15, 0.0, "", ""),))) == Booked("done", 1)
    assert await sold.desk.grant_credits("m1/sms", "e1", 5000, 1e15, 2e15, "", "") == 1
    assert await sold.desk.grant_credits("m1/sms", "e2", 7000, 1e15, 2e15, "", "") == 3
    assert [lot.granted for lot in await sold.desk.lots("m1/sms")] == [5000, 6000, 7000]


async def test_what_was_stuck_is_not_when_an_event_is_done(sold: Bench) -> None:
    await sold.desk.set_gate("m1", {}, {"stuck": "1 unknown tier"})
    await sold.desk.book("m1", booking(1))
    assert "stuck" not in await sold.desk.account("m1")


async def test_two_that_claim_one_place_ahead(sold: Bench) -> None:
    await sold.desk.book("m1", booking(2))
    other = Booking(2, "x", "d", b"other", b"{}")
    assert await sold.desk.book("m1", other) == Booked("occupied", 0)
    await sold.desk.forget_early("m1", 2)
    assert await sold.desk.early_event("m1", 2) is None


async def test_too_far_ahead(sold: Bench) -> None:
    assert await sold.desk.book("m1", booking(1000)) == Booked("early", 0)
    assert await sold.desk.book("m1", booking(1001)) == Booked("far", 0)


async def test_what_was_seen_must_stand(sold: Bench) -> None:
    assert await sold.desk.book("m1", booking(1, seen={"seats": "7"}, fields={"seats": "8"})) == Booked("moved", 0)
    assert await sold.desk.book("m1", booking(1, seen={"seats": "", "tier": "t"}, fields={"seats": "8"})) == Booked("done", 1)
    now = await sold.desk.now_us()
    assert await sold.desk.book("m1", booking(2, before_us=now)) == Booked("moved", 1)
    assert await sold.desk.book("m1", booking(2, before_us=now + 60e6)) == Booked("done", 2)


async def test_no_account(bench: Bench) -> None:
    assert await bench.desk.book("m1", booking(1)) == Booked("missing", 0)
    assert await bench.desk.account("m1") == {}


async def test_a_new_speed_cuts_and_every_worker_is_told(sold: Bench) -> None:
    await sold.queue.register("w1", b"token")
    await sold.campaign("c", 300)
    granted = await sold.visit(100, ["c"], horizon=5e6)
    assert await sold.desk.book("m1", booking(1, fields=SPEED, is_speed=True)) == Booked("done", 1)
    visited = await sold.visit(1000, ["c"], horizon=5e6)
    assert (granted.interval_us, visited.interval_us, visited.cut) == (100_000.0, 60_000.0, 1)
    told = (await sold.queue.append("w1", b"token", 0, [], [])).news
    assert (told[-1].account, told[-1].cut, told[-1].cut_us) == ("m1", 1, visited.cut_us)
    first = visited.now_us + visited.delay_us
    assert visited.cut_us - 100_000 <= first <= visited.cut_us + 60_000 + 1, "on its grid, and no burst"


async def test_a_term_shuts_and_opens_the_gate(sold: Bench) -> None:
    await sold.campaign("c", 300)
    now = await sold.desk.now_us()
    await sold.desk.book("m1", booking(1, fields={"term": "active", "term_ends": f"{now - 1:.0f}"}))
    assert (await sold.visit(10, ["c"])).stopped == b"\0"
    await sold.desk.book("m1", booking(2, fields={"term_ends": f"{now + 1e12:.0f}"}))
    assert (await sold.visit(10, ["c"])).stopped == b""


async def test_octets_in_a_field(sold: Bench) -> None:
    value = bytes(range(256)).decode("utf-8", "surrogateescape")
    await sold.desk.book("m1", booking(1, fields={"boost:1": value}))
    assert (await sold.desk.account("m1"))["boost:1"] == value
    assert await sold.desk.book("m1", booking(2, seen={"boost:1": value}, fields={"boost:1": ""})) == Booked("done", 2)
    assert "boost:1" not in await sold.desk.account("m1")


async def test_orders_are_kept_and_forgotten(sold: Bench) -> None:
    await sold.desk.book("m1", booking(1, order="o1", kept=b"an event, with spaces"))
    assert await sold.desk.order("m1", "o1") == b"an event, with spaces"
    assert await sold.desk.order("m1", "o2") == b""
    await sold.desk.book("m1", booking(2, order="o1"))
    assert await sold.desk.order("m1", "o1") == b""


async def test_a_hundred_orders_wait_and_none_is_pushed_out(sold: Bench) -> None:
    for at in range(1, 101):
        await sold.desk.book("m1", booking(at, order=f"o{at}", kept=b"x"))
    assert await sold.desk.book("m1", booking(101, order="more", kept=b"x")) == Booked("full", 100)
    assert [await sold.desk.order("m1", name) for name in ("o1", "o100", "more")] == [b"x", b"x", b""]
    assert await sold.desk.book("m1", booking(101, order="o1", kept=b"x\ny")) == Booked("done", 101), "another line of one that waits"
    assert await sold.desk.book("m1", booking(102, order="o1")) == Booked("done", 102), "its payment"
    assert await sold.desk.book("m1", booking(103, order="more", kept=b"x")) == Booked("done", 103)


async def test_orders_that_the_release_before_remembered_as_paid_are_none(sold: Bench) -> None:
    if not isinstance(sold.desk, RedisDesk):
        pytest.skip("memory keeps nothing of a release before")
    for at in range(99):
        await sold.desk._link.call("HSET", "{m1}:orders", f"old{at}", f"{at} paid")
    assert await sold.desk.order("m1", "old1") == b""
    for at in range(1, 101):
        assert await sold.desk.book("m1", booking(at, order=f"o{at}", kept=b"x")) == Booked("done", at)
    assert (await sold.desk.book("m1", booking(101, order="more", kept=b"x"))).status == "full"
    assert await sold.desk._link.call("HLEN", "{m1}:orders") == 100


async def test_the_last_thousand_are_remembered(sold: Bench) -> None:
    for at in range(1, 1003):
        assert (await sold.desk.book("m1", booking(at))).status == "done"
    assert await sold.desk.book("m1", booking(3, digest="other")) == Booked("altered", 1002)
    assert await sold.desk.book("m1", booking(2, digest="other")) == Booked("known", 1002), "forgotten: it has come, whatever it said"
