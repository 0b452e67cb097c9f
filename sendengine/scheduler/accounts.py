"""Accounts: made, changed, shown. Their speed is data: tier, rate and interval are always written together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from sendengine.errors import Conflict
from sendengine.policy.tiers import Tier, interval_us, parse_rate
from sendengine.ports import Desk
from sendengine.scheduler.binding import Binding, account_binding
from sendengine.scheduler.names import account_id, existing_account
from sendengine.scheduler.view import View, moment, rate_achieved
from sendengine.types import Relay

_decode_relay = msgspec.json.Decoder(Relay).decode


class Account(msgspec.Struct, frozen=True):
    """Rates in messages per hour; rate None is unmetered. `relay` is host:port, or None for the configuration's. No secret is in here."""

    account: str
    tier: str
    rate: float | None
    rate_achieved: float | None
    relay: str | None
    created_at: datetime | None
    sends: list[str]  # those that have not ended
    binding: Binding | None


async def create(desk: Desk, tiers: Mapping[str, Tier], account: str, tier: str, relay: Relay | None) -> bool:
    """False when the same account stands already; raises Conflict when it stands with other settings."""
    fields = _speed(tiers, tier)
    if relay is not None:
        fields |= _way(relay)
    if await desk.create_account(account_id(account), fields):
        return True
    standing = await desk.account(account)
    if standing.get("tier") != fields["tier"]:
        raise Conflict(f"account {account} exists with another tier", f"sendengine account set-tier {account} {tier}")
    if standing.get("relay") != fields.get("relay"):
        where = "smtp://" + (relay.site if relay else "HOST:PORT")
        raise Conflict(f"account {account} exists with another relay", f"sendengine account set-relay {account} --relay {where}")
    return False


async def set_tier(desk: Desk, tiers: Mapping[str, Tier], account: str, tier: str) -> None:
    await existing_account(desk, account)
    name, per_hour = parse_rate(tier, tiers)
    await desk.set_rate(account, name, per_hour)


async def set_relay(desk: Desk, account: str, relay: Relay) -> None:
    """A worker that is at this account goes on with the old relay until it has nothing of it in hand (a pause does that)."""
    await existing_account(desk, account)
    await desk.set_account(account, _way(relay))


def shown(view: View) -> Account:
    rates = [rate for campaign in view.running if (rate := rate_achieved(view.sends[campaign], view.now)) is not None]
    relay = view.fields.get("relay")
    return Account(
        account=view.account,
        tier=view.fields.get("tier", ""),
        rate=view.rate,
        rate_achieved=sum(rates) if rates else None,
        relay=_decode_relay(relay).site if relay else None,
        created_at=moment(view.fields, "created"),
        sends=[f"{view.account}:{campaign}" for campaign in view.open_sends],
        binding=account_binding(view),
    )


def _way(relay: Relay) -> dict[str, str]:
    return {"relay": msgspec.json.encode(relay).decode()}


def _speed(tiers: Mapping[str, Tier], tier: str) -> dict[str, str]:
    """As the scripts read them: iv is µs between messages, 0 for unmetered."""
    name, per_hour = parse_rate(tier, tiers)
    return {"tier": name, "rate": "" if per_hour is None else str(per_hour), "iv": interval_us(per_hour)}
