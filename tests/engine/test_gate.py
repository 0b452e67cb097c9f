"""Terms and holds while workers send, on virtual time: what leaves until when, and how it goes on (domain rule 3)."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Coroutine

import pytest

from sendengine import config
from sendengine.client import Client
from sendengine.config import Config
from sendengine.engine.settings import EngineSettings
from sendengine.errors import Conflict
from sendengine.policy.health import BOUNCES, COMPLAINTS, Thresholds
from sendengine.policy.term import DAY
from sendengine.types import Attempt, Outcome, Stage
from tests.engine.rig import DELIVERED, EPOCH, Rig, number, replied
from tests.engine.virtual import run_virtually
from tests.test_billing import Billing

STOPS_WITHIN = RESUMES_WITHIN = 1.0
REASONS = config.reasons()
PER_HOUR, RATE = 36_000.0, 10.0


def virtual(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtually(test())

    run.__name__ = test.__name__
    return run


async def open_client(rig: Rig) -> Client:
    return await Client(desk=rig.desk, config=Config()).__aenter__()


async def set_end(rig: Rig, in_s: float, account: str = "m1") -> float:
    """The term ends so many seconds from now; when that is by the loop's time."""
    ends = rig.loop.time() + in_s
    await rig.desk.set_gate(account, {}, {"term": "active", "term_ends": f"{(EPOCH + ends) * 1e6:.0f}"})
    return ends


async def days_pass(rig: Rig, seconds: float) -> None:
    """Without a worker: there is nothing for one to do, and a new one begins a minute before they are over."""
    await asyncio.sleep(60)
    for name in list(rig.workers):
        await rig.stop(name)
    await asyncio.sleep(seconds - 120)
    rig.start("later")
    await asyncio.sleep(60)


def most_in_a_second(times: list[float]) -> int:
    times = sorted(times)
    return max(bisect_left(times, first + 1.0) - place for place, first in enumerate(times))


@pytest.mark.parametrize("per_hour", [PER_HOUR, 3_600_000.0, None])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_hold_in_mid_send_stops_and_its_lifting_resumes(per_hour: float | None, workers: int) -> None:
    async def run() -> None:
        rig = Rig(latency=0.05)
        await rig.account(per_hour=per_hour)
        names = await rig.submit(400 if per_hour == PER_HOUR else 20_000)
        for at in range(workers):
            rig.start(f"w{at}", EngineSettings(spread_above=5.0))
        await asyncio.sleep(5.0 if per_hour else 0.2)
        client = await open_client(rig)
        await client.hold("m1", "content")
        held, sent = rig.loop.time(), len(rig.log)
        await asyncio.sleep(60)
        assert 0 < sent <= len(rig.log) < len(names)
        assert rig.times()[-1] <= held + STOPS_WITHIN
        assert not rig.store.accounts["m1"].leases
        await client.release("m1", "content")
        released = rig.loop.time()
        await rig.until_ended()
        after = [at for at in rig.times() if at >= released]
        assert after[0] <= released + RESUMES_WITHIN
        if per_hour is not None:
            assert most_in_a_second(after) <= per_hour / 3600 * 1.5 + 1
        assert sorted(rig.accepted) == sorted(names)
        for name in list(rig.workers):
            await rig.stop(name)

    run_virtually(run())


@virtual
async def test_second_hold_and_lifting_of_one_change_nothing_on_the_wire() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(200)
    rig.start()
    client = await open_client(rig)
    await asyncio.sleep(2)
    await client.hold("m1", "content")
    await asyncio.sleep(10)
    sent = len(rig.log)
    await client.hold("m1", "unpaid-fee")
    await client.release("m1", "content")
    await asyncio.sleep(600)
    assert len(rig.log) == sent
    await client.release("m1", "unpaid-fee")
    await rig.until_ended()
    await rig.stop()


