"""Events from billing as they reach an account: a thousand replays, reorders and forgeries, and what stands afterwards."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import orjson
import pytest

from sendengine import config
from sendengine.config import Config
from sendengine.errors import Conflict, NotFound, RefusedInput, Unavailable
from sendengine.lanes import sms_lane
from sendengine.policy.billing import HEADER, Event, Forged, decode, encode, schema, sign
from sendengine.policy.entitlements import Edition
from sendengine.policy.grants import grants_of
from sendengine.policy.prices import MILLI
from sendengine.policy.tiers import Tier
from sendengine.policy.times import format_time
from sendengine.ports import Booked, Booking, Desk
from sendengine.queue.desk import RedisDesk
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.scheduler import audit, prepaid
from sendengine.scheduler.billing import Applied, apply_event
from tests import chance
from tests.engine.rig import Rig
from tests.engine.test_engine import virtual
from tests.test_cli import Shell, run
from tests.test_client import MESSAGE, Bench, bench

__all__ = ["bench", "run"]  # fixtures of theirs

SECRET = b"a secret of thirty-two characters"
OFFER = config.offer(Config())
DAY = 86400.0


class Billing:
    """The platform: numbers its events, signs them, and brings them."""

    def __init__(self, desk: Desk, account: str = "m1") -> None:
        self.desk, self.account, self.sequence, self.offer = desk, account, 0, OFFER

    def event(self, type_: str, sequence: int | None = None, **said: Any) -> bytes:
        self.sequence = sequence or self.sequence + 1
        head = {"id": f"evt_{self.sequence}", "account": self.account, "sequence": self.sequence, "at": "2026-11-27T10:00:00Z"}
        return orjson.dumps({**head, "type": type_, **said})

    async def bring(self, raw: bytes, header: str | None = None, secrets: Sequence[bytes] = (SECRET,)) -> Applied:
        now = await self.desk.now_us() / 1e6
        return await apply_event(self.desk, raw, {HEADER: header or sign(raw, secrets, now)}, [SECRET], now, self.offer)

    async def sell(self, type_: str, **said: Any) -> Applied:
        return await self.bring(self.event(type_, **said))

    async def lots(self) -> list[int]:
        """Credits, in the order in which they were bought; the ledger says the same."""
        lots, entries = await self.desk.lots(sms_lane(self.account)), await self.desk.ledger(sms_lane(self.account), "", 10_000)
        assert [entry.what.amount for entry in entries] == [lot.granted for lot in lots]
        assert all(lot.granted % MILLI == 0 for lot in lots)
        return [lot.granted // MILLI for lot in lots]

    async def state(self) -> Mapping[str, Any]:
        """What events decide, without what only counts."""
        fields = dict(await self.desk.account(self.account))
        names = ("tier", "rate", "iv", "edition", "channels", "seats", "seq", "term", "term_ends")
        boosts = [(each.start, each.end, each.rate) for each in grants_of(fields)]
        return {name: fields.get(name) for name in names} | {"boosts": boosts, "credits": await self.lots()}

    async def trail(self) -> list[tuple[str, str]]:
        return [(each.what, each.facts["event"]) for each in await self.told()]

    async def told(self) -> list[audit.Entry]:
        """Behind the lines of what was there before billing."""
        lines = [each async for each in audit.read(self.desk, self.account)]
        return [each for each in lines if each.what != "account.create"]


@pytest.fixture
async def shop(bench: Bench) -> Billing:
    return Billing(bench.desk)


async def test_a_purchase_and_its_line(shop: Billing) -> None:
    applied = await shop.sell("tier.changed", tier="100k", who="anna", why="sale")
    assert (applied.status, applied.expected, applied.type) == ("applied", 2, "tier.changed")
    assert ((await shop.state())["tier"], (await shop.state())["rate"]) == ("100k", "100000.0")
    [line] = await shop.told()
    assert (line.what, line.who, line.why) == ("tier.changed", "anna", "sale")
    assert line.facts == {"event": "evt_1", "sequence": "1", "tier": "100k", "rate": "100000/h"}


async def test_lines_are_told_in_the_units_of_people(shop: Billing) -> None:
    await shop.sell("tier.changed", tier="unmetered")
    await shop.sell("subscription.renewed", ends="2040-01-01T00:00:00Z")
    await shop.sell("subscription.renewed", ends=None)
    await shop.sell("tier.changed", tier="5k")
    await shop.sell("boost.purchased", rate="90k", **{"from": "2040-01-01T00:00:00Z"}, until="2040-01-02T00:00:00Z")
    await shop.sell("credits.purchased", credits=70)
    told = [{name: value for name, value in each.facts.items() if name not in ("event", "sequence")}
            for each in await shop.told()]  # fmt: skip
    boosted = {"boost 1": "90000/h from 2040-01-01T00:00:00.000Z until 2040-01-02T00:00:00.000Z"}
    assert told[0] == {"tier": "unmetered", "rate": "unmetered"}
    assert (told[1]["ends"], told[2]["ends"]) == ("2040-01-01T00:00:00.000Z", "never")
    assert told[3:] == [{"tier": "5k", "rate": "5000/h"}, boosted, {"credits": "70"}]
    assert not any("000000" in value for each in told for value in each.values()), "no microseconds"


async def test_an_unpaid_order_changes_nothing_until_its_payment(shop: Billing) -> None:
    before = await shop.state()
    assert (await shop.sell("edition.changed", edition="plus", order="o1", paid=False)).status == "unpaid"
    assert {**await shop.state(), "seq": None} == before
    assert (await shop.sell("payment.received", order="o2")).status == "applied", "of another order"
    assert {**await shop.state(), "seq": None} == before
    assert (await shop.sell("payment.received", order="o1")).status == "applied"
    assert (await shop.state())["edition"] == "plus"
    assert (await shop.sell("payment.received", order="o1")).status == "applied", "paid twice, in force once"


async def test_a_payment_of_no_order_says_so_and_what_waits_is_shown(shop: Billing, bench: Bench) -> None:
    unknown = await shop.sell("payment.received", order="o9")
    assert (unknown.status, "no line of order o9 waited" in unknown.why) == ("applied", True)
    await shop.sell("credits.purchased", credits=5, order="o2", paid=False)
    await shop.sell("tier.changed", tier="100k", order="o1", paid=False)
    await shop.sell("seats.changed", seats=3, order="o2", paid=False)
    shown = (await bench.client.account("m1")).orders
    assert [(each.order, [(line.event, line.type) for line in each.lines]) for each in shown] == [
        ("o2", [("evt_2", "credits.purchased"), ("evt_4", "seats.changed")]), ("o1", [("evt_3", "tier.changed")]),
    ]  # fmt: skip
    assert (await shop.sell("payment.received", order="o2")).why == ""
    assert [each.order for each in (await bench.client.account("m1")).orders] == ["o1"]


SOLD = [
    ("tier.changed", {"tier": "100k"}), ("edition.changed", {"edition": "plus"}), ("credits.purchased", {"credits": 5}),
    ("seats.changed", {"seats": 2}), ("boost.purchased", {"rate": "300k", "until": "2140-01-01T00:00:00Z"}),
    ("payment.received", {"order": "o1", "settles": True}), ("tier.changed", {"tier": "100k", "order": "o2", "paid": False}),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "said"), SOLD)
async def test_nothing_is_sold_to_an_account_that_is_deleted(shop: Billing, type_: str, said: dict[str, Any]) -> None:
    await shop.sell("credits.purchased", credits=7, order="o1", paid=False)
    ended = await shop.desk.now_us() - 11 * DAY * 1e6
    await shop.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ended:.0f}", "hold:unpaid-fee": "x"})
    before = await shop.state()
    refused = await shop.sell(type_, **said)
    assert (refused.status, refused.credits, refused.why.count("the account is deleted")) == ("refused", 0, 1)
    assert {**await shop.state(), "seq": None} == {**before, "seq": None}
    assert (await shop.told())[-1].facts["status"] == "refused"
    assert "hold:unpaid-fee" in await shop.desk.account("m1")


async def test_a_conflict_says_which_of_its_numbers_is_taken(shop: Billing) -> None:
    await shop.sell("seats.changed", seats=2)
    await shop.sell("seats.changed", sequence=3, seats=3)
    for said, why in (
        ({"id": "evt_1", "sequence": 2, "seats": 2}, "its id came already"),
        ({"id": "other", "sequence": 1, "seats": 2}, "its sequence 1 came already, with another id"),
        ({"id": "other", "sequence": 3, "seats": 2}, "another event waits with the sequence 3"),
        ({"id": "other", "sequence": 5000, "seats": 2}, "more than a thousand ahead of 1"),
    ):
        with pytest.raises(Conflict, match=why) as refused:
            await shop.sell("seats.changed", **said)
        assert refused.value.remedy


async def test_a_cancelling_moves_no_end_and_says_so(shop: Billing) -> None:
    await shop.sell("subscription.renewed", ends="2140-01-01T00:00:00Z")
    refused = await shop.sell("subscription.cancelled", ends="2140-02-01T00:00:00Z")
    assert (refused.status, "already: a cancelling changes its renewal only (leave `ends` out)" in refused.why) == ("refused", True)
    assert (await shop.sell("subscription.cancelled", ends="2140-01-01T00:00:00Z")).status == "applied"


async def test_a_payment_is_for_the_lines_before_it_whenever_they_arrive(shop: Billing) -> None:
    """The order goes on from month to month under one id: what nobody has paid is not in force."""
    paid = shop.event("payment.received", sequence=3, order="o1")
    assert (await shop.bring(paid)).status == "waits"
    await shop.sell("credits.purchased", sequence=2, credits=70, order="o1", paid=False)
    done = await shop.sell("credits.purchased", sequence=1, credits=500, order="o1", paid=False)
    assert [done.status, *(each.status for each in done.then)] == ["unpaid", "unpaid", "applied"]
    assert await shop.lots() == [500, 70]
    assert (await shop.sell("credits.purchased", sequence=4, credits=5000, order="o1", paid=False)).status == "unpaid"
    assert (await shop.bring(paid)).status == "repeated"
    assert await shop.lots() == [500, 70]
    assert (await shop.sell("payment.received", order="o1")).credits == 5000
    assert await shop.lots() == [500, 70, 5000]


async def test_a_line_that_cannot_be_kept_is_refused_and_those_that_wait_stay(shop: Billing) -> None:
    for at in range(100):
        await shop.sell("credits.purchased", credits=at + 1, order=f"o{at}", paid=False)
    late = await shop.sell("credits.purchased", credits=7, order="late", paid=False)
    assert (late.status, "a hundred orders wait" in late.why, late.expected) == ("refused", True, 102)
    assert "a hundred orders" in (await shop.told())[-1].facts["refused"]
    assert (await shop.sell("payment.received", order="o0")).credits == 1
    assert (await shop.sell("credits.purchased", credits=7, order="late", paid=False)).status == "unpaid"


async def test_of_two_lines_one_that_is_paid_by_its_own_event_leaves_the_other(shop: Billing) -> None:
    for amount in (100, 200):
        await shop.sell("credits.purchased", credits=amount, order="o1", paid=False)
    await shop.sell("credits.purchased", credits=200, order="o1", who="bank")
    assert (await shop.told())[-1].facts["replaces"] == "evt_2"
    assert (await shop.sell("payment.received", order="o1")).credits == 100
    assert await shop.lots() == [200, 100]


async def test_all_lines_of_an_order_are_in_force_with_its_one_payment(shop: Billing) -> None:
    before = await shop.state()
    until = format_time(await shop.desk.now_us() / 1e6 + DAY)
    lines = [
        ("tier.changed", {"tier": "5k"}), ("edition.changed", {"edition": "plus"}), ("credits.purchased", {"credits": 500}),
        ("credits.purchased", {"credits": 70}), ("boost.purchased", {"rate": "300k", "until": until}),
        ("boost.purchased", {"rate": "400k", "until": until}), ("subscription.renewed", {"ends": until}), ("seats.changed", {"seats": 9}),
    ]  # fmt: skip
    for type_, said in lines:
        assert (await shop.sell(type_, order="o1", paid=False, **said)).status == "unpaid"
    assert {**await shop.state(), "seq": None} == before
    paid = await shop.sell("payment.received", order="o1")
    assert (paid.status, paid.credits) == ("applied", 570)
    now = await shop.state()
    assert (now["tier"], now["edition"], now["seats"], now["credits"]) == ("30k", "plus", "9", [500, 70]), "in their sequence"
    assert [rate for _, _, rate in now["boosts"]] == [300_000, 400_000]
    assert now["term"] == "active"
    told = (await shop.told())[-1].facts
    assert (told["lines"], told["credits"]) == (" ".join(f"evt_{at}" for at in range(1, 9)), "570")
    assert (await shop.sell("payment.received", order="o1")).credits == 0, "paid twice, in force once"
    assert (await shop.sell("seats.changed", seats=3, order="o1", paid=False)).status == "unpaid", "a line behind its payment"
    assert await shop.lots() == [500, 70]


async def test_a_line_that_is_over_holds_up_no_other(shop: Billing) -> None:
    await shop.sell("seats.changed", seats=4, order="o1", paid=False)
    await shop.sell("boost.purchased", rate="300k", until="2020-01-01T00:00:00Z", order="o1", paid=False)
    await shop.sell("credits.purchased", credits=5, order="o1", paid=False)
    paid = await shop.sell("payment.received", order="o1")
    assert (paid.status, paid.why) == ("applied", "the boost is over before it begins")
    assert ((await shop.state())["seats"], await shop.lots()) == ("4", [5])
    assert "over" in (await shop.told())[-1].facts["refused"]


async def test_an_order_has_a_hundred_lines(shop: Billing) -> None:
    for at in range(100):
        await shop.sell("credits.purchased", credits=at + 1, order="o1", paid=False)
    late = await shop.sell("credits.purchased", credits=7, order="o1", paid=False)
    assert (late.status, "100 lines" in late.why) == ("refused", True)
    await shop.sell("payment.received", order="o1")
    assert sum(await shop.lots()) == 5050


async def test_lots_of_an_order_are_good_as_long_as_the_line_before_them_says(shop: Billing) -> None:
    """Bought while SMS-only: 24 months; with e-mail: until its term ends."""
    shop.offer = msgspec.structs.replace(OFFER, editions={**OFFER.editions, "texter": Edition("texter", "T", "5k", ("sms",), 1)})
    for type_, said in (("edition.changed", {"edition": "texter"}), ("credits.purchased", {"credits": 1}),
                        ("edition.changed", {"edition": "plus"}), ("credits.purchased", {"credits": 2})):  # fmt: skip
        await shop.sell(type_, order="o1", paid=False, **said)
    await shop.sell("payment.received", order="o1")
    assert [bool(lot.fixed_us) for lot in await shop.desk.lots("m1/sms")] == [True, False]


async def test_an_order_that_came_again_as_paid_is_paid(shop: Billing) -> None:
    await shop.sell("tier.changed", tier="100k", order="o1", paid=False)
    await shop.sell("tier.changed", tier="200k", order="o1")
    await shop.sell("payment.received", order="o1")
    assert (await shop.state())["tier"] == "200k"


async def test_a_line_that_came_again_as_paid_takes_the_place_of_one_of_its_type(shop: Billing) -> None:
    await shop.sell("tier.changed", tier="100k", order="o1", paid=False)
    await shop.sell("seats.changed", seats=3, order="o1", paid=False)
    await shop.sell("tier.changed", tier="200k", order="o1")
    await shop.sell("payment.received", order="o1")
    assert ((await shop.state())["tier"], (await shop.state())["seats"]) == ("200k", "3")


async def test_a_term_that_is_past_its_grace_is_refused_and_counts(shop: Billing) -> None:
    now = await shop.desk.now_us() / 1e6
    await shop.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{(now - 11 * DAY) * 1e6:.0f}", "grace": "10", "purge_after": "10"})
    applied = await shop.sell("subscription.renewed", ends=format_time(now + 90 * DAY))
    assert (applied.status, "its grace ended" in applied.why) == ("refused", True)
    assert (await shop.sell("seats.changed", seats=2)).expected == 3, "it stops nobody behind it"


async def test_a_tier_that_nobody_sells_is_left_for_when_they_do(shop: Billing) -> None:
    with pytest.raises(RefusedInput, match="unknown tier"):
        await shop.sell("tier.changed", tier="warp")
    assert (await shop.sell("seats.changed", seats=2)).status == "waits"
    applied = await shop.bring(shop.event("tier.changed", sequence=1, tier="100k"))
    assert [applied.status, *(each.status for each in applied.then)] == ["applied", "applied"]
    assert ((await shop.state())["tier"], (await shop.state())["seats"], applied.then[0].expected) == ("100k", "2", 3)


async def test_no_account(shop: Billing) -> None:
    shop.account = "m2"
    with pytest.raises(NotFound, match="no account m2"):
        await shop.sell("seats.changed", seats=2)


UNSOLD: list[tuple[str, dict[str, Any]]] = [
    ("tier.changed", {"tier": "warp"}), ("edition.changed", {"edition": "golden"}), ("tier.changed", {"tier": "77zz"}),
    ("boost.purchased", {"rate": "warp", "until": "2040-01-01T00:00:00Z"}),
    ("boost.purchased", {"rate": "unmetered", "until": "2040-01-01T00:00:00Z"}),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "said"), UNSOLD)
async def test_what_nobody_sells_is_refused_as_it_comes_early_or_unpaid_too(shop: Billing, type_: str, said: dict[str, Any]) -> None:
    for more in ({"sequence": 5}, {"sequence": 1, "paid": False, "order": "o1"}):
        with pytest.raises(RefusedInput):
            await shop.sell(type_, **said, **more)
    assert (await shop.desk.early("m1"), await shop.trail()) == ({}, [])


async def test_what_is_sold_no_more_when_its_turn_comes_is_told_once_and_tried_again(shop: Billing, bench: Bench) -> None:
    shop.offer = msgspec.structs.replace(OFFER, tiers={**OFFER.tiers, "warp": Tier("warp", 9e5, "")})
    await shop.sell("tier.changed", sequence=2, tier="warp")
    shop.offer = OFFER
    assert (await shop.sell("seats.changed", sequence=1, seats=2)).then == []
    await shop.sell("seats.changed", sequence=4, seats=4)
    await shop.sell("seats.changed", sequence=5, seats=5)
    told = await shop.told()
    assert [each.what for each in told] == ["seats.changed", "billing.stuck"]
    assert (told[1].facts["event"], told[1].facts["sequence"], "unknown tier 'warp'" in told[1].why) == ("evt_2", "2", True)
    waits = (await bench.client.account("m1")).billing_waits
    assert waits is not None
    assert (waits.sequence, waits.events, "warp" in (waits.why or "")) == (2, 3, True)
    shop.offer = msgspec.structs.replace(OFFER, tiers={**OFFER.tiers, "warp": Tier("warp", 9e5, "")})
    assert [each.sequence for each in (await shop.sell("seats.changed", sequence=3, seats=3)).then] == [2, 3, 4, 5]
    assert ((await shop.state())["tier"], (await bench.client.account("m1")).billing_waits) == ("warp", None)
    assert "stuck" not in await shop.desk.account("m1")


async def test_a_kept_event_of_the_release_before_comes_to_its_turn(shop: Billing, bench: Bench) -> None:
    if not isinstance(bench.desk, RedisDesk):
        pytest.skip("memory keeps nothing of a release before")
    raw = shop.event("credits.purchased", sequence=2, credits=500, why="two words")
    await bench.desk._link.call("HSET", "{m1}:early", 2, encode(decode(raw)))
    waits = (await bench.client.account("m1")).billing_waits
    assert waits is not None
    assert (waits.sequence, waits.events, waits.since, "since" in waits.said) == (1, 1, None, False)
    assert (await shop.bring(raw)).status == "waits"
    assert [each.status for each in (await shop.sell("seats.changed", sequence=1, seats=3)).then] == ["applied"]
    assert await shop.lots() == [500]


async def test_a_kept_event_that_cannot_be_read_is_stuck_and_holds_up_no_answer(shop: Billing, bench: Bench) -> None:
    await bench.desk.book("m1", Booking(2, "evt_2", "d", b'{"type": "of another release"}', b"{}"))
    applied = await shop.sell("seats.changed", sequence=1, seats=1)
    assert (applied.status, applied.then) == ("applied", [])
    [stuck] = [each for each in await shop.told() if each.what == "billing.stuck"]
    assert (stuck.facts, "no billing event" in stuck.why) == ({"sequence": "2"}, True)
    waits = (await bench.client.account("m1")).billing_waits
    assert waits is not None
    assert (waits.sequence, "no billing event" in (waits.why or "")) == (2, True)
    assert (await shop.sell("seats.changed", sequence=2, seats=2)).status == "applied", "brought anew it comes"


async def test_what_the_events_wait_for_is_shown(shop: Billing, bench: Bench) -> None:
    assert (await bench.client.account("m1")).billing_waits is None
    before = await shop.desk.now_us() / 1e6
    for sequence in (4, 2, 5):
        await shop.sell("seats.changed", sequence=sequence, seats=sequence)
    after = await shop.desk.now_us() / 1e6
    await shop.sell("seats.changed", sequence=1, seats=1)
    for waits in ((await bench.client.account("m1")).billing_waits, (await bench.client.explain("m1")).billing_waits):
        assert waits is not None
        assert (waits.sequence, waits.events, waits.why) == (3, 2, None)
        assert waits.since is not None
        assert before - 1e-3 <= waits.since.timestamp() <= after + 1e-3
        assert "event 3 has not come" in waits.said
    await shop.sell("seats.changed", sequence=3, seats=3)
    assert (await bench.client.explain("m1")).billing_waits is None


# money


async def test_one_whose_turn_comes_while_it_is_looked_at_has_its_effect(shop: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before it is applied between the look at the account and the script: it must not come as one that changes nothing."""
    first, second = shop.event("seats.changed", seats=1), shop.event("credits.purchased", credits=500)
    account = shop.desk.account

    async def overtaken(name: str) -> Mapping[str, str]:
        fields = await account(name)
        monkeypatch.setattr(shop.desk, "account", account)
        await shop.bring(first)
        return fields

    monkeypatch.setattr(shop.desk, "account", overtaken)
    assert (await shop.bring(second)).credits == 500
    assert (await shop.lots(), await shop.desk.accounts()) == ([500], ["m1", "m1/sms"])


