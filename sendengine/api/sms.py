"""SMS and their credits over HTTP. What is made here is steered, loaded and looked at as any send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from sendengine.api import streams
from sendengine.api.call import Call, Reply
from sendengine.api.operations import IDEMPOTENCY, Operation
from sendengine.api.reading import Speed, speed_of
from sendengine.api.sends import Row, SendMade, Text, campaign_of, created, refuse_long
from sendengine.lanes import sms_lane
from sendengine.policy.apikeys import Scope
from sendengine.scheduler.accounts import Account
from sendengine.scheduler.prepaid import Cost, Credits, Move
from sendengine.scheduler.single import Single

Region = Annotated[str, Meta(max_length=2)]


class NewSmsSend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Without `recipients` the send is opened, as with mail; rows have a `phone`. `region` (SE) is where numbers without a country code are
    at home."""

    sender: Text
    text: Text
    account: str | None = None
    region: Region = ""
    campaign: str | None = None
    recipients: list[Row] | None = None
    at: Text | None = None
    sequential: bool = False
    priority: Text | None = None
    window: Text | None = None
    on_doubt: str = "resend"
    strict: bool = False
    retry: Text | None = None
    lifetime: Text | None = None


class NewSms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One transactional SMS to one number; `fields` are the values of its merge fields."""

    sender: Text
    text: Text
    to: Text
    account: str | None = None
    region: Region = ""
    fields: Row = {}


class SmsGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rate`: SMS an hour, or a tier; `provider`: who carries them, "" the configuration's. What is null stays. `why`: the reason, for the
    audit trail."""

    rate: Speed | None = None
    provider: str | None = None
    why: str = ""


class NewCredits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`at`: when they were bought."""

    amount: Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": 1e9})]
    at: Text | None = None
    why: Text = ""


class Estimating(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Text
    recipients: list[Row]
    region: Region = ""


async def create(call: Call) -> Reply:
    asked = await call.body(NewSmsSend)
    account = call.account_named(asked.account)
    refuse_long(call, asked.recipients)
    settings: dict[str, Any] = msgspec.structs.asdict(asked) | {
        "account": account, "campaign": asked.campaign or campaign_of(account, call.idempotency_key()), "created_by": call.key.seat,
        "who": call.who,
    }  # fmt: skip
    rows = settings.pop("recipients")
    return await created(call, rows, partial(call.client.open_sms, **settings), partial(call.client.submit_sms, **settings))


async def send(call: Call) -> Reply:
    asked = await call.body(NewSms)
    given = msgspec.structs.asdict(asked) | {"account": call.account_named(asked.account), "key": call.idempotency_key()}
    return Reply(await call.client.send_sms(**given), 202)


async def show(call: Call) -> Account:
    return await call.client.account(sms_lane(call.account()))


async def change(call: Call) -> Account:
    account, asked = call.account(), await call.body(SmsGiven)
    rate = None if asked.rate is None else speed_of(asked.rate)
    return await call.client.set_sms(account, rate=rate, provider=asked.provider, who=call.who, why=asked.why)


async def credits_(call: Call) -> Credits:
    return await call.client.credits(call.account())


async def grant(call: Call) -> Reply:
    account, asked = call.account(), await call.body(NewCredits)
    key = call.idempotency_key()
    found = await call.client.grant_credits(account, asked.amount, key=key, at=asked.at, who=call.who, why=asked.why)
    return Reply(found, 201)


async def history(call: Call) -> Response:
    account = call.account()
    await call.client.account(account)
    moves: AsyncIterator[Move] = call.client.credit_history(account)
    return await streams.ndjson(call, moves, msgspec.json.encode)


async def estimate(call: Call) -> Cost:
    account, asked = call.account(), await call.body(Estimating)
    refuse_long(call, asked.recipients)
    return await call.client.sms_cost(account, asked.text, asked.recipients, region=asked.region)


_ACCOUNT = "/v1/accounts/{account}"
OPERATIONS = (
    Operation(
        name="createSmsSend", method="POST", path="/v1/sms/sends", scope=Scope.SEND, handler=create, body=NewSmsSend, answer=SendMade,
        status=201, others=(200,), params=(IDEMPOTENCY,),
        summary="Accept a send of SMS. What it costs is reserved, and nothing goes before all of it is.",
    ),
    Operation(
        name="sendSms", method="POST", path="/v1/sms/messages", scope=Scope.SEND, handler=send, body=NewSms, answer=Single, status=202,
        params=(IDEMPOTENCY,), summary="One transactional SMS, ahead of bulk. What it costs is reserved.",
    ),
    Operation(
        name="showSms", method="GET", path=_ACCOUNT + "/sms", scope=Scope.READ, handler=show, answer=Account,
        summary="The speed of its SMS, their sends, and what binds.",
    ),
    Operation(
        name="setSms", method="PUT", path=_ACCOUNT + "/sms", scope=Scope.ADMIN, operators=True, handler=change, body=SmsGiven,
        answer=Account, summary="The speed of its SMS and who carries them.",
    ),
    Operation(
        name="showCredits", method="GET", path=_ACCOUNT + "/credits", scope=Scope.READ, handler=credits_, answer=Credits,
        summary="Its credits by lot.",
    ),
    Operation(
        name="grantCredits", method="POST", path=_ACCOUNT + "/credits", scope=Scope.ADMIN, operators=True, handler=grant, body=NewCredits,
        answer=Credits, status=201, params=(IDEMPOTENCY,), summary="A lot of credits.",
    ),
    Operation(
        name="listCredits", method="GET", path=_ACCOUNT + "/credits/history", scope=Scope.READ, handler=history, answer=Move,
        media=streams.NDJSON, summary="The ledger, oldest first.",
    ),
    Operation(
        name="estimateCredits", method="POST", path=_ACCOUNT + "/credits/estimate", scope=Scope.READ, handler=estimate, body=Estimating,
        answer=Cost, summary="What a list would cost by the prices in force.",
    ),
)  # fmt: skip
