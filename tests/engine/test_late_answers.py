"""A network that holds answers back: the script has run, the world has gone on, and only then does the worker hear of it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from sendengine.channel.memory import MemorySite
from sendengine.engine.settings import EngineSettings
from sendengine.engine.work import Delivery
from sendengine.engine.worker import Worker
from sendengine.errors import Fenced, Unavailable
from sendengine.queue.memory import MemoryQueue
from sendengine.records import REVOKED
from tests.engine.rig import Rig, number
from tests.engine.test_engine import virtual
from tests.engine.virtual import run_virtually

CALLS = ("append", "visit", "take", "find", "beat", "workers", "claim_sweep", "offer", "tell")


def hold_back(rig: Rig, worker: Worker, since: float, until: float) -> None:
    """Whatever is asked or answered between the two moments arrives at the second; a way takes 20 ms otherwise."""
    queue: Any = worker._queue

    def held(real: Any) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            await way()
            answer = await real(*args, **options)
            await way()
            return answer

        return call

    async def way() -> None:
        arrives = rig.loop.time() + 0.02
        await asyncio.sleep((until if since <= arrives < until else arrives) - rig.loop.time())

    for name in CALLS:
        setattr(queue, name, held(getattr(queue, name)))


@pytest.mark.parametrize("per_hour", [None, 3_600_000.0, 36_000.0])
@pytest.mark.parametrize("away", [1.5, 5.0, 9.5])
def test_an_answer_that_comes_after_a_cancel_releases_nothing(per_hour: float | None, away: float) -> None:
    async def history() -> None:
        rig = Rig()
        await rig.account(per_hour=per_hour)
        await rig.submit(60_000)
        worker = rig.start()
        await asyncio.sleep(1.0)
        begins = rig.loop.time() + 0.5
        hold_back(rig, worker, begins, begins + away)
        await asyncio.sleep(0.7)
        await rig.desk.cancel("m1", "c1")
        cancelled, before = rig.loop.time(), len(rig.times())
        await asyncio.sleep(away + 10)
        assert before
        assert not [at for at in rig.times() if at > cancelled + 1.0]
        rig.kill()

    run_virtually(history())


async def frozen_around(verb: str, per_hour: float | None, moment: float) -> tuple[int, int]:
    """What the relay had seen or was given when the worker stood still, and what it has seen in the end."""
    rig = Rig(latency=0.02)
    await rig.account(per_hour=per_hour)
    await rig.submit(2_000)
    worker = rig.start()
    await asyncio.sleep(0.5)
    hold_back(rig, worker, since=float("inf"), until=float("inf"))
    await asyncio.sleep(0.5 + moment)
    [site] = rig.workers["w1"][2].sites.values()
    before = len(rig.log) + site.sessions - site.idle
    rig.loop.halt("w1")
    await getattr(rig.desk, verb)("m1", "c1")
    await asyncio.sleep(3.0)
    rig.loop.go_on("w1")
    await asyncio.sleep(2.0)
    rig.kill()
    return before, len(rig.log)


MOMENTS = [0.0073 * n for n in range(6)]  # wherever in its ticks it stands still


@pytest.mark.parametrize("per_hour", [None, 3_600_000.0])
@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_a_worker_frozen_around_a_stop_begins_nothing_when_it_goes_on(verb: str, per_hour: float | None) -> None:
    """What was picked before and is journalled afterwards must not go, however fresh that answer."""
    for moment in MOMENTS:
        before, after = run_virtually(frozen_around(verb, per_hour, moment))
        assert after == before > 0, moment


@pytest.mark.interpreted
def test_control_where_a_cut_voids_permits_only_a_frozen_worker_goes_on_after_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "is_void", property(lambda delivery: delivery.lease.is_closing))
    met = [run_virtually(frozen_around("pause", None, moment)) for moment in MOMENTS]
    assert any(after > before for before, after in met), met


@virtual
async def test_an_answer_that_comes_after_the_takeover_releases_nothing() -> None:
    rig = Rig()
    await rig.account(per_hour=None)
    await rig.submit(400_000)
    settings = EngineSettings(dead_after=5.0)
    slow = rig.start("w1", settings)
    await asyncio.sleep(1.0)
    begins = rig.loop.time() + 0.5
    hold_back(rig, slow, begins, begins + 9.0)
    rig.start("w2", settings)
    await asyncio.sleep(9.0)
    assert (rig.store.journals.get("w1") or {}).get(b"t") in (None, REVOKED)
    channel, written = rig.workers["w1"][2], []
    answers = channel.script

    def watched(delivery: Any) -> Any:
        written.append(delivery)
        return answers(delivery)

    channel.script = watched
    await asyncio.sleep(5.0)
    assert not written
    assert isinstance(rig.workers["w1"][1].exception(), Fenced)
    rig.kill("w2")


@virtual
async def test_what_the_index_did_not_take_from_a_leaving_worker_is_offered_again() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(2000)
    leaving = rig.start("w1")
    await asyncio.sleep(5)
    rig.start("w2")
    await asyncio.sleep(1)
    queue: Any = leaving._queue
    offer, lost = queue.offer, []

    async def losing(*args: Any) -> Any:
        if not lost:
            lost.append(args)
            raise Unavailable("reset")
        return await offer(*args)

    queue.offer = losing
    await rig.stop("w1")
    left, sent = rig.loop.time(), len(rig.log)
    assert lost
    while len(rig.log) == sent:
        await asyncio.sleep(0.1)
        assert rig.loop.time() < left + 5.0
    rig.kill("w2")


@virtual
async def test_a_registration_without_an_answer_is_asked_again_as_another_worker() -> None:
    """What became of the first is not known, and rescuers may be at its journal: it must be nobody's."""
    rig = Rig()
    await rig.account()
    await rig.submit(10)
    worker = rig.start()
    queue: Any = worker._queue
    register, asked = queue.register, []

    async def silent_at_first(*args: Any) -> Any:
        asked.append(args)
        answer = await register(*args)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return answer

    queue.register = silent_at_first
    await asyncio.sleep(30)
    (first, _), (second, _) = asked
    assert first == "w1"
    assert len({*asked[0], *asked[1]}) == 4, "neither the id nor the token of the first"
    assert await queue.workers() == [second] == [worker.id], "the one that was given up is buried"
    assert orjson.loads((await rig.desk.workers())[second].said)["worker"] == second
    assert len(rig.log) == 10
    await rig.stop()


