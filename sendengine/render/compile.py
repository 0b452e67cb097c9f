"""A message becomes a skeleton: checked once per send, with everything that is the same in all copies encoded already.

Every refusal of a message happens here and names its place; afterwards only a row's own values can fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count

from sendengine.errors import RefusedInput
from sendengine.render import build, eml, fields
from sendengine.render.bodies import Body
from sendengine.render.message import Message, dump
from sendengine.render.parts import TRANSFER_ENCODING, Header, Multipart, Part, Text
from sendengine.render.renderer import Renderer
from sendengine.render.slots import Slot
from sendengine.render.values import RECIPIENT

MAX_MESSAGE = 50_000_000  # octets, on the wire and as given
_is_id_part = re.compile(r"[A-Za-z0-9!#$&'*+/=?^_`{|}~.-]+").fullmatch  # RFC 5322 3.6.4

Pieces = list[bytes | Slot]
Content = bytes | Body | list["Compiled"]


def compile(message: Message, uid: str, hostname_domain: str | None = None) -> Skeleton:  # noqa: A001
    """`uid` names the send in Message-IDs, before a domain (From's, unless another is given). Raises RefusedInput."""
    for part in (uid, hostname_domain or "a"):
        if not _is_id_part(part) or len(part) > 200:
            raise RefusedInput(f"{part!r} cannot stand in a Message-ID")
    stored = dump(message)
    if len(stored) > MAX_MESSAGE:
        raise RefusedInput(f"the message has {len(stored)} octets, {MAX_MESSAGE} are allowed")
    return Skeleton(message, _token(uid, stored), uid, hostname_domain)


class Skeleton:
    """A compiled message. `fields`, `required` (somewhere without a default) and `in_headers` leave out `email`."""

    def __init__(self, message: Message, token: str, uid: str, hostname_domain: str | None) -> None:
        numbers = count(1)
        root = _tree(message, lambda: f"=_{next(numbers)}_{token}".encode())
        self.from_address = fields.author(_only(root, "from"))
        self.from_domain = self.from_address.rpartition("@")[2].lower()
        self._root = Compiled(root, token)
        self._message_id = f"<{uid}.%d@{hostname_domain or self.from_domain}>"
        self._renderers: dict[bool, Renderer] = {}
        slots = _slots(self._root.pieces(eightbit=True))
        self.fields = _names(slots)
        self.required = frozenset(name for slot in slots for name in slot.required) - {RECIPIENT}
        self.in_headers = frozenset(_names(_slots(self._root.fields)))
        self.size_hint = self.renderer(True).size
        if self.size_hint > MAX_MESSAGE:
            raise RefusedInput(f"the message is {self.size_hint} octets on the wire, {MAX_MESSAGE} are allowed")

    def users(self, field: str) -> list[str]:
        """The header fields and bodies that use a merge field, as their author calls them: ["Subject", "html"]."""
        return list(dict.fromkeys(self._root.users(field)))

    def renderer(self, eightbit: bool) -> Renderer:
        """For relays that offer 8BITMIME (RFC 6152), or for those that do not."""
        found = self._renderers.get(eightbit)
        if found is None:
            head, body = self._root.head(eightbit), self._root.body(eightbit)
            if not _ends_line([b"\r\n", *body]):
                body.append(b"\r\n")
            has_eightbit = eightbit and self._root.has_eightbit
            found = Renderer(head, body, self._message_id, self.from_domain, has_eightbit, lambda: self.renderer(False))
            self._renderers[eightbit] = found
        return found


class Compiled:
    """A part with its header fields encoded; bodies still have two renditions."""

    def __init__(self, part: Part, token: str) -> None:
        self.is_text = isinstance(part.content, Text)
        self._headers = [
            (header.key, fields.compiled(header))
            for header in part.headers
            if not (self.is_text and header.key == TRANSFER_ENCODING.lower())
        ]
        self._boundary = part.content.boundary if isinstance(part.content, Multipart) else b""
        self._content = _content(part, token)

    @property
    def fields(self) -> Pieces:
        """The pieces of its header that do not depend on the rendition."""
        return [piece for _, pieces in self._headers for piece in pieces]

    @property
    def has_eightbit(self) -> bool:
        """In its 8bit rendition."""
        if isinstance(self._content, list):
            return any(part.has_eightbit for part in self._content)
        return isinstance(self._content, Body) and self._content.rendition(True)[0] == b"8bit"

    def users(self, field: str) -> Iterator[str]:
        yield from (key.title() for key, pieces in self._headers if field in _names(_slots(pieces)))
        if isinstance(self._content, Body) and field in _names(_slots(self._content.rendition(True)[1])):
            yield self._content.place
        elif isinstance(self._content, list):
            for part in self._content:
                yield from part.users(field)

    def pieces(self, eightbit: bool) -> Pieces:
        head = [piece for _, pieces in self.head(eightbit) for piece in pieces]
        return [*head, b"\r\n", *self.body(eightbit)]

    def head(self, eightbit: bool) -> list[tuple[str, Pieces]]:
        """Its fields by their names in lower case."""
        if not isinstance(self._content, Body):
            return list(self._headers)
        encoding, _ = self._content.rendition(eightbit)
        return [*self._headers, (TRANSFER_ENCODING.lower(), [b"%b: %b\r\n" % (TRANSFER_ENCODING.encode(), encoding)])]

    def body(self, eightbit: bool) -> Pieces:
        if isinstance(self._content, Body):
            return self._content.rendition(eightbit)[1]
        if isinstance(self._content, bytes):
            return [self._content]
        pieces: Pieces = []
        for part in self._content:  # RFC 2046 5.1.1: the CRLF before a boundary line belongs to it
            pieces += [b"--%b\r\n" % self._boundary, *part.pieces(eightbit), b"\r\n"]
        return [*pieces, b"--%b--" % self._boundary]


def _content(part: Part, token: str) -> Content:
    if isinstance(part.content, Multipart):
        return [Compiled(each, token) for each in part.content.parts]
    return Body(part.content, token) if isinstance(part.content, Text) else part.content


def _token(uid: str, stored: bytes) -> str:
    """What our boundaries share: the same for the same send. No part can hold it, for it is a hash of them all; and
    with "=_" before it, it cannot come about in quoted-printable either (RFC 2045 6.7)."""
    return blake2b(stored, key=blake2b(uid.encode()).digest(), digest_size=12).hexdigest()


def _tree(message: Message, new_boundary: build.NewBoundary) -> Part:
    ours = [fields.extra(name, value) for name, value in message.headers.items()]
    if message.list_unsubscribe is not None:
        ours += fields.unsubscribe(message.list_unsubscribe)
    if message.eml is None:
        part = build.part_of(message, new_boundary)
        theirs = _own_fields(message)
    else:
        _refuse_both(message)
        part = eml.parse(message.eml, new_boundary)
        theirs, part = list(part.headers), Part((), part.content)
    replaced = {header.key for header in ours}
    headers = [*(header for header in theirs if header.key not in replaced), *ours]
    if not any(header.key == "to" for header in headers):
        headers.insert(0, Header("To", f"{{{{ {RECIPIENT} }}}}"))
    return Part((*headers, *part.headers), part.content)


def _own_fields(message: Message) -> list[Header]:
    headers = [Header("From", message.sender)] if message.sender else []
    if message.reply_to is not None:
        headers.append(Header("Reply-To", message.reply_to))
    return [*headers, Header("Subject", message.subject), Header("MIME-Version", b" 1.0")]


def _refuse_both(message: Message) -> None:
    for name in ("sender", "subject", "html", "text", "reply_to", "attachments"):
        if getattr(message, name):
            raise RefusedInput(f"a message has either an eml or {name}")


def _only(part: Part, key: str) -> Header:
    found = [header for header in part.headers if header.key == key]
    if len(found) != 1:
        raise RefusedInput(f"the message has {len(found) or 'no'} From field{'s' if found else ''}", "give it one From")
    return found[0]


def _slots(pieces: Pieces) -> list[Slot]:
    return [piece for piece in pieces if not isinstance(piece, bytes)]


def _names(slots: list[Slot]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for slot in slots for name in slot.names if name != RECIPIENT))


def _ends_line(pieces: Pieces) -> bool:
    """Whatever the values are."""
    return isinstance(pieces[-1], bytes) and (pieces[-1] + b" ").endswith(b"\r\n ")