async def test_of_many_credits_with_one_sequence_one_is_a_lot(shop: Billing) -> None:
    rivals = [shop.event("credits.purchased", sequence=1, id=f"rival_{at}", credits=100 + at) for at in range(32)]
    done = await asyncio.gather(*(shop.bring(raw) for raw in rivals), return_exceptions=True)
    [won] = [each for each in done if isinstance(each, Applied)]
    assert sum(isinstance(each, Conflict) for each in done) == 31
    assert await shop.lots() == [won.credits]


async def test_credits_under_an_id_that_was_used_are_no_lot(shop: Billing) -> None:
    await shop.sell("seats.changed", seats=2)
    with pytest.raises(Conflict, match="its id came already"):
        await shop.sell("credits.purchased", sequence=2, id="evt_1", credits=500)
    assert await shop.lots() == []
    await shop.sell("credits.purchased", sequence=2, credits=70)
    with pytest.raises(Conflict):
        await shop.sell("credits.purchased", sequence=2, id="evt_9", credits=71)
    assert await shop.lots() == [70]


async def test_credits_that_were_granted_by_hand_under_the_events_id_stop_no_event(shop: Billing, bench: Bench) -> None:
    await bench.client.grant_credits("m1", 100, key="evt_1")
    await bench.client.grant_credits("m1", 100, key="evt_2")
    assert (await shop.sell("credits.purchased", sequence=2, credits=500)).status == "waits"
    applied = await shop.sell("credits.purchased", sequence=1, credits=300)
    assert [applied.status, *(each.status for each in applied.then)] == ["applied", "applied"]
    assert await shop.lots() == [100, 100, 300, 500]
    assert await prepaid.check(shop.desk, "m1/sms") == []


