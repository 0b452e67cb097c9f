"""Credits that billing sells, brought again and again and out of order over many connections while Redis is killed: one lot each."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from itertools import cycle

import msgspec
import orjson
import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.policy.billing import HEADER, sign
from sendengine.trial.stage import Stage
from tests.sms.test_spenders import restart_redis, surely

EVENTS, TIMES, CONNECTIONS, KILLS = 160, 3, 8, 3
SECRET = b"a secret of thirty-two characters"


async def bring(client: Client, raw: bytes) -> None:
    """As the platform does: signed anew each time, until there is an answer."""
    await surely(lambda: client.apply_event(raw, {HEADER: sign(raw, [SECRET], time.time())}))


@pytest.mark.timeout(120)
async def test_credits_that_are_sold_while_redis_is_killed_are_one_lot_each() -> None:
    draw = random.Random(7)
    amounts = [draw.randint(1, 5000) for _ in range(EVENTS)]
    head = {"account": "m1", "at": "2026-11-27T10:00:00Z", "type": "credits.purchased"}
    events = [orjson.dumps({**head, "id": f"evt_{at + 1}", "sequence": at + 1, "credits": n}) for at, n in enumerate(amounts)]
    places = sorted((at + draw.uniform(0, 60), raw) for at, raw in enumerate(events) for _ in range(TIMES))
    with Stage() as stage:
        (stage.folder / "secrets").write_bytes(SECRET + b"\n")
        config = msgspec.structs.replace(Config(), billing_secrets_file=str(stage.folder / "secrets"))
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(stage.url, config=config)) for _ in range(CONNECTIONS)]
            await clients[0].create_account("m1", "60k")
            turns = cycle(clients)
            part = len(places) // (KILLS + 1)
            for begin in range(0, len(places), part):
                bringing = asyncio.gather(*(bring(next(turns), raw) for _, raw in places[begin : begin + part]))
                if begin + part <= KILLS * part:
                    await restart_redis(stage)  # in the midst of them
                await bringing
                found = await clients[0].credits("m1")
                assert [lot.granted for lot in found.lots] == amounts[: len(found.lots)], "each once, in their order"
            account = await clients[0].account("m1")
            assert (account.billing_sequence, account.billing_waits, account.credits) == (EVENTS, None, sum(amounts))
            assert len(found.lots) == EVENTS
            moves = [move async for move in clients[0].credit_history("m1")]
            assert [(move.kind, move.credits, move.why) for move in moves] == [
                ("grant", n, f"evt_{at + 1}") for at, n in enumerate(amounts)
            ]
            trail = [line.facts["event"] async for line in clients[0].audit("m1") if line.what != "account.create"]
            assert trail == [f"evt_{at + 1}" for at in range(EVENTS)]
            assert [finding async for finding in clients[0].fsck()] == []
