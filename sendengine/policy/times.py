"""Times and durations as people write them, and the one form in which the engine shows them.

Pure: now is passed in. Times are UNIX seconds, shown as RFC 3339 in UTC with fractions.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sendengine.errors import RefusedInput

LONGEST = 100 * 365 * 86400.0  # of a duration
_FIRST, LAST = 0.0, 253_402_300_799.0  # 1970 … 9999: what a time can be shown as
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw] ?)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_PLAIN = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d(?::\d\d)?)")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_EXAMPLES = "write 2026-05-01T08:00:00+02:00, '2026-05-01 08:00' (the time here), +2h30m or now"


def parse_time(text: str, now: float) -> float:
    """UNIX seconds of `now`, `+2h30m`, RFC 3339, or `YYYY-MM-DD HH:MM` in the zone of this machine. Raises RefusedInput."""
    text = text.strip()
    if text == "now":
        return now
    if text.startswith("+"):
        return possible(now + parse_duration(text[1:]))
    if _DURATION.fullmatch(text):
        raise RefusedInput(f"{text!r} is a duration, no time", f"+{text} is in {text} from now; else {_EXAMPLES}")
    found = _PLAIN.fullmatch(text)
    if not found and not _RFC3339.fullmatch(text):
        raise RefusedInput(f"{text!r} is no time", _EXAMPLES)
    try:
        read = datetime.fromisoformat("T".join(found.groups()) if found else text.upper())
        wall = read.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise RefusedInput(f"{text!r} is no time: {error}", _EXAMPLES) from None
    return possible(wall)


def possible(wall: float) -> float:
    """The time itself; raises RefusedInput for one that could not be shown, infinity among them."""
    if not _FIRST <= wall <= LAST:
        raise RefusedInput("a time outside the years 1970 to 9999", _EXAMPLES)
    return wall


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `1m`, `2h`, `7d`, `1w`, `2h30m`. Raises RefusedInput."""
    text = text.strip()
    if not _DURATION.fullmatch(text):
        raise RefusedInput(f"{text!r} is no duration", "write a number with s, m, h, d or w, as in 90s or 2h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if seconds > LONGEST:
        raise RefusedInput(f"{text[:40]!r} is longer than a hundred years")
    return seconds


def format_time(wall: float) -> str:
    """2026-05-01T06:00:00.250Z; rounded to the millisecond."""
    return datetime.fromtimestamp(round(wall, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
