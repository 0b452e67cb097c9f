"""An account attached to this worker: what it holds, what it may send, and who is next. Decides; does no I/O.

The order of use of a permit: a transactional message (at most 9 of 10 while bulk waits), then the campaign whose turn the deal names,
and in it a retry (at most 1 of 5 while first tries wait), else a first try (domain 1.1, 1.7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from sendengine.engine.feed import Feed
from sendengine.engine.pacing import Pace, Permits, Run
from sendengine.engine.settings import EngineSettings
from sendengine.engine.work import Lease, Share, Unsettled
from sendengine.lanes import is_paid
from sendengine.policy.retry import suspension
from sendengine.ports import Settlement, Visited
from sendengine.records import TRANSACTIONAL
from sendengine.types import Way

if TYPE_CHECKING:
    from sendengine.engine.journal import Tick

TRANSACTIONAL_RUN = 9  # permits in a row that transactional messages may take while bulk waits
RETRY_EVERY = 5
CUTS_KEPT = 32  # numbers: a delivery leaves its feed within a second or is void
SETTLE_SOONEST, SETTLED_TOGETHER = 1.0, 20
RIVALS_FOR = 5.0  # seconds
LISTED_WITHIN = 0.3  # seconds from a hard bounce to the list


class Lane:
    """Owner of an account's shares, leases and permits in this worker."""

    # So many attributes without slots would be a dict for each of ten thousand, looked up a fifth slower.
    __slots__ = (
        "_in_a_row", "_next_share", "_refusals", "_settings", "_since_retry", "_void_after", "account", "bind", "bind_told", "closes_at",
        "cut", "dirty", "due_at", "feed", "granted_to", "has_done", "horizon", "idle_us", "ignored", "interval", "is_distrusted",
        "is_gone", "is_known", "is_leaving", "is_paid", "is_taking", "is_visiting", "lapse", "licence_until", "listed", "lost_until",
        "low_water", "must_check", "must_look", "must_refresh", "must_return", "must_screen", "pace", "permits", "rate", "relay",
        "returns", "rivals_until", "served_at", "settle_after", "shares", "suspended_until", "take_at", "unsent", "visit_at", "wake_at",
    )  # fmt: skip

    def __init__(self, account: str, relay: Way, feed: Feed, settings: EngineSettings) -> None:
        self.account = account
        self.is_paid = is_paid(account)
        self.relay = relay
        self.feed = feed
        self._settings = settings
        self.shares: dict[str, Share] = {}
        self.permits = Permits()
        self.pace = Pace()
        self.keep(0.0)
        self.is_known = False  # a visit has told the interval
        self.licence_until = 0.0  # unmetered: may send until then
        self.closes_at = float("inf")  # the account's term ends: nothing goes from then on
        self.cut = 0
        self._void_after: dict[int, float] = {}  # cut number of a grant -> µs of Redis after which its permits are void
        self.idle_us = 0.0
        self.dirty: dict[Lease, None] = {}  # leases with something to settle
        self.unsent: list[tuple[Settlement, Lease, dict[Tick, int]]] = []  # settlements whose visit failed
        self.returns: list[Settlement] = []  # of takes whose answer was lost: whatever they leased goes back
        self.is_distrusted = False  # Redis may have lost what we hold of it, and has not been heard of it since
        self.is_gone = False  # detached: a call that is still under way must not bring it back
        self.ignored: set[str] = set()  # campaigns this process cannot read (newer payloads)
        self.visit_at = 0.0
        self.take_at = 0.0  # not to be looked at before, when hungry (and each share has a time of its own)
        self.wake_at = float("inf")  # a retry, a schedule or a window falls due, hungry or not
        self.is_visiting = self.is_taking = self.is_leaving = self.must_check = False
        self.served_at = 0.0  # when a session last took a delivery of it
        self.due_at = 0.0  # when its permits are looked at next; 0.0: it has none
        self.must_return = False  # a visit was due while one was under way, which asked before whatever has changed
        self.must_refresh = False  # the account's settings changed
        self.lost_until = 0.0  # permits up to then were granted to us and are not held: their time is for whoever asks next
        self.listed = -1  # how often the list of suppressed addresses has changed; -1: there is none
        self.must_screen = False  # something held was screened under another number: nothing is picked until it is (screening.py)
        self.must_look = False  # something changed while a take was on its way
        self.has_done = False  # a lease has nothing left but to be settled
        self.granted_to = 0.0  # our last permit's time, µs of Redis
        self.rivals_until = 0.0  # other workers had permits of it between ours, and may have still
        self.bind = ""
        self.bind_told = "?"
        self.suspended_until = 0.0
        self._refusals = 0
        self._in_a_row = 0
        self._since_retry = 0
        self._next_share = 0

    # speed

    def keep(self, interval: float) -> None:
        """Seconds between messages, 0 when unmetered; and what follows from it, which is asked for with every message."""
        s = self._settings
        self.interval = interval
        self.rate = 1 / interval if interval else float("inf")  # messages per second
        self.horizon = min(s.horizon_max, max(s.horizon_min, s.horizon_permits * interval))  # seconds that permits are asked for
        self.lapse = min(0.5, max(0.1, 0.5 * interval))  # how long a permit stays usable after its time
        # How old an outcome may grow before it is settled: some twenty go together, within the limits.
        self.settle_after = min(s.settle_after, max(SETTLE_SOONEST, SETTLED_TOGETHER * interval))
        # Rows of a campaign below which more are taken.
        self.low_water = int(self.rate * max(self.horizon, s.lease / 2)) + 2 if interval else s.unmetered_rows // 2

    @property
    def is_shared(self) -> bool:
        """Its rate, or its relay, needs more workers than one."""
        return self.rate > self._settings.spread_above or self.bind.startswith("connections")

    def grant(self, visited: Visited, replied_at: float, held: list[Share], asked_under: int) -> None:
        """Permits as this worker's clock sees them. `asked_under`: the cut number known when the visit was asked."""
        if self.is_distrusted:
            if visited.permits and visited.interval_us:
                self.lose(replied_at + (visited.delay_us + visited.permits * visited.interval_us) / 1e6)
            return
        interval = visited.interval_us / 1e6
        if interval != self.interval:
            self.keep(interval)
        self.is_known = True
        self.idle_us = visited.idle_us
        self.see_cut(visited, asked_under)
        offset = visited.now_us / 1e6 - replied_at
        self.closes_at = visited.closes_us / 1e6 - offset if visited.closes_us else float("inf")
        if not self.interval:
            has_seen_all = max(visited.cut, asked_under) == self.cut  # else the inbox told of a later change meanwhile
            licence = min(replied_at + 2 * self._settings.horizon_max, self.closes_at)
            self.licence_until = licence if visited.permits and has_seen_all else 0.0
            return
        self._note_rivals(visited, replied_at)
        at = replied_at + visited.delay_us / 1e6
        self.permits.grant(Run(at, self.interval, visited.permits, visited.cut, offset, visited.deal, held))
        if visited.cut < self.cut:  # granted before a cut of which the inbox told first
            self.permits.apply_cut(self.cut, self.void_after(visited.cut))

    def _note_rivals(self, visited: Visited, replied_at: float) -> None:
        """Of an account that is ours alone the first new permit follows the last one that we were granted, or now. Else others have some
        (or an answer to us was lost, or a boost begins: that costs some visits)."""
        first, interval = visited.now_us + visited.delay_us, visited.interval_us
        fresh = visited.now_us + (self._settings.tick + self._settings.lead) * 1e6
        if first > max(self.granted_to, fresh) + 1.5 * interval:
            self.rivals_until = replied_at + RIVALS_FOR
        if visited.permits:
            self.granted_to = first + (visited.permits - 1) * interval

    def distrust(self) -> None:
        """Nothing of it may go until its leases were asked after (visits.py)."""
        self.is_distrusted = True
        self.licence_until = 0.0
        self.lose(self.permits.end() or 0.0)
        self.permits = Permits()

    def lose(self, until: float) -> None:
        """Permits up to then are lost; the next visit cuts."""
        self.lost_until = max(self.lost_until, until)

    def see_cut(self, visited: Visited, asked_under: int) -> None:
        """An account that is behind what it had told before has lost it, in a failover: its numbers begin anew from where it stands."""
        if visited.cut < asked_under <= self.cut:
            self.cut = visited.cut
            self._void_after.clear()
            self.permits = Permits()
            self.licence_until = 0.0
        elif visited.cut > self.cut:
            self.learn_cut(visited.cut, visited.cut_us)

    def learn_cut(self, number: int, cut_us: float) -> None:
        """A cut that skips a number may have followed an earlier one not heard of: then everything older is void. An unmetered account has
        no permits; its licence ends instead, until a visit has read what changed."""
        if number <= self.cut:
            return
        self.licence_until = 0.0
        voids = self._void_after
        if number > self.cut + 1:
            voids.clear()
        else:
            for older, after in voids.items():
                voids[older] = min(after, cut_us)  # what an earlier cut made void stays so
            voids[self.cut] = cut_us
            if len(voids) > CUTS_KEPT:
                del voids[min(voids)]
        self.permits.apply_cut(number, cut_us if voids else 0.0)
        self.cut = number

    def void_after(self, cut: int) -> float:
        """Permits granted under this number are void later than that (µs of Redis); those of a forgotten number always."""
        return self._void_after.get(cut, 0.0) if cut < self.cut else float("inf")

    # what it holds

    @property
    def rows(self) -> int:
        return sum(share.rows for share in self.shares.values())

    @property
    def has_leases(self) -> bool:
        return any(share.leases for share in self.shares.values())

    def iter_leases(self) -> Iterator[Lease]:
        return (lease for share in self.shares.values() for lease in share.leases.values())

    def leases(self) -> list[Lease]:
        return list(self.iter_leases())

    def unsettled(self) -> Iterator[Unsettled]:
        """What became of its deliveries and stands in the journal alone."""
        for settlement, lease, refs in self.unsent:
            yield Unsettled.of(lease, refs, settlement.records, settlement.deferred, settlement.doubts)
        for lease in self.dirty:
            yield Unsettled.of(lease, lease.refs, lease.records, lease.deferred, lease.doubts)

    def hungry_at(self) -> float | None:
        """When more is to be taken, as far as it is known where there is some; None while enough is held of every campaign."""
        if not self.shares:
            return self.take_at
        soonest, low = None, self.low_water
        for share in self.shares.values():
            if share.first_tries < low and (soonest is None or share.take_at < soonest):
                soonest = share.take_at
        return None if soonest is None else max(self.take_at, soonest)

    def look_anew(self) -> None:
        """Whatever was found empty may have something."""
        self.take_at = 0.0
        for share in self.shares.values():
            share.take_at = 0.0

    def rows_wanted(self) -> int:
        if not self.is_known:
            return 1
        if not self.interval:
            return self._settings.unmetered_rows
        return max(1, int(self.rate * self._settings.lease))

    def enough(self) -> tuple[list[str], list[str]]:
        """Campaigns of which no more first tries, and no more retries, are wanted now."""
        low, ignored = self.low_water, sorted(self.ignored)
        first = [name for name, share in self.shares.items() if share.first_tries >= low]
        again = [name for name, share in self.shares.items() if share.rows - share.first_tries >= low]
        return first + ignored, again + ignored

    def add(self, lease: Lease) -> None:
        share = lease.share
        self.shares.setdefault(share.campaign.id, share)  # its other leases may have ended while this one was opened
        share.leases[lease.number] = lease
        lease.is_retry = bool(lease.pending) and all(row in lease.past for row in lease.pending)
        share.count(lease, len(lease.pending))
        if lease.pending:
            (share.again if lease.is_retry else share.fresh).append(lease)

    def drop(self, lease: Lease) -> None:
        """It is settled, or not ours any more."""
        share = lease.share
        if share.leases.pop(lease.number, None) is None:
            return
        share.count(lease, -len(lease.pending))
        lease.pending.clear()
        self.dirty.pop(lease, None)
        if not share.leases:
            self.shares.pop(share.campaign.id, None)

    def give_back(self, lease: Lease) -> None:
        """Pending rows of a lease become READY for anybody with the next settlement; what is open ends first."""
        lease.is_closing = True
        lease.share.count(lease, -len(lease.pending))
        for row in lease.pending:
            lease.back |= 1 << row
        lease.pending.clear()
        self.dirty[lease] = None
        self.has_done = True

    def withhold(self, lease: Lease, rows: Collection[int]) -> None:
        """These of its pending rows are not picked: the caller knows what becomes of them."""
        if rows:
            lease.pending = [row for row in lease.pending if row not in rows]
            lease.share.count(lease, -len(rows))

    def return_row(self, lease: Lease, row: int) -> None:
        """A recipient that was picked and certainly not sent."""
        if lease.is_closing:
            lease.back |= 1 << row
            self.dirty[lease] = None
            self.has_done = True
            return
        if not lease.pending:
            (lease.share.again if lease.is_retry else lease.share.fresh).appendleft(lease)
        lease.pending.append(row)
        lease.share.count(lease, 1)

    # who is next

    def pick(self, share: Share | None) -> tuple[Lease, int] | None:
        """The lease and row that use a permit whose turn is `share`'s; None when nothing is held."""
        special = self.shares.get(TRANSACTIONAL)
        if special is not None and special.rows and (self._in_a_row < TRANSACTIONAL_RUN or special.rows == self.rows):
            self._in_a_row += 1
            return self._pop(special, special.again or special.fresh)
        self._in_a_row = 0
        if share is None or not share.rows or share is special:
            share = self._any_share()
            if share is None:
                return None
        self._since_retry += 1
        if share.again and (self._since_retry >= RETRY_EVERY or not share.fresh):
            self._since_retry = 0
            return self._pop(share, share.again)
        return self._pop(share, share.fresh)

    def _any_share(self) -> Share | None:
        if len(self.shares) == 1:
            [share] = self.shares.values()
            return share if share.rows and share.campaign.id != TRANSACTIONAL else None
        shares = [share for share in self.shares.values() if share.rows and share.campaign.id != TRANSACTIONAL]
        if not shares:
            return None
        self._next_share += 1
        return shares[self._next_share % len(shares)]

    def _pop(self, share: Share, queue: deque[Lease]) -> tuple[Lease, int] | None:
        while queue:
            lease = queue[0]
            if lease.pending:
                row = lease.pending.pop()
                share.count(lease, -1)
                if not lease.pending:
                    queue.popleft()
                return lease, row
            queue.popleft()
        return None

    # trouble

    def refuse(self, now: float, seconds: float) -> None:
        """The relay refuses this account: suspended, at least a minute, doubling while it goes on."""
        self.suspended_until = max(self.suspended_until, now + suspension(seconds, self._refusals))
        self._refusals += 1

    def accept(self, mail_at: float) -> None:
        """The relay took a message that began after its refusal was over: refusals start anew."""
        if self._refusals and mail_at >= self.suspended_until:
            self._refusals = 0
            self.suspended_until = 0.0
