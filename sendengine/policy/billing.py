"""Events from billing as values, and whether one is genuine. Pure: secrets and now are passed in.

An event is one JSON object. Its signature is the HMAC-SHA-256, under a secret that billing shares with us, of the stamp (UNIX seconds), a
dot and the body's octets as they came: `SendEngine-Signature: t=1795807191,v1=<hex>`. So nothing of it can be altered, the stamp neither,
and one that is older than five minutes, or as far ahead, is no event at all. Two secrets hold while one is being replaced, and a sender may
sign with both.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sendengine.errors import RefusedInput
from sendengine.policy.times import possible

HEADER = "SendEngine-Signature"
FRESH_S = 300.0
BODY_MOST = 64 << 10
SECRETS_MOST = 2
SECRET_LEAST = 32  # octets
SIGNATURES_MOST = 4
_STAMP = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"[0-9a-fA-F]{64}")

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
AccountId = Annotated[str, Meta(pattern=r"^m[1-9][0-9]{0,17}$", description="m and the number of the account")]
Sequence_ = Annotated[int, Meta(ge=1, le=2**53, description="1, 2, 3 … in each account, without a gap")]
Text = Annotated[str, Meta(max_length=1000)]
Name = Annotated[str, Meta(min_length=1, max_length=100)]
Moment = Annotated[datetime, Meta(tz=True)]


class Forged(RefusedInput):
    """No event of ours: unsigned, signed by a stranger, altered, or not of now. It changed nothing, and says nothing of any account."""


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every event says. With `paid` false it is an order: it changes nothing until payment for `order` is received."""

    id: Annotated[Id, Meta(description="the event's own; the same id again is the same event")]
    account: AccountId
    sequence: Sequence_
    at: Annotated[Moment, Meta(description="when it happened at billing")]
    who: Annotated[Text, Meta(description="who did it, for the audit trail")] = ""
    why: Text = ""
    order: Id | None = None
    paid: bool = True


class PaymentReceived(Event, tag="payment.received", frozen=True, kw_only=True):
    """The order's purchase takes effect. `settles`: nothing is owed any more, which lifts a hold for an unpaid fee."""

    settles: bool = False


class SubscriptionRenewed(Event, tag="subscription.renewed", frozen=True, kw_only=True):
    """The term goes on until `ends`; null: without an end."""

    ends: Moment | None


class SubscriptionCancelled(Event, tag="subscription.cancelled", frozen=True, kw_only=True):
    """It will not be renewed. `ends`: of a subscription that had no end."""

    ends: Moment | None = None


class SubscriptionExpired(Event, tag="subscription.expired", frozen=True, kw_only=True):
    """The term ends now."""


class EditionChanged(Event, tag="edition.changed", frozen=True, kw_only=True):
    """Its tier, channels and seats."""

    edition: Name


class TierChanged(Event, tag="tier.changed", frozen=True, kw_only=True):
    tier: Name


class CreditsPurchased(Event, tag="credits.purchased", frozen=True, kw_only=True):
    credits: Annotated[int, Meta(ge=1, le=10**9)]


class BoostPurchased(Event, tag="boost.purchased", frozen=True, kw_only=True):
    """`rate`: messages per hour or a tier's name, from `from` (now) until `until`."""

    rate: Name
    start: Moment | None = msgspec.field(name="from", default=None)
    until: Moment


class SeatsChanged(Event, tag="seats.changed", frozen=True, kw_only=True):
    """How many administrators may work at once, all in all."""

    seats: Annotated[int, Meta(ge=0, le=100_000)]


AnyEvent = (
    PaymentReceived | SubscriptionRenewed | SubscriptionCancelled | SubscriptionExpired | EditionChanged | TierChanged | CreditsPurchased
    | BoostPurchased | SeatsChanged
)  # fmt: skip
_decoder = msgspec.json.Decoder(AnyEvent)


