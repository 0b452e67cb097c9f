"""Random histories of verbs, workers and relays on virtual time, and what must hold at every step of them.

SENDENGINE_HISTORIES=N tells how many (a run of `make test` makes a few), SENDENGINE_SEED which: the seed of a run is printed when it fails.
A history that fails is shrunk to the few steps that matter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from sendengine.engine import takeover
from sendengine.engine.remains import Remains, settlements_of
from sendengine.engine.screening import Screening
from sendengine.engine.work import Delivery
from sendengine.errors import SendEngineError
from sendengine.ports import Appended, Late, Settlement, Visited
from sendengine.queue.memory import MemoryQueue
from sendengine.records import NO_ROWS
from tests import chance
from tests.engine.virtual import VirtualLoop
from tests.engine.world import MOODS, Send, World

HISTORIES = int(os.environ.get("SENDENGINE_HISTORIES", "30"))
SEED = chance.seed(10**9)

ACCOUNTS = st.sampled_from(["m1", "m2"])
RATES = st.sampled_from([2300.0, 36_000.0, 200_000.0, None])
THEN = st.sampled_from([0.3, 0.003, 0.04, 1.1, 3.0, 14.0])  # seconds that pass after a deed
PLACES = st.integers(0, 7)


class Histories(RuleBasedStateMachine):
    """Each rule is one thing that somebody does, or that happens; the virtual loop stands still between them."""

    make_queue: type[MemoryQueue] = MemoryQueue

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda loop, context: None)  # killed processes leave tasks behind
        self.has_failed = False
        self.world: World

    def run(self, step: Coroutine[Any, Any, Any], then: float = 0.0) -> None:
        """A step, and the time that passes after it."""

        async def pass_time() -> None:
            await step
            await asyncio.sleep(then)

        try:
            self.loop.run_until_complete(pass_time())
        except BaseException:
            self.has_failed = True
            raise

    @initialize(
        latency=st.sampled_from([0.002, 0.3]), spread=st.sampled_from([1.0, 1000.0]), rate=RATES, together=st.sampled_from([1, 5]),
        way=st.sampled_from([0.0, 0.015]),
    )  # fmt: skip
    def begin(self, latency: float, spread: float, rate: float | None, together: int, way: float) -> None:
        async def begin() -> None:
            self.world = World(latency, spread, self.make_queue, together, way)
            await self.world.account("m1", rate)
            await self.world.account("m2", 36_000.0)
            self.world.start()

        self.run(begin())

    # schedulers

    @rule(account=ACCOUNTS, rows=st.sampled_from([900, 230, 99, 12]), batches=st.integers(0, 2), seals=st.booleans(),
          on_doubt=st.sampled_from(["resend", "hold"]), sequential=st.booleans(), priority=st.booleans(),
          after=st.sampled_from([0.0, 0.0, 2.0]), then=THEN)  # fmt: skip
    def submit(
        self, account: str, rows: int, batches: int, seals: bool, on_doubt: str, sequential: bool, priority: bool, after: float, then: float
    ) -> None:  # fmt: skip
        async def submit() -> None:
            send = await self.world.create(account, rows, on_doubt=on_doubt, sequential=sequential, priority=priority, after=after)
            await (self.world.seal(send) if seals else self.world.submit(send, batches))

        self.run(submit(), then)

    @precondition(lambda self: self.campaigns())
    @rule(place=PLACES, then=THEN)
    def seal(self, place: int, then: float) -> None:
        self.run(self.world.seal(self.at(place)), then)

    @precondition(lambda self: self.campaigns())
    @rule(place=PLACES, verb=st.sampled_from(["pause", "resume", "cancel", "reverse"]), then=THEN)
    def steer(self, verb: str, place: int, then: float) -> None:
        self.run(self.world.verb(verb, self.at(place)), then)

    @precondition(lambda self: self.campaigns())
    @rule(place=PLACES, direction=st.sampled_from(["up", "down"]))
    def move(self, place: int, direction: str) -> None:
        send = self.at(place)
        self.run(self.world.desk.move(send.account, send.name, direction))

    @rule(account=ACCOUNTS, rate=RATES, then=THEN)
    def change_tier(self, account: str, rate: float | None, then: float) -> None:
        self.run(self.world.set_rate(account, rate), then)

    @rule(account=ACCOUNTS, deed=st.sampled_from(["hold", "release", "expire", "renew"]), then=THEN)
    def turn_gate(self, account: str, deed: str, then: float) -> None:
        self.run(self.world.gate(account, deed), then)

    @rule(account=ACCOUNTS, then=THEN)
    def send_single_message(self, account: str, then: float) -> None:
        self.run(self.world.transact(account), then)

    @precondition(lambda self: self.campaigns())
    @rule(place=PLACES, every=st.sampled_from([1, 3, 50]), then=THEN)
    def suppress(self, place: int, every: int, then: float) -> None:
        self.run(self.world.suppress(self.at(place), every), then)

    def campaigns(self) -> list[Send]:
        return [send for send in self.world.sends.values() if send.batches]

    def at(self, place: int) -> Send:
        campaigns = self.campaigns()
        return campaigns[place % len(campaigns)]

    # workers

    @rule(n=st.sampled_from([1, 2, 8]), then=THEN)
    def scale(self, n: int, then: float) -> None:
        self.run(self._scale(n), then)

    async def _scale(self, n: int) -> None:
        while len(self.world.workers) < n:
            self.world.start()
        await asyncio.gather(*(self.world.stop(name) for name in list(self.world.workers)[n:]))

    @precondition(lambda self: self.world.workers)
    @rule(place=PLACES, then=THEN)
    def kill_worker(self, place: int, then: float) -> None:
        self.run(self._do(self.world.kill, self._worker(place)), then)

    @precondition(lambda self: self.world.workers)
    @rule(place=PLACES, then=THEN)
    def stop_process(self, place: int, then: float) -> None:
        self.run(self._do(self.world.halt, self._worker(place)), then)

    @precondition(lambda self: self.world.halted)
    @rule(then=THEN)
    def continue_process(self, then: float) -> None:
        self.run(self._do(self.world.go_on, next(iter(self.world.halted))), then)

    async def _do(self, deed: Callable[[str], None], name: str) -> None:
        deed(name)

    def _worker(self, place: int) -> str:
        names = list(self.world.workers)
        return names[place % len(names)]

    # the world outside

    @rule(mood=st.sampled_from([mood for mood in MOODS if mood != "250"]), times=st.sampled_from([1, 3, 25]), then=THEN)
    def relay_says(self, mood: str, times: int, then: float) -> None:
        self.world.moods += [mood] * times
        self.run(asyncio.sleep(0), then)

    @rule(seconds=THEN, then=THEN)
    def relay_goes_away(self, seconds: float, then: float) -> None:
        self.run(self.world.go_away(seconds), then)

    @rule(seconds=THEN, then=THEN)
    def redis_goes_away(self, seconds: float, then: float) -> None:
        async def away() -> None:
            self.world.store.is_away = True
            await asyncio.sleep(seconds)
            self.world.store.is_away = False
            self.world.store.generation += 1

        self.run(away(), then)

    @rule(then=THEN)
    def wait(self, then: float) -> None:
        self.run(asyncio.sleep(then))

    # what must hold

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.look())

    def teardown(self) -> None:
        try:
            if not self.has_failed and hasattr(self, "world"):
                self.run(self.world.come_to_rest())
        finally:
            self.loop.close()


def run_histories(machine: type[Histories], n: int, number: int, phases: Sequence[Phase] = (Phase.generate, Phase.shrink)) -> None:
    print(f"SENDENGINE_SEED={number}")
    checks = list(HealthCheck)
    told = settings(max_examples=n, stateful_step_count=25, deadline=None, database=None, suppress_health_check=checks, phases=phases)
    run_state_machine_as_test(seed(number)(machine), settings=told)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A thousand histories would log a million lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(0 if "SENDENGINE_HISTORIES" in os.environ else 180)
def test_histories() -> None:
    run_histories(Histories, HISTORIES, SEED)


# Controls: an engine with one rule left out, of which the machine must report what the rule is for.


class _AnswersBeforeItWrites(MemoryQueue):
    """A journal that is not there yet when bytes go."""

    async def append(
        self, worker: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]
    ) -> Appended:
        answer = await super().append(worker, token, seen, [], [])
        late = super().append

        async def write() -> None:
            await asyncio.sleep(1.0)
            with suppress(SendEngineError):  # fenced meanwhile, or buried
                await late(worker, token, seen, gone, fields)

        self.writing = asyncio.get_running_loop().create_task(write())
        return answer


def _all_freed(remains: Remains, now_ms: int) -> dict[str, list[Settlement]]:
    """A takeover that gives everything back, whatever may have been sent."""
    nothing: dict[str, Any] = {"doubts": b"", "deferred": b"", "records": b"", "final": NO_ROWS}
    found = settlements_of(remains, now_ms)
    return {name: [msgspec.structs.replace(one, **nothing) for one in settlements] for name, settlements in found.items()}


class _ReadsNoStates(MemoryQueue):
    """A visit that lets go on whatever is held: a pause reaches only what is not yet taken."""

    async def visit(self, account: str, want: int, horizon_us: float, bind: str, held: Sequence[str], *args: Any, **named: Any) -> Visited:
        state = self._store.accounts[account]
        state.run, run = dict.fromkeys(held, 0), state.run
        try:
            return await super().visit(account, want, horizon_us, bind, held, *args, **named)
        finally:
            state.run = run


class _ReadsNoGate(MemoryQueue):
    """A visit and a take that ask nobody whether the account may send."""

    async def visit(self, account: str, *args: Any, **named: Any) -> Visited:
        gate = self._store.accounts[account].fields.pop("gate", None)
        try:
            return await super().visit(account, *args, **named)
        finally:
            self._store.accounts[account].fields |= {} if gate is None else {"gate": gate}


class _GrantsTwice(MemoryQueue):
    """An account's clock that every worker has for itself."""

    async def visit(self, account: str, *args: Any, **named: Any) -> Visited:
        fields = self._store.accounts[account].fields
        before = fields["last"]
        answer = await super().visit(account, *args, **named)
        fields["last"] = before
        return answer


