"""Who gets nothing any more is not sent to, whatever the moment in which that is said; and a bounce says it by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import msgspec
import pytest

from sendengine.batch import Batch, pack
from sendengine.engine.settings import EngineSettings
from sendengine.policy.suppression import Limits, Listed, Reason, encode, reason_of
from sendengine.ports import Late, Standings
from sendengine.queue.memory import MemoryQueue
from sendengine.records import TRANSACTIONAL
from sendengine.render.message import dump
from sendengine.types import Attempt, Outcome, Reply, Stage
from tests.engine.rig import DELIVERED, FIELDS, MESSAGE, Rig, number
from tests.engine.test_engine import virtual

SOON = 1.0  # seconds in which a change acts on every worker


def refused(status: str, stage: Stage = Stage.RCPT) -> Attempt:
    return Attempt(stage, Reply(int(status[0]) * 100 + 50, status, "no"), None, 0.0, 0.0)


def entries(names: Sequence[str], reason: Reason = Reason.MANUAL) -> dict[bytes, bytes]:
    return {name.encode(): encode(reason, 1.8e9) for name in names}


async def reasons(rig: Rig, names: Sequence[str]) -> list[str | None]:
    found = await rig.desk.suppressed("m1", [name.encode() for name in names])
    return [None if entry is None else reason_of(entry).value for entry in found]


class Asked:
    """Counts what a rig's workers ask about the list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.standings: list[int] = []
        self.late = 0
        standings, late = MemoryQueue.standings, MemoryQueue.late

        async def ask_standings(queue: MemoryQueue, account: str, addresses: Sequence[bytes]) -> Standings:
            self.standings.append(len(addresses))
            return await standings(queue, account, addresses)

        async def ask_late(queue: MemoryQueue, account: str, listed: int) -> Late:
            self.late += 1
            return await late(queue, account, listed)

        monkeypatch.setattr(MemoryQueue, "standings", ask_standings)
        monkeypatch.setattr(MemoryQueue, "late", ask_late)


def on_virtual_time(test):  # type: ignore[no-untyped-def]
    """For tests that take fixtures."""

    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        virtual(lambda: test(monkeypatch))()

    run.__name__ = test.__name__
    return run


@on_virtual_time
async def test_without_a_list_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, rig = Asked(monkeypatch), Rig()
    await rig.account()
    await rig.submit(250)
    rig.start()
    await rig.until_ended()
    assert (asked.standings, asked.late) == ([], 0)
    await rig.stop()


@virtual
async def test_suppressed_before_dispatch_is_not_sent_and_counted() -> None:
    rig = Rig()
    await rig.account()
    names = await rig.submit(250)
    barred = [names[0], names[99], names[100], names[249]]
    assert await rig.desk.suppress("m1", entries(barred)) == Listed(4)
    rig.start()
    fields = await rig.until_ended()
    assert (number(fields, "suppressed"), number(fields, "sent"), number(fields, "tried")) == (4, 246, 250)
    assert sorted(rig.accepted) == sorted(set(names) - set(barred))
    assert await rig.outcomes() == Counter({Outcome.SENT: 246, Outcome.SUPPRESSED: 4})
    await rig.stop()


@virtual
async def test_a_whole_batch_that_is_suppressed() -> None:
    rig = Rig()
    await rig.account()
    names = await rig.submit(200)
    await rig.desk.suppress("m1", entries(names[:100]))
    rig.start()
    fields = await rig.until_ended()
    assert (number(fields, "suppressed"), number(fields, "sent")) == (100, 100)
    await rig.stop()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("per_hour", [360.0, 36_000.0, 7_200_000.0, None])
def test_what_is_added_in_mid_send_acts_within_a_second_on_every_worker(workers: int, per_hour: float | None) -> None:
    @virtual
    async def run() -> None:
        rig = Rig(latency=0.001 if per_hour else 0.02)
        await rig.account(per_hour=per_hour)
        names = await rig.submit(60 if per_hour == 360 else 3000)
        settings = EngineSettings(spread_above=0.0)
        for at in range(workers):
            rig.start(f"w{at}", settings)
        while len(rig.log) < 10:  # noqa: ASYNC110 - on virtual time
            await asyncio.sleep(0.005)
        barred = {name for at, name in enumerate(names) if at % 2}
        await rig.desk.suppress("m1", entries(sorted(barred)))
        told = rig.loop.time()
        fields = await rig.until_ended()
        late = [at for at, name in rig.log if name in barred and at > told + SOON]
        assert late == []
        sent_before = sum(name in barred for _, name in rig.log)
        assert number(fields, "suppressed") == len(barred) - sent_before
        assert number(fields, "sent") == len(names) - len(barred) + sent_before
        assert len(rig.accepted) == len(set(rig.accepted))
        for at in range(workers):
            await rig.stop(f"w{at}")

    run()


