"""What waits costs nobody anything: sends without work keep no other waiting, a paused one keeps no worker busy."""

from __future__ import annotations

import asyncio
import itertools

from sendengine.engine.takes import HUNGRY_AGAIN
from sendengine.render.message import dump
from sendengine.types import Attempt, Stage
from tests.engine.rig import DELIVERED, FIELDS, MESSAGE, Rig, replied
from tests.engine.test_engine import virtual


@virtual
async def test_three_hundred_sends_that_wait_keep_no_other_waiting() -> None:
    """Each has one recipient, greylisted for an hour, or none yet; the shares of those with work stay equal beside them."""
    seen: set[str] = set()

    def greylist(recipient: str) -> Attempt:
        if recipient.startswith("a") and recipient not in seen:
            seen.add(recipient)
            return replied(Stage.RCPT, 450)
        return DELIVERED

    rig = Rig(greylist)
    await rig.account(per_hour=72000)
    for i in range(150):
        await rig.submit(1, f"a{i:03}", retry="1h")
        await rig.desk.create("m1", f"b{i:03}", b"d", None, dump(MESSAGE), FIELDS)
    rig.start()
    await asyncio.sleep(60)
    asked = rig.loop.time()
    await rig.submit(100, "y")
    await rig.submit(100, "z")
    await asyncio.sleep(15)
    left = [name[0] for at, name in rig.log if at > asked]
    assert len(left) == 200
    assert abs(left[:100].count("y") - 50) <= 10
    await asyncio.sleep(3600)
    assert len(rig.accepted) == 350  # the greylisted ones had their second try
    await rig.stop()


@virtual
async def test_an_account_paused_with_a_message_on_the_wire_is_not_visited_over_and_over() -> None:
    rig = Rig(latency=100.0)
    await rig.account(per_hour=36000)
    await rig.submit(2000)
    rig.start()
    await asyncio.sleep(2)
    await rig.desk.pause("m1", "c1")
    await asyncio.sleep(1)
    visits = rig.count_visits()
    await asyncio.sleep(10)
    assert visits() <= 10 / HUNGRY_AGAIN  # no oftener than an account is looked at whose list is still being loaded
    assert rig.log == []  # its answers are still to come
    await rig.stop()


@virtual
async def test_a_list_without_a_rate_is_taken_in_time() -> None:
    """A take that finds nothing since enough is held says nothing of what is left."""
    rig = Rig(latency=0.0008)
    await rig.account(per_hour=None)
    await rig.submit(20_000)
    rig.start()
    await rig.until_ended()
    times = rig.times()
    assert len(times) == 20_000
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.03
    await rig.stop()
