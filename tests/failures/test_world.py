"""Redis, the relay and the network break around healthy workers. Small trials of what `make chaos` does at length."""

from __future__ import annotations

import pytest

from tests.failures.forgetting import forgets_by_turns
from tests.failures.test_processes import holds
from tests.failures.world_faults import redis_cuts, redis_kills, relay_kills, smtp_cuts

pytestmark = pytest.mark.timeout(240)


async def test_redis_killed_with_workers_alive() -> None:
    assert holds(await redis_kills(seed=1, kills=2))


async def test_redis_forgets_with_workers_alive_and_then_with_them() -> None:
    assert holds(await forgets_by_turns(seed=1, kills=2, per_second=200))


async def test_connections_to_redis_cut_with_answers_under_way() -> None:
    assert holds(await redis_cuts(seed=1, cuts=2))


async def test_a_relay_killed_and_started_again() -> None:
    assert holds(await relay_kills(seed=3, kills=1))


async def test_sessions_cut_and_held_up() -> None:
    assert holds(await smtp_cuts(seed=1, cuts=2))


async def test_sessions_cut_with_trains_under_way() -> None:
    assert holds(await smtp_cuts(seed=1, cuts=2, per_second=600, together=5))
