"""The network to Redis falls silent and comes back, or Redis and the workers start anew together: nobody is lost, nobody gets it twice.

The scenes need nothing of each other and wait most of their time: they run side by side.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sendengine.queue import embedded
from tests.failures.redis_proxy import Proxy, proxy
from tests.failures.redis_rig import RedisRig, logged, redis_rig, until_answered, until_quiet
from tests.forms import Server, server

pytestmark = pytest.mark.timeout(150)

RATE = 900_000
N = 500
JSON = {"SENDENGINE_LOG_FORMAT": "json"}


async def test_redis_goes_away_and_comes_back() -> None:
    async with AsyncExitStack() as stack:

        async def scene() -> tuple[RedisRig, Server]:
            redis = stack.enter_context(server())
            return await stack.enter_async_context(redis_rig(redis.url, "--delay", "dot=0.05")), redis

        partitions = []
        for seconds in (2.0, 11.0):  # shorter and longer than it takes to give a silent connection up
            rig, redis = await scene()
            partitions.append(_partition(rig, await stack.enter_async_context(proxy(redis.port)), seconds))
        await asyncio.gather(*partitions, _stopped_together(*await scene()), _killed_together(*await scene()))


async def _partition(rig: RedisRig, network: Proxy, seconds: float) -> None:
    campaign = await rig.submit(N, RATE)
    rig.stage.url = network.url
    workers = rig.start_workers(2, **JSON)
    await rig.until_sent(100)
    network.silence()
    sent = await until_quiet(rig, seconds)
    network.heal()
    back = time.monotonic()
    await rig.until_sent(sent + 1)
    resumed = time.monotonic() - back
    account = await _ended(rig, campaign)
    assert (account.duplicates, account.doubts, account.outcomes) == (0, 0, {"sent": N})
    assert workers.poll() is None
    assert not logged(rig, "worker_died")
    assert network.held > 0  # else the fault was not there
    assert sent < N
    assert resumed <= 10.0
    await rig.stop_workers()  # while the network is there


async def _stopped_together(rig: RedisRig, redis: Server) -> None:
    """A machine restarts in order: the workers cannot settle while their Redis is away, and do so before they leave."""
    campaign = await rig.submit(N, RATE)
    workers = rig.start_workers(2, **JSON)
    await rig.until_sent(100)
    redis.kill()
    workers.terminate()
    sent = await until_quiet(rig, 1.0)
    redis.start()
    assert await asyncio.to_thread(workers.wait, 60) == 0
    rig.start_workers(1)
    account = await _ended(rig, campaign)
    assert (account.duplicates, account.doubts, account.outcomes) == (0, 0, {"sent": N})
    assert sent < N


async def _killed_together(rig: RedisRig, redis: Server) -> None:
    """A machine loses its power: what was journalled and had no answer yet is in doubt, and no more than that."""
    campaign = await rig.submit(N, RATE)
    workers = rig.start_workers(2, **JSON)
    await rig.until_sent(100)
    pids = [line["pid"] for line in logged(rig, "worker_started")]
    workers.kill()  # first: it would start others
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    redis.kill()
    redis.start()
    rig.start_workers(1)
    account = await _ended(rig, campaign)
    assert account.outcomes == {"sent": N}
    assert account.duplicates <= account.doubts <= 2 * 512


async def _ended(rig: RedisRig, campaign: str) -> Any:
    await until_answered(rig)
    await rig.until_ended(campaign)
    account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.pending, account.findings) == (0, 0, 0, 0)
    return account


async def test_a_worker_starts_the_embedded_server_again_that_was_killed(state_dir: Path) -> None:
    url = embedded.ensure(state_dir)
    async with redis_rig(url) as rig:
        campaign = await rig.submit(200, RATE)
        rig.start_workers(1, **JSON, SENDENGINE_REDIS_URL="", SENDENGINE_STATE_DIR=str(state_dir))
        await rig.until_sent(50)
        found = embedded.status(state_dir)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)
        account = await _ended(rig, campaign)
        assert (account.duplicates, account.outcomes) == (0, {"sent": 200})
        assert len(logged(rig, "embedded_server_revived")) == 1
