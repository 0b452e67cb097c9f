"""Proofs over HTTP: that a send adds up, recipient by recipient; and what was set aside because workers died of it."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from sendengine.api import streams
from sendengine.api.call import Call
from sendengine.api.operations import Nothing, Operation
from sendengine.policy.apikeys import Scope
from sendengine.scheduler.fsck import Checked
from sendengine.scheduler.quarantine import SetAside
from sendengine.scheduler.status import Status

encode = msgspec.json.encode


async def check(call: Call) -> Checked:
    return await anext(call.client.check(await call.send()))


async def repair(call: Call) -> Checked:
    send = await call.send()
    await call.body(Nothing)
    return await anext(call.client.check(send, repair=True, who=call.who))


async def check_account(call: Call) -> Response:
    account = call.account()
    await call.client.account(account)
    return await streams.ndjson(call, call.client.check(account=account), encode)


async def quarantined(call: Call) -> Response:
    account = call.account()
    await call.client.account(account)
    return await streams.ndjson(call, call.client.quarantined(account=account), encode)


async def replay(call: Call) -> Status:
    send = await call.send()
    await call.body(Nothing)
    return await call.client.replay(send, who=call.who)


_SEND, _ACCOUNT = "/v1/sends/{send}", "/v1/accounts/{account}"
OPERATIONS = (
    Operation(
        name="checkSend", method="GET", path=_SEND + "/fsck", scope=Scope.ADMIN, handler=check, answer=Checked,
        summary="Prove that accepted = sum of outcomes + pending, recipient by recipient; nothing is changed.",
    ),
    Operation(
        name="repairSend", method="POST", path=_SEND + "/repair", scope=Scope.ADMIN, operators=True, handler=repair, body=Nothing,
        answer=Checked, summary="The same, and who stands nowhere is put back; the findings are those of before.",
    ),
    Operation(
        name="replaySend", method="POST", path=_SEND + "/replay", scope=Scope.ADMIN, handler=replay, body=Nothing, answer=Status,
        summary="What was set aside may be sent again.",
    ),
    Operation(
        name="checkAccount", method="GET", path=_ACCOUNT + "/fsck", scope=Scope.ADMIN, handler=check_account, answer=Checked,
        media=streams.NDJSON, summary="Of each send of both channels; and of its credits, where they do not add up.",
    ),
    Operation(
        name="listQuarantine", method="GET", path=_ACCOUNT + "/quarantine", scope=Scope.ADMIN, handler=quarantined, answer=SetAside,
        media=streams.NDJSON, summary="Batches set aside: three workers in a row died with them in hand.",
    ),
)  # fmt: skip
