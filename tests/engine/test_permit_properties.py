"""Claims about permits, cuts and turns, whatever workers do and whenever they do it (domain 1.2, 1.3, 1.6, 1.7; design 3.2).

Workers here are the engine's lanes on the in-memory queue and one virtual clock: they visit, use permits within their lapse, let them
lapse, die, leave, and learn of cuts late and out of order. `tests/contract/test_permit_twins.py` holds the Lua scripts to the same grants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sendengine.engine.lane import TRANSACTIONAL_RUN, Lane
from sendengine.engine.settings import EngineSettings
from sendengine.engine.work import Delivery
from sendengine.ports import News
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.types import Relay
from tests.engine.bare import lane_of, lease_of

ACCOUNT, CAMPAIGN = "m1", "c"
CUT_DELAY = 0.2
LONGEST_LAPSE = 0.5
KNOWN_BY = 0.15  # seconds: bytes go only with an append younger than 0.2 s, and each append reads the inbox
NEVER, STOPS_WITHIN = float("inf"), 1.0
GATE = ("hold", "release", "expire", "renew")
ENOUGH = 1000  # permits a visit may ask for: the horizon is what limits it
TICK = 0.02
LIVES = settings(  # a failing life is long: shrinking it would take minutes
    max_examples=25, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)  # fmt: skip


@dataclass
class Sender:
    """One worker's hand in the account: its lane, and the news it has not read yet."""

    lane: Lane
    inbox: list[tuple[float, News]] = field(default_factory=list)  # readable from then on
    uses: float = 0.0  # part of the lapse after which it uses a permit
    mute_until: float = 0.0  # busy elsewhere: permits lapse

    def learn(self, now: float) -> None:
        due = [news for at, news in self.inbox if at <= now]
        self.inbox = [(at, news) for at, news in self.inbox if at > now]
        for news in due:
            self.lane.learn_cut(news.cut, news.cut_us)


