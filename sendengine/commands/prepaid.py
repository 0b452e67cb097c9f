"""`credits grant|show|history|estimate`: what SMS are paid with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common
from sendengine.commands.common import AccountFlag, Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.scheduler.prepaid import Credits

app = common.group("SMS credits, by lot.")

Region = Annotated[str, typer.Option(metavar="SE", help="Where numbers without a country code are at home.")]
LOT_COLUMNS = ("lot", "state", "granted", "reserved", "spent", "free", "bought", "expires")
MOVE_COLUMNS = ("at", "what", "credits", "send", "lots", "who", "why")


@app.command()
def grant(
    account: AccountFlag,
    amount: Annotated[str, typer.Argument(metavar="CREDITS", help="How many, three decimals at most.")],
    key: Annotated[str, typer.Option(metavar="TEXT", help="The order's id: the same key again is the same lot.")] = "",
    at: Annotated[str, typer.Option(metavar="TIME", help="When they were bought; else now.")] = "",
    why: Annotated[str, typer.Option(metavar="TEXT", help="Kept in the ledger.")] = "",
    json: Json = False,
) -> None:
    """A lot of credits that was paid for."""
    who = common.user()
    _show(common.call(lambda client: client.grant_credits(account, amount, key=key or None, at=at or None, who=who, why=why)), json)


@app.command()
def show(account: AccountFlag, json: Json = False) -> None:
    """What is reserved, spent and free, and until when each lot is good."""
    _show(common.call(lambda client: client.credits(account)), json)


@app.command()
def history(account: AccountFlag, json: Json = False) -> None:
    """The ledger, oldest first."""

    async def read(client: Client) -> None:
        moves = client.credit_history(account)
        if json:
            await common.emit_all(moves)
            return
        rows = [
            (move.at, move.kind, _amount(move.credits), move.campaign, " ".join(map(str, move.lots)), move.who, move.why)
            async for move in moves
        ]
        common.show_table(account, MOVE_COLUMNS, rows)

    common.call(read)


@app.command()
def estimate(
    account: AccountFlag,
    recipients: Annotated[str, typer.Option(metavar="FILE|-", help="CSV with a column phone, or NDJSON.")],
    text: Annotated[str, typer.Option(metavar="TEXT", help="What would be said, or @FILE; merge fields are counted as filled in.")],
    region: Region = "",
    json: Json = False,
) -> None:
    """What a list would cost now."""
    said = common.sms_text(text)
    found = common.call(lambda client: client.sms_cost(account, said, Path(recipients), region=region))
    if json:
        common.emit(found)
        return
    facts = [
        ("recipients", found.recipients), ("rejected", found.rejected), ("duplicates", found.duplicates), ("parts", found.parts),
        ("credits", _amount(found.credits)), ("free", _amount(found.free)), ("enough", found.is_enough), ("price table", found.prices),
    ]  # fmt: skip
    common.show_facts(account, facts)


def _show(found: Credits, json: bool) -> None:
    if json:
        common.emit(found)
        return
    sums = ("granted", "reserved", "spent", "free", "frozen", "expired")
    common.show_facts(found.account, [(name, _amount(getattr(found, name))) for name in sums])
    rows = [
        (lot.lot, lot.state, *map(_amount, (lot.granted, lot.reserved, lot.spent, lot.free)), lot.bought_at, lot.expires_at or "–")
        for lot in found.lots
    ]
    common.show_table("", LOT_COLUMNS, rows)


def _amount(credits_: float) -> str:
    return f"{credits_:,.3f}".rstrip("0").rstrip(".")
