"""The account of a trial: what was accepted, what the relay saw, what became of everybody. Pure.

Ground truth is the relay's ledger (a final dot arrived), never the engine's own word. The identity that must hold at the end of every
trial: accepted = sum of outcomes, lost = phantom = cross = 0, duplicates <= the doubts that the faults left behind.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from hashlib import blake2b

import msgspec

DOMAIN = "@example.com"
STOPS_WITHIN = 1.0  # seconds in which a pause or a cancel acts (domain 2)
RECOVERS_WITHIN = 30.0  # seconds until orphaned work goes on
MAX_DOUBTFUL = 512  # W of one worker, as it is shipped


class Dot(msgspec.Struct, frozen=True, gc=False):
    """A final dot that arrived. `is_taken`: answered 2xx, or the connection was gone before the answer could be given."""

    mail_at: float
    token: str
    is_taken: bool
    is_answered: bool
    is_crossed: bool  # head or body holds another token than the address, or none
    session: str = ""  # of the relay, by which it came
    peer: str = ""  # host:port at the other end of it
    client: str = ""  # what the other end greeted as
    behind: int = 0  # messages that had come behind it in the session when nothing was answered yet


class Doubt(msgspec.Struct, frozen=True):
    """Whom a worker that was lost left in doubt, and what it greeted as; "" where others greet so, too."""

    client: str
    tokens: frozenset[str]


class Excuses(msgspec.Struct):
    """What may lead to a second message, person by person."""

    doubts: list[Doubt] = []
    cut: set[str] = set()  # peers of sessions that were ended on purpose
    within: int = 1  # so many last messages of such a session may be in doubt
    forgotten: Set[str] = frozenset()  # tokens of whom writes spoke that Redis lost


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
    denied: int = 0  # the relay took the dot and no other try followed, and the outcome is neither `sent` nor `unknown`
    overturned: int = 0  # the same, and another try followed: it takes a doubt to try again
    doubled: frozenset[str] = frozenset()  # tokens that came twice
    unexcused: frozenset[str] = frozenset()  # those of them for whom no doubt was left by a fault


def token_of(seed: int, campaign: str, row: int) -> str:
    return "tk" + blake2b(f"{seed} {campaign} {row}".encode(), digest_size=6).hexdigest()


def address_of(token: str) -> str:
    return f"r-{token}{DOMAIN}"


def token_in(address: str) -> str:
    return address.removesuffix(DOMAIN).removeprefix("r-")


def reckon(
    accepted: Mapping[str, str], ended: Iterable[Ended], dots: Sequence[Dot], begun: Iterable[tuple[float, str]],
    silences: Sequence[Silence], excuses: Excuses | None = None,
) -> Account:  # fmt: skip
    """`accepted`: token -> campaign; `begun`: (wall time, token) of each MAIL. Without excuses nobody may come twice."""
    outcomes: Counter[str] = Counter()
    last: dict[str, str] = {}
    twice = unreasoned = 0
    for end in ended:
        outcomes[end.outcome] += 1
        twice += end.token in last
        last[end.token] = end.outcome
        unreasoned += end.outcome == "unknown" and not end.reason
    denied, overturned = _denials(last, dots, begun := list(begun))
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
        denied=denied,
        overturned=overturned,
        doubled=frozenset(token for token, n in taken.items() if n > 1),
        unexcused=_unexcused(dots, excuses or Excuses()),
    )


def _unexcused(dots: Sequence[Dot], excuses: Excuses) -> frozenset[str]:
    """Each message of a recipient but the last begun needs an excuse of its own: a worker that brought it was lost, and left it in doubt,
    or its session was ended with no more behind it than may be in doubt."""
    came: defaultdict[str, list[int]] = defaultdict(list)
    for place, dot in enumerate(dots):
        if dot.is_taken:
            came[dot.token].append(place)
    ends = _ends(dots, excuses.cut, excuses.within)
    found = []
    for token, places in came.items():
        if len(places) == 1 or token in excuses.forgotten:
            continue
        *early, _ = sorted(places, key=lambda place: dots[place].mail_at)
        clients = [dots[place].client for place in early if place not in ends]
        if not _are_all_doubted(clients, [doubt.client for doubt in excuses.doubts if token in doubt.tokens]):
            found.append(token)
    return frozenset(found)


def _ends(dots: Sequence[Dot], cut: Collection[str], within: int) -> set[int]:
    """Places of the last messages of sessions that were cut."""
    last: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=within))
    for place, dot in enumerate(dots):
        if dot.peer in cut:
            last[dot.session].append(place)
    return {place for places in last.values() for place in places}


def _are_all_doubted(clients: Iterable[str], doubted: list[str]) -> bool:
    """A doubt excuses one message."""
    for client in clients:
        name = client if client in doubted else ""
        if name not in doubted:
            return False
        doubted.remove(name)
    return True


def _denials(last: Mapping[str, str], dots: Sequence[Dot], begun: Iterable[tuple[float, str]]) -> tuple[int, int]:
    """Recipients whose message the relay took, and who ended otherwise: without another try, and with one."""
    told: dict[str, float] = {}
    for dot in dots:
        if dot.is_taken and last.get(dot.token, "sent") not in ("sent", "unknown"):
            told[dot.token] = max(dot.mail_at, told.get(dot.token, dot.mail_at))
    tries: defaultdict[str, float] = defaultdict(float)
    for at, token in begun:
        tries[token] = max(at, tries[token])
    overturned = sum(tries[token] > at for token, at in told.items())
    return len(told) - overturned, overturned


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
    max_doubtful: int = MAX_DOUBTFUL  # the setting that W is held to
    within: float = RECOVERS_WITHIN  # seconds that the recovery may take

    @property
    def broken(self) -> list[str]:
        found, own = self.account, list(self.expects)
        if sum(found.outcomes.values()) != found.accepted:
            own.append("accepted is not the sum of outcomes")
        own += [name for name in ("lost", "phantom", "cross", "twice", "unreasoned", "denied") if getattr(found, name)]
        if found.duplicates > self.bound:
            own.append("more duplicates than doubts")
        if found.unexcused:
            own.append("somebody came twice who was not in doubt")
        if found.duplicates + found.overturned > self.bound:
            own.append("more tries after a dot that was taken than doubts")
        if self.most_doubtful > self.max_doubtful:
            own.append("more in doubt at one worker than max_doubtful")
        if self.recovery > self.within:
            own.append(f"recovery took more than {self.within:g} s")
        if self.findings:
            own.append("fsck finds what does not add up")
        if not self.faults:
            own.append("no fault was there")
        return own

    def __str__(self) -> str:
        found = self.account
        outcomes = " ".join(f"{name}={n}" for name, n in sorted(found.outcomes.items()))
        unexcused = f" ({len(found.unexcused)} not in doubt: {' '.join(sorted(found.unexcused)[:3])})" if found.unexcused else ""
        return (
            f"{self.scenario} seed={self.seed} faults={self.faults} accepted={found.accepted} [{outcomes}] lost={found.lost} "
            f"duplicates={found.duplicates}<={self.bound}{unexcused} phantom={found.phantom} cross={found.cross} W={self.most_doubtful} "
            f"recovery={self.recovery:.1f}s {'BROKEN: ' + '; '.join(self.broken) if self.broken else 'holds'}"
        )
