"""Events from billing: what the platform has sold, one signed event at a time. `apply_event` is what webhook and command line call.

Once or often, in their order or not, they come to the same: each has an id and a sequence, one script decides whether it is its turn and
writes all that it changes, SMS credits too, with its audit line, and one that is ahead waits for those before it. What is sold here is the
tables' matter (policy/entitlements.py); an event that names a tier or an edition of none is refused as it comes and not counted, so that it
can come again when there is one. Where the table loses it while the event waits, the audit trail says so, and so does `awaited`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sendengine.errors import Conflict, NoAccount, RefusedInput, Unavailable
from sendengine.policy.billing import AnyEvent, PaymentReceived, decode, digest, encode, type_of, verify
from sendengine.policy.entitlements import Change, Offer, change_of, changes_of, check, entitlements_of, over_for_good
from sendengine.policy.grants import grants_of
from sendengine.policy.holds import FIELD as HOLD
from sendengine.policy.prices import MILLI
from sendengine.policy.times import format_time
from sendengine.ports import Booked, Booking, Desk
from sendengine.scheduler import audit
from sendengine.scheduler.accounts import open_sms
from sendengine.scheduler.names import existing_account

TIMES = 20  # that a change is begun anew because another one was faster
LINES_MOST = 100  # of one order
_FULL = "a hundred orders wait for their payment already: this line is not kept, and can come paid"
_TOLD = ("tier", "edition", "channels", "seats", "term", "grace", "purge_after")  # shown as they are


class Applied(msgspec.Struct, frozen=True):
    """What became of an event. `status`: applied; repeated (it had come before, nothing was changed); waits (for those before it:
    `expected` is the next sequence); unpaid (an order: nothing is changed until its payment); refused (genuine, and too late: `why`; of a
    payment that is applied, `why` says what of its order is, or that no order waited for it). `credits` are those that came with it.
    `then`: those that had waited for it, and came to their turn with it."""

    event: str
    account: str
    type: str
    sequence: int
    status: str
    expected: int
    why: str = ""
    credits: int = 0
    then: list[Applied] = []


class _Decision(msgspec.Struct, frozen=True):
    status: str
    change: Change = Change()
    order: str = ""
    kept: bytes = b""
    lines: Sequence[str] = ()  # ids of what a payment puts in force
    replaces: str = ""  # id of the line that it takes the place of
    why: str = ""


async def apply_event(
    desk: Desk, raw: bytes, headers: Mapping[str, str], secrets: Sequence[bytes], now: float, offer: Offer
) -> Applied:
    """`now` in UNIX seconds. Raises Forged, RefusedInput (a tier or edition that nobody sells, too), NotFound (account), Conflict (another
    event has its id or its sequence; the account is being purged): nothing was changed; and Unavailable: it may come again."""
    verify(raw, headers, secrets, now)
    event = decode(raw)
    applied = await _take(desk, event, offer)
    then = await _take_those_that_waited(desk, event.account, applied.expected, offer)
    return msgspec.structs.replace(applied, then=then)


async def _take(desk: Desk, event: AnyEvent, offer: Offer) -> Applied:
    for _ in range(TIMES):
        fields = await existing_account(desk, event.account)
        last = entitlements_of(fields).sequence
        decision = _Decision("applied", Change(seen={"seq": fields.get("seq", "")}))  # none: has its turn come meanwhile, it begins anew
        if event.sequence > last:
            check(event, offer)
        if event.sequence == last + 1:
            decision = await _decide(desk, event, fields, offer)
        if decision.change.lots:  # no lot without its lane, whoever dies between
            await open_sms(desk, offer.tiers, event.account, offer.sms_rate)
        booked = await desk.book(event.account, _booking(event, decision))
        if booked.status == "full":
            decision = _Decision("refused", Change(refused=_FULL))
            booked = await desk.book(event.account, _booking(event, decision))
        if booked.status != "moved":
            return _applied(event, decision, booked)
    raise Unavailable(f"account {event.account} is changed by others all the time", "the same event may go through later")


async def _take_those_that_waited(desk: Desk, account: str, sequence: int, offer: Offer) -> list[Applied]:
    """One after the other. Whoever brought the one before may have died before it took them."""
    taken: list[Applied] = []
    while (kept := await desk.early_event(account, sequence)) is not None:
        event = None
        try:
            event = decode(kept)
            applied = await _take(desk, event, offer)
        except Conflict as error:  # another event had its id, and is in force: this one waits in vain
            await desk.note(account, _line("billing.dropped", sequence, event, error))
            await desk.forget_early(account, sequence)
            break
        except RefusedInput as error:  # a tier that is not sold here any more, or words of another release
            await _note_that_it_is_stuck(desk, account, sequence, event, error)
            break
        taken.append(applied)
        sequence = applied.expected
    return taken


async def _note_that_it_is_stuck(desk: Desk, account: str, sequence: int, event: AnyEvent | None, error: RefusedInput) -> None:
    """Once for each reason: whatever event comes next tries it again."""
    seen = {"seq": str(sequence - 1) if sequence > 1 else ""}
    await desk.set_gate(account, seen, {"stuck": f"{sequence} {error}"}, line=_line("billing.stuck", sequence, event, error))


def _line(what: str, sequence: int, event: AnyEvent | None, error: RefusedInput) -> bytes:
    """`event` is None where it cannot be read."""
    of_it = {} if event is None else {"event": event.id, "type": type_of(event)}
    return audit.line(what, "sendengine", str(error), sequence=str(sequence), **of_it)


async def _decide(desk: Desk, event: AnyEvent, fields: Mapping[str, str], offer: Offer) -> _Decision:
    """Of one whose turn it is. A payment is for the lines that came to their turn before it; what comes behind it waits for another."""
    now, order = await desk.now_us() / 1e6, event.order or ""
    kept = await desk.order(event.account, order) if order else b""
    lines = [decode(each) for each in kept.split(b"\n")] if kept else []
    if not event.paid:
        if over := over_for_good(fields, now):
            return _Decision("refused", Change(refused=over), order, kept)
        if len(lines) == LINES_MOST:
            return _Decision("refused", Change(refused=f"order {order} has {LINES_MOST} lines already"), order, kept)
        return _Decision("unpaid", order=order, kept=_joined([*lines, event]))
    if isinstance(event, PaymentReceived):
        change = changes_of([event, *lines], fields, now, offer)
        why = "" if lines else f"no line of order {order} waited: one that comes behind this payment waits for another"
        return _Decision("refused" if change.is_void else "applied", change, order, lines=[each.id for each in lines], why=why)
    change, line = change_of(event, fields, now, offer), _line_of(event, lines)
    left = _joined([each for each in lines if each is not line])
    return _Decision("refused" if change.is_void else "applied", change, order, left, replaces="" if line is None else line.id)


def _line_of(event: AnyEvent, lines: Sequence[AnyEvent]) -> AnyEvent | None:
    """The one line that an event, paid itself, takes the place of: it sells the same; else the first of its type."""
    alike = [each for each in lines if type(each) is type(event)]
    return next((each for each in alike if _as_line(event, each) == event), alike[0] if alike else None)


def _as_line(event: AnyEvent, line: AnyEvent) -> AnyEvent:
    """`line` under the names of `event`: what is left to differ is what they sell."""
    return msgspec.structs.replace(line, id=event.id, sequence=event.sequence, at=event.at, who=event.who, why=event.why, paid=event.paid)


def _joined(lines: Sequence[AnyEvent]) -> bytes:
    """JSON holds no line feed."""
    return b"\n".join(map(encode, lines))


def _booking(event: AnyEvent, decision: _Decision) -> Booking:
    change, kind = decision.change, type_of(event)
    facts = {"event": event.id, "sequence": str(event.sequence), "order": event.order or "", "lines": " ".join(decision.lines)}
    facts |= {"replaces": decision.replaces}
    facts |= {"status": "" if decision.status == "applied" else decision.status, "refused": change.refused}
    facts |= _told(change) | ({"credits": str(_credits(change))} if change.lots else {})
    return Booking(
        sequence=event.sequence,
        id=event.id,
        digest=digest(event),
        event=encode(event),
        line=audit.line(kind, event.who or "billing", event.why, **facts),
        seen=change.seen,
        fields=change.fields,
        is_speed=change.is_speed,
        lots=change.lots,
        before_us=None if change.before is None else change.before * 1e6,
        order=decision.order,
        kept=decision.kept,
    )


def _told(change: Change) -> dict[str, str]:
    """What it sets, for people: rates in messages per hour, times as in RFC 3339."""
    fields = change.fields
    told = {name: fields[name] for name in _TOLD if fields.get(name)}
    if "iv" in fields:
        told["rate"] = f"{float(fields['rate']):.10g}/h" if fields.get("rate") else "unmetered"
    if "term_ends" in fields:
        told["ends"] = format_time(float(fields["term_ends"]) / 1e6) if fields["term_ends"] else "never"
    told |= {"released": ", ".join(name.removeprefix(HOLD) for name, value in fields.items() if name.startswith(HOLD) and not value)}
    for each in grants_of({name: value for name, value in fields.items() if value}):
        told[f"boost {each.number}"] = f"{each.rate:.10g}/h from {format_time(each.start)} until {format_time(each.end)}"
    return told


def _credits(change: Change) -> int:
    return sum(lot.amount for lot in change.lots) // MILLI


_REFUSED = {
    "altered": ("its id came already, with other words or another sequence", "an event that says something else has an id of its own"),
    "taken": ("its sequence {sequence} came already, with another id", "the next sequence is {next}"),
    "occupied": ("another event waits with the sequence {sequence}", "each event of an account has a sequence of its own"),
    "far": ("sequence {sequence} is more than a thousand ahead of {last}", "bring the missing ones first: the next sequence is {next}"),
    "purging": ("the account is deleted: its data are being purged", "nothing lifts that: sell to another account"),
}


def _applied(event: AnyEvent, decision: _Decision, booked: Booked) -> Applied:
    if booked.status == "missing":
        raise NoAccount(f"no account {event.account}")
    if booked.status in _REFUSED:
        numbers = {"sequence": event.sequence, "last": booked.sequence, "next": booked.sequence + 1}
        said, remedy = (each.format(**numbers) for each in _REFUSED[booked.status])
        raise Conflict(f"event {event.id} for {event.account}: {said}", remedy)
    status = {"done": decision.status, "known": "repeated", "early": "waits"}[booked.status]
    is_new = booked.status == "done"
    why, credits_ = (decision.change.refused or decision.why, _credits(decision.change)) if is_new else ("", 0)
    return Applied(event.id, event.account, type_of(event), event.sequence, status, booked.sequence + 1, why, credits_)
