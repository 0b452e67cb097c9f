"""A lease that was taken becomes rows that are ready to be picked: its batch unpacked, its values encoded by columns, once.

A recipient that cannot be rendered has its outcome here; a batch that this release cannot read is left for others, one that nobody can read
is refused whole, and one that workers died of is opened only after the journal says so (docs/design/010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from sendengine.batch import Batch, CorruptPayload, UnknownVersion, unpack
from sendengine.engine.campaigns import Campaign, Campaigns
from sendengine.engine.delivery import UNRENDERABLE, Deliveries
from sendengine.engine.journal import Journal
from sendengine.engine.lane import Lane
from sendengine.engine.screening import Screening
from sendengine.engine.takeover import give_back
from sendengine.engine.turnstile import Turnstile
from sendengine.engine.work import Lease, Share
from sendengine.errors import SendEngineError, Unavailable
from sendengine.ports import Leased, Queue
from sendengine.records import PAST, SENDER, TRANSACTIONAL, rows_of
from sendengine.render.renderer import Renderer
from sendengine.render.sms import SmsText
from sendengine.render.values import RenderFailure
from sendengine.types import Outcome

log = structlog.get_logger("sendengine.batches")


class Batches:
    """Owner of the compiled campaigns and of the leases' numbers."""

    def __init__(
        self, queue: Queue, journal: Journal, deliveries: Deliveries, screening: Screening, now: Callable[[], float],
        is_shared: Callable[[], bool], is_over: Callable[[Lane], bool],
    ) -> None:  # fmt: skip
        self._queue, self._journal, self._deliveries, self._now = queue, journal, deliveries, now
        self._screening = screening
        self._turnstile = Turnstile(now, is_shared)
        self._is_over = is_over
        self._campaigns = Campaigns(queue)
        self._numbers = 0

    async def open(self, lane: Lane, leased: Leased) -> None:
        """A lease with its rows rendered as far as they can be without their turn."""
        share = lane.shares.get(leased.campaign)
        if share is None:
            campaign = await self._campaign(lane, leased.campaign)
            if campaign is None:
                lane.ignored.add(leased.campaign)
                await self._queue.visit(lane.account, 0, 0.0, "=", [], [give_back(leased.token)])
                return
            share = lane.shares[campaign.id] = Share(lane, campaign)
        rows = rows_of(leased.mask)
        self._numbers += 1
        lease = Lease(self._numbers, leased.token, share, leased.batch, rows[::-1], self._now(), leased.idle_us)
        lease.past = {row: (tries, first) for row, tries, first in PAST.iter_unpack(leased.past)}
        if leased.kills:  # if it ends this worker too, the journal tells that it was this one (docs/design/010)
            await self._journal.note_opening(lease, lane.account)
        await self._prepare(lane, lease, leased, rows)
        self._journal.note(lease, lane.account)

    async def _campaign(self, lane: Lane, campaign: str) -> Campaign | None:
        """None when it is gone, or not to be read by this release: left for others."""
        try:
            return await self._campaigns.get(lane.account, campaign)
        except Unavailable:
            raise
        except SendEngineError as error:
            log.error("campaign_unreadable", account=lane.account, campaign=campaign, reason=str(error))
            return None

    async def _prepare(self, lane: Lane, lease: Lease, leased: Leased, rows: list[int]) -> None:
        """Its batch, unpacked and encoded by columns, as far as that can be done; what cannot be rendered has its outcome."""
        campaign = lease.campaign
        try:
            batch = unpack(leased.stored)
        except UnknownVersion:  # for a newer worker: untouched
            lane.ignored.add(campaign.id)
            self._return(lane, lease)
            return
        except CorruptPayload as error:
            self._refuse_all(lane, lease, rows, str(error))
            return
        names, columns = _cells(batch, rows)
        await self._screening.look_up(lane, lease, rows, names)
        if lease.barred:
            rows = [row for row in rows if row not in lease.barred]
            names, columns = _cells(batch, rows)
        try:
            lease.renderer = campaign.renderer(lane.feed.site.eightbit, leased.message, leased.batch)
            if not self._deliveries.can_sign(lane, campaign, lease.renderer.from_domain):
                if campaign.id == TRANSACTIONAL:  # there is no pausing it: left alone for a while
                    lane.ignored.add(campaign.id)
                self._return(lane, lease)
                return
            prepared = await self._rendered(lane, lease.renderer, batch.fields, columns, names)
            if leased.message and SENDER in batch.fields:
                lease.sender = campaign.sender_of(str(batch.columns[batch.fields.index(SENDER)][0]))
        except SendEngineError as error:
            self._refuse_all(lane, lease, rows, str(error))
            return
        if prepared is None:
            self._return(lane, lease)
        else:
            self._add(lane, lease, rows, names, prepared)

    async def _rendered(
        self, lane: Lane, renderer: Renderer | SmsText, fields: Sequence[str], columns: Sequence[Sequence[object]], names: Sequence[str]
    ) -> list[tuple[bytes, ...] | RenderFailure] | None:
        """At once, or in slices where there is logic. None when the rows cannot be sent from here any more: we leave, or a cut came while
        the lane did not hold them, so that no visit told whether their campaign was stopped."""
        if not renderer.has_logic:
            return renderer.prepare(fields, columns, names)
        prepared: list[tuple[bytes, ...] | RenderFailure] = []
        cut = lane.cut

        def step() -> bool:
            if self._is_over(lane) or lane.cut != cut:
                return False
            at = len(prepared)
            prepared.extend(renderer.prepare(fields, columns, names, range(at, at + 1)))
            return len(prepared) < len(names)

        while await self._turnstile.slice(step):
            pass
        return prepared if len(prepared) == len(names) else None

    def _add(
        self, lane: Lane, lease: Lease, rows: list[int], names: list[str], prepared: list[tuple[bytes, ...] | RenderFailure]
    ) -> None:  # fmt: skip
        lease.recipients = dict(zip(rows, [name.encode() for name in names], strict=True))
        lease.values = {row: values for row, values in zip(rows, prepared, strict=True) if not isinstance(values, RenderFailure)}
        refused = {row: values.reason for row, values in zip(rows, prepared, strict=True) if isinstance(values, RenderFailure)}
        for row in refused:
            del lease.recipients[row]
        lease.pending = [row for row in lease.pending if row not in refused]
        lane.add(lease)
        if lease.barred:
            self._screening.settle_barred(lane, lease)
        self._screening.look(lane)  # the list may have changed since it was asked
        for row, reason in refused.items():
            self._deliveries.decide(lane, lease, row, Outcome.BOUNCED, UNRENDERABLE, reason)

    def _return(self, lane: Lane, lease: Lease) -> None:
        lane.add(lease)
        lane.give_back(lease)

    def _refuse_all(self, lane: Lane, lease: Lease, rows: list[int], reason: str) -> None:
        log.error("batch_unreadable", account=lane.account, campaign=lease.campaign.id, batch=lease.batch, reason=reason)
        lease.pending = []
        lane.add(lease)
        for row in rows:
            self._deliveries.decide(lane, lease, row, Outcome.BOUNCED, UNRENDERABLE, reason)


def _cells(batch: Batch, rows: list[int]) -> tuple[list[str], list[list[Any]]]:
    """The addresses and columns of these of its rows: nearly always of all that it has."""
    if rows == batch.positions:
        return batch.recipients, batch.columns
    places = {position: at for at, position in enumerate(batch.positions)}
    wanted = [places[row] for row in rows]
    return [batch.recipients[at] for at in wanted], [[column[at] for at in wanted] for column in batch.columns]
