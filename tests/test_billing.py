"""Events from billing as they reach an account: a thousand replays, reorders and forgeries, and what stands afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from sendengine import config
from sendengine.config import Config
from sendengine.errors import NotFound, RefusedInput, Unavailable
from sendengine.policy.billing import HEADER, Forged, sign
from sendengine.policy.grants import grants_of
from sendengine.policy.times import format_time
from sendengine.ports import Booked, Booking, Desk
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.scheduler import audit
from sendengine.scheduler.billing import Applied, apply_event
from tests import chance
from tests.engine.rig import Rig
from tests.engine.test_engine import virtual
from tests.test_cli import Shell, run
from tests.test_client import Bench, bench

__all__ = ["bench", "run"]  # fixtures of theirs

SECRET = b"a secret of thirty-two characters"
OFFER = config.offer(Config())
DAY = 86400.0


class Billing:
    """The platform: numbers its events, signs them, and brings them."""

    def __init__(self, desk: Desk, account: str = "m1") -> None:
        self.desk, self.account, self.sequence = desk, account, 0
        self.granted: dict[str, int] = {}

    def event(self, type_: str, sequence: int | None = None, **said: Any) -> bytes:
        self.sequence = sequence or self.sequence + 1
        head = {"id": f"evt_{self.sequence}", "account": self.account, "sequence": self.sequence, "at": "2026-11-27T10:00:00Z"}
        return orjson.dumps({**head, "type": type_, **said})

    async def bring(self, raw: bytes, header: str | None = None, secrets: Sequence[bytes] = (SECRET,)) -> Applied:
        now = await self.desk.now_us() / 1e6
        return await apply_event(self.desk, raw, {HEADER: header or sign(raw, secrets, now)}, [SECRET], now, OFFER, self._grant)

    async def sell(self, type_: str, **said: Any) -> Applied:
        return await self.bring(self.event(type_, **said))

    async def _grant(self, account: str, key: str, amount: int, who: str, why: str) -> None:
        self.granted.setdefault(key, amount)

    async def state(self) -> Mapping[str, Any]:
        """What events decide, without what only counts."""
        fields = dict(await self.desk.account(self.account))
        names = ("tier", "rate", "iv", "edition", "channels", "seats", "seq", "term", "term_ends")
        boosts = [(each.start, each.end, each.rate) for each in grants_of(fields)]
        return {name: fields.get(name) for name in names} | {"boosts": boosts, "credits": dict(self.granted)}

    async def trail(self) -> list[tuple[str, str]]:
        return [(each.what, each.facts["event"]) async for each in audit.read(self.desk, self.account)]


@pytest.fixture
async def shop(bench: Bench) -> Billing:
    return Billing(bench.desk)


async def test_a_purchase_and_its_line(shop: Billing) -> None:
    applied = await shop.sell("tier.changed", tier="100k", who="anna", why="sale")
    assert (applied.status, applied.expected, applied.type) == ("applied", 2, "tier.changed")
    assert ((await shop.state())["tier"], (await shop.state())["rate"]) == ("100k", "100000.0")
    [line] = [each async for each in audit.read(shop.desk, "m1")]
    assert (line.what, line.who, line.why) == ("tier.changed", "anna", "sale")
    assert line.facts == {"event": "evt_1", "sequence": "1", "tier": "100k", "rate": "100000.0", "iv": "36000.000"}


async def test_an_unpaid_order_changes_nothing_until_its_payment(shop: Billing) -> None:
    before = await shop.state()
    assert (await shop.sell("edition.changed", edition="plus", order="o1", paid=False)).status == "unpaid"
    assert {**await shop.state(), "seq": None} == before
    assert (await shop.sell("payment.received", order="o2")).status == "applied", "of another order"
    assert {**await shop.state(), "seq": None} == before
    assert (await shop.sell("payment.received", order="o1")).status == "applied"
    assert (await shop.state())["edition"] == "plus"
    assert (await shop.sell("payment.received", order="o1")).status == "applied", "paid twice, in force once"


async def test_a_payment_before_its_order(shop: Billing) -> None:
    await shop.sell("payment.received", order="o1")
    assert (await shop.sell("credits.purchased", credits=500, order="o1", paid=False)).status == "applied"
    assert shop.granted == {"evt_2": 500}


async def test_an_order_that_came_again_as_paid_is_paid(shop: Billing) -> None:
    await shop.sell("tier.changed", tier="100k", order="o1", paid=False)
    await shop.sell("tier.changed", tier="200k", order="o1")
    await shop.sell("payment.received", order="o1")
    assert (await shop.state())["tier"] == "200k"


async def test_a_term_that_is_past_its_grace_is_refused_and_counts(shop: Billing) -> None:
    now = await shop.desk.now_us() / 1e6
    await shop.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{(now - 11 * DAY) * 1e6:.0f}", "grace": "10", "purge_after": "10"})
    applied = await shop.sell("subscription.renewed", ends=format_time(now + 90 * DAY))
    assert (applied.status, "its grace ended" in applied.why) == ("refused", True)
    assert (await shop.sell("seats.changed", seats=2)).status == "applied", "it stops nobody behind it"


async def test_a_tier_that_nobody_sells_is_left_for_when_they_do(shop: Billing) -> None:
    with pytest.raises(NotFound, match="unknown tier"):
        await shop.sell("tier.changed", tier="warp")
    assert (await shop.sell("seats.changed", seats=2)).status == "waits"
    applied = await shop.bring(shop.event("tier.changed", sequence=1, tier="100k"))
    assert [applied.status, *(each.status for each in applied.then)] == ["applied", "applied"]
    assert ((await shop.state())["tier"], (await shop.state())["seats"], applied.then[0].expected) == ("100k", "2", 3)


async def test_no_account(shop: Billing) -> None:
    shop.account = "m2"
    with pytest.raises(NotFound, match="no account m2"):
        await shop.sell("seats.changed", seats=2)


async def test_credits_without_a_ledger_are_left(shop: Billing) -> None:
    raw = shop.event("credits.purchased", credits=5)
    now = await shop.desk.now_us() / 1e6
    with pytest.raises(RefusedInput, match="no credits are kept"):
        await apply_event(shop.desk, raw, {HEADER: sign(raw, [SECRET], now)}, [SECRET], now, OFFER)
    assert (await shop.bring(raw)).status == "applied"


async def test_an_id_that_waits_twice_is_dropped_where_it_is_no_event(shop: Billing) -> None:
    await shop.bring(shop.event("seats.changed", sequence=3, id="evt_2", seats=3))
    await shop.bring(shop.event("seats.changed", sequence=2, seats=2))
    applied = await shop.bring(shop.event("seats.changed", sequence=1, seats=1))
    assert [each.sequence for each in applied.then] == [2]
    assert await shop.desk.early_event("m1", 3) is None
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
            unpaid.append(f"o{at}")
            said |= {"order": f"o{at}", "paid": False}
        events.append(shop.event(kind, **said))
    return events


async def test_a_thousand_replays_and_reorders_come_to_the_same(bench: Bench) -> None:
    """Each event at least twice, in any order up to some hundred apart, several at once: as if each had come once, in its turn."""
    draw = Random(chance.seed(10**9))
    now = await bench.desk.now_us() / 1e6
    await bench.client.create_account("m2", "60k")
    orderly, shaken = Billing(bench.desk, "m2"), Billing(bench.desk, "m1")
    n = 350
    kept = Random(draw.random())
    events = catalogue(orderly, now, n, kept)
    for raw in events:
        assert (await orderly.bring(raw)).status in ("applied", "unpaid", "refused")
    mine = [raw.replace(b'"account":"m2"', b'"account":"m1"') for raw in events]
    deliveries = [(at + draw.uniform(0, 100), raw) for at, raw in enumerate(mine) for _ in range(draw.choice([2, 3, 4]))]
    deliveries.sort(key=lambda pair: pair[0])
    assert len(deliveries) >= 2 * n
    statuses: list[str] = []
    for at in range(0, len(deliveries), 5):
        done = await asyncio.gather(*(shaken.bring(raw) for _, raw in deliveries[at : at + 5]))
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
    for _ in range(250):
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
    assert refused == 1000
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
    assert run("event", "e1").code == 2, "unsigned"
    done = run("event", "e1", "--signature", "t=1795807191,v1=" + "0" * 64)
    assert (done.code, "not billing's" in done.err) == (2, True)
    done = run("event", "e1", "--sign", "--json")
    assert (done.json["status"], done.json["expected"]) == ("applied", 2)
    assert run("event", "e1", "--sign").out == "e1 (tier.changed, m1 #1): it had come before: nothing changed\n"
    assert run("account", "show", "m1", "--json").json["tier"] == "100k"
    shown = run("account", "show", "m1", "--json").json
    assert (shown["edition"], shown["channels"], shown["seats"], shown["billing_sequence"]) == (None, [], None, 1)
    (run.folder / "e3").write_bytes(orjson.dumps({**event, "id": "e3", "sequence": 3, "tier": "5k"}))
    assert run("event", "e3", "--sign").out == "e3 (tier.changed, m1 #3): it waits for sequence 2\n"
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
    assert (done.code, "another event has the id e1" in done.err) == (2, True)


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
