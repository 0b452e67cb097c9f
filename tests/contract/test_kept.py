"""Visits are functions that the server keeps: whoever asks first brings them, and whoever finds them gone brings them again."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis

from sendengine.errors import Unavailable
from sendengine.queue import cluster as cluster_module
from sendengine.queue import keys, scripts
from sendengine.queue.cluster import ClusterLink, guarded
from sendengine.queue.link import Argument, FunctionMissing
from sendengine.queue.servers import Node
from tests.contract.queue_bench import outcomes, redis_bench, rows, settlement
from tests.forms import Cluster

A = keys.account("m1")


def kept(url: str) -> set[bytes]:
    """The names of its libraries."""
    with Redis.from_url(url, decode_responses=False) as redis:
        return {dict(zip(each[::2], each[1::2], strict=True))[b"library_name"] for each in redis.function_list()}  # type: ignore[union-attr]


async def test_a_server_that_lost_them_gets_them_again(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    await bench.account()
    await bench.campaign("c", 100)
    lease = (await bench.take()).leases[0]
    assert (await bench.visit(1, ["c"])).permits == 1
    with Redis.from_url(redis_url) as redis:
        redis.function_flush()
    assert await bench.settle(settlement(lease.token, outcomes(rows(lease)))) == (1,)
    assert await bench.settle(settlement(lease.token, outcomes(rows(lease)))) == (0,)
    assert kept(redis_url) == {scripts.function("settle")}
    await bench.close()


async def test_all_that_ask_in_the_first_moment_are_answered(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    await bench.account(per_hour=36_000)
    await bench.campaign("c", 100)
    await bench.take()
    granted = await asyncio.gather(*(bench.visit(1, ["c"], horizon=10e6) for _ in range(50)))
    assert [each.permits for each in granted] == [1] * 50
    assert kept(redis_url) == {scripts.function("visit")}
    await bench.close()


async def test_those_of_another_release_stand_beside_ours(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    await bench.account()
    with Redis.from_url(redis_url) as redis:
        redis.function_load("#!lua name=sendengine_other\nredis.register_function('sendengine_other', function() return 1 end)")
    await bench.visit(1, [])
    assert kept(redis_url) == {b"sendengine_other", scripts.function("visit")}
    await bench.close()


async def test_a_call_begins_with_nothing_of_the_one_before(redis_url: str) -> None:
    """The parts are made once; whom a call is about, and what it has begun, are its own."""
    bench = redis_bench(redis_url)
    for account in ("m1", "m2"):
        await bench.account(account)
        await bench.campaign("first", 100, account=account, sequential="1")
    lease = (await bench.take()).leases[0]
    await bench.campaign("second", 100, sequential="1")
    done = settlement(lease.token, outcomes(rows(lease)))
    assert (await bench.queue.visit("m1", 0, 0.0, "=", [], [done])).has_begun
    other = await bench.queue.visit("m2", 0, 0.0, "=", [], [done])
    assert (other.has_begun, other.acted) == (False, (0,))
    assert (await bench.fields("second"))["state"] == "sending"
    await bench.close()


async def test_each_master_of_a_cluster_gets_them_with_the_first_visit(cluster: Cluster) -> None:
    bench = redis_bench(cluster.url)
    for number in range(1, 13):
        await bench.account(f"m{number}")
        await bench.queue.visit(f"m{number}", 1, 1e6, "=", [], [])
    assert all(kept(each.url) == {scripts.function("visit")} for each in cluster.masters)
    await bench.close()


async def test_a_moving_slot_refuses_a_visit_whole_and_takes_it_afterwards(cluster: Cluster) -> None:
    bench = redis_bench(cluster.url)
    await bench.account()
    await bench.campaign("c", 100)
    lease = (await bench.take()).leases[0]
    done = settlement(lease.token, outcomes(rows(lease)))
    move = cluster.begin_move(A)
    move.carry(1)
    with pytest.raises(Unavailable, match="TRYAGAIN"):
        await bench.settle(done)
    move.finish()
    assert await bench.settle(done) == (1,)
    await bench.close()


async def test_a_slot_that_has_moved_gets_them_where_it_is_whatever_the_table_says(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that tells the table may be the last one to hear of a move."""
    bench = redis_bench(cluster.url)
    await bench.account()
    await bench.visit(1, [])
    link = bench.queue._link
    assert isinstance(link, ClusterLink)
    before = list(link._owners)
    move = cluster.begin_move(A)
    move.carry()
    move.finish()

    def learn_late(told_by: Node, ranges: object) -> None:
        link._owners, link._guide, link._is_stale = list(before), told_by, False

    monkeypatch.setattr(cluster_module, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(link, "_learn", learn_late)
    await bench.visit(1, [])
    assert scripts.function("visit") in kept(move.target.url)
    await bench.close()


async def test_a_server_that_forgets_them_at_once_is_asked_slower_and_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    paused = list[float]()

    class Forgetting:
        loads = 0

        async def call(self, *args: Argument) -> object:
            if args[0] == b"FUNCTION":
                self.loads += 1
                return b"OK"
            raise FunctionMissing("Function not found", self)  # type: ignore[arg-type]

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    forgetting = Forgetting()
    with pytest.raises(Unavailable, match="forgets"):
        await scripts.run_kept(forgetting, "visit", (A,))  # type: ignore[arg-type]
    assert forgetting.loads == len(paused) + 1 == scripts.FOUND_WITHIN  # who finds them gone once need not wait
    assert paused == sorted(set(paused))
    assert sum(paused) < 1


def test_a_function_names_a_key_that_never_exists() -> None:
    assert guarded((b"FCALL", b"f", 1, A, 5)) == (b"FCALL", b"f", 2, A, "{m1}:~", 5)
