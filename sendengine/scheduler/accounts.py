"""Accounts: made, changed, shown. Their speed is data: tier, rate and interval are always written together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from sendengine import remedies
from sendengine.errors import Conflict, NoAccount, NotFound, RefusedInput, about
from sendengine.lanes import MAIL, SMS, channel, sms_lane
from sendengine.policy import grants
from sendengine.policy.entitlements import entitlements_of
from sendengine.policy.grants import Words
from sendengine.policy.tiers import Tier, interval_us, parse_rate
from sendengine.policy.times import format_time
from sendengine.ports import Desk
from sendengine.remedies import field, said
from sendengine.scheduler import audit, way
from sendengine.scheduler.awaited import Awaited, OpenOrder
from sendengine.scheduler.binding import Binding, account_binding, gravest
from sendengine.scheduler.gates import Hold, Term, shown_holds, shown_term
from sendengine.scheduler.names import account_id, existing_account
from sendengine.scheduler.view import View, moment, rate_achieved, wall
from sendengine.types import Relay, TlsPolicy

UNREADABLE = "unreadable"


class Boost(msgspec.Struct, frozen=True):
    """A dated grant of speed, in messages per hour. Of all that hold at a time, and the tier, the highest is in force."""

    boost: int  # its number in the account
    rate: float
    start: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="until")
    who: str
    why: str


class Account(msgspec.Struct, frozen=True):
    """Rates in messages per hour; `rate` is the one in force now, `tier_rate` the tier's; None is unmetered. `boosts` hold now or will.
    `relay` is host:port, None for the configuration's, "unreadable" for what no release understands; `relay_user` and `relay_tls` are
    its own ones, None where it has none; `retry` the schedule of its sends, None for the configuration's.
    `term` says where it stands in its time, `holds` what blocks it. `credits` are those free, None where none were ever bought.
    `edition`, `channels` and `seats` are what was sold, None where nothing was: then any channel will do, and any number of seats;
    `billing_sequence` that of the last event from billing that has come to its turn, 0 before the first; `billing_waits` what those
    behind it wait for, `orders` those that wait for their payment. No secret is in here."""

    account: str
    tier: str
    tier_rate: float | None
    rate: float | None
    rate_achieved: float | None
    boosts: list[Boost]
    relay: str | None
    relay_user: str | None
    relay_tls: str | None
    retry: str | None
    term: Term
    holds: list[Hold]
    credits: float | None
    edition: str | None
    channels: list[str] | None
    seats: int | None
    billing_sequence: int
    billing_waits: Awaited | None
    orders: list[OpenOrder]
    created_at: datetime | None
    sends: list[str]  # those that have not ended
    binding: Binding | None
    binding_channel: str  # email or sms: which one `binding` is of


async def create(
    desk: Desk, tiers: Mapping[str, Tier], account: str, tier: str, relay: Relay | str | None, retry: str | None, usual: TlsPolicy, who: str
) -> bool:
    """False when the same account stands already; raises Conflict when it stands with other settings. `usual`: the configuration's TLS
    policy."""
    fields = _speed(tiers, tier) | way.of(account, {}, relay, retry, usual)
    line = audit.line("account.create", who, tier=fields["tier"], **way.told({}, fields))
    if await desk.create_account(account_id(account), fields, line=line):
        return True
    standing = await desk.account(account)
    if not standing and await desk.gone(account) is not None:
        raise Conflict(f"account {account} was deleted", "a new account, under another id: an id is never used again")
    if standing.get("tier") != fields["tier"]:
        raise Conflict(f"account {account} exists with another tier", remedies.set_tier(account, tier))
    if not way.stands(standing, relay):
        where = "smtp://" + (Relay.decode(fields["relay"]).site if relay else "HOST:PORT")
        raise Conflict(f"account {account} exists with another relay", remedies.set_relay(account, f"--relay {where}"))
    if standing.get("retry", "") != fields.get("retry", ""):
        remedy = remedies.set_relay(account, f"--retry '{fields.get('retry', '')}'")
        raise Conflict(f"account {account} exists with another retry schedule", remedy)
    return False


async def open_sms(desk: Desk, tiers: Mapping[str, Tier], account: str, rate: str) -> str:
    """The lane of an account's SMS, made on first use."""
    await existing_account(desk, account_id(account))
    lane = sms_lane(account)
    if not await desk.account(lane):
        await desk.create_account(lane, _speed(tiers, rate) | {"channel": SMS, "provider": ""})
    return lane


