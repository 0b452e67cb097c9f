"""`suppress add|remove|list|import|export`: who gets nothing any more of an account."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common
from sendengine.commands.common import AccountFlag, Json
from sendengine.commands.sends import Rejects, opened

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.policy.suppression import Suppressed

app = common.group("The list of those who get nothing any more of an account.")

REASONS = "unsubscribed|manual|soft-bounced|hard-bounced|complained"
Addresses = Annotated[list[str], typer.Argument(metavar="ADDRESS...")]
Why = Annotated[str, typer.Option("--reason", metavar=REASONS, help="Why; of several the gravest stands.")]
COLUMNS = ("email", "reason", "since")


@app.command()
def add(addresses: Addresses, account: AccountFlag, reason: Why = "manual", json: Json = False) -> None:
    """Send them nothing more; within 1 s, mid-send too. Who unsubscribed gets single messages yet, the others get none."""

    found = common.call(lambda client: client.suppress(account, addresses, reason, who=common.user()))
    if json:
        common.emit({"account": account, "added": found.added, "changed": found.changed})
    else:
        print(f"{found.added:,} added, {found.changed:,} changed")


@app.command()
def remove(addresses: Addresses, account: AccountFlag, json: Json = False) -> None:
    """Send to them again; sends that passed them by do not come back to them."""

    removed = common.call(lambda client: client.unsuppress(account, addresses, who=common.user()))
    common.emit({"account": account, "removed": removed}) if json else print(f"{removed:,} removed")


@app.command("list")
def list_(
    account: AccountFlag,
    addresses: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS...]")] = None,
    reason: Annotated[str | None, typer.Option(metavar=REASONS, help="Those for this reason only.")] = None,
    json: Json = False,
) -> None:
    """The list, in no order, or those of some addresses that are on it."""

    async def read(client: Client) -> None:
        async for each in client.suppressed(account, addresses or None, reason=reason):
            common.emit(each) if json else print(f"{each.address}\t{each.reason}\t{common.shown(each.since)}")

    common.call(read)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="CSV with a column email, NDJSON, or bare addresses, one a line.")],
    account: AccountFlag,
    reason: Why = "manual",
    rejects: Annotated[Path | None, typer.Option(metavar="FILE", help="Refused rows, as NDJSON.")] = None,
    json: Json = False,
) -> None:
    """Put a file of any length onto the list. Columns `reason` and `since` hold for their rows. The same file again changes nothing."""

    with ExitStack() as stack:
        refused = Rejects(opened(stack, rejects), rejects)
        found = common.call(lambda client: client.import_suppressed(account, Path(source), reason, refused, who=common.user()))
        if rejects is None:
            refused.show()
        refused.name_file()
    if json:
        common.emit({"account": account, "rows": found.rows, "added": found.added, "changed": found.changed, "rejected": found.rejected})
    else:
        print(f"{found.rows:,} rows: {found.added:,} added, {found.changed:,} changed, {found.rejected:,} rejected")


@app.command()
def export(
    target: Annotated[str, typer.Argument(metavar="FILE|-", help="CSV: email, reason, since.")],
    account: AccountFlag,
    reason: Annotated[str | None, typer.Option(metavar=REASONS, help="Those for this reason only.")] = None,
    json: Json = False,
) -> None:
    """Write the whole list as CSV, which `import` reads. While it grows an address may stand there twice."""
    from sendengine.errors import RefusedInput

    try:
        with ExitStack() as stack:
            stream = sys.stdout if target == "-" else stack.enter_context(open(target, "w", encoding="utf-8", newline=""))
            written = common.call(lambda client: _write(client, account, reason, stream))
    except OSError as error:
        raise RefusedInput(f"cannot write {target}: {error.strerror}") from error
    if json and target != "-":
        common.emit({"account": account, "exported": written})
    elif not json:
        common.note(f"{written:,} exported")


async def _write(client: Client, account: str, reason: str | None, stream: IO[str]) -> int:
    rows, part = csv.writer(stream, lineterminator="\n"), []
    rows.writerow(COLUMNS)
    written = 0
    async for each in client.suppressed(account, reason=reason):
        part.append(_row(each))
        if len(part) == 1000:
            rows.writerows(part)
            written, part = written + len(part), []
    rows.writerows(part)
    return written + len(part)


def _row(each: Suppressed) -> Sequence[str]:
    return each.address, each.reason, each.since.isoformat().replace("+00:00", "Z")
