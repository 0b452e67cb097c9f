"""Taking and settling: a row is READY, LEASED, in RETRY or final; a settlement acts on rows leased under its token and on no other."""

from __future__ import annotations

import struct

import pytest
from queue_bench import NOON, Bench, addresses, batches, deferred, doubts, ended, outcomes, redis_bench, rows, settlement
from redis import Redis

from sendengine.intake import Intake
from sendengine.ports import Stored, Taken
from sendengine.records import PAST, decode_outcomes
from sendengine.types import Outcome

HOUR_MS = 3_600_000


async def take_one(bench: Bench, n: int = 10, **settings: str) -> Taken:
    """A sealed campaign of one batch, taken."""
    await bench.account()
    await bench.campaign("c", n, **settings)
    return await bench.take()


async def test_take_leases_batches_for_the_rows_wanted(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 250)
    taken = await bench.take(101)
    assert [(lease.campaign, lease.batch, len(rows(lease))) for lease in taken.leases] == [("c", 0, 100), ("c", 1, 100)]
    assert taken.leases[0].stored == batches(addresses(250))[0].payload
    assert taken.need_us == 0
    assert (await bench.take()).need_us == -1
    assert await bench.where("c") == {"ready": 0, "leased": 250, "retry": 0}


async def test_take_writes_no_more_leases_than_tokens(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 250)
    assert len((await bench.take(tokens=2)).leases) == 2
    assert (await bench.take(tokens=0)).leases == ()


async def test_take_skips_campaigns_of_which_there_is_enough(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10)
    await bench.campaign("d", 10)
    taken = await bench.take(skip=["c"])
    assert [lease.campaign for lease in taken.leases] == ["d"]


async def test_nothing_is_taken_of_an_account_that_is_not_there(bench: Bench) -> None:
    assert await bench.take() == Taken(-1.0, -1.0, (), ())