class World:
    """An account, its senders, and what left: (time, interval in force)."""

    def __init__(self, per_hour: float, senders: int = 3) -> None:
        self.now = 1000.0
        self.offset = 1.8e9  # Redis' clock less ours
        self.store = MemoryStore()
        self.queue = MemoryQueue(self.store, self.now_us, CUT_DELAY * 1e6)
        self.desk = MemoryDesk(self.store, self.now_us, CUT_DELAY * 1e6)
        self.per_hour = per_hour
        self.rates = [(self.now, per_hour / 3600)]
        self.sent: list[float] = []
        self.void_used: list[tuple[float, int]] = []
        self.senders: list[Sender] = []
        self.waiting: list[tuple[float, Sender, Delivery]] = []
        self.told = 0
        self.lateness = 0.0
        self.shut = {"hold": NEVER, "term": NEVER}  # since when
        self.late: list[float] = []  # seconds after its gate was shut
        run(self._begin())
        for _ in range(senders):
            self.join()

    def now_us(self) -> float:
        return (self.now + self.offset) * 1e6

    async def _begin(self) -> None:
        await self.desk.create_account(ACCOUNT, {"tier": "t", "rate": str(self.per_hour), "iv": f"{3.6e9 / self.per_hour:.3f}"})
        await self.desk.create(ACCOUNT, CAMPAIGN, b"", None, b"", {})
        await self.queue.register("w", b"t")

    def join(self) -> None:
        lane = lane_of(ACCOUNT)
        lane.keep(3.6e9 / self.per_hour / 1e6)
        lane.is_known = True
        self.senders.append(Sender(lane))

    def spread(self) -> None:
        """New news of the shared state, into each sender's inbox; read within KNOWN_BY."""
        box = self.store.inboxes.get("w", [])
        for news in box[self.told :]:
            for place, sender in enumerate(self.senders):
                late = KNOWN_BY * ((self.lateness * (place + 1) + news.cut * 0.37) % 1.0)  # another order for each
                sender.inbox.append((self.now + late, news))
        self.told = len(box)

    def visit(self, sender: Sender) -> None:
        lane = sender.lane
        reply = run(self.queue.visit(ACCOUNT, ENOUGH, lane.horizon * 1e6, "=", [CAMPAIGN], []))
        lane.grant(reply, self.now, [], lane.cut)

    def pass_time(self, seconds: float, every: float = TICK) -> None:
        """Ticks: senders visit when half of their horizon is left, pick what falls due, and write what they picked."""
        end = self.now + seconds
        while self.now < end:
            for sender in self.senders:
                self._turn(sender)
            self.now += every
        self.spread()

    def _turn(self, sender: Sender) -> None:
        sender.learn(self.now)
        lane = sender.lane
        last = lane.permits.end()
        if self.now >= sender.mute_until and (last is None or last - self.now < lane.horizon / 2):
            self.visit(sender)
        while permit := lane.permits.pop(self.now):
            due, _, run_ = permit
            use_at = max(self.now, due + sender.uses * (lane.lapse - TICK))
            if sender.mute_until > due + lane.lapse or use_at > due + lane.lapse:
                continue
            delivery = Delivery()
            delivery.lane, delivery.lease, delivery.row = lane, OPEN, 0
            delivery.due, delivery.cut, delivery.permit_us = due, run_.cut, (due + run_.offset) * 1e6
            self.waiting.append((use_at, sender, delivery))
        for use_at, owner, delivery in [item for item in self.waiting if item[0] <= self.now and item[1] is sender]:
            self.waiting.remove((use_at, owner, delivery))
            if not delivery.is_void and self.now <= delivery.due + sender.lane.lapse:  # as the feed has it: late is lapsed
                self.sent.append(self.now)
                self._note_void(delivery)
                if (late := self.now - min(self.shut.values())) > STOPS_WITHIN:
                    self.late.append(late)

    def _note_void(self, delivery: Delivery) -> None:
        """Of the cuts that its sender has read none may reach back to it."""
        unread = {news.cut for sender in self.senders if sender.lane is delivery.lane for _, news in sender.inbox}
        for news in self.store.inboxes.get("w", [])[: self.told]:
            if delivery.cut < news.cut <= delivery.lane.cut and news.cut not in unread and delivery.permit_us > news.cut_us:
                self.void_used.append((self.now, news.cut))

    def change_rate(self, per_hour: float) -> None:
        run(self.desk.set_rate(ACCOUNT, "t", per_hour))
        self.per_hour = per_hour
        self.rates.append((self.now, per_hour / 3600))
        self.spread()

    def verb(self, name: str) -> None:
        run(getattr(self.desk, name)(ACCOUNT, CAMPAIGN))
        self.spread()

    def gate(self, deed: str, seconds: float) -> None:
        """hold, release, expire in so many seconds, renew."""
        if deed == "hold":
            fields, self.shut["hold"] = {"hold:x": "{}"}, min(self.shut["hold"], self.now)
        elif deed == "release":
            fields, self.shut["hold"] = {"hold:x": ""}, NEVER
        elif deed == "expire":
            self.shut["term"] = min(self.shut["term"], self.now + seconds)
            fields = {"term_ends": f"{(self.shut['term'] + self.offset) * 1e6:.0f}"}
        else:
            fields, self.shut["term"] = {"term_ends": ""}, NEVER
        run(self.desk.set_gate(ACCOUNT, {}, fields))
        self.spread()

    def leave(self, which: int) -> None:
        """A clean leave cuts; a death does not: its permits lapse."""
        if len(self.senders) > 1:
            self.senders.pop(which % len(self.senders))
        run(self.queue.leave(ACCOUNT))
        self.spread()

    def die(self, which: int) -> None:
        if len(self.senders) > 1:
            self.senders.pop(which % len(self.senders))


OPEN = lease_of(lane_of(ACCOUNT))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The twin in memory never waits: one step ends it."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def excess(sent: list[float], rate: float, slack: float = 0.0) -> float:
    """By how many messages the worst window of any length passes domain 1.2's ceiling; <= 0: it holds.

    Only windows that begin and end at a message need looking at, and with S(i) = i - r·t(i) one pass finds the worst.
    """
    allowance = rate * (max(0.5, 1 - 1 / rate) + slack) + 1
    best, worst = float("-inf"), float("-inf")
    for number, at in enumerate(sorted(sent)):
        best = max(best, rate * at - number)
        worst = max(worst, number + 1 - rate * at + best)
    return worst - allowance


