"""Submitting: a send is created, its batches follow in order with a window of them in flight, and the seal closes its list.

Idempotent throughout: a repeat creates nothing, stores nothing and seals nothing; other rows under the same id are refused by the first one
that differs. What was interrupted is continued by the same call with the same id. Each batch names what must stand before it, so of several
lists under one id, whoever loads them and when, one is stored as a whole and the others are refused (docs/design/022).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hashlib import blake2b
from struct import Struct

import msgspec
import orjson

from sendengine import remedies
from sendengine import rows as reading
from sendengine.addressing import BY_MAIL, by_phone
from sendengine.config import Config
from sendengine.errors import Conflict, LacksCredit, RefusedInput, Unavailable
from sendengine.intake import Intake, PackedBatch, Rejected
from sendengine.lanes import SMS, owner
from sendengine.policy.prices import MILLI, PriceTable, shown
from sendengine.policy.senders import sender_id
from sendengine.policy.window import Window
from sendengine.ports import Desk
from sendengine.remedies import field, said
from sendengine.render.compile import Skeleton
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message, dump
from sendengine.render.sms import Pricing, SmsText
from sendengine.scheduler import sources
from sendengine.scheduler.flight import ANOTHER, Flight, TooDear
from sendengine.scheduler.names import Ref, envelope_sender
from sendengine.scheduler.sources import Recipients
from sendengine.types import OnDoubt

_PRICE = Struct("<I")
OnReject = Callable[[Sequence[Rejected]], None]
OnAbsent = Callable[[str, str], None]  # a field, and the nearest column or ""


class Submitted(msgspec.Struct, frozen=True):
    """`is_new`: it did not stand before; `added`: rows that this call stored, all of them or those after which an earlier one broke off."""

    is_new: bool
    added: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A send as its caller asked for it. `at` is what the caller wrote, `start` what it came to (UNIX seconds); `retry` is a schedule,
    "" that of the account or the configuration; `lifetime` seconds, None the configuration's."""

    ref: Ref
    message: Message
    sender: str = ""  # of the envelope; "": the address in From
    at: str = ""
    start: float | None = None
    sequential: bool = False
    priority: str = ""
    window: str = ""
    on_doubt: OnDoubt = OnDoubt.RESEND
    retry: str = ""
    lifetime: float | None = None
    created_by: str = ""
    region: str = ""  # SMS: where numbers without a country code are at home
    prices: PriceTable | None = None  # SMS: by which its rows are priced
    line: bytes = b""  # for the audit trail, when it is made
    who: str = ""  # and where rows come to one that stands

    def definition(self) -> bytes:
        """What makes it this send, by digests: a repeat says the same, and one that does not is told what differs."""
        said: dict[str, bytes] = {"message": dump(self.message)}
        for name in ("sender", "at", "sequential", "priority", "window", "on_doubt"):
            said[name] = str(getattr(self, name)).encode()
        if self.region:
            said["region"] = self.region.encode()
        if self.retry:
            said["retry"] = self.retry.encode()
        if self.lifetime is not None:
            said["lifetime"] = f"{self.lifetime:.0f}".encode()
        return orjson.dumps({name: blake2b(value, digest_size=6).hexdigest() for name, value in said.items()})


async def submit(
    desk: Desk, config: Config, order: Order, uid: str, recipients: Recipients, strict: bool, on_reject: OnReject | None,
    on_absent: OnAbsent | None = None,
) -> Submitted:  # fmt: skip
    """Nothing is created before the message and a row that can be sent are read, with `strict` all rows."""
    order, skeleton = compiled(order, uid)
    whom = by_phone(order.region) if order.prices else BY_MAIL
    wanted = reading.Wanted((*skeleton.fields, *filter(None, [order.priority])), frozenset(), whom)
    intake = intake_of(order, skeleton)
    source = sources.spooled(reporting(sources.batches(recipients, intake), on_reject), strict)
    try:
        first = await anext(source, None)
    except reading.MissingColumn as error:
        raise reading.MissingColumn(error.column, error.nearest, skeleton.users(error.column), whom) from None
    if first is None:
        raise RefusedInput("the list is empty: it has no rows")
    created = await create(desk, config, order, uid, skeleton, strict, sources.expected_rows(recipients))
    flight = Flight(desk, order.ref, lambda row: sources.line_of(recipients, wanted, row), None if created else order.who)
    async with flight.under_way():
        try:
            if not created:  # else its first batch begins the list
                await flight.begin()
            await flight.send(first)
            async for batch in source:
                await flight.send(batch)
            await flight.seal()
        except TooDear as stopped:
            raise await lacking(desk, order.ref, flight, stopped, source) from None
        except Unavailable as error:
            again = said("repeat the call with ", field("campaign", order.ref.id), ": it goes on where it stopped")
            raise Unavailable(str(error), again) from error
    if on_absent is not None:
        for name, nearest in intake.absent.items():
            on_absent(name, nearest)
    return Submitted(created, flight.added)


def compiled(order: Order, uid: str) -> tuple[Order, Skeleton | SmsText]:
    """With the sender that goes on the wire. Raises RefusedInput for what is wrong with the message."""
    if order.prices is not None:
        text = SmsText(order.message)
        return msgspec.structs.replace(order, sender=sender_id(order.sender or order.message.sender).text), text
    skeleton = compile_message(order.message, uid)
    return msgspec.structs.replace(order, sender=envelope_sender(order.sender or skeleton.from_address)), skeleton


