"""Send windows over the days on which clocks are changed: on virtual time, with the zone's real rules."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sendengine.engine.settings import EngineSettings
from sendengine.policy.window import Window
from sendengine.types import Stage
from tests.engine import rig as rig_module
from tests.engine.rig import Rig, number, replied
from tests.engine.virtual import run_virtually

PRAGUE = ZoneInfo("Europe/Prague")
STARTS = 1000.0  # what the virtual loop's time begins with
CALM = EngineSettings(tick=0.25, poll=15.0, beat=15.0)  # fewer turns in the many hours between
WATCH_EVERY = 30.0  # nobody else is there to be watched
IN_TIME = 2 * CALM.poll + 2.0  # seconds after an opening in which the first message has left


@pytest.fixture(autouse=True)
def _seldom_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.engine.worker.WATCH_EVERY", WATCH_EVERY)


def _at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=PRAGUE).timestamp()


def _begin(monkeypatch: pytest.MonkeyPatch, wall: float) -> None:
    """The virtual world's clock shows `wall`."""
    monkeypatch.setattr(rig_module, "EPOCH", wall - STARTS)


async def _submit(rig: Rig, n: int, text: str, **fields: str) -> None:
    now = rig.now_us() / 1e6
    window = Window.parse(text)
    is_open = window.is_open(now)
    turn = window.next_close(now) if is_open else window.next_open(now)
    assert turn is not None
    closed = {} if is_open else {"closed_at": f"{now * 1e6:.0f}"}
    fields |= {"window": text, "open": "1" if is_open else "0", "window_at": f"{turn * 1e6:.0f}", **closed}
    await rig.submit(n, "c1", "m1", None, **fields)


@pytest.mark.parametrize(
    ("now", "hours", "openings"),
    [
        # 29 March 2026, 02:00 becomes 03:00: two hours on the wall are one; 02:30 stands for the jump.
        ("2026-03-28T23:00", "01:30-03:30", [("2026-03-29T01:30", 3600), ("2026-03-30T01:30", 7200)]),
        ("2026-03-28T23:00", "02:30-03:20", [("2026-03-29T03:00", 1200), ("2026-03-30T02:30", 3000)]),
        # 25 October 2026, 03:00 becomes 02:00: an hour comes twice, and the window holds both.
        ("2026-10-24T23:00", "01:50-02:10", [("2026-10-25T01:50", 4800), ("2026-10-26T01:50", 1200)]),
        ("2026-10-24T23:00", "02:30-02:50", [("2026-10-25T02:30", 4800), ("2026-10-26T02:30", 1200)]),
    ],
)
def test_a_window_on_the_days_when_clocks_change(
    monkeypatch: pytest.MonkeyPatch, now: str, hours: str, openings: list[tuple[str, int]]
) -> None:  # fmt: skip
    async def send() -> None:
        rig = Rig()
        await rig.account(per_hour=360.0)  # one in 10 s: the list outlasts the first opening
        spans = [(_at(opens), _at(opens) + seconds) for opens, seconds in openings]
        first = int((spans[0][1] - spans[0][0]) / 10)
        await _submit(rig, first + 20, f"Mon-Sun {hours} Europe/Prague")
        rig.start(settings=CALM)
        await rig.until_ended(every=60.0)
        times = [rig_module.EPOCH + at for at in rig.times()]
        assert all(any(opens <= at <= closes + 1.0 for opens, closes in spans) for at in times)
        for opens, closes in spans:
            inside = [at for at in times if opens <= at <= closes + 1.0]
            assert inside[0] - opens <= IN_TIME
        filled = [at for at in times if at <= spans[0][1] + 1.0]
        assert first - 3 <= len(filled) <= first + 1  # it was open for as long as it should
        assert spans[0][1] - filled[-1] <= 20.0
        await rig.stop()

    _begin(monkeypatch, _at(now))
    run_virtually(send())


def test_no_lifetime_runs_outside_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours of life, an hour a day inside the window: tries go on over the change of the clocks, on three days."""

    async def send() -> None:
        rig = Rig(lambda recipient: replied(Stage.RCPT, 451))
        await rig.account()
        await _submit(rig, 5, "Mon-Sun 09:00-10:00 Europe/Prague", retry="20m", lifetime="7200")
        rig.start(settings=CALM)
        fields = await rig.until_ended(every=60.0)
        assert number(fields, "expired") == 5
        days: dict[str, int] = {}
        for at in rig.times("c1-0@"):
            local = datetime.fromtimestamp(rig_module.EPOCH + at, PRAGUE)
            assert local.hour == 9 or (local.hour, local.minute) == (10, 0)
            days[f"{local:%d}"] = days.get(f"{local:%d}", 0) + 1
        assert list(days) in (["24", "25"], ["24", "25", "26"])
        assert 6 <= sum(days.values()) <= 8  # every twenty minutes of two hours, the first at once
        await rig.stop()

    _begin(monkeypatch, _at("2026-10-24T08:00"))
    run_virtually(send())


def test_a_worker_whose_clock_is_a_moment_behind_does_not_look_at_a_window_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send() -> None:
        rig = Rig()
        await rig.account()
        await _submit(rig, 20, "Mon-Sun 09:00-10:00 Europe/Prague")
        worker = rig.start(settings=CALM)
        await asyncio.sleep(5)
        worker.journal._best_round_trip = -1.0  # no better estimate comes
        worker.journal.wall_offset -= 0.05
        take, takes = worker._queue.take, 0

        async def counted(*args: Any) -> Any:
            nonlocal takes
            takes += 1
            assert takes < 100, "it takes without end"
            return await take(*args)

        worker._queue.take = counted  # type: ignore[method-assign, assignment]
        await rig.until_ended(every=60.0)
        assert rig.times()[0] + rig_module.EPOCH >= _at("2026-10-24T09:00")
        await rig.stop()

    _begin(monkeypatch, _at("2026-10-24T08:50"))
    run_virtually(send())


def test_a_schedule_is_an_instant_whatever_the_clocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send() -> None:
        rig = Rig()
        await rig.account()
        starts = datetime.fromisoformat("2026-10-25T02:30+01:00").timestamp() - rig_module.EPOCH  # the second half past two
        await rig.submit(20, at=starts)
        rig.start(settings=CALM)
        await rig.until_ended(every=10.0)
        assert starts <= rig.times()[0] <= starts + IN_TIME
        await rig.stop()

    _begin(monkeypatch, _at("2026-10-25T01:00"))
    run_virtually(send())
