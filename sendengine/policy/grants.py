"""The rate in force: the highest of the tier's and of the grants (boosts) whose time it is (domain rule 1.9). Pure.

The scripts read the same layout (queue/lua/speed.lua). Times are UNIX seconds here, µs in the octets; rates are messages per hour, None is
unmetered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct

import msgspec

from sendengine.policy.tiers import interval_us

FIELD = "boost:"  # of the account, with the grant's number behind
BOOSTED = "boosted:"  # of the account, with a caller's key behind: number of what it was granted, until µs, digest of what it asked
SPAN = Struct("<ddd")  # from µs, until µs, µs between messages


class Words(msgspec.Struct, frozen=True):
    """What the engine keeps of a grant for people."""

    rate: float
    who: str
    why: str
    granted_at: float


class Grant(msgspec.Struct, frozen=True):
    number: int
    start: float
    end: float
    words: Words

    @property
    def rate(self) -> float:
        return self.words.rate

    def holds(self, at: float) -> bool:
        return self.start <= at < self.end


def encode(start: float, end: float, words: Words) -> bytes:
    """A grant as the account holds it."""
    return SPAN.pack(round(start * 1e6), round(end * 1e6), float(interval_us(words.rate))) + msgspec.json.encode(words)


def grants_of(fields: Mapping[str, str]) -> list[Grant]:
    """All that an account's fields hold, by their number; those that are over too, for a while."""
    found = []
    for name, value in fields.items():
        if name.startswith(FIELD):
            octets = value.encode("utf-8", "surrogateescape")
            start, end, _ = SPAN.unpack_from(octets)
            words = msgspec.json.decode(octets[SPAN.size :], type=Words)
            found.append(Grant(int(name.removeprefix(FIELD)), start / 1e6, end / 1e6, words))
    return sorted(found, key=lambda grant: grant.number)


def granted_under(fields: Mapping[str, str], key: str) -> tuple[int, str] | None:
    """The number of the grant that was asked for under a key of its caller's, and the digest of what was asked; None: there is none."""
    value = fields.get(BOOSTED + key)
    if value is None:
        return None
    number, _, asked = value.split(" ", 2)
    return int(number), asked


def rate_at(own: float | None, grants: Sequence[Grant], at: float) -> float | None:
    """Messages per hour in force at a time."""
    return None if own is None else max([own, *(grant.rate for grant in grants if grant.holds(at))])


def changes(own: float | None, grants: Sequence[Grant], now: float) -> list[tuple[float, float]]:
    """The later (time, rate), ascending: where boosts begin and end."""
    if own is None:
        return []
    times = sorted({at for grant in grants for at in (grant.start, grant.end) if at > now})
    return [(at, rate_at(own, grants, at) or own) for at in times]
