"""The journal, its fence and its inbox; the index of work (design 3.1.2, 3.1.5, 3.2)."""

from __future__ import annotations

import pytest
from queue_bench import Bench, addresses, batches

from sendengine.errors import Fenced, SendEngineError, Unavailable
from sendengine.ports import Heard, News
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.records import REVOKED


async def test_append_writes_deletes_and_beats(bench: Bench) -> None:
    await bench.queue.register("w1", b"token")
    await bench.queue.append("w1", b"token", 0, [], [b"L1", b"note", b"17", b"blob", b"18", b"more"])
    appended = await bench.queue.append("w1", b"token", 0, [b"17"], [])
    assert abs(appended.now_us - await bench.desk.now_us()) < 60e6
    assert await bench.queue.beat("w1") == (b"token", b"2")
    assert await bench.queue.workers() == ["w1"]
    assert await bench.queue.revoke("w1", b"token", b"2") == {b"t": REVOKED, b"b": b"2", b"L1": b"note", b"18": b"more"}


async def test_worker_id_is_taken_once(bench: Bench) -> None:
    await bench.queue.register("w1", b"token")
    with pytest.raises(SendEngineError, match="taken"):
        await bench.queue.register("w1", b"other")
    assert await bench.queue.beat("w1") == (b"token", b"0")


@pytest.mark.parametrize("token", [b"token", b"other"])
async def test_append_to_a_journal_that_is_absent_or_foreign_is_refused(bench: Bench, token: bytes) -> None:
    if token == b"other":
        await bench.queue.register("w1", b"token")
    with pytest.raises(Fenced):
        await bench.queue.append("w1", token, 0, [], [b"1", b"x"])
    beat = await bench.queue.beat("w1")
    assert beat == ((b"token", b"0") if token == b"other" else None)


async def test_revoked_worker_is_fenced_and_may_be_revoked_again(bench: Bench) -> None:
    await bench.queue.register("w1", b"token")
    await bench.queue.append("w1", b"token", 0, [], [b"1", b"x"])
    assert await bench.queue.revoke("w1", b"token", b"0") == {}
    assert await bench.queue.revoke("w1", b"other", b"1") == {}
    assert await bench.queue.revoke("w1", REVOKED, b"1") == {}
    journal = await bench.queue.revoke("w1", b"token", b"1")
    assert journal == {b"t": REVOKED, b"b": b"1", b"1": b"x"}
    assert await bench.queue.beat("w1") == (REVOKED, b"1")
    with pytest.raises(Fenced):
        await bench.queue.append("w1", b"token", 0, [], [b"2", b"y"])
    assert await bench.queue.revoke("w1", b"any", b"any") == journal


async def test_buried_worker_is_gone(bench: Bench) -> None:
    await bench.queue.register("w1", b"token")
    await bench.queue.tell("w1", b"{}")
    assert (await bench.desk.workers())["w1"].said == b"{}"
    await bench.queue.bury("w1")
    assert (await bench.queue.workers(), await bench.queue.beat("w1"), await bench.desk.workers()) == ([], None, {})
    assert await bench.queue.revoke("w1", b"token", b"0") == {}


async def test_news_come_until_they_are_confirmed(bench: Bench) -> None:
    await bench.account()
    await bench.queue.register("w1", b"t1")
    await bench.queue.register("w2", b"t2")
    await bench.queue.leave("m1")
    first = await bench.queue.append("w1", b"t1", 0, [], [])
    [news] = first.news
    assert (news.account, news.cut) == ("m1", 1)
    assert 0 < news.cut_us - await bench.desk.now_us() <= 200_000
    assert (await bench.queue.append("w1", b"t1", 0, [], [])).news == first.news
    await bench.queue.leave("m1")
    later = await bench.queue.append("w1", b"t1", 1, [], [])
    assert (later.confirmed, [item.cut for item in later.news]) == (1, [2])
    assert [item.cut for item in (await bench.queue.append("w2", b"t2", 0, [], [])).news] == [1, 2]
    assert (await bench.queue.append("w1", b"t1", 2, [], [])).news == ()


async def test_every_verb_tells_every_worker_before_it_answers(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10)
    await bench.queue.register("w1", b"t")
    cuts = []
    for verb in ("pause", "resume", "cancel"):
        await getattr(bench.desk, verb)("m1", "c")
    await bench.desk.set_rate("m1", "5k", 5000)
    cuts = [item.cut for item in (await bench.queue.append("w1", b"t", 0, [], [])).news]
    assert cuts == [1, 2, 3, 4]


