"""The failure rig on a Redis of any form: the stage's own server stands idle, and workers and client speak to the one that is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Unavailable
from sendengine.trial.stage import Relay, Stage
from tests.failures.stage_rig import LIMIT, FailureRig


class RedisRig(FailureRig):
    """Its workers leave before their relay does, and the loop turns meanwhile: a proxy may be in it."""

    def __init__(self, stage: Stage, client: Client, relay: Relay) -> None:
        super().__init__(stage, client, relay)
        self._workers: list[Any] = []

    def start_workers(self, processes: int = 1, **environ: str) -> Any:
        self._workers.append(super().start_workers(processes, **environ))
        return self._workers[-1]

    async def stop_workers(self) -> None:
        await asyncio.to_thread(self.stage.stop, *self._workers)


@asynccontextmanager
async def redis_rig(url: str, *flags: str, config: Config | None = None) -> AsyncIterator[RedisRig]:
    with Stage() as stage:
        stage.url = url
        async with Client(url, config=config) as client:
            rig = RedisRig(stage, client, stage.relay(*flags))
            try:
                yield rig
            finally:
                await rig.stop_workers()


def logged(rig: FailureRig, event: str) -> list[dict[str, Any]]:
    """Lines of that kind that workers wrote so far (log_format json)."""
    lines = [line for path in sorted(Path(rig.stage.folder).glob("log-*")) for line in path.read_bytes().splitlines()]
    said = [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    return [line for line in said if line.get("event") == event]


async def until(holds: Callable[[], Any]) -> None:
    """Poll, bounded."""
    async with asyncio.timeout(LIMIT):
        while not holds():  # noqa: ASYNC110 - other processes make it hold
            await asyncio.sleep(0.05)


async def until_quiet(rig: FailureRig, seconds: float) -> int:
    """Wait until the relay has taken nothing for so long; what it has."""
    loop = asyncio.get_running_loop()
    seen, since = len(rig.ledger()), loop.time()
    async with asyncio.timeout(LIMIT):
        while loop.time() - since < seconds:
            await asyncio.sleep(0.05)
            now = len(rig.ledger())
            if now != seen:
                seen, since = now, loop.time()
    return seen


async def until_answered(rig: FailureRig) -> None:
    """The client, too, has found out that its connection was lost, and made another one."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await rig.client.desk.now_us()
                return
            except Unavailable:
                await asyncio.sleep(0.05)