@virtual
async def test_flickering_hold_makes_no_burst_and_loses_nothing() -> None:
    """On and off twice a second: nothing saves up, and nothing goes twice."""
    rig = Rig(latency=0.05)
    await rig.account()
    names = await rig.submit(100)
    rig.start("w1")
    rig.start("w2")
    client = await open_client(rig)
    for _ in range(40):
        await client.hold("m1", "content")
        await asyncio.sleep(0.25)
        await client.release("m1", "content")
        await asyncio.sleep(0.25)
    await rig.until_ended()
    assert sorted(rig.accepted) == sorted(names)
    assert most_in_a_second(rig.times()) <= RATE * 1.5 + 1
    await rig.stop("w1")
    await rig.stop("w2")


@pytest.mark.parametrize("per_hour", [100.0, PER_HOUR, None])
@pytest.mark.parametrize("workers", [1, 3])
def test_term_that_ends_in_mid_send_ends_it_to_the_second(per_hour: float | None, workers: int) -> None:
    """Nobody strikes a clock: the permits, or the licence, end there. What is left is held and settled, and fails nowhere."""

    async def run() -> None:
        rig = Rig(latency=0.05)
        await rig.account(per_hour=per_hour)
        names = await rig.submit(300 if per_hour else 20_000)
        lasts = 300.0 if per_hour == 100.0 else 10.0 if per_hour else 0.2
        ends = await set_end(rig, lasts)
        for at in range(workers):
            rig.start(f"w{at}", EngineSettings(spread_above=5.0))
        await asyncio.sleep(lasts + 60)
        assert ends - (40.0 if per_hour == 100.0 else 1.0) <= rig.times()[-1] <= ends + STOPS_WITHIN
        if per_hour == PER_HOUR:
            assert len(rig.log) == pytest.approx(lasts * RATE, abs=4)
        assert not rig.store.accounts["m1"].leases
        assert (await rig.outcomes()).keys() <= {Outcome.SENT}
        client = await open_client(rig)
        await client.set_term("m1", "renew", ends="+30d")
        renewed = rig.loop.time()
        if per_hour != 100.0:
            await rig.until_ended()
            assert sorted(rig.accepted) == sorted(names)
        else:
            await asyncio.sleep(60)
        after = [at for at in rig.times() if at >= renewed]
        assert after[0] <= renewed + RESUMES_WITHIN
        for name in list(rig.workers):
            await rig.stop(name)

    run_virtually(run())


async def _in_grace(rig: Rig, lasts: float) -> Client:
    """A send of 300 whose term ended after about 100, so many seconds ago."""
    await rig.account()
    await rig.submit(300)
    ends = await set_end(rig, 10.0)
    rig.start()
    await asyncio.sleep(10.0)
    await days_pass(rig, lasts)
    assert rig.loop.time() == pytest.approx(ends + lasts, abs=0.1)
    return await open_client(rig)


@virtual
async def test_last_second_of_grace_renews_and_the_first_one_behind_it_refuses_and_purges() -> None:
    """Two accounts of a kind, whose terms ended two seconds apart: +9 d 23 h 59 m 59 s and +10 d 1 s at the same moment."""
    rig, names = Rig(), dict[str, list[str]]()
    for account, campaign, lasts in (("m1", "c1", 12.0), ("m2", "c2", 10.0)):
        await rig.account(account)
        names[campaign] = await rig.submit(300, campaign, account=account)
        await set_end(rig, lasts, account)
    rig.start()
    await asyncio.sleep(12.0)
    await days_pass(rig, 10 * DAY - 1.0)
    client = await open_client(rig)
    sent = len(rig.times("c1"))
    assert 0 < sent < 300
    with pytest.raises(Conflict, match="its grace ended"):
        await client.set_term("m2", "renew", ends="+30d")
    await client.set_term("m1", "renew", ends="+30d")
    renewed = rig.loop.time()
    fields = await rig.until_ended()
    assert renewed <= rig.times("c1")[sent] <= renewed + RESUMES_WITHIN
    assert (number(fields, "sent"), len(rig.times("c1")), len(set(rig.accepted) - set(names["c2"]))) == (300, 300, 300)
    assert rig.times("c2")[-1] < renewed - 10 * DAY + 1.0
    await asyncio.sleep(3700.0)  # workers look once an hour
    assert await rig.desk.accounts() == ["m1"]
    assert await rig.desk.gone("m2") is not None
    assert [each.what async for each in client.audit("m2")] == ["purged"]
    await rig.stop("later")


