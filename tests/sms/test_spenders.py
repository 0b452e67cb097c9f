"""Many spend one account's credits at once, while workers and Redis are killed: what was granted is spent to the last, and no more."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import Any

import orjson
import pytest

from sendengine.client import Client
from sendengine.errors import RefusedInput, Unavailable
from sendengine.lanes import sms_lane
from sendengine.queue import embedded
from sendengine.trial.stage import Stage

SPENDERS, GRANTED, EACH = 64, 1000, 4
TRIES = 60
ENVIRON = {"SENDENGINE_ENGINE_DEAD_AFTER_S": "2", "SENDENGINE_ENGINE_SETTLE_S": "0.5"}


async def surely(act: Any) -> Any:
    """The same call until Redis has taken it."""
    for _ in range(TRIES):
        try:
            return await act()
        except Unavailable:
            await asyncio.sleep(0.3)
    raise AssertionError("Redis did not come back")


async def spend(url: str, spender: int) -> int:
    """Sends of four until they are too dear, over a connection of its own; how many were accepted."""
    async with Client(url) as client:
        return await spend_over(client, spender)


async def spend_over(client: Client, spender: int) -> int:
    made = 0
    while True:
        rows = [{"phone": f"+1415{spender:03}{made:02}{at:02}"} for at in range(EACH)]
        name = f"s{spender}-{made}"
        try:
            await surely(
                lambda name=name, rows=rows: client.submit_sms(account="m1", sender="ACME", text="hi", recipients=rows, campaign=name)
            )
        except RefusedInput as refused:
            if "are free" not in str(refused):
                raise
            await surely(lambda name=name: client.cancel(name))
            return made
        made += 1


async def watch(client: Client, seen: list[dict[str, float]]) -> None:
    """The balance, over and over: at no time below zero, at no time more than was granted."""
    while True:
        try:
            found = await client.credits("m1")
        except Unavailable:
            await asyncio.sleep(0.1)
            continue
        sums = {name: getattr(found, name) for name in ("reserved", "spent", "free")}
        assert min(sums.values()) >= 0
        assert sum(sums.values()) == found.granted == GRANTED
        seen.append(sums)
        await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
async def test_64_spenders_with_kills_of_workers_and_of_redis_spend_exactly_what_was_granted() -> None:
    chance = random.Random(5)
    with Stage() as stage:
        centre = stage.start(
            sys.executable, "-m", "sendengine", "smsc", "--port", "0", "--ledger", str(stage.folder / "sms"), "--delay", "0.05",
            "--reject", "0x0b%0.2",
        )  # fmt: skip
        port = orjson.loads(stage._first_line(centre))["listening"].rpartition(":")[2]
        table = stage.folder / "providers.toml"
        table.write_text(f'[trial]\nkind = "smpp"\nhost = "127.0.0.1"\nport = {port}\nsystem_id = "x"\n')
        environ = ENVIRON | {"SENDENGINE_PROVIDERS_FILE": str(table)}
        async with Client(stage.url) as client:
            await client.create_account("m1", "60k")
            await client.set_sms("m1", rate="360k")
            await client.grant_credits("m1", GRANTED, key="order")
            stage.worker("-p", "2", environ=environ)
            seen: list[dict[str, float]] = []
            watching = asyncio.create_task(watch(client, seen))
            spending = asyncio.gather(*(spend(stage.url, at) for at in range(SPENDERS)))
            for _ in range(3):
                await asyncio.sleep(chance.uniform(0.3, 0.8))
                await _kill_a_worker(client)
                await asyncio.sleep(chance.uniform(0.2, 0.5))
                await restart_redis(stage)
            made = await spending
            assert sum(made) * EACH == GRANTED
            async with asyncio.timeout(90):
                while (await surely(lambda: client.credits("m1"))).spent < GRANTED:  # noqa: ASYNC110 - other processes spend
                    await asyncio.sleep(0.2)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            found = await client.credits("m1")
            assert (found.spent, found.reserved, found.free) == (GRANTED, 0, 0)
            assert [finding async for finding in client.fsck()] == []
            assert len(seen) > 20
            lines = [orjson.loads(line) for line in (stage.folder / "sms").read_bytes().splitlines() if line.endswith(b"}")]
            assert len({line["to"] for line in lines}) == GRANTED
            moves = [move async for move in client.credit_history("m1")]
            assert sum(move.credits for move in moves if move.kind == "spend") == GRANTED
            assert await client.desk.accounts() == ["m1", sms_lane("m1")]


async def _kill_a_worker(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                pids = [said["pid"] for said in (await client.workers()).values() if said.get("accounts") and said["silent_s"] < 5]
            except Unavailable:
                pids = []
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                    return
                except ProcessLookupError:
                    continue
            await asyncio.sleep(0.1)


async def restart_redis(stage: Stage) -> None:
    status = await asyncio.to_thread(embedded.status, stage.folder)
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(embedded.ensure, stage.folder, True)
