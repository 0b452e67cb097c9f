"""Times and durations as people write them, and the one form in which the engine shows them.

Pure: now is passed in. Times are UNIX seconds, shown as RFC 3339 in UTC with fractions.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sendengine.errors import RefusedInput

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
        return now + parse_duration(text[1:])
    found = _PLAIN.fullmatch(text)
    if not found and not _RFC3339.fullmatch(text):
        raise RefusedInput(f"{text!r} is no time", _EXAMPLES)
    try:
        read = datetime.fromisoformat("T".join(found.groups()) if found else text.upper())
        return read.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise RefusedInput(f"{text!r} is no time: {error}", _EXAMPLES) from None


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `1m`, `2h`, `7d`, `1w`, `2h30m`. Raises RefusedInput."""
    text = text.strip()
    if not _DURATION.fullmatch(text):
        raise RefusedInput(f"{text!r} is no duration", "write a number with s, m, h, d or w, as in 90s or 2h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def format_time(wall: float) -> str:
    """2026-05-01T06:00:00.250Z; rounded to the millisecond."""
    return datetime.fromtimestamp(round(wall, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
