"""One worker: its loops, and how the parts hang together. Asyncio and ports only.

Every tick: what falls due is picked and journalled; due visits start. Beside it: the index and inbox every `poll` while idle, the others'
beats every two seconds (sooner where `dead_after` is short), the sweep, and the account this worker gives of itself.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping

import structlog

from sendengine.engine.away import AwayLog
from sendengine.engine.delivery import Deliveries
from sendengine.engine.durable import Durable
from sendengine.engine.feed import Feed
from sendengine.engine.health import HealthWatch
from sendengine.engine.identity import Identity
from sendengine.engine.journal import Journal
from sendengine.engine.lane import LISTED_WITHIN, Lane
from sendengine.engine.pacing import Run, Wheel
from sendengine.engine.purges import Purges
from sendengine.engine.receipts import Receipts
from sendengine.engine.screening import Screening
from sendengine.engine.settings import EngineSettings
from sendengine.engine.sharing import Sharing
from sendengine.engine.signer import Signer
from sendengine.engine.status import Report, report
from sendengine.engine.takeover import LEAST_READINGS, Takeover
from sendengine.engine.takes import Takes
from sendengine.engine.visits import Visits
from sendengine.engine.work import Delivery, Lease
from sendengine.errors import Fenced, Unavailable
from sendengine.policy.replies import ReplyRules
from sendengine.ports import Channel, Keyring, Meter, News, Queue
from sendengine.types import Way

log = structlog.get_logger("sendengine.worker")

WATCH_EVERY = 2.0
RECOVER_EVERY = 0.25
SUSPEND_EVERY = 1.0  # until Redis took it
GIVEN_UP_MOST = 100  # of a Redis that is away for an hour most were never sent; rescuers find the others in time


class Worker:
    """Sends. `run` returns when `stop` was called and all is settled, or raises Fenced, RefusedInput (before it began), a bug's error."""

    def __init__(
        self, queue: Queue, channel: Channel, meter: Meter, rules: ReplyRules, settings: EngineSettings, worker_id: str,
        relay_of: Callable[[Mapping[str, str]], Way], now: Callable[[], float],
        keyring: Keyring, jitter: Callable[[], float] = random.random, facts: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        self._queue, self._channel, self._meter, self._settings, self._now = queue, channel, meter, settings, now
        self._identity = Identity(worker_id)
        self._given_up: deque[str] = deque(maxlen=GIVEN_UP_MOST)  # ids of registrations that had no answer
        self._suspending: set[tuple[str, str]] = set()  # campaigns, by account, that are to be suspended
        self._facts = dict(facts or {})
        self._tasks: set[asyncio.Task[object]] = set()
        self._error: BaseException | None = None
        self._feeds: dict[Way, Feed] = {}
        self._due: Wheel[Lane] = Wheel(settings.tick / 2)
        self._step = settings.tick  # until the next look at what falls due
        self._held_up: dict[Feed, deque[Lane]] = {}  # their permits are due and cannot be used yet
        self._stopping = asyncio.Event()
        self._attached = asyncio.Event()  # an account was, or we stop
        self._pump_is_set = False
        self.journal = Journal(
            queue, self._identity, settings, meter, now, self._released, self._on_news, self._on_resolved,
            lambda: self._takes.unsettled(),
        )  # fmt: skip
        self._keyring, self._keys_known = keyring, -1
        self._away = AwayLog()
        self._signer = Signer(now, self._released, self._set_pump, self.fail)
        self._receipts = Receipts(queue, meter, now, self._spawn)
        self._sharing = Sharing(queue, self._identity)
        self._deliveries = Deliveries(
            self.journal, settings, rules, meter, now, jitter, self._attend, self._suspend, keyring, self._signer, self._receipts.expect
        )  # fmt: skip
        self._visits = Visits(queue, self.journal, settings, meter, now, jitter, self._on_visited, self._spawn)
        self._screening = Screening(queue, self._deliveries, self._to_feeds, self._spawn)
        self._takes = Takes(
            queue, self.journal, self._deliveries, self._visits, self._screening, settings, self._identity, now, self._feed_for, relay_of,
            self._spawn, self._attached.set,
        )  # fmt: skip
        self._takeover = Takeover(queue, self._identity, settings, now, lambda: now() + self.journal.wall_offset)
        self._health = HealthWatch(queue, settings, lambda: now() + self.journal.wall_offset, self._spawn)
        self._purges = Purges(queue, self._identity, settings, self._spawn)
        self._durable = Durable(queue, self._identity, settings)

    @property
    def id(self) -> str:
        """The one it was given, or one made from it where a registration under that had no answer."""
        return self._identity.id

    # running

    async def run(self) -> None:
        if not await self._register():
            return
        loops = [self._tick_forever(), self._find_forever(), self._watch_forever()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await self._stopping.wait()
        finally:
            self._end_if_failed(tasks)
        if isinstance(self._error, Fenced):
            await self._ask_sweep()
        if self._error is not None:
            raise self._error
        for task in tasks[1:]:
            task.cancel()
        await self._drain(tasks[0])
        self._signer.close()

    def stop(self) -> None:
        """Warm stop: take no more, finish what is on the wire, settle, give back."""
        self._takes.is_stopping = self._purges.is_stopping = True
        self._stopping.set()
        self._attached.set()

    def fail(self, error: BaseException) -> None:
        """Something no worker goes on after: a bug, or a rescuer that holds our journal."""
        if self._error is None:
            self._error = error
            self._stopping.set()

    async def _register(self) -> bool:
        """False when told to stop before Redis answered."""
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._settings.no_answer):
                    await self._durable.demand()
                    await self._ask_to_register()
                self.journal.begin()
                self.journal.append()  # its answer tells the wall time
                await self.journal.drain()
                await self._learn_keys()
                self._deliveries.turn()
                return True
            except Unavailable as error:
                log.warning("redis_away", error=str(error))
            except TimeoutError:
                log.warning("redis_away", error=f"no answer for {self._settings.no_answer:g} s")
                self._queue.drop()
            await asyncio.sleep(1.0)
        return False

    async def _learn_keys(self) -> None:
        """Those that the fleet shares: before the first message, and then as often as the others' beats are looked at."""
        if (found := await self._queue.signing_keys(self._keys_known)) is not None:
            self._keys_known, stored = found
            self._keyring.learn(stored)
        self._keyring.turn((self._now() + self.journal.wall_offset) * 1e6)

    async def _ask_to_register(self) -> None:
        try:
            await self._queue.register(self.id, self._identity.token)
        except (Unavailable, asyncio.CancelledError):  # it may be executed all the same, at any time
            self._given_up.append(self._identity.renew())
            raise

    async def _bury_given_up(self) -> None:
        """Rescuers would, in time; not one that was executed by half, and stands in no list of theirs."""
        while self._given_up:
            await self._queue.bury(self._given_up[-1])
            self._given_up.pop()

    def _end_if_failed(self, loops: list[asyncio.Task[None]]) -> None:
        if self._error is not None:
            self._cancel(loops)
            self._signer.close()

    def _cancel(self, loops: list[asyncio.Task[None]]) -> None:
        for task in [*loops, *self._tasks]:
            task.cancel()

    async def _ask_sweep(self) -> None:
        """What was found or taken, and stands in no journal, is met now and not within a minute."""
        try:
            async with asyncio.timeout(self._settings.beat):
                await self._queue.ask_sweep()
        except (Unavailable, TimeoutError):
            pass

    async def _drain(self, ticking: asyncio.Task[None]) -> None:
        self._takes.leave_all()
        for feed in self._feeds.values():
            feed.flush()
        await self._channel.close(self._settings.shutdown)
        while self._takes.lanes and self._error is None:
            if self.journal.is_away:
                await self._recover()
            for feed in self._feeds.values():
                feed.flush()
            for lane in list(self._takes.lanes.values()):
                self._takes.feed(lane)
                if not lane.visit_at and not lane.is_visiting:
                    self._visits.at(lane, self._now())
            await asyncio.sleep(self._settings.tick)
        ticking.cancel()
        self._receipts.flush()
        self._visits.is_leaving = True
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leave()

    async def _leave(self) -> None:
        """The journal goes only when it is ours still and nothing is open in it; else a rescuer reads it."""
        self.journal.append()
        await self.journal.drain()
        error = self._error or self.journal.failure
        if error is not None:
            raise error
        if self.journal.is_away or self.journal.doubtful or self.journal.has_entries or self._visits.owes:
            log.warning("journal_left", worker=self.id)
            return
        try:
            await self._takes.pay()  # nobody else knows of it, and the sweep comes once a minute
            if self._takeover.has_strays:
                await self._queue.ask_sweep()
            await self._queue.bury(self.id)
        except Unavailable:
            log.warning("journal_left", worker=self.id)

    async def _tick_forever(self) -> None:
        due = self._now()
        while True:
            try:
                self._tick()
            except Exception as error:
                self.fail(error)
                return
            if self._is_idle:
                await self._wait_for_work()
                due = self._now()
            now = self._now()
            due = max(due + self._step, now)
            await asyncio.sleep(due - now)

    @property
    def _is_idle(self) -> bool:
        return not self._takes.lanes and not self.journal.has_entries and not self._stopping.is_set()

    async def _wait_for_work(self) -> None:
        """An idle worker turns once a beat, not once a tick."""
        self._attached.clear()
        try:
            async with asyncio.timeout(self._settings.beat):  # wait_for of Python 3.11 swallows a cancel that comes with the event
                await self._attached.wait()
        except TimeoutError:
            pass

    async def _find_forever(self) -> None:
        """The index; and while Redis is away, the way back."""
        while True:
            pause = self._settings.poll
            try:
                self._away.look(self.journal.is_away, self._now())
                if self.journal.is_away and not await self._recover():
                    pause = RECOVER_EVERY
                else:
                    await self._takes.find()
            except Unavailable as error:
                self.journal.lose(error)
                pause += RECOVER_EVERY
            except Exception as error:
                self.fail(error)
                return
            await asyncio.sleep(pause)

    async def _recover(self) -> bool:
        try:
            async with asyncio.timeout(self._settings.no_answer):
                if not await self.journal.recover():
                    return False
        except TimeoutError:
            self._queue.drop()
            return False
        await self._visits.settle_again(self._takes.lanes.values())
        if not self.journal.resume():
            return False
        self._look_again()
        return True

    def _look_again(self) -> None:
        """Redis may have lost news before they were read: each account is visited and looked at as if there were some. An account whose
        name was in an answer that got lost stands nowhere: a sweep finds it."""
        self._spawn(self._ask_sweep())
        for lane in self._takes.lanes.values():
            lane.look_anew()
            lane.wake_at = 0.0
            lane.must_refresh = True
            self._visits.at(lane, self._now())

    async def _watch_forever(self) -> None:
        pause = min(WATCH_EVERY, self._settings.dead_after / LEAST_READINGS)
        while True:
            steps = (
                self._learn_keys, self._tell, self._look_at_the_others, self._sweep, self._purges.look, self._health.look, self._share,
                self._bury_given_up,
            )  # fmt: skip
            for step in steps:
                try:
                    await step()
                except Unavailable:  # of one part of a Cluster alone, maybe: the next step may need another
                    pass
                except Exception as error:
                    self.fail(error)
                    return
            await asyncio.sleep(pause)

    async def _tell(self) -> None:
        """What this worker does, to its meter and to whoever lists workers."""
        now = self.report()
        self._meter.state(now.accounts, now.rows, now.sessions, now.oldest, now.bound)
        await self._durable.look()
        await self._queue.tell(self.id, now.encode({"worker": self.id} | self._facts | self._durable.fact()))

    async def _sweep(self) -> None:
        await self._takeover.look_at_strays()
        if await self._queue.claim_sweep(self._settings.sweep_every):
            await self._takeover.sweep()

    async def _share(self) -> None:
        await self._sharing.look(lane.feed for lane in self._takes.lanes.values())

    async def _look_at_the_others(self) -> None:
        """Who cannot write its own beat calls nobody dead."""
        if self.journal.is_away:
            self._takeover.forget()
        else:
            await self._takeover.watch()

    def report(self) -> Report:
        """What this worker is doing now."""
        return report(self._takes.lanes.values(), self._feeds.values(), self.journal, self._now())

    # the tick

    def _tick(self) -> None:
        if self.journal.failure is not None:
            self.fail(self.journal.failure)
            return
        now = self._now()
        self._deliveries.turn()
        for feed in self._feeds.values():
            feed.measure()
        # Near the cap a shorter look ahead: what is open for less time lets more through.
        self._step = self._settings.tick / 2 if self._is_near_cap else self._settings.tick
        until = now + self._settings.lead + self._step
        self._go_on_with_the_held_up(now, until)
        for lane in self._due.take(until):
            if lane.due_at and lane.due_at <= until + self._settings.tick:  # else it was looked at sooner, and is due later again
                if self._held_up and lane.feed in self._held_up:
                    self._held_up[lane.feed].append(lane)
                else:
                    self._use_permits(lane, now, until)
        self._visits.run_due(now)
        self._receipts.turn(now)
        self._pump()
        self._append_if_due(now)

    def _append_if_due(self, now: float) -> None:
        """Entries go each tick; an attached worker reads its inbox every `poll`, an idle one beats each second."""
        journal = self.journal
        if journal.in_flight and now - journal.answered_at >= self._settings.no_answer:
            self._queue.drop()
        pause = self._settings.poll if self._takes.lanes else self._settings.beat
        is_due = journal.has_entries or now - journal.asked_at >= pause
        if is_due and journal.in_flight < self._settings.appends_in_flight:
            journal.append()

    def _go_on_with_the_held_up(self, now: float, until: float) -> None:
        """There was not enough for all: each has its turn, whoever waits longest first. Only those are looked at that there is room for:
        thousands may wait, and a worker that looked at each of them in each tick would never catch up."""
        for feed, waiting in list(self._held_up.items()):
            for _ in range(len(waiting)):
                if self._is_held_up(feed):
                    break
                self._use_permits(waiting.popleft(), now, until)
            del self._held_up[feed]
            if waiting:
                self._held_up[feed] = waiting  # behind the other feeds

    def _use_permits(self, lane: Lane, now: float, until: float) -> None:
        """Permits that fall due before `until`: each goes to whoever is next, or ends unused. While the lane is screened, while no
        further intent may be written, and while sessions do not keep up, they wait, until they lapse."""
        lane.due_at = 0.0
        if lane.must_screen:
            self._queue_due(lane)
            return
        permits, feed = lane.permits, lane.feed
        permits.lapse(now - lane.lapse)
        may = self._may_pick(lane, now)
        self._note_fullness(lane)
        while permits.is_due(until) and not (may and self._is_held_up(feed)) and (permit := permits.pop(until)):
            may = may and self._deliveries.pick(lane, *permit)
        if permits.is_due(until):
            lane.due_at = permits.runs[0].at
            self._held_up.setdefault(feed, deque()).append(lane)
        else:
            self._queue_due(lane)
        self._takes.feed(lane)

    @property
    def _is_near_cap(self) -> bool:
        """Half of what may be in doubt is."""
        return 2 * self.journal.doubtful >= self._settings.max_doubtful

    def _is_held_up(self, feed: Feed) -> bool:
        return self.journal.doubtful >= self._settings.max_doubtful or feed.is_full

    def _note_fullness(self, lane: Lane) -> None:
        """Sessions that do not keep up bind the account to less than its rate; further workers may help."""
        is_short = lane.feed.is_full or lane.feed.is_short
        if is_short and not lane.bind:
            lane.bind = f"connections|more workers, or sessions (worker -c): {lane.feed.site.sessions} to {lane.relay.site} are all busy"
            self._attend(lane)
            self._spawn(self._takes.offer(lane.account, 0))
        elif lane.bind and not is_short and lane.bind.startswith("connections"):
            lane.bind = ""

    def _may_pick(self, lane: Lane, now: float) -> bool:
        return not (
            lane.is_leaving or lane.must_check or lane.must_screen or self.journal.is_away
            or lane.suspended_until > now or not lane.feed.site.is_open
        )  # fmt: skip

    def _queue_due(self, lane: Lane) -> None:
        due = lane.permits.next_due()
        if due is not None and (not lane.due_at or due < lane.due_at):  # a faster tier's first permit may be due before a slower one's next
            lane.due_at = due
            self._due.put(due, lane)

    def _pump(self) -> None:
        """Unmetered accounts: as much as their sites take, in turns; and outcomes of all, when there are many."""
        self._pump_is_set = False
        if self.journal.is_away or self._takes.is_stopping:
            return
        now = self._now()
        lanes = [lane for lane in self._takes.unmetered if lane.is_known and lane.rows]
        for lane in lanes:
            if not self._may_pick(lane, now) or lane.licence_until < now:
                continue
            room = lane.feed.room if len(lanes) == 1 else lane.feed.room // len(lanes) + 1
            while room > 0 and self.journal.doubtful < self._settings.max_doubtful:
                if not self._deliveries.pick(lane, 0.0, None, None):
                    break
                room -= 1
                if self.journal.picked >= self._settings.journal_intents:
                    self.journal.append()
            self._takes.feed(lane)
        # Outcomes count as doubtful until they are journalled: left to the tick, they would hold the next picks up.
        # With permits alone, and much room below the cap, the tick's append is soon enough.
        journal = self.journal
        is_wanted = bool(lanes) or self._is_near_cap
        if journal.waiting >= self._settings.journal_intents or (is_wanted and journal.waiting and not journal.in_flight):
            journal.append()

    # what the parts tell

    def _feed_for(self, relay: Way) -> Feed:
        feed = self._feeds.get(relay)
        if feed is None:
            feed = Feed(
                relay, self._settings.append_fresh, self._now, self._deliveries.finish, self._on_unsent, self._on_hungry,
                self._receipts.arrive,
            )
            feed.site = self._channel.site(relay, feed, lambda: self._on_site(feed))
            self._feeds[relay] = feed
            self._spawn(self._sharing.look([feed]))  # from the first: the others learn of it with their next look
        return feed

    def _released(self, deliveries: list[Delivery]) -> None:
        """Journalled: each to its site's feed, once it is made. Of a worker that has failed nothing goes any more."""
        if self._error is not None:
            return
        if self._signer.pending:
            deliveries = [delivery for delivery in deliveries if delivery.making is None]
        if self._screening.parked:
            deliveries = self._screening.park(deliveries)
        if deliveries:
            self._to_feeds(deliveries)

    def _to_feeds(self, deliveries: list[Delivery]) -> None:
        if not deliveries:
            return
        if len({delivery.lane.feed for delivery in deliveries}) == 1:
            deliveries[0].lane.feed.release(deliveries)
            return
        by_feed: dict[Feed, list[Delivery]] = {}
        for delivery in deliveries:
            feed = delivery.lane.feed
            group = by_feed.get(feed)
            if group is None:
                by_feed[feed] = [delivery]
            else:
                group.append(delivery)
        for feed, group in by_feed.items():
            feed.release(group)

    def _on_resolved(self, lease: Lease) -> None:
        """An outcome is journalled: it may be settled."""
        lane = lease.share.lane
        if lane.is_gone:  # and had dropped the lease, which was not ours any more: there is nothing to settle
            self.journal.settled(lease.refs)
            lease.clear()
            return
        if lease not in lane.dirty:
            lane.dirty[lease] = None
            self._visits.at(lane, self._now() + lane.settle_after)
        if lease.bars_since:
            self._visits.at(lane, lease.bars_since + LISTED_WITHIN)
        if lease.is_done:
            lane.has_done = True
            self._visits.at(lane, self._now())

    def _on_news(self, news: News) -> None:
        lane = self._takes.lanes.get(news.account)
        if lane is None:
            return
        if news.listed >= 0:
            if news.listed > lane.listed:  # else a visit has told it already
                self._screening.learn(lane, news.listed)
            return
        if news.cut:
            lane.learn_cut(news.cut, news.cut_us)
            lane.must_check = True
            lane.must_refresh = True
        lane.look_anew()
        self._visits.start(lane)
        self._takes.look(lane)

    def _on_visited(self, lane: Lane) -> None:
        if lane.must_refresh:
            self._spawn(self._takes.refresh(lane))
        self._screening.look(lane)
        self._queue_due(lane)
        self._takes.feed(lane)
        self._takes.note_pace(lane)
        if not lane.interval:
            self._set_pump()

    def _on_unsent(self, delivery: Delivery) -> None:
        """No session took it in time, or it must not go any more. Its permit may serve another until it lapses; else a visit brings one."""
        lane = delivery.lane
        self._deliveries.withdraw(delivery)
        if self._now() <= delivery.lapses_at and not delivery.is_cut:
            offset = delivery.permit_us / 1e6 - delivery.due
            lane.permits.put_back(Run(delivery.due, lane.interval, 1, delivery.cut, offset, b"\0", [delivery.lease.share]))
            self._queue_due(lane)
        elif not lane.visit_at:
            self._attend(lane)

    def _on_hungry(self, feed: Feed) -> None:
        self._set_pump()

    def _set_pump(self) -> None:
        if not self._pump_is_set and not self._takes.is_stopping:
            self._pump_is_set = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _on_site(self, feed: Feed) -> None:
        """A site opened, closed or is in trouble: the accounts that use it are looked at."""
        if why := feed.unusable:
            log.warning("relay_unusable", relay=feed.relay.site, why=why)
        elif feed.site.is_open:
            log.info("relay_open", relay=feed.relay.site)
        for lane in self._takes.lanes.values():
            if lane.feed is feed:
                if not lane.bind.startswith("relay") or lane.suspended_until <= self._now():
                    lane.bind = feed.bind
                self._attend(lane)

    def _attend(self, lane: Lane) -> None:
        """Something about it changed: visit soon."""
        self._visits.at(lane, self._now())

    def _suspend(self, account: str, campaign: str, why: str) -> None:
        log.warning("campaign_suspended", account=account, campaign=campaign, why=why)
        if (account, campaign) not in self._suspending:
            self._suspending.add((account, campaign))
            self._spawn(self._suspend_surely(account, campaign, why))

    async def _suspend_surely(self, account: str, campaign: str, why: str) -> None:
        """The account's part of a Cluster may be away for a while. When we stop, whoever sends it next finds the same reason."""
        while True:
            is_told = True
            try:
                await self._queue.suspend(account, campaign, why)
            except Unavailable:
                is_told = self._stopping.is_set()
            if is_told:
                break
            await asyncio.sleep(SUSPEND_EVERY)
        self._suspending.discard((account, campaign))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        """One account out of reach is no sign that the journal is: what is left undone is owed, or done with the next visit."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Unavailable):
            self.fail(error)