async def test_transactional_message_is_news_where_a_worker_is_attached(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10)
    await bench.desk.create("m1", "transactional", b"", None, b"", {})
    await bench.take()
    await bench.queue.register("w1", b"t")
    await bench.desk.transact("m1", b"p", b"m", "k", bytes(8))
    assert (await bench.queue.append("w1", b"t", 0, [], [])).news == (News("m1", 0, 0.0),)


async def test_account_with_work_is_found_once(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10)
    assert await bench.queue.find(10) == ["m1"]
    assert await bench.queue.find(10) == []


async def test_repeated_verbs_and_submits_index_again(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10)
    await bench.queue.find(10)
    assert await bench.desk.resume("m1", "c") == "same"
    assert await bench.queue.find(10) == ["m1"]
    assert (await bench.desk.seal("m1", "c", 1)).status == "same"
    assert await bench.queue.find(10) == ["m1"]


async def test_rows_that_come_when_no_worker_is_attached_are_indexed(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 100, sealed=False)
    await bench.queue.find(10)
    [batch] = batches(addresses(200))[1:]
    await bench.desk.submit("m1", "c", batch)
    assert await bench.queue.find(10) == ["m1"]


async def test_sooner_need_wins_in_the_index_and_never_is_not_written(bench: Bench) -> None:
    now = await bench.desk.now_us()
    await bench.queue.offer("m1", now + 3_600e6)
    await bench.queue.offer("m2", -1)
    assert await bench.queue.find(10) == []
    await bench.queue.offer("m1", now - 1)
    await bench.queue.offer("m1", now + 3_600e6)
    assert await bench.queue.find(10) == ["m1"]


async def test_find_takes_the_most_pressing_first(bench: Bench) -> None:
    for need, account in enumerate(["m3", "m1", "m2"]):
        await bench.queue.offer(account, need)
    assert await bench.queue.find(2) == ["m3", "m1"]
    assert await bench.queue.find(2) == ["m2"]


async def test_need_names_leases_and_their_workers(bench: Bench) -> None:
    await bench.account()
    assert await bench.queue.need("m1") == (-1.0, {})
    await bench.campaign("c", 200)
    assert await bench.queue.need("m1") == (0.0, {})
    [lease] = (await bench.take(1, worker="w7")).leases
    assert await bench.queue.need("m1") == (0.0, {lease.token: "w7"})


async def test_only_who_stands_in_the_index_is_hastened(bench: Bench) -> None:
    now = await bench.desk.now_us()
    await bench.queue.offer("m1", now + 3_600e6)
    assert not await bench.queue.hasten("m2", 0.0)
    assert await bench.queue.hasten("m1", now + 7_200e6)
    assert await bench.queue.find(10) == []
    assert await bench.queue.hasten("m1", 0.0)
    assert await bench.queue.find(10) == ["m1"]
    assert not await bench.queue.hasten("m1", 0.0)
    await bench.queue.offer("m1", now + 3_600e6)
    assert await bench.queue.hasten("m1", -1)
    assert await bench.queue.find(10) == []


async def test_one_sweeper_at_a_time(bench: Bench) -> None:
    assert [await bench.queue.claim_sweep(60) for _ in range(2)] == [True, False]


async def test_a_sweep_asked_for_is_claimed_by_the_next(bench: Bench) -> None:
    await bench.queue.claim_sweep(60)
    await bench.queue.ask_sweep()
    assert [await bench.queue.claim_sweep(60) for _ in range(2)] == [True, False]


async def test_store_that_is_away_is_unavailable_and_a_reconnect_is_seen() -> None:
    store = MemoryStore()
    queue, desk = MemoryQueue(store, lambda: 0.0), MemoryDesk(store, lambda: 0.0)
    await desk.create_account("m1", {"iv": "0"})
    generation = queue.generation
    store.is_away = True
    for call in (queue.find(1), desk.account("m1"), queue.append("w", b"t", 0, [], []), desk.pause("m1", "c")):
        with pytest.raises(Unavailable):
            await call
    store.is_away = False
    store.generation += 1
    assert queue.generation == generation + 1
    assert await queue.accounts() == ["m1"]


async def test_register_again_under_the_same_token_is_the_same_worker(bench: Bench) -> None:
    """The answer to the first was lost, or no replica had it in time."""
    await bench.queue.register("w9", b"token")
    await bench.queue.append("w9", b"token", 0, [], [b"1", b"tick"])
    await bench.queue.register("w9", b"token")
    assert await bench.desk.workers() == {"w9": Heard()}
    with pytest.raises(SendEngineError, match="taken"):
        await bench.queue.register("w9", b"other")
