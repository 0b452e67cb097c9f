"""What goes wrong at the worst moment: answers lost, stops while something is under way, more than was planned for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from sendengine.batch import Batch, unpack
from sendengine.engine.settings import EngineSettings
from sendengine.errors import Fenced, RefusedInput, Unavailable
from sendengine.types import Outcome, Relay, Stage
from tests.engine.rig import DELIVERED, Rig, number, replied
from tests.engine.test_engine import virtual
from tests.engine.virtual import run_virtually


@virtual
async def test_a_take_whose_answer_is_lost_keeps_nobody_from_the_account() -> None:
    rig = Rig()
    await rig.account()
    names = await rig.submit(250)
    worker = rig.start()
    take, lost = worker._queue.take, 0

    async def losing(*args: Any) -> Any:
        nonlocal lost
        taken = await take(*args)
        if lost < 2:
            lost += 1
            raise Unavailable("the answer never came")
        return taken

    worker._queue.take = losing  # type: ignore[method-assign]
    fields = await rig.until_ended()
    assert lost == 2
    assert number(fields, "sent") == 250
    assert sorted(rig.accepted) == sorted(names)
    await rig.stop()


@pytest.mark.parametrize("per_hour", [3_600.0, 15_000.0, 200_000.0])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_visit_whose_answer_is_lost_costs_no_time_of_the_account(per_hour: float, workers: int) -> None:
    """Permits that nobody holds would be a horizon of silence: of a slow tier more than a fiftieth of a minute."""

    @virtual
    async def test() -> None:
        rig = Rig(jitter=random.Random(7).random)
        await rig.account(per_hour=per_hour)
        await rig.submit(max(1000, int(per_hour / 60)))
        lost = [_lose_answers(rig, f"w{n}", 10.0 + 5.0 * n) for n in range(workers)]
        await asyncio.sleep(62.0)
        assert all(len(own) >= 3 for own in lost), lost
        times = rig.times()
        assert len(times) - 1 >= 0.99 * (times[-1] - times[0]) * per_hour / 3600
        assert rig.most_in(1.0) <= per_hour / 3600 * 1.5 + 1
        for name in list(rig.workers):
            await rig.stop(name)

    test()


def _lose_answers(rig: Rig, name: str, every: float) -> list[float]:
    """Of this worker's visits, one so often that brings permits; when each got lost."""
    queue = rig.start(name, EngineSettings(spread_above=0.1))._queue
    visit, lost, began = queue.visit, list[float](), rig.loop.time()

    async def losing(*args: Any) -> Any:
        reply = await visit(*args)
        if reply.permits and rig.loop.time() - began > every * (len(lost) + 1):
            lost.append(rig.loop.time())
            raise Unavailable("the answer never came")
        return reply

    queue.visit = losing  # type: ignore[method-assign]
    return lost


@virtual
async def test_a_visit_goes_on_though_its_cut_reaches_no_worker() -> None:
    """As while the node of another one's inbox is away: outcomes are settled, permits come, and the others' are not cut for ever."""
    rig = Rig()
    await rig.account(per_hour=36_000.0)
    await rig.submit(300)
    lost = _lose_answers(rig, "w1", 5.0)
    queue, cuts = rig.workers["w1"][0]._queue, 0
    leave = queue.leave

    async def untold(*args: Any) -> Any:
        nonlocal cuts
        cuts += 1
        await leave(*args)
        raise Unavailable("nobody serves the slot of its inbox")

    queue.leave = untold  # type: ignore[method-assign]
    fields = await rig.until_ended()
    assert number(fields, "sent") == 300
    assert len(lost) >= 3
    assert cuts == len(lost)
    await rig.stop()


@virtual
async def test_a_stop_with_a_take_under_way_ends() -> None:
    rig = Rig()
    await rig.account()
    names = await rig.submit(300)
    worker = rig.start()
    take = worker._queue.take

    async def slow(*args: Any) -> Any:
        await asyncio.sleep(0.003)
        taken = await take(*args)
        await asyncio.sleep(0.003)
        return taken

    worker._queue.take = slow  # type: ignore[method-assign]
    for _ in range(8):
        await asyncio.sleep(0.011)
        worker._takes.look(next(iter(worker._takes.lanes.values()))) if worker._takes.lanes else None
    await asyncio.sleep(0.004)
    async with asyncio.timeout(40):
        await rig.stop()
    assert (await rig.status())["leased"] == "0"
    rig.start("w2")
    await rig.until_ended()
    assert sorted(rig.accepted) == sorted(names)
    await rig.stop("w2")


