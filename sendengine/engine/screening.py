"""Who gets nothing any more is not sent to: asked when a batch is opened, and again of what is held when the account's list has changed.

Nothing is asked while an account has no list, and never of what is held but for those who came onto it since: a lease knows under which
number of changes it was screened (`screened`), the lane which number stands (`listed`). While the two differ nothing of the lane is picked.
What had been picked before is on its way within a tick and its lead (docs/design/017).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence

from sendengine.engine.delivery import Deliveries
from sendengine.engine.lane import Lane
from sendengine.engine.work import Lease
from sendengine.errors import Unavailable
from sendengine.policy.suppression import Reason, bars, reason_of
from sendengine.ports import Queue
from sendengine.records import TRANSACTIONAL

AT_ONCE = 1000  # addresses in a question


class Screening:
    """Owner of nothing: lanes and leases hold what is known."""

    def __init__(self, queue: Queue, deliveries: Deliveries, spawn: Callable[[Coroutine[object, object, None]], None]) -> None:
        self._queue, self._deliveries, self._spawn = queue, deliveries, spawn

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
        if lane.must_screen and not lane.is_screening:
            lane.is_screening = True
            self._spawn(self._screen(lane))

    async def _screen(self, lane: Lane) -> None:
        """Until everything held was screened under the present number. When Redis does not answer the next visit begins it again."""
        try:
            while old := [lease for lease in lane.iter_leases() if lease.screened != lane.listed]:
                await self._screen_once(lane, old, lane.listed)
            lane.must_screen = False
        except Unavailable:
            pass
        finally:
            lane.is_screening = False

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
