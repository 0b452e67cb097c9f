"""What a worker holds in its hands: a delivery, its lease, its campaign's share of an account. Mutable; owner: the account's lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from sendengine.policy.suppression import Reason, is_hard
from sendengine.records import FIRST_TRY, KIND_DEFERRED, KIND_DOUBT, KIND_OUTCOME, MASK_OCTETS, NO_REPLY

if TYPE_CHECKING:
    from sendengine.engine.campaigns import Campaign
    from sendengine.engine.journal import Tick
    from sendengine.engine.lane import Lane
    from sendengine.render.renderer import Renderer
    from sendengine.render.sms import SmsText


NONE_BARRED: Mapping[int, Reason] = MappingProxyType({})
NO_ROWS: frozenset[int] = frozenset()


class Delivery:
    """One recipient on its way, from the permit to the verdict and, with what became of it, through the journal to its lease. Satisfies
    types.Envelope."""

    __slots__ = (
        "acked_at", "cut", "due", "eightbit", "is_resolved", "kind", "lane", "lapses_at", "lease", "mail_wall", "making", "permit_us",
        "recipient", "record", "reply", "row", "sender", "tick", "wire",
    )  # fmt: skip

    lane: Lane
    lease: Lease
    row: int
    sender: bytes
    recipient: bytes
    wire: bytes
    making: Callable[[], bytes] | None  # its octets are on their way from the signer
    eightbit: bool
    due: float  # monotonic; 0.0 unmetered
    lapses_at: float
    permit_us: float  # the permit's time on Redis' clock, against which a cut is compared; 0.0 unmetered
    cut: int
    tick: Tick | None  # where its open intent is journalled
    acked_at: float  # when that append was answered, or should have been: its intent is fresh from then on
    is_resolved: bool  # what became of it stands in the journal, or is on its way there. Then, and only then:
    kind: int  # of its entry there, and its record (records.py)
    record: bytes
    mail_wall: float  # µs; 0.0 when no MAIL was written
    reply: int  # the number of the reply that it refers to

    @property
    def is_alone(self) -> bool:
        """A doubt would be its end: nobody else's trouble shall cause one."""
        return self.lease.campaign.holds_doubts

    @property
    def is_void(self) -> bool:
        """A cut since its permit was granted reaches back to it, its campaign was stopped, or its recipient is suppressed. One without a
        permit is reached by any cut since it was picked: its intent may have been journalled after a stop, by a worker that stood still,
        and that answer is fresh."""
        lease = self.lease
        return self.is_cut or lease.is_closing or self.row in lease.barred

    @property
    def is_cut(self) -> bool:
        """Nobody may go on its permit any more."""
        lane = self.lane
        return lane.is_distrusted or (self.cut < lane.cut and (not self.permit_us or self.permit_us > lane.void_after(self.cut)))


