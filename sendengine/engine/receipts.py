"""Receipts: what providers of SMS say later of messages that they took, brought to the recipients they are of.

A message's id stands in Redis from soon after its acceptance on, so that whichever worker hears of it knows whose it is. A receipt may come
before that, or by another worker's bind: one that names nothing known is asked about again for a while. It changes no outcome and no money.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine

import structlog

from sendengine.engine.work import Delivery
from sendengine.errors import Unavailable
from sendengine.policy.receipts import result
from sendengine.ports import Meter, Queue
from sendengine.records import pack_ref
from sendengine.types import Receipt

log = structlog.get_logger("sendengine.receipts")

EVERY = 0.1
AGAIN = 2.0
KNOWN_AFTER = 60.0  # what names no message for so long is none of ours
MOST = 20_000  # receipts kept while Redis is away; a provider repeats none of them
TOGETHER = 500


class Receipts:
    """Owner of the ids that are not written yet, and of the receipts that are not brought yet."""

    def __init__(
        self, queue: Queue, meter: Meter, now: Callable[[], float], spawn: Callable[[Coroutine[object, object, None]], None]
    ) -> None:
        self._queue, self._meter, self._now, self._spawn = queue, meter, now, spawn
        self._ids: dict[str, dict[str, bytes]] = {}  # by provider
        self._came: deque[tuple[float, float, str, Receipt]] = deque()  # due, came at, provider; soonest first but for a moment
        self._is_writing = False
        self._turned_at = 0.0
        self.dropped = 0

    def expect(self, delivery: Delivery, message_ids: tuple[str, ...]) -> None:
        lane, lease = delivery.lane, delivery.lease
        ref = pack_ref(lane.account, lease.campaign.id, lease.batch, delivery.row)
        ids = self._ids.setdefault(lane.relay.site, {})
        for message_id in message_ids:
            if message_id:
                ids[message_id] = ref

    def arrive(self, provider: str, receipt: Receipt) -> None:
        now = self._now()
        if len(self._came) >= MOST:
            self._drop(*self._came.popleft()[2:])
        self._came.append((now, now, provider, receipt))

    def turn(self, now: float) -> None:
        """Called each tick."""
        if now - self._turned_at >= EVERY and (self._ids or self._came):
            self._turned_at = now
            self.flush()

    def flush(self) -> None:
        if not self._is_writing and (self._ids or self._came):
            self._is_writing = True
            self._spawn(self._write())

    async def _write(self) -> None:
        """Ids first: a receipt that has come already may be of one of them."""
        try:
            while self._ids:
                provider, ids = self._ids.popitem()
                try:
                    await self._queue.expect(provider, ids)
                except Unavailable:
                    self._ids[provider] = ids | self._ids.get(provider, {})
                    raise
            await self._bring(self._now())
        finally:
            self._is_writing = False

    async def _bring(self, now: float) -> None:
        due: dict[str, list[tuple[float, Receipt]]] = {}
        for _ in range(min(len(self._came), TOGETHER)):
            at, came, provider, receipt = self._came.popleft()
            if at > now:
                self._came.append((at, came, provider, receipt))
            else:
                due.setdefault(provider, []).append((came, receipt))
        try:
            while due:
                provider, some = next(iter(due.items()))
                unknown = await self._queue.receive(provider, [receipt for _, receipt in some])
                del due[provider]
                self._count(provider, [receipt for _, receipt in some], unknown)
                self._ask_again(provider, some, unknown, now)
        finally:  # Redis is away: what it did not take is brought again
            self._came.extend((now + AGAIN, came, provider, receipt) for provider, some in due.items() for came, receipt in some)

    def _ask_again(self, provider: str, some: list[tuple[float, Receipt]], unknown: list[Receipt], now: float) -> None:
        """Of those that named nothing: their ids may be on their way still."""
        again = {id(receipt) for receipt in unknown}
        for came, receipt in some:
            if id(receipt) in again and now - came < KNOWN_AFTER:
                self._came.append((now + AGAIN, came, provider, receipt))
            elif id(receipt) in again:
                self._drop(provider, receipt)

    def _count(self, provider: str, receipts: list[Receipt], unknown: list[Receipt]) -> None:
        left = {id(receipt) for receipt in unknown}
        for receipt in receipts:
            if id(receipt) not in left:
                self._meter.receipt(provider, result(receipt))

    def _drop(self, provider: str, receipt: Receipt) -> None:
        self.dropped += 1
        self._meter.receipt(provider, "unknown")
        log.info("receipt_of_nothing", message_id=receipt.message_id, state=receipt.state)
