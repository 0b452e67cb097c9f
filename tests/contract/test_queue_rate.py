"""Permits: one clock an account, exact over any horizon and any number of workers; cuts; the deal (domain 1, design 3.2)."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_bench import HORIZON, Bench, ManualClock, memory_bench

from sendengine.ports import Visited

PER_HOUR = 36_000  # 10 a second
INTERVAL = 100_000.0


def times(visited: Visited) -> list[float]:
    """When its permits are due, Redis µs."""
    return [visited.now_us + visited.delay_us + at * visited.interval_us for at in range(visited.permits)]


async def sending(bench: Bench, per_hour: float | None = PER_HOUR, *names: str) -> None:
    await bench.account(per_hour=per_hour)
    for name in names or ("c",):
        await bench.campaign(name, 300)


async def test_permits_are_evenly_spaced_up_to_the_horizon(bench: Bench) -> None:
    await sending(bench)
    visited = await bench.visit(100, ["c"])
    assert (visited.permits, visited.delay_us, visited.interval_us) == (11, -10_000.0, INTERVAL)
    again = await bench.visit(100, ["c"])
    due = [*times(visited), *times(again)]
    assert due == pytest.approx([due[0] + at * INTERVAL for at in range(len(due))], abs=1)
    assert due[-1] <= again.now_us + HORIZON


async def test_no_more_permits_than_wanted_and_none_for_nobody(bench: Bench) -> None:
    await sending(bench)
    assert (await bench.visit(3, ["c"])).permits == 3
    assert (await bench.visit(0, ["c"])).permits == 0
    assert (await bench.visit(3, [])).permits == 0
    assert (await bench.visit(3, ["other"])).stopped == b"\0"


async def test_visit_that_gets_nothing_learns_when_the_first_is_due(bench: Bench) -> None:
    await sending(bench)
    granted = await bench.visit(100, ["c"])
    none = await bench.visit(100, ["c"], horizon=1000)
    assert none.permits == 0
    assert none.now_us + none.delay_us == pytest.approx(times(granted)[-1] + INTERVAL, abs=1)


async def test_unmetered_account_gets_what_it_wants(bench: Bench) -> None:
    await sending(bench, None)
    visited = await bench.visit(7, ["c"])
    assert (visited.permits, visited.delay_us, visited.interval_us) == (7, 0.0, 0.0)


@pytest.mark.parametrize("per_hour", [3_600, 360_000])
async def test_new_rate_follows_the_last_permit_without_a_burst(bench: Bench, per_hour: int) -> None:
    await sending(bench)
    granted = times(await bench.visit(100, ["c"]))
    assert await bench.desk.set_rate("m1", "other", per_hour)
    visited = await bench.visit(100, ["c"], horizon=5e6)
    kept = [due for due in granted if due <= visited.cut_us]
    assert len(granted) > len(kept) > 0
    assert visited.cut == 1
    assert times(visited)[0] == pytest.approx(kept[-1] + 3.6e9 / per_hour, abs=1)
    account = await bench.desk.account("m1")
    assert (account["tier"], float(account["rate"]), float(account["iv"])) == ("other", per_hour, 3.6e9 / per_hour)


async def test_rate_of_an_unknown_account_is_not_set(bench: Bench) -> None:
    assert not await bench.desk.set_rate("m9", "t", 1000)
    assert await bench.desk.account("m9") == {}


async def test_cut_puts_the_clock_back_on_its_grid(bench: Bench) -> None:
    await sending(bench)
    granted = times(await bench.visit(100, ["c"]))
    await bench.queue.leave("m1")
    visited = await bench.visit(100, ["c"])
    void = [due for due in granted if due > visited.cut_us]
    assert times(visited)[: len(void)] == pytest.approx(void, abs=1)
    assert len(void) > 5


async def test_a_cut_is_numbered_above_what_workers_have_heard(bench: Bench) -> None:
    await sending(bench)
    assert (await bench.queue.leave("m1", 7))[0] == 8
    number, cut_us = await bench.queue.leave("m1", 3)
    visited = await bench.visit(100, ["c"])
    assert (visited.cut, visited.cut_us) == (number, cut_us) == (9, cut_us)
    assert await bench.queue.leave("m9", 7) == (0, 0.0)


async def test_cut_of_a_clock_in_the_past_leaves_it(bench: Bench) -> None:
    await sending(bench)
    await bench.visit(1, ["c"])
    last = (await bench.desk.account("m1"))["last"]
    await bench.queue.leave("m1")
    assert (await bench.desk.account("m1"))["last"] == last


async def test_clock_far_ahead_is_cured(bench: Bench) -> None:
    """Redis' clock stepped back by an hour: the account waits seconds, not an hour."""
    await sending(bench)
    ahead = await bench.desk.now_us() + 3_600e6
    await bench.desk.set_account("m1", {"last": f"{ahead:.3f}"})
    visited = await bench.visit(1, ["c"])
    assert (visited.permits, visited.delay_us <= 6.5e6 + 2 * INTERVAL) == (0, True)
    assert float((await bench.desk.account("m1"))["last"]) <= visited.now_us + 6.5e6 + INTERVAL