def intake_of(order: Order, skeleton: Skeleton | SmsText, pricing: Pricing | None = None, first: int = 0, before: bytes = b"") -> Intake:
    """The fingerprints' key follows from the send's name, so that a continued submit still knows its duplicates."""
    salt = blake2b(str(order.ref).encode(), digest_size=16).digest()
    if isinstance(skeleton, SmsText) and order.prices is not None:
        pricing = pricing or Pricing(skeleton, order.prices)
    whom = by_phone(order.region) if order.prices else BY_MAIL
    return Intake(
        skeleton.fields, skeleton.required, skeleton.in_headers, order.priority or None, salt=salt, whom=whom, pricing=pricing, first=first,
        before=before,
    )


async def reporting(
    source: AsyncIterator[PackedBatch], on_reject: OnReject | None
) -> AsyncIterator[PackedBatch]:
    async for batch in source:
        if batch.rejected and on_reject is not None:
            on_reject(batch.rejected)
        yield batch


async def create(
    desk: Desk, config: Config, order: Order, uid: str, skeleton: Skeleton | SmsText, strict: bool, expected: int = 0
) -> bool:
    """True when the send is new; raises Conflict where it stands with other words. `expected`: rows it will have, about; 0: unknown."""
    ref, definition = order.ref, order.definition()
    fields = campaign_fields(config, await desk.account(ref.account), uid, order.sender, order.on_doubt) | {
        "subject": order.message.subject,
        "fields": " ".join(skeleton.fields),
        "domain": skeleton.from_domain,
        "created_by": order.created_by,
        "priority": order.priority,
    }
    if expected:
        fields["expected"] = str(expected)  # how its fingerprints are laid out (lua/finding.lua)
    if order.retry:
        fields["retry"] = order.retry
    if order.lifetime is not None:
        fields["lifetime"] = f"{order.lifetime:.0f}"
    if order.sequential:
        fields["sequential"] = "1"
    if order.prices is not None:
        fields |= {"channel": SMS, "prices": order.prices.version, "region": order.region}
    if strict or order.sequential or order.prices is not None:  # nothing of a list goes before all of it is paid for
        fields["need_seal"] = "1"
    if strict:
        fields["strict"] = "1"
    if order.window:
        fields |= _window_fields(order.window, await desk.now_us() / 1e6)
    start = None if order.start is None else order.start * 1e6
    answer = await desk.create(ref.account, ref.id, definition, start, dump(order.message), fields, line=order.line)
    if answer == "differs":
        standing = orjson.loads((await desk.campaign(ref.account, ref.id)).get("definition", "{}"))
        wanted = orjson.loads(definition)
        named = ", ".join(name for name in {**wanted, **standing} if wanted.get(name) != standing.get(name))
        raise Conflict(f"{ref} exists with another {named}", said(ANOTHER, ", or repeat it as it was"))
    if answer == "taken":
        raise Conflict(f"account {owner(ref.account)} has a campaign {ref.id} on its other channel", ANOTHER)
    if answer == "account":
        raise Conflict(f"account {ref.account} is gone")
    return answer == "new"


def campaign_fields(config: Config, account: Mapping[str, str], uid: str, sender: str, on_doubt: OnDoubt) -> dict[str, str]:
    """What workers and scripts read of any campaign; `account` are its fields."""
    return {
        "uid": uid,
        "sender": sender,
        "lifetime": f"{config.lifetime_h * 3600:.0f}",
        "retry": account.get("retry") or config.retry,
        "on_doubt": on_doubt.value,
        "max_doubt": str(config.engine.max_doubt),
        "retention": f"{config.retention_days * 86400:.0f}",
    }


def _window_fields(text: str, now: float) -> dict[str, str]:
    window = Window.parse(text)
    is_open = window.is_open(now)
    turn = window.next_close(now) if is_open else window.next_open(now)
    fields = {"window": window.text, "open": "1" if is_open else "0"}
    if turn is not None:
        fields["window_at"] = f"{turn * 1e6:.0f}"
    if not is_open:
        fields["closed_at"] = f"{now * 1e6:.0f}"
    return fields


async def lacking(desk: Desk, ref: Ref, flight: Flight, stopped: TooDear, source: AsyncIterator[PackedBatch]) -> LacksCredit:
    """The list is read to its end, so that its caller knows at once what to buy. Duplicates in what is left are priced, too: it costs that
    at most."""
    needed = stopped.needed + sum(map(_price, await flight.give_up()))
    async for batch in source:
        needed += _price(batch)
    await desk.lacks(ref.account, ref.id, needed)
    cost, free, short = (shown(each) for each in (needed, stopped.free, needed - stopped.free))
    sums = f"costs {cost}, {free} are free, {short} are short"
    what = f"{ref} waits for credits: its list from row {stopped.first} on {sums}; nothing was sent"
    again = said("the upload") if flight.is_piece else said("the call with ", field("campaign", ref.id))
    buy = said(remedies.grant_credits(owner(ref.account), short), ", and repeat ", again, ": it goes on there")
    return LacksCredit(what, said(buy, "; or ", remedies.cancel(str(ref))), str(ref), needed / MILLI, stopped.free / MILLI)


def _price(batch: PackedBatch) -> int:
    return sum(price for (price,) in _PRICE.iter_unpack(batch.prices))
