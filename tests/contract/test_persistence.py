"""What is read of a real server, and what an acknowledgement means where a replica must have it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from queue_bench import SETTINGS, addresses, batches

from sendengine.engine.takeover import give_back
from sendengine.errors import Unavailable
from sendengine.policy.durability import Level, Persistence, weakest
from sendengine.queue.cluster import open_link
from sendengine.queue.desk import RedisDesk
from sendengine.queue.persistence import as_told, persistence
from sendengine.queue.redis import RedisQueue
from tests.forms import Cluster, Server, replicated, server

WAIT_MS = 200


async def read(url: str) -> tuple[Persistence, ...]:
    link = open_link(url)
    try:
        return await persistence(link)
    finally:
        await link.close()


async def test_the_embedded_server_is_durable(redis_url: str) -> None:
    assert await read(redis_url) == (Persistence(True, "always", "", "noeviction", 0, 0),)


async def test_weaker_settings_are_read() -> None:
    with server(appendonly="no", save="3600 1", maxmemory_policy="allkeys-lru") as weak:
        assert await read(weak.url) == (Persistence(False, "always", "3600 1", "allkeys-lru", 0, 0),)


async def test_where_config_is_forbidden_info_tells_a_part() -> None:
    with server() as managed:
        managed.client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config")
        (found,) = await read(managed.url.replace("redis://", "redis://app:pw@"))
        assert found == Persistence(True, None, None, "noeviction", 0, None)
        assert weakest([found], False).level is Level.UNKNOWN
        managed.client.config_set("appendonly", "no")
        (found,) = await read(managed.url.replace("redis://", "redis://app:pw@"))
        assert weakest([found], False).level is Level.NONE


def test_a_server_that_tells_nothing_is_unknown() -> None:
    assert as_told({}, {}) == Persistence()


async def test_every_master_of_a_cluster_is_asked(cluster: Cluster) -> None:
    cluster.masters[1].client.config_set("appendfsync", "everysec")
    try:
        assert weakest(await read(cluster.url), False).level is Level.EVERYSEC
    finally:
        cluster.masters[1].client.config_set("appendfsync", "always")


@pytest.fixture(scope="module")
def _pair() -> Iterator[tuple[Server, Server]]:
    with replicated() as (master, replica):
        yield master, replica


@pytest.fixture
def pair(_pair: tuple[Server, Server]) -> tuple[Server, Server]:
    _pair[0].client.flushall()
    return _pair


async def test_a_replica_is_seen(pair: tuple[Server, Server]) -> None:
    (found,) = await read(pair[0].url)
    assert (found.replicas, weakest([found], True).is_durable) == (1, True)


async def test_what_is_accepted_stands_at_the_replica(pair: tuple[Server, Server]) -> None:
    master, replica = pair
    desk = RedisDesk(master.url, wait_ms=WAIT_MS)
    await desk.create_account("m1", {"iv": "0"})
    assert replica.client.exists("{m1}")
    await desk.create("m1", "c", b"d", None, b"message", SETTINGS)
    (batch,) = batches(addresses(3))
    await desk.submit("m1", "c", batch)
    assert replica.client.hget("{m1}:c:c", "accepted") == "3"
    await desk.seal("m1", "c", 1)
    assert replica.client.hget("{m1}:c:c", "sealed") == "1"
    await desk.close()


async def test_without_a_replica_nothing_is_acknowledged_not_even_a_repeat(pair: tuple[Server, Server]) -> None:
    """A new connection that changes nothing has nothing to wait for, and WAIT would say that all is well."""
    master, replica = pair
    desk = RedisDesk(master.url, wait_ms=WAIT_MS)
    await desk.create_account("m1", {"iv": "0"})
    await desk.create("m1", "c", b"d", None, b"message", SETTINGS)
    (batch,) = batches(addresses(3))
    replica.freeze()
    try:
        with pytest.raises(Unavailable, match="no replica"):
            await desk.submit("m1", "c", batch)
        await desk.close()
        again = RedisDesk(master.url, wait_ms=WAIT_MS)
        with pytest.raises(Unavailable, match="no replica"):
            await again.submit("m1", "c", batch)
        with pytest.raises(Unavailable, match="no replica"):
            await again.pause("m1", "c")
    finally:
        replica.thaw()
    assert (await again.submit("m1", "c", batch)).status == "same"
    assert await again.pause("m1", "c") == "same"
    await again.close()


async def test_a_journal_write_without_a_replica_is_none(pair: tuple[Server, Server]) -> None:
    master, replica = pair
    queue = RedisQueue(master.url, wait_ms=WAIT_MS)
    await queue.register("w1", b"token")
    await queue.append("w1", b"token", 0, [], [b"1", b"tick"])
    assert replica.client.hget("{w:w1}", "1") == "tick"
    replica.freeze()
    try:
        with pytest.raises(Unavailable, match="no replica"):
            await queue.append("w1", b"token", 0, [], [b"2", b"tick"])
    finally:
        replica.thaw()
    await queue.append("w1", b"token", 0, [], [b"3", b"tick"])
    await queue.close()


async def test_a_rescue_is_acknowledged_by_the_replica_before_its_journal_may_go(pair: tuple[Server, Server]) -> None:
    """Each step of it, and a repeat of each: in a cluster journal and lease stand at different masters."""
    master, replica = pair
    queue = RedisQueue(master.url, wait_ms=WAIT_MS)
    await queue.register("w1", b"token")
    beat = await queue.beat("w1")
    assert beat is not None
    replica.freeze()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match="no replica"):
                await queue.revoke("w1", *beat)
            with pytest.raises(Unavailable, match="no replica"):
                await queue.visit("m1", 0, 0.0, "=", [], [give_back(b"no lease")])
            with pytest.raises(Unavailable, match="no replica"):
                await queue.register("w3", b"token")
            await queue.close()
            queue = RedisQueue(master.url, wait_ms=WAIT_MS)
    finally:
        replica.thaw()
    assert await queue.revoke("w1", *beat)
    await queue.register("w3", b"token")
    await queue.close()