async def set_provider(desk: Desk, lane: str, provider: str, who: str, why: str) -> None:
    """A name of providers.toml, "" the configuration's."""
    line = audit.line("provider", who, why, channel=channel(lane), provider=provider or "the configuration's")
    await desk.set_account(lane, {"provider": provider}, line=line)


async def set_tier(desk: Desk, tiers: Mapping[str, Tier], account: str, tier: str, who: str, why: str) -> None:
    before = await existing_account(desk, account)
    with about("tier"):
        name, per_hour = parse_rate(tier, tiers)
    line = audit.line("tier", who, why, channel=channel(account), tier=name, rate=_said(per_hour), before=before.get("tier", ""))
    await desk.set_rate(account, name, per_hour, line=line)


async def boost(
    desk: Desk, tiers: Mapping[str, Tier], account: str, rate: str, span: tuple[float, float], who: str, why: str, key: str, asked: str
) -> int:
    """A grant from span[0] until span[1] (UNIX seconds); its number. Under the same `key` ("" none) it is granted once;
    `asked` is a digest of the request. Raises NotFound, RefusedInput, Conflict where the key is another boost's."""
    fields = await existing_account(desk, account)
    if key and (known := grants.granted_under(fields, key)) is not None:
        return _same_boost(account, key, known[0] if known[1] == asked else 0)
    with about("rate"):
        _, per_hour = parse_rate(rate, tiers)
    start, end = span
    now = await desk.now_us() / 1e6
    if per_hour is None:
        raise RefusedInput("a boost has a rate: without one it could not end at its time", remedies.set_tier(account, rate))
    if end <= max(start, now):
        later = said(field("until"), " names a later time than ", field("from"), " and now")
        raise RefusedInput(f"a boost until {format_time(end)} is over before it begins", later)
    line = audit.line("boost", who, why, rate=_said(per_hour), **{"from": format_time(start), "until": format_time(end), "key": key})
    number = await desk.boost(account, grants.encode(start, end, Words(per_hour, who, why, now)), line=line, key=key, digest=asked)
    if number is None:
        raise NoAccount(f"no account {account}", remedies.create_account(account))
    return _same_boost(account, key, number)


def _same_boost(account: str, key: str, number: int) -> int:
    if not number:
        raise Conflict(f"another boost of account {account} was asked for under the key {key!r}", "each boost has a key of its own")
    return number


async def end_boost(desk: Desk, account: str, number: int, who: str, why: str) -> None:
    await existing_account(desk, account)
    if not await desk.end_boost(account, number, line=audit.line("boost.end", who, why, boost=str(number))):
        raise NotFound(f"account {account} has no boost {number} that holds or will", remedies.show_account(account))


def shown(view: View, *others: View) -> Account:
    """`others`: its other lanes, where an account is shown and not one lane of it. What binds is said of the one that is stuck."""
    worst = gravest([view, *others])[0]
    sold = entitlements_of(view.home)
    relay = way.relay_of(view.fields)
    rates = [rate for campaign in view.running if (rate := rate_achieved(view.sends[campaign], view.now)) is not None]
    return Account(
        account=view.account,
        tier=view.fields.get("tier", ""),
        tier_rate=view.tier_rate,
        rate=view.rate,
        rate_achieved=sum(rates) if rates else None,
        boosts=[
            Boost(each.number, each.rate, wall(each.start), wall(each.end), each.words.who, each.words.why) for each in view.grants
        ],
        relay=relay.site if relay else UNREADABLE if view.fields.get("relay") else None,
        relay_user=relay.user or None if relay else None,
        relay_tls=str(relay.policy) if relay else None,
        retry=view.fields.get("retry") or None,
        term=shown_term(view),
        holds=shown_holds(view.home),
        credits=None,
        edition=sold.edition,
        channels=list(sold.channels) or None,
        seats=sold.seats if "seats" in view.home else None,
        billing_sequence=sold.sequence,
        billing_waits=None,
        orders=[],
        created_at=moment(view.fields, "created"),
        sends=[f"{each.account}:{campaign}" for each in (view, *others) for campaign in each.open_sends],
        binding=account_binding(worst),
        binding_channel=channel(worst.account) or MAIL,
    )


def _said(per_hour: float | None) -> str:
    return "unmetered" if per_hour is None else f"{per_hour:.10g}/h"


def _speed(tiers: Mapping[str, Tier], tier: str) -> dict[str, str]:
    """As the scripts read them: iv is µs between messages, 0 for unmetered."""
    with about("tier"):
        name, per_hour = parse_rate(tier, tiers)
    return {"tier": name, "rate": "" if per_hour is None else str(per_hour), "iv": interval_us(per_hour)}