class _NamesNobodyLate(MemoryQueue):
    """What is held is never looked at again: a list reaches only what is not yet taken."""

    async def late(self, account: str, listed: int) -> Late:
        return Late((await super().late(account, listed)).listed, [])


def play(
    queue: type[MemoryQueue], deed: Callable[[Histories], None], together: int = 1, on_doubt: str = "resend",
    rate: float | None = 200_000.0, way: float = 0.0,
) -> World:  # fmt: skip
    """One history, to its end."""
    machine = type("Played", (Histories,), {"make_queue": queue})()
    try:
        machine.begin(latency=0.3, spread=1000.0, rate=rate, together=together, way=way)
        machine.submit(
            account="m1", rows=900, batches=0, seals=True, on_doubt=on_doubt, sequential=False, priority=False, after=0.0, then=3.0
        )  # fmt: skip
        deed(machine)
        machine.wait(then=3.0)
        machine.holds()
    except BaseException:
        machine.has_failed = True
        raise
    finally:
        machine.teardown()
    world: World = machine.world
    return world


def kill(machine: Histories) -> None:
    machine.kill_worker(place=0, then=0.0)
    machine.scale(n=1, then=0.0)


def pause(machine: Histories) -> None:
    machine.steer(place=0, verb="pause", then=0.0)


