"""The engine as a whole, on virtual time: what leaves, when, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import pairwise
from random import Random

import pytest
from structlog.testing import capture_logs

from sendengine.engine.settings import EngineSettings
from sendengine.scheduler.binding import binding
from sendengine.scheduler.view import look
from sendengine.types import Attempt, Fault, Outcome, Stage
from tests.engine.rig import DELIVERED, Rig, number, replied
from tests.engine.virtual import run_virtually

SLOW_POLL = EngineSettings(poll=5.0, beat=5.0)  # for tests of days


def virtual(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtually(test())

    run.__name__ = test.__name__
    return run


@virtual
async def test_a_send_leaves_at_the_contracted_rate() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)  # 10/s
    names = await rig.submit(300)
    rig.start()
    await rig.until_ended()
    times = rig.times()
    assert sorted(rig.accepted) == sorted(names)
    assert times[-1] - times[0] == pytest.approx(29.9, rel=0.002)
    assert rig.most_in(1.0) <= 10 * 1.5 + 1
    await rig.stop()


@virtual
async def test_deferred_recipients_are_tried_again_by_the_schedule() -> None:
    tries: Counter[str] = Counter()

    def answer(recipient: str) -> Attempt:
        tries[recipient] += 1
        return DELIVERED if tries[recipient] > 3 else replied(Stage.RCPT, 451)

    rig = Rig(answer)
    await rig.account()
    await rig.submit(20)
    rig.start()
    fields = await rig.until_ended()
    assert number(fields, "sent") == 20
    assert set(tries.values()) == {4}
    one = [at for at, name in rig.log if name.startswith("c1-7@")]
    gaps = [b - a for a, b in pairwise(one)]
    assert gaps == pytest.approx([60, 300, 300], abs=10)
    await rig.stop()


@virtual
async def test_what_is_never_accepted_expires_after_its_lifetime() -> None:
    rig = Rig(lambda recipient: replied(Stage.RCPT, 451))
    await rig.account()
    await rig.submit(3)
    rig.start(settings=SLOW_POLL)
    fields = await rig.until_ended(every=60.0)
    assert number(fields, "expired") == 3
    assert 20 * 3600 < rig.times()[-1] - rig.times()[0] <= 86400
    await rig.stop()


@virtual
async def test_a_relay_that_refuses_the_account_costs_nobody_a_try() -> None:
    rig = Rig(lambda recipient: replied(Stage.MAIL, 550))
    await rig.account()
    await rig.submit(50)
    rig.start()
    await asyncio.sleep(600)
    refused = len(rig.log)
    rig.answer = lambda recipient: DELIVERED
    fields = await rig.until_ended()
    assert number(fields, "sent") == 50
    assert refused < 50
    assert number(fields, "bounced") == 0
    await rig.stop()


@virtual
async def test_pause_stops_and_resume_reaches_only_the_rest() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    names = await rig.submit(200)
    rig.start()
    await asyncio.sleep(5)
    assert await rig.desk.pause("m1", "c1") == "done"
    paused = rig.loop.time()
    await asyncio.sleep(60)
    assert rig.times()[-1] <= paused + 0.1
    sent = len(rig.log)
    assert await rig.desk.resume("m1", "c1") == "done"
    resumed = rig.loop.time()
    await rig.until_ended()
    after = [at for at in rig.times() if at > resumed]
    assert after[0] <= resumed + 1.0
    assert len(after) == 200 - sent
    assert sorted(rig.accepted) == sorted(names)
    assert rig.most_in(1.0) <= 10 * 1.5 + 1
    await rig.stop()


@virtual
async def test_a_faster_tier_takes_effect_in_mid_send_without_a_burst() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    names = await rig.submit(400)
    rig.start()
    await asyncio.sleep(10)
    await rig.desk.set_rate("m1", "fast", 72000)
    changed = rig.loop.time()
    await rig.until_ended()
    after = [at for at in rig.times() if at > changed + 1]
    assert len(after) / (after[-1] - after[0]) == pytest.approx(20, rel=0.02)
    assert sorted(rig.accepted) == sorted(names)
    assert rig.most_in(1.0) <= 20 * 1.5 + 1
    await rig.stop()


@virtual
async def test_parallel_sends_share_equally_and_the_last_has_all() -> None:
    rig = Rig()
    await rig.account(per_hour=72000)
    await rig.submit(400, "a")
    rig.start()
    await asyncio.sleep(5)
    await rig.submit(100, "b")
    started = rig.loop.time()
    fields = await rig.until_ended("b")
    ended = float(fields["last_mail"]) / 1e6 - float(fields["first_mail"]) / 1e6
    assert ended == pytest.approx(9.9, abs=0.6)  # its neighbour had some permits before it began, and it has some in the beginning
    shared = [name for at, name in rig.log if started + 1 < at < started + 9]
    assert Counter(name[0] for name in shared)["a"] == pytest.approx(80, abs=5)
    fields = await rig.until_ended("a")
    alone = [at for at in rig.times("a") if at > started + 12]
    assert len(alone) / (alone[-1] - alone[0]) == pytest.approx(20, rel=0.03)
    await rig.stop()


@virtual
async def test_a_doubt_is_sent_once_more_and_then_unknown() -> None:
    lost = Attempt(Stage.DOT, None, Fault.DISCONNECTED, 0.0, 0.0)
    rig = Rig(lambda recipient: lost if recipient.startswith(("c1-3@", "c1-4@")) else DELIVERED)
    await rig.account()
    await rig.submit(10)
    rig.start()
    fields = await rig.until_ended()
    assert (number(fields, "sent"), number(fields, "unknown")) == (8, 2)
    assert Counter(rig.accepted)["c1-3@example.com"] == 2
    await rig.stop()


@virtual
async def test_a_doubt_under_hold_is_unknown_at_once() -> None:
    lost = Attempt(Stage.DOT, None, Fault.DISCONNECTED, 0.0, 0.0)
    rig = Rig(lambda recipient: lost if recipient.startswith("c1-3@") else DELIVERED)
    await rig.account()
    await rig.submit(10, on_doubt="hold")
    rig.start()
    fields = await rig.until_ended()
    assert (number(fields, "sent"), number(fields, "unknown")) == (9, 1)
    assert max(Counter(rig.accepted).values()) == 1
    await rig.stop()


@virtual
async def test_cancel_ends_the_rest_and_keeps_what_was_sent() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    await rig.submit(1000)
    rig.start()
    await asyncio.sleep(5)
    assert await rig.desk.cancel("m1", "c1") == "done"
    cancelled = rig.loop.time()
    fields = await rig.until_ended()
    assert rig.times()[-1] <= cancelled + 0.1
    assert number(fields, "sent") == len(rig.accepted)
    assert number(fields, "sent") + number(fields, "cancelled") == 1000
    await rig.stop()


@virtual
async def test_a_warm_stop_gives_everything_back() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    names = await rig.submit(300)
    rig.start("w1")
    await asyncio.sleep(7)
    await rig.stop("w1")
    assert (await rig.status())["leased"] == "0"
    rig.start("w2")
    await rig.until_ended()
    assert sorted(rig.accepted) == sorted(names)
    assert rig.most_in(1.0) <= 10 * 1.5 + 1
    await rig.stop("w2")


@virtual
async def test_a_killed_worker_is_taken_over_and_nobody_is_lost() -> None:
    rig = Rig(latency=0.5)
    await rig.account(per_hour=360000)
    names = await rig.submit(3000)
    rig.start("w1")
    rig.start("w2")
    await asyncio.sleep(10)
    dead = rig.kill("w1" if rig.workers["w1"][0].report().accounts else "w2")
    doubtful = dead.journal.doubtful
    await rig.until_ended()
    assert set(rig.accepted) == set(names)
    assert len(rig.accepted) - len(names) <= doubtful
    outcomes = await rig.outcomes()
    assert outcomes[Outcome.SENT] == 3000
    for name in list(rig.workers):
        await rig.stop(name)


@virtual
async def test_redis_that_stays_away_is_told_of_each_half_minute() -> None:
    with capture_logs() as logs:
        rig = Rig()
        await rig.account(per_hour=36_000.0)
        rig.start()
        await asyncio.sleep(5.0)
        rig.store.is_away = True
        await asyncio.sleep(95.0)
        rig.store.is_away = False
        await asyncio.sleep(35.0)
        told = [line for line in logs if str(line["event"]).startswith("redis_")]
        await rig.stop()
    assert [line["event"] for line in told] == ["redis_away", *["redis_still_away"] * 3]
    assert [round(line["seconds"] / 30) for line in told[1:]] == [1, 2, 3]


@virtual
async def test_redis_away_for_half_a_minute_loses_and_repeats_nothing() -> None:
    rig = Rig()
    await rig.account(per_hour=36000)
    names = await rig.submit(300)
    rig.start()
    await asyncio.sleep(5)
    rig.store.is_away = True
    gone = rig.loop.time()
    await asyncio.sleep(30)
    assert rig.times()[-1] <= gone + 0.3
    rig.store.is_away = False
    await rig.until_ended()
    assert sorted(rig.accepted) == sorted(names)
    await rig.stop()


@virtual
async def test_two_workers_share_one_accounts_rate_exactly() -> None:
    rig = Rig()
    await rig.account(per_hour=360000)
    names = await rig.submit(3000)
    settings = EngineSettings(spread_above=1.0)
    for name in ("w1", "w2", "w3"):
        rig.start(name, settings)
    await rig.until_ended()
    times = rig.times()
    assert sorted(rig.accepted) == sorted(names)
    assert times[-1] - times[0] == pytest.approx(29.99, rel=0.003)
    assert rig.most_in(1.0) <= 100 * 1.5 + 1
    for name in list(rig.workers):
        await rig.stop(name)


@virtual
async def test_a_message_refused_twenty_times_in_a_row_suspends_its_send() -> None:
    rig = Rig(lambda recipient: replied(Stage.DOT, 554, "looks like spam"))
    await rig.account()
    await rig.submit(100)
    rig.start()
    await asyncio.sleep(30)
    fields = await rig.status()
    assert fields["state"] == "paused"
    assert "looks like spam" in fields["why"]
    bound = binding(await look(rig.desk, "m1"), "c1")
    assert bound is not None
    assert "cancel m1:c1" in bound.lift, "a submitted message cannot be changed: the remedy is another send"
    assert "under another id" in bound.lift
    assert 20 <= number(fields, "bounced") <= 25
    await rig.desk.resume("m1", "c1")
    assert "why" not in await rig.status()
    await rig.stop()


def lately(rig: Rig, seconds: float) -> float:
    """MAILs a second, of those whose end the relay knows."""
    end = rig.loop.time() - 5
    return len([at for at in rig.times() if end - seconds < at <= end]) / seconds


@pytest.mark.parametrize("workers", [1, 4])
def test_a_faster_tier_is_in_force_within_a_second_whatever_the_slow_one_was(workers: int) -> None:
    """Permits of the slow tier were due seconds ahead; those of the fast one are looked at when they are due."""

    @virtual
    async def raising() -> None:
        rig = Rig()
        await rig.account(per_hour=1200)
        await rig.submit(2000)
        for at in range(workers):
            rig.start(f"w{at}", EngineSettings(spread_above=0.0))
        await asyncio.sleep(18.3)  # one has just gone
        begun = rig.loop.time()
        await rig.desk.set_rate("m1", "t", 36_000)
        await asyncio.sleep(12)
        times = [at for at in rig.times() if begun + 1.0 <= at < begun + 11.0]
        assert len(times) >= 0.98 * 10 * 10
        for at in range(workers):
            await rig.stop(f"w{at}")

    raising()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("per_hour", "latency", "workers", "short"), [(200_000, 1.0, 5, 0.02), (60_000, 2.0, 3, 0.03), (30_000, 4.0, 3, 0.05)]
)
def test_sessions_that_are_all_busy_bind_and_more_workers_lift_it(
    per_hour: int, latency: float, workers: int, short: float, seed: int
) -> None:  # fmt: skip
    """Twenty sessions of a second a message carry twenty a second; the account has bought fifty-five. What several workers get at once is
    less than their sessions carry, or its permits lapse."""
    alone = 20 / latency

    @virtual
    async def adding() -> None:
        rig = Rig(latency=latency, jitter=Random(seed).random)
        await rig.account(per_hour=per_hour)
        await rig.submit(6000)
        rig.start("w0")
        await asyncio.sleep(12 * latency)
        assert (await rig.desk.account("m1"))["bind"].startswith("connections|")
        assert lately(rig, 5 * latency) == pytest.approx(alone, rel=0.2)
        for n in range(1, workers):
            rig.start(f"w{n}")
        await asyncio.sleep(60)
        assert lately(rig, 40) == pytest.approx(per_hour / 3600, rel=short)
        for n in range(workers):
            await rig.stop(f"w{n}")

    adding()
