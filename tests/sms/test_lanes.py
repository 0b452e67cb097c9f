"""Two lanes of one account: each has its own clock, so neither is slower for the other. On virtual time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sendengine.intake import Intake
from sendengine.policy.tiers import interval_us
from sendengine.queue.memory import MemoryStore
from sendengine.render.message import Message, dump
from tests.engine.rig import FIELDS, MESSAGE, Rig
from tests.engine.test_engine import virtual

LANE = "m1/sms"


def rate_of(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0])


async def open_lane(rig: Rig, lane: str, per_hour: float) -> None:
    fields = {"tier": "t", "rate": str(per_hour), "iv": interval_us(per_hour), "host": lane.replace("/", ".")}
    assert await rig.desk.create_account(lane, fields | ({"channel": "sms"} if lane == LANE else {}))


async def load(rig: Rig, lane: str, n: int) -> None:
    is_sms = lane == LANE
    message = Message(sender="ACME", text="Hi {{ name }}") if is_sms else MESSAGE
    fields = FIELDS | ({"channel": "sms", "sender": "ACME"} if is_sms else {})
    await rig.desk.create(lane, lane.replace("/", "-"), b"d", None, dump(message), fields)
    if is_sms:
        await rig.desk.grant_credits(lane, "k", n * 1000, 1e15, 4e15, "", "")
    rows = [{"email": f"{lane.replace('/', '.')}-{at}@example.com", "name": f"N{at}"} for at in range(n)]
    for batch in Intake(("name",), salt=b"s").from_rows(rows):
        priced = msgspec.structs.replace(batch, prices=(1000).to_bytes(4, "little") * len(batch.positions)) if is_sms else batch
        assert (await rig.desk.submit(lane, lane.replace("/", "-"), priced)).status == "stored"
    assert (await rig.desk.seal(lane, lane.replace("/", "-"), (n + 99) // 100)).status == "sealed"


async def times_of(sms_per_hour: float) -> tuple[list[float], list[float]]:
    """When each mail and each SMS went; 0: there are none of these."""
    rig = Rig()
    start = rig.loop.time()
    await open_lane(rig, "m1", 36_000.0)
    await load(rig, "m1", 600)
    if sms_per_hour:
        await open_lane(rig, LANE, sms_per_hour)
        await load(rig, LANE, int(sms_per_hour / 60))
    rig.start()
    await asyncio.sleep(70.0)
    await rig.stop()
    ended = [(at - start, who) for at, who in rig.log]
    return [at for at, who in ended if who.startswith("m1-")], [at for at, who in ended if who.startswith("m1.sms-")]


@virtual
async def test_rate_of_mail_is_the_same_with_sms_and_without() -> None:
    alone, _ = await times_of(0.0)
    assert rate_of(alone) == pytest.approx(10.0, rel=0.01)
    for sms_per_hour in (3_600.0, 72_000.0, 360_000.0):
        beside, sms = await times_of(sms_per_hour)
        assert len(alone) == len(beside) == 600
        assert len(sms) == int(sms_per_hour / 60)
        assert rate_of(beside) == pytest.approx(rate_of(alone), rel=0.01)
        assert rate_of(sms) == pytest.approx(sms_per_hour / 3600, rel=0.01)


def test_lanes_stand_beside_each_other_in_the_store() -> None:
    store = MemoryStore()
    assert store.money_of(LANE) is None
    assert store.money_of("m1") is None
