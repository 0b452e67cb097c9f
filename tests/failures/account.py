"""The account of a trial: what was accepted, what the relay saw, what became of everybody. Pure.

Ground truth is the relay's ledger (a final dot arrived), never the engine's own word. The identity that must hold at the end of every
trial: accepted = sum of outcomes, lost = phantom = cross = 0, duplicates <= the doubts that the faults left behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec

DOMAIN = "@example.com"
STOPS_WITHIN = 1.0  # seconds in which a pause or a cancel acts (domain 2)


class Dot(msgspec.Struct, frozen=True, gc=False):
    """A final dot that arrived. `is_taken`: answered 2xx, or the connection was gone before the answer could be given."""

    mail_at: float
    token: str
    is_taken: bool
    is_answered: bool
    is_crossed: bool  # head or body holds another token than the address, or none


class Silence(msgspec.Struct, frozen=True):
    """No MAIL of this campaign may begin then, by the clock of the wall."""

    campaign: str
    since: float
    until: float


class Ended(msgspec.Struct, frozen=True, gc=False):
    """What the engine says became of a recipient."""

    token: str
    outcome: str
    reason: str


class Account(msgspec.Struct, frozen=True):
    accepted: int
    outcomes: dict[str, int]
    lost: int  # accepted, and at rest without an outcome, or `sent` without a dot that was taken
    duplicates: int  # dots beyond the first of a recipient
    phantom: int  # dots of nobody accepted; MAILs begun when a pause or a cancel had acted
    cross: int  # messages with another's data
    twice: int  # recipients with two outcomes
    unreasoned: int  # `unknown` without a reason
    doubled: frozenset[str] = frozenset()  # tokens that came twice


def token_of(seed: int, campaign: str, row: int) -> str:
    return "tk" + blake2b(f"{seed} {campaign} {row}".encode(), digest_size=6).hexdigest()


def address_of(token: str) -> str:
    return f"r-{token}{DOMAIN}"


def token_in(address: str) -> str:
    return address.removesuffix(DOMAIN).removeprefix("r-")


def reckon(
    accepted: Mapping[str, str], ended: Iterable[Ended], dots: Sequence[Dot], begun: Iterable[tuple[float, str]],
    silences: Sequence[Silence],
) -> Account:  # fmt: skip
    """`accepted`: token -> campaign; `begun`: (wall time, token) of each MAIL."""
    outcomes: Counter[str] = Counter()
    last: dict[str, str] = {}
    twice = unreasoned = 0
    for end in ended:
        outcomes[end.outcome] += 1
        twice += end.token in last
        last[end.token] = end.outcome
        unreasoned += end.outcome == "unknown" and not end.reason
    taken = Counter(dot.token for dot in dots if dot.is_taken)
    answered = {dot.token for dot in dots if dot.is_taken and dot.is_answered}
    silent = sum(
        silence.since < at < silence.until
        for at, token in begun
        for silence in silences
        if accepted.get(token) == silence.campaign
    )
    return Account(
        accepted=len(accepted),
        outcomes=dict(outcomes),
        lost=len(accepted.keys() - last.keys()) + sum(token not in answered for token, what in last.items() if what == "sent"),
        duplicates=sum(n - 1 for n in taken.values()),
        phantom=sum(token not in accepted for token in taken) + silent,
        cross=sum(dot.is_crossed for dot in dots),
        twice=twice,
        unreasoned=unreasoned,
        doubled=frozenset(token for token, n in taken.items() if n > 1),
    )


class Line(msgspec.Struct, frozen=True):
    """One line of the report: a scenario, its account, and what the identity says of it."""

    scenario: str
    seed: int
    faults: int  # that were really there
    account: Account
    bound: int  # of duplicates
    most_doubtful: int  # W, the largest of one worker
    recovery: float  # seconds, the longest
    findings: int  # of fsck
    expects: tuple[str, ...] = ()  # what this scenario promised beside the identity, and did not keep

    @property
    def broken(self) -> list[str]:
        found, own = self.account, list(self.expects)
        if sum(found.outcomes.values()) != found.accepted:
            own.append("accepted is not the sum of outcomes")
        own += [name for name in ("lost", "phantom", "cross", "twice", "unreasoned") if getattr(found, name)]
        if found.duplicates > self.bound:
            own.append("more duplicates than doubts")
        if self.findings:
            own.append("fsck finds what does not add up")
        if not self.faults:
            own.append("no fault was there")
        return own

    def __str__(self) -> str:
        found = self.account
        outcomes = " ".join(f"{name}={n}" for name, n in sorted(found.outcomes.items()))
        return (
            f"{self.scenario} seed={self.seed} faults={self.faults} accepted={found.accepted} [{outcomes}] lost={found.lost} "
            f"duplicates={found.duplicates}<={self.bound} phantom={found.phantom} cross={found.cross} W={self.most_doubtful} "
            f"recovery={self.recovery:.1f}s {'BROKEN: ' + '; '.join(self.broken) if self.broken else 'holds'}"
        )
