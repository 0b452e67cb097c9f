"""How a worker connects to a relay in trouble: one trial at a time, never a second within a second of one that failed, and all sessions
back once a trial has carried. Real sites and sessions, virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from sendengine.channel.settings import SmtpSettings
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


def test_a_trial_that_hangs_does_not_stop_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """One silent session, of a relay that is in order otherwise, is waited for as a failure is backed off from."""

    async def hanging() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW), Rig()
        await _busy(relay, rig, 60)
        relay.silent = 1
        relay.cut()
        at = rig.loop.time()
        await asyncio.sleep(30)
        trial, second = [connect for connect in relay.connects if connect >= at][:2]
        assert 1.0 <= second - trial <= 2.0
        await asyncio.sleep(10)
        assert len([mail for mail in relay.mails if at + 30 <= mail < at + 40]) >= 0.9 * R * 10
        await rig.stop()

    run_virtually(hanging())


def test_a_relay_whose_sessions_all_hang_gets_another_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hanging() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW), Rig()
        await _busy(relay, rig, 60)
        relay.silent = 6
        relay.cut()
        at = rig.loop.time()
        await asyncio.sleep(120)
        meanwhile = [connect for connect in relay.connects if connect >= at]
        waits = [b - a for a, b in pairwise(meanwhile[:7])]
        assert waits == pytest.approx([1, 2, 4, 8, 16, 20], abs=1.0 + 2 * SLOW)
        assert min(waits) >= 1.0
        assert len([mail for mail in relay.mails if at + 90 <= mail < at + 100]) >= 0.65 * R * 10  # six of twenty sessions hang still
        await rig.stop()

    run_virtually(hanging())


@pytest.mark.parametrize("apart", [0.001, 0.02, 0.1])
def test_a_relay_that_cuts_sessions_one_by_one_and_refuses_others(monkeypatch: pytest.MonkeyPatch, apart: float) -> None:
    """Some carry on meanwhile: once a connection was refused the next is asked for a second later, and alone."""

    async def dying() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=SLOW), Rig()
        await _busy(relay, rig, 60)
        at = rig.loop.time()
        relay.is_down = True
        await relay.cut_apart(apart)
        await asyncio.sleep(3)
        known = next(connect for connect in relay.connects if connect >= at) + SLOW
        later = [connect for connect in relay.connects if connect >= known]
        assert len(later) >= 1
        assert min(b - a for a, b in pairwise([known, *later])) >= 1.0
        await rig.stop()

    run_virtually(dying())


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


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_a_relay_that_ends_each_session_after_a_few_messages_gets_the_full_rate(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """That is its way, and no trouble: it gets as many messages as the sessions that may be opened can carry."""

    async def wearing_out() -> None:
        relay, rig = SmtpRelay(monkeypatch, latency=0.05, most_messages=most), Rig()
        await rig.account(per_hour=None)
        rate = most * SmtpSettings().connect_rate
        await rig.submit(int(rate * 40))
        start(rig)
        await asyncio.sleep(30)
        now = rig.loop.time()
        assert len([at for at in relay.taken_at if now - 20 <= at]) >= 0.9 * rate * 20
        await rig.until_ended()
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
