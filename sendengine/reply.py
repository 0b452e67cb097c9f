"""SMTP replies out of bytes: an incremental parser that trusts nobody, and the shape of a reply without its queue ids.

Pure. It knows the grammar of replies (RFC 5321 4.2) and of enhanced codes (RFC 3463), and no command: which reply
answers what is the session's matter. Garbage is a value (`ReplyParser.fault`), not an exception: it comes from outside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sendengine.types import Reply

MAX_LINE = 4096  # RFC 5321 4.5.3.1.5 says 512; real peers write longer policy texts
MAX_REPLY = 65536
MAX_TEXT = 512

# LF alone ends a line too, as many peers write it; anything but "250 ", "250-" or a bare "250" cannot be read.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\n]*))?", re.DOTALL)
# A whole reply of one line that needs no cleaning: nearly every reply there is.
_FINAL = re.compile(rb"(([2-5])[0-9]{2})(?: (?:(\2\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$))?([!-~][ -~]{,511})?)?")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=\s|$)\s*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")


class ReplyParser:
    """Cuts what one connection sends into replies. Owned by one session; after a fault it reads nothing any more."""

    __slots__ = ("_lines", "_rest", "_size", "fault")

    def __init__(self) -> None:
        self.fault = ""
        self._rest = b""  # the unfinished line
        self._lines: list[bytes] = []  # the lines of an unfinished reply
        self._size = 0  # octets in _lines

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that these octets complete, in order. Sets `fault` at the first octet that makes no sense."""
        if len(data) <= MAX_LINE and not self._rest and not self._lines and not self.fault:
            # The first reply of a read mostly names a queue id, the others are the same all day. Only what is short is
            # remembered: the caches are the process's.
            first, _, others = data.partition(b"\r\n")
            reply = _final_line(first)
            replies = _final_lines(others)
            if reply is not None and replies is not None and len(first) != len(data):
                return [reply, *replies]
        return self._feed_slowly(data)

    def _feed_slowly(self, data: bytes) -> list[Reply]:
        replies: list[Reply] = []
        if self.fault:
            return replies
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            reply = self._add(line.removesuffix(b"\r"))
            if self.fault:
                return replies
            if reply is not None:
                replies.append(reply)
        if len(self._rest) > MAX_LINE:
            self.fault = f"a reply line of more than {MAX_LINE} octets"
        return replies

    def _add(self, line: bytes) -> Reply | None:
        match = _LINE.fullmatch(line)
        self._size += len(line)
        if match is None:
            self.fault = f"not an SMTP reply: {_text(line[:80])!r}"
        elif len(line) > MAX_LINE or self._size > MAX_REPLY:
            self.fault = f"a reply of more than {MAX_LINE} octets a line or {MAX_REPLY} in all"
        elif self._lines and self._lines[0][:3] != match[1]:
            # RFC 5321 4.2.1: every line of a reply carries the same code. Which one would hold?
            self.fault = f"a reply of several codes: {_text(self._lines[0][:3])}, {_text(match[1])}"
        else:
            self._lines.append(line)
            return None if match[2] == b"-" else self._complete()
        return None

    def _complete(self) -> Reply:
        lines, self._lines, self._size = self._lines, [], 0
        return make_reply(int(lines[0][:3]), [_text(line[4:]) for line in lines])


def make_reply(code: int, lines: Sequence[str]) -> Reply:
    """A Reply of its lines' texts. The enhanced code counts only when its class is the reply's (RFC 2034 4)."""
    match = _ENHANCED.match(lines[0]) if lines else None
    enhanced = match[1] if match and match[1][0] == str(code)[0] else ""
    if enhanced:
        lines = [line[len(enhanced) :].lstrip() if line.startswith(enhanced) else line for line in lines]
    text = _CONTROLS.sub(" ", " ".join(filter(None, lines))).strip()
    return Reply(code, enhanced, text[:MAX_TEXT])


def strip_ids(text: str) -> str:
    """The text of a reply without what differs from message to message: "Ok: queued as 4F2A1" -> "Ok: queued as *".

    What goes: a leading enhanced code, what follows "queued as" or "id=", addresses in brackets, numbers of five digits
    or more, fractions, and words that mix at least three digits into seven characters or more.
    """
    head, mark, tail = text.partition("queued as ")
    if not mark:
        return _strip_ids(text)
    _, space, tail = tail.partition(" ")
    return f"{_strip_ids(head)}queued as *{space}{_strip_ids(tail)}"


@lru_cache(maxsize=1024)
def _final_line(line: bytes) -> Reply | None:
    """The reply of a line that is a whole one and needs no cleaning, or None."""
    match = _FINAL.fullmatch(line)
    if match is None:
        return None
    code, _, enhanced, text = match.groups(b"")
    return Reply(int(code), enhanced.decode(), text.rstrip().decode())


@lru_cache(maxsize=256)
def _final_lines(data: bytes) -> tuple[Reply, ...] | None:
    """The replies of octets that are nothing but whole lines; None when a line is unfinished or no whole reply."""
    *lines, rest = data.split(b"\r\n")
    replies = tuple(reply for reply in map(_final_line, lines) if reply is not None)
    return replies if not rest and len(replies) == len(lines) else None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


_IDS = re.compile(
    r"(?<=\bid=)[^\s,;\]>]+|(?<=<)[^<>\s]+@[^<>\s]+(?=>)"
    r"|(?<![\w.])\d+\.\d+(?![\w.])"
    r"|(?<!\w)(?=[A-Za-z_-]*\d[A-Za-z_-]*\d[A-Za-z_-]*\d)[\w-]{7,}|\d{5,}",
    re.ASCII | re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def _strip_ids(text: str) -> str:
    return _IDS.sub("*", _ENHANCED.sub("", text, count=1) if text[1:2] == "." else text)
