"""The cut of the append-only file itself: where it may be, and that the server loads what it leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from sendengine.queue import embedded
from tests.failures import aof

SET = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n"
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
STAMP = b"#TS:1700000000\r\n"


@pytest.mark.parametrize(("content", "ends"), [
    (b"", []),
    (SET, [len(SET)]),
    (SET + SET, [len(SET), 2 * len(SET)]),
    (STAMP + SET, [len(STAMP + SET)]),
    (SET + STAMP, [len(SET)]),
    (MULTI + SET + SET + EXEC, [len(MULTI + SET + SET + EXEC)]),
    (MULTI + SET + STAMP + SET, []),
    (SET + SET[:-1], [len(SET)]),
    (SET + SET[:5], [len(SET)]),
    (SET + MULTI + SET + EXEC[:-3], [len(SET)]),
])  # fmt: skip
def test_a_write_ends_where_its_transaction_ends(content: bytes, ends: list[int]) -> None:
    assert list(aof.writes(content)) == ends


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def kill(state: Path) -> None:
    """And its end awaited: `status` waits while the dying one holds its lock."""
    status = embedded.status(state)
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    assert embedded.status(state) is None


async def numbers(url: str) -> list[int]:
    async with Redis.from_url(url) as redis:
        return [int(value or 0) for value in await redis.mget("n", "m")]


async def count(url: str, to: int) -> None:
    """Each number into two keys, in one script: one write."""
    async with Redis.from_url(url) as redis:
        for n in range(1, to + 1):
            await redis.eval("redis.call('SET', 'n', ARGV[1]) redis.call('SET', 'm', ARGV[1])", 0, n)


async def test_the_last_writes_are_gone_and_the_others_stand(state: Path) -> None:
    url = embedded.ensure(state, ephemeral=True)
    try:
        await count(url, 10)
        await kill(state)
        assert aof.cut_last(state / "redis", 3) == 3
        assert await numbers(embedded.ensure(state, ephemeral=True)) == [7, 7]
    finally:
        embedded.stop(state)


async def test_what_came_behind_the_mark_is_gone(state: Path) -> None:
    url = embedded.ensure(state, ephemeral=True)
    try:
        await count(url, 4)
        then = aof.mark(state / "redis")
        await count(url, 6)
        await kill(state)
        assert aof.cut(then, state / "redis") == 6
        assert await numbers(embedded.ensure(state, ephemeral=True)) == [4, 4]
        await count(url, 5)
        await kill(state)
        across = aof.mark(state / "redis")
        assert aof.cut(aof.Mark(across.path, across.size - 1), state / "redis") == 1
        assert await numbers(embedded.ensure(state, ephemeral=True)) == [4, 4]
    finally:
        embedded.stop(state)
