"""`sms submit|send|set`: SMS of an account. Its sends are steered and looked at by the same verbs as those of e-mail."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from sendengine.commands import common, sends
from sendengine.commands.account import Because, Who
from sendengine.commands.common import AccountFlag, Json
from sendengine.commands.prepaid import Region

app = common.group("SMS, paid for with credits.")


@app.command()
def submit(
    account: AccountFlag,
    sender: Annotated[str, typer.Option(metavar="NAME|NUMBER", help="Who it is from: up to 11 letters, a number, a short code.")],
    text: Annotated[str, typer.Option(metavar="TEXT", help="What it says; {{ name }} is a merge field. @FILE reads it from a file.")],
    recipients: Annotated[str, typer.Option(metavar="FILE|-", help="CSV with a column phone, or NDJSON; the others are merge fields.")],
    region: Region = "",
    campaign: Annotated[str, typer.Option(metavar="ID", help="Its id: the same call with the same id changes nothing.")] = "",
    at: Annotated[str, typer.Option(metavar="TIME", help="When it starts: 2026-05-01T08:00:00Z, '2026-05-01 08:00', +2h30m.")] = "",
    sequential: Annotated[bool, typer.Option("--sequential", help="It waits for its turn among the sequential ones.")] = False,
    priority: Annotated[str, typer.Option(metavar="FIELD", help="A field with an integer 0-9; 9 goes first.")] = "",
    window: Annotated[str, typer.Option(metavar="'Mon-Fri 09:00-17:00 Europe/Prague'", help="It sends inside these hours only.")] = "",
    on_doubt: Annotated[str, typer.Option(metavar="resend|hold", help="What becomes of a message whose fate is unknown.")] = "resend",
    retry: Annotated[str, typer.Option(metavar="'1m, 5m*2, 1h'", help="When who could not be reached is tried again.")] = "",
    lifetime: Annotated[str, typer.Option(metavar="12h", help="How long, from a message's first try; then it has expired.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="One bad row refuses the whole list.")] = False,
    rejects: Annotated[Path | None, typer.Option(metavar="FILE", help="Refused rows, as NDJSON.")] = None,
    json: Json = False,
) -> None:
    """Accept a send of SMS; prints its id, counts and estimate. What it costs is reserved, and nothing goes before all of it is."""
    said = common.sms_text(text)
    with ExitStack() as stack:
        made = sends.submitted(
            stack, rejects,
            lambda client, refused: client.submit_sms(
                account=account, sender=sender, text=said, recipients=Path(recipients), region=region, campaign=campaign or None,
                at=at or None, sequential=sequential, priority=priority or None, window=window or None, on_doubt=on_doubt, strict=strict,
                retry=retry or None, lifetime=lifetime or None, on_reject=refused, on_absent=sends.note_absent,
                who=common.user(),
            ),
        )  # fmt: skip
    sends.show(made, at, json)


@app.command()
def send(
    account: AccountFlag,
    sender: Annotated[str, typer.Option(metavar="NAME|NUMBER", help="Who it is from: up to 11 letters, a number, a short code.")],
    text: Annotated[str, typer.Option(metavar="TEXT", help="What it says; {{ code }} is a merge field. @FILE reads it from a file.")],
    to: Annotated[str, typer.Option("--to", metavar="NUMBER")],
    region: Region = "",
    key: Annotated[str, typer.Option(metavar="TEXT", help="The same key again is the same message: to repeat a call safely.")] = "",
    field: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="The value of a merge field; repeatable.")] = None,
    json: Json = False,
) -> None:
    """One transactional SMS, ahead of bulk. What it costs is reserved."""
    said, values = common.sms_text(text), sends.values_of(field or [])
    made = common.call(
        lambda client: client.send_sms(account=account, sender=sender, text=said, to=to, region=region, fields=values, key=key or None)
    )
    sends.show_single(made, json)


@app.command("set")
def set_(
    account: AccountFlag,
    rate: Annotated[str, typer.Option(metavar="N", help="SMS an hour, or a tier; mail keeps its own.")] = "",
    provider: Annotated[str, typer.Option(metavar="NAME", help="Who carries them, of providers.toml; '-': the configuration's.")] = "",
    why: Because = "",
    who: Who = "",
    json: Json = False,
) -> None:
    """The speed of an account's SMS and who carries them; in force within 1 s, mid-send too."""
    carrier = "" if provider == "-" else provider or None
    by = who or common.user()
    found = common.call(lambda client: client.set_sms(account, rate=rate or None, provider=carrier, who=by, why=why))
    if json:
        common.emit(found)
        return
    common.show_facts(found.account, [("rate", found.rate), ("sends", " ".join(found.sends) or None)])
