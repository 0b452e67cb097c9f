"""The answer of `why`: of which send it speaks, what binds that, and, where nothing does, what it waits for."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sendengine.lanes import owner
from sendengine.policy.times import format_time
from sendengine.ports import Desk
from sendengine.records import TRANSACTIONAL
from sendengine.scheduler.awaited import Awaited, awaited
from sendengine.scheduler.binding import Binding, account_binding, binding, binding_send
from sendengine.scheduler.names import Ref
from sendengine.scheduler.view import ENDED, View, look, moment, number, pending, wall


class Why(msgspec.Struct, frozen=True, kw_only=True):
    campaign: str | None  # the send that it speaks of, in full; None where an account has nothing to send
    others: int  # sends of the account that go on beside it
    binding: Binding | None
    next_retry: datetime | None  # of a send that nothing binds
    idle: str | None  # why nothing binds, in words
    billing_waits: Awaited | None  # events from billing that cannot be applied yet


async def of_account(desk: Desk, account: str) -> Why:
    """Of the send that runs and is bound, else of the oldest one that goes on."""
    view = await look(desk, account)
    campaign = binding_send(view) or next(iter(view.going_on), None)
    if campaign is None:
        idle, waits = "the account has nothing to send", await awaited(desk, owner(account), view.home)
        return Why(campaign=None, others=0, binding=account_binding(view), next_retry=None, idle=idle, billing_waits=waits)
    return await _of(desk, view, campaign)


async def of_send(desk: Desk, ref: Ref) -> Why:
    return await _of(desk, await look(desk, ref.account, ref.id), ref.id)


async def _of(desk: Desk, view: View, campaign: str) -> Why:
    bound = binding(view, campaign)
    next_us = None if bound or view.sends[campaign]["state"] in ENDED else await desk.next_retry(view.account, campaign)
    retry = None if next_us is None else wall(next_us / 1e6)
    others = len(view.going_on.keys() - {campaign})
    idle = None if bound else _idle(view, campaign, retry)
    waits = await awaited(desk, owner(view.account), view.home)
    name = str(Ref(view.account, campaign))
    return Why(campaign=name, others=others, binding=bound, next_retry=retry, idle=idle, billing_waits=waits)


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
