"""One account's slot takes no settlement while everything else goes on (a slot of a Cluster away, a script that fails there): what its
outcomes cost the journal is bounded, nothing of them is lost, and nothing is settled twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sendengine import records
from sendengine.engine.identity import Identity
from sendengine.engine.remains import read
from sendengine.engine.settings import EngineSettings
from sendengine.engine.takeover import Takeover
from sendengine.engine.worker import Worker
from sendengine.errors import Unavailable
from sendengine.queue.memory import MemoryQueue
from sendengine.types import Attempt, Fault, Outcome, Stage
from tests.engine.rig import DELIVERED, Rig, number, replied
from tests.engine.test_engine import virtual

MINUTES = 5
MOST_FIELDS = 2500  # 20 ms a tick; one stands until it is carried forward and its records are old enough. Notes and replies beside
RESTS = 60.0  # until every tick of a send that is over has gone


def refuse_settlements(worker: Worker, account: str) -> asyncio.Event:
    """Of this account, until the event is set. What is settled of others goes through."""
    visit, again = worker._queue.visit, asyncio.Event()

    async def refusing(name: str, *args: Any) -> Any:
        if name == account and not again.is_set():
            raise Unavailable("nobody serves its slot")
        return await visit(name, *args)

    worker._queue.visit = refusing  # type: ignore[method-assign]
    return again


async def begin(rig: Rig, per_hour: float | None, n: int, settled_for: float) -> tuple[Worker, asyncio.Event]:
    """m1 is settled for a while, then not any more, with a second's work or more on its way; m2 sends for longer than the test."""
    await rig.account("m1", per_hour=per_hour)
    await rig.account("m2", per_hour=36_000.0)
    await rig.submit(n, "stuck", "m1", on_doubt="hold")
    await rig.submit(10 * 60 * (MINUTES + 2), "others", "m2", on_doubt="hold")
    worker = rig.start()
    await asyncio.sleep(settled_for)
    return worker, refuse_settlements(worker, "m1")


@pytest.mark.parametrize(("per_hour", "n", "settled_for"), [(36_000.0, 2000, 10.0), (None, 20_000, 0.5)])
def test_the_journal_stays_small_while_one_account_cannot_be_settled(per_hour: float | None, n: int, settled_for: float) -> None:
    @virtual
    async def test() -> None:
        rig = Rig(latency=0.05)
        worker, again = await begin(rig, per_hour, n, settled_for)
        most = 0
        for _ in range(MINUTES * 60):
            await asyncio.sleep(1)
            most = max(most, len(rig.store.journals["w1"]))
        assert most < MOST_FIELDS
        assert len(rig.times("others")) > 0.98 * 10 * 60 * MINUTES, "its neighbour is not slowed"
        assert rig.loop.time() - rig.times("stuck")[-1] > (MINUTES - 1) * 60, "it has no permits meanwhile"
        assert 0 < number(await rig.status("stuck", "m1"), "sent") < len(rig.times("stuck")) < n
        again.set()
        await holds(rig, n)
        await asyncio.sleep(RESTS)
        assert not worker.journal._ticks, "all of it is settled, and goes"
        await rig.stop()

    test()


async def holds(rig: Rig, n: int) -> None:
    """Everybody has one outcome, and had one message."""
    for account, campaign in (("m1", "stuck"), ("m2", "others")):
        fields = await rig.until_ended(campaign, account)
        found = await rig.outcomes(campaign, account)
        assert found.total() == number(fields, "accepted")
        assert (number(fields, "sent"), number(fields, "unknown")) == (found[Outcome.SENT], found[Outcome.UNKNOWN])
    assert number(await rig.status("stuck", "m1"), "accepted") == n
    assert set(Counter(rig.accepted).values()) == {1}