async def test_credits_from_many_connections_at_once_are_one_lot_each(redis_url: str) -> None:
    """Each event five times, out of order, over eight connections, among others that claim its sequence or its id."""
    draw, n = Random(chance.seed(10**9)), 300
    desks = [RedisDesk(redis_url) for _ in range(8)]
    try:
        await desks[0].create_account("m1", {"tier": "5k", "rate": "5000.0", "iv": "720000.000"})
        shops = [Billing(desk) for desk in desks]
        events = [shops[0].event("credits.purchased", credits=draw.randint(1, 5000)) for _ in range(n)]
        deliveries = [(at + draw.uniform(0, 30), raw) for at, raw in enumerate(events) for _ in range(5)]
        for at in range(0, n, 5):
            rival = shops[0].event("credits.purchased", sequence=at + 1, id=f"rival_{at}", credits=9999)
            reused = shops[0].event("credits.purchased", sequence=at + 2, id=f"evt_{at + 1}", credits=8888)
            deliveries += [(at + draw.uniform(25, 60), rival), (at + draw.uniform(25, 60), reused)]
        order = [raw for _, raw in sorted(deliveries)]
        done: list[Any] = []
        for at in range(0, len(order), 40):
            done += await asyncio.gather(*(draw.choice(shops).bring(raw) for raw in order[at : at + 40]), return_exceptions=True)
        for raw in events:  # as the platform does, until each has an answer
            done.append(await shops[0].bring(raw))
        accepted = [each for said in done if isinstance(said, Applied) for each in (said, *said.then) if each.status == "applied"]
        assert {type(each) for each in done} <= {Applied, Conflict}
        assert sorted(each.sequence for each in accepted) == list(range(1, n + 1)), "one at each place"
        lots = await shops[0].lots()
        assert (len(lots), sum(lots)) == (n, sum(each.credits for each in accepted))
        assert len({entry.what.why for entry in await desks[0].ledger("m1/sms", "", 10_000)}) == n
        assert await prepaid.check(desks[0], "m1/sms") == []
    finally:
        for desk in desks:
            await desk.close()


