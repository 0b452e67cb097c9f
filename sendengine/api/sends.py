"""Sends over HTTP: made, loaded, sealed, steered, watched; and single messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from sendengine.api import problems, streams
from sendengine.api.call import Call, Reply
from sendengine.api.operations import IDEMPOTENCY, Nothing, Operation, Param
from sendengine.api.problems import Problem
from sendengine.errors import RefusedInput
from sendengine.intake import Rejected
from sendengine.lanes import others
from sendengine.policy.apikeys import Scope
from sendengine.render.message import Attachment, Message
from sendengine.scheduler.messages import address_in, message_of
from sendengine.scheduler.outcomes import RecipientOutcome
from sendengine.scheduler.single import Single
from sendengine.scheduler.status import Send, Status
from sendengine.types import Outcome

SHOWN_REJECTS = 100
EVENTS_S = 1.0
encode = msgspec.json.encode
Row = dict[str, Any]
Text = Annotated[str, Meta(max_length=10_000)]


class AttachmentGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data` in base64."""

    filename: str
    data: bytes
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class MessageGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Either `message`, a whole one (RFC 5322), or `subject` with `html` and/or `text` and `from`; texts may hold merge fields."""

    account: str | None = None
    sender: str = msgspec.field(name="from", default="")
    message: str | None = None
    subject: str = ""
    html: str | None = None
    text: str | None = None
    reply_to: str | None = None
    headers: dict[str, str] = {}
    list_unsubscribe: str | None = None
    attachments: list[AttachmentGiven] = []

    def made(self) -> Message:
        whole = None if self.message is None else self.message.encode()
        return message_of(
            self.sender, whole, self.subject, self.html, self.text, reply_to=self.reply_to, headers=self.headers,
            list_unsubscribe=self.list_unsubscribe, attachments=[Attachment(**msgspec.structs.asdict(each)) for each in self.attachments],
        )  # fmt: skip


class NewSend(MessageGiven, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Without `recipients` the send is opened: they are uploaded, and then it is sealed. `campaign` is its id in the account."""

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


