"""`event`: one event from billing, as the webhook takes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common
from sendengine.commands.common import Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.scheduler.billing import Applied


def event(
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="The event, as JSON: the octets that were signed.")],
    signature: Annotated[str, typer.Option(metavar="'t=…,v1=…'", help="The header SendEngine-Signature that came with it.")] = "",
    sign: Annotated[bool, typer.Option("--sign", help="Sign it here first, with the secret of the configuration.")] = False,
    json: Json = False,
) -> None:
    """Apply an event from billing. Twice, or before those that precede it, comes to the same.

    Exit 2: it is forged, old, malformed or contradicts another one, and changed nothing; 75: bring it again.
    """
    from sendengine import config
    from sendengine.errors import RefusedInput
    from sendengine.policy.billing import HEADER
    from sendengine.policy.billing import sign as signed

    raw = sys.stdin.buffer.read() if source == "-" else common.text_of(Path(source))
    if signature and sign:
        raise RefusedInput(
            "--signature and --sign at once: it was signed by billing, or is signed here",
            "--signature 't=…,v1=…' as it came with the event, or --sign alone where you hold the secret",
        )
    if not signature and not sign:
        raise RefusedInput(
            "an event is taken with its signature, and none was given",
            "--signature 't=…,v1=…' as it came with the event, or --sign where you hold the secret",
        )
    secrets = config.billing_secrets(config.load())
    if sign and not secrets:
        raise RefusedInput("no secret is shared with billing here", "billing_secrets_file names the file that holds it")

    async def apply(client: Client) -> Applied:
        given = signed(raw, secrets[:1], await client.desk.now_us() / 1e6) if sign else signature
        return await client.apply_event(raw, {HEADER: given})

    _show(common.call(apply), json)


def _show(applied: Applied, json: bool) -> None:
    if json:
        common.emit(applied)
        return
    for each in (applied, *applied.then):
        said = {
            "repeated": "it had come before: nothing changed",
            "waits": f"it waits for sequence {each.expected}",
            "unpaid": "an order: nothing changes until its payment is received",
            "refused": f"it changes nothing: {each.why}",
        }.get(each.status, "applied")
        print(f"{each.event} ({each.type}, {each.account} #{each.sequence}): {said}")
