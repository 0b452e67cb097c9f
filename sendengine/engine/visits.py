"""Visits: outcomes in, permits out (design 3.1.4, 3.1.9). When an account is visited, what it asks for, and what the answer changes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from math import ceil

from sendengine import records
from sendengine.engine.journal import Journal, Tick
from sendengine.engine.lane import LISTED_WITHIN, Lane
from sendengine.engine.pacing import Wheel
from sendengine.engine.settings import EngineSettings
from sendengine.engine.takeover import ask_after
from sendengine.engine.work import Lease
from sendengine.errors import Unavailable
from sendengine.ports import Meter, Queue, Settlement, Visited

CREDIT_US = 10_000.0  # that the script subtracts (queue/lua/visit.lua)
MOST_HELD = 250  # campaigns of an account in one visit: a place among them is an octet
RESYNC_ACCOUNTS = 200  # visited at once when everything is settled again
RESYNC_S = 2.0  # all of them; who has not answered then keeps no other waiting
ASK_EVERY, ASK_FOR = 1.0, 10.0
UNMETERED_VISIT = 0.5  # gate and states are looked at so often where no permits are needed
ASKED_AHEAD = 1.0  # seconds, at most, before the last permit is due, of an account that is ours alone: each visit brings all that it may
SHARED_TIME, SHARED_PERMITS = 0.5, 8  # of several workers each comes after a part of so many seconds, or of the time of so many permits
COLLECTED = 0.6  # of their age: what a visit for permits takes along, rather than one of its own
LEFT_LEAST = 0.2  # seconds of permits that nobody else could have: a cut gives back no less
CLOSES_SOON = 60.0  # an end of the term that is nearer is looked at, though nothing else brings a visit


class Visits:
    """Owner of the visit wheel and of the settlements that Redis might still lose."""

    def __init__(
        self, queue: Queue, journal: Journal, settings: EngineSettings, meter: Meter, now: Callable[[], float],
        jitter: Callable[[], float], visited: Callable[[Lane], None], spawn: Callable[[Coroutine[object, object, None]], None],
    ) -> None:  # fmt: skip
        self._queue, self._journal, self._settings, self._meter, self._now, self._jitter = queue, journal, settings, meter, now, jitter
        self._visited, self._spawn = visited, spawn
        # a fresh clock starts where its first message can still be journalled in time: the grid is kept from the first MAIL on
        self._lead_us = (settings.tick + settings.lead) * 1e6 + CREDIT_US
        self.wheel: Wheel[Lane] = Wheel(settings.tick)
        self._retained: deque[tuple[float, str, Settlement]] = deque()
        self._owed: dict[str, dict[int, Settlement]] = {}  # by account and identity: to be settled again
        self._asking: dict[str, Lane | None] = {}  # accounts that are asked again and again, and what we hold of each
        self.is_leaving = False

    @property
    def owes(self) -> bool:
        """Redis may have lost a settlement, and has not taken it again."""
        return bool(self._owed)

    def at(self, lane: Lane, when: float) -> None:
        """Visit it no later than `when`."""
        if lane.is_gone:
            return
        if not lane.visit_at or when < lane.visit_at:
            lane.visit_at = when
            self.wheel.put(when, lane)

    def run_due(self, now: float) -> None:
        """Start the visits that are due; while Redis is away they wait."""
        for lane in self.wheel.take(now):
            if not lane.visit_at or lane.visit_at > now + self._settings.tick:
                continue  # visited since, or due later again
            if self._journal.is_away:
                lane.visit_at = 0.0
                self.at(lane, now + self._settings.poll)
                continue
            self.start(lane)

    def start(self, lane: Lane) -> None:
        lane.visit_at = 0.0
        lane.must_return |= lane.is_visiting
        if not lane.is_visiting and not lane.is_gone and not lane.is_distrusted:
            lane.is_visiting = True
            self._spawn(self._visit(lane))

    async def _visit(self, lane: Lane) -> None:
        lost, lane.lost_until = lane.lost_until, 0.0
        is_cut = lost <= self._now() + LEFT_LEAST or await self._cut(lane)
        now = self._now()
        self._collect(lane, now)
        sending = list(lane.unsent)
        returned = list(lane.returns)
        held = list(lane.shares.values())[:MOST_HELD]
        if lane.suspended_until <= now and lane.bind.startswith("relay"):
            lane.bind = lane.feed.bind
        bind = "=" if lane.bind == lane.bind_told else lane.bind
        want, asked_under = self._wanted(lane, now), lane.cut
        lane.must_check = lane.must_return = False
        try:
            settlements = [*(settlement for settlement, _, _ in sending), *returned]
            names = [share.campaign.id for share in held]
            reply = await self._queue.visit(lane.account, want, lane.horizon * 1e6, bind, names, settlements, self._lead_us)
        except Unavailable:
            lane.is_visiting = False
            if want and lane.interval:  # it may have been granted what it asked for
                lane.lose(now + lane.horizon)
            if not is_cut:
                lane.lose(lost)
            self.at(lane, self._now() + self._settings.poll)
            return
        replied_at = self._now()
        self._meter.visited(replied_at - now)
        if reply.spent:
            self._meter.spent(reply.spent)
        lane.is_visiting = False
        if bind != "=":
            lane.bind_told = bind
        del lane.unsent[: len(sending)]
        del lane.returns[: len(returned)]
        for (settlement, lease, refs), acted in zip(sending, reply.acted, strict=False):
            self._accepted(lane, settlement, lease, refs, acted)
        for place in reply.stopped:
            for lease in list(held[place].leases.values()):
                if not lease.is_closing:  # it was given back, and something of it is on the wire yet
                    lane.give_back(lease)
        lane.grant(reply, replied_at, held, asked_under)
        lane.listed = reply.listed
        if reply.has_begun:
            lane.look_anew()  # there is more to take
            lane.wake_at = 0.0
        self._next(lane, reply, replied_at, want)
        self._visited(lane)

    async def _cut(self, lane: Lane) -> bool:
        """False when it failed. Where the visit then has an answer, it was another worker that could not be told, and once must do: each
        repeat would void permits of those that were told."""
        try:
            number, cut_us = await self._queue.leave(lane.account, lane.cut)
        except Unavailable:
            return False
        lane.learn_cut(number, cut_us)
        return True

    def _wanted(self, lane: Lane, now: float) -> int:
        """Permits for the rows in hand, the horizon's at most. None while the site cannot take messages."""
        if lane.is_leaving or lane.suspended_until > now or not lane.rows:
            return 0
        if not lane.feed.site.is_open:
            lane.feed.site.warm()
            return 0
        if not lane.is_known or not lane.interval:
            return 1
        lane.permits.lapse(now - lane.lapse)
        return max(0, min(lane.rows - lane.permits.count(), ceil(lane.horizon / lane.interval) + 1))

    def _next(self, lane: Lane, reply: Visited, now: float, want: int) -> None:
        """When to come again: some time before the permits end or, without any, the first one falls due, or when outcomes grow old."""
        end = lane.permits.end()
        if not lane.interval:
            when = now + UNMETERED_VISIT if lane.rows else None
        elif want:
            ahead = self._ahead(lane, now)
            soonest = now if reply.permits else now + reply.delay_us / 1e6 - ahead  # no more was to be had: not before there is
            when = soonest if end is None else max(soonest, end - ahead)
        elif end is not None:
            when = end if end > now else end + lane.lapse  # they are enough; whom they do not reach after all needs others then
        else:
            when = None
        if lane.rows and lane.closes_at < (now + CLOSES_SOON if when is None else when):
            when = lane.closes_at + self._settings.tick  # what is held goes back
        if lane.suspended_until > now:
            when = min(when or lane.suspended_until, lane.suspended_until)
        if lane.has_done or lane.must_check or lane.must_return or lane.returns:
            when = now
        elif lane.dirty:
            oldest = min(lease.resolved_at or now for lease in lane.dirty)
            bars = min((lease.bars_since for lease in lane.dirty if lease.bars_since), default=float("inf"))
            when = min(when or float("inf"), oldest + lane.settle_after, bars + LISTED_WITHIN)
        if when is not None:
            self.at(lane, max(when, now + self._settings.tick / 2))

    def _ahead(self, lane: Lane, now: float) -> float:
        """How long before its permits end it is asked for more: not always the same. Of several workers that came in turns, at a distance
        that stays, each would get what has become due since the one before it: one more than its sessions can use, the others less.
        For the same reason each of them comes often."""
        jitter = self._jitter()
        if lane.rivals_until > now:
            return lane.horizon - (0.05 + 0.2 * jitter) * min(lane.horizon, max(SHARED_TIME, SHARED_PERMITS * lane.interval))
        return min(lane.horizon * (0.4 + 0.2 * jitter), ASKED_AHEAD)

    # settlement

    def _collect(self, lane: Lane, now: float) -> None:
        """Leases whose outcomes are old enough, or that are done, become settlements."""
        lane.has_done = False
        for lease in list(lane.dirty):
            age = now - lease.resolved_at if lease.resolved_at else 0.0
            is_urgent = lease.bars_since and now - lease.bars_since >= LISTED_WITHIN * 0.8
            if lease.is_done or lease.back or is_urgent or age >= lane.settle_after * COLLECTED or lane.is_leaving:
                lane.unsent.append((self._settlement(lease), lease, lease.refs))
                lease.clear()
                del lane.dirty[lease]

    def _settlement(self, lease: Lease) -> Settlement:
        texts = self._journal.reply_text
        dictionary = b",".join(b'"%d":%b' % (number, texts(number)) for number in lease.replies)
        times = (lease.first_mail, lease.last_first, lease.last_mail)
        return Settlement(
            token=lease.token,
            final=lease.final.to_bytes(records.MASK_OCTETS, "little"),
            records=bytes(lease.records),
            dictionary=b"{" + dictionary + b"}",
            nums=records.NUMS.pack(*lease.counts, lease.tried, lease.mails, *times),
            deferred=bytes(lease.deferred),
            doubts=bytes(lease.doubts),
            back=lease.back_mask(),
            marks=bytes(lease.marks),
        )

    def _accepted(self, lane: Lane, settlement: Settlement, lease: Lease, refs: dict[Tick, int], acted: int) -> None:
        now = self._now()
        self._journal.settled(refs)
        # Also one that found nothing to do: it may be the repeat of one whose answer was lost, which Redis may lose yet.
        self._retained.append((now, lane.account, settlement))
        while self._retained and self._retained[0][0] < now - self._settings.retain:
            self._retained.popleft()
        if not acted:
            self._give_up(lane, lease)
        elif lease.is_done and lease not in lane.dirty and all(other is not lease for _, other, _ in lane.unsent):
            lane.drop(lease)
            self._journal.forget(lease)

    def _give_up(self, lane: Lane, lease: Lease) -> None:
        """Not ours any more: purged, or Redis has lost the take and the batch waits again."""
        if lease.number not in lease.share.leases:
            return
        self._journal.settled(lease.refs)
        lease.clear()
        lease.is_closing = True
        lane.drop(lease)
        self._journal.forget(lease)

    async def settle_again(self, lanes: Iterable[Lane]) -> None:
        """After a reconnect: what was settled lately, once more; rows that are not leased any more ignore it. And each lease is asked
        after, by a settlement of nothing: of one that does not stand nothing more may go."""
        for _, account, settlement in self._retained:
            self._owed.setdefault(account, {})[id(settlement)] = settlement
        held = {lane.account: lane for lane in lanes if lane.has_leases or lane.is_distrusted}
        accounts = {account: held.get(account) for account in self._owed | held}
        gate = asyncio.Semaphore(RESYNC_ACCOUNTS)
        asked = {asyncio.ensure_future(self._answers(gate, account, lane)): (account, lane) for account, lane in accounts.items()}
        if asked:
            await asyncio.wait(asked, timeout=RESYNC_S)
        for answering, (account, lane) in asked.items():
            if not (answering.done() and answering.result()):
                answering.cancel()
                self._ask_again(account, lane)

    async def _answers(self, gate: asyncio.Semaphore, account: str, lane: Lane | None) -> bool:
        try:
            async with gate:
                await self._ask_after(account, lane)
        except Unavailable:
            return False
        return True

    def _ask_again(self, account: str, lane: Lane | None) -> None:
        """It is out of reach: nothing of it goes until it has answered."""
        if lane is not None:
            lane.distrust()
        if account not in self._asking:
            self._spawn(self._ask_until_it_answers(account))
        self._asking[account] = lane

    async def _ask_until_it_answers(self, account: str) -> None:
        """Or all of Redis is away: then the next reconnect begins anew."""
        try:
            while True:
                await asyncio.sleep(ASK_EVERY)
                if self._journal.is_away or self.is_leaving:
                    return
                try:
                    async with asyncio.timeout(ASK_FOR):
                        await self._ask_after(account, self._asking[account])
                except (Unavailable, TimeoutError):
                    continue
                lane = self._asking[account]  # a reconnect meanwhile may have brought another one, and more to settle
                if account not in self._owed and not (lane is not None and lane.is_distrusted):
                    return
        finally:
            del self._asking[account]

    async def _ask_after(self, account: str, lane: Lane | None) -> None:
        owed, leases = dict(self._owed.get(account, {})), lane.leases() if lane is not None else []
        asked_under = lane.cut if lane is not None else 0
        asked = [ask_after(lease.token) for lease in leases]
        reply = await self._queue.visit(account, 0, 0.0, "=", [], [*owed.values(), *asked])
        self._paid(account, owed)
        if lane is None:
            return
        for lease, stands in zip(leases, reply.acted[len(owed) :], strict=True):
            if not stands:
                self._give_up(lane, lease)
        lane.see_cut(reply, asked_under)
        if lane.is_distrusted:
            lane.is_distrusted = False
            self.at(lane, self._now())

    def _paid(self, account: str, settlements: Iterable[int]) -> None:
        owed = self._owed.get(account, {})
        for identity in settlements:
            owed.pop(identity, None)
        if not owed:
            self._owed.pop(account, None)
