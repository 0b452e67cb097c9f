"""Credits: reserved as rows are stored, spent or released as they end, once; and always what was granted."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from queue_bench import SETTINGS, Bench, ManualClock, deferred, doubts, outcomes, rows, settlement

from sendengine import records
from sendengine.intake import Intake, PackedBatch
from sendengine.policy.credits import Balance, Home, balance, fold
from sendengine.ports import Blame, Run, Stored
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.types import Outcome

LANE = "m1/sms"
FAR = 4e15  # µs; the year 2096
PRICE = 2000
MAILED = 1


def priced(n: int, prices: Sequence[int] | int = PRICE, start: int = 0) -> list[PackedBatch]:
    found = list(Intake((), salt=b"salt").from_rows([{"email": f"u{at}@example.com"} for at in range(start, start + n)]))
    made = []
    for batch in found:
        own = [prices if isinstance(prices, int) else prices[(100 * batch.number + row) % len(prices)] for row in batch.positions]
        made.append(msgspec.structs.replace(batch, prices=b"".join(price.to_bytes(4, "little") for price in own)))
    return made


def ended(kept: Sequence[int], outcome: Outcome = Outcome.SENT, mail_ms: int = MAILED) -> bytes:
    return b"".join(records.OUTCOME.pack(row, outcome | records.FIRST_TRY, 1, records.NO_REPLY, mail_ms, 0.0, 0.0, 0) for row in kept)


class Till:
    """What the tests ask of a lane that is paid for."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.desk, self.queue = bench, bench.desk, bench.queue

    async def open(self, *amounts: int, channels: str = "sms", lane: str = LANE) -> None:
        await self.bench.account("m1")
        await self.desk.set_account("m1", {"channels": channels})
        await self.bench.account(lane)
        for at, amount in enumerate(amounts):
            assert await self.desk.grant_credits(lane, f"order-{at}", amount, 1e15 + at, FAR + at, "till", "bought") == at + 1

    async def campaign(self, name: str, batches: Sequence[PackedBatch], **settings: str) -> None:
        assert await self.desk.create(LANE, name, b"digest", None, b"message", SETTINGS | settings) == "new"
        for batch in batches:
            assert (await self.desk.submit(LANE, name, batch)).status == "stored"
        assert (await self.desk.seal(LANE, name, len(batches))).status == "sealed"

    async def take(self, n: int = 10_000) -> list:  # type: ignore[type-arg]
        return list((await self.queue.take(LANE, "w1", n, self.bench.tokens(), [], [])).leases)

    async def settle(self, *settlements: object) -> tuple[int, ...]:
        return (await self.queue.visit(LANE, 0, 0.0, "=", [], settlements)).acted  # type: ignore[arg-type]

    async def balance(self) -> Balance:
        found = await self.desk.lots(LANE)
        home = Home.of(await self.desk.account("m1"))
        now = balance(found, home, await self.desk.now_us())
        assert now.granted == now.reserved + now.spent + now.free + now.frozen + now.expired
        assert min(now.reserved, now.spent, now.free, now.frozen, now.expired) >= 0
        entries = [entry.what for entry in await self.desk.ledger(LANE, "", 100_000)]
        assert list(fold(entries).values()) == found
        return now

    async def facts(self) -> tuple[int, int, int]:
        now = await self.balance()
        return now.reserved, now.spent, now.free


@pytest.fixture
async def till(bench: Bench) -> Till:
    return Till(bench)


async def test_rows_are_reserved_as_they_are_stored_and_spent_as_they_are_sent(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(150))
    assert await till.facts() == (300_000, 0, 700_000)
    first, second = await till.take()
    await till.settle(settlement(first.token, ended(rows(first)[:60])))
    assert await till.facts() == (180_000, 120_000, 700_000)
    await till.settle(settlement(first.token, ended(rows(first)[60:])), settlement(second.token, ended(rows(second))))
    assert await till.facts() == (0, 300_000, 700_000)