async def test_an_id_that_waits_twice_is_dropped_where_it_is_no_event(shop: Billing) -> None:
    await shop.bring(shop.event("seats.changed", sequence=3, id="evt_2", seats=3))
    await shop.bring(shop.event("seats.changed", sequence=2, seats=2))
    applied = await shop.bring(shop.event("seats.changed", sequence=1, seats=1))
    assert [each.sequence for each in applied.then] == [2]
    assert await shop.desk.early_event("m1", 3) is None
    [dropped] = [each for each in await shop.told() if each.what == "billing.dropped"]
    assert (dropped.facts["event"], dropped.facts["sequence"], "its id came already" in dropped.why) == ("evt_2", "3", True)
    assert (await shop.bring(shop.event("seats.changed", sequence=3, seats=5))).status == "applied"


def catalogue(shop: Billing, now: float, n: int, draw: Random) -> list[bytes]:
    """A history of purchases, each of what is sold, paid at once, later or never."""
    events: list[bytes] = []
    unpaid: list[str] = []
    for at in range(n):
        until = format_time(now + draw.randint(1, 300) * DAY)
        kind, said = draw.choice([
            ("tier.changed", {"tier": draw.choice(["5k", "60k", "100k", "7500", "unmetered"])}),
            ("edition.changed", {"edition": draw.choice(["starter", "plus", "premium", "enterprise"])}),
            ("seats.changed", {"seats": draw.randint(0, 50)}),
            ("boost.purchased", {"rate": str(draw.randint(10_000, 900_000)), "from": format_time(now + DAY), "until": until}),
            ("credits.purchased", {"credits": draw.randint(1, 5000)}),
            ("subscription.renewed", {"ends": until}),
            ("subscription.cancelled", {}),
        ])  # fmt: skip
        if unpaid and draw.random() < 0.2:
            kind, said = "payment.received", {"order": unpaid.pop(draw.randrange(len(unpaid)))}
        elif draw.random() < 0.3:
            if not unpaid or draw.random() < 0.6:  # else another line of an order that waits
                unpaid.append(f"o{at}")
            said |= {"order": unpaid[-1], "paid": False}
        events.append(shop.event(kind, **said))
    return events


