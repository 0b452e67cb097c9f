"""How text becomes octets in each place of a message. Pure functions of one text.

Headers: printable ASCII goes as it is, folded at 78 (RFC 5322 2.1.1); all else becomes encoded-words (RFC 2047), in
base64 because one call encodes a chunk and the length is known beforehand. Text that merely looks like an encoded-word
is encoded too: readers decode what they find, so `=?utf-8?q?x=0d=0aBcc:_evil?=` must arrive as those very characters.
Nothing here passes through the email package's header parser.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from urllib.parse import quote

from sendengine.render.values import CannotRender

SOFT_BREAK = b"=\r\n"
MAX_LINE = 998  # RFC 5322 2.1.1, octets without CRLF
_FOLD_AT = 78
_WORD_LINE = 76  # RFC 2047 2: a line that holds an encoded-word
_WORD_FRAME = len("=?utf-8?b??=")
_LONGEST_PHRASE = 200
LONGEST_ADDRESS = 254  # RFC 5321 4.5.3.1.3; it cannot be folded, and a longer one would make its line too long

has_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search
_plain = re.compile(r"[!-~](?:[ -~]*[!-~])?").fullmatch
_space = re.compile(r"(?<=[^ ]) (?=[^ ])")
_atoms = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*").fullmatch
_quotable = re.compile(r'(["\\])')
_ADDRESS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+"
_address = re.compile(_ADDRESS).fullmatch
are_addresses = re.compile(rf"{_ADDRESS}(?:\0{_ADDRESS})*").fullmatch  # joined by NUL
_url = re.compile(r"[!-;=?-~]+").fullmatch
_encoded_word = re.compile(r"=\?[^?\s]+\?[bq]\?", re.IGNORECASE).search  # RFC 2047 2; lenient readers want no blanks around


def header_text(text: str, column: int) -> bytes:
    """An unstructured field's value, where `column` octets stand on the line already."""
    if _plain(text) and column + len(text) <= _FOLD_AT and "=?" not in text:  # what nearly every text is: the rest would say the same
        return text.encode()
    text = text.strip(" ")
    _forbid_control(text)
    if text.isascii() and "=?" not in text:
        folded = _folded(text, column)
        if folded is not None:
            return folded
    return _encoded_words(text, column)


def phrase(text: str, column: int) -> bytes:
    """A display name (RFC 5322 3.2.5): atoms, a quoted string or encoded-words."""
    text = text.strip(" ")
    _forbid_control(text)
    if text.isascii() and "=?" not in text and len(text) <= _LONGEST_PHRASE:
        return text.encode() if _atoms(text) else b'"%b"' % _quotable.sub(r"\\\1", text).encode()
    return _encoded_words(text, column)


def address(text: str) -> bytes:
    """An addr-spec in a header: nothing in it may end it, or be decoded by a reader."""
    text = text.strip(" ")
    if not _address(text) or "=?" in text or len(text) > LONGEST_ADDRESS:
        raise CannotRender("no address that a header can hold")
    return text.encode()


def mailbox(name: str, spec: str, column: int) -> bytes:
    """`name <spec>`, or the bare address where the name is empty."""
    bare = address(spec)
    if not name.strip(" "):
        return bare
    head = phrase(name, column)
    last_line = len(head) - (head.rfind(b"\n") + 1)
    return b"%b%b <%b>" % (head, b"\r\n" if column + last_line + len(bare) + 3 > _FOLD_AT else b"", bare)


def listed(mailboxes: list[bytes], column: int) -> bytes:
    """An address-list, an address a line where one line would be too long."""
    line = b", ".join(mailboxes)
    return line if column + len(line) <= _FOLD_AT else b",\r\n ".join(mailboxes)


def url_part(text: str) -> bytes:
    """A value inside an URL (RFC 3986 2.1)."""
    return quote(text, safe="").encode()


def whole_url(text: str) -> bytes:
    """A value that is an URL: it may not end the angle brackets around it (RFC 2369 2), nor be decoded by a reader."""
    if not _url(text) or _encoded_word(text):
        raise CannotRender("no URL that a header can hold")
    return text.encode()


def is_url_text(text: str) -> bool:
    """What an author may write in a List-* field: printable ASCII, and nothing that a reader would decode."""
    return text.isascii() and text.isprintable() and not _encoded_word(text)


def quoted_printable(text: str, is_last: bool = False) -> bytes:
    """RFC 2045 6.7, from the start of a line. Unless it is the last, a soft break follows: 76 octets a line with it."""
    data = text.encode()
    # One more octet keeps b2a_qp from filling the last line and from encoding a blank at its end.
    encoded = b2a_qp(data, istext=True) if is_last else b2a_qp(data + b"x", istext=True)[:-1]
    # b2a_qp takes its line end from its input
    return encoded if b"\n" in data else encoded.replace(b"\n", b"\r\n")


def stuffed(data: bytes) -> bytes:
    """RFC 5321 4.5.2, for octets that begin a line."""
    data = data.replace(b"\n.", b"\n..")
    return b"." + data if data.startswith(b".") else data


def _forbid_control(text: str) -> None:
    if has_control(text):
        raise CannotRender("control character or line end in a header")


def _folded(text: str, column: int) -> bytes | None:
    """Broken before single spaces only, so that unfolding restores it; None where a line stays too long."""
    if column + len(text) <= _FOLD_AT:
        return text.encode()
    lines, length = [""], column
    for word in _space.split(text):
        if lines[-1] and length + 1 + len(word) > _FOLD_AT:
            lines.append(word)
            length = len(word) + 1
        else:
            lines[-1] += f" {word}" if lines[-1] else word
            length += len(word) + 1
    return "\r\n ".join(lines).encode() if max(map(len, lines)) + column <= MAX_LINE else None


def _encoded_words(text: str, column: int) -> bytes:
    data = text.encode()
    words = []
    room = _octets(column)
    start = 0
    if room < 4:  # a long field name: begin on the next line
        words, room = [b""], _octets(1)
    while start < len(data):
        end = start + room
        while end < len(data) and data[end] & 0xC0 == 0x80:  # RFC 2047 5: no character may be split
            end -= 1
        words.append(b"=?utf-8?b?%b?=" % b2a_base64(data[start:end], newline=False))
        start, room = end, _octets(1)
    return b"\r\n ".join(words)


def _octets(column: int) -> int:
    """How many octets fit in an encoded-word that begins at this column."""
    return (_WORD_LINE - column - _WORD_FRAME) // 4 * 3
