"""A send on every form of Redis, while that form does its worst: a slot moves, a master dies, another one takes its place."""

from __future__ import annotations

import asyncio
import time

import pytest

from sendengine.config import Config
from sendengine.errors import Unavailable
from sendengine.policy.durability import MORE_DURABLE, NO_EVICTION
from tests.failures.redis_rig import RedisRig, logged, redis_rig, until, until_answered, until_quiet
from tests.failures.stage_rig import ACCOUNT, MESSAGE
from tests.forms import Cluster, Sentinels, Server, replicated, sentinels, server

pytestmark = pytest.mark.timeout(150)

KEY = "{m1}"
RATE = 900_000
N = 500
REPLICATED = {"SENDENGINE_DURABILITY": "replicated", "SENDENGINE_LOG_FORMAT": "json"}
JSON = {"SENDENGINE_LOG_FORMAT": "json"}


async def _all_sent(rig: RedisRig, campaign: str) -> None:
    await until_answered(rig)
    await rig.until_ended(campaign)
    account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.duplicates, account.pending, account.findings) == (0, 0, 0, 0, 0)
    assert account.outcomes == {"sent": N}


async def test_a_worker_says_how_durable_its_redis_is(redis_url: str) -> None:
    async with redis_rig(redis_url) as rig:
        rig.start_workers(1, **JSON)
        await until(lambda: logged(rig, "durability"))
        said = logged(rig, "durability")
        async with asyncio.timeout(30):
            while not (found := [info for info in (await rig.client.workers()).values() if info]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (said[0]["durability"], said[0]["level"], len(said)) == ("always", "info", 1)
        assert "nothing that was acknowledged" in said[0]["loses"]
        assert found[0]["durability"] == "always"
        assert (await rig.client.durability()).is_durable


async def test_a_weaker_redis_is_refused_where_durability_is_required() -> None:
    with server(appendfsync="everysec") as weak:
        async with redis_rig(weak.url) as rig:
            by_flag = rig.stage.worker("--require-durable", environ=JSON)
            assert await asyncio.to_thread(by_flag.wait, 60) == 2
            assert logged(rig, "worker_not_started")[0]["remedy"] == MORE_DURABLE
            weak.client.config_set("appendfsync", "always")
            weak.client.config_set("maxmemory-policy", "allkeys-lru")
            by_variable = rig.stage.worker(environ=JSON | {"SENDENGINE_WORKER_REQUIRE_DURABLE": "1"})
            assert await asyncio.to_thread(by_variable.wait, 60) == 2
            assert logged(rig, "worker_not_started")[1]["remedy"] == NO_EVICTION
            assert weak.client.keys("*") == []  # nothing was begun


async def test_a_send_on_a_cluster_while_its_slot_moves(cluster: Cluster) -> None:
    async with redis_rig(cluster.url) as rig:
        campaign = await rig.submit(N, RATE)
        rig.start_workers(1, **JSON)
        await rig.until_sent(150)
        move = cluster.begin_move(KEY)
        move.carry(3)  # some of its keys here, some there
        assert await until_quiet(rig, 0.7) < N  # refused, so held
        move.finish()
        await _all_sent(rig, campaign)
    assert cluster.owner(KEY) is move.target


async def test_a_send_on_a_cluster_whose_master_is_killed_and_comes_back(cluster: Cluster) -> None:
    async with redis_rig(cluster.url) as rig:
        campaign = await rig.submit(N, RATE)
        workers = rig.start_workers(1, **JSON)
        await rig.until_sent(150)
        owner = cluster.owner(KEY)
        owner.kill()
        sent = await until_quiet(rig, 1.0)
        owner.start()
        cluster.until_whole()
        back = time.monotonic()
        await rig.until_sent(sent + 1)
        resumed = time.monotonic() - back
        await _all_sent(rig, campaign)
        assert workers.poll() is None
        assert sent < N
    assert resumed <= 10.0


async def test_what_is_acknowledged_stands_at_a_replica() -> None:
    """One pair whose replica falls silent; one service whose master is killed, with a replica left that the new master can wait for."""
    silent, config = Config(durability="replicated", replica_wait_ms=200), Config(durability="replicated")
    with replicated() as (master, replica), replicated(2) as (first, *others), sentinels(first) as watchers:
        async with redis_rig(master.url, config=silent) as pair, redis_rig(watchers.url, config=config) as service:
            await asyncio.gather(_silent_replica(pair, replica), _failover(service, first, others, watchers))


async def _silent_replica(rig: RedisRig, replica: Server) -> None:
    """It holds the send, and nothing more is accepted."""
    campaign = await rig.submit(N, RATE)
    workers = rig.start_workers(1, **REPLICATED, SENDENGINE_REPLICA_WAIT_MS="200")
    await rig.until_sent(150)
    replica.freeze()
    try:
        sent = await until_quiet(rig, 1.0)
        rows = [{"email": "a@example.com", "name": "A", "token": "t"}]
        with pytest.raises(Unavailable) as refused:
            await rig.client.submit(account=ACCOUNT, message=MESSAGE, recipients=rows, campaign="d")
        assert refused.value.exit_code == 75
        assert len(rig.ledger()) == sent < N
    finally:
        replica.thaw()
    await _all_sent(rig, campaign)
    assert workers.poll() is None


async def _failover(rig: RedisRig, master: Server, others: list[Server], watchers: Sentinels) -> None:
    """It goes on by itself; who was acknowledged is not lost, and nobody is called sent who was not."""
    campaign = await rig.submit(N, RATE)
    workers = rig.start_workers(1, **REPLICATED)
    await rig.until_sent(150)
    master.kill()
    await until(lambda: watchers.master_port() in [other.port for other in others])
    back = time.monotonic()
    sent = len(rig.ledger())
    await rig.until_sent(sent + 1)
    resumed = time.monotonic() - back
    await _all_sent(rig, campaign)
    assert workers.poll() is None
    assert sent < N
    assert resumed <= 10.0