async def test_a_thousand_replays_and_reorders_come_to_the_same(bench: Bench) -> None:
    """A thousand events, each twice, in any order up to a hundred apart, many at once: as if each had come once, in its turn."""
    draw = Random(chance.seed(10**9))
    now = await bench.desk.now_us() / 1e6
    orderly, shaken = Billing(MemoryDesk(MemoryStore(), lambda: time.time() * 1e6), "m2"), Billing(bench.desk, "m1")
    await orderly.desk.create_account("m2", await bench.desk.account("m1"))
    n = 1000
    kept = Random(draw.random())
    events = catalogue(orderly, now, n, kept)
    for raw in events:
        assert (await orderly.bring(raw)).status in ("applied", "unpaid", "refused")
    mine = [raw.replace(b'"account":"m2"', b'"account":"m1"') for raw in events]
    deliveries = [(at + draw.uniform(0, 100), raw) for at, raw in enumerate(mine) for _ in range(2)]
    deliveries.sort(key=lambda pair: pair[0])
    assert len(deliveries) == 2 * n
    statuses: list[str] = []
    for at in range(0, len(deliveries), 25):
        done = await asyncio.gather(*(shaken.bring(raw) for _, raw in deliveries[at : at + 25]))
        statuses += [each.status for applied in done for each in (applied, *applied.then)]
    assert await shaken.state() == await orderly.state()
    effective = [status for status in statuses if status not in ("repeated", "waits")]
    assert len(effective) == n, "each came to its turn once"
    assert [what for what, _ in await shaken.trail()] == [what for what, _ in await orderly.trail()]
    assert [name for _, name in await shaken.trail()] == [f"evt_{at}" for at in range(1, n + 1)]