async def test_list_that_lacks_credit_is_not_sealed_until_it_has_ended(till: Till) -> None:
    await till.open(250_000)
    await till.desk.create(LANE, "a", b"digest", None, b"message", SETTINGS)
    (first, second), one, other = priced(150), Run("1" * 16), Run("2" * 16, 1)
    await till.desk.submit(LANE, "a", first, run=one)
    assert await till.desk.end_list(LANE, "a", one, 1)
    for _ in range(2):
        assert (await till.desk.submit(LANE, "a", second, run=other, line=b"other")).status == "credit"
    assert await till.desk.seal(LANE, "a", 1, must_have_ended=True) == Stored("unended")
    assert await till.desk.grant_credits(LANE, "more", 50_000, 1e15, FAR, "till", "bought")
    assert (await till.desk.submit(LANE, "a", second, run=other, line=b"other")).status == "stored"
    assert [each.line for each in await till.desk.audit("m1", "", 9)] == [b"other"]
    assert await till.desk.end_list(LANE, "a", other, 2)
    assert await till.desk.seal(LANE, "a", 2, must_have_ended=True) == Stored("sealed")


async def test_repeated_settlement_charges_once(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(10))
    [lease] = await till.take()
    once = settlement(lease.token, ended(range(4)))
    for _ in range(3):
        await till.settle(once)
    assert await till.facts() == (12_000, 8_000, 980_000)
    await till.settle(once, settlement(lease.token, ended(range(10))), once)
    assert await till.facts() == (0, 20_000, 980_000)


@pytest.mark.parametrize(
    ("outcome", "mail_ms", "is_spent"),
    [
        (Outcome.SENT, 1, True),
        (Outcome.BOUNCED, 1, True),
        (Outcome.BOUNCED, 0, False),  # by us: it was never submitted
        (Outcome.EXPIRED, 1, False),
        (Outcome.EXPIRED, 0, False),
        (Outcome.SUPPRESSED, 0, False),
        (Outcome.UNKNOWN, 1, True),
    ],
)
async def test_what_was_submitted_is_spent_and_the_rest_is_free(till: Till, outcome: Outcome, mail_ms: int, is_spent: bool) -> None:
    await till.open(100_000)
    await till.campaign("a", priced(10))
    [lease] = await till.take()
    await till.settle(settlement(lease.token, ended(range(10), outcome, mail_ms)))
    assert await till.facts() == ((0, 20_000, 80_000) if is_spent else (0, 0, 100_000))


