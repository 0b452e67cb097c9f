"""Receipts on their way through a worker: early ones, those of others, and a Redis that is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from sendengine.engine.receipts import AGAIN, KNOWN_AFTER, Receipts
from sendengine.errors import Unavailable
from sendengine.records import decode_ref
from sendengine.sink.silent import SilentMeter
from sendengine.types import Receipt


class Queue:
    def __init__(self) -> None:
        self.is_away = False
        self.known: dict[tuple[str, str], bytes] = {}
        self.brought: list[tuple[str, Receipt]] = []

    async def expect(self, provider: str, refs: Mapping[str, bytes]) -> None:
        if self.is_away:
            raise Unavailable("away")
        self.known |= {(provider, name): ref for name, ref in refs.items()}

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        if self.is_away:
            raise Unavailable("away")
        self.brought += [(provider, receipt) for receipt in receipts if (provider, receipt.message_id) in self.known]
        return [receipt for receipt in receipts if (provider, receipt.message_id) not in self.known]


class Rig:
    def __init__(self) -> None:
        self.now = 100.0
        self.queue = Queue()
        self.receipts = Receipts(self.queue, SilentMeter(), lambda: self.now, self._spawn)  # type: ignore[arg-type]
        self._tasks: list[asyncio.Task[Any]] = []

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def turn(self, seconds: float = 0.2) -> None:
        self.now += seconds
        self.receipts.turn(self.now)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def accepted(self, message_id: str, row: int = 0, provider: str = "p") -> None:
        lane = SimpleNamespace(account="m1/sms", relay=SimpleNamespace(site=provider))
        lease = SimpleNamespace(campaign=SimpleNamespace(id="a"), batch=3)
        self.receipts.expect(SimpleNamespace(lane=lane, lease=lease, row=row), (message_id, ""))  # type: ignore[arg-type]


async def test_id_is_written_and_its_receipt_brought() -> None:
    rig = Rig()
    rig.accepted("x", 7)
    await rig.turn()
    ref = decode_ref(rig.queue.known["p", "x"])
    assert (ref.lane, ref.campaign, ref.batch, ref.row, len(rig.queue.known)) == ("m1/sms", "a", 3, 7, 1)
    rig.receipts.arrive("p", Receipt("x", "DELIVRD"))
    await rig.turn()
    assert rig.queue.brought == [("p", Receipt("x", "DELIVRD"))]


async def test_receipt_that_comes_before_its_id_waits_for_it() -> None:
    rig = Rig()
    rig.receipts.arrive("p", Receipt("x", "DELIVRD"))
    await rig.turn()
    rig.accepted("x")
    await rig.turn(AGAIN / 2)
    assert rig.queue.brought == []
    await rig.turn(AGAIN)
    assert rig.queue.brought == [("p", Receipt("x", "DELIVRD"))]


async def test_receipt_of_nothing_is_dropped_after_a_while() -> None:
    rig = Rig()
    rig.receipts.arrive("p", Receipt("nobody", "DELIVRD"))
    for _ in range(int(KNOWN_AFTER / AGAIN) + 2):
        await rig.turn(AGAIN + 0.1)
    assert rig.receipts.dropped == 1
    assert not rig.receipts._came


async def test_what_redis_does_not_take_is_brought_when_it_is_back() -> None:
    rig = Rig()
    for provider in ("p", "q"):
        rig.accepted("x", provider=provider)
    rig.queue.is_away = True
    await rig.turn()
    rig.accepted("y")
    rig.queue.is_away = False
    await rig.turn()
    assert sorted(rig.queue.known) == [("p", "x"), ("p", "y"), ("q", "x")]
    rig.queue.is_away = True
    for provider, name in (("p", "x"), ("q", "x"), ("p", "y")):
        rig.receipts.arrive(provider, Receipt(name, "UNDELIV"))
    await rig.turn()
    assert rig.queue.brought == []
    rig.queue.is_away = False
    await rig.turn(AGAIN + 0.1)
    assert sorted((provider, receipt.message_id) for provider, receipt in rig.queue.brought) == [("p", "x"), ("p", "y"), ("q", "x")]