async def test_campaigns_share_equally(bench: Bench) -> None:
    await sending(bench, None, "a", "b", "c")
    turns: Counter[int] = Counter()
    for _ in range(10):
        turns.update((await bench.visit(7, ["a", "b", "c"])).deal)
    assert sorted(turns.values()) == [23, 23, 24]


async def test_newcomer_gets_an_equal_share_from_then_on(bench: Bench) -> None:
    await sending(bench, None, "a", "b")
    await bench.visit(100, ["a", "b"])
    await bench.campaign("c", 10)
    turns = Counter((await bench.visit(30, ["a", "b", "c"])).deal)
    assert turns == {0: 10, 1: 10, 2: 10}


async def test_share_served_by_another_worker_counts(bench: Bench) -> None:
    await sending(bench, None, "a", "b")
    assert (await bench.visit(20, ["a"])).deal == b""
    assert Counter((await bench.visit(30, ["a", "b"])).deal) == {0: 5, 1: 25}


async def test_campaign_without_work_saves_up_no_more_than_a_little(bench: Bench) -> None:
    await sending(bench, None, "a", "b")
    await bench.visit(1000, ["a"])
    assert Counter((await bench.visit(10, ["a", "b"])).deal) == {1: 10}
    assert Counter((await bench.visit(10, ["a", "b"])).deal) == {1: 10}
    assert Counter((await bench.visit(10, ["a", "b"])).deal) == {0: 5, 1: 5}


async def test_what_binds_is_kept_with_its_time_and_idle_time_counts(bench: Bench) -> None:
    await sending(bench)
    await bench.visit(0, ["c"], bind="relay|x refuses")
    bound = (await bench.desk.account("m1"))["bind"]
    limit, since, lift = bound.split("|")
    assert (limit, lift, abs(float(since) - await bench.desk.now_us()) < 60e6) == ("relay", "x refuses", True)
    await bench.visit(0, ["c"], bind="relay|x refuses still")
    await bench.visit(0, ["c"])
    assert (await bench.desk.account("m1"))["bind"] == f"relay|{since}|x refuses still", "since as before"
    visited = await bench.visit(0, ["c"], bind="no_worker|")
    assert visited.idle_us > 0
    assert (await bench.desk.account("m1"))["bind"].startswith("no_worker|")
    await bench.visit(0, ["c"], bind="")
    assert "bind" not in await bench.desk.account("m1")


visits = st.lists(
    st.tuples(st.floats(0, 3e6), st.sampled_from([0, 1, 5, 1000]), st.sampled_from(["", "", "", "leave", "rate"])),
    min_size=5,
    max_size=40,
)


@given(visits=visits, per_hour=st.sampled_from([2_300, 60_000, 1_000_000]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_permits_never_pass_the_ceiling(visits: list[tuple[float, int, str]], per_hour: int) -> None:
    """Several workers ask at any times, leave and change the rate in between: what stands is never closer than the rate."""
    bench = memory_bench()
    clock = bench.clock
    assert clock is not None
    interval = 3.6e9 / per_hour
    await sending(bench, per_hour)
    granted: list[tuple[float, int]] = []
    for later, want, change in visits:
        clock.now += later
        if change == "leave":
            await bench.queue.leave("m1")
        elif change == "rate":
            await bench.desk.set_rate("m1", "t", per_hour)
        visited = await bench.visit(want, ["c"], horizon=min(5e6, max(2e5, 8 * interval)))
        granted = [(due, cut) for due, cut in granted if cut == visited.cut or due <= visited.cut_us]
        granted += [(due, visited.cut) for due in times(visited)]
    due = sorted(at for at, _ in granted)
    assert all(b - a >= interval - 1 for a, b in pairwise(due))


@given(gaps=st.lists(st.floats(0, 4e5), min_size=10, max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
async def test_busy_account_gets_every_permit_of_its_rate(gaps: list[float]) -> None:
    """Whoever asks and whenever, as long as someone asks within the horizon."""
    bench = memory_bench()
    clock = bench.clock
    assert isinstance(clock, ManualClock)
    await sending(bench)
    granted: list[float] = []
    for gap in gaps:
        clock.now += gap
        granted += times(await bench.visit(100, ["c"]))
    assert len(granted) == (clock.now + HORIZON - granted[0]) // INTERVAL + 1
