"""Many slow accounts in one worker: each keeps its rate, and none costs a visit for every message or two."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from sendengine.engine.lane import Lane
from sendengine.engine.settings import EngineSettings
from sendengine.types import Attempt
from tests.engine.rig import DELIVERED, Rig
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


@pytest.mark.interpreted
@virtual
async def test_a_worker_that_fell_behind_looks_at_those_only_that_there_is_room_for() -> None:
    """Looking at each of those that wait in each tick, it would never catch up."""
    rig = Rig(latency=5.0)
    for place in range(200):
        await rig.account(f"m{1 + place}", 36000.0)
        await rig.submit(20, f"m{1 + place}", f"m{1 + place}")
    worker, looked = rig.start(settings=EngineSettings(max_doubtful=20)), 0
    use_permits = worker._use_permits

    def counting(lane: Lane, now: float, until: float) -> None:
        nonlocal looked
        looked += 1
        use_permits(lane, now, until)

    worker._use_permits = counting  # type: ignore[method-assign]
    await asyncio.sleep(20)
    assert len({name.partition("-")[0] for _, name in rig.log}) >= 60
    assert looked <= 2000  # of 200,000
    await rig.stop()


async def served(slow: int, fast: int, latency: Callable[[], float], settings: EngineSettings) -> Counter[str]:
    """By account, over half a minute: what slow ones (1 a second) and fast ones (10 a second) got of 20 sessions."""
    rig = Rig()
    rates = {f"m{1 + place}": 3600.0 if place < slow else 36000.0 for place in range(slow + fast)}
    for account, rate in rates.items():
        await rig.account(account, rate)
        await rig.submit(400, account, account)
    rig.start(settings=settings)
    channel = rig.workers["w1"][2]

    def answer(recipient: str) -> Attempt:
        channel.latency = latency()
        return DELIVERED

    rig.answer = answer
    await asyncio.sleep(30)
    await rig.stop()
    return Counter(name.partition("-")[0] for _, name in rig.log)


@virtual
async def test_accounts_that_share_too_few_sessions_get_equal_parts_of_them() -> None:
    """220 a second are due, 40 can go: in the order of their times alone the slow ones, always due a moment later, would get nothing."""
    counts = await served(20, 20, lambda: 0.5, EngineSettings())
    assert len(counts) == 40, counts
    assert min(counts.values()) >= 25, counts


@virtual
async def test_accounts_that_share_far_too_few_sessions_get_equal_parts_of_them() -> None:
    random = Random(1)
    counts = await served(20, 60, lambda: random.uniform(1.4, 2.6), EngineSettings())
    assert len(counts) == 80, counts
    assert min(counts.values()) >= 2, counts


@virtual
async def test_accounts_that_share_too_few_doubtful_get_equal_parts_of_them() -> None:
    """100 a second can go: the slow ones get all that they may, each fast one the same of the rest."""
    counts = await served(20, 20, lambda: 0.05, EngineSettings(max_doubtful=5))
    fast = sorted(counts[f"m{1 + place}"] for place in range(20, 40))
    assert min(counts[f"m{1 + place}"] for place in range(20)) >= 28, counts
    assert fast[0] >= 0.9 * fast[-1], counts


@virtual
async def test_an_account_far_slower_than_the_horizon_is_visited_a_few_times_a_message() -> None:
    rig = Rig()
    await rig.account(per_hour=360.0)
    await rig.submit(30)
    rig.start()
    await asyncio.sleep(30)
    visits, before = rig.count_visits(), len(rig.log)
    await asyncio.sleep(120)
    assert len(rig.log) - before == 12
    assert visits() <= 4 * 12
    await rig.stop()


@virtual
async def test_the_last_permits_of_a_send_bring_no_visits_while_they_wait_for_their_time() -> None:
    rig = Rig()
    await rig.account(per_hour=3600.0)
    await rig.submit(3)
    rig.start()
    await asyncio.sleep(0.1)
    visits = rig.count_visits()
    assert (await rig.until_ended())["sent"] == "3"
    assert visits() <= 8
    await rig.stop()
