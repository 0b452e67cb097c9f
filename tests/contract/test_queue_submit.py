"""Submitting and sealing: each batch once, in order, exact duplicates left out (design 3.1.1)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from queue_bench import Bench, addresses, batches, redis_bench, rows
from redis import Redis

from sendengine.ports import Run, Stored
from sendengine.queue import keys
from sendengine.records import TRANSACTIONAL, count


async def test_batches_are_stored_in_order_and_sealed(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 250)
    fields = await bench.fields("c")
    assert {name: fields[name] for name in ("rows", "accepted", "batches", "sealed", "state")} == {
        "rows": "250", "accepted": "250", "batches": "3", "sealed": "1", "state": "sending",
    }  # fmt: skip
    assert await bench.where("c") == {"ready": 250, "leased": 0, "retry": 0}


async def test_repeat_changes_nothing(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 150, sealed=False)
    before = await bench.fields("c")
    for batch in batches(addresses(150)):
        assert await bench.desk.submit("m1", "c", batch) == Stored("same")
    assert await bench.fields("c") == before


async def test_same_number_with_other_rows_is_told_apart(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 100, sealed=False)
    [stored], [other] = batches(addresses(100)), batches(addresses(100, start=1))
    assert await bench.desk.submit("m1", "c", other) == Stored("differs", payload=stored.payload)


async def test_batch_behind_another_list_is_not_stored(bench: Bench) -> None:
    """Its own rows may stand there next: what counts is the whole list up to it."""
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    mine, others = batches(addresses(300)), batches([*addresses(99), "other@example.com", *addresses(200, start=100)])
    assert (await bench.desk.submit("m1", "c", others[0])).status == "stored"
    before = await bench.fields("c")
    assert await bench.desk.submit("m1", "c", mine[1]) == Stored("apart")
    assert await bench.fields("c") == before
    assert (await bench.desk.submit("m1", "c", others[1])).status == "stored"
    assert (await bench.desk.submit("m1", "c", mine[1])).status == "differs"  # the same hundred rows, of another list
    assert await bench.desk.submit("m1", "c", mine[2]) == Stored("apart")
    assert await bench.desk.seal("m1", "c", 2, mine[1].digests) == Stored("apart")
    assert await bench.desk.seal("m1", "c", 2, others[1].digests) == Stored("sealed")
    assert await bench.desk.seal("m1", "c", 2, mine[1].digests) == Stored("apart")


async def test_list_of_the_release_before_is_repeated_and_goes_on(bench: Bench) -> None:
    """It kept the digest of each batch alone."""
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second, third, fourth = batches(addresses(350))
    for batch in (first, second):
        await bench.desk.submit("m1", "c", replace(batch, digests=batch.digests[8:] * 2))
    for batch in (first, second):
        assert await bench.desk.submit("m1", "c", batch) == Stored("same")
    assert (await bench.desk.submit("m1", "c", third)).status == "stored"
    assert await bench.desk.digest("m1", "c", 1) == second.digests[8:]
    assert await bench.desk.digest("m1", "c", 2) == third.digests[:8]
    other = replace(fourth, before=batches([*addresses(299), "other@example.com"])[2].digests)
    assert await bench.desk.submit("m1", "c", other) == Stored("apart")
    assert (await bench.desk.submit("m1", "c", fourth)).status == "stored"
    assert await bench.desk.digest("m1", "c", 4) == b""


async def test_last_batch_is_stored_and_sealed_or_neither(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second, third = batches(addresses(250))
    assert (await bench.desk.submit("m1", "c", first)).status == "stored"
    assert await bench.desk.submit("m1", "c", third, is_last=True) == Stored("expected", number=1)
    assert (await bench.fields("c")).get("sealed") is None
    await bench.desk.submit("m1", "c", second)
    assert await bench.desk.submit("m1", "c", third, is_last=True) == Stored("stored", accepted=50)
    fields = await bench.fields("c")
    assert (fields["sealed"], fields["rows"], "prints" in fields) == ("1", "250", False)
    assert await bench.desk.submit("m1", "c", third, is_last=True) == Stored("same")
    assert await bench.desk.seal("m1", "c", 3, third.digests) == Stored("same")


async def test_last_batch_of_nothing_new_ends_the_campaign(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    [batch] = batches(["no address"])
    assert await bench.desk.submit("m1", "c", batch, is_last=True) == Stored("stored")
    assert (await bench.fields("c"))["state"] == "finished"


async def test_list_that_was_begun_and_has_not_ended_is_not_sealed(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second, third = batches(addresses(250))
    one, other = Run("1" * 16), Run("2" * 16, 1)
    assert await bench.desk.begin_list("m1", "c", one)
    assert not await bench.desk.begin_list("m1", "c", one)
    assert await bench.desk.seal("m1", "c", 0, must_have_ended=True) == Stored("unended")
    await bench.desk.submit("m1", "c", first, run=one)
    assert not await bench.desk.leave_list("m1", "c", one)  # it has stored one
    assert await bench.desk.end_list("m1", "c", one, 1)
    await bench.desk.submit("m1", "c", first, run=other)  # a repeat
    assert "unended" not in await bench.fields("c")
    for batch in (second, third):
        await bench.desk.submit("m1", "c", batch, run=other)
    assert not await bench.desk.end_list("m1", "c", other, 1)  # another upload has gone on
    assert await bench.desk.seal("m1", "c", 3, must_have_ended=True) == Stored("unended")
    assert await bench.desk.end_list("m1", "c", other, 3)
    assert await bench.desk.seal("m1", "c", 3, must_have_ended=True) == Stored("sealed")
    assert await bench.desk.seal("m1", "c", 3, must_have_ended=True) == Stored("same")
    assert not await bench.desk.begin_list("m1", "c", one)
    assert not await bench.desk.begin_list("m1", "none", one)


async def test_end_takes_the_marks_that_it_covers(bench: Bench) -> None:
    """Of its own list, and of those begun before it where fewer batches stood; not of those that began behind it."""
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second, third = batches(addresses(300))
    broken, goes_on, behind = Run("1" * 16), Run("2" * 16, 1), Run("3" * 16, 2)
    await bench.desk.submit("m1", "c", first, run=broken)
    for run in (goes_on, behind):
        await bench.desk.begin_list("m1", "c", run)
    for batch in (second, third):
        await bench.desk.submit("m1", "c", batch, run=goes_on)
    assert (await bench.fields("c"))["unended"] == "1111111111111111:0:0:1 2222222222222222:1:1:1 3333333333333333:2:1:0 "
    assert await bench.desk.end_list("m1", "c", goes_on, 3)
    assert (await bench.fields("c"))["unended"] == "3333333333333333:2:1:0 "
    again = Run("4" * 16)
    await bench.desk.begin_list("m1", "c", again)
    assert await bench.desk.end_list("m1", "c", again, 3)  # begun behind it, and it covers its place
    assert "unended" not in await bench.fields("c")
    await bench.desk.begin_list("m1", "c", behind)
    await bench.desk.begin_list("m1", "c", again)
    assert await bench.desk.end_list("m1", "c", again, 3)
    assert (await bench.fields("c"))["unended"] == "3333333333333333:2:3:0 "  # it began behind all of it
    assert not await bench.desk.leave_list("m1", "c", again)
    assert await bench.desk.leave_list("m1", "c", behind)
    assert "unended" not in await bench.fields("c")


async def test_marks_are_not_kept_without_end(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    for number in range(300):
        await bench.desk.begin_list("m1", "c", Run(f"{number:016x}"))
    marks = (await bench.fields("c"))["unended"]
    assert len(marks) < 4200
    assert marks.startswith(f"{300 - marks.count(' '):016x}:")


async def test_mark_of_the_release_before_is_one(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    await bench.account()
    await bench.campaign("c", 100, sealed=False)
    with Redis.from_url(redis_url) as redis:
        redis.hset("{m1}:c:c", "unended", "1")
    assert await bench.desk.seal("m1", "c", 1, must_have_ended=True) == Stored("unended")
    again = Run("1" * 16)
    await bench.desk.begin_list("m1", "c", again)
    assert await bench.desk.end_list("m1", "c", again, 1)
    assert await bench.desk.seal("m1", "c", 1, must_have_ended=True) == Stored("sealed")
    await bench.close()


async def test_line_of_a_run_is_noted_with_the_first_batch_that_it_stores(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    one, other = Run("1" * 16), Run("2" * 16)
    first, second, third, last = batches(addresses(350))
    await bench.desk.begin_list("m1", "c", one)
    await bench.desk.submit("m1", "c", second, run=one, line=b"too early")
    for batch, line in ((first, b"one 0"), (second, b"one 1")):  # its answer was not heard yet
        await bench.desk.submit("m1", "c", batch, run=one, line=line)
    for batch in (first, second, third):
        await bench.desk.submit("m1", "c", batch, run=other, line=b"other %d" % batch.number)
    await bench.desk.submit("m1", "c", third, run=one, line=b"one 2")
    await bench.desk.submit("m1", "c", last, is_last=True, run=Run("3" * 16), line=b"last")
    await bench.desk.submit("m1", "c", last, is_last=True, run=Run("4" * 16), line=b"again")
    assert [each.line for each in await bench.desk.audit("m1", "", 9)] == [b"one 0", b"other 2", b"last"]


async def test_seal_of_who_knows_the_whole_list_ends_it(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("a", 0, sealed=False)
    await bench.campaign("b", 0, sealed=False)
    first, second = batches(addresses(150))
    for name in ("a", "b"):
        await bench.desk.submit("m1", name, first, run=Run("1" * 16))
    assert await bench.desk.seal("m1", "a", 1, first.digests) == Stored("sealed")
    assert (await bench.desk.submit("m1", "b", second, is_last=True, run=Run("1" * 16))).status == "stored"
    for name in ("a", "b"):
        fields = await bench.fields(name)
        assert (fields["sealed"], "unended" in fields) == ("1", False)


async def test_batch_ahead_of_its_turn_is_refused(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    _, second = batches(addresses(150))
    assert await bench.desk.submit("m1", "c", second) == Stored("expected", number=0)
    assert (await bench.fields("c")).get("rows") is None


async def test_campaign_that_is_not_there_or_sealed_or_cancelled_takes_nothing(bench: Bench) -> None:
    await bench.account()
    first, second = batches(addresses(150))
    assert await bench.desk.submit("m1", "c", first) == Stored("closed", state="missing")
    assert await bench.desk.seal("m1", "c", 1) == Stored("closed", state="missing")
    await bench.campaign("c", 100)
    assert await bench.desk.submit("m1", "c", second) == Stored("closed", state="sealed")
    await bench.campaign("d", 100, sealed=False)
    await bench.desk.cancel("m1", "d")
    assert await bench.desk.submit("m1", "d", second) == Stored("closed", state="cancelled")
    assert await bench.desk.seal("m1", "d", 1) == Stored("closed", state="cancelled")


async def test_duplicates_are_left_out_within_a_batch_and_between_batches(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second = batches([*addresses(99), "u0@example.com", *addresses(50, start=75)])
    assert await bench.desk.submit("m1", "c", first) == Stored("stored", accepted=99, duplicates=1)
    assert await bench.desk.submit("m1", "c", second) == Stored("stored", accepted=26, duplicates=24)
    fields = await bench.fields("c")
    assert (fields["rows"], fields["accepted"], fields["duplicates"]) == ("150", "125", "25")
    assert await bench.where("c") == {"ready": 125, "leased": 0, "retry": 0}


async def test_refused_rows_are_counted_and_not_queued(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    [batch] = batches(["a@example.com", "no address", "b@example.com"])
    assert await bench.desk.submit("m1", "c", batch) == Stored("stored", accepted=2)
    fields = await bench.fields("c")
    assert (fields["rows"], fields["accepted"], fields["rejected"]) == ("3", "2", "1")
    assert rows((await bench.take()).leases[0]) == [0, 2]


@pytest.mark.timeout(30)
async def test_duplicates_are_found_in_a_long_list(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    fresh, again = addresses(17_000), addresses(16_900)[::13]
    accepted = duplicates = 0
    for batch in batches([*fresh, *again]):
        stored = await bench.desk.submit("m1", "c", batch)
        accepted, duplicates = accepted + stored.accepted, duplicates + stored.duplicates
    assert (accepted, duplicates) == (17_000, 1_300)


async def test_seal_counts_batches_and_repeats(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 150, sealed=False)
    assert await bench.desk.seal("m1", "c", 3) == Stored("expected", number=2)
    assert await bench.desk.seal("m1", "c", 2) == Stored("sealed")
    assert await bench.desk.seal("m1", "c", 2) == Stored("same")
    assert "prints" not in await bench.fields("c")


async def test_empty_list_is_finished_by_its_seal(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0)
    fields = await bench.fields("c")
    assert fields["state"] == "finished"
    assert float(fields["through"]) == float(fields["finished"]) > 0


async def test_create_is_idempotent_and_tells_definitions_apart(bench: Bench) -> None:
    assert await bench.desk.create("m1", "c", b"one", None, b"", {}) == "account"
    await bench.account()
    assert await bench.desk.create("m1", "c", b"one", None, b"text", {"uid": "7"}) == "new"
    assert await bench.desk.create("m1", "c", b"one", None, b"text", {"uid": "8"}) == "same"
    assert await bench.desk.create("m1", "c", b"two", None, b"text", {}) == "differs"
    assert (await bench.fields("c"))["uid"] == "7"
    assert await bench.desk.message("m1", "c") == b"text"
    assert await bench.desk.campaigns("m1") == ["c"]
    assert await bench.desk.holders("c") == ["m1"]
    assert await bench.desk.holders("d") == []


async def test_batches_are_read_back(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    [batch] = batches(["a@example.com", "a@example.com", "b@example.com"])
    await bench.desk.submit("m1", "c", batch)
    found, none = await bench.desk.batches("m1", "c", [0, 1])
    assert found is not None
    assert (count(found[0]), found[1]) == (2, batch.payload)
    assert none is None


async def test_accounts_are_made_once_and_set(bench: Bench) -> None:
    assert not await bench.desk.set_account("m1", {"relay": "r"})
    assert await bench.desk.account("m1") == {}
    await bench.account()
    assert not await bench.desk.create_account("m1", {"tier": "other"})
    assert await bench.desk.set_account("m1", {"relay": "r"})
    account = await bench.desk.account("m1")
    assert (account["tier"], account["relay"], float(account["last"]), account["cut"]) == ("t", "r", 0.0, "1")  # who sends asks anew
    assert account == await bench.queue.account("m1")
    assert await bench.desk.accounts() == await bench.queue.accounts() == ["m1"]


async def test_an_account_is_changed_only_where_it_is_as_it_was_seen(bench: Bench) -> None:
    await bench.account()
    assert await bench.desk.set_account("m1", {"relay": "r"}, seen={"relay": "", "retry": ""}, line=b"1")
    before = await bench.desk.account("m1")
    for seen in ({"relay": ""}, {"relay": "q"}, {"relay": "r", "retry": "1m"}):
        assert not await bench.desk.set_account("m1", {"relay": "s"}, seen=seen, line=b"2")
    assert not await bench.desk.set_account("m2", {"relay": "s"}, seen={"relay": ""})
    assert await bench.desk.account("m1") == before  # nor was anybody cut
    assert await bench.desk.set_account("m1", {"relay": "s", "retry": "1m"}, seen={"relay": "r", "retry": ""}, line=b"3")
    account = await bench.desk.account("m1")
    assert (account["relay"], account["retry"], account["cut"]) == ("s", "1m", "2")
    assert [each.line for each in await bench.desk.audit("m1", "", 9)] == [b"1", b"3"]


async def test_a_field_that_is_no_text_is_seen_as_it_is(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    await bench.account()
    with Redis.from_url(redis_url) as redis:
        redis.hset(keys.account("m1"), "relay", b"\xff")
    seen = await bench.desk.account("m1")
    assert await bench.desk.set_account("m1", {"relay": "r"}, seen={"relay": seen["relay"]})
    await bench.close()


async def test_duplicates_are_found_when_a_longer_list_opens_a_new_generation(redis_url: str) -> None:
    assert await stored_at(redis_url, 0, [0, 3 * 2**18, 3 * 2**22]) == [1, 1, 1]


@pytest.mark.parametrize(("expected", "begun"), [(3 * 2**18, [0, 1, 1]), (3 * 2**22, [0, 0, 1])])
async def test_long_list_begins_with_a_later_generation(redis_url: str, expected: int, begun: list[int]) -> None:
    assert await stored_at(redis_url, expected, [0, 3 * 2**18, 3 * 2**22]) == begun


async def stored_at(redis_url: str, expected: int, sizes: list[int]) -> list[int]:
    """Which generations stand after three batches, each half of the one before again, that come behind so many rows."""
    bench = redis_bench(redis_url)
    await bench.account()
    await bench.desk.create("m1", "c", b"", None, b"", {"expected": str(expected)})
    parts = batches([*addresses(100), *addresses(100, start=50), *addresses(100, start=100)])
    stored = []
    with Redis.from_url(redis_url) as redis:
        for batch, rows_before in zip(parts, sizes, strict=True):
            redis.hset("{m1}:c:c", "prints", rows_before)
            stored.append(await bench.desk.submit("m1", "c", batch))
        begun = [redis.exists(f"{{m1}}:c:c:f{g}") for g in range(3)]
        await bench.desk.seal("m1", "c", 3)
        assert [redis.exists(f"{{m1}}:c:c:f{g}") for g in range(3)] == [0, 0, 0]
    await bench.close()
    assert [(one.accepted, one.duplicates) for one in stored] == [(100, 0), (50, 50), (50, 50)]
    return begun


async def test_duplicates_are_found_in_a_list_begun_by_the_release_before(redis_url: str) -> None:
    """It left generation 0 at 2^20 rows and 1 at 2^25, and expected nothing: the same places, the same packing."""
    bench = redis_bench(redis_url)
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    [old] = batches(addresses(100))
    prints = [old.fingerprints[at : at + 8] for at in range(0, 800, 8)]
    with Redis.from_url(redis_url) as redis:
        redis.hset("{m1}:c:c:f0", mapping={each[:2]: each for each in prints[:50]})
        redis.hset("{m1}:c:c:f1", mapping={each[:2] + bytes([each[2] % 16]): each for each in prints[50:]})
        redis.hset("{m1}:c:c", "prints", 2**20 + 50)
        assert await bench.desk.submit("m1", "c", old) == Stored("stored", accepted=0, duplicates=100)
    await bench.close()


async def test_rows_of_one_bucket_in_one_batch_all_stand_in_it(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second = batches(addresses(200))
    near = b"".join(b"AB" + at.to_bytes(6, "big") for at in range(99))
    for batch, one_more, stored in ((first, 0, (99, 1)), (second, 100, (1, 99))):
        prints = near + b"AB" + one_more.to_bytes(6, "big")
        found = await bench.desk.submit("m1", "c", replace(batch, fingerprints=prints))
        assert (found.accepted, found.duplicates) == stored


async def test_fingerprint_across_two_others_is_no_duplicate(bench: Bench) -> None:
    """They stand packed in one bucket; only whole ones count."""
    await bench.account()
    await bench.campaign("c", 0, sealed=False)
    first, second = batches(addresses(101))
    packed = [first.fingerprints[:-16] + b"AAAAAAABAABAAAAA", b"AAAAAABA"]
    for batch, fingerprints in zip((first, second), packed, strict=True):
        stored = await bench.desk.submit("m1", "c", replace(batch, fingerprints=fingerprints))
        assert stored.duplicates == 0


async def test_key_of_a_single_message_is_told_apart_from_the_same_key_of_another(bench: Bench) -> None:
    await bench.account()
    await bench.desk.create("m1", TRANSACTIONAL, b"", None, b"", {"retention": "600"})
    one = ("m1", b"payload", b"message", "key")
    assert await bench.desk.transact(*one, b"digest-1") == Stored("stored", number=0)
    assert await bench.desk.transact(*one, b"digest-1") == Stored("same", number=0)
    assert await bench.desk.transact(*one, b"digest-2") == Stored("differs", number=0)
    assert (await bench.fields(TRANSACTIONAL))["batches"] == "1"


async def test_single_message_of_the_release_before_is_repeated_by_its_key_alone(bench: Bench) -> None:
    """It kept no digest: whoever repeats its key is believed, as then."""
    await bench.account()
    await bench.desk.create("m1", TRANSACTIONAL, b"", None, b"", {"retention": "600"})
    await bench.desk.transact("m1", b"payload", b"message", "key", bytes(8))
    assert await bench.desk.transact("m1", b"payload", b"message", "key", b"digest-1") == Stored("same", number=0)