async def test_forgeries_change_nothing_and_are_refused_all(shop: Billing) -> None:
    draw = Random(11)
    await shop.sell("tier.changed", tier="5k")
    before, trail = await shop.state(), await shop.trail()
    raw, now = shop.event("edition.changed", edition="enterprise"), await shop.desk.now_us() / 1e6
    header = sign(raw, [SECRET], now)
    refused = 0
    for _ in range(1000):
        at = draw.randrange(len(raw))
        altered = raw[:at] + bytes([raw[at] ^ draw.randrange(1, 256)]) + raw[at + 1 :]
        place = draw.randrange(len(header) - 64, len(header))
        digit = draw.choice([each for each in "0123456789abcdef" if each != header[place]])
        for octets, given in (
            (altered, header),
            (raw, header[:place] + digit + header[place + 1 :]),
            (raw, sign(raw, [draw.randbytes(32)], now)),
            (raw, sign(raw, [SECRET], now - draw.randint(301, 10**6))),
        ):
            with pytest.raises(Forged):
                await shop.bring(octets, given)
            refused += 1
    assert refused == 4000, "of each kind a thousand"
    assert (await shop.state(), await shop.trail()) == (before, trail)
    assert (await shop.bring(raw, header)).status == "applied", "the genuine one"


class Dies(MemoryDesk):
    """Its answer, or the call itself, is lost now and then."""

    draw = Random(3)

    async def book(self, account: str, booking: Booking) -> Booked:
        if self.draw.random() < 0.2:
            raise Unavailable("before")
        booked = await super().book(account, booking)
        if self.draw.random() < 0.3:
            raise Unavailable("after")
        return booked

    async def early_event(self, account: str, sequence: int) -> bytes | None:
        if self.draw.random() < 0.2:
            raise Unavailable("between")
        return await super().early_event(account, sequence)


