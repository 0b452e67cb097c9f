"""Send windows, through ordinary weeks and the two nights on which the clock jumps."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import RefusedInput
from sendengine.policy.window import Window


def at(text: str, zone: str = "Europe/Prague", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


OFFICE = Window.parse("Mon-Fri 09:00-17:00 Europe/Prague")


@pytest.mark.parametrize(
    ("when", "is_open", "opens", "closes"),
    [
        ("2026-03-04 08:59:59", False, "2026-03-04 09:00", "2026-03-04 17:00"),
        ("2026-03-04 09:00", True, "2026-03-04 09:00", "2026-03-04 17:00"),
        ("2026-03-04 16:59:59", True, "2026-03-04 16:59:59", "2026-03-04 17:00"),
        ("2026-03-06 17:00", False, "2026-03-09 09:00", "2026-03-09 17:00"),
        ("2026-03-28 12:00", False, "2026-03-30 09:00", "2026-03-30 17:00"),  # summer time begins on the 29th
        ("2026-10-24 12:00", False, "2026-10-26 09:00", "2026-10-26 17:00"),  # and ends on the 25th of October
    ],
)
def test_office_hours(when: str, is_open: bool, opens: str, closes: str) -> None:
    wall = at(when)
    assert (OFFICE.is_open(wall), OFFICE.next_open(wall), OFFICE.next_close(wall)) == (is_open, at(opens), at(closes))


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    night = Window.parse("Fri 22:00-06:00 Europe/Prague")
    assert night.is_open(at("2026-03-07 05:59"))
    assert not night.is_open(at("2026-03-06 05:59"))
    assert night.next_close(at("2026-03-06 23:00")) == at("2026-03-07 06:00")


def test_ranges_that_touch_are_one_opening() -> None:
    window = Window.parse("Mon 09:00-24:00, Tue 00:00-03:00,Tue 02:00-04:00 Europe/Prague")
    assert window.next_close(at("2026-03-02 10:00")) == at("2026-03-03 04:00")


def test_days_may_wrap_around_the_week() -> None:
    window = Window.parse("sat-mon 10:00-11:00 UTC")
    assert [window.is_open(at(f"2026-03-0{day} 10:30", "UTC")) for day in range(2, 9)] == [True, *[False] * 4, True, True]


@pytest.mark.parametrize("text", ["Mon-Fri 09:00-17:00", "22:00-06:00", "Mon 9:00-17:00, Sat 10:00-12:00"])
def test_a_window_without_a_zone_is_told_what_it_lacks(text: str) -> None:
    with pytest.raises(RefusedInput, match="names no time zone"):
        Window.parse(text)


def test_what_is_always_open_never_closes() -> None:
    assert Window.parse("00:00-24:00 Europe/Prague").next_close(at("2026-03-04 12:00")) is None


def test_an_hour_that_spring_skips_opens_at_the_jump() -> None:
    window = Window.parse("Sun 02:30-05:00 Europe/Prague")
    assert window.next_open(at("2026-03-29 00:00")) == at("2026-03-29 03:00")


def test_a_range_within_the_skipped_hour_opens_a_week_later() -> None:
    window = Window.parse("Sun 02:10-02:50 Europe/Prague")
    assert window.next_open(at("2026-03-23 12:00")) == at("2026-04-05 02:10")


def test_an_hour_that_autumn_repeats_is_open_both_times() -> None:
    window = Window.parse("Sun 02:00-03:00 Europe/Prague")
    opens = window.next_open(at("2026-10-25 00:00"))
    closes = window.next_close(opens)
    assert closes is not None
    assert closes - opens == 7200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "time zone"),
        ("Mon-Fri 09:00-17:00", "time zone"),
        ("Mon-Fri 09:00-17:00 Europe/Prag", "'Europe/Prag'"),
        ("Mon-Fri 9-17 UTC", "range of hours"),
        ("Mon-Fri 09:00-25:00 UTC", "range of hours"),
        ("24:00-01:00 UTC", "range of hours"),
        ("09:60-10:00 UTC", "range of hours"),
        ("Mon-Foo 09:00-10:00 UTC", "Mon Tue"),
        ("09:00-10:00, UTC", "range of hours"),
        ("09:00-10:00 ../etc/passwd", "time zone"),
    ],
)
def test_what_is_no_window_is_refused(text: str, words: str) -> None:
    with pytest.raises(RefusedInput, match=words):
        Window.parse(text)


_ZONES = st.sampled_from(["UTC", "Europe/Prague", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
_HOURS = st.tuples(st.integers(0, 23), st.integers(0, 59)).map("{0[0]:02}:{0[1]:02}".format)


@given(_HOURS, _HOURS, _ZONES, st.sampled_from(["", "Sun ", "Fri-Mon "]), st.floats(1.7e9, 1.9e9))
def test_open_and_close_agree(opens: str, closes: str, zone: str, days: str, wall: float) -> None:
    window = Window.parse(f"{days}{opens}-{closes} {zone}")
    start, end = window.next_open(wall), window.next_close(wall)
    assert window.is_open(start)
    assert window.is_open(wall) == (start == wall)
    assert start == wall or not window.is_open(start - 1e-3)
    if end is not None:
        assert not window.is_open(end)
        assert window.is_open(end - 1e-3)
