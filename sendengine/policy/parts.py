"""How many parts a text has as SMS, and what stands in each (3GPP TS 23.038, 23.040). Pure.

GSM-7 where every character is in its alphabet (160, else 153 a part), else UCS-2 (70, else 67 a part). A character of the extension table
counts two and stands whole in one part; so do the two halves of a character beyond the BMP. A text is therefore cut, not divided: where
such a pair would straddle a border, the part before it is one short.
"""

from __future__ import annotations

from enum import IntEnum

from sendengine.errors import RefusedInput

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)  # 23.038 6.2.1; 0x1B is the way into the extension, and no character
EXTENSION = {"\f": 0x0A, "^": 0x14, "{": 0x28, "}": 0x29, "\\": 0x2F, "[": 0x3C, "~": 0x3D, "]": 0x3E, "|": 0x40, "€": 0x65}
ESCAPE = 0x1B
PARTS_MOST = 255  # one octet of the concatenation header counts them


class Coding(IntEnum):
    """As SMPP's data_coding names it (3.4, 5.2.19)."""

    GSM7 = 0
    UCS2 = 8


ALONE = {Coding.GSM7: 160, Coding.UCS2: 70}  # units of a text in one part
TOGETHER = {Coding.GSM7: 153, Coding.UCS2: 67}  # of each part where there are several: six octets are the header's

_SEPTETS = {letter: bytes((code,)) for code, letter in enumerate(BASIC) if code != ESCAPE} | {
    letter: bytes((ESCAPE, code)) for letter, code in EXTENSION.items()
}
_OCTETS_OF_UNIT = {Coding.GSM7: 1, Coding.UCS2: 2}


class BadText(RefusedInput):
    """No SMS can be made of it; the message says why."""


def coding_of(text: str) -> Coding:
    return Coding.GSM7 if all(map(_SEPTETS.__contains__, text)) else Coding.UCS2


def count(text: str) -> int:
    """Parts of a text. Raises BadText for one that is empty, too long, or no Unicode text."""
    coding, pieces = _pieces(text)
    return len(_cut(coding, pieces))


def split(text: str, reference: int) -> tuple[Coding, list[bytes]]:
    """The user data of each part as SMPP's short_message takes it: septets one an octet, UCS-2 big-endian. Where there are several, each
    begins with the concatenation header (23.040 9.2.3.24.1), its reference modulo 256. Raises BadText as `count` does."""
    coding, pieces = _pieces(text)
    bodies = _cut(coding, pieces)
    if len(bodies) == 1:
        return coding, bodies
    head = bytes((5, 0, 3, reference & 0xFF, len(bodies)))
    return coding, [head + bytes((number,)) + body for number, body in enumerate(bodies, 1)]


def _pieces(text: str) -> tuple[Coding, list[bytes]]:
    """What may not be cut in two, in order."""
    if not text:
        raise BadText("the text is empty")
    try:
        return Coding.GSM7, [_SEPTETS[letter] for letter in text]
    except KeyError:
        pass
    try:
        return Coding.UCS2, [letter.encode("utf-16-be") for letter in text]
    except UnicodeEncodeError:
        raise BadText("the text is not valid Unicode") from None


def _cut(coding: Coding, pieces: list[bytes]) -> list[bytes]:
    whole = b"".join(pieces)
    octets = _OCTETS_OF_UNIT[coding]
    if len(whole) <= ALONE[coding] * octets:
        return [whole]
    room = TOGETHER[coding] * octets
    has_pairs = len(pieces) * octets < len(whole)
    bodies = _fill(pieces, room) if has_pairs else [whole[at : at + room] for at in range(0, len(whole), room)]
    if len(bodies) > PARTS_MOST:
        raise BadText(f"the text has {len(bodies)} parts, {PARTS_MOST} are possible")
    return bodies


def _fill(pieces: list[bytes], room: int) -> list[bytes]:
    bodies, body = [], bytearray()
    for piece in pieces:
        if len(body) + len(piece) > room:
            bodies.append(bytes(body))
            body.clear()
        body += piece
    return [*bodies, bytes(body)]