async def test_levels_are_taken_from_9_down(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    await bench.load("c", batches(addresses(120), [(0, 9, 5)[at % 3] for at in range(120)]))
    taken = await bench.take()
    assert [(lease.batch, rows(lease)[0]) for lease in taken.leases] == [(0, 1), (1, 0), (0, 2), (1, 1), (0, 0), (1, 2)]


async def test_reversed_campaign_is_taken_from_its_tail(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 300)
    assert await bench.desk.reverse("m1", "c") == "done"
    assert [lease.batch for lease in (await bench.take(101)).leases] == [2, 1]
    assert await bench.desk.reverse("m1", "c") == "done"
    assert [lease.batch for lease in (await bench.take(1)).leases] == [0]


async def test_reversing_waits_for_the_seal(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 200, sealed=False)
    await bench.desk.reverse("m1", "c")
    assert (await bench.take()).leases == ()
    await bench.desk.seal("m1", "c", 2)
    assert [lease.batch for lease in (await bench.take()).leases] == [1, 0]


async def test_an_end_is_dated_by_the_clock_of_redis_too(bench: Bench) -> None:
    """What its last MAIL says is the time of another machine, and may be long ago."""
    [lease] = (await take_one(bench)).leases
    before = await bench.desk.now_us()
    await bench.settle(settlement(lease.token, outcomes(range(10)), at=NOON + 1))
    fields = await bench.fields("c")
    assert fields["finished"] == f"{NOON + 1:.0f}"
    assert before <= float(fields["over"]) <= await bench.desk.now_us()


async def test_part_of_a_lease_is_settled_and_the_rest_later(bench: Bench) -> None:
    [lease] = (await take_one(bench)).leases
    assert await bench.settle(settlement(lease.token, outcomes(range(4)), at=NOON + 1)) == (1,)
    assert await bench.where("c") == {"ready": 0, "leased": 6, "retry": 0}
    assert await bench.settle(settlement(lease.token, outcomes(range(4, 10), Outcome.BOUNCED), at=NOON + 2)) == (1,)
    fields = await bench.fields("c")
    assert ended(fields) == {"sent": 4, "bounced": 6}
    assert (fields["state"], fields["tried"], fields["leased"]) == ("finished", "10", "0")
    assert (fields["first_mail"], fields["through"], fields["finished"]) == (f"{NOON + 1:.0f}", f"{NOON + 2:.0f}", f"{NOON + 2:.0f}")
    assert await bench.settle(settlement(lease.token, outcomes(range(10)))) == (0,)
    assert ended(await bench.fields("c")) == {"sent": 4, "bounced": 6}


async def test_settlement_repeated_while_its_lease_stands_counts_once(bench: Bench) -> None:
    [lease] = (await take_one(bench)).leases
    part = settlement(lease.token, outcomes([0, 1]))
    await bench.settle(part, part)
    before = await bench.fields("c")
    assert await bench.settle(part) == (1,)
    assert await bench.fields("c") == before
    assert ended(before) == {"sent": 2}


async def test_foreign_token_writes_nothing(bench: Bench) -> None:
    await take_one(bench)
    before = await bench.fields("c")
    assert await bench.settle(settlement(b"stranger", outcomes([0]), deferred([1], 0), doubts([2]), [3])) == (0,)
    assert await bench.fields("c") == before


async def test_settlement_of_a_purged_account_creates_nothing(bench: Bench) -> None:
    visited = await bench.queue.visit("m9", 1, 1e6, "relay|x", ["c"], [settlement(b"token678", outcomes([0]))])
    assert (visited.acted, visited.permits) == ((0,), 0)
    assert await bench.desk.account("m9") == {}
    assert await bench.desk.campaigns("m9") == []


async def test_rows_given_back_are_taken_first_and_by_a_new_token(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 200)
    [first] = (await bench.take(1)).leases
    await bench.settle(settlement(first.token, outcomes([0]), back=range(50, 100)))
    again = (await bench.take(1)).leases[0]
    assert (again.batch, rows(again)) == (0, list(range(50, 100)))
    assert again.token != first.token
    assert await bench.settle(settlement(first.token, outcomes([60]))) == (1,)
    assert ended(await bench.fields("c")) == {"sent": 1}


async def test_deferred_rows_come_again_when_they_are_due(bench: Bench) -> None:
    [lease] = (await take_one(bench)).leases
    later = deferred([3], HOUR_MS, tries=2, first=77)
    await bench.settle(settlement(lease.token, outcomes(range(5, 10)), deferred([1, 2], 0, first=70) + later))
    fields = await bench.fields("c")
    assert (fields["deferred"], fields["tried"]) == ("3", "7")
    taken = await bench.take()
    [again] = taken.leases
    assert list(PAST.iter_unpack(again.past)) == [(1, 1, 70), (2, 1, 70)]
    assert rows(again) == [1, 2]
    assert 0 < taken.need_us - await bench.desk.now_us() <= HOUR_MS * 1e3
    assert await bench.where("c") == {"ready": 0, "leased": 4, "retry": 1}
    assert (await bench.fields("c"))["deferred"] == "1"


async def test_due_retries_come_before_rows_given_back_and_new_ones(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 300)
    first, second = (await bench.take(101)).leases
    await bench.settle(settlement(first.token, back=range(100)), settlement(second.token, deferred=deferred(range(100), 0)))
    assert [lease.batch for lease in (await bench.take()).leases] == [1, 0, 2]


async def test_campaign_is_through_before_its_last_retry_ends(bench: Bench) -> None:
    [lease] = (await take_one(bench)).leases
    await bench.settle(settlement(lease.token, outcomes(range(9)), deferred([9], 0), at=NOON + 5))
    fields = await bench.fields("c")
    assert (fields["state"], fields["through"]) == ("sending", f"{NOON + 5:.0f}")
    [again] = (await bench.take()).leases
    await bench.settle(settlement(again.token, outcomes([9], first=False), at=NOON + 9))
    fields = await bench.fields("c")
    assert (fields["state"], fields["through"], fields["finished"]) == ("finished", f"{NOON + 5:.0f}", f"{NOON + 9:.0f}")


async def test_doubt_is_sent_again_once_then_unknown(bench: Bench) -> None:
    [lease] = (await take_one(bench)).leases
    await bench.settle(settlement(lease.token, outcomes(range(9)), doubts=doubts([9], first=70)))
    [again] = (await bench.take()).leases
    assert list(PAST.iter_unpack(again.past)) == [(9, 1, 70)]
    await bench.settle(settlement(again.token, doubts=doubts([9], tries=2)))
    fields = await bench.fields("c")
    assert ended(fields) == {"sent": 9, "unknown": 1}
    assert (fields["state"], fields["tried"]) == ("finished", "10")
    assert (await bench.desk.standing("m1", "c")).doubts == {(0, 9): 2}


async def test_doubt_under_hold_is_unknown_at_once(bench: Bench) -> None:
    [lease] = (await take_one(bench, on_doubt="hold")).leases
    await bench.settle(settlement(lease.token, doubts=doubts([0, 1]), back=range(2, 10)))
    assert ended(await bench.fields("c")) == {"unknown": 2}
    assert await bench.where("c") == {"ready": 8, "leased": 0, "retry": 0}


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.SUPPRESSED, Outcome.CANCELLED])
async def test_row_once_in_doubt_never_ends_as_unsent(bench: Bench, outcome: Outcome) -> None:
    [lease] = (await take_one(bench)).leases
    await bench.settle(settlement(lease.token, outcomes(range(8), outcome), doubts=doubts([8, 9])))
    [again] = (await bench.take()).leases
    await bench.settle(settlement(again.token, outcomes([8], outcome, first=False) + outcomes([9], first=False)))
    assert ended(await bench.fields("c")) == {outcome.name.lower(): 8, "unknown": 1, "sent": 1}


