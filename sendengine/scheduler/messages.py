"""A message as callers put it together, and the envelope's sender that follows from its From. Words of the command line and of the API."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parseaddr

from sendengine.address import BadAddress, normalise
from sendengine.errors import RefusedInput, about
from sendengine.remedies import field, said
from sendengine.render.message import Attachment, Message

_PARTS = said(field("html"), " or ", field("text"))


def message_of(
    sender: str, eml: bytes | None, subject: str, html: str | None, text: str | None, *, reply_to: str | None = None,
    headers: dict[str, str] | None = None, list_unsubscribe: str | None = None, attachments: Sequence[Attachment] = (),
) -> Message:  # fmt: skip
    """Either a whole `eml`, or a subject with html and/or text and a From. Raises RefusedInput for what is neither."""
    if eml is not None:
        if subject or html is not None or text is not None or reply_to or attachments:
            raise RefusedInput("a whole message goes without a subject, an html and a text beside it")
        return Message.from_eml(eml, headers=headers, list_unsubscribe=list_unsubscribe)
    if html is None and text is None:
        raise RefusedInput("what shall be sent?", said(field("message", "M.eml"), ", or ", field("subject"), " with ", _PARTS))
    if not subject:
        raise RefusedInput("the message has no subject", said(field("subject", "TEXT"), ", beside ", _PARTS))
    if not sender:
        raise RefusedInput("the message has no From", said(field("from", "ADDRESS"), ", beside ", _PARTS))
    return Message(
        sender=sender, subject=subject, html=html, text=text, reply_to=reply_to, headers=headers or {}, list_unsubscribe=list_unsubscribe,
        attachments=tuple(attachments),
    )  # fmt: skip


def address_in(sender: str) -> str:
    """The address in `Name <address>`; "" where there is no sender. Raises RefusedInput."""
    if not sender:
        return ""
    try:
        return normalise(parseaddr(sender)[1] or sender)
    except BadAddress as error:
        with about("from"):
            raise RefusedInput(f"{sender!r} is no sender: {error}", said(field("from"), " is an address, or Name <address>")) from None