class NewMessage(MessageGiven, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One transactional message to one recipient; `fields` are the values of its merge fields."""

    to: str
    fields: Row = {}


class Refusals(msgspec.Struct, frozen=True):
    """Refused rows, the first hundred of them."""

    count: int
    rows: list[RejectedRow]


class RejectedRow(msgspec.Struct, frozen=True):
    line: int
    row: int
    reason: str
    text: str


class SendMade(Send, frozen=True, kw_only=True):
    """`absent`: fields that no row had a column for, each with the nearest column or ""."""

    refused: Refusals
    absent: dict[str, str]


class ListLoaded(msgspec.Struct, frozen=True):
    """`added` are rows that were not there before; `next_batch` is the `first_batch` of a further list."""

    campaign: str
    rows: int
    added: int
    rejected: int
    first_batch: int
    next_batch: int
    absent: dict[str, str]
    refused: Refusals


class Sealing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rows`: how many the send must have, to be sure that none was lost on the way. With it what stands of a list that was begun
    and has not ended is sealed, too."""

    rows: Annotated[int, Meta(ge=0, le=10**12)] | None = None


class Moving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    direction: str


class Noted:
    """Refused rows as they are met."""

    def __init__(self) -> None:
        self._rows: list[RejectedRow] = []
        self._count = 0

    def __call__(self, rows: Sequence[Rejected]) -> None:
        self._count += len(rows)
        some = rows[: SHOWN_REJECTS - len(self._rows)]
        self._rows += [RejectedRow(each.line, each.row, each.reason, each.text[:1000]) for each in some]

    def told(self) -> Refusals:
        return Refusals(self._count, self._rows)


async def create(call: Call) -> Reply:
    asked = await call.body(NewSend)
    account = call.account_named(asked.account)
    refuse_long(call, asked.recipients)
    settings: dict[str, Any] = {
        "account": account, "message": asked.made(), "campaign": asked.campaign or campaign_of(account, call.idempotency_key()),
        "at": asked.at, "sequential": asked.sequential, "priority": asked.priority, "window": asked.window, "on_doubt": asked.on_doubt,
        "strict": asked.strict, "retry": asked.retry, "lifetime": asked.lifetime, "sender": address_in(asked.sender),
        "created_by": call.key.seat, "who": call.who,
    }  # fmt: skip
    return await created(call, asked.recipients, partial(call.client.open, **settings), partial(call.client.submit, **settings))


async def created(
    call: Call, rows: list[Row] | None, opened: Callable[[], Awaitable[Send]], submitted: Callable[..., Awaitable[Send]]
) -> Reply:  # fmt: skip
    """A send of either channel: `opened` where its list is still to come, `submitted` with the rows that are given."""
    refused, absent = Noted(), dict[str, str]()
    if rows is None:
        made = await opened()
    else:
        made = await submitted(recipients=rows, on_reject=refused, on_absent=absent.__setitem__)
        call.services.meter.rows(len(rows))
    value = SendMade(**msgspec.structs.asdict(made), refused=refused.told(), absent=absent)
    return Reply(value, 201 if made.created else 200, {"Location": f"/v1/sends/{made.id}"})


def refuse_long(call: Call, rows: list[Row] | None) -> None:
    if rows is not None and len(rows) > call.limits.max_inline:
        raise Problem(problems.TOO_LARGE, f"{len(rows):,} recipients in the body, {call.limits.max_inline:,} may be")


def campaign_of(account: str, key: str | None) -> str | None:
    """A request that is repeated by its key is the send of the same id: what makes a submit idempotent makes it so."""
    return None if key is None else "k-" + blake2b(key.encode(), key=account.encode(), digest_size=16).hexdigest()


async def load(call: Call) -> ListLoaded:
    campaign = await call.send()
    first = call.query("first_batch").count("first_batch", 0)
    refused = Noted()
    with call.services.door.uploads.one(call.key.digest):
        loaded = await call.services.bulk.load(
            campaign, call.upload(), first_batch=first or 0, on_reject=refused, pool=call.services.pool, who=call.who
        )
    call.services.meter.rows(loaded.rows)
    return ListLoaded(campaign=campaign, refused=refused.told(), **msgspec.structs.asdict(loaded))


async def seal(call: Call) -> Send:
    campaign = await call.send()
    return await call.client.seal(campaign, rows=(await call.body(Sealing)).rows, who=call.who)


async def listed(call: Call) -> Response:
    query = call.query("account", "ended")
    wanted = query.text("account")
    account = call.account_named(wanted) if wanted or not call.key.is_operator else None
    return await streams.ndjson(call, _sends(call, account, query.flag("ended")), encode)


async def _sends(call: Call, account: str | None, ended: bool) -> AsyncIterator[Status]:
    """Of an account those of all its lanes."""
    for lane in [None] if account is None else [account, *others(account)]:
        if lane in (None, account) or await call.client.desk.account(str(lane)):
            async for each in call.client.list(lane, ended=ended):
                yield each


async def show(call: Call) -> Status:
    return await call.client.status(await call.send())


async def watch(call: Call) -> Response:
    return await streams.events(call, call.client.watch(await call.send(), EVENTS_S), encode)


async def outcomes(call: Call) -> Response:
    campaign, query = await call.send(), call.query("outcome", "follow")
    known, wanted = [each.name.lower() for each in Outcome], query.text("outcome")
    if wanted and wanted not in known:
        raise RefusedInput(f"no outcome {wanted!r}", f"one of {' '.join(known)}")
    return await streams.ndjson(call, _of(wanted, call.client.outcomes(campaign, follow=query.flag("follow"))), encode)


async def _of(wanted: str | None, found: AsyncIterator[RecipientOutcome]) -> AsyncIterator[RecipientOutcome]:
    async for each in found:
        if wanted in (None, each.outcome):
            yield each


async def steer(verb: str, call: Call) -> Status:
    campaign = await call.send()
    await call.body(Nothing)
    found: Status = await getattr(call.client, verb)(campaign, who=call.who)
    return found


async def move(call: Call) -> Status:
    campaign = await call.send()
    return await call.client.move(campaign, (await call.body(Moving)).direction, who=call.who)


async def resend(call: Call) -> Reply:
    campaign = await call.send()
    await call.body(Nothing)
    made = await call.client.resend(campaign, who=call.who)
    return Reply(made, 201 if made.created else 200, {"Location": f"/v1/sends/{made.id}"})


async def send_message(call: Call) -> Reply:
    asked = await call.body(NewMessage)
    account = call.account_named(asked.account)
    made = await call.client.send(
        account=account, message=asked.made(), to=asked.to, sender=address_in(asked.sender), fields=asked.fields,
        key=call.idempotency_key(),
    )  # fmt: skip
    return Reply(made, 202)


_SEND = "/v1/sends/{send}"
_FLAG = {"type": "boolean", "default": False}
_VERBS = {
    "pause": "Stop a send; it keeps its place and uses up no attempt.",
    "resume": "Go on with those not yet reached.",
    "cancel": "End a send: the rest gets the outcome cancelled.",
    "reverse": "Swap the order of the rest.",
}
OPERATIONS = (
    Operation(
        name="createSend", method="POST", path="/v1/sends", scope=Scope.SEND, handler=create, body=NewSend, answer=SendMade, status=201,
        others=(200,), params=(IDEMPOTENCY,),
        summary="Accept a send. 200, not 201: the same send stood already; `added` rows of the list were new.",
    ),
    Operation(
        name="listSends", method="GET", path="/v1/sends", scope=Scope.READ, handler=listed, answer=Status, media=streams.NDJSON,
        params=(Param("account", "Of this account only."), Param("ended", "Those that have ended, too.", _FLAG)),
        summary="Sends, oldest first.",
    ),
    Operation(
        name="showSend", method="GET", path=_SEND, scope=Scope.READ, handler=show, answer=Status,
        summary="State, counts, rate and finish time.",
    ),
    Operation(
        name="loadRecipients", method="POST", path=_SEND + "/recipients", scope=Scope.SEND, handler=load, upload=True, answer=ListLoaded,
        params=(Param("first_batch", "The `next_batch` of the list before this one.", {"type": "integer", "minimum": 0, "default": 0}),),
        summary="Upload recipients, NDJSON or CSV, of any length. The same upload again changes nothing; one that broke off goes on.",
    ),
    Operation(
        name="sealSend", method="POST", path=_SEND + "/seal", scope=Scope.SEND, handler=seal, body=Sealing, answer=Send,
        summary="The list is complete. 409 while an upload of it has begun and not ended, unless `rows` is the number that stands.",
    ),
    Operation(
        name="watchSend", method="GET", path=_SEND + "/events", scope=Scope.READ, handler=watch, answer=Status, media=streams.EVENTS,
        summary="The status whenever it changes, until the end (server-sent events).",
    ),
    Operation(
        name="listOutcomes", method="GET", path=_SEND + "/outcomes", scope=Scope.READ, handler=outcomes, answer=RecipientOutcome,
        media=streams.NDJSON, params=(Param("outcome", "This outcome only."), Param("follow", "Go on until the send has ended.", _FLAG)),
        summary="What became of each recipient that has ended, one a line.",
    ),
    *(
        Operation(
            name=f"{verb}Send", method="POST", path=f"{_SEND}/{verb}", scope=Scope.SEND, handler=partial(steer, verb), body=Nothing,
            answer=Status, summary=summary,
        )
        for verb, summary in _VERBS.items()
    ),
    Operation(
        name="moveSend", method="POST", path=_SEND + "/move", scope=Scope.SEND, handler=move, body=Moving, answer=Status,
        summary="Move a waiting sequential send one place `up` or `down` the line.",
    ),
    Operation(
        name="resendSend", method="POST", path=_SEND + "/resend", scope=Scope.SEND, handler=resend, body=Nothing, answer=Send, status=201,
        others=(200,), summary="A new send, under the id ID-r1, to those of an ended one without the outcome sent.",
    ),
    Operation(
        name="sendMessage", method="POST", path="/v1/messages", scope=Scope.SEND, handler=send_message, body=NewMessage, answer=Single,
        status=202, params=(IDEMPOTENCY,), summary="One transactional message, ahead of bulk.",
    ),
)  # fmt: skip
