"""What an account may use, and what an event from billing makes of it (domain rule 3). Pure: fields in, fields out.

An edition names a tier, channels and seats; buying one sets all three, and what is bought beyond it follows with events of its own. Events
are applied in their order, so the last word on each thing holds. A purchase that is not paid changes nothing until it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sendengine.errors import Conflict, RefusedInput, SendEngineError
from sendengine.policy import grants, term
from sendengine.policy.billing import (
    AnyEvent,
    BoostPurchased,
    CreditsPurchased,
    EditionChanged,
    PaymentReceived,
    SeatsChanged,
    SubscriptionCancelled,
    SubscriptionExpired,
    SubscriptionRenewed,
    TierChanged,
)
from sendengine.policy.credits import MAIL, Home, Purchase, purchase
from sendengine.policy.grants import FIELD, SPAN, Words
from sendengine.policy.holds import FIELD as HOLD
from sendengine.policy.prices import MILLI
from sendengine.policy.term import Phase, Verb, fields_of, term_of
from sendengine.policy.tiers import Tier, interval_us, parse_rate, unknown
from sendengine.policy.times import format_time

EMAIL, SMS = "email", "sms"
CHANNELS = (EMAIL, SMS)
UNPAID_FEE = HOLD + "unpaid-fee"
_KEPT_US = 30 * 86400e6  # that a boost is shown after its end


class Edition(msgspec.Struct, frozen=True):
    name: str
    title: str
    tier: str
    channels: tuple[str, ...]
    seats: int


class Offer(msgspec.Struct, frozen=True):
    """What can be bought here, how fast an account's SMS are whose first credits are bought, and how long a new term's grace is."""

    tiers: Mapping[str, Tier]
    editions: Mapping[str, Edition]
    sms_rate: str
    grace_days: float = term.GRACE_DAYS
    purge_after_days: float = term.PURGE_SOONEST_DAYS

    def edition(self, name: str) -> Edition:
        """Raises UnknownName with the nearest one."""
        found = self.editions.get(name.strip().lower())
        if found is None:
            raise unknown("unknown edition", name, self.editions)
        return found


class Change(msgspec.Struct, frozen=True):
    """`fields` to be, "" absent, where `seen` still stands. `is_speed`: the rate changes, so what was granted is cut first. `lots` of SMS
    credits come with it. It would be another one from `before` (UNIX seconds) on. `refused`: what changes nothing of it, and why, though it
    is genuine and counts as come: its time is over, or the term forbids it."""

    seen: Mapping[str, str] = {}
    fields: Mapping[str, str] = {}
    is_speed: bool = False
    lots: tuple[Purchase, ...] = ()
    before: float | None = None
    refused: str = ""

    @property
    def is_void(self) -> bool:
        return bool(self.refused) and not self.fields and not self.lots


class Entitlements(msgspec.Struct, frozen=True):
    """As an account has them; None and 0 are what nobody has bought."""

    edition: str | None
    channels: tuple[str, ...]
    seats: int
    sequence: int  # of the last event


def entitlements_of(fields: Mapping[str, str]) -> Entitlements:
    channels = tuple(fields.get("channels", "").split())
    return Entitlements(fields.get("edition") or None, channels, int(fields.get("seats") or 0), int(fields.get("seq") or 0))


def admit(account: str, fields: Mapping[str, str], channel: str) -> None:
    """Raises Conflict, with the remedy, where what was sold to an account has no such channel. Where no edition was, nothing is limited."""
    sold = entitlements_of(fields)
    has_it = any(each in MAIL if channel == EMAIL else each == channel for each in sold.channels)
    if sold.channels and not has_it:
        name = f"edition {sold.edition!r}" if sold.edition else "what it has bought"
        reason = f"account {account} takes no sends by {channel}: {name} has {' and '.join(sold.channels)} only"
        raise Conflict(reason, f"buy an edition with {channel}: the event edition.changed puts it in force within a second")


def check(event: AnyEvent, offer: Offer) -> None:
    """Raises RefusedInput for what nobody here sells."""
    match event:
        case EditionChanged():
            offer.edition(event.edition)
        case TierChanged():
            parse_rate(event.tier, offer.tiers)
        case BoostPurchased():
            _boost_rate(event, offer)


def change_of(event: AnyEvent, fields: Mapping[str, str], now: float, offer: Offer) -> Change:
    """What an event that is paid, and due, makes of an account. Raises RefusedInput for a tier or edition that nobody here sells: such an
    event is left for when they are, and those behind it wait. Of a deleted account nothing is changed: nothing of it will ever send."""
    if over := over_for_good(fields, now):
        return Change(refused=over)
    standing = term_of(fields)
    change = _change_of(event, fields, now, offer)
    return msgspec.structs.replace(change, before=None if standing is None else standing.grace_ends)


def over_for_good(fields: Mapping[str, str], now: float) -> str:
    """Why nothing can be sold to an account any more; "" where it can."""
    standing = term_of(fields)
    if standing is None or standing.grace_ends is None or standing.phase(now) is not Phase.DELETED:
        return ""
    return f"the account is deleted: its grace ended at {format_time(standing.grace_ends)}, and nothing lifts that"


def _change_of(event: AnyEvent, fields: Mapping[str, str], now: float, offer: Offer) -> Change:
    match event:
        case SubscriptionRenewed() | SubscriptionCancelled() | SubscriptionExpired():
            return _term_changed(event, fields, now, offer)
        case EditionChanged():
            found = offer.edition(event.edition)
            bought = {"edition": found.name, "channels": " ".join(found.channels), "seats": str(found.seats)}
            return _with(fields, {**bought, **_speed(found.tier, offer)}, is_speed=True)
        case TierChanged():
            return _with(fields, _speed(event.tier, offer), is_speed=True)
        case SeatsChanged():
            return _with(fields, {"seats": str(event.seats)})
        case BoostPurchased():
            return _boosted(event, fields, now, offer)
        case CreditsPurchased():
            lot = purchase(Home.of(fields), event.credits * MILLI, round(now * 1e6), event.who or "billing", event.why or event.id)
            return Change({"channels": fields.get("channels", "")}, lots=(lot,))
        case PaymentReceived():
            return _with(fields, {UNPAID_FEE: ""}) if event.settles and UNPAID_FEE in fields else Change()


def changes_of(events: Sequence[AnyEvent], fields: Mapping[str, str], now: float, offer: Offer) -> Change:
    """Of several at once, as if each came when those before it are in force: a payment and what it was for."""
    total, standing = Change(), dict(fields)
    for event in events:
        change = change_of(event, standing, now, offer)
        total = _both(total, change)
        standing = {name: value for name, value in {**standing, **change.fields}.items() if value}
    return total


def _both(first: Change, second: Change) -> Change:
    """What the second one saw of the first one's making is nothing that stands before."""
    seen = {name: value for name, value in second.seen.items() if name not in first.fields} | dict(first.seen)
    limits = [each for each in (first.before, second.before) if each is not None]
    refused = "; ".join(dict.fromkeys(filter(None, (first.refused, second.refused))))
    return Change(
        seen, {**first.fields, **second.fields}, first.is_speed or second.is_speed, first.lots + second.lots,
        min(limits, default=None), refused,
    )  # fmt: skip


