"""Workers are killed, stopped, frozen and steered in mid-send; afterwards nobody is lost, and repeats are only what was in doubt.

Small trials of what `make chaos` does at length.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.failures.account import Line
from tests.failures.process_faults import (
    cancelled_in_doubt,
    orphan,
    rescuers,
    slow_relay,
    steering,
    stops_without_redis,
    worker_kills,
    worker_stops,
    zombies,
)  # fmt: skip
from tests.failures.world_faults import redis_partitions

pytestmark = pytest.mark.timeout(240)


def holds(line: Line) -> bool:
    print(line)
    return not line.broken


async def test_workers_killed_in_mid_send() -> None:
    line = await worker_kills(seed=1, kills=10, per_second=200)
    assert holds(line)
    assert line.bound >= 10  # else most kills met nobody


async def test_workers_killed_in_mid_send_under_hold() -> None:
    line = await worker_kills(seed=2, kills=2, per_second=200, on_doubt="hold")
    assert holds(line)
    assert line.account.outcomes["unknown"] > 0


async def test_workers_killed_with_trains_under_way() -> None:
    assert holds(await worker_kills(seed=3, kills=3, per_second=400, together=5))


async def test_workers_told_to_stop_under_load() -> None:
    assert holds(await worker_stops(seed=1, stops=4))


async def test_workers_told_to_stop_while_redis_is_away_and_a_cancel_between_kills_and_the_takeover() -> None:
    lines = await asyncio.gather(stops_without_redis(seed=1, rounds=1), cancelled_in_doubt(seed=1, kills=2))
    assert [holds(line) for line in lines] == [True, True]


async def test_a_zombie_writes_nothing_whether_it_was_frozen_or_cut_off_from_redis() -> None:
    lines = await asyncio.gather(zombies(seed=1, times=1), redis_partitions(seed=1, times=1))
    assert [holds(line) for line in lines] == [True, True]


async def test_a_pause_and_a_cancel_act_within_a_second_though_workers_freeze_and_die() -> None:
    lines = await asyncio.gather(  # frozen most of the time
        steering(seed=1, rounds=2),
        steering(seed=1, rounds=2, per_second=None),
        steering(seed=2, rounds=1, per_second=None, together=5),
    )
    assert [holds(line) for line in lines] == [True, True, True]


async def test_orphaned_work_goes_on_within_30_s_and_who_waits_for_a_slow_relay_is_not_robbed() -> None:
    lines = await asyncio.gather(orphan(seed=1), slow_relay(seed=1, dot_s=5.0, n=40))  # both mostly wait
    assert [holds(line) for line in lines] == [True, True]


async def test_rescuers_killed_at_each_step_of_a_takeover() -> None:
    assert holds(await rescuers(seed=1, actions=("kill",)))