class Lease:
    """A batch taken under a token. Its rows are pending, open (journalled or on the wire), or resolved.

    What is settled from here is journalled already: `resolve` is called by the journal when an append is answered.
    """

    __slots__ = (
        "back", "barred", "bars_since", "batch", "campaign", "counts", "deferred", "doubts", "final", "first_mail", "idle_us", "is_closing",
        "is_retry", "last_first", "last_mail", "mails", "marks", "number", "open", "past", "pending", "recipients", "records",
        "refs", "renderer", "replies", "resolved_at", "screened", "sender", "share", "soft", "taken_at", "token", "tried",
        "unmarked", "values",
    )  # fmt: skip

    def __init__(self, number: int, token: bytes, share: Share, batch: int, rows: list[int], taken_at: float, idle_us: float = 0.0) -> None:
        self.number = number
        self.token = token
        self.share = share
        self.campaign: Campaign = share.campaign
        self.batch = batch
        self.pending = rows  # the next one last
        self.open = 0
        self.past: dict[int, tuple[int, int]] = {}  # row -> tries, first MAIL (active s)
        self.renderer: Renderer | SmsText
        self.sender = share.campaign.sender
        self.values: dict[int, tuple[bytes, ...]] = {}
        self.recipients: dict[int, bytes] = {}
        self.taken_at = taken_at
        self.idle_us = idle_us  # of its campaign, when it was taken; a pause ends the lease
        self.is_closing = False
        self.is_retry = False  # every row of it was tried before
        self.screened = -1  # changes of the account's list under which its rows were looked up
        self.barred = NONE_BARRED  # rows that are not to be sent, and why
        self.soft = NO_ROWS  # rows whose address bounced softly the last time
        self.unmarked: dict[int, bytes] = {}  # row -> what its end says of its address; settled with it
        self.clear()

    def clear(self) -> None:
        """Nothing is waiting to be settled."""
        self.records = bytearray()
        self.deferred = bytearray()
        self.doubts = bytearray()
        self.marks = bytearray()
        self.bars_since = 0.0  # since when a hard bounce waits to be settled: other sends may hold that address
        self.back = 0
        self.final = 0
        self.counts = [0, 0, 0, 0, 0, 0]
        self.tried = 0
        self.mails = 0
        self.first_mail = self.last_first = self.last_mail = 0.0
        self.replies: set[int] = set()
        self.refs: dict[Tick, int] = {}
        self.resolved_at = 0.0

    def absorb(self, delivery: Delivery, now: float) -> None:
        """A journalled outcome; waits here for the next settlement."""
        self.open -= 1
        kind, body, mail_wall, reply = delivery.kind, delivery.record, delivery.mail_wall, delivery.reply
        row, what = body[0], body[1]
        if kind == KIND_OUTCOME:
            self.records += body
            self.final |= 1 << row
            self.counts[what % FIRST_TRY - 1] += 1
            if reply != NO_REPLY:
                self.replies.add(reply)
            if what >= FIRST_TRY:
                self.tried += 1
        elif kind == KIND_DEFERRED:
            self.deferred += body
        else:
            self.doubts += body
            if reply != NO_REPLY:
                self.replies.add(reply)
        if mail_wall:
            self.mails += 1
            if mail_wall > self.last_mail:
                self.last_mail = mail_wall
            if what >= FIRST_TRY:
                if mail_wall > self.last_first:
                    self.last_first = mail_wall
                if not self.first_mail or mail_wall < self.first_mail:
                    self.first_mail = mail_wall
        if self.unmarked and kind == KIND_OUTCOME:
            mark = self.unmarked.pop(row, b"")
            self.marks += mark
            if not self.bars_since and is_hard(mark):
                self.bars_since = now
        if not self.resolved_at:
            self.resolved_at = now

    @property
    def is_done(self) -> bool:
        return not self.pending and not self.open

    def back_mask(self) -> bytes:
        return self.back.to_bytes(MASK_OCTETS, "little") if self.back else b""


class Unsettled(NamedTuple):
    """Journalled outcomes of a lease that no settlement took yet: its number, the ticks they stand in, and by kind their records."""

    lease: int
    refs: dict[Tick, int]
    bodies: tuple[tuple[int, bytes | bytearray], ...]

    @classmethod
    def of(
        cls, lease: Lease, refs: dict[Tick, int], outcomes: bytes | bytearray, deferred: bytes | bytearray, doubts: bytes | bytearray
    ) -> Unsettled:  # fmt: skip
        return cls(lease.number, refs, ((KIND_OUTCOME, outcomes), (KIND_DEFERRED, deferred), (KIND_DOUBT, doubts)))


class Share:
    """A campaign's part of what a lane holds: leases with rows never tried, and with rows tried before."""

    __slots__ = ("again", "campaign", "first_tries", "fresh", "lane", "leases", "rows", "take_at")

    def __init__(self, lane: Lane, campaign: Campaign) -> None:
        self.lane = lane
        self.campaign = campaign
        self.leases: dict[int, Lease] = {}
        self.fresh: deque[Lease] = deque()
        self.again: deque[Lease] = deque()
        self.rows = 0  # pending in all of them
        self.first_tries = 0  # of these, in leases that are no retries
        self.take_at = 0.0  # nothing is left to take of it: not to be asked for before

    def count(self, lease: Lease, n: int) -> None:
        """n pending rows more, or less, in one of its leases."""
        self.rows += n
        if not lease.is_retry:
            self.first_tries += n
