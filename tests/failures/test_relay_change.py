"""An account gets another relay in mid-send: what follows goes there, and nobody is lost or mailed twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from sendengine.trial.stage import Relay
from sendengine.wiring import relay_from_url
from tests.failures.stage_rig import ACCOUNT, LIMIT, FailureRig, failure_rig

pytestmark = pytest.mark.timeout(150)


def lines(relay: Relay) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in relay.ledger.read_bytes().splitlines()]


async def change(rig: FailureRig) -> Relay:
    other = rig.stage.relay()
    await rig.client.set_relay(ACCOUNT, relay_from_url(other.url, "", "none"))
    return other


async def test_another_relay_in_mid_send() -> None:
    async with failure_rig("--delay", "dot=0.05") as rig:
        campaign = await rig.submit(1500, per_hour=540_000)
        rig.start_workers(2)
        await rig.until_sent(200)
        other = await change(rig)
        before = len(rig.ledger())  # on a slow machine some more than 200
        status = await rig.until_ended(campaign)
        first, rest = rig.ledger(), lines(other)
    assert (status.sent, status.pending) == (1500, 0)
    assert Counter(line["rcpt_to"] for line in [*first, *rest]) == Counter(rig.names)
    assert len(first) < before + 300, "two seconds' worth after the change"


async def test_another_relay_when_the_first_is_dead() -> None:
    async with failure_rig() as rig:
        campaign = await rig.submit(600, per_hour=540_000)
        rig.start_workers(1)
        await rig.until_sent(100)
        rig.stage.stop(rig.relay.process)
        async with asyncio.timeout(LIMIT):
            async for status in rig.client.watch(campaign, every=0.1):
                if status.binding is not None and status.binding.limit == "site":
                    break
        other = await change(rig)
        status = await rig.until_ended(campaign)
        seen = Counter(line["rcpt_to"] for line in [*rig.ledger(), *lines(other)])
        doubts = sum((await rig.client.desk.standing(ACCOUNT, "c")).doubts.values())
    assert (status.sent, status.pending) == (600, 0)
    assert set(seen) == set(rig.names)
    assert sum(seen.values()) - len(seen) <= doubts