@virtual
async def test_a_stop_ends_though_the_connection_was_lost_meanwhile() -> None:
    rig = Rig(latency=0.3)
    await rig.account(per_hour=360_000)
    names = await rig.submit(1000)
    worker = rig.start()
    await asyncio.sleep(3)
    worker.stop()
    worker._queue.drop()
    _, task, _ = rig.workers.pop("w1")
    async with asyncio.timeout(60):
        await task
    rig.start("w2")
    await rig.until_ended()
    assert sorted(rig.accepted) == sorted(names)
    await rig.stop("w2")


@virtual
async def test_three_hundred_sends_of_one_account() -> None:
    rig = Rig()
    await rig.account(per_hour=None)
    for i in range(300):
        await rig.submit(3, f"s{i}")
    rig.start()
    for i in range(300):
        await rig.until_ended(f"s{i}")
    assert len(set(rig.accepted)) == len(rig.accepted) == 900
    await rig.stop()


@virtual
async def test_metered_and_unmetered_accounts_on_one_relay() -> None:
    rig = Rig()
    await rig.account("m1", per_hour=36_000)
    await rig.account("m2", per_hour=None)
    await rig.submit(100, "slow", "m1")
    await rig.submit(5000, "fast", "m2")
    rig.start()
    await rig.until_ended("slow", "m1")
    await rig.until_ended("fast", "m2")
    slow = rig.times("slow")
    assert (slow[-1] - slow[0]) / 9.9 - 1 < 0.01
    assert len(rig.log) == 5100
    await rig.stop()


@virtual
async def test_a_send_refused_again_is_suspended_again() -> None:
    rig = Rig(lambda recipient: replied(Stage.DOT, 554, "looks like spam"))
    await rig.account()
    await rig.submit(200)
    rig.start()
    await asyncio.sleep(20)
    await rig.desk.resume("m1", "c1")
    await asyncio.sleep(20)
    fields = await rig.status()
    assert fields["state"] == "paused"
    assert number(fields, "bounced") <= 50
    await rig.stop()


@virtual
async def test_one_success_under_way_does_not_end_a_suspension() -> None:
    rig = Rig(lambda recipient: replied(Stage.MAIL, 550) if recipient.startswith("c1-1") else DELIVERED, latency=0.5)
    await rig.account()
    await rig.submit(300)
    rig.start()
    await asyncio.sleep(30)
    assert len(rig.log) <= 30
    await rig.stop()


@virtual
async def test_a_worker_that_cannot_settle_leaves_its_journal_to_a_rescuer() -> None:
    rig = Rig(latency=0.2)
    await rig.account(per_hour=360_000)
    names = await rig.submit(2000)
    worker = rig.start()
    await asyncio.sleep(5)
    async def broken(*args: Any) -> Any:
        raise RuntimeError("a bug")

    worker.stop()
    worker._queue.visit = broken  # type: ignore[method-assign]
    _, task, _ = rig.workers.pop("w1")
    error = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(error, RuntimeError)
    rig.start("w2")
    await rig.until_ended()
    outcomes = await rig.outcomes()
    assert outcomes[Outcome.SENT] == 2000
    assert set(rig.accepted) == set(names)
    doubts = (await rig.desk.standing("m1", "c1")).doubts
    assert len(rig.accepted) - 2000 <= sum(doubts.values())
    await rig.stop("w2")


class Lethal:
    """Opens batches as ever, but for one: that ends the worker, as a bug in a decoder would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.deaths = 0
        self.is_lethal = True

        def opened(payload: bytes) -> Batch:
            batch = unpack(payload)
            if batch.number == number and self.is_lethal:
                self.deaths += 1
                raise RuntimeError("a bug")
            return batch

        monkeypatch.setattr("sendengine.engine.batches.unpack", opened)


async def replace_the_dead(rig: Rig, rounds: int) -> None:
    """As a supervisor does: a worker that ended is followed by another one."""
    for at in range(rounds):
        worker = rig.start(f"w{at}")
        await asyncio.sleep(60)
        if worker._error is None:
            return
        rig.kill(f"w{at}")
    raise AssertionError("they die and die")


@pytest.mark.interpreted
def test_a_batch_that_kills_workers_is_set_aside_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def history() -> None:
        lethal = Lethal(monkeypatch, 3)
        rig = Rig()
        await rig.account(per_hour=None)
        names = await rig.submit(1000)
        await replace_the_dead(rig, 6)
        status = await rig.status()
        aside = (await rig.desk.standing("m1", "c1")).aside
        assert lethal.deaths == 3
        assert (number(status, "sent"), number(status, "quarantined")) == (900, 100)
        assert list(aside) == [3]
        assert sorted(rig.accepted) == sorted(names[:300] + names[400:])
        lethal.is_lethal = False
        assert await rig.desk.replay("m1", "c1") == "done"
        await rig.until_ended()
        assert sorted(rig.accepted) == sorted(names)

    run_virtually(history())


@virtual
async def test_who_cannot_write_itself_calls_nobody_dead() -> None:
    """A full server refuses everybody's beats for minutes, and still answers who looks at them."""
    rig = Rig()
    await rig.account()
    names = await rig.submit(200)
    workers = [rig.start("w1"), rig.start("w2")]
    await asyncio.sleep(5)
    is_full = True
    for worker in workers:
        append = worker._queue.append

        async def refusing(*args: Any, append: Any = append) -> Any:
            if is_full:
                raise Unavailable("OOM")
            return await append(*args)

        worker._queue.append = refusing  # type: ignore[method-assign]
    await asyncio.sleep(60)
    sent = len(rig.log)
    is_full = False
    await rig.until_ended()
    assert 0 < sent < 200
    assert sorted(rig.accepted) == sorted(names)
    for name in ("w1", "w2"):
        await rig.stop(name)


