"""DKIM signatures (RFC 6376, RFC 8463), relaxed/relaxed: what is signed, canonicalised as far as it can be once per send.

What a recipient's values leave alone is canonical already when a skeleton is compiled. A message's body is then cores, which never
change, and between them *seams*: a slot with the blanks and line ends that touch it. Whatever the value is, both neighbours of a seam are
solid octets, so that it is canonicalised by itself. All seams of a message go together, NUL between them (no body or field holds one):
one `%`, a few looks, one split. The signature is over the message before its dots are stuffed (RFC 6376 3.5, 5.3).

Keys sign digests; who holds them, and how they came here, is not known.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from hashlib import sha256

import msgspec

from sendengine.render.slots import Slot

# Whoever adds one of these to a signed message could change what it seems to be, or where it unsubscribes: each is named once more than
# it stands there, so that one more of it breaks the signature (RFC 6376 8.15; RFC 8058 4 wants the List-Unsubscribe ones signed).
OVERSIGNED = frozenset(("from", "to", "subject", "list-unsubscribe", "list-unsubscribe-post"))
SIGNED = (  # RFC 6376 5.4.1: where they stand, beside Date and Message-ID; what relays change on the way is left out
    "from", "sender", "reply-to", "to", "cc", "subject", "in-reply-to", "references", "mime-version", "content-type",
    "content-transfer-encoding", "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post",
    "list-owner", "list-archive", "feedback-id",
)  # fmt: skip
_FOLD_AT = 78
_COPIED_MOST = 4096  # octets
_NUL = b"\0"
_solid = re.compile(rb"[^ \t\r\n](?:.*[^ \t\r\n])?", re.DOTALL).search

Pieces = Sequence[bytes | Slot]
Field = tuple[str, Pieces]  # its name in lower case, and the whole of it: "Name: value", CRLF


class SigningKey(msgspec.Struct, frozen=True):
    """`sign` makes a signature of a SHA-256 digest. `algorithm` as in a=: rsa-sha256, ed25519-sha256."""

    domain: str
    selector: str
    algorithm: str
    sign: Callable[[bytes], bytes]


class Signing:
    """What of one rendition's messages is signed. `head` is the header as it stands, without Date and Message-ID (`message_id`: a format of
    the serial number); `body` what follows the empty line, dots unstuffed, ending in CRLF."""

    def __init__(self, head: Sequence[Field], body: Pieces, message_id: str) -> None:
        self._header = _Header(head, message_id)
        self._body = _Body(body)
        self._first = sum(_slots(pieces) for _, pieces in head)  # of the body's values
        self._templates: dict[SigningKey, tuple[bytes, bytes]] = {}

    def fields(self, values: tuple[bytes, ...], serial: int, date: bytes, time: int, keys: Sequence[SigningKey]) -> bytes:
        """A DKIM-Signature field for each key, to stand before the message. `values` are those of its slots as they go on the wire."""
        body = b2a_base64(self._body.digest(values[self._first :]))[:-1]
        header = self._header.data(values, serial, date)
        made = b""
        for key in keys:
            wire, canonical = self._templates.get(key) or self._template(key)
            digest = sha256(header + canonical % (time, body)).digest()
            made += wire % (time, body, _folded(b2a_base64(key.sign(digest))[:-1]))
        return made

    def _template(self, key: SigningKey) -> tuple[bytes, bytes]:
        """The field and its canonical form, with places for t, bh and (in the former) b."""
        named = [f"{name}:" for name in self._header.names]
        tags = ["v=1;", f"a={key.algorithm};", "c=relaxed/relaxed;", f"d={key.domain};", f"s={key.selector};", f"h={named[0]}", *named[1:]]
        tags[-1] = tags[-1].removesuffix(":") + ";"
        lines = ["DKIM-Signature:"]
        for tag in tags:
            if len(lines[-1]) + 1 + len(tag) > _FOLD_AT:
                lines.append("")
            lines[-1] += f" {tag}"
        wire = "\r\n".join(lines).encode() + b"\r\n t=%d; bh=%b;\r\n b="
        found = self._templates[key] = wire + b"%b\r\n", relaxed_field(wire)
        return found


def relaxed_field(field: bytes) -> bytes:
    """RFC 6376 3.4.2, without the CRLF."""
    name, _, value = field.partition(b":")
    return name.strip(b" \t").lower() + b":" + _reduced(value.replace(b"\r\n", b"")).strip(b" ")


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376 3.4.4, of octets that end in CRLF."""
    lines = _reduced(body).rstrip(b"\r\n")
    return lines + b"\r\n" if lines else b""


