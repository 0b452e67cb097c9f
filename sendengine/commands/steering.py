"""`pause`, `resume`, `cancel`, `reverse`, `move`: within a second, cluster-wide, durable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common, views
from sendengine.commands.common import Campaign, Json

if TYPE_CHECKING:
    from sendengine.scheduler.status import Status


def pause(campaign: Campaign, json: Json = False) -> None:
    """Stop a send; it keeps its place and uses up no attempt."""
    _show(common.call(lambda client: client.pause(campaign, who=common.user())), json)


def resume(campaign: Campaign, json: Json = False) -> None:
    """Go on with those not yet reached."""
    _show(common.call(lambda client: client.resume(campaign, who=common.user())), json)


def cancel(campaign: Campaign, json: Json = False) -> None:
    """End a send: the rest gets the outcome cancelled."""
    _show(common.call(lambda client: client.cancel(campaign, who=common.user())), json)


def reverse(campaign: Campaign, json: Json = False) -> None:
    """Swap the order of the rest."""
    _show(common.call(lambda client: client.reverse(campaign, who=common.user())), json)


def move(campaign: Campaign, direction: Annotated[str, typer.Argument(metavar="up|down")], json: Json = False) -> None:
    """Move a waiting sequential send one place in the line."""
    _show(common.call(lambda client: client.move(campaign, direction, who=common.user())), json)


def _show(found: Status, json: bool) -> None:
    if json:
        common.emit(found)
    else:
        common.show_facts(found.campaign, views.facts(found))
