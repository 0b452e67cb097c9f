"""The same random life of an account on Redis and in memory: every answer equal, and every row in one place after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from queue_bench import NOON, Bench, addresses, batches, deferred, doubts, ended, memory_bench, outcomes, redis_bench, settlement, where
from redis import Redis

from sendengine.ports import Leased, Run, Settlement, Standing, Taken
from sendengine.records import PAST, rows_of
from sendengine.types import Outcome

LONG = 3_600_000  # ms: a retry that this test does not see
TIMES = {  # their presence is compared, not their values
    "created", "at", "sealed_at", "paused_at", "closed_at", "resting", "idle", "cancelled_at", "finished", "through", "last", "cut_at",
    "over", "rested", "idle_at", "resumed_at", "runs_since", "gate", "term_ends",
}  # fmt: skip
CAMPAIGNS = ["a", "b", "line1", "line2"]
campaign = st.sampled_from(CAMPAIGNS)


def comparable(fields: dict[str, str]) -> dict[str, str | list[str]]:
    bind = {"bind": fields["bind"].split("|", 2)[::2]} if "bind" in fields else {}  # between them stands since when
    return {name: "set" if name in TIMES else value for name, value in fields.items()} | bind


def sorted_masks(standing: Standing) -> tuple[Any, ...]:
    parts = (standing.ready, standing.leased, standing.retry)
    return (*({batch: sorted(masks) for batch, masks in part.items()} for part in parts), standing.doubts)


def timeless(taken: Taken) -> Taken:
    """The clocks of the two differ: of a time only counts whether there is one."""
    leases = tuple(msgspec.structs.replace(lease, idle_us=float(lease.idle_us > 0)) for lease in taken.leases)
    need, wake = min(taken.need_us, 1.0), min(taken.wake_us, 1.0)
    return msgspec.structs.replace(taken, need_us=need, wake_us=wake, leases=leases)


class Twins(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        with Redis.from_url(self.url) as redis:
            redis.flushall()
        self.loop = asyncio.Runner()
        self.benches = (memory_bench(), redis_bench(self.url))
        self.leases: list[Leased] = []
        self.past: dict[bytes, set[int]] = {}
        self.loaded = dict.fromkeys(CAMPAIGNS, 0)
        self.settled: list[Settlement] = []
        self.begun = [Run(16 * "f")]
        self.both(lambda bench: bench.account())
        self.both(lambda bench: bench.queue.register("w1", b"t"))
        for name in CAMPAIGNS:
            extra = {"sequential": "1"} if name.startswith("line") else {"on_doubt": "hold"} if name == "b" else {}
            self.both(lambda bench, name=name, extra=extra: bench.campaign(name, 0, sealed=False, **extra))  # type: ignore[misc]

    def teardown(self) -> None:
        self.both(lambda bench: bench.close())
        self.loop.close()

    def both(self, act: Callable[[Bench], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> tuple[Any, ...]:
            return tuple([await act(bench) for bench in self.benches])

        one, other = self.loop.run(run())
        assert one == other
        return one

    @rule(name=campaign, n=st.sampled_from([3, 100, 130]))
    def submit(self, name: str, n: int) -> None:
        levels = [at % 3 for at in range(n)]
        packed = batches(addresses(self.loaded[name] * 37 + n), None)[self.loaded[name] :]
        run = self.begun[-1]
        for batch in packed if n > 100 else batches(addresses(n), levels):
            stored = self.both(lambda bench, batch=batch: bench.desk.submit("m1", name, batch, run=run))  # type: ignore[misc]
            self.loaded[name] += stored.status == "stored"

    @rule(name=campaign, first=st.integers(0, 2))
    def begin_list(self, name: str, first: int) -> None:
        self.begun.append(Run(f"{len(self.begun):016x}", first))
        self.both(lambda bench: bench.desk.begin_list("m1", name, self.begun[-1]))

    @rule(name=campaign, which=st.integers(0, 9), of=st.integers(0, 1), leaves=st.booleans())
    def end_list(self, name: str, which: int, of: int, leaves: bool) -> None:
        run, until = self.begun[-1 - which % len(self.begun)], self.loaded[name] - of
        if leaves:
            self.both(lambda bench: bench.desk.leave_list("m1", name, run))
        else:
            self.both(lambda bench: bench.desk.end_list("m1", name, run, until))

    @rule(name=campaign, ended=st.booleans())
    def seal(self, name: str, ended: bool) -> None:
        self.both(lambda bench: bench.desk.seal("m1", name, self.loaded[name], must_have_ended=ended))

    @rule(name=campaign, verb=st.sampled_from(["pause", "resume", "reverse"]))
    def verb(self, name: str, verb: str) -> None:
        self.both(lambda bench: getattr(bench.desk, verb)("m1", name))

    @rule(name=campaign, sure=st.integers(0, 3))
    def cancel(self, name: str, sure: int) -> None:
        if not sure:
            self.both(lambda bench: bench.desk.cancel("m1", name))

    @rule(name=campaign, direction=st.sampled_from(["up", "down"]))
    def move(self, name: str, direction: str) -> None:
        self.both(lambda bench: bench.desk.move("m1", name, direction))
        self.both(lambda bench: bench.desk.line("m1"))

    @rule(name=campaign, is_open=st.booleans())
    def window(self, name: str, is_open: bool) -> None:
        self.both(lambda bench: bench.queue.window("m1", name, is_open, None))

    @rule(what=st.sampled_from(["hold:a", "hold:b"]), stands=st.booleans())
    def hold(self, what: str, stands: bool) -> None:
        self.both(lambda bench: _gate(bench, {what: "{}" if stands else ""}))

    @rule(is_over=st.booleans())
    def term(self, is_over: bool) -> None:
        """It ended a second ago, or goes on for an hour."""

        async def change(bench: Bench) -> str:
            ends = await bench.desk.now_us() + (-1e6 if is_over else 3.6e9)
            return await _gate(bench, {"term": "active", "term_ends": f"{ends:.0f}"})

        self.both(change)

    @rule(bind=st.sampled_from(["relay|x", "relay|w", "", "site|y", "rate|z"]))
    def bind(self, bind: str) -> None:
        self.both(lambda bench: _bind(bench, bind))

    @rule(n=st.sampled_from([1, 100, 1000]), tokens=st.integers(1, 8), skip=st.lists(campaign, max_size=1))
    def take(self, n: int, tokens: int, skip: list[str]) -> None:
        async def take(bench: Bench) -> Taken:
            return timeless(await bench.take(n, tokens=tokens, skip=skip))

        self.leases += self.both(take).leases

    @rule(which=st.integers(0, 9), cut=st.lists(st.integers(0, 99), min_size=5, max_size=5), delay=st.sampled_from([0, LONG]))
    def settle(self, which: int, cut: list[int], delay: int) -> None:
        """Rows below the cuts are sent, bounced or suppressed, deferred, in doubt, given back; the others stay leased."""
        if not self.leases:
            return
        lease = self.leases[which % len(self.leases)]
        rows = rows_of(lease.mask)
        past = {row for row, *_ in PAST.iter_unpack(lease.past)}
        sent, other, later, doubtful, back = (
            [row for row in rows if low <= row < high] for low, high in zip([0, *sorted(cut)[:4]], sorted(cut), strict=True)
        )
        finals = b"".join(outcomes([row], Outcome.SENT, row not in past) for row in sent)
        finals += b"".join(outcomes([row], Outcome.SUPPRESSED, row not in past) for row in other)
        tries = {row: 2 if row in past else 1 for row in rows}
        self._settle(
            settlement(
                lease.token, finals,
                b"".join(deferred([row], delay, tries[row]) for row in later),
                b"".join(doubts([row], tries[row]) for row in doubtful),
                back,
            )
        )  # fmt: skip

    def _settle(self, what: Settlement) -> None:
        self.both(lambda bench: bench.settle(what))
        self.settled.append(what)

    @rule(which=st.integers(0, 99))
    def settle_again(self, which: int) -> None:
        """A repeat, a zombie's late copy, a second rescuer: nothing changes."""
        if self.settled:
            before = [self.both(lambda bench, name=name: _counts(bench, name)) for name in CAMPAIGNS]  # type: ignore[misc]
            what = self.settled[which % len(self.settled)]
            self.both(lambda bench: bench.settle(what))
            after = [self.both(lambda bench, name=name: _counts(bench, name)) for name in CAMPAIGNS]  # type: ignore[misc]
            assert after == before

    @rule(which=st.integers(0, 9), doubtful=st.lists(st.integers(0, 99), max_size=5, unique=True))
    def take_over(self, which: int, doubtful: list[int]) -> None:
        """A rescuer: intents without outcome are in doubt, all others are READY again."""
        if self.leases:
            lease = self.leases[which % len(self.leases)]
            self._settle(settlement(lease.token, doubts=doubts(doubtful), back=range(100)))

    @rule(want=st.integers(1, 9), held=st.permutations(CAMPAIGNS))
    def visit(self, want: int, held: list[str]) -> None:
        self.both(lambda bench: _permits(bench, want, held))

    @invariant()
    def nothing_differs(self) -> None:
        for name in CAMPAIGNS:
            self.both(lambda bench, name=name: _shape(bench, name))  # type: ignore[misc]
        self.both(lambda bench: _standing_of_account(bench))

    @invariant()
    def every_row_is_in_one_place(self) -> None:
        for name in CAMPAIGNS:
            fields, standing = self.loop.run(_both_views(self.benches[1], name))
            accepted, stands = int(fields.get("accepted", 0)), where(standing)
            assert accepted == sum(ended(fields).values()) + sum(stands.values())
            assert int(fields.get("leased", 0)) == stands["leased"]
            assert int(fields.get("deferred", 0)) == stands["retry"]
            assert int(fields.get("rows", 0)) == accepted + int(fields.get("duplicates", 0))


