"""Many workers, two accounts and a relay with moods, all in memory on virtual time; and what must hold of them at any moment.

The relay is the witness: what the engine says of itself is compared with what the relay saw. A worker runs as a process of the virtual
loop, so that it can be killed or stopped between any two of its steps while what it wrote goes on arriving.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from random import Random
from typing import Any

import msgspec

from sendengine.batch import Batch, pack, unpack
from sendengine.channel.memory import MemoryChannel, MemorySite
from sendengine.engine.settings import EngineSettings
from sendengine.engine.worker import Worker
from sendengine.errors import Fenced
from sendengine.intake import Intake, PackedBatch
from sendengine.keyring import Keyring
from sendengine.policy.replies import ReplyRules
from sendengine.policy.suppression import Reason, encode
from sendengine.policy.tiers import interval_us
from sendengine.ports import Feed
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.records import TRANSACTIONAL, decode_outcomes
from sendengine.render.message import dump
from sendengine.scheduler.fsck import check
from sendengine.scheduler.names import Ref
from sendengine.sink.silent import SilentMeter
from sendengine.types import Attempt, Envelope, Fault, Outcome, Relay, Reply, Stage
from tests.engine.ceiling import Rates
from tests.engine.rig import DELIVERED, EPOCH, FIELDS, MESSAGE, replied
from tests.engine.virtual import VirtualClock, VirtualLoop

STOPS_WITHIN = 1.0  # seconds after a pause, cancel or hold was acknowledged, or the term ended: domain rules 2, 3
NEVER = float("inf")
REST_WITHIN = 600.0  # virtual seconds in which everything must end once nothing stands in its way
RETRY = "2s, 5s*2, 20s"
ASKED = ("append", "visit", "take", "find", "offer", "late", "standings")  # what a worker that sends asks of Redis


class Mood(msgspec.Struct, frozen=True):
    """What the relay does with one message, and whether it keeps it."""

    attempt: Attempt
    takes: bool = False
    is_loss_after_dot: bool = False


def _fault(stage: Stage, fault: Fault) -> Attempt:
    return Attempt(stage, None, fault, 0.0, 0.0)


LOST_TAKEN, LOST_NOT_TAKEN = "lost after the dot, taken", "lost after the dot, not taken"
MOODS = {
    "250": Mood(DELIVERED, takes=True),
    "rcpt 450": Mood(replied(Stage.RCPT, 450)),
    "rcpt 550": Mood(replied(Stage.RCPT, 550)),
    "rcpt 5.1.1": Mood(Attempt(Stage.RCPT, Reply(550, "5.1.1", "no such mailbox"), None, 0.0, 0.0)),
    "dot 451": Mood(replied(Stage.DOT, 451)),
    "dot 554": Mood(replied(Stage.DOT, 554)),
    "mail 421": Mood(replied(Stage.MAIL, 421)),
    "mail 450": Mood(replied(Stage.MAIL, 450)),
    "lost in the body": Mood(_fault(Stage.BODY, Fault.DISCONNECTED)),
    LOST_TAKEN: Mood(_fault(Stage.DOT, Fault.DISCONNECTED), takes=True, is_loss_after_dot=True),
    LOST_NOT_TAKEN: Mood(_fault(Stage.DOT, Fault.DISCONNECTED), is_loss_after_dot=True),
}
# What ends the connection, and what that is to a message which came behind it.
BREAKING = {
    "mail 421": LOST_NOT_TAKEN,
    "lost in the body": LOST_NOT_TAKEN,
    LOST_TAKEN: LOST_TAKEN,
    LOST_NOT_TAKEN: LOST_NOT_TAKEN,
}
DOWN = _fault(Stage.CONNECT, Fault.REFUSED)


class WorldSite(MemorySite):
    """What is written arrives, whatever becomes of the worker meanwhile; an answer reaches only a worker that runs."""

    def __init__(self, relay: Relay, feed: Feed, on_change: Callable[[], None], channel: WorldChannel) -> None:
        super().__init__(relay, feed, on_change, channel, VirtualClock())
        self._world = channel.world
        self._on_wire = 0
        self._mine = copy_context()  # the worker's: what it does about anything, it does as its process

    def warm(self) -> None:
        if self._world.is_down and self._trouble is None:
            self.fail(DOWN, 1.0)
        else:
            super().warm()

    def drop(self) -> None:
        """The relay went away: every session is gone."""
        self._world.loop.call_soon(self._drop, context=self._mine)

    def _drop(self) -> None:
        self.sessions = self.idle = 0
        self.fail(DOWN, 1.0)

    def _carry(self, deliveries: list[Envelope], mail_at: float) -> None:
        world = self._world
        self._on_wire += 1
        world.look_at_company(deliveries)
        for delivery in deliveries:
            world.mail(delivery.recipient.decode())

        def arrive() -> None:
            world.loop.call_soon(end, world.answers([one.recipient.decode() for one in deliveries]), context=self._mine)

        def end(attempts: list[Attempt]) -> None:
            self._on_wire -= 1
            self.idle = min(self.idle + 1, self.sessions)
            for delivery, attempt in zip(deliveries, attempts, strict=True):
                self.feed.done(delivery, msgspec.structs.replace(attempt, mail_at=mail_at, ended_at=world.loop.time()))
            self.wake()

        world.loop.call_at(mail_at + world.latency, arrive, context=world.outside)

    async def until_quiet(self) -> None:
        while self._on_wire:  # noqa: ASYNC110 - on virtual time
            await asyncio.sleep(0.01)


class WorldChannel(MemoryChannel):
    def __init__(self, world: World, together: int) -> None:
        super().__init__(VirtualClock(), sessions=20, together=together)
        self.world = world

    def site(self, relay: Relay, feed: Feed, on_change: Callable[[], None]) -> MemorySite:
        if relay not in self.sites:
            self.sites[relay] = WorldSite(relay, feed, on_change, self)
        return self.sites[relay]

    def drop(self) -> None:
        for site in self.sites.values():
            if isinstance(site, WorldSite):
                site.drop()

    async def close(self, timeout: float) -> None:
        self.is_closed = True
        for site in self.sites.values():
            if isinstance(site, WorldSite):
                await site.until_quiet()


class Running(msgspec.Struct):
    worker: Worker
    task: asyncio.Task[None]
    channel: WorldChannel


class Send:
    """A campaign as its scheduler knows it."""

    def __init__(self, account: str, name: str, batches: list[PackedBatch], *, on_doubt: str, is_sequential: bool) -> None:
        self.account, self.name, self.batches = account, name, batches
        self.on_doubt, self.is_sequential = on_doubt, is_sequential
        self.submitted = 0
        self.is_sealed = False
        self.stopped_at: float | None = None  # when a pause or cancel was acknowledged that stands
        self.is_cancelled = False

    def __repr__(self) -> str:
        return f"{self.account}:{self.name}"


class World:
    """Owner of all of it. `faults` is what was seen that must not be, at the moment it was seen."""

    def __init__(
        self, latency: float = 0.05, spread_above: float = 1000.0, make_queue: Callable[..., MemoryQueue] = MemoryQueue, together: int = 1,
        way: float = 0.0,
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.outside: Context = copy_context()
        self.store = MemoryStore()
        self.desk = MemoryDesk(self.store, self.now_us)
        self.latency = latency
        self.together = together  # messages that a session carries at once
        self.settings = EngineSettings(spread_above=spread_above)
        self._make_queue, self._way = make_queue, way
        self.workers: dict[str, Running] = {}
        self.halted: dict[str, Running] = {}
        self.graveyard: list[Running] = []
        self._started = 0
        self.down_until = 0.0
        self.moods: list[str] = []  # of the next messages; then "250"
        self.sends: dict[str, Send] = {}
        self.owner: dict[str, Send] = {}  # recipient -> its send
        self.rates: dict[str, Rates] = {}
        self.mails: dict[str, list[float]] = {}
        self.shut: dict[str, dict[str, float]] = {}  # by account: since when a hold stands, when the term ends
        self.taken: Counter[str] = Counter()
        self.heard_last: dict[str, Mood] = {}  # what the relay did about a recipient's latest try
        self.first_tried: set[str] = set()
        self.suppressed_at: dict[str, float] = {}  # recipient -> when that was acknowledged
        self.crashes = self.losses = 0
        self.companies = 0  # how often several messages went together
        self.faults: list[str] = []

    def now_us(self) -> float:
        return (EPOCH + self.loop.time()) * 1e6

    # the relay

    def mail(self, recipient: str) -> None:
        """MAIL has come. The moment is now: nothing lies between the worker and the relay."""
        now, send = self.loop.time(), self.owner.get(recipient)
        if send is None:
            self.faults.append(f"a message to {recipient}, whom nobody accepted")
            return
        self.mails[send.account].append(now)
        since = min(self.shut[send.account].values())
        if now - since > STOPS_WITHIN:
            self.faults.append(f"{send}: MAIL {now - since:.3f} s after its account's gate was shut")
        if send.stopped_at is not None and now - send.stopped_at > STOPS_WITHIN:
            self.faults.append(f"{send}: MAIL {now - send.stopped_at:.3f} s after it was stopped")
        if now - self.suppressed_at.get(recipient, now) > STOPS_WITHIN:
            self.faults.append(f"{recipient}: MAIL {now - self.suppressed_at[recipient]:.3f} s after it was suppressed")
        if send.is_sequential and recipient not in self.first_tried:
            self._look_at_line(send)
        self.first_tried.add(recipient)

    def look_at_company(self, deliveries: list[Envelope]) -> None:
        names = [one.recipient.decode() for one in deliveries]
        sends = [self.owner[name] for name in names if name in self.owner]
        self.companies += len(names) > 1
        if len(names) > 1 and any(send.on_doubt == "hold" for send in sends):
            self.faults.append(f"{names} go together, and a doubt of one of them would stand")

    def _look_at_line(self, send: Send) -> None:
        for other in self.sends.values():
            if other is send or other.account != send.account or not other.is_sequential or send.stopped_at is not None:
                continue
            fields = self.store.accounts[other.account].campaigns[other.name].fields
            if fields["state"] == "sending" and "through" not in fields:
                self.faults.append(f"{send} sends while {other} has the turn")

    def answers(self, recipients: list[str]) -> list[Attempt]:
        """To messages that came together. Where the connection breaks at one, those behind it have come and get no answer."""
        if self.is_down and len(recipients) == 1:
            return [_fault(Stage.BODY, Fault.DISCONNECTED)]
        attempts, breaks_as = [], LOST_NOT_TAKEN if self.is_down else ""
        for recipient in recipients:
            name = breaks_as or (self.moods.pop(0) if self.moods else "250")
            breaks_as = BREAKING.get(name, "")
            attempts.append(self._answer(recipient, MOODS[name]))
        return attempts

    def _answer(self, recipient: str, mood: Mood) -> Attempt:
        self.losses += mood.is_loss_after_dot
        self.taken[recipient] += mood.takes
        self.heard_last[recipient] = mood
        return mood.attempt

    async def go_away(self, seconds: float) -> None:
        """It takes no connection for so long, and every one that stands is lost."""
        self.down_until = self.loop.time() + seconds
        for running in (*self.workers.values(), *self.halted.values()):
            running.channel.drop()

    @property
    def is_down(self) -> bool:
        return self.loop.time() < self.down_until

    # workers

    def start(self) -> str:
        self._started += 1
        name = f"w{self._started}"
        channel = WorldChannel(self, self.together)
        worker = Worker(
            self._far(self._make_queue(self.store, self.now_us)), channel, SilentMeter(), ReplyRules([]), self.settings, name,
            lambda fields: Relay("relay.test"), self.loop.time, Keyring(), jitter=Random(self._started).random,
        )  # fmt: skip
        self.workers[name] = Running(worker, self.loop.as_process(name, worker.run()), channel)
        return name

    def _far(self, queue: MemoryQueue) -> MemoryQueue:
        """Each question and each answer is `way` seconds on its way: a worker can be halted in between."""

        def far(call: Callable[..., Any]) -> Callable[..., Any]:
            async def ask(*args: Any, **named: Any) -> Any:
                await asyncio.sleep(self._way)
                answer = await call(*args, **named)
                await asyncio.sleep(self._way)
                return answer

            return ask

        for name in ASKED if self._way else ():
            setattr(queue, name, far(getattr(queue, name)))
        return queue

    async def stop(self, name: str) -> None:
        running = self.workers.pop(name)
        running.worker.stop()
        with suppress(Fenced):  # taken for dead while it was halted
            async with asyncio.timeout(300):
                await running.task

    def kill(self, name: str) -> None:
        """As kill -9 does; what it wrote is on its way to the relay all the same."""
        running = self.workers.pop(name)
        self.loop.halt(name)
        self.crashes += 1
        self.graveyard.append(running)

    def halt(self, name: str) -> None:
        self.halted[name] = self.workers.pop(name)
        self.loop.halt(name)
        self.crashes += 1

    def go_on(self, name: str) -> None:
        self.workers[name] = self.halted.pop(name)
        self.loop.go_on(name)

    def bury_fenced(self) -> None:
        """A worker whose journal a rescuer holds ends, as it should; any other end is a bug."""
        for name, running in list(self.workers.items()):
            if running.task.done():
                del self.workers[name]
                error = running.task.exception()
                if not isinstance(error, Fenced):
                    self.faults.append(f"{name} ended: {error!r}")

    # the scheduler

    async def account(self, name: str, per_hour: float | None) -> None:
        await self.desk.create_account(name, {"tier": "t", "rate": "" if per_hour is None else str(per_hour), "iv": interval_us(per_hour)})
        self.mails[name] = []
        self.shut[name] = {"hold": NEVER, "term": NEVER}
        self.rates[name] = Rates(self.loop.time(), per_hour)

    async def set_rate(self, name: str, per_hour: float | None) -> None:
        await self.desk.set_rate(name, "t", per_hour)
        self.rates[name].change(self.loop.time(), per_hour)

    async def gate(self, account: str, deed: str) -> None:
        """hold, release, expire (in a second) or renew; from the answer on, or from the end of the term, the relay counts."""
        shut = self.shut[account]
        if deed == "expire":
            shut["term"] = min(shut["term"], self.loop.time() + 1.0)
            fields = {"term": "active", "term_ends": f"{(EPOCH + shut['term']) * 1e6:.0f}"}
        elif deed == "renew":
            shut["term"] = NEVER
            fields = {"term": "active", "term_ends": ""}
        else:
            fields = {"hold:content": "{}" if deed == "hold" else ""}
        if deed == "release":
            shut["hold"] = NEVER
        await self.desk.set_gate(account, {}, fields)
        if deed == "hold":
            shut["hold"] = min(shut["hold"], self.loop.time())

    async def create(
        self, account: str, n: int, *, on_doubt: str = "resend", sequential: bool = False, priority: bool = False, after: float = 0.0
    ) -> Send:
        """A campaign of n input rows, the last of every ten a duplicate, none of them submitted yet."""
        name = f"c{len(self.sends) + 1}"
        intake = Intake(("name",), priority="p" if priority else None, salt=b"salt")
        rows = [{"email": f"{name}-{i - (i % 10 == 9)}@example.com", "name": f"N {i}", "p": i % 10} for i in range(n)]
        send = Send(account, name, list(intake.from_rows(rows)), on_doubt=on_doubt, is_sequential=sequential)
        fields = {**FIELDS, "on_doubt": on_doubt, "retry": RETRY} | ({"sequential": "1", "need_seal": "1"} if sequential else {})
        at_us = self.now_us() + after * 1e6 if after else None
        assert await self.desk.create(account, name, b"d", at_us, dump(MESSAGE), fields) == "new"
        self.sends[name] = send
        self.owner.update({str(row["email"]): send for row in rows})
        return send

    async def submit(self, send: Send, batches: int) -> None:
        """Some more of its list; the batch before comes again, as after a lost answer."""
        for batch in send.batches[max(0, send.submitted - 1) : send.submitted + batches]:
            stored = await self.desk.submit(send.account, send.name, batch)
            assert stored.status in ("stored", "same") or send.is_cancelled, stored
        send.submitted = min(len(send.batches), send.submitted + batches)

    async def seal(self, send: Send) -> None:
        await self.submit(send, len(send.batches))
        stored = await self.desk.seal(send.account, send.name, len(send.batches))
        assert stored.status in ("sealed", "same") or send.is_cancelled, stored
        send.is_sealed = True

    async def transact(self, account: str) -> None:
        name = f"{account}-{TRANSACTIONAL}"
        if name not in self.sends:
            await self.desk.create(account, TRANSACTIONAL, b"t", None, b"", {**FIELDS, "retry": RETRY, "uid": "t"})
            self.sends[name] = Send(account, TRANSACTIONAL, [], on_doubt="resend", is_sequential=False)
        recipient = f"single-{account}-{sum(owner is self.sends[name] for owner in self.owner.values())}@example.com"
        self.owner[recipient] = self.sends[name]
        payload = pack(Batch(number=0, positions=[0], recipients=[recipient], fields=(), columns=[]))
        message = dump(msgspec.structs.replace(MESSAGE, subject="Code", text="1\n"))
        assert (await self.desk.transact(account, payload, message, recipient, bytes(8))).status == "stored"

    async def suppress(self, send: Send, every: int) -> None:
        """One in so many of its recipients, whatever became of them."""
        chosen = [name for name, owner in self.owner.items() if owner is send][::every]
        await self.desk.suppress(send.account, {name.encode(): encode(Reason.COMPLAINED, 0.0) for name in chosen})
        for name in chosen:
            self.suppressed_at.setdefault(name, self.loop.time())

    async def verb(self, verb: str, send: Send) -> str:
        """What was answered; from a stop's answer on, the relay counts."""
        if verb == "resume" and not send.is_cancelled:
            send.stopped_at = None
        answer: str = await getattr(self.desk, verb)(send.account, send.name)
        if answer == "done" and verb in ("pause", "cancel") and send.stopped_at is None:
            send.stopped_at = self.loop.time()
        send.is_cancelled |= verb == "cancel" and answer == "done"
        return answer

    # what must hold

    async def look(self) -> None:
        """Everything that must hold at any moment; raises AssertionError."""
        self.bury_fenced()
        assert not self.faults, self.faults
        for account, rates in self.rates.items():
            assert (over := rates.exceeded(self.mails[account])) is None, f"{account}: {over}"
        for running in self.workers.values():
            assert 0 <= running.worker.journal.doubtful <= self.settings.max_doubtful
        for send in self.sends.values():
            await self._look_at(send)

    async def _look_at(self, send: Send) -> None:
        findings = (await check(self.desk, Ref(send.account, send.name))).findings
        assert not findings, [f"{send}: {finding.what} {finding.recipient or ''}" for finding in findings]
        fields = await self.desk.campaign(send.account, send.name)
        outcomes = sum(int(fields.get(outcome.name.lower(), 0)) for outcome in Outcome)
        accepted = int(fields.get("accepted", 0))
        is_final = outcomes == accepted and (send.is_sealed or send.is_cancelled) and send.name != TRANSACTIONAL
        assert ("finished" in fields) == is_final, f"{send}: finished is {fields.get('finished')}, {outcomes} of {accepted} are final"
        doubts = sum((await self.desk.standing(send.account, send.name)).doubts.values())
        repeated = sum(n - 1 for name, n in self.taken.items() if n > 1 and self.owner[name] is send)
        assert repeated == 0 or send.on_doubt == "resend", f"{send}: {repeated} duplicates under hold"
        assert repeated == 0 or self.crashes or self.losses, f"{send}: {repeated} duplicates, and nothing crashed"
        # a doubt of a dead worker is known when it was taken over: what it will be is counted then
        is_known = not self.graveyard and not self.halted and send.name != TRANSACTIONAL
        assert not is_known or repeated <= doubts or self._flying(), f"{send}: {repeated} duplicates, {doubts} doubts"

    def _flying(self) -> bool:
        return bool(self.store.accounts and any(state.leases for state in self.store.accounts.values()))

    # rest

    async def come_to_rest(self) -> None:
        """Nothing stands in the way any more: everything must end, and add up."""
        self.store.is_away = False
        self.down_until = 0.0
        self.moods.clear()
        for name in list(self.halted):
            self.go_on(name)
        if not self.workers:
            self.start()
        for account in self.rates:
            await self.set_rate(account, 720_000)
            await self.gate(account, "release")
            await self.gate(account, "renew")
        for send in self.sends.values():
            if not send.is_cancelled and send.name != TRANSACTIONAL:
                await self.seal(send)
        end = self.loop.time() + REST_WITHIN
        while waiting := await self._unfinished():
            assert self.loop.time() < end, f"still waiting: {waiting}"
            self.bury_fenced()
            if not self.workers:
                self.start()
            for send in self.sends.values():
                if send.name != TRANSACTIONAL and (await self.desk.campaign(send.account, send.name))["state"] == "paused":
                    await self.verb("resume", send)
            await asyncio.sleep(2.0)
        await asyncio.sleep(30.0)  # whoever died is taken over, and nothing happens any more
        await self.look()
        for name in list(self.workers):
            await self.stop(name)
        await self.look()
        for send in self.sends.values():
            await self._reckon(send)

    async def _unfinished(self) -> Mapping[str, object]:
        waiting: dict[str, object] = {}
        for send in self.sends.values():
            fields = await self.desk.campaign(send.account, send.name)
            outcomes = sum(int(fields.get(outcome.name.lower(), 0)) for outcome in Outcome)
            if outcomes < int(fields.get("accepted", 0)) or (send.name != TRANSACTIONAL and "finished" not in fields):
                waiting[str(send)] = [outcomes, *(fields.get(name) for name in ("accepted", "state", "leased", "deferred"))]
        if self._flying():
            waiting["leases"] = {name: len(state.leases) for name, state in self.store.accounts.items()}
        return waiting

    async def _reckon(self, send: Send) -> None:
        """Each recipient against what the relay took: lost 0, duplicates at most the doubts."""
        standing = await self.desk.standing(send.account, send.name)
        assert (dict(standing.ready), dict(standing.leased), dict(standing.retry)) == ({}, {}, {}), str(send)
        ended: dict[str, Outcome] = {}
        for chunk in await self.desk.outcomes(send.account, send.name, "", 10**6):
            names = await self._names(send, chunk.batch)
            for record in decode_outcomes(chunk.records):
                assert names[record.row] not in ended, f"{names[record.row]} ended twice"
                ended[names[record.row]] = record.outcome
        mine = [name for name, owner in self.owner.items() if owner is send]
        for name in mine:
            took, outcome = self.taken[name], ended.get(name)
            assert took or outcome is not Outcome.SENT, f"{name} is lost: `sent`, and the relay has nothing"
            is_refused_later = outcome is Outcome.BOUNCED and not self.heard_last[name].takes  # a resend after a doubt
            if outcome is Outcome.BOUNCED and self.heard_last[name] is MOODS["rcpt 5.1.1"]:
                assert await self.desk.suppressed(send.account, [name.encode()]) != [None], f"{name} bounced hard, and is not on the list"
            assert not took or outcome in (Outcome.SENT, Outcome.UNKNOWN) or is_refused_later, f"{name} arrived, and is {outcome!r}"
        repeated = sum(max(0, self.taken[name] - 1) for name in mine)
        assert repeated <= sum(standing.doubts.values()), f"{send}: {repeated} duplicates, doubts {standing.doubts}"

    async def _names(self, send: Send, number: int) -> dict[int, str]:
        (stored,) = await self.desk.batches(send.account, send.name, [number])
        assert stored is not None
        batch = unpack(stored[1])
        return dict(zip(batch.positions, batch.recipients, strict=True))
