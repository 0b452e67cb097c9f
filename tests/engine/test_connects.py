"""How a worker connects to a relay in trouble: one trial at a time, never a second within a second of one that failed, and all sessions
back once a trial has carried. Real sites and sessions, virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.engine.ceiling import Rates
from tests.engine.rig import Rig
from tests.engine.smtp_relay import SmtpRelay, start
from tests.engine.virtual import run_virtually

R = 40.0  # a second: at half a second a message, 20 sessions are just enough
SLOW = 0.25  # to each answer; a message in full swing takes one, its first two


async def _busy(relay: SmtpRelay, rig: Rig, seconds: int) -> None:
    """A worker in full swing: every session that it may have carries something."""
    await rig.account(per_hour=R * 3600)
    await rig.submit(int(R * seconds))
    start(rig)
    await asyncio.sleep(10)


def test_sessions_that_are_cut_together_are_replaced_by_one_trial_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cut() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW), Rig()
        await _busy(relay, rig, 60)
        before = relay.sessions
        assert before >= 8
        relay.cut()
        at = rig.loop.time()
        await asyncio.sleep(3)
        trial, *others = [connect for connect in relay.connects if connect >= at]
        assert trial - at < 0.1
        assert min(others) >= trial + 3 * SLOW  # opened, and a message answered
        assert relay.sessions >= before // 2
        await rig.until_ended()
        assert len(relay.mails) <= R * 60 + before
        await rig.stop()

    run_virtually(cut())


def test_a_relay_that_is_killed_under_busy_sessions_and_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW), Rig()
        await _busy(relay, rig, 60)
        assert relay.sessions >= 8
        relay.go_down()
        gone = rig.loop.time()
        await asyncio.sleep(180)
        relay.come_up()
        back = rig.loop.time()
        meanwhile = [at for at in relay.connects if gone <= at < back]
        assert len(meanwhile) >= 8
        assert min(b - a for a, b in pairwise(meanwhile)) >= 1.0
        await asyncio.sleep(40)
        trial, second = [at for at in relay.connects if at >= back][:2]
        assert second >= trial + 3 * SLOW
        assert len([at for at in relay.mails if back + 30 <= at < back + 40]) >= 0.9 * R * 10
        assert Rates(0.0, R * 3600).exceeded(relay.mails) is None
        await rig.stop()

    run_virtually(away())


@pytest.mark.parametrize("stage", ["EHLO", "MAIL"])
def test_a_relay_that_greets_and_hangs_up(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """It is there and carries nothing: that is trouble as much as a refused connection."""

    async def hanging_up() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW), Rig()
        await _busy(relay, rig, 60)
        relay.hangs_up_at = stage
        relay.cut()
        begun = rig.loop.time()
        await asyncio.sleep(120)
        meanwhile = [at for at in relay.connects if at >= begun]
        gaps = [b - a for a, b in pairwise(meanwhile)]
        assert min(gaps) >= 1.0
        assert max(gaps) <= 26 + 4 * SLOW
        assert all(a < b for a, b in pairwise(gaps[:4]))  # ever later
        relay.hangs_up_at = ""
        back = rig.loop.time()
        await asyncio.sleep(40)
        assert len([at for at in relay.mails if back + 30 <= at]) >= 0.9 * R * 10
        await rig.stop()

    run_virtually(hanging_up())


def test_a_relay_that_ends_each_session_after_a_few_messages_gets_the_full_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is its way, and no trouble: others carry on meanwhile."""

    async def wearing_out() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW / 2, most_messages=10), Rig()
        await _busy(relay, rig, 90)
        await rig.until_ended()
        first = relay.mails[0]
        assert len([at for at in relay.mails if first + 15 <= at < first + 75]) >= 0.95 * R * 60  # a MAIL behind a last dot is lost
        await rig.stop()

    run_virtually(wearing_out())


def test_a_session_that_the_relay_closes_idle_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle() -> None:
        relay, rig = SmtpRelay(monkeypatch), Rig()
        await rig.account(per_hour=3600)
        names = await rig.submit(30)
        start(rig)
        for second in range(1, 20):
            await asyncio.sleep(second + 0.5 - rig.loop.time() % 1)
            relay.cut()
        await rig.until_ended()
        assert relay.tries.keys() == set(names)
        assert max(map(len, relay.tries.values())) == 1
        assert max(b - a for a, b in pairwise(relay.mails)) < 1.1
        await rig.stop()

    run_virtually(idle())