async def test_takeover_settles_outcomes_doubts_the_rest_and_knows_tries_by_the_lease(bench: Bench) -> None:
    """A rescuer's intent without outcome says neither tries nor first MAIL, and never was a first try where the lease has a history."""
    [lease] = (await take_one(bench)).leases
    await bench.settle(settlement(lease.token, deferred=deferred([1], 0, tries=3, first=70), back=range(2, 10)))
    retried, given_back = (await bench.take()).leases
    assert (await bench.fields("c")).get("tried") is None
    seconds = await bench.desk.now_us() / 1e6
    await bench.settle(*(settlement(one.token, doubts=doubts([1, 2], first=0), back=range(104)) for one in (retried, given_back)))
    again = [PAST.unpack(one.past) for one in (await bench.take()).leases if one.past]
    assert again[0] == (1, 4, 70)
    assert again[1][:2] == (2, 1)
    assert abs(again[1][2] - seconds) < 60
    assert (await bench.fields("c"))["tried"] == "1"


async def test_outcomes_are_read_in_their_order(bench: Bench) -> None:
    first, second = (await take_one(bench, 110)).leases
    for lease in (second, first):
        await bench.settle(settlement(lease.token, outcomes([3])))
    chunks = await bench.desk.outcomes("m1", "c", "", 10)
    assert [(chunk.batch, chunk.worker, [r.row for r in decode_outcomes(chunk.records)]) for chunk in chunks] == [
        (1, "w1", [3]), (0, "w1", [3]),
    ]  # fmt: skip
    assert await bench.desk.outcomes("m1", "c", chunks[0].entry, 10) == chunks[1:]
    assert await bench.desk.outcomes("m1", "c", "", 1) == chunks[:1]


async def test_achieved_rate_is_sampled(bench: Bench) -> None:
    [lease] = (await take_one(bench)).leases
    for row, at in enumerate([0, 1e6, 1.2e6, 2.1e6]):
        await bench.settle(settlement(lease.token, outcomes([row]), at=NOON + at))
    octets = (await bench.fields("c"))["recent"].encode("utf-8", "surrogateescape")
    assert list(struct.iter_unpack("<dd", octets)) == [(NOON, 1.0), (NOON + 1e6, 2.0), (NOON + 2.1e6, 4.0)]


async def test_transactional_messages_bring_their_own_and_are_no_share(bench: Bench) -> None:
    await bench.account()
    assert await bench.desk.transact("m1", b"payload", b"first", "first", bytes(8)) == Stored("missing")
    await bench.desk.create("m1", "transactional", b"", None, b"", {"retention": "600"})
    [batch] = Intake((), salt=b"x").from_rows([{"email": "a@example.com"}])
    for number, text in enumerate((b"first", b"second")):
        assert await bench.desk.transact("m1", batch.payload, text, text.decode(), bytes(8)) == Stored("stored", number=number)
    await bench.campaign("c", 10)
    taken = await bench.take()
    assert [(one.campaign, one.batch, one.message, rows(one)) for one in taken.leases[:2]] == [
        ("transactional", 0, b"first", [0]), ("transactional", 1, b"second", [0]),
    ]  # fmt: skip
    visited = await bench.visit(4, ["transactional", "c"])
    assert (visited.permits, visited.deal, visited.stopped) == (4, b"", b"")
    await bench.settle(settlement(taken.leases[0].token, outcomes([0])))
    fields = await bench.fields("transactional")
    assert (fields["sent"], fields["accepted"], fields["state"]) == ("1", "2", "sending")
    assert await bench.desk.pause("m1", "transactional") == "sending"
    assert await bench.desk.cancel("m1", "transactional") == "sending"


async def test_payload_and_outcomes_of_a_finished_campaign_expire(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    [lease] = (await take_one(bench, retention="600")).leases
    with Redis.from_url(redis_url) as redis:
        assert [redis.ttl(f"{{m1}}:c:c:{part}") for part in "mp"] == [-1, -1]
        await bench.settle(settlement(lease.token, outcomes(range(10))))
        assert [590 < int(str(redis.ttl(f"{{m1}}:c:c:{part}"))) <= 600 for part in "mpo"] == [True] * 3
        assert redis.ttl("{m1}:c:c") == -1
    await bench.close()
