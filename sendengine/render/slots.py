"""The places of a skeleton that differ from one recipient to the next: each encodes its column in one go.

Every slot joins its hundred texts by NUL and looks at them together; only a batch with something unusual in it (a line
end, a leading dot, non-ASCII in a header) is encoded text by text. Both ways give the same octets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Protocol

import msgspec

from sendengine.render import encode
from sendengine.render.logic import Logic
from sendengine.render.template import Template
from sendengine.render.values import CannotRender, UnfitFor8bit, Values, unix_lines

_NUL = "\0"
_FOLD_AT = 78
_QP_LINE = 75  # and the soft break's "="
_is_plain_header = re.compile(r"[ -~\0]*").fullmatch
_is_plain_url = re.compile(r"[A-Za-z0-9_.~@+\0-]*").fullmatch
_is_plain_qp = re.compile(r"[\t -<>-~\0]*").fullmatch


class Slot(Protocol):
    """Hashable: equal slots are encoded once."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def required(self) -> frozenset[str]: ...
    def encode(self, values: Values) -> list[bytes]: ...


class _OfSource(msgspec.Struct, frozen=True):
    source: Template | Logic

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    @property
    def required(self) -> frozenset[str]:
        return self.source.required


class Body8bit(_OfSource, frozen=True):
    """Inside an 8bit body. A value with NUL, our boundary or too long a line has its row sent quoted-printable."""

    is_html: bool
    begins_line: bool  # what stands before ends in CRLF, or nothing does: a leading dot must be stuffed
    room: int  # octets that its longest line may have
    boundary: str

    def encode(self, values: Values) -> list[bytes]:
        texts = _body_texts(self.source, self.is_html, values)
        joined = _NUL.join(texts)
        data = _utf8(joined) if self._is_usual(joined, len(texts)) else None
        if data is not None:
            cells = data.split(b"\0")
            if len(data) <= self.room or max(map(len, cells)) <= self.room:
                return cells
        return values.encode(texts, self._one)

    def _is_usual(self, joined: str, count: int) -> bool:
        if "\n" in joined or self.boundary in joined or joined.count(_NUL) != count - 1:
            return False
        return not (self.begins_line and (joined.startswith(".") or "\0." in joined))

    def _one(self, text: str) -> bytes:
        if _NUL in text or self.boundary in text:  # RFC 6152 3: 8bit lines hold no NUL
            raise UnfitFor8bit
        data = text.replace("\n", "\r\n").encode()
        if max(map(len, data.split(b"\r\n"))) > self.room:
            raise UnfitFor8bit
        return encode.stuffed(data) if self.begins_line else data.replace(b"\n.", b"\n..")


class BodyQuoted(_OfSource, frozen=True):
    """Inside a quoted-printable body, between soft breaks: it begins a line and may not end one."""

    is_html: bool

    def encode(self, values: Values) -> list[bytes]:
        texts = _body_texts(self.source, self.is_html, values)
        joined = _NUL.join(texts)
        has_dot = joined.startswith(".") or "\0." in joined
        if not has_dot and _is_plain_qp(joined) and joined.count(_NUL) == len(texts) - 1:
            cells = joined.encode().split(b"\0")
            if max(map(len, cells)) <= _QP_LINE:
                return cells
        return values.encode(texts, _quoted)


class HeaderText(_OfSource, frozen=True):
    """The whole value of an unstructured field."""

    column: int

    def encode(self, values: Values) -> list[bytes]:
        texts = self.source.filled(values)
        joined = _NUL.join(texts)
        if _is_plain_header(joined) and "=?" not in joined and joined.count(_NUL) == len(texts) - 1:
            cells = joined.encode().split(b"\0")
            if self.column + max(map(len, cells)) <= _FOLD_AT and not _has_blank_edge(joined):
                return cells
        return values.encode(texts, lambda text: encode.header_text(text, self.column))


class Addresses(msgspec.Struct, frozen=True):
    """The whole value of an address field: (display name, addr-spec) each."""

    mailboxes: tuple[tuple[Template, Template], ...]
    column: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for pair in self.mailboxes for part in pair for name in part.names)

    @property
    def required(self) -> frozenset[str]:
        return frozenset(name for pair in self.mailboxes for part in pair for name in part.required)

    def encode(self, values: Values) -> list[bytes]:
        parts = [part.filled(values) for pair in self.mailboxes for part in pair]
        if len(parts) == 2 and not self.mailboxes[0][0].pieces:
            joined = _NUL.join(parts[1])
            if encode.are_addresses(joined) and "=?" not in joined and max(map(len, parts[1])) <= encode.LONGEST_ADDRESS:
                return joined.encode().split(b"\0")
        return values.encode(list(zip(*parts, strict=True)), self._one)

    def _one(self, row: Sequence[str]) -> bytes:
        made = [encode.mailbox(name, spec, self.column) for name, spec in zip(row[::2], row[1::2], strict=True)]
        return encode.listed(made, self.column)


class Url(msgspec.Struct, frozen=True):
    """A List-* field (RFC 2369). A field right after "<" is an URL itself, elsewhere a part, percent-encoded."""

    template: Template
    column: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.template.names

    @property
    def required(self) -> frozenset[str]:
        return self.template.required

    def encode(self, values: Values) -> list[bytes]:
        parts: list[list[bytes]] = []
        before = ""
        for piece in self.template.pieces:
            if isinstance(piece, str):
                parts.append([piece.encode()] * values.size)
                before = piece
            else:
                convert = _whole_urls if before.endswith("<") else _url_parts
                parts.append(convert(values, values.texts(piece)))
                before = ""
        made = list(map(b"".join, zip(*parts, strict=True)))
        return made if max(map(len, made)) + self.column <= encode.MAX_LINE else values.encode(made, self._bounded)

    def _bounded(self, value: bytes) -> bytes:
        if len(value) + self.column > encode.MAX_LINE:
            raise CannotRender("an URL in a header is too long")
        return value


def _body_texts(source: Template | Logic, is_html: bool, values: Values) -> list[str]:
    """Line ends are LF here. Logic has escaped its own values."""
    if isinstance(source, Logic):
        return [unix_lines(text) if "\r" in text else text for text in source.filled(values)]
    texts = source.filled(values, Values.lines)
    joined = _NUL.join(texts)
    if not is_html or (safe := escape(joined)) == joined:
        return texts
    return safe.split(_NUL) if safe.count(_NUL) == len(texts) - 1 else [escape(text) for text in texts]


def _whole_urls(values: Values, texts: list[str]) -> list[bytes]:
    return values.encode(texts, encode.whole_url)


def _url_parts(values: Values, texts: list[str]) -> list[bytes]:
    joined = _NUL.join(texts)
    if _is_plain_url(joined) and joined.count(_NUL) == len(texts) - 1:
        return joined.replace("@", "%40").replace("+", "%2B").encode().split(b"\0")
    return values.encode(texts, encode.url_part)


def _quoted(text: str) -> bytes:
    return encode.stuffed(encode.quoted_printable(text.replace("\n", "\r\n")))


def _has_blank_edge(joined: str) -> bool:
    return joined[:1] == " " or joined[-1:] == " " or " \0" in joined or "\0 " in joined


def _utf8(text: str) -> bytes | None:
    """None for text with a lone surrogate in it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None
