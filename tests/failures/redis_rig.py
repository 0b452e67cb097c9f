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
from sendengine.trial.stage import Stage
from tests.failures.rig import LIMIT, FailureRig


@asynccontextmanager
async def redis_rig(url: str, *flags: str, config: Config | None = None) -> AsyncIterator[FailureRig]:
    with Stage() as stage:
        stage.url = url
        relay = stage.relay(*flags)
        async with Client(url, config=config) as client:
            yield FailureRig(stage, client, relay)


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
