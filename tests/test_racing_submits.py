"""Several callers load lists under one campaign id at the same moment: what is sealed is the whole list of one of them, never a mix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import orjson
import pytest

from sendengine.batch import unpack
from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Conflict
from sendengine.intake import PackedBatch
from sendengine.ports import Desk, Stored
from sendengine.scheduler.loading import Loaded
from sendengine.scheduler.status import Send
from tests import chance
from tests.test_client import MESSAGE, Bench, bench  # noqa: F401 - a fixture

ROUNDS = 25


class Reluctant:
    """A desk whose submits come after turns of the loop that chance draws: two callers meet in another order each time."""

    def __init__(self, desk: Desk, random: Random) -> None:
        self._desk, self._random = desk, random

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)

    async def submit(self, account: str, campaign: str, batch: PackedBatch, **more: Any) -> Stored:
        await self._dawdle()
        try:
            return await self._desk.submit(account, campaign, batch, **more)
        finally:
            await self._dawdle()

    async def _dawdle(self) -> None:
        for _ in range(self._random.randrange(12)):
            await asyncio.sleep(0)


def people(numbers: range | list[int]) -> list[dict[str, str]]:
    return [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in numbers]


def changed(rows: list[dict[str, str]], random: Random) -> list[dict[str, str]]:
    """The same list, but for one row, or longer, or shorter."""
    if random.random() < 0.3:
        return rows[: random.randrange(1, len(rows))]
    if random.random() < 0.3:
        return rows + people(range(90_000, 90_000 + random.randrange(1, 250)))
    at = random.randrange(len(rows))
    return rows[:at] + people([80_000]) + rows[at + 1 :]


async def loaded(desk: Desk, campaign: str) -> list[str]:
    """The recipients that stand there, in their order."""
    count = int((await desk.campaign("m1", campaign))["batches"])
    found = await desk.batches("m1", campaign, range(count))
    return [name for each in found if each is not None for name in unpack(each[1]).recipients]


async def calls_of(bench: Bench, lists: list[list[dict[str, str]]], campaign: str, random: Random) -> list[Send | BaseException]:  # noqa: F811
    """What each caller of a list is answered."""

    async def call(rows: list[dict[str, str]]) -> Send:
        desk: Any = Reluctant(bench.desk, random)
        async with Client(desk=desk, config=Config()) as client:
            return await client.submit(account="m1", message=MESSAGE, recipients=rows, campaign=campaign)

    return await asyncio.gather(*map(call, lists), return_exceptions=True)


@pytest.mark.timeout(120)
async def test_sealed_list_is_the_whole_list_of_one_caller(bench: Bench) -> None:  # noqa: F811
    seed = chance.seed(10**6)
    random = Random(seed)
    for number in range(ROUNDS):
        rows = people(range(random.randrange(1, 2500)))
        lists = [rows, changed(rows, random)]
        answers = await calls_of(bench, lists, f"c{number}", random)
        stands = await loaded(bench.desk, f"c{number}")
        taken = [[row["email"] for row in each] for each, answer in zip(lists, answers, strict=True) if isinstance(answer, Send)]
        assert taken == [stands], (seed, number, answers)
        [refused] = [answer for answer in answers if not isinstance(answer, Send)]
        assert isinstance(refused, Conflict)
        assert "first that differs is row" in str(refused)


@pytest.mark.timeout(120)
async def test_same_list_of_several_callers_is_taken_from_all(bench: Bench) -> None:  # noqa: F811
    random = Random(seed := chance.seed(10**6))
    for number in range(5):
        rows = people(range(random.randrange(1, 2500)))
        answers = await calls_of(bench, [rows] * 3, f"c{number}", random)
        added = [answer.added for answer in answers if isinstance(answer, Send)]
        assert (len(added), sum(added)) == (3, len(rows)), (seed, answers)


@pytest.mark.timeout(120)
async def test_uploads_at_the_same_moment_leave_one_list(bench: Bench) -> None:  # noqa: F811
    random = Random(seed := chance.seed(10**6))

    async def upload(campaign: str, rows: list[dict[str, str]]) -> Loaded:
        async def chunks() -> AsyncIterator[bytes]:
            for row in rows:
                yield orjson.dumps(row) + b"\n"

        desk: Any = Reluctant(bench.desk, random)
        async with Client(desk=desk, config=Config()) as client:
            return await client.load(f"m1:{campaign}", chunks())

    for number in range(5):
        await bench.client.open(account="m1", message=MESSAGE, campaign=f"c{number}")
        rows = people(range(1000))
        at = random.randrange(1000)
        lists = [rows, rows[:at] + people([80_000]) + rows[at + 1 :]]
        answers = await asyncio.gather(*(upload(f"c{number}", each) for each in lists), return_exceptions=True)
        [taken] = [each for each, answer in zip(lists, answers, strict=True) if isinstance(answer, Loaded)]
        assert await loaded(bench.desk, f"c{number}") == [row["email"] for row in taken], seed
        assert (await bench.client.seal(f"m1:c{number}")).accepted == 1000  # whoever came last: the list that stands has ended