async def _counts(bench: Bench, name: str) -> dict[str, str]:
    return {key: value for key, value in comparable(dict(await bench.fields(name))).items() if key != "recent"}


async def _permits(bench: Bench, want: int, held: list[str]) -> tuple[Any, ...]:
    visited = await bench.visit(want, held)
    return visited.permits, visited.deal, visited.stopped, visited.cut, visited.interval_us


async def _gate(bench: Bench, fields: dict[str, str]) -> str:
    return (await bench.desk.set_gate("m1", {}, fields)).status


async def _bind(bench: Bench, bind: str) -> tuple[int, bytes, bool]:
    """Idle time is counted where it was told that there was some."""
    visited = await bench.visit(0, [*CAMPAIGNS], bind=bind)
    return visited.permits, visited.stopped, visited.closes_us > 0


async def _both_views(bench: Bench, name: str) -> tuple[Any, Standing]:
    return await bench.fields(name), await bench.desk.standing("m1", name)


async def _shape(bench: Bench, name: str) -> tuple[Any, ...]:
    fields, standing = await _both_views(bench, name)
    chunks = await bench.desk.outcomes("m1", name, "", 1000)
    told = [(chunk.batch, chunk.records, chunk.dictionary, chunk.worker) for chunk in chunks]
    return comparable(dict(fields)), sorted_masks(standing), told


async def _standing_of_account(bench: Bench) -> tuple[Any, ...]:
    need, leases = await bench.queue.need("m1")
    news = await bench.queue.append("w1", b"t", 0, [], [])
    told = [(item.account, item.cut) for item in news.news]
    account = comparable(dict(await bench.desk.account("m1")))
    return need > NOON / 2 or need, leases, told, account, await bench.queue.is_idle("m1")


@pytest.mark.timeout(120)
def test_redis_and_memory_do_the_same(redis_url: str) -> None:
    Twins.url = redis_url
    run_state_machine_as_test(
        Twins,
        settings=settings(
            max_examples=12, stateful_step_count=30, deadline=None, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        ),
    )
