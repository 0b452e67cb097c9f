"""Repair in memory, the twin of lua/restore.lua: rows stand in one place each, counts say the same, and who may send is in the run set."""

from __future__ import annotations

from collections.abc import Mapping

from sendengine.ports import Repair
from sendengine.queue.memory_settling import mask_of
from sendengine.queue.memory_state import Account, Campaign, Portion
from sendengine.records import TRANSACTIONAL
from sendengine.types import SendState


def restore(account: Account, campaign: Campaign, repair: Repair, now: float) -> int:
    """Rows put back. Single messages are always `sending`."""
    if campaign.id == TRANSACTIONAL:
        campaign.fields["state"] = SendState.SENDING.value
    mending = _Mending(account, campaign, repair)
    mending.leases()
    mending.portions()
    mending.retries()
    campaign.fields.update({name: str(n) for name, n in repair.counts.items()})
    mending.count()
    if campaign.state == SendState.CANCELLED:
        return 0
    mending.levels()
    back = mending.put_back()
    if back and campaign.state == SendState.FINISHED:
        campaign.fields["state"] = SendState.SENDING.value
        campaign.fields.forget("finished", "over", "through")
    account.mend_line(campaign, now)
    account.sync_run(campaign, now)
    account.finish_if_done(campaign, now)
    return back


class _Mending:
    """One repair at work: `held` gathers where rows stand afterwards."""

    def __init__(self, account: Account, campaign: Campaign, repair: Repair) -> None:
        self._account, self._campaign = account, campaign
        self._ended, self._twice, self._wanted = map(_masks, (repair.ended, repair.twice, repair.wanted))
        self._held: dict[int, int] = {}

    def _hold(self, batch: int, mask: int) -> None:
        self._held[batch] = self._held.get(batch, 0) | mask

    def _waits(self, batch: int, mask: int) -> int:
        return mask & ~self._ended.get(batch, 0) & ~self._twice.get(batch, 0)

    def leases(self) -> None:
        for token, lease in list(self._account.leases.items()):
            if lease.campaign == self._campaign.id:
                _narrow(lease, lease.mask & ~self._ended.get(lease.batch, 0))
                self._hold(lease.batch, lease.mask)
                if not lease.mask:
                    del self._account.leases[token]

    def portions(self) -> None:
        for place in (self._campaign.given_back, self._campaign.aside):
            for portion in place:
                _narrow(portion, self._waits(portion.batch, portion.mask))
                self._hold(portion.batch, portion.mask)
            kept = [portion for portion in place if portion.mask]
            place.clear()
            place.extend(kept)

    def retries(self) -> None:
        for batch, rows in list(self._campaign.retries.items()):
            for row in [row for row in rows if not self._waits(batch, 1 << row)]:
                del rows[row]
            self._hold(batch, mask_of(rows))
            if not rows:
                del self._campaign.retries[batch]

    def count(self) -> None:
        mine = [lease.mask.bit_count() for lease in self._account.leases.values() if lease.campaign == self._campaign.id]
        fields = self._campaign.fields
        fields["leased"] = str(sum(mine))
        fields["deferred"] = str(sum(map(len, self._campaign.retries.values())))
        fields["quarantined"] = str(sum(portion.mask.bit_count() for portion in self._campaign.aside))

    def levels(self) -> None:
        """What is left of a waiting entry that had to be touched goes on as given back: an entry cannot be written anew."""
        for level, waiting in self._campaign.levels.items():
            for batch in [batch for batch in waiting if batch in self._wanted]:
                rest = self._waits(batch, waiting[batch])
                if rest != waiting[batch]:
                    del waiting[batch]
                    self._give_back(batch, level, rest)
                self._hold(batch, rest)

    def put_back(self) -> int:
        back = 0
        for batch, mask in self._wanted.items():
            rest = mask & ~self._held.get(batch, 0)
            self._give_back(batch, 0, rest)
            back += rest.bit_count()
        return back

    def _give_back(self, batch: int, level: int, mask: int) -> None:
        if mask:
            self._campaign.given_back.append(Portion(batch, level, mask, {}))


def _masks(masks: Mapping[int, bytes]) -> dict[int, int]:
    return {batch: int.from_bytes(mask, "little") for batch, mask in masks.items()}


def _narrow(portion: Portion, mask: int) -> None:
    portion.mask = mask
    portion.past = {row: history for row, history in portion.past.items() if mask >> row & 1}
