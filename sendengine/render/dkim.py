"""DKIM signatures (RFC 6376, RFC 8463), relaxed/relaxed: what is signed, canonicalised as far as it can be once per send.

What a recipient's values leave alone is canonical already when a skeleton is compiled. A message's body is then cores, which never
change, and between them *seams*: a slot with the blanks and line ends that touch it. Whatever the value is, both neighbours of a seam are
solid octets, so that it is canonicalised by itself. All seams of a message go together, NUL between them (no body or field holds one):
one `%`, a few looks, one split. A row whose values are plain (solid at both ends, single blanks, one line) does not even need that: its
seams are known but for the values. Both ways give the same octets. The signature is over the message before its dots are stuffed
(RFC 6376 5.3).

Keys sign digests; who holds them, and how they came here, is not known.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from hashlib import sha256
from operator import itemgetter

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
_B_LINE = 72
_COPIED_MOST = 4096  # octets
_NUL = b"\0"
_solid = re.compile(rb"[^ \t\r\n](?:.*[^ \t\r\n])?", re.DOTALL).search

Pieces = Sequence[bytes | Slot]
Template = tuple[Callable[[bytes], bytes], bytes, bytes]
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
        self._templates: tuple[Sequence[SigningKey], list[Template]] = ((), [])  # of the keys that signed last

    def fields(self, values: tuple[bytes, ...], serial: int, date: bytes, time: int, keys: Sequence[SigningKey]) -> bytes:
        """A DKIM-Signature field for each key, to stand before the message. `values` are those of its slots as they go on the wire."""
        is_plain = _are_plain(values)
        body = b2a_base64(self._body.digest(values[self._first :], is_plain))[:-1]
        header = self._header.data(values, serial, date, is_plain)
        known, templates = self._templates
        if known is not keys:
            templates = [self._template(key) for key in keys]
            self._templates = keys, templates
        made = b""
        for sign, wire, canonical in templates:
            digest = sha256(header + canonical % (time, body)).digest()
            made += wire % (time, body, _folded(b2a_base64(sign(digest))[:-1]))
        return made

    def _template(self, key: SigningKey) -> Template:
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
        return key.sign, wire + b"%b\r\n", relaxed_field(wire)


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
        self._format = self._plain = b"date:%b\r\nmessage-id:" + message_id.encode() + b"\r\n"
        cells: list[bytes] = []
        picks: list[int] = []
        for name in SIGNED:
            standing = [at for at in range(len(head) - 1, -1, -1) if head[at][0] == name]
            self.names += [name] * (len(standing) + (name in OVERSIGNED))
            for at in standing:
                pieces, first = head[at][1], sum(_slots(above) for _, above in head[:at])
                if count := _slots(pieces):
                    cells.append(_format(pieces).partition(b":")[2].removesuffix(b"\r\n"))
                    picks += range(first, first + count)
                    self._format += name.encode() + b":%b\r\n"
                    self._plain += relaxed_field(_format(pieces).removesuffix(b"\r\n")) + b"\r\n"
                else:
                    field = relaxed_field(_octets(pieces)).replace(b"%", b"%%") + b"\r\n"
                    self._format, self._plain = self._format + field, self._plain + field
        self._cells = _NUL.join(cells)
        self._pick = _picker(picks)

    def data(self, values: tuple[bytes, ...], serial: int, date: bytes, is_plain: bool) -> bytes:
        """The signed fields in their canonical form, each with its CRLF."""
        own = self._pick(values)
        if is_plain or not self._cells:
            return self._plain % (date, serial, *own)
        cells = self._cells % own
        if b"\r\n" in cells:
            cells = cells.replace(b"\r\n", b"")
        return self._format % (date, serial, *[cell.strip(b" ") for cell in _reduced(cells).split(_NUL)])


def _picker(places: list[int]) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    """Of a tuple the values at these places, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    first = places[0] if places else 0
    return itemgetter(slice(first, first + len(places)))


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
        self._runs = _runs(cores, [*[b"%b"] * len(cores), b"%b" if self._ends_in_seam else b"\r\n"])
        *others, end = map(_reduced, seams)
        self._plain = _runs(cores, [*others, end.rstrip(b"\r\n") + b"\r\n"])

    def digest(self, values: tuple[bytes, ...], is_plain: bool) -> bytes:
        if self._constant is not None:
            return self._constant
        running = self._start.copy()
        parts = values if is_plain else self._canonical(values)
        for first, last, run, core in self._plain if is_plain else self._runs:
            running.update(run % parts[first:last])
            if core:
                running.update(core)
        return running.digest()

    def _canonical(self, values: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The seams."""
        octets = self._seams % values
        if b"\n.." in octets:
            octets = octets.replace(b"\n..", b"\n.")
        seams = _reduced(octets)[1:].split(_NUL)
        if self._ends_in_seam:  # RFC 6376 3.4.4 b: no empty lines at the end, and one CRLF if anything stands before
            end = seams[-1].rstrip(b"\r\n")
            seams[-1] = end + b"\r\n" if end or self._is_solid else b""
        return tuple(seams)


def _runs(cores: list[bytes], seams: list[bytes]) -> list[tuple[int, int, bytes, bytes]]:
    """Of formats that fill the seams: where the values of a run begin and end, its format, and what follows it. A large core is hashed
    where it lies, a small one costs less in the octets of its run."""
    runs: list[tuple[int, int, bytes, bytes]] = []
    first, last, run = 0, seams[0].count(b"%b"), seams[0]
    for core, seam in zip(cores, seams[1:], strict=True):
        if len(core) > _COPIED_MOST:
            runs.append((first, last, run, core))
            first, run = last, seam
        else:
            run += core.replace(b"%", b"%%") + seam
        last += seam.count(b"%b")
    return [*runs, (first, last, run, b"")]


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


def _are_plain(values: tuple[bytes, ...]) -> bool:
    """Each is one line with single blanks, begins and ends with something solid, and not with a dot (it may have been stuffed)."""
    joined = _NUL.join((b"", *values, b""))
    return not (
        b"\r" in joined or b"\t" in joined or b"  " in joined or b"\0 " in joined or b" \0" in joined or b"\0\0" in joined
        or b"\0." in joined
    )  # fmt: skip


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
    if len(base64) <= 2 * _B_LINE:
        return b"%b\r\n %b" % (base64[:_B_LINE], base64[_B_LINE:])
    return b"\r\n ".join([base64[at : at + _B_LINE] for at in range(0, len(base64), _B_LINE)])
