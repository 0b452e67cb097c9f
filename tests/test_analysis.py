"""The measures of a ledger find what is off by one message, and call right what is right."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.analysis import above_ceiling, floor_of, full_windows, lost_and_twice, slope, spread, turn
from sendengine.trial.mails import by_sender, duration, rate_error, read_ledger

R = 50.0


def steady(count: int, r: float = R, start: float = 1000.0) -> list[float]:
    return [start + place / r for place in range(count)]


def line(at: float, reply: str = "250 ok", sender: str = "a@x.example", recipient: str = "r@y.example") -> bytes:
    entry = {"at": at + 1, "mail_at": at, "mail_from": sender, "rcpt_to": recipient, "message_id": "<1@x>", "reply": reply}
    return orjson.dumps(entry) + b"\n"


def test_ledger_is_ordered_by_mail_and_holds_what_was_taken() -> None:
    content = line(2.0) + line(1.0, sender="b@x.example") + line(3.0, "451 later") + line(4.0, "") + line(5.0)[:30]

    mails = read_ledger(content)

    assert [mail.at for mail in mails] == [1.0, 2.0]
    assert {sender: len(found) for sender, found in by_sender(mails).items()} == {"a@x.example": 1, "b@x.example": 1}


def test_steady_send_lasts_one_interval_less_than_n_over_r() -> None:
    assert duration(steady(501)) == pytest.approx(10.0)
    assert rate_error(steady(501), R) == pytest.approx(0.0, abs=1e-9)


def test_rate_error_is_signed() -> None:
    assert rate_error(steady(501, 51.0), R) == pytest.approx(0.02)
    assert rate_error(steady(501, 49.0), R) == pytest.approx(-0.02)


def test_steady_send_never_passes_the_ceiling() -> None:
    assert above_ceiling(steady(5000), R) < 0


@pytest.mark.parametrize("r", [1.0, 2.0, R])
def test_largest_allowed_burst_passes_and_one_more_does_not(r: float) -> None:
    allowed = int(r * max(0.5, 1.0 - 1.0 / r)) + 1

    assert above_ceiling([5.0] * allowed, r) <= 1e-9
    assert above_ceiling([5.0] * (allowed + 1), r) > 1e-9


def test_slow_excess_is_seen_only_by_windows_long_enough() -> None:
    times = steady(4000, R * 1.02)  # 1 message a second too many: the allowance of 50 is used up after some 50 s

    assert above_ceiling(times, R, longest=60.0) > 0
    assert above_ceiling(times, R, longest=20.0) < 0


@given(
    st.lists(st.floats(0.0, 20.0, allow_nan=False), min_size=1, max_size=40),
    st.floats(0.5, 20.0),
    st.floats(0.5, 30.0),
)
def test_one_pass_finds_what_all_pairs_find(instants: list[float], r: float, longest: float) -> None:
    times = sorted(instants)
    allowance = r * max(0.5, 1.0 - 1.0 / r) + 1.0
    pairs = itertools.combinations_with_replacement(range(len(times)), 2)
    every = [j - i + 1 - r * (times[j] - times[i]) - allowance for i, j in pairs if times[j] - times[i] <= longest]

    assert above_ceiling(times, r, longest) == pytest.approx(max(every), abs=1e-6)


def test_windows_tile_from_the_first_mail_and_the_rest_is_none() -> None:
    assert full_windows([7.0, 8.0, 16.9, 17.0, 26.0, 27.5], 10.0) == [3, 2]


def test_floor_is_met_by_a_steady_send_and_missed_by_one_with_a_gap() -> None:
    gap = [at if at < 1015.0 else at + 0.25 for at in steady(2001)]  # a quarter of a second: 12 of 500 messages late

    assert min(full_windows(steady(2001), 10.0)) >= floor_of(R, 10.0) == 490
    assert min(full_windows(gap, 10.0)) < floor_of(R, 10.0)


def test_slope_of_proportional_times_is_one_over_r() -> None:
    assert slope([(500, 10.0), (1000, 20.0), (2000, 40.0)]) == pytest.approx(1 / R)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_turn_is_where_the_rate_changed_not_where_it_was_asked(factor: float) -> None:
    asked, turned = 1010.0, 1010.4
    first = [at for at in steady(2000) if at < turned]
    times = first + steady(500, R * factor, first[-1] + 1 / R)

    assert turn(times, asked, 5.0, asked + 2.0) == pytest.approx(turned, abs=0.03)


def test_lost_and_twice_are_counted_apart() -> None:
    assert lost_and_twice(["a", "b", "b", "b", "z"], ["a", "b", "c"]) == (1, 2)


def test_spread_is_median_and_range() -> None:
    found = spread([3.0, 1.0, 10.0])

    assert (found.median, found.low, found.high, found.count) == (3.0, 1.0, 10.0, 3)
