"""What is ready for one site: journalled deliveries, handed to sessions at the moment of writing (port Feed).

Metered deliveries that are due go first; unmetered ones fill the rest. Whatever waited too long is withdrawn here, never written:
its append's answer grew old (a worker that slept may be fenced), its permit lapsed, or a cut made it void. A session that asks finds
out, and each tick does: while a relay is down, or all sessions wait for their replies, nobody asks, and an open intent is doubt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from sendengine.engine.work import Delivery
from sendengine.types import Attempt, Envelope, Receipt, Way

if TYPE_CHECKING:
    from sendengine.engine.lane import Lane
    from sendengine.ports import Site

SLOT = 0.005  # deliveries due within it leave together: a session in full swing takes half of the writes
BACKLOG_SECONDS = 0.1  # of what the site lately took: more would grow old before it is written
BACKLOG_MOST = 256
SHORT_AFTER, SHORT_FOR = 1.0, 5.0  # seconds that permits must go on lapsing for want of a session, and that the last one is remembered
AT_ONCE = 0.001  # a session that ended a delivery so long ago was busy until now
RATE_WINDOW = 0.1
LATE = 0.05  # seconds after which what is due shows that sessions do not keep up
LOOKED_THROUGH = 64  # of what is due then: for whose turn it is
UNWANTED_FOR = 1.0  # unmetered deliveries grew old here: no more are prepared for so long, or until a session asks


class Feed:
    """Owner of the ready queues of one site. `finish` and `withdraw` take the delivery back."""

    site: Site

    def __init__(
        self, relay: Way, fresh: float, now: Callable[[], float],
        finish: Callable[[Delivery, Attempt], None], withdraw: Callable[[Delivery], None], hungry: Callable[[Feed], None],
        receipt: Callable[[str, Receipt], None],
    ) -> None:  # fmt: skip
        self.relay = relay
        self._fresh, self._now = fresh, now
        self._finish, self._withdraw, self._hungry, self._receipt = finish, withdraw, hungry, receipt
        self._due: deque[Delivery] = deque()
        self._bulk: deque[Delivery] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.preparing = 0  # picked, not released yet
        self.on_wire = 0
        self._freed_at = 0.0  # when a session ended its last delivery
        self._short_since = self._short_at = float("-inf")  # permits lapsed because every session was busy
        self._taken = 0  # since _window_at
        self._window_at = now()
        self._rate = 0.0  # deliveries per second that sessions took lately
        self._unwanted_until = 0.0
        self.backlog_limit = 2
        self._lanes = 0

    # from the engine

    def join(self) -> None:
        """A lane sends here from now on."""
        self._lanes += 1

    def part(self) -> None:
        self._lanes -= 1
        if not self._lanes:
            self.site.rest()

    @property
    def unusable(self) -> str:
        """Why no session can be had at present; "" while one can, as far as is known."""
        trouble = self.site.trouble
        return "" if trouble is None else str(trouble.attempt.reply or trouble.attempt.detail or trouble.attempt.fault)

    @property
    def bind(self) -> str:
        """What the site alone binds its lanes by (Lane.bind)."""
        why = self.unusable
        return f"site|{self.relay.site} can be used again (it is tried on and on; now: {why})" if why else ""

    def release(self, deliveries: list[Delivery]) -> None:
        """Journalled: metered ones leave at their due time, the others as soon as a session is free."""
        self.preparing -= len(deliveries)
        metered = [delivery for delivery in deliveries if delivery.due]
        if not metered:
            self._bulk.extend(deliveries)
        else:
            self._bulk.extend([delivery for delivery in deliveries if not delivery.due])
            metered.sort(key=_due)
            is_late = bool(self._due) and metered[0].due < self._due[-1].due
            self._due.extend(metered)
            if is_late:
                self._due = deque(sorted(self._due, key=_due))
        self._stir()

    @property
    def room(self) -> int:
        """How many more unmetered deliveries should be prepared now."""
        if self._now() < self._unwanted_until:
            return 0
        return self.backlog_limit - len(self._bulk) - self.preparing

    @property
    def is_full(self) -> bool:
        """Sessions do not keep up with what is due already."""
        return len(self._due) + self.preparing > self.backlog_limit and bool(self._due) and self._due[0].due < self._now() - LATE

    @property
    def is_short(self) -> bool:
        """Permits go on lapsing for want of a session."""
        return self._short_at - self._short_since >= SHORT_AFTER and self._now() - self._short_at < SHORT_FOR

    def _lapsed(self, now: float) -> None:
        """A delivery waited until its permit was over, because every session was busy."""
        if now - self._short_at > SHORT_FOR:
            self._short_since = now
        self._short_at = now

    def measure(self) -> None:
        """Called each tick."""
        now = self._now()
        elapsed = now - self._window_at
        self._withdraw_old(now, elapsed < 2 * RATE_WINDOW)
        if elapsed >= RATE_WINDOW:
            self._rate = max(self._taken / elapsed, self._rate * 0.7)
            self._taken, self._window_at = 0, now
        site = self.site
        self.backlog_limit = min(BACKLOG_MOST, max(2 * site.sessions * site.together + 2, int(self._rate * BACKLOG_SECONDS)))

    def _withdraw_old(self, now: float, is_punctual: bool) -> None:
        """Of what no session asked for. The heads are the oldest: whatever stands behind one is over soon after it. Permits lapsed for
        want of a session if all are busy, unless it was us who stood still."""
        for queue in (self._due, self._bulk):
            while queue and _is_over(queue[0], now, self._fresh):
                delivery = queue.popleft()
                if not delivery.due:
                    self._unwanted_until = now + UNWANTED_FOR
                elif is_punctual and self.site.is_open and not self.site.idle and not delivery.is_void:
                    self._lapsed(now)
                self._withdraw(delivery)

    def flush(self, lane: Lane | None = None) -> None:
        """Withdraw all that was not written, or what is of one lane (it leaves, or we stop)."""
        waiting = [*self._due, *self._bulk]
        self._due.clear()
        self._bulk.clear()
        for delivery in waiting:
            if lane is None or delivery.lane is lane:
                self._withdraw(delivery)
            else:
                (self._due if delivery.due else self._bulk).append(delivery)

    # from the sessions

    def next(self, in_company: bool = False) -> Envelope | None:
        now = self._now()
        due, bulk = self._due, self._bulk
        while True:
            if due and due[0].due <= now:
                queue = due
            elif bulk:
                queue = bulk
            else:
                self._unwanted_until = 0.0
                self._hungry(self)
                return None
            if queue is due and due[0].due < now - LATE:
                self._put_first(now)
            if in_company and queue[0].is_alone:
                return None
            delivery = queue.popleft()
            if _is_over(delivery, now, self._fresh):
                if delivery.due and not delivery.is_void and now - self._freed_at <= AT_ONCE:  # else it was us who came late
                    self._lapsed(now)
                self._withdraw(delivery)
                continue
            self.on_wire += 1
            self._taken += 1
            delivery.lane.served_at = now
            return delivery

    def _put_first(self, now: float) -> None:
        """Sessions do not keep up: of what is due it is the turn of the account that was served longest ago. In the order of their times
        alone, accounts whose permits fall due just after others' would get nothing for hours."""
        place, longest = 0, now
        for at, delivery in enumerate(islice(self._due, LOOKED_THROUGH)):
            if delivery.due > now:
                break
            if delivery.lane.served_at < longest:
                place, longest = at, delivery.lane.served_at
        if place:
            delivery = self._due[place]
            del self._due[place]
            self._due.appendleft(delivery)

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        if TYPE_CHECKING:
            assert isinstance(delivery, Delivery)
        self.on_wire -= 1
        self._freed_at = attempt.ended_at
        self._finish(delivery, attempt)
        if len(self._bulk) + self.preparing < self.backlog_limit // 2:
            self._unwanted_until = 0.0
            self._hungry(self)

    def receipt(self, receipt: Receipt) -> None:
        self._receipt(self.relay.site, receipt)

    # waking

    def _stir(self) -> None:
        """Wake the site for what is due, and again when the next falls due."""
        now = self._now()
        if self._bulk or (self._due and self._due[0].due <= now):
            self.site.wake()
        if not self._due:
            return
        at = max(now + SLOT, self._due[0].due)
        if self._timer is not None and at < self._timer_at - SLOT:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer_at = at
            self._timer = asyncio.get_running_loop().call_later(at - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._stir()


def _due(delivery: Delivery) -> float:
    return delivery.due


def _is_over(delivery: Delivery, now: float, fresh: float) -> bool:
    """It must not be written any more: its permit lapsed, its intent's answer is old, or something later overtook it."""
    return bool(delivery.due and now > delivery.lapses_at) or now - delivery.acked_at > fresh or delivery.is_void
