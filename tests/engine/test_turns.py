"""Whose turn it is: transactional messages, retries, priorities, lines, schedules and windows, on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from sendengine.batch import Batch, pack
from sendengine.engine.settings import EngineSettings
from sendengine.intake import Intake
from sendengine.policy.grants import Words, encode
from sendengine.render.message import Message, dump
from sendengine.types import Attempt, Stage
from tests.engine.rig import DELIVERED, EPOCH, FIELDS, MESSAGE, Rig, number, replied
from tests.engine.test_engine import SLOW_POLL, virtual

SINGLE = dump(Message(sender="Shop <shop@example.com>", subject="Your code", text="1234\n"))


async def transact(rig: Rig, name: str) -> None:
    await rig.desk.create("m1", "transactional", b"t", None, b"", {**FIELDS, "uid": "t"})
    payload = pack(Batch(number=0, positions=[0], recipients=[name], fields=(), columns=[]))
    assert (await rig.desk.transact("m1", payload, SINGLE, name, bytes(8))).status == "stored"


@virtual
async def test_a_transactional_message_goes_ahead_of_bulk() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(300)
    rig.start()
    await asyncio.sleep(5.03)
    asked = rig.loop.time()
    await transact(rig, "now@example.com")
    await asyncio.sleep(5)
    [left] = rig.times("now@")
    assert left - asked <= (1 / 0.9 + 2) / 10 + 0.2
    assert rig.most_in(1.0) <= 10 * 1.5 + 1
    await rig.stop()


@virtual
async def test_many_transactional_messages_leave_bulk_a_tenth() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(300)
    rig.start()
    await asyncio.sleep(5.03)
    asked = rig.loop.time()
    for i in range(100):
        await transact(rig, f"now{i}@example.com")
    await asyncio.sleep(20)
    left = rig.times("now")
    assert len(left) == 100
    assert left[-1] - asked <= (100 / 0.9 + 2) / 10 + 0.4
    meanwhile = [at for at in rig.times("c1") if asked + 1 < at < left[-1]]
    assert len(meanwhile) >= 9
    await rig.stop()


@virtual
async def test_a_transactional_message_wakes_an_idle_account() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    rig.start()
    await asyncio.sleep(1)
    asked = rig.loop.time()
    await transact(rig, "now@example.com")
    await asyncio.sleep(2)
    assert rig.times("now@")[0] - asked <= 0.3
    await rig.stop()


@virtual
async def test_retries_take_a_fifth_at_most_while_first_tries_wait() -> None:
    tries: Counter[str] = Counter()

    def answer(recipient: str) -> Attempt:
        tries[recipient] += 1
        return replied(Stage.RCPT, 451) if tries[recipient] == 1 and int(recipient[3:-12]) < 200 else DELIVERED

    rig = Rig(answer)
    await rig.account(per_hour=36000)
    await rig.submit(1500, retry="10s")
    rig.start()
    fields = await rig.until_ended()
    assert number(fields, "sent") == 1500
    seen: set[str] = set()
    again = []
    for at, name in rig.log:
        if name in seen:
            again.append(at)
        seen.add(name)
    assert len(again) == 200
    for start in again:
        assert sum(start <= at < start + 10 for at in again) <= 21, (start, sorted(again)[:60])
    assert rig.most_in(1.0) <= 16
    await rig.stop()


@virtual
async def test_higher_priorities_leave_first() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.desk.create("m1", "c1", b"d", None, dump(MESSAGE), {**FIELDS, "need_seal": "1"})
    intake = Intake(("name",), priority="p", salt=b"s")
    rows = ({"email": f"{'high' if i % 3 == 0 else 'low'}{i}@example.com", "name": "n", "p": 9 if i % 3 == 0 else 1} for i in range(150))
    batches = [await rig.desk.submit("m1", "c1", batch) for batch in intake.from_rows(rows)]
    await rig.desk.seal("m1", "c1", len(batches))
    rig.start()
    await rig.until_ended()
    order = [name for _, name in sorted(rig.log)]
    assert [name.startswith("h") for name in order] == [True] * 50 + [False] * 100
    await rig.stop()


@virtual
async def test_sequential_sends_wait_their_turn() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    for name in ("a", "b", "c"):
        await rig.submit(50, name, sequential="1")
    assert await rig.desk.move("m1", "c", "up") == "done"
    rig.start()
    for name in ("a", "b", "c"):
        await rig.until_ended(name)
    first = {name: rig.times(name)[0] for name in "abc"}
    last = {name: rig.times(name)[-1] for name in "abc"}
    assert last["a"] <= first["c"] <= last["a"] + 1.2
    assert last["c"] <= first["b"] <= last["c"] + 1.2
    await rig.stop()


@virtual
async def test_a_scheduled_send_starts_at_its_time() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    starts = rig.loop.time() + 300
    await rig.submit(20, at=starts)
    rig.start()
    await rig.until_ended()
    assert starts <= rig.times()[0] <= starts + 2
    await rig.stop()


@virtual
async def test_a_window_holds_a_send_outside_it() -> None:
    rig = Rig()
    await rig.account(per_hour=3600)  # 1/s
    now = EPOCH + rig.loop.time()
    minutes = int(now // 60) % 1440
    opens, closes = (minutes + 2) % 1440, (minutes + 4) % 1440
    window = f"Mon-Sun {opens // 60:02d}:{opens % 60:02d}-{closes // 60:02d}:{closes % 60:02d} UTC"
    await rig.submit(200, window=window, open="0", window_at=str(rig.now_us()))
    rig.start(settings=SLOW_POLL)
    await rig.until_ended(every=10.0)
    times = [EPOCH + at for at in rig.times()]
    assert len(times) == 200
    assert {int(at // 60) % 1440 for at in times} == {opens, (opens + 1) % 1440}
    assert times[-1] - times[0] > 86000
    await rig.stop()


@virtual
async def test_reverse_sends_the_rest_from_its_end() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(1000)
    rig.start()
    await asyncio.sleep(5)
    assert await rig.desk.reverse("m1", "c1") == "done"
    await asyncio.sleep(30)
    late = [int(name[3:-12]) for at, name in sorted(rig.log)][-100:]
    assert min(late) >= 700
    await rig.stop()


@virtual
async def test_an_idle_worker_asks_for_no_account() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(10)
    worker = rig.start()
    await rig.until_ended()
    await asyncio.sleep(3)
    assert worker.report().accounts == 0
    visits = 0

    async def counted(*args: object) -> None:
        nonlocal visits
        visits += 1

    worker._queue.visit = counted  # type: ignore[method-assign, assignment]
    await asyncio.sleep(30)
    assert visits == 0
    assert pytest.approx(worker.journal.doubtful) == 0
    await rig.stop()


@virtual
async def test_a_boost_begins_and_ends_by_itself() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(1000)
    rig.start()
    await asyncio.sleep(3)
    start, end = rig.loop.time() + 5, rig.loop.time() + 10
    await rig.desk.boost("m1", encode(EPOCH + start, EPOCH + end, Words(360_000.0, "", "", 0.0)))
    await asyncio.sleep(15)
    times = rig.times()
    within = [at for at in times if start <= at < end]
    beside = [at for at in times if at < start or at >= end]
    assert len(within) == pytest.approx(500, abs=2)
    assert within[0] - start <= 0.11
    assert len(beside) == pytest.approx(130, abs=2)
    assert max(later - sooner for sooner, later in pairwise(within)) <= 0.02
    await rig.stop()


@virtual
async def test_a_boost_is_shared_by_workers_that_share_the_account() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(2000)
    rig.start("w1", msgspec.structs.replace(EngineSettings(), spread_above=1.0))
    rig.start("w2", msgspec.structs.replace(EngineSettings(), spread_above=1.0))
    await asyncio.sleep(3)
    start = rig.loop.time() + 2
    await rig.desk.boost("m1", encode(EPOCH + start, EPOCH + start + 5, Words(360_000.0, "", "", 0.0)))
    await asyncio.sleep(10)
    within = [at for at in rig.times() if start <= at < start + 5]
    assert len(within) == pytest.approx(500, abs=3)
    assert rig.most_in(1.0) <= 100 * 1.5 + 1
    await rig.stop("w1")
    await rig.stop("w2")


@virtual
async def test_a_worker_that_comes_later_shares_a_fast_account() -> None:
    """Its first worker takes the account out of the index again and again: it must not keep it from the others."""
    rig = Rig()
    spread = msgspec.structs.replace(EngineSettings(), spread_above=1.0)
    await rig.account(per_hour=36000)
    await rig.submit(2000)
    rig.start("w1", spread)
    await asyncio.sleep(10)
    second = rig.start("w2", spread)
    await asyncio.sleep(3)
    assert second.report().busy == ["m1"]
    await rig.stop("w1")
    await rig.stop("w2")


@virtual
async def test_the_line_moves_on_at_once_beside_a_parallel_send() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(600, "beside")
    await rig.submit(50, "first", sequential="1")
    await rig.submit(50, "second", sequential="1")
    rig.start()
    await rig.until_ended("second")
    assert rig.times("second")[0] - rig.times("first")[-1] <= 1.0
    await rig.until_ended("beside")
    await rig.stop()
