"""Boosts: the account's clock turns at the times of its grants, whoever asks and whenever (domain 1.9, docs/design/009)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from queue_bench import Bench

from sendengine.policy.grants import Words, encode, grants_of
from sendengine.ports import Visited

PER_HOUR, INTERVAL = 36_000, 100_000.0
BOOSTED, QUICK = 360_000, 10_000.0
LONG = 5e6


def times(visited: Visited) -> list[float]:
    return [visited.now_us + visited.delay_us + at * visited.interval_us for at in range(visited.permits)]


async def boost(bench: Bench, start_s: float, end_s: float, per_hour: float = BOOSTED) -> tuple[int | None, float, float]:
    """A grant from and until so many seconds from now; its number, from and until in µs."""
    now = await bench.desk.now_us()
    start, end = now / 1e6 + start_s, now / 1e6 + end_s
    number = await bench.desk.boost("m1", encode(start, end, Words(per_hour, "ops", "", 0.0)))
    return number, round(start * 1e6), round(end * 1e6)


async def permits(bench: Bench, visits: int, want: int = 1000) -> list[float]:
    """When the next permits are due that so many visits in a row are given, 5 s ahead at most."""
    due: list[float] = []
    for _ in range(visits):
        due += times(await bench.visit(want, ["c"], horizon=LONG))
    return due


def gaps(due: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(due)]


@pytest.fixture
async def sending(bench: Bench) -> Bench:
    await bench.account(per_hour=PER_HOUR)
    await bench.campaign("c", 300)
    return bench


async def test_permits_turn_at_the_begin_and_the_end(sending: Bench) -> None:
    _, start, end = await boost(sending, 1.0, 2.0)
    due = await permits(sending, 3)
    before, within, after = ([at for at in due if at < start], [at for at in due if start <= at < end], [at for at in due if at >= end])
    assert gaps(before) == pytest.approx([INTERVAL] * (len(before) - 1), abs=1)
    assert gaps(within) == pytest.approx([QUICK] * (len(within) - 1), abs=1)
    assert gaps(after) == pytest.approx([INTERVAL] * (len(after) - 1), abs=1)
    assert len(within) == pytest.approx(100, abs=1)
    assert QUICK - 1 <= within[0] - before[-1] <= INTERVAL + 1
    assert after[0] - within[-1] == pytest.approx(INTERVAL, abs=1)


async def test_slow_account_is_fast_at_once_when_its_boost_begins(bench: Bench) -> None:
    await bench.account(per_hour=36)  # one in 100 s
    await bench.campaign("c", 300)
    await permits(bench, 1)
    _, start, _ = await boost(bench, 2.0, 3.0)
    due = await permits(bench, 2)
    assert due[0] == pytest.approx(start, abs=1)
    assert gaps(due) == pytest.approx([QUICK] * (len(due) - 1), abs=1)
    assert len(due) == 100


async def test_boost_of_now_cuts_what_was_granted(sending: Bench) -> None:
    granted = await permits(sending, 1)
    number, _, _ = await boost(sending, 0.0, 60.0)
    visited = await sending.visit(1000, ["c"], horizon=1e6)
    assert (number, visited.cut) == (1, 1)
    kept = [at for at in granted if at <= visited.cut_us]
    assert times(visited)[0] == pytest.approx(kept[-1] + QUICK, abs=1)


async def test_fastest_of_those_that_overlap_holds(sending: Bench) -> None:
    await boost(sending, 0.0, 60.0, per_hour=72_000)
    await boost(sending, 0.0, 60.0, per_hour=BOOSTED)
    await boost(sending, 0.0, 60.0, per_hour=18_000)  # slower than the tier: it changes nothing
    assert (await sending.visit(10, ["c"])).interval_us == QUICK


async def test_end_of_a_boost_before_its_time(sending: Bench) -> None:
    number, _, _ = await boost(sending, 0.0, 60.0)
    quick = await permits(sending, 1)
    assert number is not None
    assert await sending.desk.end_boost("m1", number)
    visited = await sending.visit(1000, ["c"], horizon=1e6)
    kept = [at for at in quick if at <= visited.cut_us]
    assert visited.interval_us == INTERVAL
    assert times(visited)[0] == pytest.approx(kept[-1] + INTERVAL, abs=1)
    assert not await sending.desk.end_boost("m1", number)


async def test_boost_withdrawn_before_it_begins_never_holds(sending: Bench) -> None:
    number, _, _ = await boost(sending, 1.0, 60.0)
    assert number is not None
    assert await sending.desk.end_boost("m1", number)
    between = gaps(await permits(sending, 2))
    assert between == pytest.approx([INTERVAL] * len(between), abs=1)
    assert len(between) >= 48


async def test_cut_across_a_turn_never_gives_the_same_time_twice(sending: Bench) -> None:
    """Permits of both speeds are out when the cut comes, before the turn: no gap is shorter than the faster speed's."""
    await boost(sending, 1.0, 60.0)
    granted = await permits(sending, 2)
    assert await sending.desk.pause("m1", "c") == "done"
    assert await sending.desk.resume("m1", "c") == "done"
    visited = await sending.visit(1000, ["c"], horizon=LONG)
    kept = [at for at in granted if at <= visited.cut_us]
    due = [*kept, *times(visited)]
    assert min(gaps(due)) >= QUICK - 1
    assert times(visited)[0] - kept[-1] <= 2 * INTERVAL


async def test_numbers_go_on_and_what_people_said_is_kept(sending: Bench) -> None:
    await boost(sending, 0.0, 60.0)
    await boost(sending, 10.0, 20.0)
    found = grants_of(await sending.desk.account("m1"))
    assert [(each.number, each.rate, each.words.who) for each in found] == [(1, BOOSTED, "ops"), (2, BOOSTED, "ops")]


async def test_boost_under_a_key_is_granted_once_and_its_key_forgotten_with_it(sending: Bench) -> None:
    now = await sending.desk.now_us() / 1e6
    grant = encode(now, now + 60, Words(BOOSTED, "ops", "", 0.0))
    given = [await sending.desk.boost("m1", grant, key="a key", digest=digest) for digest in ("d", "d", "other")]
    assert given == [1, 1, 0]
    assert await sending.desk.boost("m1", grant, key="another", digest="d") == 2
    assert len(grants_of(await sending.desk.account("m1"))) == 2
    old = encode(now - 40 * 86400, now - 35 * 86400, Words(BOOSTED, "ops", "", 0.0))
    assert await sending.desk.boost("m1", old, key="old", digest="d") == 3
    fields = await sending.desk.account("m1")
    assert {name for name in fields if name.startswith("boosted:")} == {"boosted:a key", "boosted:another"}


async def test_boost_of_nobody(bench: Bench) -> None:
    assert await bench.desk.boost("m9", encode(0, 1, Words(1.0, "", "", 0.0))) is None
    assert not await bench.desk.end_boost("m9", 1)


async def test_unmetered_tier_keeps_its_grants_for_later(sending: Bench) -> None:
    await boost(sending, 0.0, 60.0)
    await sending.desk.set_rate("m1", "unmetered", None)
    assert (await sending.visit(10, ["c"])).interval_us == 0.0
    await sending.desk.set_rate("m1", "t", PER_HOUR)
    assert (await sending.visit(10, ["c"])).interval_us == QUICK
