"""While no session asks for anything, because the relay is down or all of them wait for replies, nothing journalled lies open unsent."""

from __future__ import annotations

import asyncio

import pytest

from sendengine.engine.work import Delivery
from sendengine.engine.worker import Worker
from sendengine.types import Attempt, Fault, Relay, Reply, Stage
from tests.engine.rig import Rig, number
from tests.engine.test_engine import virtual

RATES = [None, 360_000.0]
LONG = 7200.0


def relay_goes_down(rig: Rig, seconds: float = LONG) -> None:
    [(_, _, channel)] = rig.workers.values()
    site = channel.sites[Relay("relay.test")]
    site.fail(Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, rig.loop.time()), seconds)


async def sending(rig: Rig, per_hour: float | None, n: int = 20_000) -> Worker:
    await rig.account("m1", per_hour=per_hour)
    await rig.submit(n, on_doubt="hold")
    worker = rig.start()
    await asyncio.sleep(3.0)
    assert rig.log
    return worker


@pytest.mark.parametrize("per_hour", RATES)
def test_nothing_lies_open_while_the_relay_is_down(per_hour: float | None) -> None:
    @virtual
    async def goes_down() -> None:
        rig = Rig(latency=0.05)
        worker = await sending(rig, per_hour)
        relay_goes_down(rig)
        await asyncio.sleep(1.0)
        assert worker.journal.doubtful == 0
        rig.kill()
        rig.start("w2")
        await asyncio.sleep(30.0)
        assert await rig.desk.cancel("m1", "c1")
        fields = await rig.until_ended()
        assert number(fields, "unknown") == 0
        assert number(fields, "sent") == len(rig.log)
        await rig.stop("w2")

    goes_down()


@pytest.mark.parametrize("per_hour", RATES)
def test_a_send_that_is_cancelled_while_its_relay_is_down_ends(per_hour: float | None) -> None:
    @virtual
    async def cancelled() -> None:
        rig = Rig(latency=0.05)
        await sending(rig, per_hour)
        relay_goes_down(rig)
        assert await rig.desk.cancel("m1", "c1")
        await asyncio.sleep(10.0)
        assert "finished" in await rig.status()
        await rig.stop()

    cancelled()


@pytest.mark.parametrize("per_hour", RATES)
def test_a_relay_that_comes_back_has_its_mail_at_once(per_hour: float | None) -> None:
    @virtual
    async def comes_back() -> None:
        rig = Rig(latency=0.05)
        await sending(rig, per_hour)
        relay_goes_down(rig, 60.0)
        await asyncio.sleep(59.9)
        before = len(rig.log)
        await asyncio.sleep(1.1)
        assert len(rig.log) - before > 50
        assert len(set(rig.log)) == len(rig.log)
        await rig.stop()

    comes_back()


@virtual
async def test_an_account_that_comes_to_a_relay_known_to_be_dead_is_bound_at_once() -> None:
    rig = Rig(latency=0.05)
    await sending(rig, None)
    relay_goes_down(rig)
    await rig.account("m2", host="other.test")
    await rig.submit(2000, "c2", "m2")
    await asyncio.sleep(2.0)
    assert "bind" not in await rig.desk.account("m2")
    await rig.desk.set_account("m2", {"host": "relay.test"})
    await asyncio.sleep(2.0)
    assert (await rig.desk.account("m2"))["bind"].startswith("site|")
    await rig.desk.set_account("m2", {"host": "other.test"})
    await asyncio.sleep(2.0)
    assert "bind" not in await rig.desk.account("m2")
    await rig.stop()


@virtual
async def test_a_refusal_that_is_over_leaves_the_trouble_of_its_relay() -> None:
    refusal = Attempt(Stage.MAIL, Reply(451, "4.7.0", "too much of you"), None, 0.0, 0.0)
    rig = Rig(latency=0.05)
    worker = await sending(rig, None)
    lane = worker._takes.lanes["m1"]
    lane.refuse(rig.loop.time(), 30.0)
    lane.bind = f"relay|{refusal.reply}"
    relay_goes_down(rig)
    assert lane.bind.startswith("relay|")
    await asyncio.sleep(lane.suspended_until - rig.loop.time() + 1.0)
    assert (await rig.desk.account("m1"))["bind"].startswith("site|")
    await rig.stop()


def test_a_relay_that_no_account_uses_any_more_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    @virtual
    async def left() -> None:
        rig = Rig(latency=0.05)
        await sending(rig, 36_000.0, 100)
        [(_, _, channel)] = rig.workers.values()
        rested: list[float] = []
        monkeypatch.setattr(channel.sites[Relay("relay.test")], "rest", lambda: rested.append(rig.loop.time()))
        await rig.account("m2")
        await rig.submit(300, "c2", "m2")
        await rig.until_ended("c1", "m1")
        await asyncio.sleep(5.0)
        assert not rested, "the other account sends there still"
        await rig.until_ended("c2", "m2")
        await asyncio.sleep(5.0)
        assert len(rested) == 1
        await rig.stop()

    left()


@pytest.mark.interpreted
@pytest.mark.parametrize("per_hour", RATES)
def test_sessions_that_all_wait_for_replies_leave_nothing_open_behind_them(per_hour: float | None) -> None:
    @virtual
    async def wait() -> None:
        rig = Rig(latency=30.0)
        await rig.account("m1", per_hour=per_hour)
        await rig.submit(5000)
        worker = rig.start()
        [(_, _, channel)] = rig.workers.values()
        picked: list[Delivery] = []
        intend = worker.journal.intend

        def counted(delivery: Delivery) -> None:
            picked.append(delivery)
            intend(delivery)

        worker.journal.intend = counted  # type: ignore[method-assign]
        await asyncio.sleep(10.0)
        lane = worker._takes.lanes["m1"]
        assert channel.sessions == lane.feed.on_wire == 20
        if per_hour is None:
            open_now = []
            for _ in range(100):
                await asyncio.sleep(0.01)
                open_now.append(worker.journal.doubtful)
            assert sorted(open_now)[70] == 20  # what is on the wire, and nothing else; a look once a second whether somebody asks
            assert len(picked) < 20 + 11 * (lane.feed.backlog_limit + 1)
        else:
            assert worker.journal.doubtful < 20 + 0.3 * per_hour / 3600
            assert lane.feed.is_short
            assert lane.bind.startswith("connections")
        rig.kill()

    wait()
