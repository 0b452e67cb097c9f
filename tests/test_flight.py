"""Batches on their way: whatever ends a call that loads a list, each answer is counted, heard or not, and no task is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Unavailable
from sendengine.intake import PackedBatch
from sendengine.ports import Desk, Stored
from sendengine.scheduler import audit
from tests.test_client import MESSAGE, Bench, bench  # noqa: F401 - a fixture


class Slow:
    """A desk that stores each batch at once, and answers from batch `late` on only when it is let."""

    def __init__(self, desk: Desk, late: int, fails: bool = False) -> None:
        self._desk, self._late, self._fails = desk, late, fails
        self.let, self.stored = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)

    async def submit(self, account: str, campaign: str, batch: PackedBatch, **more: Any) -> Stored:
        answer = await self._desk.submit(account, campaign, batch, **more)
        if batch.number >= self._late:
            self.stored.set()
            await self.let.wait()
            if self._fails:
                raise Unavailable("its answer was lost")
        return answer


async def chunks() -> AsyncIterator[bytes]:
    yield b"email,name\n" + b"".join(b"p%d@x.org,A\n" % n for n in range(300))


async def loading(bench: Bench, slow: Slow) -> asyncio.Task[Any]:  # noqa: F811
    """An upload of three batches whose caller waits for an answer."""
    await bench.client.open(account="m1", message=MESSAGE, campaign="c", who="anna")
    desk: Any = slow
    client = await Client(desk=desk, config=Config()).__aenter__()
    task = asyncio.create_task(client.load("m1:c", chunks(), who="ben"))
    await slow.stored.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def ends(bench: Bench) -> list[dict[str, str]]:  # noqa: F811
    found: list[audit.Entry] = [each async for each in bench.client.audit("m1")]
    return [each.facts for each in found if each.what == "send.load"]


def submits() -> int:
    return sum("submit" in getattr(each.get_coro(), "__qualname__", "") for each in asyncio.all_tasks())


async def test_rows_whose_answer_comes_behind_a_cancellation_are_counted(bench: Bench) -> None:  # noqa: F811
    slow = Slow(bench.desk, late=0)
    task = await loading(bench, slow)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, slow.let.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await bench.client.status("m1:c")).rows == 100
    assert await ends(bench) == [{"send": "c", "added": "100"}]


async def test_rows_whose_answer_is_never_heard_are_told_beside_those_that_were_added(bench: Bench) -> None:  # noqa: F811
    slow = Slow(bench.desk, late=1, fails=True)
    task = await loading(bench, slow)
    slow.let.set()
    with pytest.raises(Unavailable, match="was lost"):
        await task
    assert (await bench.client.status("m1:c")).rows == 300
    assert await ends(bench) == [{"send": "c", "added": "100", "unheard": "200"}]


async def test_second_cancellation_leaves_no_task(bench: Bench) -> None:  # noqa: F811
    slow = Slow(bench.desk, late=1)
    task = await loading(bench, slow)
    assert submits() == 2
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert submits() == 0
    assert await ends(bench) == [{"send": "c", "added": "100", "unheard": "200"}]