@virtual
async def test_renewal_that_arrives_after_its_deadline_is_refused_by_the_store_itself() -> None:
    """It was asked for in time, and took its time on the way: between the look and the change the grace ends."""
    rig = Rig()
    client = await _in_grace(rig, 10 * DAY - 1.0)
    set_gate = rig.desk.set_gate

    async def slow(*args: object, **named: object) -> object:
        await asyncio.sleep(2.0)
        return await set_gate(*args, **named)  # type: ignore[arg-type]

    rig.desk.set_gate = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict, match="its grace ended"):
        await client.set_term("m1", "renew", ends="+30d")
    await rig.stop("later")


@virtual
async def test_cancelled_account_sends_at_the_same_rate_to_the_end_of_its_term() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(2000)
    ends = await set_end(rig, 120.0)
    rig.start()
    await asyncio.sleep(60)
    assert (await Billing(rig.desk).sell("subscription.cancelled")).status == "applied"
    assert (await (await open_client(rig)).term("m1")).phase == "cancelled_active"
    await asyncio.sleep(120)
    before = [at for at in rig.times() if at < ends - 60]
    after = [at for at in rig.times() if ends - 60 <= at < ends]
    rates = [(len(times) - 1) / (times[-1] - times[0]) for times in (before, after)]
    assert rates[1] / rates[0] == pytest.approx(1.0, rel=0.01)
    assert ends - 0.2 < rig.times()[-1] < ends + 0.5
    fields = await rig.status()
    assert fields["state"] == "sending"
    assert number(fields, "cancelled") + number(fields, "expired") == 0
    await rig.stop()


@virtual
async def test_time_held_is_no_part_of_a_lifetime() -> None:
    """Retries are due in the middle of nine days of hold, and of nine more of grace: whoever was tried has its day of tries afterwards."""
    tries: Counter[str] = Counter()

    def answer(recipient: str) -> Attempt:
        tries[recipient] += 1
        return DELIVERED if tries[recipient] > 2 else replied(Stage.RCPT, 451)

    rig = Rig(answer)
    await rig.account()
    await rig.submit(20)
    rig.start()
    client = await open_client(rig)
    await asyncio.sleep(30)
    await client.hold("m1", "content")
    await days_pass(rig, 9 * DAY)
    await client.release("m1", "content")
    await asyncio.sleep(30)
    await client.set_term("m1", "expire")
    await days_pass(rig, 9 * DAY)
    await client.set_term("m1", "renew", ends="+30d")
    fields = await rig.until_ended()
    assert (number(fields, "sent"), number(fields, "expired")) == (20, 0)
    await rig.stop("later")


@virtual
async def test_lifetime_runs_on_beside_a_hold_and_not_longer() -> None:
    """Held and paused at once for five days: its two hours of tries are two hours still."""
    rig = Rig(lambda recipient: replied(Stage.RCPT, 451))
    await rig.account()
    await rig.submit(3, lifetime="7200")
    rig.start()
    client = await open_client(rig)
    await asyncio.sleep(600)
    await client.hold("m1", "content")
    await rig.desk.pause("m1", "c1")
    await days_pass(rig, 5 * DAY)
    await rig.desk.resume("m1", "c1")
    await client.release("m1", "content")
    fields = await rig.until_ended()
    assert number(fields, "expired") == 3
    assert 3600 < rig.times()[-1] - rig.times()[0] - 5 * DAY <= 7200
    await rig.stop("later")


@virtual
async def test_schedule_that_falls_due_under_a_hold_starts_with_its_lifting() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(20, at=60.0)
    rig.start()
    client = await open_client(rig)
    await client.hold("m1", "content")
    await asyncio.sleep(600)
    assert not rig.log
    await client.release("m1", "content")
    released = rig.loop.time()
    await rig.until_ended()
    assert rig.times()[0] <= released + RESUMES_WITHIN
    await rig.stop()


