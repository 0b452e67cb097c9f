"""Who gets nothing any more, and what a bounce says of an address. Pure; the only place that says so.

An account's list holds an address, why, and since when. One graver reason takes the place of another one, never a lighter: somebody who
complained and is unsubscribed again later still complained. The scripts read the same layouts (queue/lua/suppressing.lua).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from struct import Struct

import msgspec

from sendengine.types import Outcome


class Reason(StrEnum):
    """In the order of their weight."""

    UNSUBSCRIBED = "unsubscribed"
    MANUAL = "manual"
    SOFT_BOUNCED = "soft-bounced"
    HARD_BOUNCED = "hard-bounced"
    COMPLAINED = "complained"


WEIGHTS = {reason: weight for weight, reason in enumerate(Reason, ord("1"))}  # one octet; the greater is the graver
_REASONS = {weight: reason for reason, weight in WEIGHTS.items()}
_ENTRY = Struct("<BI")  # weight, since (UNIX s)
LATEST = 2**32 - 1


class Suppressed(msgspec.Struct, frozen=True):
    address: str
    reason: Reason
    since: datetime


class Listed(msgspec.Struct, frozen=True):
    """Addresses that were not on the list, and those that stood there for a lighter reason than now."""

    added: int = 0
    changed: int = 0

    def __add__(self, other: Listed) -> Listed:
        return Listed(self.added + other.added, self.changed + other.changed)

    def __bool__(self) -> bool:
        return self.added + self.changed > 0


def encode(reason: Reason, since: float) -> bytes:
    """What the list holds of an address."""
    return _ENTRY.pack(WEIGHTS[reason], max(0, min(LATEST, int(since))))


def decode(address: bytes, entry: bytes) -> Suppressed:
    weight, since = _ENTRY.unpack(entry)
    return Suppressed(address.decode(), _REASONS[weight], datetime.fromtimestamp(since, UTC))


def reason_of(entry: bytes) -> Reason:
    return _REASONS[entry[0]]


def graver(first: bytes | None, second: bytes) -> bytes:
    """Which of two entries of one address stands: of equal ones the first."""
    return second if first is None or second[0] > first[0] else first


def bars(reason: Reason, is_single: bool) -> bool:
    """Whether an address on the list gets this message. Who unsubscribed asked for no more news, not for no more receipts and password
    resets: single messages go to them; every other reason speaks of the mailbox or of its owner's anger, and holds for both."""
    return not (is_single and reason is Reason.UNSUBSCRIBED)


class Mark(IntEnum):
    """What an outcome says of its address."""

    GOOD = 1  # it took a message: its soft bounces in a row are over
    SOFT = 2
    FULL = 3  # soft: the mailbox is full, of which people come back
    HARD = 4  # there is no such mailbox: one is enough


# RFC 3463 subject.detail of what a relay said. Hard is only what says that the mailbox does not exist, and never will again:
_HARD = frozenset((
    "1.1",  # no such mailbox
    "1.2",  # no such domain
    "1.3",  # no address at all, to whoever should know
    "1.6",  # moved, and nobody knows where to
    "1.10",  # the domain says that it takes no mail (RFC 7505)
))  # fmt: skip
# 2.1 (disabled) is not among them: Gmail says 5.2.1 of a mailbox that gets too much at once, too. Nor 1.0 and 0.0, which say nothing.
_FULL = "2.2"
# Said of the sender or the message, whatever the subject: these speak of no mailbox.
_NOT_THEIRS = frozenset(("1.7", "1.8", "2.3"))
_OUR_LINE = frozenset(("4.4.1", "4.4.2"))  # nobody answered, or hung up
# 0 other, 1 address, 2 mailbox, 4 routing (4.7: it expired; 5.4.1 is what Microsoft says of mailboxes that it does not know). System,
# protocol, content and policy (3, 5, 6, 7) are trouble between a relay and us: a block of the sender must not empty a list.
_SOFT_SUBJECTS = frozenset(("0", "1", "2", "4"))
_SOFT_DETAILS = frozenset(("5.0",))  # Outlook's "mailbox unavailable"


def mark_of(outcome: Outcome, status: str) -> Mark | None:
    """What a recipient's end says of its address; None: nothing. `status` is the enhanced code, "5.1.1". One message that ends without
    success counts once, however often it was tried: a greylisted one would count ten otherwise."""
    if outcome is Outcome.SENT:
        return Mark.GOOD
    if outcome not in (Outcome.BOUNCED, Outcome.EXPIRED):
        return None
    subject_detail = status[2:]
    if subject_detail in _HARD and outcome is Outcome.BOUNCED:
        return Mark.HARD
    if subject_detail == _FULL:
        return Mark.FULL
    if subject_detail in _NOT_THEIRS or status in _OUR_LINE:
        return None
    is_soft = subject_detail.partition(".")[0] in _SOFT_SUBJECTS or subject_detail in _SOFT_DETAILS
    return Mark.SOFT if is_soft else None


class Limits(msgspec.Struct, frozen=True):
    """Bounces in a row that put an address on the list; 0: none do."""

    soft: int = 10
    full: int = 30


_MARK = Struct("<BBBB")  # row, mark, bounces in a row that are enough (0: none are), octets of the address


def pack_mark(row: int, mark: Mark, address: bytes, limits: Limits) -> bytes:
    """As a settlement carries it. Addresses have at most 254 octets (address.py)."""
    enough = {Mark.SOFT: limits.soft, Mark.FULL: limits.full}.get(mark, 0)
    return _MARK.pack(row, mark, enough, len(address)) + address


def is_hard(mark: bytes) -> bool:
    """Of a packed one, or of none."""
    return mark[1:2] == bytes((Mark.HARD,))


def unpack_marks(marks: bytes) -> Iterable[tuple[int, Mark, int, bytes]]:
    at = 0
    while at < len(marks):
        row, mark, enough, size = _MARK.unpack_from(marks, at)
        at += _MARK.size + size
        yield row, Mark(mark), enough, marks[at - size : at]
