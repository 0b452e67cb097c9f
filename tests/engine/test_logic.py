"""A template with loops takes milliseconds a row, as its author likes: it is rendered in slices, and its neighbours notice nothing.

Rendering takes no virtual time by itself; here a row stands the loop still for as long as the costliest one with loops was seen to take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from sendengine.engine.turnstile import Turnstile
from sendengine.errors import SendEngineError
from sendengine.render.message import Message
from sendengine.render.renderer import Renderer
from tests.engine.rig import Rig, number
from tests.engine.test_engine import virtual
from tests.engine.virtual import VirtualLoop

ROW = 0.060  # seconds: three texts of one message, each at its worst
HOSTILE = Message(sender="Shop <shop@example.com>", subject="Hi", text="{% for a in name %}{{ a }}{% endfor %}\n")


@pytest.fixture
def stalls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the loop stood still for rows with logic, each time."""
    made: list[float] = []
    prepare = Renderer.prepare

    def slow(self: Renderer, *args: object) -> object:
        rows = prepare(self, *args)  # type: ignore[arg-type]
        if self.has_logic:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.stand_still(len(rows) * ROW)
            made.append(len(rows) * ROW)
        return rows

    monkeypatch.setattr(Renderer, "prepare", slow)
    return made


async def hostile(rig: Rig, n: int, account: str = "bad") -> list[str]:
    await rig.account(account, None)
    return await rig.submit(n, f"logic-{account}", account, message=HOSTILE)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(600):
        while not is_so():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.005)


def test_neighbours_of_a_hostile_template_keep_their_rates(stalls: list[float]) -> None:
    @virtual
    async def run() -> None:
        rig = Rig()
        for rate in (10, 100):
            await rig.account(f"n{rate}", rate * 3600.0)
            await rig.submit(rate * 60, f"n{rate}", f"n{rate}")
        rig.start()
        await asyncio.sleep(10)
        for account in ("bad", "worse"):
            await hostile(rig, 400, account)
        began = rig.loop.time()
        await asyncio.sleep(20)
        assert stalls
        assert max(stalls) <= ROW * 1.01
        assert sum(stalls) <= 0.26 * (rig.loop.time() - began)
        for rate in (10, 100):
            times = [at for at in rig.times(f"n{rate}-") if began <= at < began + 20]
            assert len(times) == pytest.approx(rate * 20, rel=0.02)
            assert max(b - a for a, b in pairwise(times)) < 1 / rate + ROW * 1.5
        await rig.stop()

    run()


def test_a_stop_in_the_midst_of_slices_loses_nothing_and_does_not_wait(stalls: list[float]) -> None:
    @virtual
    async def run() -> None:
        rig = Rig()
        await rig.account("other")
        await rig.submit(1000, "other", "other")
        names = await hostile(rig, 900)
        rig.start()
        await until(lambda: len(stalls) > 150)
        assert rig.times("logic-bad"), "the first batch is on its way while the second is prepared"
        began, before = rig.loop.time(), len(stalls)
        await rig.stop()
        assert len(stalls) <= before + 1
        assert rig.loop.time() - began < 2.0
        assert (await rig.status("logic-bad", "bad"))["leased"] == "0"
        assert not rig.store.journals
        rig.start("w2")
        fields = await rig.until_ended("logic-bad", "bad")
        assert number(fields, "sent") == 900
        assert sorted(name for name in rig.accepted if name.startswith("logic")) == sorted(names)
        await rig.stop("w2")

    run()


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_what_is_stopped_while_it_is_prepared_is_not_sent(verb: str, stalls: list[float]) -> None:
    @virtual
    async def run() -> None:
        rig = Rig()
        await rig.account("other")
        await rig.submit(2000, "other", "other")
        names = await hostile(rig, 200)
        rig.start()
        await until(lambda: len(stalls) > 20)
        await getattr(rig.desk, verb)("bad", "logic-bad")
        await asyncio.sleep(60)
        assert not rig.times("logic-bad")
        if verb == "pause":
            assert (await rig.status("logic-bad", "bad"))["leased"] == "0"
            await rig.desk.resume("bad", "logic-bad")
            await rig.until_ended("logic-bad", "bad")
            assert sorted(name for name in rig.accepted if name.startswith("logic")) == sorted(names)
        await rig.stop()

    run()


def test_a_failure_in_a_slice_hands_the_turn_on() -> None:
    @virtual
    async def run() -> None:
        turnstile = Turnstile(asyncio.get_running_loop().time, lambda: True)

        def fails() -> bool:
            raise SendEngineError("a message that no longer compiles")

        with pytest.raises(SendEngineError):
            await turnstile.slice(fails)
        assert not await turnstile.slice(lambda: False)

    run()
