"""The tree of a message given as subject, HTML, text and attachments.

multipart/mixed(multipart/alternative(text, multipart/related(html, images)), files), each level only where it has more
than one part to hold (RFC 2046 5.1, RFC 2387).
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable
from urllib.parse import quote

from sendengine.errors import RefusedInput
from sendengine.render.encode import has_control
from sendengine.render.message import Attachment, Message
from sendengine.render.parts import TRANSFER_ENCODING, Header, Multipart, Part, Text, check_text, crlf

_BASE64_LINE = 57  # octets that give 76 characters (RFC 2045 6.8)
_TOKEN = "[A-Za-z0-9!#$&^_.+-]+"
_is_media_type = re.compile(rf"{_TOKEN}/{_TOKEN}(?:; ?{_TOKEN}={_TOKEN})*").fullmatch
_LONGEST_VALUE = 200  # characters of a content type or id
_LONGEST_NAME = 255  # octets of a file's name, as on most disks; percent-encoded it still fits a line (RFC 5322 2.1.1)
_is_content_id = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]+").fullmatch

NewBoundary = Callable[[], bytes]


def part_of(message: Message, new_boundary: NewBoundary) -> Part:
    """The message without its address and subject fields (compile.py adds these). Raises RefusedInput."""
    images = [_attachment(file) for file in message.attachments if file.content_id is not None]
    files = [_attachment(file) for file in message.attachments if file.content_id is None]
    bodies = []
    for place, body in (("text", message.text), ("html", message.html)):
        if body is not None and not body.strip():
            raise RefusedInput(f"the message's {place} is empty", "write it, or leave it out")
    if message.text is not None:
        bodies.append(_body(message.text, is_html=False))
    if message.html is not None:
        bodies.append(_multipart("related", [_body(message.html, is_html=True), *images], new_boundary))
    elif images:
        raise RefusedInput("attachments: a content_id needs an HTML body that shows it")
    if not bodies:
        raise RefusedInput("the message has no body", "give html, text or an eml")
    return _multipart("mixed", [_multipart("alternative", bodies, new_boundary), *files], new_boundary)


def _multipart(subtype: str, parts: list[Part], new_boundary: NewBoundary) -> Part:
    if len(parts) == 1:
        return parts[0]
    boundary = new_boundary()
    value = f'multipart/{subtype}; boundary="{boundary.decode()}"'
    return Part((_raw("Content-Type", value),), Multipart(boundary, tuple(parts)))


def _body(text: str, is_html: bool) -> Part:
    place, subtype = ("html", "html") if is_html else ("text", "plain")
    check_text(text, place)
    return Part((_raw("Content-Type", f"text/{subtype}; charset=utf-8"),), Text(crlf(text), is_html, place))


def _attachment(file: Attachment) -> Part:
    if not _is_media_type(file.content_type) or len(file.content_type) > _LONGEST_VALUE:
        raise RefusedInput(f"attachment {file.filename!r}: {file.content_type!r} is no content type")
    kind = "attachment" if file.content_id is None else "inline"
    headers = [
        _raw("Content-Type", file.content_type),
        _raw(TRANSFER_ENCODING, "base64"),
        _raw("Content-Disposition", f"{kind};\r\n {_filename(file.filename)}"),
    ]
    if file.content_id is not None:
        if not _is_content_id(file.content_id.strip("<>")) or len(file.content_id) > _LONGEST_VALUE:
            raise RefusedInput(f"attachment {file.filename!r}: {file.content_id!r} is no content id")
        headers.append(_raw("Content-ID", f"<{file.content_id.strip('<>')}>"))
    return Part(tuple(headers), base64_lines(file.data))


def _filename(name: str) -> str:
    """RFC 2231 where a quoted string cannot hold it, or where a reader might take it for an encoded-word."""
    if has_control(name) or len(name.encode()) > _LONGEST_NAME:
        raise RefusedInput(f"attachment {name[:80]!r}: a name has up to {_LONGEST_NAME} octets and no control characters")
    if name.isascii() and name.isprintable() and not set(name) & set('"\\') and len(name) < 60 and "=?" not in name:
        return f'filename="{name}"'
    return f"filename*=utf-8''{quote(name, safe='')}"


def base64_lines(data: bytes) -> bytes:
    """RFC 2045 6.8, in lines of 76; the last without CRLF."""
    lines = [b2a_base64(data[at : at + _BASE64_LINE], newline=False) for at in range(0, len(data), _BASE64_LINE)]
    return b"\r\n".join(lines)


def _raw(name: str, value: str) -> Header:
    return Header(name, b" " + value.encode())
