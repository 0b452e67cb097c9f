"""Takeovers and sweeps while a part of a Cluster is away: who is dead and in reach is rescued, at once, and the rest when it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sendengine import records
from sendengine.engine.worker import Worker
from sendengine.errors import Unavailable
from sendengine.types import Stage
from tests.engine.rig import Rig, replied
from tests.engine.test_engine import virtual

ABSENT = "nobody serves its slot"


class Away:
    """Calls of one worker's queue about these names are refused after a while, as a Cluster's are when a slot of it is not served."""

    def __init__(self, worker: Worker, *calls: str, after: float = 0.0) -> None:
        self.names: set[str] = set()
        self.after = after
        for call in calls:
            setattr(worker._queue, call, self._refusing(getattr(worker._queue, call)))

    def _refusing(self, asked: Any) -> Any:
        async def ask(name: str, *args: Any) -> Any:
            if name in self.names:
                await asyncio.sleep(self.after)
                raise Unavailable(ABSENT)
            return await asked(name, *args)

        return ask


async def two_workers(rig: Rig, accounts: int = 1, rows: int = 400) -> Worker:
    """The first holds all accounts; the second is returned."""
    for at in range(accounts):
        await rig.account(f"m{at}", per_hour=3600.0)
        await rig.submit(rows, "c", f"m{at}")
    rig.start("w1")
    await asyncio.sleep(5.0)
    worker = rig.start("w2")
    await asyncio.sleep(1.0)
    return worker


def held_by(rig: Rig, worker: str) -> set[str]:
    return {name for name, state in rig.store.accounts.items() if any(lease.worker == worker for lease in state.leases.values())}


@pytest.mark.parametrize(("call", "token", "after"), [("beat", b"x", 60.0), ("beat", b"x", 0.0), ("revoke", records.REVOKED, 0.0)])
def test_one_journal_out_of_reach_keeps_no_other_from_a_rescuer(call: str, token: bytes, after: float) -> None:
    @virtual
    async def rescues() -> None:
        rig = Rig()
        worker = await two_workers(rig)
        away = Away(worker, call, after=after)
        away.names.add("w0")
        rig.store.workers = {"w0": None} | rig.store.workers  # the first to be looked at
        rig.store.journals["w0"] = {b"t": token, b"b": b"1"}
        told, swept = rig.store.infos["w2"], rig.store.swept_until
        rig.kill("w1")
        await asyncio.sleep(30.0)
        assert "w1" not in rig.store.journals
        assert held_by(rig, "w1") == set()
        assert "w0" in rig.store.journals
        assert rig.store.infos["w2"] != told
        assert rig.store.swept_until > swept
        away.names.clear()
        await asyncio.sleep(30.0)
        assert "w0" not in rig.store.journals
        await rig.stop("w2")

    rescues()


@virtual
async def test_who_could_not_be_read_for_a_while_is_not_called_dead_for_it() -> None:
    """Its part was away: it could not write its beat either."""
    rig = Rig()
    worker = await two_workers(rig)
    away = Away(worker, "beat")
    journal = rig.store.journals["w1"]
    await asyncio.sleep(4.0)
    rig.loop.halt("w1")
    await asyncio.sleep(4.0)
    away.names.add("w1")
    await asyncio.sleep(8.0)
    away.names.clear()
    await asyncio.sleep(8.0)
    assert rig.store.journals["w1"] is journal
    assert journal[b"t"] != records.REVOKED
    rig.loop.go_on("w1")
    await rig.until_ended("c", "m0")
    await rig.stop("w1")
    await rig.stop("w2")


@virtual
async def test_accounts_out_of_reach_delay_no_other_one() -> None:
    rig = Rig()
    worker = await two_workers(rig, accounts=90, rows=60)
    away = Away(worker, "visit", after=5.0)
    away.names = {name for name in held_by(rig, "w1") if int(name[1:]) % 3 == 0}
    assert len(away.names) > 20
    rig.kill("w1")
    await asyncio.sleep(20.0)
    assert held_by(rig, "w1") == away.names
    assert "w1" in rig.store.journals
    away.names = set()
    await asyncio.sleep(10.0)
    assert held_by(rig, "w1") == set()
    assert "w1" not in rig.store.journals
    rig.kill("w2")


@virtual
async def test_a_damaged_journal_is_rescued_though_an_account_cannot_be_asked() -> None:
    rig = Rig()
    worker = await two_workers(rig, accounts=3)
    away = Away(worker, "need")
    away.names = {"m1"}
    rig.kill("w1")
    for name in [name for name in rig.store.journals["w1"] if name[:1] == b"L"]:
        rig.store.journals["w1"][name] = b"\xff"
    await asyncio.sleep(20.0)
    assert held_by(rig, "w1") == {"m1"}
    assert "w1" in rig.store.journals
    away.names = set()
    await asyncio.sleep(10.0)
    assert held_by(rig, "w1") == set()
    assert "w1" not in rig.store.journals
    await rig.stop("w2")


@virtual
async def test_a_sweep_reaches_what_stands_behind_accounts_out_of_reach() -> None:
    rig = Rig()
    worker = await two_workers(rig, accounts=90, rows=60)
    away = Away(worker, "need", after=5.0)
    away.names = {f"m{at}" for at in range(80)}
    for name in ("z0", "z1"):  # as if their hints had been lost
        await rig.account(name)
        await rig.submit(10, "c", name)
        rig.store.index.pop(name)
    offered: dict[str, float] = {}
    offer = worker._queue.offer

    async def noted(name: str, need_us: float) -> None:
        offered.setdefault(name, rig.loop.time())
        await offer(name, need_us)

    worker._queue.offer = noted  # type: ignore[method-assign]
    began = rig.loop.time()
    await worker._takeover.sweep()
    await worker._takeover.look_at_strays()
    assert rig.loop.time() - began < 5.0
    assert {"z0", "z1"} <= offered.keys()
    rig.kill("w1")
    rig.kill("w2")


@pytest.mark.interpreted
@virtual
async def test_a_suspension_that_was_not_taken_is_told_again_and_no_other_account_hears_of_it() -> None:
    rig = Rig(lambda recipient: replied(Stage.DOT, 554))
    await rig.account("m1", per_hour=36_000.0)
    await rig.submit(200, "c1", "m1")
    worker = rig.start()
    away = Away(worker, "suspend", "offer", "account")
    recovered = 0
    recover = worker._recover

    async def counted() -> bool:
        nonlocal recovered
        recovered += 1
        return await recover()

    worker._recover = counted  # type: ignore[method-assign]
    await asyncio.sleep(1.0)
    away.names = {"m1"}
    await asyncio.sleep(6.0)
    assert (await rig.status())["state"] != "paused"
    away.names = set()
    await asyncio.sleep(2.0)
    assert (await rig.status())["state"] == "paused"
    assert recovered == 0
    await rig.stop()
