"""An account with credits, a worker and a trial SMS centre, in one process and on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson

from sendengine.channel.settings import SmtpSettings
from sendengine.channel.ways import Ways
from sendengine.client import Client
from sendengine.engine.settings import EngineSettings
from sendengine.engine.worker import Worker
from sendengine.keyring import Keyring
from sendengine.policy.replies import ReplyRules
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.scheduler.outcomes import RecipientOutcome
from sendengine.scheduler.status import Status
from sendengine.sink.silent import SilentMeter
from sendengine.trial.smsc import Smsc, SmscOptions
from sendengine.types import Provider, Relay, Way
from sendengine.wiring import LoopClock

SOON = EngineSettings(settle_after=0.2, retain=0.5, shutdown=3.0)
NUMBERS = [f"+4670000{n:04}" for n in range(1000)]


class Shop:
    """`provider` may be replaced before the worker starts."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.store = MemoryStore()
        self.desk = MemoryDesk(self.store, self.now_us)
        self.client = Client(desk=self.desk)
        self._worker: tuple[Worker, asyncio.Task[None]] | None = None

    def now_us(self) -> float:
        return time.time() * 1e6

    def _way(self, fields: Mapping[str, str]) -> Way:
        return self.provider if fields.get("channel") == "sms" else Relay("127.0.0.1", 9)

    def work(self, name: str = "w1", settings: EngineSettings = SOON) -> None:
        queue = MemoryQueue(self.store, self.now_us)
        channel = Ways(SmtpSettings(hostname="me.example"), LoopClock())
        worker = Worker(
            queue, channel, SilentMeter(), ReplyRules([]), settings, name, self._way, time.monotonic, Keyring(), jitter=lambda: 0.0
        )
        self._worker = worker, asyncio.create_task(worker.run())

    async def rest(self) -> None:
        if self._worker is not None:
            worker, task = self._worker
            self._worker = None
            worker.stop()
            await task

    async def open(self, credits_: float = 10_000, rate: str = "unmetered") -> None:
        await self.client.create_account("m1", "60k")
        await self.client.set_sms("m1", rate=rate)
        await self.client.grant_credits("m1", credits_, key="first")

    async def submit(self, n: int, campaign: str = "a", text: str = "hello", **options: Any) -> None:
        rows = [{"phone": number} for number in NUMBERS[:n]]
        options = {"retry": "1s", **options}
        await self.client.submit_sms(account="m1", sender="ACME", text=text, recipients=rows, campaign=campaign, **options)

    async def ended(self, campaign: str = "a") -> Status:
        async with asyncio.timeout(30):
            async for status in self.client.watch(campaign, every=0.05):
                found = status
        return found

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Looks until it holds: what others do on real sockets tells nobody."""
        async with asyncio.timeout(15):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def outcomes(self, campaign: str = "a") -> list[RecipientOutcome]:
        return [each async for each in self.client.outcomes(campaign)]

    async def sums(self) -> dict[str, float]:
        found = await self.client.credits("m1")
        assert [finding async for finding in self.client.fsck()] == []
        return {name: getattr(found, name) for name in ("reserved", "spent", "free")}


@asynccontextmanager
async def shop(tmp_path: Path, provider: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[tuple[Shop, Smsc]]:
    """Open, with a centre that listens; the worker is the test's to start."""
    centre = Smsc(SmscOptions(port=0, ledger=str(tmp_path / "ledger"), receipt_delay=0.01, **options))
    port = await centre.start()
    made = Shop(Provider(name="trial", kind="smpp", host="127.0.0.1", port=port, system_id="me", **(provider or {})))
    try:
        async with made.client:
            yield made, centre
            await made.rest()
    finally:
        await made.rest()
        await centre.stop()


async def restarted(centre: Smsc, port: int) -> Smsc:
    again = Smsc(msgspec.structs.replace(centre.options, port=port))
    await again.start()
    return again


def ledger(tmp_path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (tmp_path / "ledger").read_bytes().splitlines()]


def taken(tmp_path: Path) -> Counter[str]:
    """Messages that the centre took, by number: what a person would have got."""
    return Counter(line["to"] for line in ledger(tmp_path) if not line["status"])