@virtual
async def test_worker_killed_under_a_hold_leaves_nothing_behind() -> None:
    rig = Rig(latency=0.05)
    await rig.account()
    names = await rig.submit(100)
    rig.start("w1")
    client = await open_client(rig)
    await asyncio.sleep(3)
    await client.hold("m1", "content")
    rig.kill("w1")
    rig.start("w2")
    await asyncio.sleep(60)
    assert not rig.store.accounts["m1"].leases
    await client.release("m1", "content")
    await rig.until_ended()
    assert set(rig.accepted) == set(names)
    assert len(rig.log) <= 100 + 3  # what was on the wire when it died is in doubt
    await rig.stop("w2")


@pytest.mark.parametrize("per_hour", [7_200_000.0, None])
def test_fast_account_with_nothing_to_send_is_left_alone(per_hour: float | None) -> None:
    """Its work is offered to several workers, and none of them looks at it again and again when it has none, or may send none."""

    async def run() -> None:
        rig = Rig()
        await rig.account(per_hour=per_hour)
        await rig.submit(500)
        worker = rig.start()
        await rig.until_ended()
        looks: list[str] = []
        account = worker._queue.account

        async def look(name: str) -> object:
            looks.append(name)
            return await account(name)

        worker._queue.account = look  # type: ignore[method-assign, assignment]
        await asyncio.sleep(120)
        await rig.submit(500, "c2")
        await (await open_client(rig)).hold("m1", "content")
        await asyncio.sleep(120)
        assert len(looks) <= 12
        await rig.stop()

    run_virtually(run())


@virtual
async def test_workers_purge_what_is_due_by_themselves_and_nothing_sooner() -> None:
    rig = Rig()
    client = await _in_grace(rig, 10 * DAY - 3700.0)
    await rig.account("m2")
    await asyncio.sleep(3600.0)  # its last look before the time was within the hour before
    assert (await client.term("m1")).phase == "grace"
    await asyncio.sleep(3600.0 + 200.0)
    assert await rig.desk.accounts() == ["m2"]
    assert await rig.desk.gone("m1") is not None
    assert [(each.what, each.who) async for each in client.audit("m1")] == [("purged", "worker later")]
    await rig.stop("later")


@virtual
async def test_account_whose_mail_bounces_is_held_by_itself_where_the_operator_says_so() -> None:
    rig = Rig(lambda recipient: replied(Stage.RCPT, 550) if int(recipient[3:].partition("@")[0]) % 10 == 0 else DELIVERED)
    held_for = tuple(REASONS[name] for name in (BOUNCES, COMPLAINTS))
    await rig.account()
    await rig.account("m2")
    await rig.submit(3000)
    rig.start(settings=EngineSettings(health=Thresholds(bounces=0.08, least=500, reasons=held_for)))
    client = await open_client(rig)
    await asyncio.sleep(180)
    account = await client.account("m1")
    assert [(each.reason, each.who) for each in account.holds] == [(BOUNCES, "sendengine")]
    assert "messages bounced for good within 24 h" in account.holds[0].text
    assert 500 <= len(rig.log) < 1900
    sent = len(rig.log)
    await asyncio.sleep(60)
    assert len(rig.log) == sent
    await client.release("m1", BOUNCES)
    await asyncio.sleep(40)
    assert len(rig.log) > sent + 300  # it is judged anew, by what comes now
    assert (await client.account("m2")).holds == []
    await rig.stop()


@virtual
async def test_neighbour_goes_on_at_its_rate_while_an_account_is_held_and_released() -> None:
    rig = Rig()
    for account in ("m1", "m2"):
        await rig.account(account)
        await rig.submit(600, account.replace("m", "c"), account=account)
    rig.start()
    client = await open_client(rig)
    for _ in range(10):
        await asyncio.sleep(2.5)
        await client.hold("m1", "content")
        await asyncio.sleep(2.5)
        await client.release("m1", "content")
    times = rig.times("c2-")
    assert times[-1] > rig.loop.time() - 0.2
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(RATE, rel=0.01)
    for campaign, account in (("c1", "m1"), ("c2", "m2")):
        await rig.until_ended(campaign, account)
    await rig.stop()