async def test_each_row_has_its_own_price_and_a_duplicate_none(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", [*priced(6, [1000, 2000, 5000])])
    assert (await till.balance()).reserved == 16_000
    [lease] = await till.take()
    await till.settle(settlement(lease.token, ended([2, 5])))
    assert await till.facts() == (6_000, 10_000, 984_000)
    assert (await till.desk.bill(LANE, "a")).price(0, 4) == 2000
    assert await till.desk.create(LANE, "b", b"digest", None, b"message", SETTINGS) == "new"
    [batch] = priced(4)
    await till.desk.submit(LANE, "b", batch)
    assert (await till.desk.submit(LANE, "b", msgspec.structs.replace(batch, number=1))).accepted == 0
    assert (await till.balance()).reserved == 14_000
    assert (await till.desk.submit(LANE, "b", batch)).status == "same"
    assert (await till.balance()).reserved == 14_000


async def test_batch_that_is_too_dear_is_not_stored_and_can_be_repeated(till: Till) -> None:
    await till.open(250_000)
    assert await till.desk.create(LANE, "a", b"digest", None, b"message", SETTINGS | {"need_seal": "1"}) == "new"
    first, second = priced(200)
    assert (await till.desk.submit(LANE, "a", first)).status == "stored"
    refused = await till.desk.submit(LANE, "a", second)
    assert (refused.status, refused.needed, refused.free) == ("credit", 200_000, 50_000)
    assert await till.facts() == (200_000, 0, 50_000)
    assert await till.desk.grant_credits(LANE, "more", 150_000, 2e15, FAR, "", "") == 2
    assert (await till.desk.submit(LANE, "a", second)).accepted == 100
    assert await till.facts() == (400_000, 0, 0)


async def test_same_purchase_twice_is_one_lot(till: Till) -> None:
    await till.open(5_000)
    assert await till.desk.grant_credits(LANE, "order-0", 5_000, 3e15, FAR, "", "") == 1
    assert await till.desk.grant_credits("m9/sms", "order-0", 5_000, 3e15, FAR, "", "") is None
    assert (await till.balance()).granted == 5_000


async def test_lot_that_expires_first_pays_first_and_is_the_last_to_get_back(till: Till) -> None:
    await till.open(30_000, 30_000)  # the first expires first
    await till.campaign("a", priced(20))
    assert [(lot.reserved, lot.spent) for lot in await till.desk.lots(LANE)] == [(30_000, 0), (10_000, 0)]
    [lease] = await till.take()
    await till.settle(settlement(lease.token, ended(range(5)) + ended(range(5, 10), Outcome.EXPIRED)))
    assert [(lot.reserved, lot.spent) for lot in await till.desk.lots(LANE)] == [(20_000, 10_000), (0, 0)]
    await till.settle(settlement(lease.token, ended(range(10, 20))))
    assert [(lot.reserved, lot.spent) for lot in await till.desk.lots(LANE)] == [(0, 30_000), (0, 0)]


async def test_lots_bought_with_mail_are_good_until_that_term_ends(till: Till) -> None:
    await till.open(10_000, channels="mail sms")
    now = await till.desk.now_us()
    await till.desk.set_account("m1", {"term_ends": f"{now + 60e6:.0f}"})
    assert (await till.balance()).free == 10_000
    await till.desk.set_account("m1", {"term_ends": f"{now - 1:.0f}"})
    found = await till.balance()
    assert (found.free, found.frozen) == (0, 10_000)
    assert await till.desk.create(LANE, "a", b"digest", None, b"message", SETTINGS) == "new"
    [batch] = priced(1)
    assert (await till.desk.submit(LANE, "a", batch)).status == "credit"
    await till.desk.set_account("m1", {"term_ends": f"{now + 60e6:.0f}"})  # renewed
    assert (await till.desk.submit(LANE, "a", batch)).status == "stored"


async def test_lot_of_an_sms_only_account_expires_and_the_others_pay(till: Till) -> None:
    await till.open()
    now = await till.desk.now_us()
    for at, good in enumerate((now - 1, now + 600e6)):
        await till.desk.grant_credits(LANE, f"g{at}", 10_000, 1e15, round(good), "", "")
    found = await till.balance()
    assert (found.free, found.expired) == (10_000, 10_000)
    await till.campaign("a", priced(5))
    assert [lot.reserved for lot in await till.desk.lots(LANE)] == [0, 10_000]


async def test_cancel_releases_what_waits_at_once_and_what_is_leased_when_it_ends(till: Till) -> None:
    await till.open(1_000_000)
    await till.campaign("a", priced(300))
    first, *_ = await till.take(100)
    await till.settle(settlement(first.token, ended(range(20)), deferred=deferred([20], 1000)))
    assert await till.desk.cancel(LANE, "a") == "done"
    assert await till.facts() == (79 * PRICE, 20 * PRICE, 1_000_000 - 99 * PRICE)
    await till.settle(settlement(first.token, ended(range(21, 30)), back=range(30, 100)))
    assert await till.facts() == (0, 29 * PRICE, 1_000_000 - 29 * PRICE)


async def test_row_in_doubt_that_is_cancelled_is_spent(till: Till) -> None:
    await till.open(100_000)
    await till.campaign("a", priced(10))
    [lease] = await till.take()
    await till.settle(settlement(lease.token, doubts=doubts([0, 1]), back=range(2, 10)))
    assert await till.facts() == (20_000, 0, 80_000)
    assert await till.desk.cancel(LANE, "a") == "done"
    assert await till.facts() == (0, 4_000, 96_000)


async def test_second_doubt_is_spent_and_so_is_one_under_hold(till: Till) -> None:
    await till.open(100_000)
    await till.campaign("a", priced(10), on_doubt="hold")
    [lease] = await till.take()
    await till.settle(settlement(lease.token, doubts=doubts([0]), back=range(1, 10), blame=Blame.KILL))
    assert await till.facts() == (18_000, 2_000, 80_000)


async def test_id_is_unique_among_the_lanes_of_an_account(till: Till) -> None:
    await till.open(100_000)
    await till.campaign("a", priced(1))
    assert await till.desk.create("m1", "a", b"digest", None, b"message", SETTINGS) == "taken"
    assert await till.desk.create("m1", "b", b"digest", None, b"message", SETTINGS) == "new"
    assert await till.desk.create(LANE, "b", b"digest", None, b"message", SETTINGS) == "taken"
    assert await till.desk.holders("a") == [LANE]
    assert await till.desk.holders("b") == ["m1"]


async def test_mail_of_the_same_account_costs_nothing(till: Till) -> None:
    await till.open(100_000)
    await till.bench.campaign("mail", 50)
    taken = await till.bench.take()
    await till.bench.settle(*(settlement(lease.token, outcomes(rows(lease))) for lease in taken.leases))
    assert await till.facts() == (0, 0, 100_000)
    assert (await till.desk.bill("m1", "mail")).prices == {}


@pytest.mark.parametrize("seed", range(6))
async def test_twins_agree_and_add_up_whatever_happens(redis_url: str, seed: int) -> None:
    """The same deeds on both: reserves, settlements of every kind, repeats and cancels over lots of several expiries."""
    from queue_bench import redis_bench

    store, clock, chance = MemoryStore(), ManualClock(), random.Random(seed)
    tills = [Till(Bench(MemoryQueue(store, clock), MemoryDesk(store, clock), clock)), Till(redis_bench(redis_url))]
    try:
        for till in tills:
            await till.open(40_000, 70_000, 55_000, 20_000)
        leases: list[list] = []  # type: ignore[type-arg]
        for step in range(40):
            deed = chance.choice(["submit", "submit", "take", "settle", "settle", "cancel", "doubt", "back", "term", "grant"])
            n, prices = chance.randint(1, 30), chance.choices([500, 1000, 2500, 7000], k=3)
            pick, share, outcome = chance.random(), chance.random(), chance.choice(list(Outcome)[:4])
            seen = []
            for till in tills:
                if deed == "submit":
                    name, [batch] = f"c{step}", priced(n, prices)
                    await till.desk.create(LANE, name, b"digest", None, b"message", SETTINGS)
                    stored = await till.desk.submit(LANE, name, batch)
                    await till.desk.seal(LANE, name, 1 if stored.status == "stored" else 0)
                    seen.append((stored.status, stored.needed, stored.free))
                elif deed == "term":  # over, far ahead or without an end; with e-mail or without
                    fields = {"term_ends": ["1", "4000000000000002", ""][n % 3], "channels": ["sms", "mail sms", ""][int(3 * pick)]}
                    seen.append(await till.desk.set_account("m1", fields))
                elif deed == "grant":
                    args = (LANE, f"g{step}", 1000 * n, 1e15 + step, [1e15, FAR + 3 - step][n % 2], "", "")
                    seen.append(await till.desk.grant_credits(*args))
                elif deed == "take":
                    seen.append(await till.take(1))
                elif deed == "cancel":
                    names = await till.desk.open_campaigns(LANE)
                    seen.append(await till.desk.cancel(LANE, names[int(pick * len(names))]) if names else "")
                elif leases:
                    lease = leases[int(pick * len(leases))][tills.index(till)]
                    some = rows(lease)[: 1 + int(share * len(rows(lease)))]
                    done = {
                        "settle": settlement(lease.token, ended(some, outcome, MAILED)),
                        "doubt": settlement(lease.token, doubts=doubts(some)),
                        "back": settlement(lease.token, back=some),
                    }[deed]
                    seen.append(await till.settle(done, done))
                else:
                    seen.append(None)
            if deed == "take":
                leases += [list(pair) for pair in zip(*seen, strict=True)]
            else:
                assert seen[0] == seen[1], deed
            assert await tills[0].balance() == await tills[1].balance()
            mine, theirs = [await till.desk.lots(LANE) for till in tills]
            assert mine == theirs
        for name in await tills[0].desk.campaigns(LANE):
            assert await tills[0].desk.bill(LANE, name) == await tills[1].desk.bill(LANE, name)
    finally:
        for till in tills:
            await till.bench.close()


async def test_what_a_list_lacks_is_noted_until_a_batch_is_paid_for(till: Till) -> None:
    await till.open(50 * PRICE)
    assert await till.desk.create(LANE, "c", b"digest", None, b"message", SETTINGS | {"need_seal": "1"}) == "new"
    assert not await till.desk.lacks(LANE, "c", 7)
    first = priced(150)[0]
    assert (await till.desk.submit(LANE, "c", first)).status == "credit"
    fields = await till.desk.campaign(LANE, "c")
    assert (fields["lacks"], float(fields["lacks_at"]) <= await till.desk.now_us()) == (str(100 * PRICE), True)
    assert await till.desk.lacks(LANE, "c", 150 * PRICE)
    assert (await till.desk.campaign(LANE, "c"))["lacks"] == str(150 * PRICE)
    assert await till.desk.grant_credits(LANE, "more", 100 * PRICE, 1e15, FAR, "till", "bought") == 2
    assert (await till.desk.submit(LANE, "c", first)).status == "stored"
    assert {"lacks", "lacks_at"} & set(await till.desk.campaign(LANE, "c")) == set()
    assert not await till.desk.lacks(LANE, "c", 7)
    assert not await till.desk.lacks(LANE, "none", 7)


async def test_a_visit_says_what_its_settlements_have_spent(till: Till) -> None:
    await till.open(100 * PRICE)
    await till.campaign("c", priced(5))
    [lease] = await till.take()
    done = settlement(lease.token, ended(range(3)) + ended(range(3, 5), Outcome.EXPIRED, 0))
    assert (await till.queue.visit(LANE, 0, 0.0, "=", [], [done])).spent == 3 * PRICE
    assert (await till.queue.visit(LANE, 0, 0.0, "=", [], [done])).spent == 0


async def test_single_message_is_paid_for_once_or_is_not_queued(till: Till) -> None:
    await till.open(5000)
    await till.desk.create(LANE, records.TRANSACTIONAL, b"t", None, b"", SETTINGS | {"retention": "0"})
    price = PRICE.to_bytes(4, "little")
    for key, status in (("a", "stored"), ("a", "same"), ("b", "stored"), ("c", "credit")):
        assert (await till.desk.transact(LANE, b"payload", b"text", key, key.encode() * 8, price)).status == status
    assert await till.desk.transact(LANE, b"payload", b"text", "c", b"c" * 8, price) == Stored("credit", needed=PRICE, free=1000)
    assert (await till.desk.campaign(LANE, records.TRANSACTIONAL))["batches"] == "2"
    assert await till.facts() == (4000, 0, 1000)
    first, second = await till.take()
    await till.settle(settlement(first.token, ended([0])), settlement(second.token, ended([0], Outcome.EXPIRED, 0)))
    assert await till.facts() == (0, 2000, 3000)
    assert (await till.desk.transact(LANE, b"payload", b"text", "c", b"c" * 8, price)).status == "stored"
    await till.queue.need(LANE)
    bill = await till.desk.bill(LANE, records.TRANSACTIONAL)  # those that ended were forgotten
    assert (sum(bill.draws.values()), list(bill.prices)) == (2000, [2])
