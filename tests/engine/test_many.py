"""Many slow accounts in one worker: each keeps its rate, and none costs a visit for every message or two."""

from __future__ import annotations

import asyncio
from collections import Counter

from sendengine.engine.settings import EngineSettings
from tests.engine.rig import Rig
from tests.engine.test_engine import virtual

PER_HOUR = 5000.0


@virtual
async def test_a_worker_that_stands_still_for_a_moment_costs_no_slow_account_a_permit() -> None:
    """What falls due in that moment is more than may be in doubt at once: it goes in turns, within its lapse."""
    rig = Rig()
    accounts = [f"m{1 + place}" for place in range(100)]
    for account in accounts:
        await rig.account(account, PER_HOUR)
        await rig.submit(200, account, account)
    rig.start(settings=EngineSettings(max_doubtful=25))
    await asyncio.sleep(10)
    begun = rig.loop.time()
    for _ in range(10):
        await asyncio.sleep(6)
        rig.loop.stand_still(0.25)
    counts = Counter(name.partition("-")[0] for at, name in rig.log if begun <= at < begun + 60)
    assert min(counts[account] for account in accounts) >= int(60 * PER_HOUR / 3600), counts
    await rig.stop()


@virtual
async def test_a_slow_account_is_visited_for_several_messages_at_once() -> None:
    rig = Rig()
    await rig.account(per_hour=PER_HOUR)
    await rig.submit(1000)
    rig.start()
    await asyncio.sleep(10)
    visits, before = rig.count_visits(), len(rig.log)
    await asyncio.sleep(60)
    assert visits() <= 0.25 * (len(rig.log) - before)
    await rig.stop()
