"""The tree of a message given as an .eml: its structure, the order of its fields and their very octets are kept.

Split here and not by the email package, which would not give back every octet of what we must not touch; that package
only reads the parameters of Content-Type. Decoded, and later re-encoded, are the text/plain and text/html bodies;
signed and encrypted parts, attachments and whole messages inside are copied (RFC 1847 2.1 forbids to change them).
"""

from __future__ import annotations

import re
from email.message import Message as Fields

from sendengine.errors import RefusedInput
from sendengine.render.build import NewBoundary, base64_lines
from sendengine.render.encode import MAX_LINE
from sendengine.render.fields import ADDRESS_FIELDS, decoded_words, unfolded
from sendengine.render.parts import TRANSFER_ENCODING, Header, Multipart, Part, Text, check_text, crlf
from sendengine.render.template import is_template

_DROPPED = frozenset((  # ours to write (RFC 5322 3.6.1, 3.6.4), of an earlier journey, or not for all eyes
    "bcc", "resent-bcc", "return-path", "date", "message-id", "dkim-signature", "received", "content-length", "lines",
))  # fmt: skip
_OPAQUE = frozenset(("multipart/signed", "multipart/encrypted", "multipart/digest"))
_MAX_DEPTH = 20
_MAX_FIELD = 65536  # octets of a header field with its folds; each word of it is looked at
_MAX_PARTS = 1000  # in all; and header fields of one part. Each costs some KB of memory, and 50 MB hold millions
_field = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL).fullmatch
_bad_octet = re.compile(rb"\0|\r(?!\n)")
_control = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]").search  # RFC 5322 2.2: none in a field; readers break lines at some
_long_line = re.compile(rb"[^\r\n]{%d,}" % (MAX_LINE + 1)).search
_empty_fold = re.compile(rb"\r\n[ \t]+(?=\r\n|\Z)")  # RFC 5322 3.2.2 has none: some readers end the header there


def parse(source: bytes, new_boundary: NewBoundary) -> Part:
    """Raises RefusedInput naming the line or the part."""
    bad = _bad_octet.search(source)
    if bad:
        what = "a NUL" if bad[0] == b"\0" else "a bare CR"
        raise RefusedInput(f"message, line {source.count(chr(10).encode(), 0, bad.start()) + 1}: {what}")
    data = source.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # LF alone is how files are kept
    if long := _long_line(data):
        number = data.count(b"\n", 0, long.start()) + 1
        raise RefusedInput(f"message, line {number}: {len(long[0])} octets, {MAX_LINE} are allowed")
    root = _part(data, "message", _Walk(new_boundary), 0)
    kept = [_opened(header) for header in root.headers if header.key not in _DROPPED]
    if root.header("mime-version") is None:
        kept.append(Header("MIME-Version", b" 1.0"))
    return Part(tuple(kept), root.content)


def _opened(header: Header) -> Header:
    """A field with something to fill in or to encode becomes text."""
    assert isinstance(header.value, bytes)
    if header.key.startswith("content-") or header.key == "mime-version":
        return header
    try:
        text = unfolded(header.value)
    except UnicodeDecodeError:
        raise RefusedInput(f"message, field {header.name}: neither ASCII nor UTF-8") from None
    if text.isascii() and not is_template(decoded_words(text)):
        return header
    return Header(header.name, text if header.key in ADDRESS_FIELDS else decoded_words(text))


def _part(data: bytes, place: str, walk: _Walk, depth: int) -> Part:
    walk.enter(place, depth)
    head, body = (b"", data[2:]) if data.startswith(b"\r\n") else _halves(data)
    headers = _headers(head, place)
    fields = _content_fields(headers, place)
    kind = fields.get_content_type()
    if kind.startswith("multipart/") and kind not in _OPAQUE:
        return _multipart(headers, fields, body, place, walk, depth)
    if kind in ("text/plain", "text/html") and fields.get_content_disposition() != "attachment":
        return _text(headers, fields, body, place)
    return _opaque(headers, kind, body, place)


class _Walk:
    """Through one message, from part to part; owned by `parse`."""

    def __init__(self, new_boundary: NewBoundary) -> None:
        self.new_boundary = new_boundary
        self._parts = 0

    def enter(self, place: str, depth: int) -> None:
        self._parts += 1
        if depth > _MAX_DEPTH:
            raise RefusedInput(f"{place}: more than {_MAX_DEPTH} parts within each other")
        if self._parts > _MAX_PARTS:
            raise RefusedInput(f"{place}: more than {_MAX_PARTS} parts")


