"""When a deferred delivery is tried again: "1m, 5m*2, 1h*3" is a minute, five minutes twice, then hours.

Pure. The last step repeats until the send's lifetime is over (policy/verdict.py ends it). Chance is passed in.
"""

from __future__ import annotations

import re

import msgspec

from sendengine.errors import ConfigError, RefusedInput

SPREAD = 0.25  # retries of one moment come back over a quarter of their delay, and never before it
SUSPENSION_MOST = 3600.0
LONGEST = 30 * 86400.0  # of a step; with its spread it fits the 32 bits of ms that a deferral record has

_STEP = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])(?:\s*\*\s*([1-9][0-9]{0,2}))?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Schedule(msgspec.Struct, frozen=True):
    """Seconds before the 2nd, 3rd, … try. Never empty, never zero."""

    steps: tuple[float, ...]


def parse(text: str) -> Schedule:
    """The schedule of a text like "1m, 5m*2, 1h*3". Raises ConfigError, naming the step that is off."""
    steps: list[float] = []
    for part in text.split(","):
        match = _STEP.fullmatch(part.strip())
        if match is None or not 0 < float(match[1]) * _UNITS[match[2]] <= LONGEST:
            raise ConfigError(
                f"retry schedule {text!r}: {part.strip()!r} is no step", "write steps like 90s, 5m*2 or 1h, up to 30d, with commas"
            )
        steps += [float(match[1]) * _UNITS[match[2]]] * int(match[3] or 1)
    return Schedule(tuple(steps))


def tidy(text: str) -> str:
    """A caller's schedule in the form in which it is kept and compared. Raises RefusedInput."""
    try:
        parse(text)
    except ConfigError as error:
        raise RefusedInput(str(error), error.way) from None
    return ", ".join("".join(part.split()) for part in text.split(","))


def delay(schedule: Schedule, tries: int, jitter: float) -> float:
    """Seconds until the next try after `tries` of them (1 or more). `jitter` is evenly chosen from [0, 1)."""
    step = schedule.steps[min(max(tries, 1), len(schedule.steps)) - 1]
    return step * (1.0 + SPREAD * jitter)


def suspension(base: float, repeated: int) -> float:
    """How long to leave a relay or site alone when it refuses us for the `repeated`th time in a row (0: the first)."""
    return max(base, min(base * 2.0 ** min(repeated, 16), SUSPENSION_MOST))
