"""Finding work and taking it: index -> lane -> leases (design 3.1.2, 3.1.3); and leaving an account again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import chain

import structlog

from sendengine.engine.batches import Batches
from sendengine.engine.delivery import Deliveries
from sendengine.engine.feed import Feed
from sendengine.engine.identity import Identity
from sendengine.engine.journal import Journal
from sendengine.engine.lane import Lane
from sendengine.engine.screening import Screening
from sendengine.engine.settings import EngineSettings
from sendengine.engine.takeover import give_back
from sendengine.engine.visits import LEFT_LEAST, MOST_HELD, Visits
from sendengine.engine.work import Unsettled
from sendengine.errors import SendEngineError, Unavailable
from sendengine.policy.window import Window
from sendengine.ports import Queue
from sendengine.types import Way

log = structlog.get_logger("sendengine.takes")

TOKEN_OCTETS = 8
LEASES_MOST = 16  # of one take: more would keep Redis, and then our own loop, busy for longer than a millisecond or two
LOOK_AHEAD = 5.0  # visits come by themselves in longer times than this
UNREADABLE_FOR = 60.0  # a campaign that this release cannot read is left alone so long
TRIED_AGAIN = 1.0  # an account that could not be read is found again after so long
OFFERED_AGAIN = 1.0  # we took out of the index what was meant for others
TURN_EARLY = 0.25  # a window's look was due by Redis' clock: by ours, which is an estimate of it, the turn may lie a moment ahead
HUNGRY_AGAIN = 0.25  # an attached account whose list is still being loaded is looked at so often


class Takes:
    """Owner of the lanes."""

    def __init__(
        self, queue: Queue, journal: Journal, deliveries: Deliveries, visits: Visits, screening: Screening,
        settings: EngineSettings, identity: Identity, now: Callable[[], float], feed_for: Callable[[Way], Feed],
        relay_of: Callable[[Mapping[str, str]], Way],
        spawn: Callable[[Coroutine[object, object, None]], None], attached: Callable[[], None],
    ) -> None:  # fmt: skip
        self._queue, self._journal, self._deliveries, self._visits = queue, journal, deliveries, visits
        self._settings, self._identity, self._now = settings, identity, now
        self._feed_for, self._relay_of, self._spawn = feed_for, relay_of, spawn
        self._attached = attached
        self._batches = Batches(queue, journal, deliveries, screening, now, lambda: len(self.lanes) > 1, self._is_over)
        self._found: deque[str] = deque()
        self._owed: dict[str, float] = {}  # accounts that belong into the index, which did not take them
        self._unreadable: dict[str, tuple[set[str], float]] = {}  # by account: campaigns, and until when they are left alone
        self.lanes: dict[str, Lane] = {}
        self.unmetered: dict[Lane, None] = {}  # those of them, as their last visits told: looked through for every few messages
        self.is_stopping = False

    def unsettled(self) -> Iterator[Unsettled]:
        """Of all lanes."""
        return chain.from_iterable(lane.unsettled() for lane in self.lanes.values())

    # the index

    async def find(self) -> None:
        """Take accounts out of the index and attach to them."""
        await self.pay()
        self._found.extend(await self._queue.find(self._settings.max_accounts_found))
        while self._found:
            lane = self.lanes.get(self._found[0])
            if lane is not None:
                self.look(lane)
                if lane.is_shared:
                    await self.offer(lane.account, self._redis_us(OFFERED_AGAIN))
            else:
                await self._try_to_attach(self._found[0])
            self._found.popleft()  # not before: an account that was found and not attached must not be forgotten

    async def _try_to_attach(self, account: str) -> None:
        """One that is out of reach, as its slot of a Cluster may be alone, keeps no other waiting: it is found again."""
        try:
            await self._attach(account)
        except Unavailable:
            self._owed[account] = self._redis_us(TRIED_AGAIN)

    async def pay(self) -> None:
        """What the index did not take when it was offered."""
        while self._owed:
            account, need_us = next(iter(self._owed.items()))
            await self._queue.offer(account, need_us)
            self._owed.pop(account, None)

    async def _attach(self, account: str) -> None:
        fields = await self._queue.account(account)
        if not fields or account in self.lanes:
            return
        unreadable: SendEngineError | None = None
        try:
            relay = self._relay_of(fields)
        except SendEngineError as error:
            unreadable = error
        if unreadable is not None:
            await self._set_aside(account, unreadable)
            return
        feed = self._feed_for(relay)
        lane = self.lanes[account] = Lane(account, relay, feed, self._settings)
        feed.join()
        lane.bind = feed.bind
        lane.keep(float(fields.get("iv", 0)) / 1e6)
        lane.is_known = True
        lane.listed = int(fields.get("sup", -1))
        names, until = self._unreadable.pop(account, (set(), 0.0))
        if until > self._now():
            lane.ignored = names
        self._attached()
        feed.site.warm()
        self.look(lane)

    async def offer(self, account: str, need_us: float) -> None:
        """Into the index; what Redis does not take now is owed until it does."""
        try:
            await self._queue.offer(account, need_us)
        except Unavailable:
            self._owed[account] = need_us
            raise

    def _redis_us(self, seconds: float) -> float:
        """So many seconds from now, by Redis' clock."""
        return (self._now() + seconds + self._journal.wall_offset) * 1e6

    async def _set_aside(self, account: str, error: SendEngineError) -> None:
        """One account that nobody can read keeps no other one waiting: `why` says it, and it is looked at again by and by."""
        log.error("account_unreadable", account=account, reason=str(error))
        await self._queue.visit(account, 0, 0.0, f"relay|{error.remedy} {account}: {error}", [], [])
        await self.offer(account, self._redis_us(UNREADABLE_FOR))

    def look(self, lane: Lane) -> None:
        """Take what is there, now."""
        if lane.is_gone:
            return
        if lane.is_taking:
            lane.must_look = True
        elif not self.is_stopping and not lane.is_leaving:
            lane.is_taking = True
            lane.must_look = False
            self._spawn(self._take(lane))

    def feed(self, lane: Lane) -> None:
        """Called when a lane's rows go down, or a visit is over: take more, or leave."""
        now = self._now()
        if lane.is_gone:
            return
        if lane.is_leaving or self.is_stopping:
            self._leave_if_empty(lane)
            return
        hungry_at = lane.hungry_at()
        look_at = lane.wake_at if hungry_at is None else hungry_at
        if now >= look_at:
            if not lane.is_taking:  # else what is on its way is looked at first
                self.look(lane)
        elif look_at < now + LOOK_AHEAD:
            self._visits.at(lane, look_at)

    def note_pace(self, lane: Lane) -> None:
        """A visit told its rate."""
        if lane.interval or lane.is_gone:
            self.unmetered.pop(lane, None)
        else:
            self.unmetered[lane] = None

    def _is_over(self, lane: Lane) -> bool:
        return lane.is_leaving or self.is_stopping

    # taking

    async def _take(self, lane: Lane) -> None:
        rows = lane.rows_wanted()
        tokens = self._tokens(lane, rows)
        unopened = set(tokens)
        has_first, has_retries = lane.enough()
        try:
            taken = await self._queue.take(lane.account, self._identity.id, rows, tokens, has_first, has_retries)
            unopened = {leased.token for leased in taken.leases}
            for campaign in taken.look:
                await self._look_at_window(lane.account, campaign)
            if taken.leases and lane.is_shared:  # not before: where there is nothing, it would be found for ever
                await self.offer(lane.account, 0)
            for leased in taken.leases:
                if self._is_over(lane):  # opening one with logic may take seconds
                    break
                await self._batches.open(lane, leased)
                unopened.discard(leased.token)
                self._visits.at(lane, self._now())  # it need not wait for the others
        except Unavailable:
            # The script may have run: leases that nobody here knows would keep the account from everybody else.
            lane.returns += map(give_back, unopened)
            lane.is_taking = False
            lane.take_at = self._now() + 1.0
            self._visits.at(lane, lane.take_at)
            return
        now = self._now()
        lane.is_taking = False
        if self._is_over(lane):  # we were told to stop meanwhile
            lane.returns += map(give_back, unopened)
            for lease in lane.leases():
                lane.give_back(lease)
            self._visits.at(lane, now)
            return
        lane.take_at = 0.0
        lane.wake_at = taken.wake_us / 1e6 - self._journal.wall_offset if taken.wake_us >= 0 else float("inf")
        again_at = now + (HUNGRY_AGAIN if taken.need_us == 0 else 1.0)
        found = {leased.campaign for leased in taken.leases} | set(has_first)
        for campaign, share in lane.shares.items():
            share.take_at = 0.0 if campaign in found else again_at
        if lane.must_look or taken.look:
            self.look(lane)
        elif not taken.leases:
            if not lane.has_leases:
                await self._detach(lane, taken.need_us)
                return
            if not lane.shares:
                lane.take_at = again_at
        self._visits.at(lane, now if taken.leases else min(now + HUNGRY_AGAIN, lane.wake_at))

    def _tokens(self, lane: Lane, rows: int) -> list[bytes]:
        """One a lease that this take may write."""
        n = min(LEASES_MOST, max(2, len(lane.shares) + 1) * (2 + rows // 100), MOST_HELD - len(lane.shares))
        if n <= 0:
            return []
        octets = os.urandom(TOKEN_OCTETS * n)
        return [octets[i : i + TOKEN_OCTETS] for i in range(0, len(octets), TOKEN_OCTETS)]

    async def _look_at_window(self, account: str, campaign: str) -> None:
        """Only here are time zones known: say whether the window is open, and when to look again."""
        record = await self._queue.campaign(account, campaign)
        if record is None or not record.fields.get("window"):
            return
        window: Window | None = None
        try:
            window = Window.parse(record.fields["window"])
        except SendEngineError as error:  # this machine's zones are older than the scheduler's, for example: closed, for all we know
            log.error("window_unreadable", account=account, campaign=campaign, reason=str(error))
        if window is None:
            await self._queue.window(account, campaign, False, self._redis_us(UNREADABLE_FOR))
            return
        wall = self._now() + self._journal.wall_offset + TURN_EARLY
        is_open = window.is_open(wall)
        turn = window.next_close(wall) if is_open else window.next_open(wall)
        await self._queue.window(account, campaign, is_open, None if turn is None else turn * 1e6)

    # leaving

    async def refresh(self, lane: Lane) -> None:
        """The account was changed: with another relay it is left, and found again with that one."""
        fields = await self._queue.account(lane.account)
        lane.must_refresh = False
        if not fields or lane.is_leaving:
            return
        try:
            if self._relay_of(fields) == lane.relay:
                return
        except SendEngineError as error:
            log.error("account_unreadable", account=lane.account, reason=str(error))
        log.info("relay_changed", account=lane.account)
        self._leave(lane)
        lane.feed.flush(lane)

    async def _detach(self, lane: Lane, need_us: float) -> None:
        """Nothing is left here: the account goes back into the index for its next need."""
        if lane.dirty or lane.unsent or lane.returns or lane.is_visiting or lane.has_leases:
            self._visits.at(lane, self._now())
            return
        self._forget(lane)
        if lane.ignored and need_us >= 0:
            self._unreadable[lane.account] = (lane.ignored, self._now() + UNREADABLE_FOR - TURN_EARLY)
            need_us = max(need_us, self._redis_us(UNREADABLE_FOR))
        await self.offer(lane.account, need_us)
        end = lane.permits.end()
        if end is not None and end > self._now() + LEFT_LEAST:
            await self._queue.leave(lane.account)

    def leave_all(self) -> None:
        """Stopping: pending rows go back, permits are cut, what is open ends first."""
        self.is_stopping = True
        for lane in self.lanes.values():
            self._leave(lane)

    def _leave(self, lane: Lane) -> None:
        lane.is_leaving = True
        for lease in lane.leases():
            lane.give_back(lease)
        self._visits.at(lane, self._now())

    def _leave_if_empty(self, lane: Lane) -> None:
        holds = lane.has_leases or lane.dirty or lane.unsent or lane.returns
        if not holds and not lane.is_visiting and not lane.is_taking and self.lanes.get(lane.account) is lane:
            self._forget(lane)
            self._spawn(self._left(lane))

    def _forget(self, lane: Lane) -> None:
        lane.is_gone = True
        lane.visit_at = 0.0
        self.unmetered.pop(lane, None)
        if self.lanes.get(lane.account) is lane:
            del self.lanes[lane.account]
            lane.feed.part()

    async def _left(self, lane: Lane) -> None:
        try:
            await self.offer(lane.account, 0)
            await self._queue.leave(lane.account)
        except Unavailable:
            log.warning("leave_not_told", account=lane.account)  # it is owed to the index, or voided permits lapse