def decode(raw: bytes) -> AnyEvent:
    """Raises RefusedInput, naming the place."""
    try:
        event: AnyEvent = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"no billing event: {error}", "docs/billing.md has the schema of each") from None
    if any("\n" in name for name in (event.id, event.account, event.order or "")):  # a pattern's $ lets one through
        raise RefusedInput("no billing event: a name in it ends in a line feed")
    for moment in (each for each in msgspec.structs.astuple(event) if isinstance(each, datetime)):
        try:
            possible(moment.timestamp())
        except (RefusedInput, ValueError, OverflowError):
            raise RefusedInput(f"event {event.id}: a time outside the years 1970 to 9999") from None
    if not (event.who.isprintable() and event.why.isprintable()):
        raise RefusedInput(f"event {event.id}: who and why hold control characters or no Unicode text")
    if event.order is None and (not event.paid or isinstance(event, PaymentReceived)):
        raise RefusedInput(f"event {event.id}: an unpaid order, and a payment, name the order", "add `order`")
    if isinstance(event, PaymentReceived) and not event.paid:
        raise RefusedInput(f"event {event.id}: a payment that is not paid is none")
    return event


def type_of(event: AnyEvent) -> str:
    return str(event.__struct_config__.tag)


def schema() -> dict[str, Any]:
    """JSON Schema of all of them (docs/accounts.md)."""
    return msgspec.json.schema(AnyEvent)


def encode(event: AnyEvent) -> bytes:
    """As it is kept; `decode` reads it."""
    return msgspec.json.encode(event)


def digest(event: AnyEvent) -> str:
    """Of all it says, however its JSON was spaced and ordered."""
    return sha256(encode(event)).hexdigest()[:32]


def sign(raw: bytes, secrets: Sequence[bytes], now: float) -> str:
    """The header's value, a signature by each secret."""
    stamp = f"{now:.0f}"
    return ",".join([f"t={stamp}", *(f"v1={_mac(raw, stamp, secret)}" for secret in secrets)])


def verify(raw: bytes, headers: Mapping[str, str], secrets: Sequence[bytes], now: float) -> None:
    """Raises Forged. Every signature is compared with every secret's, in constant time and to the end: how long it takes tells nothing."""
    if len(raw) > BODY_MOST:
        raise Forged(f"a body of {len(raw)} octets is no event: {BODY_MOST} are the most")
    if not secrets:
        raise Forged("no secret is shared with billing here", "billing_secrets_file names the file that holds it")
    given = [value for name, value in headers.items() if name.lower() == HEADER.lower()]
    if len(given) != 1:
        raise Forged(f"one header {HEADER} is wanted, not {len(given)}")
    stamp, signatures = _parts(given[0])
    wanted = [_mac(raw, stamp, secret).encode() for secret in secrets]
    is_genuine = False
    for signature in signatures:
        for mac in wanted:
            is_genuine |= hmac.compare_digest(signature.lower().encode(), mac)
    if not is_genuine:
        raise Forged("the signature is not billing's, or the body was altered")
    if abs(now - int(stamp)) > FRESH_S:
        raise Forged(f"it was signed at {stamp}, {abs(now - int(stamp)):.0f} s from now: {FRESH_S:.0f} s are allowed", "sign it anew")


def _parts(header: str) -> tuple[str, list[str]]:
    stamps, signatures = [], []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t" and _STAMP.fullmatch(value):
            stamps.append(value)
        elif name == "v1" and _HEX.fullmatch(value):
            signatures.append(value)
    if len(stamps) != 1 or not 1 <= len(signatures) <= SIGNATURES_MOST:
        raise Forged(f"{HEADER} is t=UNIX,v1=HEX, with up to {SIGNATURES_MOST} signatures")
    return stamps[0], signatures


def _mac(raw: bytes, stamp: str, secret: bytes) -> str:
    return hmac.new(secret, stamp.encode() + b"." + raw, sha256).hexdigest()


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """One a line, the newer first; lines that begin with # are none. Raises RefusedInput; no secret is in what it says."""
    lines = [line.strip() for line in text.splitlines()]
    secrets = tuple(line.encode() for line in lines if line and not line.startswith("#"))
    if not 1 <= len(secrets) <= SECRETS_MOST:
        raise RefusedInput(f"a file of billing secrets holds one, or two while one is replaced, not {len(secrets)}")
    if any(len(secret) < SECRET_LEAST for secret in secrets):
        raise RefusedInput(f"a billing secret has at least {SECRET_LEAST} characters", "openssl rand -hex 32 makes one")
    return secrets
