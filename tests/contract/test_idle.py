"""What lets a burst worker leave: nothing of the account is due now, in retry or leased (queue/lua/need.lua)."""

from __future__ import annotations

from struct import pack

import pytest
from redis import Redis

from sendengine.process import is_idle
from sendengine.queue.redis import RedisQueue

PAST, FUTURE = 1.0, 4e15  # µs of Redis' clock
LEASE = b"\x01".ljust(13, b"\0") + pack("<IBd", 0, 0, 0.0) + b"\x01c" + b"\x01w"


@pytest.fixture
def redis(redis_url: str) -> Redis:
    redis = Redis.from_url(redis_url)
    redis.sadd("{x}:accounts", "m1", "m2")
    return redis


async def asked(url: str) -> bool:
    queue = RedisQueue(url)
    try:
        return await is_idle(queue)
    finally:
        await queue.close()


async def test_accounts_without_work_are_idle(redis: Redis, redis_url: str) -> None:
    assert await asked(redis_url)


async def test_send_scheduled_for_later_is_no_work(redis: Redis, redis_url: str) -> None:
    redis.zadd("{m2}:at", {"c": FUTURE})
    assert await asked(redis_url)


async def test_schedule_that_is_due_is_work(redis: Redis, redis_url: str) -> None:
    redis.zadd("{m2}:at", {"c": PAST})
    assert not await asked(redis_url)


async def test_retry_later_of_a_running_send_is_work(redis: Redis, redis_url: str) -> None:
    redis.zadd("{m2}:run", {"c": 0})
    redis.zadd("{m2}:c:c:w", {"0": FUTURE})
    redis.zadd("{m2}:again", {"c": FUTURE})
    assert not await asked(redis_url)


async def test_retry_of_a_transactional_message_is_work(redis: Redis, redis_url: str) -> None:
    redis.zadd("{m2}:c:transactional:w", {"0": FUTURE})
    assert not await asked(redis_url)


async def test_rows_of_a_paused_send_are_no_work(redis: Redis, redis_url: str) -> None:
    redis.xadd("{m2}:c:c:q0", {"m": b"\x01".ljust(13, b"\0")}, id="1-0")
    assert await asked(redis_url)


async def test_rows_of_a_running_send_are_work(redis: Redis, redis_url: str) -> None:
    redis.xadd("{m2}:c:c:q0", {"m": b"\x01".ljust(13, b"\0")}, id="1-0")
    redis.zadd("{m2}:run", {"c": 0})
    redis.zadd("{m2}:ready", {"c": 0})
    assert not await asked(redis_url)


async def test_lease_of_another_worker_is_work(redis: Redis, redis_url: str) -> None:
    redis.hset("{m2}:lease", mapping={b"token---": LEASE})
    assert not await asked(redis_url)
