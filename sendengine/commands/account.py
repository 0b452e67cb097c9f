"""`account create|show|list|set-tier|boost|unboost|set-relay|hold|release|term|purge|audit` and `tiers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendengine.commands import common, views
from sendengine.commands.common import Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.scheduler.accounts import Account, Boost
    from sendengine.scheduler.audit import Entry
    from sendengine.scheduler.gates import Hold, Term
    from sendengine.types import Relay

app = common.group("Accounts: their speed, their term and what holds them.")

Id = Annotated[str, typer.Argument(metavar="m1234")]
TLS_METAVAR = "none|opportunistic|required|verify"
PasswordFile = Annotated[Path | None, typer.Option(help="The relay's password, on the file's first line.")]
Retry = Annotated[str | None, typer.Option(metavar="'1m, 5m*2, 1h'", help="When its sends try again; '': as the configuration says.")]
Who = Annotated[str, typer.Option(metavar="NAME", help="Who does it, for the audit trail; else the user of this machine.")]
Because = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the audit trail.")]
SIZES = {"10k": 10_000, "100k": 100_000, "1M": 1_000_000}


@app.command()
def create(
    account: Id,
    tier: Annotated[str, typer.Option(help="A tier (see `tiers`), or messages per hour.")],
    relay: Annotated[str, typer.Option(metavar="smtp://user@host:port", help="Where its mail goes; else the configuration's relay.")] = "",
    tls: Annotated[str | None, typer.Option(metavar=TLS_METAVAR, help="The configuration's unless given.")] = None,
    password_file: PasswordFile = None,
    retry: Retry = None,
    who: Who = "",
    json: Json = False,
) -> None:
    """Make an account."""
    way = _relay(relay, tls, password_file)
    _show(common.call(lambda client: client.create_account(account, tier, relay=way, retry=retry, who=who or common.user())), json)


@app.command()
def show(account: Id, json: Json = False) -> None:
    """Tier, rate, term, holds, sends, and what binds now."""
    _show(common.call(lambda client: client.account(account)), json)


@app.command("list")
def list_(account: Annotated[str, typer.Argument(metavar="[m1234]")] = "", json: Json = False) -> None:
    """All accounts, or one."""

    async def read(client: Client) -> list[Account]:
        return [await client.account(account)] if account else [each async for each in client.accounts()]

    found = common.call(read)
    if json:
        for each in found:
            common.emit(each)
        return
    rows = [
        (
            each.account, each.tier, each.rate, each.rate_achieved, each.term.phase, each.term.ends,
            ", ".join(hold.reason for hold in each.holds) or None, len(each.sends), each.binding.limit if each.binding else None,
        )
        for each in found
    ]  # fmt: skip
    common.show_table("", ("account", "tier", "msg/h", "achieved", "term", "ends", "held for", "sends", "binds"), rows)


@app.command("set-tier")
def set_tier(
    account: Id, tier: Annotated[str, typer.Argument()], why: Because = "", who: Who = "", json: Json = False
) -> None:
    """Change an account's speed; in force within 1 s, mid-send too."""
    _show(common.call(lambda client: client.set_tier(account, tier, who=who or common.user(), why=why)), json)


@app.command()
def boost(
    account: Id,
    rate: Annotated[str, typer.Option(metavar="200000/h", help="Messages per hour, or a tier's name.")],
    until: Annotated[str, typer.Option(metavar="TIME", help="When it ends: RFC 3339, 'YYYY-MM-DD HH:MM' (here), or +2h.")],
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="When it begins.")] = "now",
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for whoever asks later.")] = "",
    who: Annotated[str, typer.Option(metavar="NAME", help="Who grants it; else the user of this machine.")] = "",
    json: Json = False,
) -> None:
    """More speed for a time; it begins and ends by itself. Of overlapping ones, and the tier, the fastest holds."""
    who = who or common.user()
    found = common.call(lambda client: client.boost(account, rate, until=until, start=start, who=who, why=why))
    _note_without_effect(found)
    _show(found, json)


@app.command()
def unboost(
    account: Id,
    number: Annotated[int, typer.Argument(metavar="BOOST", help="Its number, see `show`.")],
    why: Because = "",
    who: Who = "",
    json: Json = False,
) -> None:
    """End a boost now, or one to come before it begins."""
    _show(common.call(lambda client: client.end_boost(account, number, who=who or common.user(), why=why)), json)


