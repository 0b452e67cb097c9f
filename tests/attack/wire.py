"""Judges of what goes on the wire, written from the RFCs alone: nothing here uses the package that is being judged.

A message as a list of lines (RFC 5322 2, RFC 5321 2.3.8), and receivers of a whole conversation: a strict one, which ends a
line at CRLF and a message at CRLF.CRLF, and lenient ones, which also believe what real servers have believed.
"""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.utils import getaddresses

import msgspec

MAX_LINE = 998


class Injected(AssertionError):
    """The judge's finding."""


class Seen(msgspec.Struct, frozen=True):
    """A message by its lines: unfolded header fields, and the octets after the empty line."""

    fields: list[tuple[str, str]]
    body: bytes

    @property
    def names(self) -> list[str]:
        return sorted(name.lower() for name, _ in self.fields)


def demand(is_good: bool, finding: str) -> None:
    if not is_good:
        raise Injected(finding)


def read(wire: bytes) -> Seen:
    """A dot-stuffed message, strictly: raises Injected at the first octet that RFC 5321 or 5322 does not allow."""
    demand(wire.endswith(b"\r\n"), "does not end a line")
    lines = wire[:-2].split(b"\r\n")
    for line in lines:
        demand(not set(line) & {0, 10, 13}, f"a bare CR or LF, or a NUL: {line[:80]!r}")
        demand(not line.startswith(b".") or line.startswith(b".."), f"a dot alone or not stuffed: {line[:80]!r}")
        demand(len(line.removeprefix(b".")) <= MAX_LINE, f"a line of {len(line)} octets")
    lines = [line[1:] if line.startswith(b".") else line for line in lines]
    end = lines.index(b"") if b"" in lines else len(lines)
    fields: list[tuple[str, str]] = []
    for line in lines[:end]:
        demand(not re.search(rb"[\x00-\x08\x0a-\x1f\x7f-\xff]", line), f"no printable ASCII in a header: {line[:80]!r}")
        if line[:1] in (b" ", b"\t"):
            demand(bool(fields) and bool(line.strip()), f"a fold of nothing: {line[:80]!r}")
            fields[-1] = (fields[-1][0], fields[-1][1] + line.decode())
        else:
            match = re.fullmatch(rb"([!-9;-~]+):(.*)", line)
            demand(match is not None, f"no header field: {line[:80]!r}")
            assert match is not None
            fields.append((match[1].decode(), match[2].decode().strip()))
    return Seen(fields, b"\r\n".join(lines[end + 1 :]))


def unstuffed(wire: bytes) -> bytes:
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in wire.split(b"\r\n"))


def structure(octets: bytes) -> list[str]:
    return [part.get_content_type() for part in message_from_bytes(octets).walk()]


def judge(wire: bytes, expected: Seen, types: list[str], recipients: set[str] | None) -> None:
    """The same fields as `expected` by every reader, the same parts, and no address beyond `recipients`."""
    seen = read(wire)
    demand(seen.names == expected.names, f"fields {seen.names}, not {expected.names}")
    octets = unstuffed(wire)
    for rules in (policy.compat32, policy.default, policy.SMTP):
        parsed = message_from_bytes(octets, policy=rules)
        demand(sorted(map(str.lower, parsed.keys())) == expected.names, f"the email package reads {parsed.keys()}")
        demand(not parsed.defects, f"the email package finds {parsed.defects}")
    demand(structure(octets) == types, f"parts {structure(octets)}, not {types}")
    if recipients is not None:
        parsed = message_from_bytes(octets)
        values = [str(value) for name in ("To", "Cc", "Bcc") for value in parsed.get_all(name, [])]
        found = {address for _, address in getaddresses(values)}
        demand(found <= recipients, f"addressed to {found}, not {recipients}")


def rewritten(wire: bytes) -> list[str]:
    """The names of the fields after a relay has passed it on that decodes them and writes them anew as they are: some Pythons' email
    package does so (3.11.7), others encode them again (3.11.2)."""
    parsed = message_from_bytes(unstuffed(wire), policy=policy.SMTP)
    lines = [line for name, value in parsed.items() for line in re.split(r"\r\n|\r|\n", f"{name}: {value}")]
    return sorted(line.partition(":")[0].lower() for line in lines if line[:1] not in (" ", "\t"))


# Receivers


