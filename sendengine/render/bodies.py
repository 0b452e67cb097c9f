"""A text body in its two renditions: 7bit/8bit lines, or quoted-printable.

8bit where the relay takes it and every line stays under 998 octets with room for the values; else quoted-printable,
whose lines we cut ourselves. Line lengths are shared out among the slots of a line here, once, so that a value is
checked alone.
"""

from __future__ import annotations

from sendengine.render import encode
from sendengine.render.logic import Logic
from sendengine.render.parts import Text
from sendengine.render.slots import Body8bit, BodyQuoted, Slot
from sendengine.render.template import Template, parse

_LEAST_ROOM = 200  # octets for a value: a line that leaves less makes its part quoted-printable

Source = Template | Logic


class Body:
    """One text/* part, parsed once; `boundary` is what no line of ours may hold."""

    def __init__(self, text: Text, boundary: str) -> None:
        self._segments = _parsed(text)
        self.place = text.place
        self._is_html = text.is_html
        self._boundary = boundary
        self._rooms = _rooms(self._segments)
        is_ascii = all(isinstance(segment, str) and segment.isascii() for segment in self._segments)
        self._octets = b"7bit" if is_ascii else b"8bit"

    def rendition(self, eightbit: bool) -> tuple[bytes, list[bytes | Slot]]:
        """The Content-Transfer-Encoding and the body."""
        if self._rooms is None or (self._octets == b"8bit" and not eightbit):
            return b"quoted-printable", self._quoted()
        return self._octets, self._lines(self._rooms)

    def _lines(self, rooms: list[int]) -> list[bytes | Slot]:
        pieces: list[bytes | Slot] = []
        begins_line = True
        for segment, room in zip(self._segments, rooms, strict=True):
            if isinstance(segment, str):
                pieces.append(segment.encode())
                begins_line = segment.endswith("\r\n")
            else:
                pieces.append(Body8bit(segment, self._is_html, begins_line, room, self._boundary))
        return pieces

    def _quoted(self) -> list[bytes | Slot]:
        """A slot stands between soft breaks: it has lines of its own, whatever surrounds it."""
        pieces: list[bytes | Slot] = []
        for at, segment in enumerate(self._segments, 1):
            if not isinstance(segment, str):
                pieces += [BodyQuoted(segment, self._is_html), encode.SOFT_BREAK]
                continue
            is_last = at == len(self._segments)
            pieces.append(encode.quoted_printable(segment, is_last))
            if not is_last and not segment.endswith("\r\n"):
                pieces.append(encode.SOFT_BREAK)
        return pieces


def _parsed(text: Text) -> list[str | Source]:
    source = parse(text.text, text.place, text.is_html)
    if isinstance(source, Template):
        return _segments(source)
    if not text.text.endswith("\r\n"):
        return [source]
    # The last line end stays outside, so that the message is seen to end with one.
    return [Logic(text.text.removesuffix("\r\n"), text.place, text.is_html), "\r\n"]


def _segments(template: Template) -> list[str | Source]:
    """Literals and slots in turn. Fields that touch are one slot, and a dot right after a field belongs to it: whether
    that dot begins a line, and must be stuffed, depends on the value."""
    segments: list[str | Source] = []
    for piece in template.pieces:
        last = segments[-1] if segments else ""
        if not isinstance(piece, str):
            if isinstance(last, Template):
                segments[-1] = Template((*last.pieces, piece))
            else:
                segments.append(Template((piece,)))
        elif isinstance(last, Template) and piece.startswith("."):
            segments[-1] = Template((*last.pieces, "."))
            segments += [piece[1:]] if piece[1:] else []
        else:
            segments.append(piece)
    return segments


def _rooms(segments: list[str | Source]) -> list[int] | None:
    """Octets per segment (of a slot: what its longest line may have), or None where a line would be too long."""
    rooms = [encode.MAX_LINE] * len(segments)
    length = 0
    slots: list[int] = []
    for at, segment in enumerate([*segments, "\r\n"]):
        if not isinstance(segment, str):
            slots.append(at)
            continue
        first, *others = map(len, segment.encode().split(b"\r\n"))
        length += first
        for other in others:
            share = (encode.MAX_LINE - length) // max(1, len(slots))
            if share < (_LEAST_ROOM if slots else 0):
                return None
            for slot in slots:
                rooms[slot] = share
            length, slots = other, []
    return rooms
