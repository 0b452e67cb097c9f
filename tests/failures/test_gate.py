"""Holds and terms on real processes under load: the relay's file of transactions is the witness, it has every MAIL with its time."""

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


def most_in_a_second(times: list[float]) -> int:
    return max(bisect_left(times, first + 1.0) - place for place, first in enumerate(times))


async def _whole(rig: FailureRig, n: int) -> None:
    reckoned = await rig.reckon(f"{ACCOUNT}:c")
    assert (reckoned.accepted, reckoned.outcomes, reckoned.pending) == (n, {"sent": n}, 0)
    assert (reckoned.lost, reckoned.duplicates, reckoned.phantom, reckoned.findings) == (0, 0, 0, 0)
    assert max(Counter(line["rcpt_to"] for line in rig.ledger()).values()) == 1


@pytest.mark.parametrize("per_hour", ["180000", "unmetered"])
@pytest.mark.parametrize("processes", [2, 4])
async def test_hold_and_release_under_load(tmp_path: Path, per_hour: str, processes: int) -> None:
    witness = Witness(tmp_path / "mails.ndjson")
    n = 600 if per_hour != "unmetered" else 12_000
    async with failure_rig("--delay", "dot=0.02", "--transactions", str(tmp_path / "mails.ndjson")) as rig:
        await rig.submit(n, per_hour)  # type: ignore[arg-type]  # a tier's name will do
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
        after = witness.since(asked)
        assert after[0] - released <= WITHIN
        if per_hour != "unmetered":
            assert most_in_a_second(after) <= 50 * 1.5 + 1
        await _whole(rig, n)


async def test_term_that_ends_under_load_and_its_renewal(tmp_path: Path) -> None:
    """No process is told that it ends: each knows by its permits."""
    witness = Witness(tmp_path / "mails.ndjson")
    async with failure_rig("--delay", "dot=0.02", "--transactions", str(tmp_path / "mails.ndjson")) as rig:
        await rig.submit(600, 180_000)
        rig.start_workers(2, **SPREAD)
        await rig.until_sent(50)
        term = await rig.client.set_term(ACCOUNT, "renew", ends="+2s")
        assert (await rig.client.set_term(ACCOUNT, "cancel")).phase == "cancelled_active"
        assert term.ends is not None
        await asyncio.sleep(2.0 + WATCHED)
        assert (await rig.client.term(ACCOUNT)).phase == "grace"
        assert (await rig.client.status(f"{ACCOUNT}:c")).binding.limit == "term"  # type: ignore[union-attr]
        asked = time.time()
        await rig.client.set_term(ACCOUNT, "renew", ends="+1d")
        renewed = time.time()
        await rig.until_ended(f"{ACCOUNT}:c")
        assert witness.late(term.ends.timestamp(), asked) == []
        assert witness.since(asked)[0] - renewed <= WITHIN
        await _whole(rig, 600)


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
