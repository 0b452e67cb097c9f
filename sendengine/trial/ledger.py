"""What a trial server writes down: NDJSON lines, appended in batches so that they do not hold up replies."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any

import orjson

from sendengine.errors import RefusedInput

_FLUSH_AFTER = 0.05
_FLUSH_LINES = 5000  # sooner when so many are waiting

_is_kept = re.compile(r"\d+\.eml", re.ASCII).fullmatch
_message_id = re.compile(rb"(?im)^message-id:[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)").search
_subject = re.compile(rb"(?im)^subject:[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)").search


class WallClock:
    """UNIX seconds that never step: read once, then carried by the monotonic clock."""

    def __init__(self) -> None:
        self._base = time.time() - time.perf_counter()

    def now(self) -> float:
        return self._base + time.perf_counter()


class Ledger:
    """An NDJSON file, appended to: `add` collects, lines reach the file at `flush`, within 50 ms, or at `close`."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: dict[str, Any]) -> None:
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))  # bytes: nothing for the collector
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_AFTER, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        rest = memoryview(b"".join(lines))
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def close(self) -> None:
        self.flush()
        os.close(self._file)


class Kept:
    """A directory of messages, each under the number of its line in the ledger, which is appended to; without one they are counted on.
    Nothing bounds it but the disk; of one over SIZE, which is refused, only what was held is there. Raises RefusedInput where a message
    would take the place of another one's."""

    def __init__(self, directory: str, ledger: str | None) -> None:
        try:
            os.makedirs(directory, exist_ok=True)
            last = max((int(name[:-4]) for name in os.listdir(directory) if _is_kept(name)), default=0)
            self._last = last if ledger is None else _lines_of(ledger)
        except OSError as error:
            raise RefusedInput(f"cannot keep messages in {directory}: {error.strerror}") from error
        if last > self._last:
            raise RefusedInput(f"{directory} holds messages of another ledger than {ledger}", "an empty directory, or that ledger")
        self._directory = directory

    def add(self, message: bytes) -> None:
        self._last += 1
        with open(os.path.join(self._directory, f"{self._last:06}.eml"), "xb") as file:
            file.write(message)


def _lines_of(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def facts(message: bytes) -> dict[str, Any]:
    """size, message_id, subject and sha256 of a message without dot-stuffing; header values unfolded and decoded."""
    end = message.find(b"\r\n\r\n")
    head = message if end < 0 else message[:end]
    return {
        "size": len(message),
        "message_id": _value(_message_id(head)),
        "subject": _value(_subject(head)),
        "sha256": hashlib.sha256(message).hexdigest(),
    }


def unstuffed(wire: bytes) -> bytes:
    """RFC 5321 4.5.2: one dot is taken off every line that begins with one."""
    if wire.startswith(b"."):
        wire = wire[1:]
    return wire.replace(b"\r\n.", b"\r\n")


def _value(found: re.Match[bytes] | None) -> str | None:
    if found is None:
        return None
    text = found[1].decode("utf-8", "backslashreplace").replace("\r\n", "")
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(text))).encode("utf-8", "backslashreplace").decode()
    except (HeaderParseError, LookupError, ValueError):  # no RFC 2047 word after all
        return text