@app.command("set-relay")
def set_relay(
    account: Id,
    relay: Annotated[
        str, typer.Option(metavar="smtp://user@host:port", help="Where its mail goes from now on; else its present relay stays.")
    ] = "",
    tls: Annotated[
        str | None, typer.Option(metavar=TLS_METAVAR, help="The present one (but none) stays unless given, else the configuration's.")
    ] = None,
    password_file: PasswordFile = None,
    retry: Retry = None,
    why: Because = "",
    who: Who = "",
    json: Json = False,
) -> None:
    """Change an account's relay, its TLS or its credentials, mid-send too; or when the sends to come try again."""
    from sendengine.errors import RefusedInput
    from sendengine.relays import password_from
    from sendengine.types import TlsPolicy

    way = _relay(relay, tls, password_file)
    changes_login = way is None and (password_file is not None or tls is not None)
    if way is None and not changes_login and retry is None:
        raise RefusedInput("what is to be changed?", "--relay smtp://[user@]host[:port], --tls, --password-file or --retry")

    async def change(client: Client) -> Account:
        by = who or common.user()
        if not changes_login:
            return await client.set_relay(account, way, retry=retry, who=by, why=why)
        password = None if password_file is None else password_from(password_file)
        policy = TlsPolicy(tls) if tls else None
        return await client.set_login(account, password=password, tls=policy, retry=retry, who=by, why=why)

    _show(common.call(change), json)


@app.command()
def hold(
    account: Id,
    reason: Annotated[list[str], typer.Option(metavar="REASON", help="As in unpaid-fee; a wrong one names them all. May be given again.")],
    text: Annotated[str, typer.Option(metavar="TEXT", help="What the customer is told beside the reason's remedy.")] = "",
    who: Who = "",
    json: Json = False,
) -> None:
    """Block its sending, within 1 s and mid-send too; nothing is lost."""

    async def place(client: Client) -> Account:
        for each in reason:
            held = await client.hold(account, each, text=text, who=who or common.user())
        return held

    _show(common.call(place), json)


@app.command()
def release(
    account: Id,
    reason: Annotated[str, typer.Option(metavar="REASON", help="Which hold is lifted, see `show`.")],
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="Why, for the audit trail.")] = "",
    who: Who = "",
    json: Json = False,
) -> None:
    """Lift a hold; with the last one its sends go on where they stopped."""
    _show(common.call(lambda client: client.release(account, reason, why=text, who=who or common.user())), json)


@app.command()
def term(
    account: Id,
    trial: Annotated[str, typer.Option(metavar="TIME", help="Begin a trial until then: +14d, RFC 3339, 'YYYY-MM-DD HH:MM' (here).")] = "",
    renew: Annotated[str, typer.Option(metavar="TIME|never", help="Active until then, or without an end; in grace, too.")] = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="No renewal; it sends at full rate until its term ends.")] = False,
    ends: Annotated[str, typer.Option(metavar="TIME", help="With --cancel, of a term without an end: when it ends.")] = "",
    reactivate: Annotated[bool, typer.Option("--reactivate", help="Take the cancelling back.")] = False,
    expire: Annotated[bool, typer.Option("--expire", help="It ends now.")] = False,
    why: Because = "",
    who: Who = "",
    json: Json = False,
) -> None:
    """Where its term stands; or change it, in force within 1 s."""
    from sendengine.errors import RefusedInput

    asked = {"trial": trial, "renew": renew, "cancel": cancel, "reactivate": reactivate, "expire": expire}
    verbs = [verb for verb, is_asked in asked.items() if is_asked]
    if len(verbs) > 1:
        raise RefusedInput(f"--{verbs[0]} and --{verbs[1]} at once?", "one change at a time")
    if ends and not cancel:
        raise RefusedInput("--ends goes with --cancel", "--renew TIME says until when it is renewed")
    until = {"trial": trial, "renew": "" if renew == "never" else renew, "cancel": ends}.get(verbs[0] if verbs else "", "") or None

    async def change(client: Client) -> Term:
        if not verbs:
            return await client.term(account)
        return await client.set_term(account, verbs[0], ends=until, why=why, who=who or common.user())

    found = common.call(change)
    if json:
        common.emit(found)
        return
    common.show_facts(account, _term_facts(found))


@app.command()
def purge(account: Id, who: Who = "", json: Json = False) -> None:
    """Delete everything of it, once its time has come (`term` says when). Workers do so by themselves, within the hour."""
    common.call(lambda client: client.purge(account, who=who or common.user()))
    if json:
        common.emit({"account": account, "purged": True})
    else:
        print(f"{account} is purged; `sendengine account audit {account}` tells its story")


