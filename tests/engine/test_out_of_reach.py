"""After a reconnect each account is asked whether what is held of it stands. One that does not answer costs itself, and nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from sendengine.engine.worker import Worker
from sendengine.errors import Unavailable
from tests.engine.rig import Rig
from tests.engine.test_engine import virtual

SILENT_S = 10.0  # the link's patience


class Slot:
    """Whether the accounts of one slot answer: `there`, `away` (refused at once), `silent`, or `late` (done, and said after so long)."""

    def __init__(self, worker: Worker, *accounts: str) -> None:
        self.state, self._accounts = "there", accounts
        queue = worker._queue
        self._visit, self._take = queue.visit, queue.take
        queue.visit, queue.take = self._visiting, self._taking  # type: ignore[method-assign]

    async def _visiting(self, account: str, *args: Any) -> Any:
        return await self._answer(self._visit, account, *args)

    async def _taking(self, account: str, *args: Any) -> Any:
        return await self._answer(self._take, account, *args)

    async def _answer(self, call: Any, account: str, *args: Any) -> Any:
        if account not in self._accounts or self.state == "there":
            return await call(account, *args)
        if self.state == "late":
            answer = await call(account, *args)
            await asyncio.sleep(2.5)
            return answer
        await asyncio.sleep(SILENT_S if self.state == "silent" else 0.2)
        raise Unavailable("nobody serves its slot")


@pytest.mark.parametrize("per_hour", [36_000.0, None])
def test_a_cut_that_a_failover_lost_costs_nothing(per_hour: float | None) -> None:
    """The worker was told of it, and the account knows no more of it: its numbers begin anew, and the next one counts."""

    @virtual
    async def test() -> None:
        rig = Rig(latency=0.05)
        await rig.account(per_hour=per_hour)
        await rig.submit(50_000)
        worker = rig.start()
        await asyncio.sleep(3.0)
        fields = rig.store.accounts["m1"].fields
        before = {name: fields.get(name, "0") for name in ("cut", "cut_at")}
        for _ in range(2):
            await rig.desk.pause("m1", "c1")
            await rig.desk.resume("m1", "c1")
        await asyncio.sleep(0.5)
        assert worker._takes.lanes["m1"].cut == 4
        fields.update(before)
        rig.store.generation += 1
        await asyncio.sleep(1.5)  # permits of before are void, and the account's clock is ahead by a horizon
        began = rig.loop.time()
        await asyncio.sleep(5.0)
        assert len([at for at in rig.times() if at >= began]) > 0.95 * 10 * 5
        await rig.desk.pause("m1", "c1")
        paused = rig.loop.time()
        await asyncio.sleep(5.0)
        assert rig.times()[-1] <= paused + 0.25
        rig.kill()

    test()


@virtual
async def test_an_account_that_was_out_of_reach_sends_at_once_when_it_answers() -> None:
    """Its permits are void, and reach further than it was away."""
    rig = Rig()
    await rig.account(per_hour=15_000.0)
    await rig.submit(500)
    worker = rig.start()
    slot, visits = Slot(worker, "m1"), rig.count_visits()
    await asyncio.sleep(5.0)
    seen = visits()
    while visits() == seen:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.01)
    slot.state = "away"
    rig.store.generation += 1
    await asyncio.sleep(0.7)
    assert worker._takes.lanes["m1"].is_distrusted
    slot.state = "there"
    while worker._takes.lanes["m1"].is_distrusted:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.01)
    answered = rig.loop.time()
    await asyncio.sleep(5.0)
    first = next(at for at in rig.times() if at >= answered)
    assert first - answered < 0.2 + 2 * 0.24  # the cut reaches permits later than 200 ms
    rig.kill()


@virtual
async def test_many_silent_accounts_keep_nobody_waiting_for_long() -> None:
    rig = Rig()
    accounts = [f"m{n}" for n in range(1, 901)]
    for account in accounts:
        await rig.account(account, per_hour=3600.0)
        await rig.submit(100, "c1", account)
    worker = rig.start()
    slot = Slot(worker, *accounts[::3])
    await asyncio.sleep(20)
    slot.state = "silent"
    rig.store.generation += 1
    await asyncio.sleep(5)
    began, before = rig.loop.time(), len(rig.log)
    await asyncio.sleep(10)
    assert len(rig.log) - before > 0.95 * 600 * (rig.loop.time() - began)
    slot.state = "there"
    await asyncio.sleep(SILENT_S + 2)
    before = len(rig.log)
    await asyncio.sleep(10)
    assert len(rig.log) - before > 0.95 * 900 * 10
    rig.kill()


@virtual
async def test_an_account_that_had_nothing_left_when_it_fell_silent_sends_what_comes_later() -> None:
    """The late answer of a visit under way takes its last lease; the second reconnect finds none to ask after."""
    rig = Rig()
    await rig.account("m1", per_hour=36_000.0)
    await rig.account("m2", per_hour=36_000.0)
    await rig.submit(5000, "c2", "m2")
    await rig.submit(10, "c1", "m1")
    worker = rig.start()
    slot = Slot(worker, "m1")
    await asyncio.sleep(0.95)
    lane = worker._takes.lanes["m1"]
    slot.state = "late"
    while not lane.is_visiting:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    slot.state = "away"
    for _ in range(2):
        rig.store.generation += 1
        await asyncio.sleep(3.2)
    slot.state = "there"
    await rig.submit(50, "c3", "m1")
    began = rig.loop.time()
    await rig.until_ended("c3", "m1")
    assert rig.loop.time() - began < 15
    assert max(Counter(rig.accepted).values()) == 1
    await rig.stop()


@pytest.mark.interpreted
@virtual
async def test_nothing_is_picked_of_an_account_that_is_not_trusted() -> None:
    """Neither with a licence that a visit brings which was under way."""
    rig = Rig(latency=0.05)
    await rig.account("m1", per_hour=None)
    await rig.submit(50_000)
    worker = rig.start()
    slot = Slot(worker, "m1")
    await asyncio.sleep(2)
    lane, picked = worker._takes.lanes["m1"], 0
    pick = worker._deliveries.pick

    def counting(*args: Any) -> bool:
        nonlocal picked
        picked += 1
        return pick(*args)

    slot.state = "late"
    while not lane.is_visiting:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.005)
    slot.state = "away"
    rig.store.generation += 1
    await asyncio.sleep(1.0)
    assert lane.is_distrusted
    worker._deliveries.pick = counting  # type: ignore[method-assign]
    sent = len(rig.log)
    await asyncio.sleep(8)
    assert picked == 0
    assert len(rig.log) == sent
    slot.state = "there"
    await asyncio.sleep(3)
    assert len(rig.log) > sent
    rig.kill()


@virtual
async def test_a_stop_does_not_wait_for_an_account_out_of_reach_of_which_nothing_is_held() -> None:
    """What it may have lost stands in the journal, which is left to the others."""
    rig = Rig()
    await rig.account("m2", per_hour=36_000.0)
    await rig.submit(20, "c2", "m2")
    worker = rig.start()
    await rig.until_ended("c2", "m2")
    await asyncio.sleep(2)
    slot = Slot(worker, "m2")
    slot.state = "away"
    rig.store.generation += 1
    await asyncio.sleep(3)
    _, task, _ = rig.workers["w1"]
    began = rig.loop.time()
    worker.stop()
    await asyncio.wait([task], timeout=600)
    assert rig.loop.time() - began < 5
    assert "w1" in rig.store.journals


@virtual
async def test_a_freeze_of_redis_leaves_no_field_behind() -> None:
    """The first write after it is given up in mid-air: what it was to delete is deleted by the next."""
    rig = Rig()
    await rig.account("m1", per_hour=36_000.0)
    await rig.submit(900)
    worker = rig.start()
    await asyncio.sleep(30)
    queue = worker._queue
    append, drop, thaws = queue.append, queue.drop, asyncio.Event()
    waiting: set[asyncio.Future[None]] = set()

    async def freezing(*args: Any) -> Any:
        if not thaws.is_set():
            waiting.add(answer := asyncio.get_running_loop().create_future())
            await answer
        return await append(*args)

    def dropping() -> None:
        drop()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(Unavailable("the link was dropped"))

    queue.append, queue.drop = freezing, dropping  # type: ignore[method-assign]
    await asyncio.sleep(25)
    thaws.set()
    dropping()
    await rig.until_ended()
    await asyncio.sleep(60)
    stands = [name for name in rig.store.journals["w1"] if name.isdigit()]
    assert len(stands) == len([tick for tick in worker.journal._ticks if tick.blob])
    assert max(Counter(rig.accepted).values()) == 1
    await rig.stop()