def _with(fields: Mapping[str, str], wanted: Mapping[str, str], is_speed: bool = False) -> Change:
    """What stands already is no change: nothing granted is cut for it."""
    changed = {name: value for name, value in wanted.items() if fields.get(name, "") != value}
    return Change({name: fields.get(name, "") for name in changed}, changed, is_speed and not changed.keys().isdisjoint(("iv", "grants")))


def _speed(tier: str, offer: Offer) -> dict[str, str]:
    name, per_hour = parse_rate(tier, offer.tiers)
    return {"tier": name, "rate": "" if per_hour is None else str(per_hour), "iv": interval_us(per_hour)}


def _term_changed(
    event: SubscriptionRenewed | SubscriptionCancelled | SubscriptionExpired, fields: Mapping[str, str], now: float, offer: Offer
) -> Change:  # fmt: skip
    verb = {SubscriptionRenewed: Verb.RENEW, SubscriptionCancelled: Verb.CANCEL, SubscriptionExpired: Verb.EXPIRE}[type(event)]
    ends = None if isinstance(event, SubscriptionExpired) or event.ends is None else event.ends.timestamp()
    before = term_of(fields)
    try:
        after = term.change(before, verb, now, ends, grace_days=offer.grace_days, purge_after_days=offer.purge_after_days)
    except (Conflict, RefusedInput) as error:
        return Change(refused=_told(error))
    wanted = fields_of(after)
    return Change({name: fields.get(name, "") for name in wanted}, wanted)


def _told(error: Conflict | RefusedInput) -> str:
    return f"{error} ({error.way.http})" if error.way.http else str(error)


def _boosted(event: BoostPurchased, fields: Mapping[str, str], now: float, offer: Offer) -> Change:
    per_hour = _boost_rate(event, offer)
    start, until = now if event.start is None else event.start.timestamp(), event.until.timestamp()
    if until <= max(start, now):
        return Change(refused="the boost is over before it begins")
    words = Words(per_hour, event.who or "billing", event.why or event.id, now)
    return add_boost(fields, grants.encode(start, until, words), now * 1e6)


def _boost_rate(event: BoostPurchased, offer: Offer) -> float:
    _, per_hour = parse_rate(event.rate, offer.tiers)
    if per_hour is None:
        raise RefusedInput(f"event {event.id}: a boost has a rate", "messages per hour, or a tier's name")
    return per_hour


def add_boost(fields: Mapping[str, str], grant: bytes, now_us: float) -> Change:
    """As lua/boost.lua writes one: the grant, those that are not over in one field, and those over for long are forgotten."""
    number = int(fields.get("boosts") or 0) + 1
    spans = {name: _octets(value)[: SPAN.size] for name, value in fields.items() if name.startswith(FIELD)}
    spans[f"{FIELD}{number}"] = grant[: SPAN.size]
    ends = {name: SPAN.unpack(span)[1] for name, span in spans.items()}
    live = b"".join(span for name, span in spans.items() if ends[name] > now_us)
    gone = {name: "" for name, end in ends.items() if end < now_us - _KEPT_US}
    wanted = {f"{FIELD}{number}": _text(grant), "boosts": str(number), "grants": _text(live), **gone}
    seen = {name: fields.get(name, "") for name in ("boosts", "grants", *(set(spans) & set(fields)))}
    return Change(seen, wanted, is_speed=True)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def lacking(editions: Mapping[str, Edition], tiers: Mapping[str, Tier]) -> str | None:
    """What is wrong with a table of editions, in words; None: nothing."""
    for edition in editions.values():
        try:
            parse_rate(edition.tier, tiers)
        except SendEngineError as error:
            return f"edition {edition.name!r}: {error}"
        unknown = [name for name in edition.channels if name not in CHANNELS]
        if unknown or not edition.channels or len(set(edition.channels)) != len(edition.channels):
            return f"edition {edition.name!r}: its channels are some of {' '.join(CHANNELS)}, each once"
    return None if editions else "there is no edition in it"
