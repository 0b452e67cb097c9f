"""Holds on real processes under load, beside tests/test_gates.py: the relay's file of transactions has every MAIL with its time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path

import orjson
import pytest

from tests.failures.stage_rig import ACCOUNT, FailureRig, failure_rig

pytestmark = pytest.mark.timeout(150)

WITHIN = 1.0  # seconds: domain rule 3
WATCHED = 2.5  # seconds for which nothing may come
SPREAD = {"SENDENGINE_ENGINE_SPREAD_ABOVE": "1"}  # every process attaches to the account


class Witness:
    """MAIL times as the relay wrote them down, in order."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def mails(self) -> list[float]:
        lines = (line for line in self._file.read_bytes().splitlines() if line.endswith(b"}"))
        return sorted(orjson.loads(line)["at"] for line in lines)

    def late(self, shut: float, opened: float) -> list[float]:
        """How long after it was shut MAILs still came, beyond what is allowed, before it was opened again."""
        return [at - shut for at in self.mails() if shut + WITHIN < at < opened]

    def since(self, at: float) -> list[float]:
        times = self.mails()
        return times[bisect_left(times, at) :]


async def _whole(rig: FailureRig, n: int) -> None:
    reckoned = await rig.reckon(f"{ACCOUNT}:c")
    assert (reckoned.accepted, reckoned.outcomes, reckoned.pending) == (n, {"sent": n}, 0)
    assert (reckoned.lost, reckoned.duplicates, reckoned.phantom, reckoned.findings) == (0, 0, 0, 0)
    assert max(Counter(line["rcpt_to"] for line in rig.ledger()).values()) == 1


@pytest.mark.parametrize("processes", [2, 4])
async def test_hold_and_release_of_an_unmetered_account_under_load(tmp_path: Path, processes: int) -> None:
    witness, n = Witness(tmp_path / "mails.ndjson"), 12_000
    async with failure_rig("--delay", "dot=0.02", "--transactions", str(tmp_path / "mails.ndjson")) as rig:
        await rig.submit(n, "unmetered")  # type: ignore[arg-type]  # a tier's name will do
        rig.start_workers(processes, **SPREAD)
        await rig.until_sent(100)
        await rig.client.hold(ACCOUNT, "content")
        held = time.time()
        await asyncio.sleep(WATCHED)
        assert len(rig.ledger()) < n
        assert (await rig.client.status(f"{ACCOUNT}:c")).binding.limit == "hold"  # type: ignore[union-attr]
        asked = time.time()
        await rig.client.release(ACCOUNT, "content")
        released = time.time()
        await rig.until_ended(f"{ACCOUNT}:c")
        assert witness.late(held, asked) == []
        assert witness.since(asked)[0] - released <= WITHIN
        await _whole(rig, n)


async def test_hold_that_a_killed_worker_met_holds_and_loses_nothing(tmp_path: Path) -> None:
    """The worker that has the work dies in the moment of the hold; whoever takes over sends nothing before it is lifted."""
    witness = Witness(tmp_path / "mails.ndjson")
    async with failure_rig("--delay", "dot=0.02", "--transactions", str(tmp_path / "mails.ndjson")) as rig:
        await rig.submit(400, 180_000)
        rig.start_workers(2, **SPREAD)
        await rig.until_sent(50)
        pid = await rig.busy_pid()
        await rig.client.hold(ACCOUNT, "content")
        os.kill(pid, signal.SIGKILL)
        held = time.time()
        await asyncio.sleep(2 * WATCHED)
        asked = time.time()
        await rig.client.release(ACCOUNT, "content")
        await rig.until_ended(f"{ACCOUNT}:c")
        assert witness.late(held, asked) == []
        reckoned = await rig.reckon(f"{ACCOUNT}:c")
        assert (reckoned.lost, reckoned.pending, reckoned.findings) == (0, 0, 0)
        assert reckoned.duplicates <= reckoned.doubts