@virtual
async def test_a_dead_workers_messages_keep_their_times_whatever_the_rescuers_own_clock_says() -> None:
    rig = Rig(latency=0.01)
    wall = rig.now_us
    rig.desk._now_us = rig.now_us = lambda: wall() + 60 * 86400e6  # type: ignore[method-assign] # Redis' clock, two months from ours
    await rig.account(per_hour=36_000)
    await rig.submit(40)
    rig.start("w1")
    await asyncio.sleep(1.0)
    assert rig.log
    assert "first_mail" not in await rig.status()  # nothing is settled yet: the journal alone knows
    rig.kill("w1")
    rig.start("w2")
    await asyncio.sleep(25)
    fields = await rig.status()
    assert abs(float(fields["first_mail"]) - (rig.now_us() - 26e6)) < 5e6
    await rig.stop("w2")


@virtual
async def test_an_account_that_nobody_can_read_keeps_no_other_waiting() -> None:
    def relay_of(fields: Mapping[str, str]) -> Relay:
        if "garbage" in fields:
            raise RefusedInput("its relay cannot be read", "sendengine account set-relay")
        return Relay("relay.test")

    rig = Rig()
    await rig.account("m1", garbage="1")
    await rig.account("m2")
    await rig.submit(50, "lost", "m1")
    names = await rig.submit(50, "good", "m2")
    worker = rig.start()
    worker._takes._relay_of = relay_of
    await rig.until_ended("good", "m2")
    assert sorted(rig.accepted) == sorted(names)
    assert (await rig.desk.account("m1"))["bind"].startswith("relay|")
    assert worker._error is None
    await rig.stop()


@virtual
async def test_a_campaign_whose_record_is_damaged_keeps_no_other_waiting() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(50, "damaged")
    names = await rig.submit(50, "good")
    del rig.store.accounts["m1"].campaigns["damaged"].fields["retry"]
    worker = rig.start()
    await rig.until_ended("good")
    assert sorted(rig.accepted) == sorted(names)
    assert worker._error is None
    await rig.stop()


@virtual
async def test_a_change_of_relay_is_not_lost_with_an_answer() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(600)
    worker = rig.start()
    await asyncio.sleep(5)
    account, lost = worker._queue.account, 0

    async def losing(name: str) -> Any:
        nonlocal lost
        lost += 1
        if lost == 1:
            raise Unavailable("the answer never came")
        return await account(name)

    worker._queue.account = losing  # type: ignore[method-assign]
    await rig.desk.set_account("m1", {"host": "other.test"})
    await asyncio.sleep(5)
    [lane] = worker._takes.lanes.values()
    assert lost > 1
    assert lane.relay.host == "other.test"
    await rig.stop()


@virtual
async def test_a_shorter_dead_after_is_kept_to() -> None:
    rig = Rig(latency=0.2)
    await rig.account(per_hour=360_000)
    names = await rig.submit(1000)
    settings = msgspec.structs.replace(EngineSettings(), dead_after=2.0)
    rig.start("w1", settings)
    rig.start("w2", settings)
    await asyncio.sleep(3)
    dead = rig.kill("w1" if rig.workers["w1"][0].report().accounts else "w2")
    killed_at = rig.loop.time()
    [(survivor, _, _)] = rig.workers.values()
    while await survivor._queue.beat(dead.id) is not None:  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(0.1)
    assert rig.loop.time() - killed_at < 4.0
    await rig.until_ended()
    assert set(rig.accepted) == set(names)
    await rig.stop(survivor.id)