@virtual
async def test_a_worker_killed_with_outcomes_carried_forward_has_them_settled_by_another() -> None:
    """Each kind of them: sent, bounced, deferred, in doubt."""

    def answer(recipient: str) -> Attempt:
        kind = int(recipient.partition("@")[0].rpartition("-")[2]) % 10
        if kind == 1:
            return replied(Stage.RCPT, 550)
        if kind == 2 and recipient not in deferred:
            deferred.add(recipient)
            return replied(Stage.RCPT, 451)
        if kind == 3:
            return Attempt(Stage.DOT, None, Fault.DISCONNECTED, 0.0, 0.0)
        return DELIVERED

    deferred: set[str] = set()
    rig = Rig(answer, latency=0.05)
    worker, _ = await begin(rig, 36_000.0, 300, 10.0)
    refused_at = rig.loop.time()
    await asyncio.sleep(100)
    mailed, before = len(rig.times("stuck")), await rig.status("stuck", "m1")
    assert 0 < number(before, "tried") < mailed
    doubtful, killed_at = worker.journal.doubtful, rig.loop.time()
    unsettled = {name for at, name in rig.log if name in deferred and name.startswith("stuck") and at > refused_at}
    rig.kill()
    rig.start("w2")
    fields = await rig.until_ended("stuck", "m1")
    await rig.until_ended("others", "m2")
    assert number(fields, "accepted") == (await rig.outcomes("stuck", "m1")).total() == 300
    assert (number(fields, "bounced"), number(fields, "unknown"), number(fields, "sent")) == (30, 30, 240)
    assert set(Counter(rig.accepted).values()) == {1}
    assert len(rig.times("stuck")) <= 300 + 30 + doubtful, "nobody was tried whose try was known"
    again = [at for at, name in rig.log if name in unsettled and at > killed_at]
    assert len(again) == len(unsettled) > 0
    assert min(again) > killed_at + 60, "nobody knew of a deferral"
    await rig.stop("w2")


@virtual
async def test_what_is_carried_forward_goes_from_its_old_place_only_when_it_stands_in_the_new() -> None:
    """A full server takes what only deletes: an append that carried something fails, the deletions of the next one do not, and the worker
    dies. Under `hold` its open message must be in doubt, not sent once more."""
    rig = Rig(latency=40.0)
    await rig.account()
    await rig.submit(1, on_doubt="hold")
    worker = rig.start()
    await asyncio.sleep(5)
    append = worker._queue.append

    async def full(name: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]) -> Any:
        if fields:
            raise Unavailable("OOM command not allowed")
        return await append(name, token, seen, gone, fields)

    worker._queue.append = full  # type: ignore[method-assign]
    await asyncio.sleep(30)
    assert {kind for rows in read(rig.store.journals["w1"]).rows.values() for kind, _ in rows.values()} == {records.KIND_INTENT}
    rig.kill()
    rig.start("w2")
    assert number(await rig.until_ended(), "unknown") == 1
    await rig.stop("w2")


@virtual
async def test_an_outcome_of_a_lease_that_is_not_ours_any_more_pins_nothing() -> None:
    """Redis lost the take, or the account was purged: the lane has gone when the relay answers at last."""
    rig = Rig()
    await rig.account(per_hour=3600.0)
    await rig.submit(2)
    worker = rig.start()
    [(_, _, channel)] = rig.workers.values()
    await asyncio.sleep(0.5)
    channel.latency = rig.latency = 60.0
    await asyncio.sleep(1.0)
    assert (len(rig.accepted), worker.journal.doubtful) == (1, 1)
    rig.store.accounts["m1"].leases.clear()
    await asyncio.sleep(30)
    assert not worker._takes.lanes
    await asyncio.sleep(60 + RESTS)
    assert (len(rig.accepted), worker.journal.doubtful) == (2, 0)
    assert not worker.journal._ticks
    await rig.stop()


@virtual
async def test_a_reconnect_while_one_account_cannot_be_settled_keeps_no_other_waiting() -> None:
    """What it was settled lately is settled again when its slot is back: Redis may have lost it."""
    rig = Rig(latency=0.05)
    _, again = await begin(rig, 36_000.0, 200, 10.0)
    rig.store.generation += 1
    before = len(rig.times("others"))
    await asyncio.sleep(60)
    assert len(rig.times("others")) - before > 0.95 * 10 * 60
    again.set()
    await holds(rig, 200)
    await rig.stop()


@virtual
async def test_an_account_that_is_found_and_cannot_be_read_keeps_no_other_waiting() -> None:
    """Its slot of the Cluster is away, the index is there. When it is back, the account is found again."""
    rig = Rig(latency=0.05)
    worker, again = await begin(rig, 36_000.0, 200, 10.0)
    read, is_away = worker._queue.account, True

    async def refusing(name: str) -> Any:
        if name == "m3" and is_away:
            raise Unavailable("nobody serves its slot")
        return await read(name)

    worker._queue.account = refusing  # type: ignore[method-assign]
    again.set()
    await rig.account("m3", per_hour=36_000.0)
    await rig.submit(50, "hidden", "m3")
    before = len(rig.times("others"))
    await asyncio.sleep(60)
    assert len(rig.times("others")) - before > 0.95 * 10 * 60
    is_away = False
    before = rig.loop.time()
    await rig.until_ended("hidden", "m3")
    assert rig.loop.time() - before < 10
    await holds(rig, 200)
    await rig.stop()


