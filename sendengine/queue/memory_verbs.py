"""A scheduler's verbs in memory: the twins of pause, resume, cancel, reverse, move and replay.lua.

Each answers "done", "same", or the state that forbids it; who calls tells the workers.
"""

from __future__ import annotations

from collections.abc import Callable

from sendengine.queue.memory_settling import drop, mask_of
from sendengine.queue.memory_state import ENDED, OUTCOME_FIELDS, Account, Campaign
from sendengine.records import TRANSACTIONAL
from sendengine.types import SendState

Verb = Callable[[Account, Campaign, float], str]
DONE, SAME = "done", "same"
WAITING = (SendState.SENDING, SendState.SCHEDULED, SendState.SEQUENTIAL)


def pause(account: Account, campaign: Campaign, now: float, why: str = "") -> str:
    if campaign.state == SendState.PAUSED:
        return SAME
    if campaign.id == TRANSACTIONAL or campaign.state not in WAITING:
        return campaign.state
    campaign.fields["before"], campaign.fields["state"] = campaign.state, SendState.PAUSED.value
    campaign.fields.set_times(paused_at=now)
    if why:
        campaign.fields["why"] = why
    account.rest(campaign, now)
    account.sync_run(campaign, now)
    account.advance(now)
    return DONE


def resume(account: Account, campaign: Campaign, now: float) -> str:
    """It takes its place again; one paused before its time waits for it."""
    fields = campaign.fields
    if campaign.state in ENDED:
        return campaign.state
    if campaign.state != SendState.PAUSED:
        return SAME
    before = fields["before"]
    fields.forget("paused_at", "before", "why")
    fields["state"] = SendState.SCHEDULED.value
    fields.set_times(resumed_at=now)
    account.rest(campaign, now)
    if before != SendState.SCHEDULED or fields.number("at") <= now:
        look = account.looks.get(campaign.id)
        account.start(campaign, now)
        if look is not None and fields.get("window"):
            account.looks[campaign.id] = look
    return DONE


def cancel(account: Account, campaign: Campaign, now: float) -> str:
    """All that is READY or in RETRY has its outcome at once; what is leased has it when its worker settles."""
    if campaign.state == SendState.CANCELLED:
        return SAME
    if campaign.state == SendState.FINISHED or campaign.id == TRANSACTIONAL:
        return campaign.state
    campaign.count(_cancelled(campaign, now))
    if campaign.bill is not None:
        leased = [(lease.batch, lease.mask) for lease in account.leases.values() if lease.campaign == campaign.id]
        campaign.bill.refund_rest(leased, now)
    campaign.levels = {level: {} for level in campaign.levels}
    campaign.given_back.clear()
    campaign.aside.clear()
    campaign.kills.clear()
    campaign.fields.forget("quarantined")
    campaign.retries.clear()
    campaign.fingerprints.clear()
    campaign.fields.update(state=SendState.CANCELLED.value, deferred="0")
    campaign.fields.set_times(cancelled_at=now)
    account.looks.pop(campaign.id, None)
    account.sync_run(campaign, now)
    account.leave_line(campaign, now)
    account.finish_if_done(campaign, now)
    return DONE


def _cancelled(campaign: Campaign, now: float) -> dict[str, int]:
    fields = campaign.fields
    rest = fields.number("accepted") - fields.number("leased") - sum(map(fields.number, OUTCOME_FIELDS))
    waiting = [(portion.batch, portion.mask) for portion in (*campaign.given_back, *campaign.aside)]
    waiting += [(batch, mask_of(rows)) for batch, rows in campaign.retries.items()]
    unknown = sum(drop(campaign, batch, mask, now)["unknown"] for batch, mask in waiting)
    return {"cancelled": rest - unknown, "unknown": unknown}


def reverse(account: Account, campaign: Campaign, now: float) -> str:
    """The order of what is not taken yet. An unsealed campaign waits for its seal while it is reversed."""
    if campaign.id == TRANSACTIONAL or campaign.state in ENDED:
        return campaign.state
    campaign.fields["reversed"] = "0" if campaign.fields.get("reversed") == "1" else "1"
    account.sync_run(campaign, now)
    return DONE


def move(account: Account, campaign: Campaign, direction: str) -> str:
    """One place in the line; one that sends keeps its own, nobody passes it."""
    line = account.line
    if campaign.state == SendState.SENDING or campaign.id not in line:
        return campaign.state
    here = line.index(campaign.id)
    there = here - 1 if direction == "up" else here + 1
    if 0 <= there < len(line) and account.campaigns[line[there]].state != SendState.SENDING:
        line[here], line[there] = line[there], campaign.id
        return DONE
    return SAME


def replay(campaign: Campaign) -> str:
    """What was set aside is READY again, its batches without a count of kills."""
    if campaign.state in ENDED:
        return campaign.state
    for portion in campaign.aside:
        campaign.kills.pop(portion.batch, None)
    campaign.given_back.extend(campaign.aside)
    campaign.aside.clear()
    campaign.fields.forget("quarantined")
    return DONE