acts = st.lists(
    st.tuples(
        st.sampled_from(["pass", "pass", "mute", "leave", "die", "join", "pause", "resume", "cut", "uses", *GATE]),
        st.floats(0.01, 3.0),
        st.integers(0, 9),
    ),
    min_size=10,
    max_size=40,
)


def live(world: World, life: list[tuple[str, float, int]]) -> None:
    for act, seconds, which in life:
        sender = world.senders[which % len(world.senders)]
        world.lateness = which / 9
        if act == "mute":
            sender.mute_until = world.now + seconds
        elif act == "leave":
            world.leave(which)
        elif act == "die":
            world.die(which)
        elif act == "join" and len(world.senders) < 5:
            world.join()
        elif act in ("pause", "resume"):
            world.verb(act)
        elif act in GATE:
            world.gate(act, seconds)
        elif act == "cut":
            world.change_rate(world.per_hour)
        elif act == "uses":
            sender.uses = which / 9
        world.pass_time(seconds if act == "pass" else 0.1)
    assert world.late == []


@given(life=acts, per_hour=st.sampled_from([2_300, 30_000, 200_000]))
@LIVES
def test_no_window_passes_the_ceiling_and_no_void_permit_is_used(life: list[tuple[str, float, int]], per_hour: int) -> None:
    world = World(per_hour)
    live(world, life)
    assert excess(world.sent, per_hour / 3600) <= 1e-6
    assert world.void_used == []


@given(life=acts, rates=st.lists(st.sampled_from([2_300, 5_000, 60_000, 200_000]), min_size=2, max_size=5))
@LIVES
def test_a_new_rate_is_right_at_once_without_a_burst(life: list[tuple[str, float, int]], rates: list[int]) -> None:
    """Within each stretch of one rate, from D and a lapse after its change on, that rate's own ceiling holds."""
    world = World(rates[0])
    part = max(1, len(life) // len(rates))
    for place, rate in enumerate(rates):
        world.change_rate(rate)
        began = world.now + CUT_DELAY + LONGEST_LAPSE  # until then permits of the old rate may leave, late
        live(world, life[place * part : (place + 1) * part])
        assert excess([at for at in world.sent if at > began], rate / 3600) <= 1e-6


@given(shifts=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), per_hour=st.sampled_from([2_300, 15_000, 200_000]))
@settings(LIVES, max_examples=8)
def test_full_minutes_reach_the_floor_while_there_is_work(shifts: list[float], per_hour: int) -> None:
    world = World(per_hour)
    for sender, shift in zip(world.senders, shifts, strict=True):
        sender.uses = shift
    world.pass_time(61.0)
    first = min(world.sent)
    in_minute = sum(1 for at in world.sent if first <= at < first + 60)
    assert in_minute >= int(0.98 * 60 * per_hour / 3600)


@given(
    step=st.floats(-7200, 7200).filter(lambda step: abs(step) > 0.01),
    per_hour=st.sampled_from([2_300, 30_000, 200_000]),
    before=st.floats(0.5, 8),
)
@settings(LIVES, max_examples=15)
def test_a_step_of_redis_clock_heals(step: float, per_hour: int, before: float) -> None:
    """Forwards: permits held are dealt twice until they are used up. Backwards: the next visit clamps the account's clock to the longest
    horizon."""
    world = World(per_hour)
    rate = per_hour / 3600
    world.pass_time(before)
    world.offset += step
    stepped = world.now
    world.pass_time(20)
    lane = world.senders[0].lane
    heals = lane.horizon / 2 + EngineSettings().horizon_max + 1 / rate + lane.lapse
    healed = [at for at in world.sent if at > stepped + heals]
    assert excess(healed, rate) <= 1e-6
    assert len(healed) >= int(0.98 * (20 - heals) * rate) - 1