@virtual
async def test_a_rescuer_that_buries_an_unanswered_registration_late_takes_nothing_from_the_worker() -> None:
    """tests/model: no_FRESH_ID_burial. It read the journal and stood still, while another one buried it and the worker registered."""
    rig, first = await _answer_of_the_first_registration_lost()
    await rig.rescuer.bury(first)
    fields = await rig.until_ended()
    assert number(fields, "sent") == len(rig.accepted) == len(set(rig.accepted)) == 500
    await rig.stop()


@virtual
async def test_a_registration_that_is_executed_late_brings_no_fenced_worker_back() -> None:
    """tests/model: no_FRESH_ID. Its leases were given back, so nothing more may leave; and what the late copy made is buried in time."""
    rig, first = await _answer_of_the_first_registration_lost()
    worker, task, _ = rig.workers.pop("w1")
    seen = await rig.rescuer.beat(worker.id)
    assert seen is not None
    assert await rig.rescuer.revoke(worker.id, *seen)
    await rig.rescuer.bury(worker.id)
    await rig.rescuer.register(first, rig.first_token)
    with pytest.raises(Fenced):
        async with asyncio.timeout(60):
            await task
    rig.start("w2")
    await asyncio.sleep(20)
    assert await rig.rescuer.workers() == ["w2"]
    await rig.stop("w2")


class _Registering(Rig):
    first_token = b""
    rescuer: MemoryQueue


async def _answer_of_the_first_registration_lost() -> tuple[_Registering, str]:
    """It is executed, a rescuer revokes and buries it, and now the worker sends. The id of that first one."""
    rig = _Registering(latency=0.5)
    rig.rescuer = MemoryQueue(rig.store, rig.now_us)
    await rig.account()
    await rig.submit(500, on_doubt="hold")
    worker = rig.start()
    queue: Any = worker._queue
    register, asked = queue.register, []

    async def losing(name: str, token: bytes) -> None:
        await register(name, token)
        asked.append((name, token))
        if len(asked) == 1:
            raise Unavailable("the answer never came")

    queue.register = losing
    await asyncio.sleep(0.5)
    [(first, rig.first_token)] = asked
    seen = await rig.rescuer.beat(first)
    assert seen is not None
    assert await rig.rescuer.revoke(first, *seen)
    await rig.rescuer.bury(first)
    await asyncio.sleep(5)
    assert rig.log
    return rig, first



@pytest.mark.parametrize("opens_after", [0.01, 0.05, 0.12, 0.3])
def test_a_relay_that_opens_while_a_visit_is_under_way_is_used_at_once(opens_after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The visit wanted no permits, since the relay was not open when it was asked. On a busy machine its answer comes after the opening."""
    warm = MemorySite.warm

    def warm_late(site: MemorySite) -> None:
        asyncio.get_running_loop().call_later(opens_after, warm, site)

    async def history() -> list[float]:
        rig = Rig()
        await rig.account(per_hour=36_000.0)
        await rig.submit(100)
        queue: Any = rig.start()._queue
        visit = queue.visit

        async def slow_visit(*args: Any) -> Any:
            answer = await visit(*args)
            await asyncio.sleep(0.2)
            return answer

        queue.visit = slow_visit
        await asyncio.sleep(3.0)
        rig.kill()
        return rig.times()

    monkeypatch.setattr(MemorySite, "warm", warm_late)
    assert run_virtually(history())
