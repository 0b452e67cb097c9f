"""A tier is a name for a rate: what an account buys. Pure; the table itself is data (config/tiers.toml).

Rates are messages per hour as floats; None is unmetered (no ceiling at all).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import msgspec

from sendengine.errors import RefusedInput, UnknownName

UNMETERED = "unmetered"
SLOWEST, FASTEST = 1.0, 3.6e9  # the pacer counts whole microseconds: one message each is its limit

_MULTIPLES = {"": 1, "k": 1_000, "m": 1_000_000}
_FIGURE = re.compile(r"[0-9]{1,18}", re.ASCII)
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([km]?)(?:/h)?", re.IGNORECASE | re.ASCII)


class Tier(msgspec.Struct, frozen=True):
    name: str
    per_hour: float | None
    title: str
    price: str = ""  # in the operator's words; the engine never reckons with it


def parse_rate(text: str, tiers: Mapping[str, Tier]) -> tuple[str, float | None]:
    """`60k` (a tier's name first, else a figure), `200000/h`, `7500`, `unmetered` -> (name, messages per hour or None).

    A figure is its own name, in full digits. Raises UnknownName for a word that is neither, with the nearest tier's name.
    """
    text = text.strip()
    tier = tiers.get(text.lower())
    if tier is not None:
        return tier.name, tier.per_hour
    figure = _RATE.fullmatch(text)
    if figure is None:
        raise unknown("unknown tier", text, tiers, ", or a number of messages per hour")
    per_hour = float(figure[1]) * _MULTIPLES[figure[2].lower()]
    if not SLOWEST <= per_hour <= FASTEST:
        raise RefusedInput(f"a rate of {text} is outside {SLOWEST:.0f} to {FASTEST:.0f} messages per hour")
    return _digits(per_hour), per_hour


def nearest(word: str, names: Mapping[str, object]) -> str:
    """`; nearest is 'x'`, or nothing when no name comes near."""
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"; nearest is {close[0]!r}" if close else ""


def _nearest_figure(text: str, names: Mapping[str, object]) -> str:
    """Of a word that begins with a figure and is near no name: the one whose name begins with the nearest."""
    figures = {name: int(found[0]) for name in names if (found := _FIGURE.match(name))}
    found = _FIGURE.match(text)
    if found is None or not figures:
        return ""
    return f"; nearest is {min(figures, key=lambda name: abs(figures[name] - int(found[0])))!r}"


def unknown(what: str, word: str, names: Mapping[str, object], beside: str = "") -> UnknownName:
    """The remedy is the nearest name, and all of them."""
    near = nearest(word, names) or _nearest_figure(word, names)
    return UnknownName(f"{what} {word!r}{near}", f"one of {' '.join(names)}{beside}")


def _digits(per_hour: float) -> str:
    return f"{per_hour:.6f}".rstrip("0").rstrip(".")


def interval_us(per_hour: float | None) -> str:
    """µs between messages as the scripts read it; 0 means unmetered."""
    return "0" if per_hour is None else f"{3.6e9 / per_hour:.3f}"