def _halves(data: bytes) -> tuple[bytes, bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    return head.removesuffix(b"\r\n"), body


def _headers(head: bytes, place: str) -> tuple[Header, ...]:
    headers: list[Header] = []
    for number, line in enumerate(_on_one_line(head).split(b"\r\n") if head else (), 1):
        match = _field(line)
        if not match:
            raise RefusedInput(f"{place}: header field {number} is no `Name: value`: {line[:40]!r}")
        if len(line) > _MAX_FIELD:
            raise RefusedInput(f"{place}: the field {match[1].decode()} has {len(line)} octets, {_MAX_FIELD} are allowed")
        if _control(line.replace(b"\0", b"")):
            raise RefusedInput(f"{place}: control character in the field {match[1].decode()}")
        if len(headers) == _MAX_PARTS:
            raise RefusedInput(f"{place}: more than {_MAX_PARTS} header fields")
        if place != "message" and not line.isascii():
            raise RefusedInput(f"{place}: field {match[1].decode()} is not ASCII")
        headers.append(Header(match[1].decode(), _empty_fold.sub(b"", match[2].replace(b"\0", b"\r\n"))))
    return tuple(headers)


def _on_one_line(head: bytes) -> bytes:
    """Folds as NUL. By `replace`: a substitution keeps a piece for each match, some 200 octets a fold."""
    return head.replace(b"\r\n ", b"\0 ").replace(b"\r\n\t", b"\0\t")


def _content_fields(headers: tuple[Header, ...], place: str) -> Fields:
    fields = Fields()
    for header in headers:
        if header.key.startswith(("content-", "mime-version")) and isinstance(header.value, bytes):
            if not header.value.isascii():
                raise RefusedInput(f"{place}: {header.name} is not ASCII")
            fields[header.name] = unfolded(header.value)
    try:
        fields.get_params()
        fields.get_content_charset()
        (fields.get_boundary() or "").encode()
    except (TypeError, ValueError) as error:  # the email package's own, over RFC 2231 parameters that contradict themselves
        raise RefusedInput(f"{place}: the parameters of Content-Type cannot be read: {error}") from None
    return fields


def _multipart(headers: tuple[Header, ...], fields: Fields, body: bytes, place: str, walk: _Walk, depth: int) -> Part:
    """RFC 2046 5.1.1. The boundary becomes one that no value can hold; what stands outside the parts is dropped."""
    old = fields.get_boundary()
    marks = _marks(body, old.encode()) if old else []
    if not marks:
        raise RefusedInput(f"{place}: a multipart without its boundary lines")
    ends = [mark.start() for mark in marks[1:]] + [len(body)]
    bodies = [body[m.end() + 2 : max(end, m.end() + 2)] for m, end in zip(marks, ends, strict=True) if not m[1]]
    prefix = "part " if depth == 0 else f"{place}."
    parts = tuple(_part(each, f"{prefix}{n}", walk, depth + 1) for n, each in enumerate(bodies, 1))
    boundary = walk.new_boundary()
    return Part(_with_parameter(headers, "boundary", boundary.decode()), Multipart(boundary, parts))


def _marks(body: bytes, boundary: bytes) -> list[re.Match[bytes]]:
    """The boundary lines up to the closing one."""
    found = []
    for mark in re.finditer(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)", body):
        found.append(mark)
        if mark[1]:
            break
    return found


def _text(headers: tuple[Header, ...], fields: Fields, body: bytes, place: str) -> Part:
    fields.set_payload(body.decode("ascii", "surrogateescape"))
    data = fields.get_payload(decode=True)
    assert isinstance(data, bytes)
    charset = fields.get_content_charset("utf-8")
    try:  # us-ascii as utf-8: many programs forget to say
        text = data.decode("utf-8" if charset == "us-ascii" else charset)
        text.encode()  # some charsets can spell a lone surrogate
    except (LookupError, ValueError) as error:
        raise RefusedInput(f"{place}: the text is not {charset} as its Content-Type says: {error}") from None
    check_text(text, place)
    if "content-type" not in fields:
        headers = (*headers, Header("Content-Type", b" text/plain"))
    headers = _with_parameter(headers, "charset", "utf-8")
    return Part(headers, Text(crlf(text), fields.get_content_type() == "text/html", place))


def _opaque(headers: tuple[Header, ...], kind: str, body: bytes, place: str) -> Part:
    """Copied; but octets above 127 need 8BITMIME, which not every relay has, so they become base64."""
    if body.isascii():
        return Part(headers, body)
    if kind.startswith(("multipart/", "message/")):  # RFC 2045 6.4: no such part may be base64
        raise RefusedInput(f"{place}: 8-bit octets in a {kind} part")
    kept = tuple(header for header in headers if header.key != TRANSFER_ENCODING.lower())
    return Part((*kept, Header(TRANSFER_ENCODING, b" base64")), base64_lines(body))


def _with_parameter(headers: tuple[Header, ...], name: str, value: str) -> tuple[Header, ...]:
    """The Content-Type with this parameter set, its other octets unchanged."""
    pattern = re.compile(rf';\s*{name}\*?\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]+)'.encode(), re.IGNORECASE)
    changed = []
    for header in headers:
        octets = header.value
        if header.key == "content-type" and isinstance(octets, bytes):
            found = pattern.search(octets)
            start, end = found.span(1) if found else (len(octets), len(octets))
            new = f'"{value}"' if found else f'; {name}="{value}"'
            octets = octets[:start] + new.encode() + octets[end:]
        changed.append(Header(header.name, octets))
    return tuple(changed)
