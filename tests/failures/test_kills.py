"""Workers and Redis die in mid-send; afterwards nobody is lost, and repeats are only what was in doubt."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from tests.failures.rig import failure_rig

pytestmark = pytest.mark.timeout(150)


async def test_a_worker_killed_in_mid_send() -> None:
    async with failure_rig("--delay", "dot=0.05") as rig:
        campaign = await rig.submit(1500, per_hour=540_000)
        rig.start_workers(2)
        await rig.until_sent(400)
        os.kill(await rig.busy_pid(), signal.SIGKILL)
        await rig.until_ended(campaign)
        account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.pending, account.findings) == (0, 0, 0, 0)
    assert account.outcomes == {"sent": 1500}
    assert account.doubts > 0  # else the fault was not there
    assert account.duplicates <= account.doubts


async def test_a_worker_killed_in_mid_send_under_hold() -> None:
    async with failure_rig("--delay", "dot=0.05") as rig:
        campaign = await rig.submit(1500, per_hour=540_000, on_doubt="hold")
        rig.start_workers(2)
        await rig.until_sent(400)
        os.kill(await rig.busy_pid(), signal.SIGKILL)
        await rig.until_ended(campaign)
        account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.duplicates, account.findings) == (0, 0, 0, 0)
    assert account.outcomes["unknown"] == account.doubts > 0
    assert account.outcomes["sent"] + account.doubts == 1500


async def test_redis_killed_in_mid_send_with_workers_alive() -> None:
    async with failure_rig() as rig:
        campaign = await rig.submit(1500, per_hour=540_000)
        workers = rig.start_workers(1)
        await rig.until_sent(400)
        rig.kill_redis()
        await asyncio.sleep(1.0)
        sent = len(rig.ledger())
        rig.restart_redis()
        back = time.monotonic()
        await rig.until_sent(sent + 1)
        resumed = time.monotonic() - back
        await rig.until_ended(campaign)
        account = await rig.reckon(campaign)
        assert workers.poll() is None
    assert (account.lost, account.phantom, account.duplicates, account.findings) == (0, 0, 0, 0)
    assert account.outcomes == {"sent": 1500}
    assert resumed <= 10.0


async def test_a_worker_told_to_stop_under_load() -> None:
    async with failure_rig("--delay", "dot=0.05") as rig:
        campaign = await rig.submit(1000, per_hour=540_000)
        first = rig.start_workers(1)
        await rig.until_sent(300)
        first.terminate()
        assert first.wait(20) == 0
        rig.start_workers(1)
        await rig.until_ended(campaign)
        account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.duplicates, account.doubts, account.findings) == (0, 0, 0, 0, 0)
    assert account.outcomes == {"sent": 1000}


async def test_a_zombie_writes_nothing() -> None:
    async with failure_rig("--delay", "dot=0.05") as rig:
        campaign = await rig.submit(1500, per_hour=540_000)
        rig.start_workers(2)
        await rig.until_sent(300)
        zombie = await rig.busy_pid()
        os.kill(zombie, signal.SIGSTOP)
        await rig.until_sent(1200)
        os.kill(zombie, signal.SIGCONT)
        await rig.until_ended(campaign)
        account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.findings) == (0, 0, 0)
    assert account.outcomes == {"sent": 1500}
    assert account.duplicates <= account.doubts
