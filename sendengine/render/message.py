"""A message as its author gives it, and as it is stored beside a send.

A value and its two forms, nothing else: what is wrong with a message is found by compile.py, once per send.
The stored form begins with one octet of version; a worker leaves a newer one untouched (it raises NewerPayload).
"""

from __future__ import annotations

from typing import Self

import msgspec

from sendengine.errors import RefusedInput, SendEngineError

VERSION = 1


class NewerPayload(SendEngineError):
    """Stored by a later release than this one: leave it to a worker that knows it."""


class Attachment(msgspec.Struct, frozen=True):
    """A file that goes with every copy. With a content_id it is shown inside the HTML (`<img src="cid:logo">`)."""

    filename: str
    data: bytes
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Either html and/or text with their header fields, or a whole `eml`; every text may hold merge fields.

    `{{ name }}` and `{{ name | default("friend") }}`; anything else between the braces, and `{% if %}`, `{% for %}`,
    is minijinja. `list_unsubscribe` is an URL template (RFC 8058 one-click when it is https). `headers` are added; over
    an eml, they and list_unsubscribe replace its fields of the same name, while its From stays (`sender` is "").
    """

    sender: str = ""
    subject: str = ""
    html: str | None = None
    text: str | None = None
    eml: bytes | None = None
    reply_to: str | None = None
    headers: dict[str, str] = {}
    list_unsubscribe: str | None = None
    attachments: tuple[Attachment, ...] = ()

    @classmethod
    def from_eml(
        cls, data: bytes, *, headers: dict[str, str] | None = None, list_unsubscribe: str | None = None
    ) -> Self:
        return cls(eml=data, headers=headers or {}, list_unsubscribe=list_unsubscribe)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def dump(message: Message) -> bytes:
    try:
        return bytes((VERSION,)) + _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise RefusedInput(f"the message is not Unicode text: {error}") from None


def load(stored: bytes) -> Message:
    if not stored or stored[0] > VERSION:
        raise NewerPayload(f"message payload of version {stored[:1].hex() or 'none'}, this release reads {VERSION}")
    try:
        return _decoder.decode(memoryview(stored)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"message payload cannot be read: {error}") from None