class _Header:
    """`names` is h=. A name means, each time it comes, the next of its fields from below (RFC 6376 5.4.2)."""

    def __init__(self, head: Sequence[Field], message_id: str) -> None:
        self.names = ["date", "message-id"]
        self._format = b"date:%b\r\nmessage-id:" + message_id.encode() + b"\r\n"
        self._picks: list[int] = []
        cells = []
        for name in SIGNED:
            standing = [at for at in range(len(head) - 1, -1, -1) if head[at][0] == name]
            self.names += [name] * (len(standing) + (name in OVERSIGNED))
            for at in standing:
                pieces, first = head[at][1], sum(_slots(above) for _, above in head[:at])
                if count := _slots(pieces):
                    cells.append(_format(pieces).partition(b":")[2].removesuffix(b"\r\n"))
                    self._picks += range(first, first + count)
                    self._format += name.encode() + b":%b\r\n"
                else:
                    self._format += relaxed_field(_octets(pieces)).replace(b"%", b"%%") + b"\r\n"
        self._cells = _NUL.join(cells)

    def data(self, values: tuple[bytes, ...], serial: int, date: bytes) -> bytes:
        """The signed fields in their canonical form, each with its CRLF."""
        if not self._cells:
            return self._format % (date, serial)
        cells = self._cells % tuple([values[at] for at in self._picks])
        if b"\r\n" in cells:
            cells = cells.replace(b"\r\n", b"")
        return self._format % (date, serial, *[cell.strip(b" ") for cell in _reduced(cells).split(_NUL)])


class _Body:
    """Seam, core, seam, core … seam. What stands before the first slot is hashed once; without slots, all is."""

    def __init__(self, body: Pieces) -> None:
        self._constant = None if _slots(body) else sha256(relaxed_body(_octets(body))).digest()
        seams, cores = _parted(body)
        self._is_solid = bool(cores)
        self._start = sha256()
        before = b"\n"  # the body begins with a slot: a leading dot of its value is stuffed
        if cores and b"%b" not in seams[0]:
            self._start.update(_reduced(seams.pop(0)) + cores.pop(0))
            before = b"="
        self._ends_in_seam = b"%b" in seams[-1]
        self._seams = before + _NUL.join(seams)
        self._runs = _runs(cores, b"%b" if self._ends_in_seam else b"\r\n", len(seams))

    def digest(self, values: tuple[bytes, ...]) -> bytes:
        if self._constant is not None:
            return self._constant
        octets = self._seams % values
        if b"\n.." in octets:
            octets = octets.replace(b"\n..", b"\n.")
        seams = _reduced(octets)[1:].split(_NUL)
        if self._ends_in_seam:  # RFC 6376 3.4.4 b: no empty lines at the end, and one CRLF if anything stands before
            end = seams[-1].rstrip(b"\r\n")
            seams[-1] = end + b"\r\n" if end or self._is_solid else b""
        running = self._start.copy()
        for first, last, run, core in self._runs:
            running.update(run % tuple(seams[first:last]))
            if core:
                running.update(core)
        return running.digest()


def _runs(cores: list[bytes], end: bytes, count: int) -> list[tuple[int, int, bytes, bytes]]:
    """Where a run of seams begins and ends, its format, and what follows it. A large core is hashed where it lies, a small one costs less
    in the octets of its run."""
    runs: list[tuple[int, int, bytes, bytes]] = []
    first, run = 0, b"%b"
    for at, core in enumerate(cores, 1):
        if len(core) > _COPIED_MOST:
            runs.append((first, at, run, core))
            first, run = at, b""
        else:
            run += core.replace(b"%", b"%%")
        run += b"%b" if at < len(cores) else end
    return [*runs, (first, count if end == b"%b" else count - 1, run, b"")]


def _parted(body: Pieces) -> tuple[list[bytes], list[bytes]]:
    """Seams as formats, and between them the cores, which begin and end with a solid octet."""
    seams, cores = [b""], []
    for literal in b"".join(piece if isinstance(piece, bytes) else _NUL for piece in body).split(_NUL):
        solid = _solid(literal)
        if solid is None:
            seams[-1] += literal
        else:
            seams[-1] += literal[: solid.start()]
            cores.append(_reduced(solid[0]))
            seams.append(literal[solid.end() :])
        seams[-1] += b"%b"
    seams[-1] = seams[-1].removesuffix(b"%b")
    return seams, cores


def _octets(pieces: Pieces) -> bytes:
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _format(pieces: Pieces) -> bytes:
    return b"".join(piece.replace(b"%", b"%%") if isinstance(piece, bytes) else b"%b" for piece in pieces)


def _slots(pieces: Pieces) -> int:
    return sum(not isinstance(piece, bytes) for piece in pieces)


def _reduced(octets: bytes) -> bytes:
    """A run of blanks is one space, and none stands at the end of a line. By `replace`: a substitution would cost ten times as much."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets.replace(b" \r\n", b"\r\n") if b" \r\n" in octets else octets


def _folded(base64: bytes) -> bytes:
    """RFC 6376 3.5: blanks inside b= mean nothing."""
    return b"\r\n ".join([base64[at : at + 72] for at in range(0, len(base64), 72)])
