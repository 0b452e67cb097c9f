"""Send windows: the hours of the week in which a send may run, in a zone of its own.

    Mon-Fri 09:00-17:00 Europe/Prague
    Mon-Fri 09:00-17:00, Sat 10:00-12:00 Europe/Prague      22:00-06:00 UTC

Pure: time is passed in, as UNIX seconds. Hours are those on the wall there, whatever summer time does; a range that ends
before it begins runs past midnight and belongs to the day on which it begins; one without days holds every day. A time
that spring skips stands for the jump of the clock; one that comes twice in autumn opens at its first coming and closes
at its last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from sendengine.errors import RefusedInput

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_RANGE = re.compile(r"(?:([A-Za-z]{3})(?:-([A-Za-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")
_is_hours = re.compile(r"\d\d?:\d\d-\d\d?:\d\d").fullmatch
_is_clock = re.compile(r"[\d:.,-]+").fullmatch
_EXAMPLE = "write 'Mon-Fri 09:00-17:00 Europe/Prague'; several ranges are joined by commas"


_SEARCHED = 15  # days: one opening a week, and the one of this week may fall into the hour that spring skips
_NEVER = 8 * 86400.0  # what is open for longer has no closing


class _Range(msgspec.Struct, frozen=True):
    days: frozenset[int]  # 0 is Monday
    opens: int  # minutes after midnight
    closes: int  # the same; 1440 is the midnight at the end, more is the next day


class Window(msgspec.Struct, frozen=True):
    """One or more weekly ranges and their zone; `text` is how it was written."""

    text: str
    zone: str
    ranges: tuple[_Range, ...]

    @classmethod
    def parse(cls, text: str) -> Window:
        """Raises RefusedInput."""
        words, _, zone = text.strip().rpartition(" ")
        if _is_hours(zone):
            raise RefusedInput(f"window {text!r} names no time zone", _EXAMPLE)
        if _is_clock(zone):
            raise RefusedInput(f"window {text!r}: {zone!r} is no range of hours, and there is no time zone behind it", _EXAMPLE)
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise RefusedInput(f"window {text!r}: no time zone {zone!r}", _EXAMPLE) from None
        return cls(text.strip(), zone, tuple(_parse_range(part.strip(), text) for part in words.split(",")))

    def is_open(self, wall: float) -> bool:
        return any(opens <= wall < closes for day in self._days(wall, 0) for opens, closes in day)

    def next_open(self, wall: float) -> float:
        """`wall` itself when it is open then."""
        for day in self._days(wall, _SEARCHED):
            if ahead := [opens for opens, closes in day if closes > wall]:
                return max(wall, min(ahead))
        raise AssertionError(f"{self.text} opens on no day")

    def next_close(self, wall: float) -> float | None:
        """The end of the opening that is on at `wall`, or that comes next; None when it never closes."""
        end = self.next_open(wall)
        while True:
            later = max((closes for day in self._days(end, 0) for opens, closes in day if opens <= end < closes), default=end)
            if later == end:
                return end
            if later - wall > _NEVER:
                return None
            end = later

    def _days(self, wall: float, ahead: int) -> Iterator[list[tuple[float, float]]]:
        """What opens on each day from the one before `wall` to so many after it; some of it may be over."""
        zone = ZoneInfo(self.zone)
        today = datetime.fromtimestamp(wall, zone).date()
        for later in range(-1, ahead + 1):
            day = today + timedelta(days=later)
            spans = [
                (_instant(day, each.opens, zone, 0), _instant(day, each.closes, zone, 1))
                for each in self.ranges
                if day.weekday() in each.days
            ]
            yield [span for span in spans if span[0] < span[1]]  # not those inside the hour that spring skips


def _instant(day: date, minutes: int, zone: ZoneInfo, fold: int) -> float:
    """UNIX seconds of a wall time; `fold` chooses when there are two (PEP 495).

    When there is none, the old offset reads it too late and the new one too early: the jump lies between.
    """
    days, rest = divmod(minutes, 1440)
    local = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60), zone)
    first, second = (local.replace(fold=which).timestamp() for which in (0, 1))
    if first > second:
        return _jump(second, first, zone)
    return second if fold else first


def _jump(low: float, high: float, zone: ZoneInfo) -> float:
    """The instant between at which the offset of the zone changes, to the second."""
    before = datetime.fromtimestamp(low, zone).utcoffset()
    left, right = int(low), int(high)
    while right - left > 1:
        middle = (left + right) // 2
        if datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == before:
            left = middle
        else:
            right = middle
    return float(right)


def _parse_range(part: str, text: str) -> _Range:
    found = _RANGE.fullmatch(part)
    if not found:
        raise RefusedInput(f"window {text!r}: {part!r} is no range of hours", _EXAMPLE)
    first, last, *numbers = found.groups()
    opens, closes = (int(hour) * 60 + int(minute) for hour, minute in (numbers[:2], numbers[2:]))
    if max(opens, closes) > 1440 or opens == 1440 or int(numbers[1]) > 59 or int(numbers[3]) > 59:
        raise RefusedInput(f"window {text!r}: {part!r} is no range of hours: they go from 00:00 to 24:00", _EXAMPLE)
    return _Range(_days(first, last, text), opens, closes if closes > opens else closes + 1440)


def _days(first: str | None, last: str | None, text: str) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    try:
        start, end = (_DAYS.index(name.lower()) for name in (first, last or first))
    except ValueError:
        raise RefusedInput(f"window {text!r}: the days are Mon Tue Wed Thu Fri Sat Sun", _EXAMPLE) from None
    return frozenset((start + ahead) % 7 for ahead in range((end - start) % 7 + 1))
