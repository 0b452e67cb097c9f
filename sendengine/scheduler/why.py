"""The answer of `why`: of which send it speaks, what binds that, and, where nothing does, what it waits for."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sendengine.lanes import MAIL, channel, others, owner
from sendengine.policy.times import format_time
from sendengine.ports import Desk
from sendengine.records import TRANSACTIONAL
from sendengine.remedies import Tongue
from sendengine.scheduler.awaited import Awaited, awaited
from sendengine.scheduler.binding import Binding, account_binding, binding, binding_send, go_on, gravest
from sendengine.scheduler.names import Ref
from sendengine.scheduler.view import ENDED, View, look, moment, number, pending, wall


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """`beside`: the same of an account's other channel, where that has something to send and something else binds it."""

    channel: str  # email or sms
    campaign: str | None  # the send that it speaks of, in full; None where an account has nothing to send
    others: int  # sends of the account that do go on beside it: not those that wait, whatever for
    binding: Binding | None
    next_retry: datetime | None  # of a send that nothing binds
    idle: str | None  # why nothing binds, in words
    billing_waits: Awaited | None = None  # events from billing that cannot be applied yet
    beside: list[Why] = []


async def of_account(desk: Desk, account: str, tongue: Tongue = Tongue.COMMANDS) -> Why:
    """Of a lane its send that runs and is bound, else the oldest one that goes on. Of an account the lane that is stuck comes first."""
    lanes = await lanes_of(desk, account, tongue)
    first, *others = [await _of_lane(desk, view) for view in gravest(lanes)]
    beside = [each for each in others if each.campaign and each.binding != first.binding]
    if first.campaign is None and beside:  # what goes on says more than what has nothing to send
        first, beside = beside[0], []
    waits = await awaited(desk, owner(account), lanes[0].home)
    return msgspec.structs.replace(first, billing_waits=waits, beside=beside)


async def lanes_of(desk: Desk, account: str, tongue: Tongue = Tongue.COMMANDS) -> list[View]:
    """An account's e-mail first, then its SMS, where it has any; a lane alone."""
    more = others(account) if account == owner(account) else []
    names = [account, *[lane for lane in more if await desk.account(lane)]]
    return [await look(desk, each, tongue=tongue) for each in names]


async def _of_lane(desk: Desk, view: View) -> Why:
    campaign = binding_send(view) or next(iter(view.going_on), None)
    if campaign is not None:
        return await _of(desk, view, campaign)
    bound = account_binding(view)
    return Why(channel=_channel(view), campaign=None, others=0, binding=bound, next_retry=None, idle="the account has nothing to send")


def _channel(view: View) -> str:
    return channel(view.account) or MAIL


async def of_send(desk: Desk, ref: Ref, tongue: Tongue = Tongue.COMMANDS) -> Why:
    view = await look(desk, ref.account, ref.id, tongue=tongue)
    found = await _of(desk, view, ref.id)
    return msgspec.structs.replace(found, billing_waits=await awaited(desk, owner(ref.account), view.home))


async def _of(desk: Desk, view: View, campaign: str) -> Why:
    bound = binding(view, campaign)
    next_us = None if bound or view.sends[campaign]["state"] in ENDED else await desk.next_retry(view.account, campaign)
    retry = None if next_us is None else wall(next_us / 1e6)
    beside = len(go_on(view) - {campaign})
    idle = None if bound else _idle(view, campaign, retry)
    name = str(Ref(view.account, campaign))
    return Why(channel=_channel(view), campaign=name, others=beside, binding=bound, next_retry=retry, idle=idle)


def _idle(view: View, campaign: str, retry: datetime | None) -> str:
    send = view.sends[campaign]
    if send["state"] in ENDED:
        ended = moment(send, "finished")
        return f"it has ended: {send['state']}" + (f" at {format_time(ended.timestamp())}" if ended else "")
    if campaign == TRANSACTIONAL and not pending(send):
        return "no single message waits"
    if retry is None:
        return "nothing binds: its last messages are on their way"
    return f"nothing binds: {number(send, 'deferred'):,} wait for a retry, the next one at {format_time(retry.timestamp())}"
