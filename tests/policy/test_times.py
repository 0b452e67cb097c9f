"""Times as people write them."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import RefusedInput
from sendengine.policy.times import format_time, parse_duration, parse_time

NOW = 1_777_000_000.5


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("now", NOW),
        ("+2h30m", NOW + 9000),
        ("+90s", NOW + 90),
        ("2026-05-01T08:00:00+02:00", 1_777_615_200.0),
        ("2026-05-01t06:00:00.250z", 1_777_615_200.25),
        ("2026-05-01 08:00", datetime(2026, 5, 1, 8, 0).astimezone().timestamp()),
    ],
)
def test_times_are_read(text: str, wall: float) -> None:
    assert parse_time(text, NOW) == wall


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-05-01", "2026-13-01T00:00:00Z", "+", "+5", "2026-02-30 10:00", "08:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RefusedInput):
        parse_time(text, NOW)


@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("2h", 7200), ("7d", 604800), ("1w", 604800), ("1.5h", 5400), ("1d 2h", 93600)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1y", "1h!"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(RefusedInput):
        parse_duration(text)


def test_times_are_shown_in_utc_with_fractions() -> None:
    assert format_time(1_777_615_200.2504) == "2026-05-01T06:00:00.250Z"
    assert format_time(1_777_615_199.9999) == "2026-05-01T06:00:00.000Z"


@given(st.floats(0, 4e9))
def test_a_shown_time_is_read_back(wall: float) -> None:
    assert abs(parse_time(format_time(wall), NOW) - wall) <= 0.0006
