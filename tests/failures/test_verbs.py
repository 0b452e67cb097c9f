"""Verbs on real processes under load: pause, resume, cancel, reverse, move, tier, scale and rolling restarts, at random and seeded.

The relay's file of transactions is the witness: it has every MAIL with its time.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from sendengine.batch import VERSION
from sendengine.errors import Conflict
from sendengine.intake import Intake
from sendengine.render.message import dump
from sendengine.types import TlsPolicy
from sendengine.wiring import relay_from_url
from tests import chance
from tests.engine.rig import FIELDS
from tests.failures.stage_rig import ACCOUNT, LIMIT, MESSAGE, FailureRig, failure_rig

pytestmark = pytest.mark.timeout(150)

STEPS = int(os.environ.get("SENDENGINE_STEPS", "30"))
STOPS_WITHIN = 1.0
SENDS, LINE, ROWS = ("a", "b", "c"), ("d", "e", "f"), 300  # those in the line are sequential
ROOT = Path(__file__).parent.parent.parent
NEXT_RELEASE = (
    "import runpy, sys, sendengine.batch as batch; batch.VERSION += 1; sys.argv = ['send']; "
    f"runpy.run_path({str(ROOT / 'workers' / 'send.py')!r}, run_name='__main__')"
)


class Steering:
    """Does one random thing at a time, and remembers when a stop was acknowledged."""

    def __init__(self, rig: FailureRig, chance: random.Random, names: tuple[str, ...] = SENDS + LINE) -> None:
        self.rig, self.client, self._chance, self._names = rig, rig.client, chance, names
        self._line = tuple(name for name in names if name in LINE)
        self.stops: dict[str, list[list[float]]] = {name: [] for name in names}  # [acknowledged, resumed]
        self.cancelled: set[str] = set()
        self.main = rig.start_workers(1)
        self._more: subprocess.Popen[bytes] | None = None

    async def step(self) -> str:
        deeds = [self._pause, self._resume, self._resume, self._reverse, self._tier, self._restart, self._scale]
        deeds += [self._move] if self._line else []
        deed = self._chance.choice(deeds)
        name = self._chance.choice(self._line if deed == self._move else self._names)
        await deed(name)
        await asyncio.sleep(self._chance.choice([0.05, 0.2, 0.4]))  # load between deeds, no waiting for anything
        return f"{deed.__name__} {name}"

    def _is_stopped(self, name: str) -> bool:
        return bool(self.stops[name]) and self.stops[name][-1][1] == float("inf")

    async def _is_over(self, name: str) -> bool:
        return (await self.client.status(f"{ACCOUNT}:{name}")).state in ("cancelled", "finished")

    async def _pause(self, name: str) -> None:
        if self._is_stopped(name) or await self._is_over(name):
            return
        try:
            await self.client.pause(f"{ACCOUNT}:{name}")
        except Conflict:  # it finished meanwhile
            return
        self.stops[name].append([time.time(), float("inf")])

    async def _resume(self, name: str) -> None:
        if self._is_stopped(name) and name not in self.cancelled:
            self.stops[name][-1][1] = time.time()
            with suppress(Conflict):  # what was on the wire was the last of it
                await self.client.resume(f"{ACCOUNT}:{name}")

    async def cancel(self, name: str) -> None:
        try:
            await self.client.cancel(f"{ACCOUNT}:{name}")
        except Conflict:  # it finished before
            return
        self.cancelled.add(name)
        if not self._is_stopped(name):
            self.stops[name].append([time.time(), float("inf")])

    async def _reverse(self, name: str) -> None:
        with suppress(Conflict):  # it has ended
            await self.client.reverse(f"{ACCOUNT}:{name}")

    async def _move(self, name: str) -> None:
        before = await self.client.desk.line(ACCOUNT)
        with suppress(Conflict):  # it sends, or has ended
            await self.client.move(f"{ACCOUNT}:{name}", self._chance.choice(["up", "down"]))
        after = await self.client.desk.line(ACCOUNT)
        assert len(set(after)) == len(after)
        assert {name for name in before if name not in after} <= {name for name in LINE if await self._is_through(name)}

    async def _is_through(self, name: str) -> bool:
        fields = await self.client.desk.campaign(ACCOUNT, name)
        return "through" in fields or fields["state"] in ("cancelled", "finished")

    async def _tier(self, name: str) -> None:
        await self.client.set_tier(ACCOUNT, str(self._chance.choice([36_000, 180_000, 360_000])))

    async def _restart(self, name: str) -> None:
        self.main.send_signal(signal.SIGHUP)

    async def _scale(self, name: str) -> None:
        if self._more is None:
            before = len(await self.client.workers())
            self._more = self.rig.start_workers(7)
            async with asyncio.timeout(LIMIT):  # a TERM that comes before its handler stands would kill it
                while len(await self.client.workers()) < before + 4:  # noqa: ASYNC110 - other processes
                    await asyncio.sleep(0.05)
        else:
            self._more.terminate()
            assert await asyncio.to_thread(self._more.wait, 30) == 0
            self._more = None

    async def resume_all(self) -> None:
        for name in self._names:
            await self._resume(name)
        await self.client.set_tier(ACCOUNT, "720000")

    async def leave(self) -> None:
        """Every worker of this release, warm."""
        for workers in filter(None, (self._more, self.main)):
            workers.terminate()
            assert await asyncio.to_thread(workers.wait, 30) == 0

    def late(self, transactions: Path) -> list[tuple[str, float]]:
        """MAILs between a second after a stop was acknowledged and the resume."""
        return [
            (mail["rcpt_to"], round(mail["at"] - stop, 3))
            for mail in _mails(transactions)
            for stop, resumed in self.stops[_send_of(mail["rcpt_to"])]
            if stop + STOPS_WITHIN < mail["at"] < resumed
        ]


async def _submit(rig: FailureRig, per_hour: int, line: tuple[str, ...] = ()) -> None:
    await rig.client.create_account(ACCOUNT, str(per_hour), relay=relay_from_url(rig.relay.url, "", TlsPolicy.NONE))
    for name in SENDS + line:
        rows = [{"email": f"{name}{i}@example.com", "name": f"N {i}", "token": f"t{i}"} for i in range(ROWS)]
        await rig.client.submit(account=ACCOUNT, message=MESSAGE, recipients=rows, campaign=name, sequential=name in line)


async def _submit_next_version(rig: FailureRig) -> int:
    """A campaign whose only batch a newer release wrote."""
    fields = {**FIELDS, "uid": "next", "need_seal": "1"}
    assert await rig.client.desk.create(ACCOUNT, "next", b"d", None, dump(MESSAGE), fields) == "new"
    intake = Intake(("name", "token"), salt=b"salt")
    [batch] = intake.from_rows({"email": f"next{i}@example.com", "name": "n", "token": "t"} for i in range(40))
    newer = msgspec.structs.replace(batch, payload=bytes((VERSION + 1,)) + batch.payload[1:])
    assert (await rig.client.desk.submit(ACCOUNT, "next", newer)).status == "stored"
    assert (await rig.client.desk.seal(ACCOUNT, "next", 1)).status == "sealed"
    return 40


def _send_of(recipient: str) -> str:
    return recipient.partition("@")[0].rstrip("0123456789")


def _mails(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines() if line.endswith(b"}")]


async def _until_ended(rig: FailureRig, names: tuple[str, ...]) -> None:
    async with asyncio.timeout(LIMIT):
        for name in names:
            while (await rig.client.status(f"{ACCOUNT}:{name}")).finished_at is None:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.1)


async def test_verbs_at_random_under_load(tmp_path: Path) -> None:
    seed = chance.seed(10**6)
    print(f"SENDENGINE_SEED={seed}")
    transactions = tmp_path / "mails.ndjson"
    async with failure_rig("--delay", "dot=0.02", "--transactions", str(transactions)) as rig:
        await _submit(rig, 180_000, LINE)
        steering = Steering(rig, random.Random(seed))
        await rig.until_sent(20)
        for n in range(STEPS):
            print(await steering.step())
            if n == STEPS // 2:
                await steering.cancel("c")
        await steering.resume_all()
        await _until_ended(rig, SENDS + LINE)
        assert steering.main.poll() is None
        taken = Counter(line["rcpt_to"] for line in rig.ledger())
        for name in SENDS + LINE:
            status = await rig.client.status(f"{ACCOUNT}:{name}")
            mine = sum(n for recipient, n in taken.items() if recipient.startswith(name))
            assert (status.accepted, status.pending, status.sent + status.cancelled) == (ROWS, 0, ROWS)
            assert status.sent == mine
            assert (status.cancelled == 0) or name in steering.cancelled
            assert [finding async for finding in rig.client.fsck(f"{ACCOUNT}:{name}")] == []
        assert max(taken.values()) == 1
        assert steering.late(transactions) == []


async def test_a_newer_payload_is_left_untouched_whatever_the_verbs_for_a_worker_that_knows_it(tmp_path: Path) -> None:
    """Paused, resumed and reversed beside others, through rolling restarts and scaling, it waits for the next release."""
    seed = chance.seed(10**6)
    print(f"SENDENGINE_SEED={seed}")
    transactions = tmp_path / "mails.ndjson"
    async with failure_rig("--delay", "dot=0.02", "--transactions", str(transactions)) as rig:
        await _submit(rig, 180_000)
        n = await _submit_next_version(rig)
        steering = Steering(rig, random.Random(seed), (*SENDS, "next"))
        await rig.until_sent(30)
        for _ in range(STEPS // 2):
            print(await steering.step())
        await steering.resume_all()
        steering.main.send_signal(signal.SIGHUP)  # a rolling restart at least
        await _until_ended(rig, SENDS)
        await steering.leave()
        assert not [line for line in rig.ledger() if line["rcpt_to"].startswith("next")]
        standing = await rig.client.desk.standing(ACCOUNT, "next")
        assert sum(int.from_bytes(mask, "little").bit_count() for masks in standing.ready.values() for mask in masks) == n
        rig.stage.start(sys.executable, "-c", NEXT_RELEASE)
        await rig.client.pause(f"{ACCOUNT}:next")
        await rig.client.resume(f"{ACCOUNT}:next")
        await _until_ended(rig, ("next",))
        taken = Counter(line["rcpt_to"] for line in rig.ledger())
        assert sorted(taken.values()) == [1] * (n + len(SENDS) * ROWS)
        status = await rig.client.status(f"{ACCOUNT}:next")
        assert (status.sent, status.bounced, status.pending) == (n, 0, 0)
        assert steering.late(transactions) == []
