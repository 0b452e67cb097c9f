"""A Cluster behind the interface of one link: redirections are followed, and a slot on the move never halves a script."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from queue_bench import Bench, redis_bench

from sendengine.errors import ConfigError, Unavailable
from sendengine.queue.cluster import ClusterLink, guarded, key_of, open_link
from sendengine.queue.link import Link
from tests.forms import Cluster, server

A = "{m1}"


@pytest.fixture
async def link(cluster: Cluster) -> AsyncIterator[ClusterLink]:
    made = ClusterLink(cluster.url, 5.0)
    yield made
    await made.close()


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    made = redis_bench(cluster.url)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "{m1}"), "{m1}"),
        ((b"EVALSHA", b"00", 2, "{w:a}", "{w:a}:in", 1), "{w:a}"),
        ((b"EVAL", "return 1", 0), None),
        (("TIME",), None),
    ],
)
def test_the_first_key_decides(command: tuple[str, ...], key: str | None) -> None:
    assert key_of(command) == key


def test_a_script_is_told_of_one_more_key() -> None:
    assert guarded((b"EVALSHA", b"00", 2, "{w:a}", "{w:a}:in", 7)) == (b"EVALSHA", b"00", 3, "{w:a}", "{w:a}:in", "{w:a}:~", 7)
    assert guarded(("GET", "{m1}")) == ("GET", "{m1}")


async def test_accounts_and_workers_are_spread_over_the_masters(cluster: Cluster, bench: Bench) -> None:
    for n in range(1, 31):
        await bench.account(f"m{n}")
    await bench.queue.register("w1", b"token")
    assert sorted(await bench.desk.accounts()) == sorted(f"m{n}" for n in range(1, 31))
    assert all(each.client.dbsize() > 0 for each in cluster.masters)


async def test_a_slot_that_moved_is_followed_and_changes_the_generation(cluster: Cluster, link: ClusterLink) -> None:
    await link.call("SET", A, "1")
    before = link.generation
    cluster.begin_move(A).finish()
    assert await link.call("GET", A) == b"1"
    assert link.generation > before
    settled = link.generation
    assert await link.call("GET", A) == b"1"
    assert link.generation == settled


async def test_a_key_that_is_gone_ahead_is_asked_for_where_it_is(cluster: Cluster, link: ClusterLink) -> None:
    await link.call("SET", A, "1")
    move = cluster.begin_move(A)
    assert await link.call("GET", A) == b"1"  # still here
    move.carry()
    assert await link.call("GET", A) == b"1"  # ASK
    assert await link.call("RPUSH", f"{A}:list", "x") == 1  # made where it will stay
    assert cluster.owner(A) is not move.target
    move.finish()
    assert await link.call("LRANGE", f"{A}:list", 0, -1) == [b"x"]


HALF = "redis.call('SET', KEYS[1], 'half') redis.call('SET', KEYS[1] .. ':other', 'whole')"


async def test_without_the_guard_a_moving_slot_halves_a_script(cluster: Cluster, link: ClusterLink) -> None:
    """The reason for it: the server checks named keys only, starts, and breaks off at one that is not there."""
    await link.call("SET", A, "before")
    move = cluster.begin_move(A)
    with pytest.raises(Exception, match="non local key"):
        await _unguarded(cluster, HALF)
    assert await link.call("GET", A) == b"half"
    move.finish()


async def _unguarded(cluster: Cluster, script: str) -> None:
    alone = Link(cluster.owner(A).url, timeout=5.0)
    try:
        await alone.call(b"EVAL", script, 1, A)
    finally:
        await alone.close()


@pytest.mark.parametrize("carried", [0, 1, 1000])
async def test_a_moving_slot_refuses_a_script_whole_and_takes_it_afterwards(cluster: Cluster, link: ClusterLink, carried: int) -> None:
    await link.call("SET", A, "before")
    await link.call("SET", f"{A}:third", "before")
    move = cluster.begin_move(A)
    if carried:
        move.carry(carried)
    with pytest.raises(Unavailable, match="TRYAGAIN"):
        await link.call(b"EVAL", HALF, 1, A)
    assert await link.call("GET", A) == b"before"
    move.finish()
    await link.call(b"EVAL", HALF, 1, A)
    assert [await link.call("GET", key) for key in (A, f"{A}:other")] == [b"half", b"whole"]


async def test_a_master_that_is_away_keeps_its_slots_away_and_comes_back(cluster: Cluster, link: ClusterLink) -> None:
    await link.call("SET", A, "1")
    owner = cluster.owner(A)
    before = link.generation
    owner.kill()
    try:
        with pytest.raises(Unavailable):
            await link.call("GET", A)
    finally:
        owner.start()
    cluster.until_whole()
    assert await link.call("GET", A) == b"1"
    assert link.generation > before


async def test_a_silent_node_is_away_after_a_while(cluster: Cluster) -> None:
    link = ClusterLink(cluster.url, timeout=0.3)
    await link.call("SET", A, "1")
    owner = cluster.owner(A)
    owner.freeze()
    try:
        with pytest.raises(Unavailable):
            await link.call("GET", A)
    finally:
        owner.thaw()
    cluster.until_whole()
    assert await link.call("GET", A) == b"1"
    await link.close()


async def test_a_single_server_named_as_a_cluster_is_refused_with_the_way_out() -> None:
    with server() as alone:
        link = open_link(alone.url.replace("redis://", "redis+cluster://"))
        with pytest.raises(ConfigError, match="no cluster") as refused:
            await link.call("GET", "x")
        await link.close()
    assert "redis://" in refused.value.remedy


async def test_a_cluster_named_by_one_live_node_is_found_whole(cluster: Cluster) -> None:
    link = open_link(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.masters[2].port}")
    for n in range(20):
        await link.call("SET", f"{{m{n}}}", n)
    assert len(await link.masters()) == 3
    await link.close()
