"""Messages that are signed are made beside the loop: a signature takes a quarter of a millisecond, and a tick may pick hundreds.

One thread, first come first served, so that nothing is reordered. It has the interpreter only between the signatures (`cryptography` lets
go of it in them): the loop goes on meanwhile, on the other core. A message is made while its intent's append is on its way, and leaves
when both are done. Further processes, not further threads, are how more is signed in a second (docs/design/015-dkim.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from sendengine.engine.work import Delivery

CHUNK = 16  # messages at most that are handed over together; a handing over costs some 20 µs
ENOUGH = 2  # chunks: one that is being made, and the next
# What waits longer than an append's answer is fresh is signed in vain. So no more waits than is signed in this time at the pace of the last
# ones: on a busy machine a signature takes ten times as long as on an idle one.
WAIT_MOST = 0.100
PENDING_MOST = 256  # at any speed: the octets that may wait here
UNMETERED = 0.5  # of both: the rest is for what has a time, which would lapse behind others' unmetered sends

Make = Callable[[], bytes]


class Signer:
    """Owner of the deliveries whose octets are not made yet. `released` hears of those that are, and whose append was answered; `freed`
    that there is room."""

    def __init__(
        self, executor: Executor, now: Callable[[], float], released: Callable[[list[Delivery]], None], freed: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._executor, self._now = executor, now
        self._released, self._freed, self._fail = released, freed, fail
        self._next: list[Delivery] = []
        self._under_way = 0  # chunks
        self._made_at = 0.0
        self._each = 0.0  # seconds that a message took lately
        self.pending = 0

    def is_full(self, is_metered: bool) -> bool:
        share = 1.0 if is_metered else UNMETERED
        return self.pending >= PENDING_MOST * share or self.pending * self._each >= WAIT_MOST * share

    def add(self, delivery: Delivery, make: Make) -> None:
        """`make` is called in the thread."""
        delivery.making = make
        self.pending += 1
        self._next.append(delivery)
        if len(self._next) == CHUNK or len(self._next) * self._each >= WAIT_MOST / 8:
            self._hand_over()

    def begin(self) -> None:
        """Called when no more comes at present: a thread with enough to do gets more together later."""
        if self._next and self._under_way < ENOUGH:
            self._hand_over()

    def _hand_over(self) -> None:
        chunk, self._next = self._next, []
        self._under_way += 1
        makes = [delivery.making for delivery in chunk if delivery.making is not None]
        made = asyncio.get_running_loop().run_in_executor(self._executor, _make, makes)
        made.add_done_callback(partial(self._made, chunk, self._now()))

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _made(self, chunk: list[Delivery], begun_at: float, made: asyncio.Future[list[bytes]]) -> None:
        self.pending -= len(chunk)
        self._under_way -= 1
        now = self._now()
        self._each += ((now - max(begun_at, self._made_at)) / len(chunk) - self._each) / 4
        self._made_at = now
        if made.cancelled():
            return
        if (error := made.exception()) is not None:  # never an unsigned message: the worker ends, others take over
            self._fail(error)
            return
        for delivery, wire in zip(chunk, made.result(), strict=True):
            delivery.wire, delivery.making = wire, None
        if acked := [delivery for delivery in chunk if delivery.acked_at]:
            self._released(acked)
        self.begin()
        self._freed()


def _make(makes: list[Make]) -> list[bytes]:
    return [make() for make in makes]
