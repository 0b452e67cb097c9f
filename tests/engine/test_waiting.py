"""What waits costs nobody anything: a paused account keeps no worker busy."""

from __future__ import annotations

import asyncio
from typing import Any

from sendengine.engine.takes import HUNGRY_AGAIN
from sendengine.ports import Visited
from tests.engine.rig import Rig
from tests.engine.test_engine import virtual


@virtual
async def test_an_account_paused_with_a_message_on_the_wire_is_not_visited_over_and_over() -> None:
    rig = Rig(latency=100.0)
    await rig.account(per_hour=36000)
    await rig.submit(2000)
    worker = rig.start()
    visit, visits = worker._queue.visit, 0

    async def counting(*args: Any) -> Visited:
        nonlocal visits
        visits += 1
        return await visit(*args)

    worker._queue.visit = counting  # type: ignore[method-assign]
    await asyncio.sleep(2)
    await rig.desk.pause("m1", "c1")
    await asyncio.sleep(1)
    visits = 0
    await asyncio.sleep(10)
    assert visits <= 10 / HUNGRY_AGAIN  # no oftener than an account is looked at whose list is still being loaded
    assert rig.log == []  # its answers are still to come
    await rig.stop()