@app.command()
def audit(account: Id, json: Json = False) -> None:
    """Who did what to it, when and why; of an account that is gone, too."""

    async def read(client: Client) -> list[Entry]:
        return [entry async for entry in client.audit(account)]

    found = common.call(read)
    if json:
        for entry in found:
            common.emit(entry)
        return
    rows = [
        (entry.at, entry.who or None, entry.what, entry.why, " ".join(f"{name}={value}" for name, value in entry.facts.items()))
        for entry in found
    ]
    common.show_table("", ("at", "who", "what", "why", ""), rows)


def tiers(json: Json = False) -> None:
    """The tiers, and the time each takes."""
    from sendengine import config

    rows: list[dict[str, Any]] = []
    for tier in config.tiers(config.load().tiers_file).values():
        times = {size: n / tier.per_hour * 3600 if tier.per_hour else None for size, n in SIZES.items()}
        rows.append({"tier": tier.name, "title": tier.title, "price": tier.price, "per_hour": tier.per_hour, "seconds": times})
    if json:
        for row in rows:
            common.emit(row)
        return
    cells = [
        (row["tier"], row["title"], *(t and common.duration(t) for t in row["seconds"].values()), row["price"]) for row in rows
    ]
    common.show_table("", ("tier", "", *SIZES, "price"), cells)


def _relay(url: str, tls: str | None, password_file: Path | None) -> Relay | None:
    from sendengine.errors import RefusedInput
    from sendengine.types import TlsPolicy

    if tls is not None and tls not in list(TlsPolicy):
        raise RefusedInput(f"--tls is one of {' '.join(TlsPolicy)}, not {tls!r}")
    if not url:
        return None
    from sendengine.relays import password_from, relay_from_url

    return relay_from_url(url, password_from(password_file) if password_file else "", TlsPolicy(tls) if tls else None)


def _note_without_effect(found: Account) -> None:
    made = max(found.boosts, key=lambda each: each.boost, default=None)
    if found.tier_rate is None:
        common.note(f"note: the boost has no effect: {found.account} is unmetered")
    elif made is not None and made.rate <= found.tier_rate:
        common.note(f"note: the boost has no effect: the tier of {found.account} is no slower, {found.tier_rate:,.0f} messages per hour")


def _boost_said(each: Boost) -> str:
    said = f"{each.rate:,.0f} messages per hour from {common.shown(each.start)} until {common.shown(each.end)}"
    return said + (f", by {each.who}" if each.who else "") + (f": {each.why}" if each.why else "")


def _term_facts(found: Term) -> list[tuple[str, object]]:
    if found.phase is None:
        return [("term", "none: it sends without end")]
    return [
        ("term", found.phase),
        ("ends", found.ends or "never"),
        ("may be renewed until", found.grace_ends),
        ("may be purged from", found.purge_at),
        ("may send", _may_send(found)),
    ]


def _may_send(found: Term) -> str:
    if found.phase == "deleted":
        return "no, and nothing lifts that: it is purged, and its id is never used again"
    return "yes" if found.may_send else f"no: sendengine account term {found.account} --renew TIME"


def _hold_said(each: Hold) -> str:
    said = f"{each.title}, since {common.shown(each.since)}" + (f", by {each.who}" if each.who else "")
    return f"{said}{f': {each.text}' if each.text else ''}. What to do: {each.remedy}. Who lifts it: {each.department}"


def _show(found: Account, json: bool) -> None:
    if json:
        common.emit(found)
        return
    facts = [
        ("tier", found.tier),
        ("rate in force", "unmetered" if found.rate is None else f"{found.rate:,.0f} messages per hour"),
        *((f"boost {each.boost}", _boost_said(each)) for each in found.boosts),
        ("rate achieved", found.rate_achieved),
        ("edition", found.edition),
        ("channels", ", ".join(found.channels) if found.channels else None),
        ("seats", found.seats),
        ("credits", f"{found.credits:,.10g}" if found.credits is not None else "none were bought"),
        ("events from billing", found.billing_sequence or None),
        ("billing waits", found.billing_waits.said if found.billing_waits else None),
        *(("unpaid order", each.said) for each in found.orders),
        *_term_facts(found.term),
        *((f"held: {each.reason}", _hold_said(each)) for each in found.holds),
        ("relay", found.relay or "the configuration's"),
        ("its user", found.relay_user),
        ("its TLS", found.relay_tls),
        ("retries", found.retry or "as the configuration says"),
        ("created", found.created_at),
        ("sends", f"{len(found.sends):,}: {', '.join(found.sends)}" if found.sends else "none goes on"),
        ("binds now", f"{found.binding_channel}: {views.said(found.binding)}" if found.binding else None),
    ]
    common.show_facts(found.account, facts)
