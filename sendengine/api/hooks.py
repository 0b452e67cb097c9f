"""Webhooks out over HTTP: subscriptions, and the side of the process that tells."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sendengine.api.call import Call, Reply, Services
from sendengine.api.operations import Operation, Param
from sendengine.policy.apikeys import Scope
from sendengine.policy.hooks import EVENTS
from sendengine.posting import HttpPoster
from sendengine.scheduler import hooks
from sendengine.scheduler.hooks import HookShown, NewHook, Teller

Event = Literal["send.finished", "bounce", "complaint", "hold", "credit.low", "tier.changed"]
assert set(Event.__args__) == set(EVENTS)  # type: ignore[attr-defined]


class NewHookGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`credit_below`: SMS credits below which `credit.low` is told."""

    url: str
    events: Annotated[list[Event], Meta(min_length=1)]
    account: str | None = None
    credit_below: Annotated[int, Meta(ge=0, le=10**9)] = 100


def _account(call: Call) -> str:
    """That of the query; an account's key needs name none."""
    return call.account_named(call.query("account").text("account"))


async def create(call: Call) -> Reply:
    asked = await call.body(NewHookGiven)
    account = call.account_named(asked.account)
    made = await call.client.create_hook(
        account, asked.url, asked.events, seat=call.key.seat, credit_below=asked.credit_below,
        may_be_private=call.limits.private_webhooks, who=call.who,
    )  # fmt: skip
    return Reply(made, 201, {"Location": f"/v1/webhooks/{made.id}"})


async def listed(call: Call) -> list[HookShown]:
    return await call.client.hooks(_account(call))


async def show(call: Call) -> HookShown:
    return await hooks.one(call.client.desk, _account(call), call.request.path_params["hook"])


async def remove(call: Call) -> HookShown:
    return await call.client.remove_hook(_account(call), call.request.path_params["hook"], who=call.who)


async def rotate(call: Call) -> NewHook:
    return await call.client.rotate_hook(_account(call), call.request.path_params["hook"], who=call.who)


async def attempt(call: Call) -> Reply:
    return Reply(await call.client.try_hook(_account(call), call.request.path_params["hook"]), 202)


async def tell(services: Services) -> None:
    """As long as the process serves: whoever needs to be told is, by this process or another."""
    async with HttpPoster(services.limits.private_webhooks) as poster:
        await Teller(services.client.desk, poster, services.meter.hook).run()


_OF = (Param("account", "Whose; an account's key needs name none."),)
OPERATIONS = (
    Operation(
        name="createWebhook", method="POST", path="/v1/webhooks", scope=Scope.ADMIN, handler=create, body=NewHookGiven, answer=NewHook,
        status=201,
        summary="Be told of what happens from now on. `secret` signs what is told, and is shown here and never again.",
    ),
    Operation(
        name="listWebhooks", method="GET", path="/v1/webhooks", scope=Scope.ADMIN, handler=listed, answer=list[HookShown], params=_OF,
        summary="Those that are told.",
    ),
    Operation(
        name="showWebhook", method="GET", path="/v1/webhooks/{hook}", scope=Scope.ADMIN, handler=show, answer=HookShown, params=_OF,
        summary="One that is told.",
    ),
    Operation(
        name="removeWebhook", method="DELETE", path="/v1/webhooks/{hook}", scope=Scope.ADMIN, handler=remove, answer=HookShown,
        params=_OF, summary="It is told nothing any more, nor what is on its way to it.",
    ),
    Operation(
        name="rotateWebhook", method="POST", path="/v1/webhooks/{hook}/rotate", scope=Scope.ADMIN, handler=rotate, answer=NewHook,
        params=_OF, summary="Another secret; the present one signs beside it for a day.",
    ),
    Operation(
        name="testWebhook", method="POST", path="/v1/webhooks/{hook}/test", scope=Scope.ADMIN, handler=attempt, answer=HookShown,
        status=202, params=_OF, summary="Tell it of an event `test`.",
    ),
)  # fmt: skip