async def test_lost_answers_and_deaths_between() -> None:
    """Whoever brings events dies anywhere; the platform brings each again until it has an answer."""
    desks = Dies(MemoryStore(), lambda: 1.8e15), MemoryDesk(MemoryStore(), lambda: 1.8e15)
    states = []
    for desk in desks:
        await desk.create_account("m1", {"tier": "5k", "rate": "5000.0", "iv": "720000.000"})
        shop = Billing(desk)
        events = catalogue(shop, 1.8e9, 200, Random(5))
        if isinstance(desk, Dies):
            Random(6).shuffle(events)
        while events:
            raw = events.pop(0)
            try:
                await shop.bring(raw)
            except Unavailable:
                events.append(raw)
        while True:  # what waits is taken with any later delivery: the platform's next one
            try:
                await shop.bring(shop.event("seats.changed", sequence=201, seats=7))
                break
            except Unavailable:
                continue
        states.append((await shop.state(), await shop.trail()))
    assert states[0] == states[1]
    assert len(states[0][1]) == 201


async def test_the_examples_of_the_manual(bench: Bench) -> None:
    """One of each type, and each field of its schema is in the table."""
    text = (Path(__file__).parent.parent / "docs" / "billing.md").read_text()
    examples = re.findall(r"<!-- events: [^>]* -->\n```json\n(.*?)```", text, re.DOTALL)[0].encode().splitlines()
    shop = Billing(bench.desk, "m1234")
    await bench.client.create_account("m1234", "60k")
    statuses = [(await shop.bring(raw)).status for raw in examples]
    assert statuses == ["applied", "unpaid", "unpaid", *["applied"] * 6]
    shown = await bench.client.account("m1234")
    assert (shown.edition, shown.tier, shown.seats, shown.term.phase) == ("plus", "100k", 4, "grace")
    assert (await shop.lots(), [boost.rate for boost in shown.boosts]) == ([5000], [400_000])
    of_all = set(Event.__struct_fields__)
    for event in schema()["$defs"].values():
        [type_] = event["properties"]["type"]["enum"]
        [row] = re.findall(rf"^\| `{type_}` \|.*$", text, re.MULTILINE)
        assert all(f"`{name}` (" in row for name in event["properties"].keys() - of_all - {"type"}), type_
        assert any(orjson.loads(raw)["type"] == type_ for raw in examples), type_
    assert all(f"`{name}`" in text for name in of_all)


# channels


async def test_an_edition_without_a_channel_takes_no_sends_by_it(shop: Billing, bench: Bench) -> None:
    client, rows = bench.client, [{"email": "a@example.org", "name": "A", "phone": "+14155550100"}]
    sms: dict[str, Any] = {"account": "m1", "sender": "ACME", "text": "hi"}
    shop.offer = msgspec.structs.replace(OFFER, editions={**OFFER.editions, "texter": Edition("texter", "T", "5k", ("sms",), 1)})
    await client.grant_credits("m1", 100, key="k")
    await bench.submit(rows, campaign="mail-0")
    await client.submit_sms(recipients=rows, campaign="sms-0", **sms)  # no edition: nothing is limited
    await shop.sell("edition.changed", edition="starter")
    await bench.submit(rows, campaign="mail-1")
    for refused in (client.submit_sms(recipients=rows, campaign="sms-1", **sms), client.open_sms(campaign="sms-1", **sms)):
        with pytest.raises(Conflict, match="no sends by sms: edition 'starter' has email only") as caught:
            await refused
        assert "edition.changed" in caught.value.remedy
    await client.pause("sms-0")
    assert (await client.resume("sms-0")).state == "sending", "what was sold goes on"
    await shop.sell("edition.changed", edition="texter")
    await client.submit_sms(recipients=rows, campaign="sms-2", **sms)
    for refused in (
        bench.submit(rows, campaign="mail-2"), client.open(account="m1", message=MESSAGE, campaign="mail-2"),
        client.send(account="m1", message=MESSAGE, to="a@example.org", fields={"name": "A"}),
    ):
        with pytest.raises(Conflict, match="no sends by email: edition 'texter' has sms only"):
            await refused
    await client.cancel("mail-1")
    with pytest.raises(Conflict, match="no sends by email"):
        await client.resend("mail-1")


# in force


@pytest.mark.parametrize("workers", [1, 4])
def test_a_tier_that_was_sold_is_in_force_within_a_second(workers: int) -> None:
    from sendengine.engine.settings import EngineSettings

    @virtual
    async def selling() -> None:
        rig = Rig()
        await rig.account(per_hour=7200)  # 2/s
        await rig.submit(500)
        for at in range(workers):
            rig.start(f"w{at}", EngineSettings(spread_above=0.0))
        await asyncio.sleep(20.0)
        shop = Billing(rig.desk)
        assert (await shop.sell("tier.changed", tier="100k", paid=False, order="o1")).status == "unpaid"
        await asyncio.sleep(10.0)
        begin = rig.loop.time()
        assert (await shop.sell("payment.received", order="o1")).status == "applied"
        fields = await rig.until_ended()
        times = rig.times()
        before = [at for at in times if at < begin]
        after = [at for at in times if at >= begin + 1.0]
        assert len(before) == pytest.approx(60, abs=3)
        assert (len(after) - 1) / (after[-1] - after[0]) == pytest.approx(100_000 / 3600, rel=0.01)
        assert int(fields["sent"]) == 500 == len(set(rig.accepted))
        for at in range(workers):
            await rig.stop(f"w{at}")

    selling()


