"""A message as a tree of MIME parts, on the way from its author's form (build.py, eml.py) to a skeleton (compile.py).

Values only. Octets (`bytes`) stand for what is copied as it is, CRLF at its line ends; text (`str`) is still to be
encoded and may hold merge fields.
"""

from __future__ import annotations

import re

import msgspec

from sendengine.errors import RefusedInput

TRANSFER_ENCODING = "Content-Transfer-Encoding"


class Header(msgspec.Struct, frozen=True):
    """As octets: everything after the colon, folds included, without the last CRLF. As text: the value alone."""

    name: str
    value: bytes | str

    @property
    def key(self) -> str:
        return self.name.lower()


class Text(msgspec.Struct, frozen=True):
    """A text/plain or text/html body. Its part's headers say charset=utf-8; the transfer encoding is still open."""

    text: str
    is_html: bool
    place: str  # how its author would find it: "html", "text", "part 1.2"


class Multipart(msgspec.Struct, frozen=True):
    boundary: bytes
    parts: tuple[Part, ...]


class Part(msgspec.Struct, frozen=True):
    headers: tuple[Header, ...]
    content: bytes | Text | Multipart

    def header(self, key: str) -> Header | None:
        return next((header for header in self.headers if header.key == key), None)


def check_text(text: str, place: str) -> None:
    """A body as its author gave it. RFC 5321 2.3.8: CR and LF only together; LF alone is how people write files."""
    for pattern, what in (("\0", "a NUL"), (r"\r(?!\n)", "a bare CR")):
        found = re.search(pattern, text)
        if found:
            raise RefusedInput(f"{place}, line {text.count(chr(10), 0, found.start()) + 1}: {what}")


def crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")