@virtual
async def test_a_rescuer_killed_between_revoking_and_reading_costs_no_second_wait() -> None:
    rig = Rig(latency=0.2)
    await rig.account(per_hour=360_000)
    names = await rig.submit(1000)
    rig.start("w1")
    await asyncio.sleep(3)
    rescuer = rig.start("w2")
    revoke, has_revoked = rescuer._queue.revoke, asyncio.Event()

    async def dying(*args: Any) -> Any:
        assert await revoke(*args)
        has_revoked.set()
        await asyncio.Event().wait()

    rescuer._queue.revoke = dying  # type: ignore[method-assign]
    dead = rig.kill("w1")
    await has_revoked.wait()
    rig.kill("w2")
    began = rig.loop.time()
    survivor = rig.start("w3")
    while await survivor._queue.beat(dead.id) is not None:  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(0.1)
    assert rig.loop.time() - began < 2.0
    await rig.until_ended()
    assert set(rig.accepted) == set(names)
    await rig.stop("w3")


@virtual
async def test_a_worker_killed_with_an_account_just_found() -> None:
    await _killed_when_answered("find")


@virtual
async def test_a_worker_killed_with_a_lease_just_taken() -> None:
    await _killed_when_answered("take")


async def _killed_when_answered(call: str) -> None:
    """What it has in hand then stands in no journal: an account taken out of the index, a lease before its first append."""
    rig = Rig()
    await rig.account()
    worker = rig.start("w1")
    await asyncio.sleep(0.5)
    asked = getattr(worker._queue, call)
    answered = asyncio.Event()

    async def dying(*args: Any) -> Any:
        answer = await asked(*args)
        if answer and (call == "find" or answer.leases):
            answered.set()
            await asyncio.Event().wait()
        return answer

    setattr(worker._queue, call, dying)
    names = await rig.submit(50)
    await answered.wait()
    rig.kill("w1")
    killed_at = rig.loop.time()
    rig.start("w2")
    await rig.until_ended()
    assert rig.loop.time() - killed_at < 30
    assert sorted(rig.accepted) == sorted(names)
    await rig.stop("w2")


@virtual
async def test_a_zombie_leaves_nothing_behind_that_only_the_sweep_finds() -> None:
    rig = Rig()
    await rig.account()
    names = await rig.submit(300)
    zombie = rig.start("w1")
    await asyncio.sleep(1)
    take, bury = zombie._queue.take, zombie._queue.bury
    woken = asyncio.Event()

    async def frozen(*args: Any) -> Any:
        await woken.wait()
        return await take(*args)

    zombie._queue.take = frozen  # type: ignore[method-assign]
    await asyncio.sleep(3)
    _, task, _ = rig.workers.pop("w1")
    assert await zombie._queue.revoke("w1", *(await zombie._queue.beat("w1") or (b"", b"")))
    await bury("w1")
    woken.set()
    with pytest.raises(Fenced):
        await task
    fenced_at = rig.loop.time()
    rig.start("w2")
    await rig.until_ended()
    assert rig.loop.time() - fenced_at < 30
    assert set(rig.accepted) == set(names)
    await rig.stop("w2")


@pytest.mark.parametrize("on_doubt", ["resend", "hold"])
@pytest.mark.parametrize("seed", range(6))
def test_a_bit_of_a_dead_workers_journal_flips(seed: int, on_doubt: str) -> None:
    """Nobody is lost, and the rescuers live; under `hold` nobody is sent to twice."""
    run_virtually(_with_a_flipped_bit(random.Random(seed), on_doubt))


async def _with_a_flipped_bit(chance: random.Random, on_doubt: str) -> None:
    rig = Rig(latency=0.5)
    await rig.account(per_hour=360000)
    names = await rig.submit(2000, on_doubt=on_doubt)
    rig.start("w1")
    rig.start("w2")
    await asyncio.sleep(5 + chance.random())
    dead = rig.kill("w1" if rig.workers["w1"][0].report().accounts else "w2")
    journal = rig.store.journals[dead.id]
    damaged = chance.choice(sorted(name for name in journal if name[:1] == b"L" or name.isdigit()))
    # The kind of an entry, or the first octet of a note: a flip that still reads as something else a worker may write cannot be seen.
    journal[damaged] = bytes((journal[damaged][0] ^ 0x40,)) + journal[damaged][1:]
    fields = await rig.until_ended()
    assert len(rig.accepted) == len(set(rig.accepted)) if on_doubt == "hold" else set(rig.accepted) == set(names)
    assert number(fields, "sent") + number(fields, "unknown") == len(names)
    assert number(fields, "sent") <= len(set(rig.accepted))
    for name in list(rig.workers):
        await rig.stop(name)