class Habit(msgspec.Struct, frozen=True):
    """What a receiver takes for the end of a line among the commands, and for the end of a message (its group: the last line's)."""

    name: str
    line: bytes
    end: bytes
    drops_nul: bool = False


STRICT = Habit("strict", rb"\r\n", rb"(\A|\r\n)\.\r\n")
LENIENT = [  # each takes the true end too
    Habit("any line end", rb"\r\n|\n|\r", rb"(\A|\r\n|\n|\r)\.(?:\r\n|\n|\r)"),
    Habit("LF", rb"\r?\n", rb"(\A|\n)\.\r?\n"),
    Habit("LF dot CRLF", rb"\r\n", rb"(\A|\n)\.\r\n"),
    Habit("CRLF dot LF", rb"\r\n", rb"(\A|\r\n)\.\r?\n"),
    Habit("CR", rb"\r\n", rb"(\A|\r\n|\r)\.\r\n?"),
    Habit("CRLF dot CR", rb"\r\n", rb"(\A|\r\n)\.\r\n?"),
    Habit("no NUL", rb"\r\n", rb"(\A|\r\n)\.\r\n", drops_nul=True),
]


class Transaction(msgspec.Struct):
    sender: bytes
    recipients: list[bytes]
    message: bytes = b""


class Receiver:
    """A server that answers yes to everything, by its habit. `taken` is what it believes to have been given."""

    def __init__(self, habit: Habit) -> None:
        self.taken: list[Transaction] = []
        self.commands: list[bytes] = []
        self._habit = habit
        self._buffer = b""
        self._open: Transaction | None = None
        self._is_data = False
        self._chunk = -1  # octets of a BDAT chunk still to come

    def hear(self, octets: bytes) -> bytes:
        self._buffer += octets.replace(b"\0", b"") if self._habit.drops_nul else octets
        answers = b""
        while (answer := self._step()) is not None:
            answers += answer
        return answers

    def _step(self) -> bytes | None:
        if self._chunk >= 0:
            return self._chunked()
        if self._is_data:
            return self._data()
        found = re.search(self._habit.line, self._buffer)
        if not found:
            return None
        line, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
        self.commands.append(line)
        return self._command(line)

    def _command(self, line: bytes) -> bytes:
        verb, _, rest = line.partition(b" ")
        if verb == b"MAIL":
            demand(self._open is None, "MAIL inside a transaction")
            self._open = Transaction(_path(rest, b"FROM"), [])
        elif verb == b"RCPT":
            assert self._open is not None
            self._open.recipients.append(_path(rest, b"TO"))
        elif verb == b"DATA":
            demand(rest == b"", "DATA with a parameter")
            self._is_data = True
            return b"354 go on\r\n"
        elif verb == b"BDAT":
            size, last = rest.split(b" ")
            demand(last == b"LAST", "an open BDAT")
            self._chunk = int(size)
            return b""
        else:
            demand(line == b"QUIT", f"a command nobody gave: {line[:80]!r}")
        return b"250 yes\r\n"

    def _data(self) -> bytes | None:
        found = re.search(self._habit.end, self._buffer)
        if not found:
            return None
        message, self._buffer = self._buffer[: found.end(1)], self._buffer[found.end() :]
        self._is_data = False
        return self._take(unstuffed(message))

    def _chunked(self) -> bytes | None:
        if len(self._buffer) < self._chunk:
            return None
        message, self._buffer, self._chunk = self._buffer[: self._chunk], self._buffer[self._chunk :], -1
        return self._take(message)

    def _take(self, message: bytes) -> bytes:
        assert self._open is not None
        self._open.message = message
        self.taken.append(self._open)
        self._open = None
        return b"250 taken\r\n"


def _path(rest: bytes, keyword: bytes) -> bytes:
    """RFC 5321 4.1.2, no more than the engine writes: one mailbox, and parameters of MAIL."""
    match = re.fullmatch(keyword + rb":<([!-;=?-~]*)>((?: [A-Z0-9]+(?:=[!-<>-~]+)?)*)", rest)
    demand(match is not None, f"no path: {rest[:80]!r}")
    assert match is not None
    demand(bool(re.fullmatch(rb"(?: SIZE=[0-9]+)?(?: BODY=8BITMIME)?", match[2])), f"a parameter nobody gave: {match[2]!r}")
    return match[1]