def suppress_all(machine: Histories) -> None:
    machine.suppress(place=0, every=1, then=0.0)


def suppress_all_while_it_stands_still(machine: Histories) -> None:
    machine.stop_process(place=0, then=0.0)
    machine.suppress(place=0, every=1, then=3.0)
    machine.continue_process(then=0.0)


def hold(machine: Histories) -> None:
    machine.turn_gate(account="m1", deed="hold", then=0.0)


def expire(machine: Histories) -> None:
    machine.turn_gate(account="m1", deed="expire", then=0.0)


def nothing(machine: Histories) -> None: ...


@pytest.mark.parametrize("deed", [kill, pause, hold, expire, nothing, suppress_all, suppress_all_while_it_stands_still])
def test_control_the_whole_engine_passes(deed: Callable[[Histories], None]) -> None:
    play(MemoryQueue, deed)


@pytest.mark.parametrize(
    ("queue", "deed", "what"),
    [
        (_AnswersBeforeItWrites, kill, "duplicates"),
        (_ReadsNoStates, pause, "after it was stopped"),
        (_ReadsNoGate, hold, "after its account's gate was shut"),
        (_ReadsNoGate, expire, "after its account's gate was shut"),
        (_GrantsTwice, nothing, "MAILs within"),
        (_NamesNobodyLate, suppress_all, "after it was suppressed"),
    ],
)
def test_control_a_rule_left_out_is_reported(queue: type[MemoryQueue], deed: Callable[[Histories], None], what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        play(queue, deed)


@pytest.mark.interpreted
def test_control_what_was_picked_does_not_wait_for_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    play(MemoryQueue, suppress_all_while_it_stands_still, rate=None, way=0.015)
    monkeypatch.setattr(Screening, "park", lambda self, deliveries: list(deliveries))
    with pytest.raises(AssertionError, match="after it was suppressed"):
        play(MemoryQueue, suppress_all_while_it_stands_still, rate=None, way=0.015)


@pytest.mark.parametrize("deed", [kill, pause, nothing])
def test_messages_go_together_where_no_doubt_would_stand(deed: Callable[[Histories], None]) -> None:
    assert play(MemoryQueue, deed, together=5).companies > 20
    assert play(MemoryQueue, deed, together=5, on_doubt="hold").companies == 0


@pytest.mark.interpreted
def test_control_a_held_send_in_company_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "is_alone", False)
    with pytest.raises(AssertionError, match="go together"):
        play(MemoryQueue, nothing, together=5, on_doubt="hold")


def test_control_a_takeover_that_frees_before_it_looks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "settlements_of", _all_freed)
    with pytest.raises(AssertionError, match="duplicates"):
        play(MemoryQueue, kill)
