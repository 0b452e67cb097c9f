"""A worker, a scheduler's desk and a relay, all in memory, on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sendengine.channel.memory import DELIVERED, MemoryChannel
from sendengine.engine.settings import EngineSettings
from sendengine.engine.worker import Worker
from sendengine.intake import Intake
from sendengine.keyring import Keyring
from sendengine.policy.replies import ReplyRules
from sendengine.policy.tiers import interval_us
from sendengine.ports import Visited
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.records import decode_outcomes
from sendengine.render.message import Message, dump
from sendengine.sink.silent import SilentMeter
from sendengine.types import Attempt, Envelope, Outcome, Relay, Reply, Stage
from tests.engine.virtual import VirtualClock, virtual_loop

EPOCH = 1_795_000_000.0
MESSAGE = Message(sender="Shop <shop@example.com>", subject="Hi {{ name }}", text="Hello {{ name }}\n")
FIELDS = {"uid": "u1", "sender": "shop@example.com", "retry": "1m, 5m*2, 1h*3", "lifetime": "86400",
          "on_doubt": "resend", "max_doubt": "1", "retention": "604800"}  # fmt: skip


def replied(stage: Stage, code: int, text: str = "no") -> Attempt:
    return Attempt(stage, Reply(code, f"{code // 100}.0.0", text), None, 0.0, 0.0)


class Rig:
    """`log` holds (time, recipient) of each MAIL that the relay saw; `answer` decides what becomes of it."""

    def __init__(
        self, answer: Callable[[str], Attempt] | None = None, latency: float = 0.001, jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:  # fmt: skip
        self.loop = virtual_loop()
        self.store = MemoryStore()
        self.desk = MemoryDesk(self.store, self.now_us)
        self.answer = answer or (lambda recipient: DELIVERED)
        self.latency, self.jitter = latency, jitter
        self.log: list[tuple[float, str]] = []
        self.accepted: list[str] = []
        self.workers: dict[str, tuple[Worker, asyncio.Task[None], MemoryChannel]] = {}

    def now_us(self) -> float:
        return (EPOCH + self.loop.time()) * 1e6

    def _script(self, delivery: Envelope) -> Attempt:
        recipient = delivery.recipient.decode()
        self.log.append((self.loop.time() - self.latency, recipient))
        attempt = self.answer(recipient)
        if attempt.stage is Stage.DOT and (attempt.reply is None or attempt.reply.code < 400):
            self.accepted.append(recipient)  # it arrived, whatever we heard of it
        return attempt

    def start(self, name: str = "w1", settings: EngineSettings | None = None) -> Worker:
        clock = VirtualClock()
        channel = MemoryChannel(clock, self._script, sessions=20, latency=self.latency)
        queue = MemoryQueue(self.store, self.now_us)
        worker = Worker(
            queue, channel, SilentMeter(), ReplyRules([]), settings or EngineSettings(), name,
            lambda fields: Relay(fields.get("host", "relay.test")), self.loop.time, Keyring(), jitter=self.jitter,
        )  # fmt: skip
        self.workers[name] = (worker, self.loop.as_process(name, worker.run()), channel)
        return worker

    def count_visits(self, name: str = "w1") -> Callable[[], int]:
        """How many the worker has made since."""
        queue, made = self.workers[name][0]._queue, 0
        visit = queue.visit

        async def counting(*args: Any) -> Visited:
            nonlocal made
            made += 1
            return await visit(*args)

        queue.visit = counting  # type: ignore[method-assign]
        return lambda: made

    async def stop(self, name: str = "w1") -> None:
        worker, task, _ = self.workers.pop(name)
        worker.stop()
        await task

    def kill(self, name: str = "w1") -> Worker:
        """As kill -9 would: nothing more is read, written or said."""
        worker, task, channel = self.workers.pop(name)
        channel.is_closed = True
        worker.fail(asyncio.CancelledError())
        task.cancel()
        return worker

    async def account(self, account: str = "m1", per_hour: float | None = 36000.0, **fields: str) -> None:
        rate = "" if per_hour is None else str(per_hour)
        await self.desk.create_account(account, {"tier": "t", "rate": rate, "iv": interval_us(per_hour), **fields})

    async def submit(
        self, n: int, campaign: str = "c1", account: str = "m1", at: float | None = None, message: Message = MESSAGE,
        **fields: str,
    ) -> list[str]:  # fmt: skip
        """A sealed campaign of n recipients."""
        at_us = None if at is None else (EPOCH + at) * 1e6
        status = await self.desk.create(account, campaign, b"d", at_us, dump(message), {**FIELDS, **fields})
        assert status == "new"
        intake = Intake(("name",), salt=b"salt")
        names = [f"{campaign}-{i}@example.com" for i in range(n)]
        batches = 0
        for batch in intake.from_rows({"email": name, "name": f"N {i}"} for i, name in enumerate(names)):
            assert (await self.desk.submit(account, campaign, batch)).status == "stored"
            batches += 1
        assert (await self.desk.seal(account, campaign, batches)).status == "sealed"
        return names

    async def status(self, campaign: str = "c1", account: str = "m1") -> Mapping[str, str]:
        return await self.desk.campaign(account, campaign)

    async def until_ended(self, campaign: str = "c1", account: str = "m1", every: float = 0.1) -> Mapping[str, str]:
        """Waits in virtual time until every recipient has an outcome."""
        end = self.loop.time() + 7 * 86400
        while True:
            for _, task, _ in self.workers.values():
                if task.done():
                    task.result()
            fields = await self.status(campaign, account)
            if "finished" in fields:
                return fields
            assert self.loop.time() < end, dict(fields)
            await asyncio.sleep(every)

    async def outcomes(self, campaign: str = "c1", account: str = "m1") -> Counter[Outcome]:
        counted: Counter[Outcome] = Counter()
        for chunk in await self.desk.outcomes(account, campaign, "", 10**6):
            counted.update(record.outcome for record in decode_outcomes(chunk.records))
        return counted

    def times(self, prefix: str = "") -> list[float]:
        """MAIL times, in order."""
        return sorted(at for at, name in self.log if name.startswith(prefix))

    def most_in(self, seconds: float) -> int:
        """The most MAIL commands in any window of this length."""
        times, most, first = self.times(), 0, 0
        for last, at in enumerate(times):
            while times[first] < at - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


def number(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name, "0"))


__all__ = ["DELIVERED", "Rig", "msgspec", "number", "replied"]
