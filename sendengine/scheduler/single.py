"""One transactional message: ahead of any bulk send, in the account's campaign of single messages."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from sendengine.address import BadAddress, normalise
from sendengine.batch import MAX_CONTENT, Batch, content, seal
from sendengine.config import Config
from sendengine.errors import Conflict, RefusedInput, Unavailable, about
from sendengine.ports import Desk
from sendengine.records import SENDER, TRANSACTIONAL
from sendengine.remedies import Remedy, said
from sendengine.render.compile import Skeleton
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message, dump
from sendengine.render.values import RenderFailure
from sendengine.scheduler.names import Ref, envelope_sender
from sendengine.scheduler.outcomes import DOMAIN, QUEUED_AT
from sendengine.scheduler.submitting import campaign_fields
from sendengine.types import OnDoubt


class Single(msgspec.Struct, frozen=True):
    """`index` is its row in the outcomes of the campaign m1234:transactional."""

    campaign: str
    account: str
    recipient: str
    index: int
    message_id: str


async def send(
    desk: Desk, config: Config, account: str, message: Message, to: str, sender: str, uid: str, fields: Mapping[str, Any],
    key: str,
) -> Single:  # fmt: skip
    """`uid` names the campaign of single messages when this is the first; the same `key` again is the same message.

    Raises RefusedInput for what cannot be rendered."""
    skeleton = compile_message(message, uid)
    lacking = sorted(name for name in skeleton.required if fields.get(name) in (None, ""))
    if lacking:
        given = Remedy(f"--field {lacking[0]}=VALUE (in Python fields={{{lacking[0]!r}: …}})", f"`fields` with {lacking[0]!r}")
        remedy = said(given, f', or give the message a default: {{{{ {lacking[0]} | default("…") }}}}')
        raise RefusedInput(f"no value for the field {lacking[0]!r}", remedy)
    try:
        recipient = normalise(to)
    except BadAddress as error:
        with about("to"):
            raise RefusedInput(f"{to!r} is no address: {error}") from None
    envelope = envelope_sender(sender or skeleton.from_address)
    own = {SENDER: envelope, DOMAIN: skeleton.from_domain, QUEUED_AT: await desk.now_us() / 1e6}
    values = {name: fields[name] for name in skeleton.fields if name in fields} | own
    batch = Batch(0, [0], [recipient], tuple(values), [[value] for value in values.values()])
    payload = _payload(skeleton, batch)
    text = dump(message)
    digest = _digest(text, batch)
    stored = await desk.transact(account, payload, text, key, digest)
    if stored.status == "missing":
        await _create(desk, config, account, envelope, uid)
        stored = await desk.transact(account, payload, text, key, digest)
    if stored.status == "missing":
        raise Unavailable(f"{Ref(account, TRANSACTIONAL)} was made and is gone: nothing was sent", "repeat the call")
    if stored.status == "differs":
        raise Conflict(f"another message of {account} has the key {key!r}: nothing was sent", "give each message a key of its own")
    number = stored.number
    uid = (await desk.campaign(account, TRANSACTIONAL))["uid"]
    message_id = f"<{uid}.{number}.{100 * number}@{skeleton.from_domain}>"
    return Single(str(Ref(account, TRANSACTIONAL)), account, recipient, 100 * number, message_id)


def _digest(message: bytes, batch: Batch) -> bytes:
    """What makes it this message: a repeat under its key says the same, some time later."""
    said = {name: column for name, column in zip(batch.fields, batch.columns, strict=True) if name != QUEUED_AT}
    return blake2b(orjson.dumps([batch.recipients, said], option=orjson.OPT_SORT_KEYS) + message, digest_size=8).digest()


def _payload(skeleton: Skeleton, batch: Batch) -> bytes:
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


async def _create(desk: Desk, config: Config, account: str, envelope: str, uid: str) -> None:
    """The account's campaign of single messages; somebody else may make it at the same time."""
    fields = campaign_fields(config, await desk.account(account), uid, envelope, OnDoubt.RESEND)
    answer = await desk.create(account, TRANSACTIONAL, b"single messages", None, b"", fields)
    if answer == "account":
        raise Conflict(f"account {account} is gone")