@virtual
async def test_a_change_costs_no_permit() -> None:
    rig = Rig()
    await rig.account(per_hour=360_000)  # 100/s
    names = await rig.submit(2000)
    rig.start()
    await asyncio.sleep(2.0)
    for at in range(50):  # twenty a second
        await rig.desk.suppress("m1", entries([f"nobody-{at}@example.com"]))
        await asyncio.sleep(0.05)
    await rig.until_ended()
    times = rig.times()
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(100, rel=0.005)
    assert len(times) == len(names)
    await rig.stop()


@on_virtual_time
async def test_of_what_is_held_only_those_who_came_late_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    await rig.account(per_hour=360_000)
    names = await rig.submit(1000)
    await rig.desk.suppress("m1", entries(["nobody@example.com"]))
    rig.start()
    await asyncio.sleep(1.0)
    asked = Asked(monkeypatch)
    await rig.desk.suppress("m1", entries(["other@example.com"]))
    await asyncio.sleep(0.1)
    assert (asked.late, [n for n in asked.standings if n != 100]) == (1, [])
    held = names[len(rig.log) + 60]  # not the next ones: these are journalled
    await rig.desk.suppress("m1", entries([held]))
    await asyncio.sleep(0.1)
    assert (asked.late, [n for n in asked.standings if n != 100]) == (2, [1])
    await rig.until_ended()
    assert held not in rig.accepted
    await rig.stop()


@virtual
async def test_who_waits_for_a_retry_is_asked_for_again() -> None:
    rig = Rig()
    begin = rig.loop.time()
    rig.answer = lambda name: refused("4.2.0") if rig.loop.time() < begin + 30 else DELIVERED
    await rig.account()
    names = await rig.submit(20)
    rig.start()
    await asyncio.sleep(20.0)
    await rig.desk.suppress("m1", entries(names[:5]))
    fields = await rig.until_ended()
    assert (number(fields, "suppressed"), number(fields, "sent")) == (5, 15)
    await rig.stop()


@virtual
async def test_who_was_once_in_doubt_ends_unknown() -> None:
    rig = Rig(lambda name: Attempt(Stage.DOT, None, "timeout", 0.0, 0.0) if not rig.store.accounts["m1"].suppressed else DELIVERED)  # type: ignore[arg-type]
    await rig.account(per_hour=3600)
    names = await rig.submit(3, max_doubt="9")
    rig.start()
    await asyncio.sleep(1.5)
    in_doubt = {name for _, name in rig.log}
    await rig.desk.suppress("m1", entries(names))
    fields = await rig.until_ended()
    assert 0 < len(in_doubt) < 3
    assert (number(fields, "unknown"), number(fields, "suppressed")) == (len(in_doubt), 3 - len(in_doubt))
    await rig.stop()


async def single(rig: Rig, to: str) -> None:
    await rig.desk.create("m1", TRANSACTIONAL, b"t", None, b"", FIELDS)
    payload = pack(Batch(number=0, positions=[0], recipients=[to], fields=(), columns=[]))
    message = dump(msgspec.structs.replace(MESSAGE, subject="Code", text="1\n"))
    assert (await rig.desk.transact("m1", payload, message, to, bytes(8))).status == "stored"


@pytest.mark.parametrize("reason", Reason)
def test_a_single_message_goes_to_who_unsubscribed_only(reason: Reason) -> None:
    @virtual
    async def run() -> None:
        rig = Rig()
        await rig.account()
        await rig.desk.suppress("m1", entries(["a@example.com"], reason))
        rig.start()
        await single(rig, "a@example.com")
        await asyncio.sleep(5.0)
        assert rig.accepted == (["a@example.com"] if reason is Reason.UNSUBSCRIBED else [])
        await rig.stop()

    run()


# bounces


@virtual
async def test_a_hard_bounce_is_not_sent_to_by_another_send() -> None:
    rig = Rig(lambda name: refused("5.1.1") if name.startswith("c1-3") else DELIVERED)
    await rig.account()
    names = await rig.submit(40)
    rig.start()
    await rig.until_ended()
    bad = [name for name in names if name.startswith("c1-3")]
    assert await reasons(rig, bad) == ["hard-bounced"] * len(bad)
    assert await rig.desk.count_suppressed("m1") == len(bad)
    rig.log.clear()
    await resubmit(rig, names, "c2")
    fields = await rig.until_ended("c2")
    assert (number(fields, "suppressed"), number(fields, "sent")) == (len(bad), 40 - len(bad))
    assert not {name for _, name in rig.log} & set(bad)
    await rig.stop()


async def resubmit(rig: Rig, names: Sequence[str], campaign: str, **fields: str) -> None:
    from sendengine.intake import Intake

    assert await rig.desk.create("m1", campaign, b"d", None, dump(MESSAGE), {**FIELDS, **fields}) == "new"
    packed = list(Intake(("name",), salt=b"salt").from_rows({"email": name, "name": "N"} for name in names))
    for batch in packed:
        await rig.desk.submit("m1", campaign, batch)
    await rig.desk.seal("m1", campaign, len(packed))


