"""The product as its users run it, supervisor and trial relay, for faults from outside: the server, its disk, verbs, another relay.

(rig.py runs worker processes that can be broken from within, and an independent relay.) Ground truth is the relay's ledger, never the
engine's own word.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import orjson

from sendengine.client import Client
from sendengine.queue import embedded
from sendengine.render.message import Message
from sendengine.trial.stage import Relay, Stage

ACCOUNT = "m1"
MESSAGE = Message(sender="Shop <shop@example.com>", subject="Hi {{ name }}", text="Hello {{ name }}, {{ token }}\n")
QUICK = {"SENDENGINE_ENGINE_DEAD_AFTER_S": "2"}
LIMIT = 120.0  # seconds that any of these waits may take


class Reckoning(msgspec.Struct, frozen=True):
    """One account of a send: what was accepted, what the relay saw, what the engine says."""

    accepted: int
    outcomes: dict[str, int]
    pending: int
    lost: int  # accepted without an outcome, or `sent` without a ledger line
    duplicates: int  # ledger lines beyond the first of a recipient
    phantom: int  # ledger lines of nobody accepted
    doubts: int  # times that the engine itself was in doubt
    findings: int  # of fsck


class FailureRig:
    """Owner of a stage; a campaign of recipients that are all accepted."""

    def __init__(self, stage: Stage, client: Client, relay: Relay) -> None:
        self.stage, self.client, self.relay = stage, client, relay
        self.names: list[str] = []

    async def submit(self, n: int, per_hour: int, on_doubt: str = "resend") -> str:
        from sendengine.wiring import relay_from_url

        await self.client.create_account(ACCOUNT, str(per_hour), relay=relay_from_url(self.relay.url, "", "none"))
        self.names = [f"r{i}@example.com" for i in range(n)]
        rows = [{"email": name, "name": f"N {i}", "token": f"t{i}"} for i, name in enumerate(self.names)]
        send = await self.client.submit(account=ACCOUNT, message=MESSAGE, recipients=rows, campaign="c", on_doubt=on_doubt)
        return send.campaign

    def start_workers(self, processes: int = 1, **environ: str) -> Any:
        return self.stage.worker("-p", str(processes), environ={**QUICK, **environ})

    async def busy_pid(self) -> int:
        """The process that has the account attached and sends."""
        return int((await self._busy())["pid"])

    async def _busy(self) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT):
            while True:
                for info in (await self.client.workers()).values():
                    if info.get("accounts"):
                        return info
                await asyncio.sleep(0.05)

    async def until_sent(self, n: int) -> None:
        """The relay has n messages."""
        async with asyncio.timeout(LIMIT):
            while len(self.ledger()) < n:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)

    async def until_ended(self, campaign: str) -> Any:
        async with asyncio.timeout(LIMIT):
            while True:
                status = await self.client.status(campaign)
                if status.finished_at is not None:
                    return status
                await asyncio.sleep(0.1)

    def ledger(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.relay.ledger.read_bytes().splitlines() if line.endswith(b"}")]

    async def reckon(self, campaign: str) -> Reckoning:
        status = await self.client.status(campaign)
        outcomes: Counter[str] = Counter()
        sent: set[str] = set()
        async for outcome in self.client.outcomes(campaign):
            outcomes[str(outcome.outcome)] += 1
            if outcome.outcome == "sent":
                sent.add(outcome.recipient)
        seen = Counter(line["rcpt_to"] for line in self.ledger())
        standing = await self.client.desk.standing(ACCOUNT, "c")
        missing = status.accepted - sum(outcomes.values())
        return Reckoning(
            accepted=status.accepted,
            outcomes=dict(outcomes),
            pending=status.pending,
            lost=missing + len(sent - set(seen)),
            duplicates=sum(n - 1 for n in seen.values()),
            phantom=len(set(seen) - set(self.names)),
            doubts=sum(standing.doubts.values()),
            findings=len([finding async for finding in self.client.fsck(campaign)]),
        )

    def kill_redis(self) -> None:
        status = embedded.status(self.stage.folder)
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)

    def restart_redis(self) -> None:
        embedded.ensure(self.stage.folder, ephemeral=True)


@asynccontextmanager
async def failure_rig(*flags: str) -> AsyncIterator[FailureRig]:
    with Stage() as stage:
        relay = stage.relay(*flags)
        async with Client(stage.url) as client:
            yield FailureRig(stage, client, relay)
