"""Estimates against sums done by hand, and against what must hold of any."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.policy.estimate import Job, estimate
from sendengine.policy.window import Window

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp()  # a Wednesday
R = 3600.0  # an hour: one message a second


def seconds(jobs: list[Job], index: int = 0, rate: float | None = R, changes: list[tuple[float, float]] | None = None) -> float | None:
    through = estimate(NOW, rate, jobs, index, [(NOW + at, new) for at, new in changes or []])
    return None if through is None else through - NOW


@pytest.mark.parametrize(("remaining", "through"), [(0, 0), (1, 0), (2, 1), (1001, 1000)])
def test_a_send_alone_has_the_whole_rate(remaining: int, through: float) -> None:
    assert seconds([Job(remaining)]) == pytest.approx(through)


def test_parallel_sends_share_equally_until_one_ends() -> None:
    jobs = [Job(100), Job(300)]
    assert [seconds(jobs, 0), seconds(jobs, 1)] == [pytest.approx(199), pytest.approx(399)]


def test_a_send_that_starts_later_slows_the_other_only_then() -> None:
    jobs = [Job(100), Job(100, starts_at=NOW + 50)]
    assert [seconds(jobs, 0), seconds(jobs, 1)] == [pytest.approx(149), pytest.approx(199)]


def test_sequential_sends_run_one_after_another_beside_the_parallel_ones() -> None:
    jobs = [Job(100, sequential_rank=2), Job(100, sequential_rank=1), Job(1000)]
    assert [seconds(jobs, index) for index in range(3)] == [pytest.approx(399), pytest.approx(199), pytest.approx(1199)]


def test_a_paused_send_takes_no_share_and_has_no_end() -> None:
    jobs = [Job(100, sequential_rank=1, paused=True), Job(100, sequential_rank=2)]
    assert [seconds(jobs, 0), seconds(jobs, 1)] == [None, pytest.approx(99)]


def test_a_window_stops_the_send_over_night() -> None:
    window = Window.parse("Mon-Fri 09:00-17:00 UTC")
    assert seconds([Job(5 * 3600 + 601, window=window)]) == pytest.approx(5 * 3600 + 16 * 3600 + 600)


def test_a_send_outside_its_window_leaves_its_share_to_the_other() -> None:
    jobs = [Job(100), Job(100, window=Window.parse("13:00-14:00 UTC"))]
    assert [seconds(jobs, 0), seconds(jobs, 1)] == [pytest.approx(99), pytest.approx(3699)]


def test_a_boost_counts_while_it_lasts() -> None:
    assert seconds([Job(1000)], changes=[(100, 10 * R), (150, R)]) == pytest.approx(150 + 400 - 1)


@pytest.mark.parametrize("rate", [None, 0.0])
def test_without_a_rate_there_is_no_estimate_until_one_comes(rate: float | None) -> None:
    assert seconds([Job(10)], rate=rate) is None
    assert seconds([Job(10)], rate=rate, changes=[(60, R)]) == pytest.approx(69)


_JOBS = st.builds(
    Job,
    remaining=st.integers(1, 5000),
    starts_at=st.integers(-100, 5000).map(lambda ahead: NOW + ahead),
    sequential_rank=st.none() | st.integers(0, 99),
    paused=st.booleans(),
)


@given(st.lists(_JOBS, min_size=1, max_size=6, unique_by=lambda job: job if job.sequential_rank is None else job.sequential_rank))
def test_the_last_end_is_when_all_the_work_is_done(jobs: list[Job]) -> None:
    ends = [estimate(NOW, R, jobs, index) for index in range(len(jobs))]
    assert [end is None for end in ends] == [job.paused for job in jobs]
    working = [job for job in jobs if not job.paused]
    if working:
        last = max(end for end in ends if end is not None)
        idle_until = max(max(NOW, job.starts_at) for job in working)
        total = sum(job.remaining for job in working)
        assert NOW + total - 1.001 <= last <= idle_until + total


@given(st.integers(2, 10**7))
def test_twice_the_recipients_take_twice_the_time(size: int) -> None:
    once, twice = seconds([Job(size + 1)]), seconds([Job(2 * size + 1)])
    assert once
    assert twice == pytest.approx(2 * once)


def test_end_that_lies_below_the_resolution_of_unix_time_is_reached() -> None:
    jobs = [Job(remaining=1234), Job(remaining=100_000)]
    through = estimate(1_795_419_075.9, 200_000.0, jobs, 1)
    assert through is not None
    assert abs(through - 1_795_419_075.9 - 101_234 / 200_000 * 3600) < 0.1
