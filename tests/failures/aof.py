"""The append-only file of a dead server, cut as a power cut under `appendfsync everysec` leaves it: its last writes are gone, though they
were acknowledged; what is left is whole. Knows the form of the file (multi-part, RESP) and nothing of what stands in it.

A script's writes stand between MULTI and EXEC and go together, or the cut would make a state that never was. Lines that begin with `#`
are annotations (`#TS:` and seconds, under `aof-timestamp-enabled`); they belong to the write behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec


class Mark(msgspec.Struct, frozen=True):
    """A place in a file that is still written: all that was acknowledged by then stands before it."""

    path: Path
    size: int


def mark(folder: Path) -> Mark:
    """The end of the newest file of a server's folder, now."""
    files = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    return Mark(files[-1], files[-1].stat().st_size)


def cut(at: Mark, folder: Path) -> int:
    """Everything behind the mark goes, and the write that lies across it; how many writes went. The server must be dead, and must not have
    begun another file since: what it folded into a new one can be cut out of it no more."""
    assert mark(folder).path == at.path, "the file was rewritten since"
    content = at.path.read_bytes()
    ends = list(writes(content))
    kept = [end for end in ends if end <= at.size]
    with at.path.open("r+b") as file:
        file.truncate(kept[-1] if kept else 0)
    return len(ends) - len(kept)


def cut_last(folder: Path, n: int) -> int:
    """The last n writes go, at most all; how many went."""
    ends = list(writes(mark(folder).path.read_bytes()))
    return cut(Mark(mark(folder).path, ends[-n - 1] if n < len(ends) else 0), folder)


def writes(content: bytes) -> Iterator[int]:
    """Where each whole write ends: a command, or all from MULTI to EXEC. One that the kill tore off has no end."""
    at, is_open = 0, False
    while (found := _command(content, at)) is not None:
        name, at = found
        is_open = (is_open or name == b"MULTI") and name != b"EXEC"
        if not is_open:
            yield at


def _command(content: bytes, at: int) -> tuple[bytes, int] | None:
    """The name of the command there, in capitals, and where the next begins; None at the end, or where it is torn."""
    while content[at : at + 1] == b"#":
        at = content.find(b"\n", at) + 1
        if not at:
            return None
    head = _number(content, at, b"*")
    if head is None:
        return None
    n, at = head
    name = b""
    for place in range(n):
        length = _number(content, at, b"$")
        if length is None or length[1] + length[0] + 2 > len(content):
            return None
        octets, start = length
        at = start + octets + 2
        if place == 0:
            name = content[start : start + octets].upper()
    return name, at


def _number(content: bytes, at: int, sign: bytes) -> tuple[int, int] | None:
    """A line of a sign and a number, and what follows it; None where it is torn."""
    end = content.find(b"\r\n", at)
    if end < 0:
        return None
    assert content[at : at + 1] == sign, f"no RESP at {at}: {content[at : at + 20]!r}"
    return int(content[at + 1 : end]), end + 2
