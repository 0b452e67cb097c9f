"""One transactional message: ahead of any bulk send, in the account's campaign of single messages."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from sendengine import remedies
from sendengine.addressing import BY_MAIL, by_phone
from sendengine.batch import BATCH_ROWS, MAX_CONTENT, Batch, content, seal
from sendengine.config import Config
from sendengine.errors import Conflict, LacksCredit, RefusedInput, Unavailable, about
from sendengine.lanes import SMS, owner
from sendengine.policy.prices import MILLI, PriceTable, shown
from sendengine.policy.senders import sender_id
from sendengine.ports import Desk
from sendengine.records import SENDER, TRANSACTIONAL
from sendengine.remedies import Remedy, said
from sendengine.render.compile import Skeleton
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message, dump
from sendengine.render.sms import Pricing, SmsText
from sendengine.render.values import RenderFailure
from sendengine.scheduler.names import Ref, envelope_sender
from sendengine.scheduler.outcomes import DOMAIN, QUEUED_AT
from sendengine.scheduler.submitting import campaign_fields
from sendengine.types import OnDoubt


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One message as its caller asked for it. `lane` is the account, or for an SMS its other lane, with `prices` and `region`, where
    numbers without a country code are at home. `sender` is the envelope's ("": the address in From), or the one that an SMS shows. The same
    `key` again is the same message."""

    lane: str
    message: Message
    to: str
    key: str
    sender: str = ""
    fields: Mapping[str, Any] = {}
    region: str = ""
    prices: PriceTable | None = None


class Single(msgspec.Struct, frozen=True):
    """`index` is its row in the outcomes of `campaign`; an SMS has no `message_id` ("")."""

    campaign: str
    account: str
    recipient: str
    index: int
    message_id: str


async def send(desk: Desk, config: Config, asked: Asked, uid: str) -> Single:
    """`uid` names the campaign of single messages when this is the first. Raises RefusedInput for what cannot be rendered or paid for,
    Conflict where another message has the key."""
    ref = Ref(asked.lane, TRANSACTIONAL)
    skeleton = SmsText(asked.message) if asked.prices else compile_message(asked.message, uid)
    sender = _sender(asked, skeleton)
    batch = _batch(asked, skeleton, sender, await desk.now_us() / 1e6)
    payload, price, text = _payload(skeleton, batch), _price(asked, skeleton, batch), dump(asked.message)
    digest = _digest(text, batch)
    stored = await desk.transact(ref.account, payload, text, asked.key, digest, price)
    if stored.status == "missing":
        await _create(desk, config, asked, sender, uid)
        stored = await desk.transact(ref.account, payload, text, asked.key, digest, price)
    if stored.status == "missing":
        raise Unavailable(f"{ref} was made and is gone: nothing was sent", "repeat the call")
    if stored.status == "differs":
        what = f"another message of {owner(ref.account)} has the key {asked.key!r}: nothing was sent"
        raise Conflict(what, "give each message a key of its own")
    if stored.status == "credit":
        what = f"it costs {shown(stored.needed)} credits, {shown(stored.free)} are free: nothing was sent"
        remedy = said(remedies.grant_credits(owner(ref.account), shown(stored.needed - stored.free)), ", and repeat the call")
        raise LacksCredit(what, remedy, "", stored.needed / MILLI, stored.free / MILLI)
    index, message_id = BATCH_ROWS * stored.number, ""
    if not asked.prices:
        uid = (await desk.campaign(ref.account, ref.id))["uid"]
        message_id = f"<{uid}.{stored.number}.{index}@{skeleton.from_domain}>"
    return Single(str(ref), owner(ref.account), batch.recipients[0], index, message_id)


def _sender(asked: Asked, skeleton: Skeleton | SmsText) -> str:
    if isinstance(skeleton, SmsText):
        return sender_id(asked.sender).text
    return envelope_sender(asked.sender or skeleton.from_address)


def _batch(asked: Asked, skeleton: Skeleton | SmsText, sender: str, now: float) -> Batch:
    lacking = sorted(name for name in skeleton.required if asked.fields.get(name) in (None, ""))
    if lacking:
        given = Remedy(f"--field {lacking[0]}=VALUE (in Python fields={{{lacking[0]!r}: …}})", f"`fields` with {lacking[0]!r}")
        remedy = said(given, f', or give the message a default: {{{{ {lacking[0]} | default("…") }}}}')
        raise RefusedInput(f"no value for the field {lacking[0]!r}", remedy)
    whom = by_phone(asked.region) if asked.prices else BY_MAIL
    try:
        recipient = whom.normalise(asked.to)
    except RefusedInput as error:
        with about("to"):
            raise RefusedInput(f"{asked.to!r}: {error}") from None
    own = {SENDER: sender, DOMAIN: skeleton.from_domain, QUEUED_AT: now}
    values = {name: asked.fields[name] for name in skeleton.fields if name in asked.fields} | own
    return Batch(0, [0], [recipient], tuple(values), [[value] for value in values.values()])


def _price(asked: Asked, skeleton: Skeleton | SmsText, batch: Batch) -> bytes:
    if asked.prices is None or not isinstance(skeleton, SmsText):
        return b""
    faults: dict[int, str] = {}
    [price] = Pricing(skeleton, asked.prices).prices(batch.recipients, batch.fields, batch.columns, faults)
    if faults:
        raise RefusedInput(faults[0])
    return price.to_bytes(4, "little")


def _digest(message: bytes, batch: Batch) -> bytes:
    """What makes it this message: a repeat under its key says the same, some time later."""
    said = {name: column for name, column in zip(batch.fields, batch.columns, strict=True) if name != QUEUED_AT}
    return blake2b(orjson.dumps([batch.recipients, said], option=orjson.OPT_SORT_KEYS) + message, digest_size=8).digest()


def _payload(skeleton: Skeleton | SmsText, batch: Batch) -> bytes:
    """The packed batch of a message that was rendered once, to be thrown away: what a worker would bounce is refused here."""
    try:
        octets = content(batch)
    except TypeError as error:
        raise RefusedInput(f"the fields: {error}") from None
    if len(octets) > MAX_CONTENT:
        raise RefusedInput(f"the fields are over {MAX_CONTENT >> 20} MiB")
    (rendered,) = skeleton.renderer(True).prepare(batch.fields, batch.columns, batch.recipients)
    if isinstance(rendered, RenderFailure):
        raise RefusedInput(rendered.reason)
    return seal(octets)


async def _create(desk: Desk, config: Config, asked: Asked, sender: str, uid: str) -> None:
    """The lane's campaign of single messages; somebody else may make it at the same time."""
    fields = campaign_fields(config, await desk.account(asked.lane), uid, sender, OnDoubt.RESEND)
    channel = {"channel": SMS} if asked.prices else {}
    answer = await desk.create(asked.lane, TRANSACTIONAL, b"single messages", None, b"", fields | channel)
    if answer == "account":
        raise Conflict(f"account {asked.lane} is gone")
