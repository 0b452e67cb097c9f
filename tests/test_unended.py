"""When a list counts as ended (docs/design/022): a seal without a number of rows is refused while one that was begun has not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Conflict, RefusedInput, Unavailable
from sendengine.intake import PackedBatch
from sendengine.ports import Desk, Stored
from tests.test_client import MESSAGE, Bench, bench  # noqa: F401 - a fixture
from tests.test_loading import ndjson, pieces

WHOLE = range(1200)


class Dying:
    """A desk whose caller dies at a batch: behind it nothing is heard of the call, nor told of it."""

    def __init__(self, desk: Desk, at: int) -> None:
        self._desk, self._at, self._is_dead = desk, at, False

    def __getattr__(self, name: str) -> Any:
        if self._is_dead and name not in ("close", "campaign"):
            return self._away
        return getattr(self._desk, name)

    async def submit(self, account: str, campaign: str, batch: PackedBatch, **more: Any) -> Stored:
        if self._is_dead or batch.number >= self._at:
            self._is_dead = True
            return await self._away()
        return await self._desk.submit(account, campaign, batch, **more)

    async def _away(self, *_: object, **__: object) -> Any:
        raise Unavailable("dead")


async def upload(bench: Bench, first: int, until: int, start: int | None = None) -> None:  # noqa: F811
    """Batches of the whole list, from one on until another; `start`: other rows, that stand from there on in no list."""
    rows = range(first * 100 if start is None else start, (until * 100) if start is None else start + 100 * (until - first))
    await bench.client.load("m1:c", pieces(ndjson(rows), 50_000), first_batch=first)


async def broken(bench: Bench, first: int, at: int) -> None:  # noqa: F811
    """An upload whose process was killed at a batch."""
    desk: Any = Dying(bench.desk, at)
    async with Client(desk=desk, config=Config()) as client:
        with pytest.raises(Unavailable):
            await client.load("m1:c", pieces(ndjson(WHOLE[first * 100 :]), 50_000), first_batch=first)


async def is_ended(bench: Bench) -> bool:  # noqa: F811
    """Who names the number of rows seals it in any case."""
    said = ""
    try:
        await bench.client.seal("m1:c")
    except Conflict as refused:
        said = str(refused)
    assert ("has not ended" in said) == bool(said)
    stands = (await bench.client.status("m1:c")).rows
    assert (await bench.client.seal("m1:c", rows=stands)).sealed
    return not said


LIVES: dict[str, tuple[bool, list[tuple[Any, ...]]]] = {
    "repeated whole": (True, [(broken, 0, 7), (upload, 0, 12)]),
    "repeated whole, and it was all": (True, [(broken, 0, 7), (upload, 0, 7)]),
    "gone on where it stood": (True, [(broken, 0, 7), (upload, 7, 12)]),
    "gone on before where it stood": (True, [(broken, 0, 7), (upload, 5, 12)]),
    "gone on twice": (True, [(broken, 0, 3), (broken, 3, 7), (upload, 7, 12)]),
    "gone on, and that repeated": (True, [(broken, 0, 3), (broken, 3, 7), (upload, 3, 12)]),
    "broken twice, gone on": (True, [(broken, 0, 7), (broken, 0, 5), (upload, 7, 12)]),
    "a part before its first batch, repeated": (True, [(upload, 0, 3), (broken, 3, 3), (upload, 3, 5)]),
    "a part before its first batch, covered by a longer one": (True, [(upload, 0, 3), (broken, 3, 3), (upload, 0, 5)]),
    "a part that had ended, repeated, broken, repeated": (True, [(upload, 0, 3), (upload, 3, 7), (broken, 0, 2), (upload, 0, 3)]),
    "broken": (False, [(broken, 0, 7)]),
    "a part before its first batch": (False, [(upload, 0, 3), (broken, 3, 3)]),
    "the first one, before its first batch": (False, [(upload, 0, 3), (broken, 0, 0)]),
    "a part before its first batch, the one before repeated": (False, [(upload, 0, 3), (broken, 3, 3), (upload, 0, 3)]),
    "a part, the one before repeated": (False, [(upload, 0, 3), (broken, 3, 7), (upload, 0, 3)]),
    "a shorter one in its place": (False, [(broken, 0, 7), (upload, 0, 3)]),
    "gone on, and that broke, too": (False, [(broken, 0, 3), (broken, 3, 7)]),
    "gone on, and the one before repeated": (False, [(broken, 0, 3), (broken, 3, 7), (upload, 0, 3)]),
    "gone on, repeated whole, broken": (False, [(broken, 0, 5), (upload, 5, 7), (broken, 0, 6)]),
    "gone on, repeated whole, broken, the part repeated": (False, [(broken, 0, 5), (upload, 5, 7), (broken, 0, 6), (upload, 5, 7)]),
}


@pytest.mark.parametrize("life", LIVES)
async def test_life_of_lists(bench: Bench, life: str) -> None:  # noqa: F811
    ends, steps = LIVES[life]
    await bench.client.open(account="m1", message=MESSAGE, campaign="c")
    for step, *args in steps:
        await step(bench, *args)
    assert (await is_ended(bench)) == ends


@pytest.mark.parametrize(
    ("octets", "first"),
    [(b"name\nA\n", 3), (b"", 3), (ndjson([7000]), 0), (ndjson(range(400)), 0), (ndjson([7000]), 9), (b"email,name\n", 3)],
)
async def test_refused_list_that_stored_nothing_leaves_no_mark(bench: Bench, octets: bytes, first: int) -> None:  # noqa: F811
    await bench.client.open(account="m1", message=MESSAGE, campaign="c")
    await upload(bench, 0, 3)
    with suppress(RefusedInput):
        await bench.client.load("m1:c", pieces(octets), first_batch=first)
    assert await is_ended(bench)


async def test_refusal_leaves_the_mark_of_the_list_that_broke_there(bench: Bench) -> None:  # noqa: F811
    await bench.client.open(account="m1", message=MESSAGE, campaign="c")
    await upload(bench, 0, 3)
    await broken(bench, 3, 3)
    with pytest.raises(RefusedInput):
        await bench.client.load("m1:c", pieces(b"name\nA\n"), first_batch=3)
    assert not await is_ended(bench)


async def test_list_that_was_refused_behind_rows_of_its_own_has_not_ended(bench: Bench) -> None:  # noqa: F811
    await bench.client.open(account="m1", message=MESSAGE, campaign="c")

    async def damaged() -> AsyncIterator[bytes]:
        yield ndjson(WHOLE)
        raise RefusedInput("its end cannot be read")

    with pytest.raises(RefusedInput, match="its end"):
        await bench.client.load("m1:c", damaged())
    assert (await bench.client.status("m1:c")).rows
    assert not await is_ended(bench)


@pytest.mark.parametrize("at", [3, 7])
async def test_submit_to_a_standing_send_that_was_killed_has_not_ended(bench: Bench, at: int) -> None:  # noqa: F811
    rows = [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in WHOLE]
    await bench.client.open(account="m1", message=MESSAGE, campaign="c")
    await upload(bench, 0, 3)
    desk: Any = Dying(bench.desk, at)
    async with Client(desk=desk, config=Config()) as client:
        with pytest.raises(Unavailable):
            await client.submit(account="m1", message=MESSAGE, recipients=rows, campaign="c")
    with pytest.raises(Conflict, match="has not ended"):
        await bench.client.seal("m1:c")
    await upload(bench, at, 12)
    assert await is_ended(bench)
