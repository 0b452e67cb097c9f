"""Who gets nothing any more is not sent to: asked when a batch is opened, and again of what is held when the account's list has changed.

Nothing is asked while an account has no list, and never of what is held but for those who came onto it since: a lease knows under which
number of changes it was screened (`screened`), the lane which number stands (`listed`). While the two differ nothing of the lane is picked,
and what was picked waits. What an earlier append had released goes, within 200 ms of that (docs/design/017).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence

from sendengine.engine.delivery import Deliveries
from sendengine.engine.lane import Lane
from sendengine.engine.work import Delivery, Lease
from sendengine.errors import Unavailable
from sendengine.policy.suppression import Reason, bars, reason_of
from sendengine.ports import Queue
from sendengine.records import TRANSACTIONAL

AT_ONCE = 1000  # addresses in a question
AGAIN = 0.25  # Redis did not answer


class Screening:
    """Owner of the deliveries that wait for their lane's look (`parked`); lanes and leases hold what is known."""

    def __init__(
        self, queue: Queue, deliveries: Deliveries, release: Callable[[list[Delivery]], None],
        spawn: Callable[[Coroutine[object, object, None]], None],
    ) -> None:  # fmt: skip
        self._queue, self._deliveries, self._release, self._spawn = queue, deliveries, release, spawn
        self.parked: dict[Lane, list[Delivery]] = {}

    async def look_up(self, lane: Lane, lease: Lease, rows: Sequence[int], names: Sequence[str]) -> None:
        """What the list says of a batch that is being opened: `barred` and `soft` of the lease. Raises Unavailable."""
        lease.screened = lane.listed
        if lane.listed < 0 or not names:
            return
        found = await self._queue.standings(lane.account, [name.encode() for name in names])
        for at, entry in found.barred.items():
            _bar(lease, rows[at], reason_of(entry))
        if found.soft:
            lease.soft = frozenset(rows[at] for at in found.soft)

    def settle_barred(self, lane: Lane, lease: Lease) -> None:
        """Those of its rows that wait here and are barred end as suppressed."""
        rows = [row for row in lease.pending if row in lease.barred]
        lane.withhold(lease, rows)
        for row in rows:
            self._deliveries.suppress(lane, lease, row)

    def learn(self, lane: Lane, listed: int) -> None:
        """The list stands at this number: what is held and was screened under another one is looked at before any of it is picked."""
        lane.listed = listed
        self.look(lane)

    def look(self, lane: Lane) -> None:
        if not lane.must_screen and any(lease.screened != lane.listed for lease in lane.iter_leases()):
            lane.must_screen = True
            self.parked[lane] = []
            self._spawn(self._screen(lane))

    def park(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that may go; the others wait until their lane was looked at: journalled by an append whose answer brought the news of a
        change, they may have been picked long after it, by a worker that stood still."""
        free: list[Delivery] = []
        for delivery in deliveries:
            waiting = self.parked.get(delivery.lane)
            (free if waiting is None else waiting).append(delivery)
        return free

    async def _screen(self, lane: Lane) -> None:
        """Until everything held was screened under the present number, however long Redis is away."""
        while old := [lease for lease in lane.iter_leases() if lease.screened != lane.listed]:
            is_away = False
            try:
                await self._screen_once(lane, old, lane.listed)
            except Unavailable:
                is_away = True
            if is_away:
                await asyncio.sleep(AGAIN)
        lane.must_screen = False
        self._release(self.parked.pop(lane))  # the barred ones are void: withdrawn, they end as suppressed when they are picked again

    async def _screen_once(self, lane: Lane, leases: Sequence[Lease], listed: int) -> None:
        late = await self._queue.late(lane.account, max(0, min(lease.screened for lease in leases)))
        wanted = None if late.addresses is None else frozenset(late.addresses)
        held = [place for lease in leases for place in _places(lease, wanted)]
        for at in range(0, len(held), AT_ONCE):
            part = held[at : at + AT_ONCE]
            found = await self._queue.standings(lane.account, [address for _, _, address in part])
            for place, entry in found.barred.items():
                lease, row, _ = part[place]
                _bar(lease, row, reason_of(entry))
        for lease in leases:
            lease.screened = listed
            if lease.barred:
                self.settle_barred(lane, lease)


def _places(lease: Lease, wanted: frozenset[bytes] | None) -> Iterable[tuple[Lease, int, bytes]]:
    """Rows of a lease that are among the wanted (None: all), those on their way too: they may come back."""
    if wanted is not None and wanted.isdisjoint(lease.recipients.values()):
        return ()
    return [(lease, row, address) for row, address in lease.recipients.items() if wanted is None or address in wanted]


def _bar(lease: Lease, row: int, reason: Reason) -> None:
    if bars(reason, lease.campaign.id == TRANSACTIONAL):
        lease.barred = {**lease.barred, row: reason}
