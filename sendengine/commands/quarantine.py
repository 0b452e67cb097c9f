"""`quarantine list|replay`: batches that workers died of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common, views
from sendengine.commands.common import Campaign, Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.scheduler.quarantine import SetAside

app = common.group("Batches set aside because workers died of them.")


@app.command("list")
def list_(campaign: Annotated[str, typer.Argument(metavar="[CAMPAIGN]")] = "", json: Json = False) -> None:
    """What is set aside, of one send or of all."""

    async def read(client: Client) -> list[SetAside]:
        return [each async for each in client.quarantined(campaign or None)]

    found = common.call(read)
    if json:
        for each in found:
            common.emit(each)
        return
    rows = [(each.campaign, each.batch, each.rows, f"{each.indexes[0]} … {each.indexes[-1]}") for each in found]
    common.show_table("", ("send", "batch", "recipients", "input rows"), rows)


@app.command()
def replay(campaign: Campaign, json: Json = False) -> None:
    """Let them be sent again."""
    found = common.call(lambda client: client.replay(campaign, who=common.user()))
    if json:
        common.emit(found)
    else:
        common.show_facts(found.campaign, views.facts(found))
