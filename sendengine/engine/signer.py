"""Messages that are signed are made beside the picking: a signature takes a quarter of a millisecond, and a tick may pick hundreds.

They are made in the loop, first come first served, for a millisecond at a time; between two such slices it reads replies, writes, and
serves whoever's permit is due. A thread of its own would have a second core to itself, but what each message then costs in turns for the
interpreter's lock is a quarter of an RSA signature and twice an Ed25519 one (docs/design/015-dkim.md): further processes are how more is
signed in a second. A message is made while its intent's append is on its way, and leaves when both are done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sendengine.engine.work import Delivery

SLICE = 0.001  # seconds after which no further message is begun
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
        self, now: Callable[[], float], released: Callable[[list[Delivery]], None], freed: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._now = now
        self._released, self._freed, self._fail = released, freed, fail
        self._waiting: deque[Delivery] = deque()
        self._since = 0.0  # since when there is something to do: the end of the last slice, or when the first one came
        self._each = 0.0  # seconds that a message took lately, with what the loop did meanwhile
        self._is_closed = False

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def is_full(self, is_metered: bool) -> bool:
        share = 1.0 if is_metered else UNMETERED
        return self.pending >= PENDING_MOST * share or self.pending * self._each >= WAIT_MOST * share

    def add(self, delivery: Delivery, make: Make) -> None:
        delivery.making = make
        self._waiting.append(delivery)
        if len(self._waiting) == 1:
            self._since = self._now()
            self._go_on()

    def close(self) -> None:
        """What waits is not made any more, and waits on."""
        self._is_closed = True

    def _go_on(self) -> None:
        asyncio.get_running_loop().call_soon(self._slice)

    def _slice(self) -> None:
        if self._is_closed:
            return
        made: list[Delivery] = []
        until = self._now() + SLICE
        while self._waiting and (not made or self._now() < until):  # a slice is only asked for while something waits
            delivery = self._waiting[0]
            assert delivery.making is not None
            try:
                delivery.wire = delivery.making()
            except Exception as error:  # never an unsigned message: the worker ends, others take over
                self._fail(error)
                return
            delivery.making = None
            made.append(self._waiting.popleft())
        now = self._now()
        self._each += ((now - self._since) / len(made) - self._each) / 4
        self._since = now
        if self._waiting:
            self._go_on()
        if acked := [delivery for delivery in made if delivery.acked_at]:
            self._released(acked)
        self._freed()
