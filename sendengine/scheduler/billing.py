"""Events from billing: what the platform has sold, one signed event at a time. `apply_event` is what webhook and command line call.

Once or often, in their order or not, they come to the same: each has an id and a sequence, one script decides whether it is its turn and
writes all that it changes with its audit line, and one that is ahead waits for those before it. What is sold here is the tables' matter
(policy/entitlements.py); an event that names a tier or an edition of none is refused and not counted, so that it can come again when there
is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog

from sendengine.errors import Conflict, NotFound, RefusedInput, Unavailable
from sendengine.policy.billing import AnyEvent, PaymentReceived, decode, digest, encode, verify
from sendengine.policy.entitlements import Change, Offer, both, change_of, entitlements_of
from sendengine.ports import Booked, Booking, Desk
from sendengine.scheduler import audit

log = structlog.get_logger("sendengine.billing")

TIMES = 20  # that a change is begun anew because another one was faster
PAID = b"paid"  # kept of an order whose payment came first
Grant = Callable[[str, str, int, str, str], Awaitable[object]]  # account, key, credits, who, why: the same key again grants nothing


class Applied(msgspec.Struct, frozen=True):
    """What became of an event. `status`: applied; repeated (it had come before, nothing was changed); waits (for those before it:
    `expected` is the next sequence); unpaid (an order: nothing is changed until its payment); refused (genuine, and too late: `why`).
    `then`: those that had waited for it, and came to their turn with it."""

    event: str
    account: str
    type: str
    sequence: int
    status: str
    expected: int
    why: str = ""
    then: list[Applied] = []


class _Decision(msgspec.Struct, frozen=True):
    status: str
    change: Change = Change()
    order: str = ""
    kept: bytes = b""


async def apply_event(
    desk: Desk, raw: bytes, headers: Mapping[str, str], secrets: Sequence[bytes], now: float, offer: Offer, grant: Grant | None = None
) -> Applied:
    """`now` in UNIX seconds; `grant` puts credits into the ledger. Raises Forged, RefusedInput, NotFound (account, tier, edition), Conflict
    (another event has its id or its sequence; the account is being purged): nothing was changed; and Unavailable: it may come again."""
    verify(raw, headers, secrets, now)
    event = decode(raw)
    applied = await _take(desk, event, offer, grant)
    then = await _take_those_that_waited(desk, event.account, applied.expected, offer, grant)
    return msgspec.structs.replace(applied, then=then)


async def _take(desk: Desk, event: AnyEvent, offer: Offer, grant: Grant | None) -> Applied:
    for _ in range(TIMES):
        fields = await desk.account(event.account)
        if not fields:
            raise NotFound(f"no account {event.account}")
        decision = _Decision("applied")
        if event.sequence == entitlements_of(fields).sequence + 1:
            decision = await _decide(desk, event, fields, offer)
            await _grant(event, decision.change, grant)
        booked = await desk.book(event.account, _booking(event, decision))
        if booked.status != "moved":
            return _applied(event, decision, booked)
    raise Unavailable(f"account {event.account} is changed by others all the time", "the same event may go through later")


async def _take_those_that_waited(desk: Desk, account: str, sequence: int, offer: Offer, grant: Grant | None) -> list[Applied]:
    """One after the other. Whoever brought the one before may have died before it took them."""
    taken: list[Applied] = []
    while (kept := await desk.early_event(account, sequence)) is not None:
        try:
            applied = await _take(desk, decode(kept), offer, grant)
        except Conflict as error:  # another event had its id, and is in force: this one waits in vain
            log.error("billing_event_dropped", account=account, sequence=sequence, reason=str(error))
            await desk.forget_early(account, sequence)
            break
        except RefusedInput as error:  # a tier that is not sold here, yet
            log.error("billing_event_waits", account=account, sequence=sequence, reason=str(error))
            break
        taken.append(applied)
        sequence = applied.expected
    return taken


async def _decide(desk: Desk, event: AnyEvent, fields: Mapping[str, str], offer: Offer) -> _Decision:
    """Of one whose turn it is."""
    now, order = await desk.now_us() / 1e6, event.order or ""
    kept = await desk.order(event.account, order) if order else b""
    if not event.paid and kept != PAID:
        return _Decision("unpaid", order=order, kept=encode(event))
    change = change_of(event, fields, now, offer)
    if isinstance(event, PaymentReceived):
        if kept in (b"", PAID):
            return _Decision("applied", change, order, PAID)
        change = both(change, change_of(decode(kept), fields, now, offer))
    return _Decision("refused" if change.refused else "applied", change, order)


async def _grant(event: AnyEvent, change: Change, grant: Grant | None) -> None:
    """Before the event counts as come: the ledger takes the same key once, however often this is begun anew."""
    if change.credits and grant is None:
        raise RefusedInput(f"event {event.id}: no credits are kept here", "a release with the SMS channel")
    for key, amount in change.credits.items():
        assert grant is not None
        await grant(event.account, key, amount, event.who or "billing", event.why or event.id)


def _booking(event: AnyEvent, decision: _Decision) -> Booking:
    change, kind = decision.change, _type(event)
    facts = {"event": event.id, "sequence": str(event.sequence), "order": event.order or "", "refused": change.refused}
    facts["status"] = "" if decision.status == "applied" else decision.status
    facts |= {name: value for name, value in change.fields.items() if value and value.isprintable()}
    facts |= {"credits": str(sum(change.credits.values()))} if change.credits else {}
    return Booking(
        sequence=event.sequence,
        id=event.id,
        digest=digest(event),
        event=encode(event),
        line=audit.line(kind, event.who or "billing", event.why, **facts),
        seen=change.seen,
        fields=change.fields,
        is_speed=change.is_speed,
        before_us=None if change.before is None else change.before * 1e6,
        order=decision.order,
        kept=decision.kept,
    )


_REFUSED = {
    "differs": "another event has the id {id} or the sequence {sequence} already",
    "far": "sequence {sequence} is more than a thousand ahead of {last}",
    "purging": "the account is deleted: its data are being purged",
}


def _applied(event: AnyEvent, decision: _Decision, booked: Booked) -> Applied:
    if booked.status == "missing":
        raise NotFound(f"no account {event.account}")
    if booked.status in _REFUSED:
        said = _REFUSED[booked.status].format(id=event.id, sequence=event.sequence, last=booked.sequence)
        raise Conflict(f"event {event.id} for {event.account}: {said}", "bring the missing ones first" if booked.status == "far" else "")
    status = {"done": decision.status, "known": "repeated", "early": "waits"}[booked.status]
    why = decision.change.refused if status == "refused" else ""
    return Applied(event.id, event.account, _type(event), event.sequence, status, booked.sequence + 1, why)


def _type(event: AnyEvent) -> str:
    return str(event.__struct_config__.tag)