@virtual
async def test_a_takeover_frees_the_others_while_one_account_is_out_of_reach() -> None:
    """And keeps the journal until that one is freed, too."""
    rig = Rig(latency=0.05)
    for account in ("m1", "m2"):
        await rig.account(account, per_hour=36_000.0)
        await rig.submit(400, account, account, on_doubt="hold")
    rig.start()
    await asyncio.sleep(10)
    rig.kill()
    again = refuse_settlements(rig.start("w2"), "m1")
    async with asyncio.timeout(30 + 40):
        await rig.until_ended("m2", "m2")
    assert "w1" in rig.store.journals
    again.set()
    async with asyncio.timeout(30 + 40):
        await rig.until_ended("m1", "m1")
    assert set(Counter(rig.accepted).values()) == {1}
    assert "w1" not in rig.store.journals
    await rig.stop("w2")


@virtual
async def test_a_sweep_meets_the_others_while_one_account_is_out_of_reach() -> None:
    rig = Rig()
    for account in ("m1", "m2"):
        await rig.account(account)
        await rig.submit(1, "c", account)
    rig.store.index.clear()

    class Away(MemoryQueue):
        async def need(self, account: str) -> tuple[float, dict[bytes, str]]:
            if account == "m1":
                raise Unavailable("nobody serves its slot")
            return await super().need(account)

    queue = Away(rig.store, rig.now_us)
    takeover = Takeover(queue, Identity("w1"), EngineSettings(), rig.loop.time, rig.loop.time)
    await takeover.sweep()
    await takeover.look_at_strays()
    assert list(rig.store.index) == ["m2"]


@virtual
async def test_workers_that_start_together_have_no_account_twice() -> None:
    """The first one's sweep meets accounts that were just found, of which nobody holds a lease yet."""
    rig = Rig()
    accounts = [f"m{number}" for number in range(1, 201)]
    for account in accounts:
        await rig.account(account, per_hour=3600.0)
        await rig.submit(250, "c", account)
    names = ("w1", "w2", "w3")
    for name in names:
        _attach_slowly(rig.start(name))
    await asyncio.sleep(20)
    held = Counter(account for name in names for account in rig.workers[name][0]._takes.lanes)
    assert held == Counter(accounts)
    for name in names:
        await rig.stop(name)


@virtual
async def test_a_stray_whose_second_look_fails_is_looked_at_again() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(1, "c")
    rig.store.index.clear()
    queue = MemoryQueue(rig.store, rig.now_us)
    takeover = Takeover(queue, Identity("w1"), EngineSettings(), rig.loop.time, rig.loop.time)
    await takeover.sweep()
    assert takeover.has_strays
    need = queue.need

    async def away(account: str) -> tuple[float, dict[bytes, str]]:
        raise Unavailable("nobody serves its slot")

    queue.need = away  # type: ignore[method-assign]
    await takeover.look_at_strays()
    assert takeover.has_strays
    queue.need = need  # type: ignore[method-assign]
    await takeover.look_at_strays()
    assert not takeover.has_strays
    assert list(rig.store.index) == ["m1"]


@virtual
async def test_a_worker_that_stops_between_two_looks_leaves_the_sweep_to_another() -> None:
    rig = Rig()
    await rig.account("m1")
    rig.start("w1")
    await asyncio.sleep(60.5)
    await rig.submit(1, "c")
    rig.store.index.clear()
    while not rig.workers["w1"][0]._takeover.has_strays:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.1)
    await rig.stop("w1")
    rig.start("w2")
    async with asyncio.timeout(10):
        await rig.until_ended("c")
    await rig.stop("w2")


def _attach_slowly(worker: Worker) -> None:
    """The sixty that are found together are attached within a second and a half."""
    account, claim = worker._queue.account, worker._queue.claim_sweep

    async def slow(name: str) -> Any:
        await asyncio.sleep(0.02)
        return await account(name)

    async def later(seconds: float) -> bool:
        await asyncio.sleep(0.1)
        return await claim(seconds)

    worker._queue.account, worker._queue.claim_sweep = slow, later  # type: ignore[method-assign]
