"""Whose rows a take finds: sends that only wait, however many, take nobody's place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from queue_bench import Bench, deferred, redis_bench, settlement
from redis import Redis

HOUR_MS = 3_600_000
MANY = 120  # more than a take has places


async def defer_all(bench: Bench) -> None:
    """What is READY is taken, and greylisted for an hour."""
    while leases := (await bench.take(tokens=200)).leases:
        await bench.settle(*(settlement(lease.token, deferred=deferred([0], HOUR_MS)) for lease in leases))


async def test_sends_that_wait_for_a_retry_take_nobodys_place(bench: Bench) -> None:
    await bench.account()
    for i in range(MANY):
        await bench.campaign(f"a{i:03}", 1)
    await defer_all(bench)
    await bench.campaign("z", 1)
    assert [lease.campaign for lease in (await bench.take(tokens=200)).leases] == ["z"]
    assert (await bench.take()).need_us > 0


async def test_open_sends_without_rows_take_nobodys_place(bench: Bench) -> None:
    await bench.account()
    for i in range(MANY):
        await bench.campaign(f"a{i:03}", sealed=False)
    await bench.campaign("z", 1)
    assert [lease.campaign for lease in (await bench.take(tokens=200)).leases] == ["z"]
    taken = await bench.take()
    assert (taken.need_us, taken.wake_us) == (-1, -1)


async def test_sends_of_which_there_is_enough_take_nobodys_place(bench: Bench) -> None:
    await bench.account()
    names = [f"a{i:03}" for i in range(MANY)]
    for name in (*names, "z"):
        await bench.campaign(name, 1)
    assert [lease.campaign for lease in (await bench.take(tokens=200, skip=names)).leases] == ["z"]


async def test_retries_that_are_due_are_found_behind_sends_with_rows(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("z", 1)
    [lease] = (await bench.take()).leases
    await bench.settle(settlement(lease.token, deferred=deferred([0], 0)))
    for i in range(MANY):
        await bench.campaign(f"a{i:03}", 1)
    taken = [lease.campaign for lease in (await bench.take(tokens=200)).leases]
    assert "z" in taken
    assert len(taken) == 101


async def test_a_paused_send_is_found_again_when_it_is_resumed(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 1)
    assert await bench.desk.pause("m1", "c") == "done"
    taken = await bench.take()
    assert (taken.need_us, taken.leases) == (-1, ())
    assert await bench.desk.resume("m1", "c") == "done"
    assert [lease.campaign for lease in (await bench.take()).leases] == ["c"]


async def test_the_least_served_send_is_taken_first(bench: Bench) -> None:
    await bench.account(per_hour=3600)
    for name in "abc":
        await bench.campaign(name, 300)
    await bench.visit(2, held=["a", "b"])
    assert [lease.campaign for lease in (await bench.take(1, tokens=3)).leases] == ["c", "a", "b"]


@pytest.fixture
def commands(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as redis:
        yield redis


async def test_a_take_asks_no_more_of_redis_when_sends_wait(redis_url: str, commands: Redis) -> None:
    """Commands that its script runs, beside 10 sends that wait and beside 1,000."""
    asked = []
    bench = redis_bench(redis_url)
    await bench.account()
    for first, last in (0, 10), (10, 1000):
        for i in range(first, last):
            await bench.campaign(f"a{i:04}", sealed=False)
        await bench.campaign(f"z{last}", 1)
        commands.config_resetstat()
        assert len((await bench.take()).leases) == 1
        asked.append(sum(stat["calls"] for stat in commands.info("commandstats").values()))
    await bench.queue.close()
    await bench.desk.close()
    assert asked[1] <= asked[0] + 2
