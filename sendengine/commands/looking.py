"""`status`, `list`, `outcomes`, `why`, `fsck`, `workers`, `top`: nothing is changed here, but by `fsck --repair`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendengine.commands import common, views
from sendengine.commands.common import Campaign, Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.scheduler.fsck import Finding
    from sendengine.scheduler.outcomes import RecipientOutcome
    from sendengine.scheduler.status import Status
    from sendengine.scheduler.why import Why

OneAccount = Annotated[str, typer.Option("--account", metavar="m1234", help="Of this account only.")]
MaybeAccount = Annotated[str, typer.Argument(metavar="[m1234]")]
MaybeCampaign = Annotated[str, typer.Argument(metavar="[CAMPAIGN]")]
REFRESH_S = 1.0


def status(campaign: MaybeCampaign = "", json: Json = False) -> None:
    """State, counts, rate and finish time of a send, or of all that go on."""
    if not campaign:
        _show_sends("", False, json)
        return
    found = common.call(lambda client: client.status(campaign))
    if json:
        common.emit(found)
    else:
        common.show_facts(found.campaign, views.facts(found))


def list_(one: MaybeAccount = "", account: OneAccount = "", json: Json = False) -> None:
    """All sends, ended ones too; or those of one account."""
    _show_sends(one or account, True, json)


def outcomes(
    campaign: Campaign,
    outcome: Annotated[str, typer.Option(metavar="sent|bounced|…", help="This outcome only.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the send has ended.")] = False,
    json: Json = False,
) -> None:
    """NDJSON, one line per recipient that has ended."""
    from sendengine.errors import RefusedInput
    from sendengine.types import Outcome

    known = [each.name.lower() for each in Outcome]
    if outcome and outcome not in known:
        raise RefusedInput(f"no outcome {outcome!r}", f"one of {' '.join(known)}")

    async def wanted(client: Client) -> AsyncIterator[RecipientOutcome]:
        async for each in client.outcomes(campaign, follow=follow):
            if not outcome or each.outcome == outcome:
                yield each

    common.call(lambda client: common.emit_all(wanted(client), at_once=follow))


def why(name: Annotated[str, typer.Argument(metavar="m1234|CAMPAIGN")], json: Json = False) -> None:
    """The one limit that binds now, since when, and what would lift it."""
    from msgspec import structs

    found = common.call(lambda client: client.explain(name))
    if json:
        common.emit({"name": name, **structs.asdict(found)})
        return
    for each in (found, *found.beside):
        print(_why_said(each))
    if found.billing_waits:
        print(found.billing_waits.said)


def _why_said(found: Why) -> str:
    beside = f" ({found.others:,} other send{'' if found.others == 1 else 's'} of the account go{'es' if found.others == 1 else ''} on)"
    of = f"{found.channel}, {found.campaign}: " if found.campaign else ""
    return of + (views.said(found.binding) or found.idle or "") + (beside if found.others else "")


def fsck(
    campaign: MaybeCampaign = "",
    repair: Annotated[bool, typer.Option("--repair", help="Put back who stands nowhere, and write the counts anew.")] = False,
    json: Json = False,
) -> None:
    """Prove that accepted = sum of outcomes + pending, recipient by recipient, of a send, of an account (m1234) or of all. Exit 1 when
    something does not add up."""

    async def check(client: Client) -> bool:
        sends = accepted = found = left = 0
        async for one in client.check(campaign or None, repair=repair, who=common.user()):
            if json:
                common.emit(one)
            for finding in () if json else one.findings:
                print(_said(finding))
            sends, accepted, found = sends + 1, accepted + one.accepted, found + len(one.findings)
            if one.findings:
                left += len([each async for each in client.fsck(one.campaign)] if repair else one.findings)
        if not json:
            print(_verdict(sends, accepted, found, found - left))
        return left > 0

    raise typer.Exit(1 if common.call(check) else 0)


def workers(json: Json = False) -> None:
    """Who is working, on what."""
    found = common.call(lambda client: client.workers())
    if json:
        for name, said in found.items():
            common.emit({"worker": name, **said})
        return
    common.show_table("", WORKER_COLUMNS, _worker_rows(found))


def durability(json: Json = False) -> None:
    """What may be lost of that which Redis acknowledges, and what would make it durable. Exit 1 when it is not."""
    found = common.call(lambda client: client.durability())
    if json:
        common.emit({"durability": found.level, "durable": found.is_durable, "loses": found.loses, "dangers": found.dangers,
                     "remedy": found.remedy})  # fmt: skip
    else:
        dangers = [("danger", danger) for danger in found.dangers]
        common.show_facts("", [("durability", found.level), ("may be lost", found.loses), *dangers, ("remedy", found.remedy or None)])
    raise typer.Exit(0 if found.is_durable else 1)


def top(json: Json = False) -> None:
    """Workers and sends, live; once where there is no terminal."""

    async def look(client: Client) -> tuple[dict[str, dict[str, Any]], list[Status]]:
        return await client.workers(), [send async for send in client.list(ended=False)]

    async def live(client: Client) -> None:
        import asyncio

        from rich.console import Group
        from rich.live import Live

        with Live(screen=True, auto_refresh=False) as screen:
            while True:
                found, sends = await look(client)
                rows = views.rows(sends)
                tables = common.table("Workers", WORKER_COLUMNS, _worker_rows(found)), common.table("Sends", views.COLUMNS, rows)
                screen.update(Group(*tables), refresh=True)
                await asyncio.sleep(REFRESH_S)

    if not json and sys.stdout.isatty():
        common.call(live)
        return
    found, sends = common.call(look)
    if json:
        common.emit({"workers": [{"worker": name, **said} for name, said in found.items()], "sends": sends})
        return
    common.show_table("Workers", WORKER_COLUMNS, _worker_rows(found))
    common.show_table("Sends", views.COLUMNS, views.rows(sends))


WORKER_COLUMNS = ("worker", "host", "pid", "last seen", "accounts", "rows", "sessions", "doubtful", "bound by", "busy with")


def _worker_rows(found: dict[str, dict[str, Any]]) -> list[tuple[object, ...]]:
    return [_worker_row(name, said) for name, said in found.items()]


def _worker_row(name: str, said: dict[str, Any]) -> tuple[object, ...]:
    from sendengine.scheduler.view import SILENT_AFTER

    bound = ", ".join(f"{n} {limit}" for limit, n in said.get("bound", {}).items())
    age = said.get("silent_s")
    last_seen = "over a day ago" if age is None else f"{common.duration(age)} ago"
    busy = " ".join(said.get("busy", ()))
    if age is None or age >= SILENT_AFTER:
        busy = f"(silent; was: {busy})" if busy else "(silent)"
    pid = str(said["pid"]) if "pid" in said else None
    figures = (said.get(field) for field in ("accounts", "rows", "sessions", "doubtful"))
    return (name, said.get("host"), pid, last_seen, *figures, bound, busy)


def _show_sends(account: str, ended: bool, json: bool) -> None:
    async def read(client: Client) -> list[Status]:
        return [send async for send in client.list(account or None, ended=ended)]

    found = common.call(read)
    if json:
        for send in found:
            common.emit(send)
    else:
        common.show_table("", views.COLUMNS, views.rows(found))


def _verdict(sends: int, accepted: int, found: int, repaired: int) -> str:
    checked = f"{sends:,} send{'' if sends == 1 else 's'} checked, {accepted:,} recipients accepted: "
    if not found:
        return checked + "all adds up"
    return checked + f"{found:,} finding{'' if found == 1 else 's'}" + (f", {repaired:,} repaired" if repaired else "")


def _said(finding: Finding) -> str:
    who = f" row {finding.row} ({finding.recipient})" if finding.row is not None else ""
    return f"{finding.campaign}:{who} {finding.what}"