def test_permits_given_back_one_by_one_break_the_ceiling_and_the_checker_says_so() -> None:
    """The control: what the design forbids. One worker returns the middle of its grant while another holds later permits."""
    rate, horizon = 55.5, 3.0
    n = int(rate * horizon)
    first, second = [at / rate for at in range(n)], [(n + at) / rate for at in range(n)]
    used = [at for at in first if at < 0.2] + second
    last = max(0.2, second[-1] + 1 / rate - (n - sum(at < 0.2 for at in first)) / rate)  # the clock, set back by as many
    used += [last + at / rate for at in range(int((9 - last) * rate))]
    assert excess(used, rate) > 50
    assert excess([at / rate for at in range(500)], rate) <= 0


def test_the_checker_counts_windows_of_any_length() -> None:
    assert excess([0.0, 0.0], 1.0) == pytest.approx(2 - 1.5)
    assert excess([0.0, 1.0, 2.0, 2.1, 2.2], 1.0) > 0
    times = [0.0, 0.3, 0.31, 2.0, 2.01, 2.5]
    rate = 2.0
    pairs = [(times[b] - times[a], b - a + 1) for a in range(6) for b in range(a, 6)]
    worst = max(n - (rate * (w + 0.5) + 1) for w, n in pairs)
    assert excess(times, rate) == pytest.approx(worst)


class Waiting:
    """A share that never runs dry."""

    def __init__(self) -> None:
        self.rows = 10**9
        self.fresh, self.again = object(), None


class Chosen(Lane):
    """Says which share is next, not whom of it."""

    def _pop(self, share: Any, queue: object) -> Any:
        return share


@pytest.mark.interpreted
@given(turns=st.lists(st.booleans(), min_size=40, max_size=200))
@settings(LIVES, max_examples=25)
def test_transactional_goes_ahead_and_bulk_keeps_a_tenth(turns: list[bool]) -> None:
    """While both wait, each ten permits in a row hold at least one of bulk; with no bulk, transactional messages have all."""
    lane = Chosen(ACCOUNT, Relay("relay.test"), None, EngineSettings())  # type: ignore[arg-type]
    bulk, special = Waiting(), Waiting()
    lane.shares = {"transactional": special, "c": bulk}  # type: ignore[dict-item]
    picked = [lane.pick(bulk) is special for _ in turns]  # type: ignore[arg-type]
    assert all(not all(picked[at : at + TRANSACTIONAL_RUN + 1]) for at in range(len(picked) - TRANSACTIONAL_RUN))
    assert sum(picked) >= int(0.9 * len(picked)) - 1


@given(wants=st.lists(st.integers(1, 9), min_size=20, max_size=60), campaigns=st.integers(2, 5))
@settings(LIVES, max_examples=25)
def test_parallel_sends_get_equal_shares(wants: list[int], campaigns: int) -> None:
    world = World(60_000)
    names = [CAMPAIGN, *(f"c{at}" for at in range(campaigns - 1))]
    for name in names[1:]:
        run(world.desk.create(ACCOUNT, name, b"", None, b"", {}))
    turns: Counter[int] = Counter()
    for want in wants:
        world.now += 0.5
        turns.update(run(world.queue.visit(ACCOUNT, want, 1e6, "=", names, [])).deal)
    assert sum(turns.values()) == sum(wants)
    assert max(turns.values()) - min(turns[at] for at in range(campaigns)) <= 1


def test_a_permit_void_by_an_earlier_cut_stays_void_after_a_later_one() -> None:
    """Its slot was granted again under the first cut; the second one, later, does not reach back to it."""
    lane = lane_of("m1")
    delivery = Delivery()
    delivery.lane, delivery.lease, delivery.row = lane, lease_of(lane), 0
    delivery.cut, delivery.permit_us = 0, 150.0
    lane.learn_cut(1, 100.0)
    assert delivery.is_void
    lane.learn_cut(2, 200.0)
    assert delivery.is_void
    delivery.cut = 1
    assert not delivery.is_void


@pytest.mark.parametrize("ends_in", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("per_hour", [2_300, 30_000])
def test_no_permit_reaches_past_the_end_of_the_term(per_hour: int, ends_in: float) -> None:
    """Granted ahead by up to five seconds, and nobody tells that it ends."""
    live(World(per_hour), [("pass", 3.0, 0), ("expire", ends_in, 0), ("pass", 3.0, 0), ("pass", 3.0, 0)])