@virtual
async def test_a_hard_bounce_reaches_rows_that_another_send_holds() -> None:
    """Both sends are under way; the slow one of them comes to the address later."""
    rig = Rig(lambda name: refused("5.1.1") if name == "c1-0@example.com" else DELIVERED)
    await rig.account(per_hour=3600)
    names = await rig.submit(30)
    await resubmit(rig, names[::-1], "c2")
    rig.start()
    await rig.until_ended("c2")
    fields = await rig.until_ended()
    assert [name for _, name in rig.log].count("c1-0@example.com") == 1
    assert number(fields, "bounced") + number(await rig.status("c2"), "suppressed") == 2
    await rig.stop()


@pytest.mark.parametrize(("per_hour", "n"), [(3600.0, 300), (36_000.0, 600), (360_000.0, 1500)])
def test_a_hard_bounce_acts_on_every_send_within_a_second(per_hour: float, n: int) -> None:
    """Nobody tells of it: it is settled soon."""

    @virtual
    async def run() -> None:
        rig = Rig(lambda name: refused("5.1.1") if name in bad else DELIVERED)
        await rig.account(per_hour=per_hour)
        names = await rig.submit(n)
        bad = set(names[::2])
        await resubmit(rig, Random(n).sample(names, n), "c2")
        rig.start()
        for campaign in ("c1", "c2"):
            await rig.until_ended(campaign)
        first: dict[str, float] = {}
        again = [at - first[name] for at, name in sorted(rig.log) if name in bad and first.setdefault(name, at) != at]
        assert len(first) == len(bad)
        assert [after for after in again if after > SOON] == []
        await rig.stop()

    run()


@pytest.mark.parametrize(
    ("status", "sends", "suppressed_after"),
    [("5.2.1", 5, 3), ("5.2.2", 5, 4), ("5.7.1", 5, None), ("5.1.1", 2, 1)],
)
def test_so_many_bounces_in_a_row_put_an_address_on_the_list(status: str, sends: int, suppressed_after: int | None) -> None:
    @virtual
    async def run() -> None:
        rig = Rig(lambda name: refused(status) if name == "a@example.com" else DELIVERED)
        await rig.account(per_hour=3600)
        rig.start(settings=EngineSettings(limits=Limits(soft=3, full=4)))
        for at in range(sends):
            await resubmit(rig, ["a@example.com", "b@example.com"], f"s{at}")
            fields: Mapping[str, str] = await rig.until_ended(f"s{at}")
            is_over = suppressed_after is not None and at >= suppressed_after
            assert number(fields, "suppressed") == is_over
            assert number(fields, "bounced") == (not is_over)
        assert await reasons(rig, ["b@example.com"]) == [None]
        await rig.stop()

    run()


@virtual
async def test_a_success_between_begins_the_count_anew() -> None:
    answers = iter(["5.2.1", "5.2.1", "", "5.2.1", "5.2.1", "5.2.1", "never"])
    rig = Rig(lambda name: refused(status) if (status := next(answers)) else DELIVERED)
    await rig.account(per_hour=3600)
    rig.start(settings=EngineSettings(limits=Limits(soft=3, full=4)))
    for at in range(7):
        await resubmit(rig, ["a@example.com"], f"s{at}")
        fields = await rig.until_ended(f"s{at}")
        assert number(fields, "suppressed") == (at == 6)
    await rig.stop()


@virtual
async def test_who_expires_bounced_softly_once() -> None:
    rig = Rig(lambda name: refused("4.2.2"))
    await rig.account(per_hour=3600)
    rig.start(settings=EngineSettings(poll=5.0, beat=5.0, limits=Limits(soft=3, full=2)))
    for at in range(2):
        await resubmit(rig, ["a@example.com"], f"s{at}", lifetime="3600")
        fields = await rig.until_ended(f"s{at}", every=60.0)
        assert number(fields, "expired") == 1
        assert await reasons(rig, ["a@example.com"]) == ["soft-bounced" if at else None]
    await rig.stop()


@virtual
async def test_a_hard_bounce_of_a_worker_that_died_is_on_the_list() -> None:
    """Its outcome was journalled and settled by nobody: the rescuer adds the address as its worker would have."""
    rig = Rig(lambda name: refused("5.1.1") if name.startswith(("c1-12", "c1-13")) else DELIVERED)
    await rig.account(per_hour=36_000)
    await rig.submit(20)
    rig.start("w1", EngineSettings(settle_after=1000.0, lease=100.0))
    while "c1-12@example.com" not in {name for _, name in rig.log}:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # its outcome is journalled with the next tick
    assert await rig.desk.count_suppressed("m1") == 0
    rig.kill("w1")
    rig.start("w2", EngineSettings(sweep_every=5.0))
    fields = await rig.until_ended()
    assert number(fields, "bounced") == 2
    assert await rig.desk.count_suppressed("m1") == 2
    await rig.stop("w2")