# the command line


def test_the_verb(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "secrets").write_bytes(SECRET + b"\n")
    head: dict[str, Any] = {"id": "e1", "account": "m1", "sequence": 1, "at": "2026-11-27T10:00:00Z"}
    event = {**head, "type": "tier.changed", "tier": "100k"}
    (run.folder / "e1").write_bytes(orjson.dumps(event))
    done = run("event", "e1", "--sign")
    assert (done.code, "no secret is shared" in done.err) == (2, True)
    monkeypatch.setenv("SENDENGINE_BILLING_SECRETS_FILE", str(run.folder / "secrets"))
    done = run("event", "e1")
    assert (done.code, "none was given" in done.err, "--sign where you hold the secret" in done.err) == (2, True, True)
    done = run("event", "e1", "--sign", "--signature", "t=1795807191,v1=" + "0" * 64)
    assert (done.code, "--signature and --sign at once" in done.err, "--sign alone" in done.err) == (2, True, True)
    (run.folder / "e0").write_bytes(orjson.dumps({**event, "tier": "77zz"}))
    done = run("event", "e0", "--sign")
    assert (done.code, "nearest is '60k'" in done.err) == (2, True)
    done = run("event", "e1", "--signature", "t=1795807191,v1=" + "0" * 64)
    assert (done.code, "not billing's" in done.err) == (2, True)
    done = run("event", "e1", "--sign", "--json")
    assert (done.json["status"], done.json["expected"]) == ("applied", 2)
    assert run("event", "e1", "--sign").out == "e1 (tier.changed, m1 #1): it had come before: nothing changed\n"
    assert run("account", "show", "m1", "--json").json["tier"] == "100k"
    shown = run("account", "show", "m1", "--json").json
    assert (shown["edition"], shown["channels"], shown["seats"], shown["billing_sequence"]) == (None, None, None, 1)
    (run.folder / "e3").write_bytes(orjson.dumps({**event, "id": "e3", "sequence": 3, "tier": "5k"}))
    assert run("event", "e3", "--sign").out == "e3 (tier.changed, m1 #3): it waits for sequence 2\n"
    waits = run("account", "show", "m1", "--json").json["billing_waits"]
    assert (waits["sequence"], waits["events"], waits == run("why", "m1", "--json").json["billing_waits"]) == (2, 1, True)
    for command in (("account", "show", "m1"), ("why", "m1")):
        assert "event 2 has not come" in " ".join(run(*command).out.replace("│", " ").split())
    (run.folder / "e2").write_bytes(orjson.dumps({**event, "id": "e2", "sequence": 2, "tier": "30k"}))
    assert run("event", "e2", "--sign").out.splitlines() == ["e2 (tier.changed, m1 #2): applied", "e3 (tier.changed, m1 #3): applied"]
    assert run("account", "show", "m1", "--json").json["tier"] == "5k"
    (run.folder / "e4").write_bytes(orjson.dumps({**event, "id": "e1", "sequence": 4}))
    (run.folder / "e5").write_bytes(orjson.dumps({**head, "id": "e5", "sequence": 4, "type": "edition.changed", "edition": "plus"}))
    assert run("event", "e5", "--sign", "--json").json["status"] == "applied"
    shown = run("account", "show", "m1", "--json").json
    assert (shown["edition"], shown["channels"], shown["seats"], shown["tier"]) == ("plus", ["email", "sms"], 2, "30k")
    assert "plus" in run("account", "show", "m1").out
    done = run("event", "e4", "--sign")
    assert (done.code, "its id came already" in done.err) == (2, True)


def test_credits_that_were_sold(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "secrets").write_bytes(SECRET + b"\n")
    monkeypatch.setenv("SENDENGINE_BILLING_SECRETS_FILE", str(run.folder / "secrets"))
    head: dict[str, Any] = {"id": "e1", "account": "m1", "sequence": 1, "at": "2026-11-27T10:00:00Z"}
    (run.folder / "e1").write_bytes(orjson.dumps({**head, "type": "credits.purchased", "credits": 500}))
    for status in ("applied", "repeated"):
        assert run("event", "e1", "--sign", "--json").json["status"] == status
    shown = run("credits", "show", "--account", "m1", "--json").json
    assert (shown["granted"], shown["free"]) == (500, 500)


def test_secrets_and_editions_that_are_off_are_found_by_config_check(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secrets").write_text("short")
    monkeypatch.setenv("SENDENGINE_BILLING_SECRETS_FILE", "secrets")
    monkeypatch.setenv("SENDENGINE_EDITIONS_FILE", "none.toml")
    done = run("config", "check")
    assert done.code == 2
    assert "at least 32 characters" in done.err + done.out
    assert "none.toml" in done.err + done.out
    assert "short" not in (done.err + done.out).replace("secrets", "")
