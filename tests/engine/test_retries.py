"""Retries as relays see them: schedules over a day, greylisting, a relay that is away. Real sites and sessions, virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.policy.retry import SPREAD, parse
from sendengine.types import Outcome, Stage
from tests.engine.ceiling import Rates
from tests.engine.rig import MESSAGE, Rig, number, replied
from tests.engine.smtp_relay import SmtpRelay, start
from tests.engine.test_engine import SLOW_POLL
from tests.engine.virtual import run_virtually

DAY = "1m, 5m*2, 15m*2, 1h*3, 4h*5"
MINUTE = 60.0
ONE = [{"email": "a@example.com", "name": "A"}]
LATE = 2 * SLOW_POLL.poll + 2.0  # seconds that a due retry may wait: for an idle worker's look at the index, its take and its permit


def test_a_day_of_refusals_makes_exactly_the_schedules_tries_and_one_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def day() -> None:
        relay, rig = SmtpRelay(monkeypatch, lambda name: "451 4.2.1 mailbox busy"), Rig()
        await rig.account()
        names = await rig.submit(20, retry=DAY)
        start(rig, settings=SLOW_POLL)
        fields = await rig.until_ended(every=60.0)
        steps = parse(DAY).steps
        for name in names:
            gaps = [b - a for a, b in pairwise(relay.tries[name])]
            assert len(gaps) < len(steps)  # the last ones do not fit in a day
            for gap, step in zip(gaps, steps, strict=False):
                assert step <= gap <= step * (1 + SPREAD) + LATE
            lived, following = sum(gaps), steps[len(gaps)]
            assert lived <= 86400 < lived + following * (1 + SPREAD)  # nothing that fits is left out
        assert len({round(gap, 1) for name in names for gap in [relay.tries[name][1] - relay.tries[name][0]]}) > 10  # spread
        assert number(fields, "expired") == 20
        assert await rig.outcomes() == {Outcome.EXPIRED: 20}
        await rig.stop()

    run_virtually(day())


@pytest.mark.parametrize(("given", "gaps"), [("2m, 10m", [120, 600, 600, 600, 600, 600]), (None, [600, 1200, 1200])])
def test_a_send_is_tried_again_as_it_was_submitted_or_as_its_account_says(given: str | None, gaps: list[int]) -> None:
    """Within an hour, and no longer."""

    async def hour() -> None:
        rig = Rig(lambda recipient: replied(Stage.RCPT, 451))
        async with Client(desk=rig.desk, config=Config()) as client:
            await client.create_account("m1", "36000", retry="10m, 20m")
            await client.submit(account="m1", message=MESSAGE, recipients=ONE, campaign="c1", retry=given, lifetime="1h")
        rig.start(settings=SLOW_POLL)
        fields = await rig.until_ended(every=30.0)
        found = [b - a for (a, _), (b, _) in pairwise(rig.log)]
        assert len(found) == len(gaps)
        assert all(gap <= each <= gap + LATE for gap, each in zip(gaps, found, strict=True))  # the rig's jitter is none
        assert number(fields, "expired") == 1
        await rig.stop()

    run_virtually(hour())


def test_a_greylisting_relay_takes_everybody_at_the_second_or_third_try(monkeypatch: pytest.MonkeyPatch) -> None:
    async def greylisted() -> None:
        first_seen: dict[str, float] = {}

        def at_rcpt(name: str) -> str:
            now = asyncio.get_running_loop().time()
            if now - first_seen.setdefault(name, now) < 5 * MINUTE:
                return "451 4.7.1 Greylisting in action, please come back later"
            return "250 2.1.5 Ok"

        relay, rig = SmtpRelay(monkeypatch, at_rcpt), Rig()
        await rig.account(per_hour=36_000)
        names = await rig.submit(500)
        start(rig)
        fields = await rig.until_ended(every=1.0)
        assert number(fields, "sent") == 500
        assert sorted(relay.taken) == sorted(names)
        assert {len(times) for times in relay.tries.values()} == {3}  # at once, after a minute, after five more
        assert Rates(0.0, 36_000).exceeded(relay.mails) is None
        await rig.stop()

    run_virtually(greylisted())


@pytest.mark.parametrize("per_hour", [36_000.0, 200_000.0])
def test_a_relay_away_for_ten_minutes_with_a_full_queue(monkeypatch: pytest.MonkeyPatch, per_hour: float) -> None:
    async def away() -> None:
        relay, rig = SmtpRelay(monkeypatch), Rig()
        await rig.account(per_hour=per_hour)
        r = per_hour / 3600
        names = await rig.submit(int(r * 120))
        worker = start(rig)
        await asyncio.sleep(20)
        assert relay.mails
        most_rows = worker.report().rows
        relay.go_down()
        gone = rig.loop.time()
        for _ in range(600):
            await asyncio.sleep(1.0)
            most_rows = max(most_rows, worker.report().rows)
        relay.come_up()
        back = rig.loop.time()
        await rig.until_ended(every=1.0)
        assert sorted(set(relay.taken)) == sorted(names)  # lost 0
        doubts = sum((await rig.desk.standing("m1", "c1")).doubts.values())
        assert len(relay.taken) - len(names) <= doubts <= 20  # at most one a connection
        meanwhile = [at for at in relay.connects if gone <= at < back]
        assert len(meanwhile) >= 10
        assert max(_in_any_second(meanwhile)) <= 1
        assert max(_in_any_second([at for at in relay.connects if at >= back])) <= 20
        assert most_rows <= 4 * r + 200
        assert Rates(0.0, per_hour).exceeded(relay.mails) is None
        after = [at for at in relay.mails if back + 30 <= at < back + 40]
        assert len(after) >= 0.9 * r * 10
        await rig.stop()

    run_virtually(away())


def _in_any_second(times: list[float]) -> list[int]:
    """For each time, how many there are from it to a second later."""
    return [sum(at <= other < at + 0.999 for other in times) for at in times]
