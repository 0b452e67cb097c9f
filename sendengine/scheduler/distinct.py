"""The different fingerprints of a list of any length, and what came with the first of each: on disk by their first octet, so that memory
holds a part of them at a time. Submit tells duplicates by the same fingerprints, so it comes to the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Self

OCTETS = 8  # of a fingerprint
PARTS = 256
TOGETHER = 8192  # records of one part that wait in memory


class Distinct:
    """Owner of a temporary file, which only a long list needs. Usable inside `with` only. A record is a fingerprint and `beside` octets
    that come with it."""

    def __init__(self, beside: int = 0) -> None:
        self._size = OCTETS + beside

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile()
        self._waiting = [bytearray() for _ in range(PARTS)]
        self._written: list[list[int]] = [[] for _ in range(PARTS)]  # where TOGETHER records of each begin
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def add(self, records: bytes) -> None:
        """One behind the other."""
        size, most = self._size, TOGETHER * self._size
        for at in range(0, len(records), size):
            part = records[at]
            waiting = self._waiting[part]
            waiting += records[at : at + size]
            if len(waiting) == most:
                self._written[part].append(self._file.tell())
                self._file.write(waiting)
                waiting.clear()

    def count(self) -> int:
        """Of all that were added; nothing is added afterwards."""
        return sum(len(self._firsts(part)) for part in range(PARTS))

    def firsts(self) -> Iterator[bytes]:
        """What came with the first record of each, in no order."""
        for part in range(PARTS):
            yield from self._firsts(part).values()

    def _firsts(self, part: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for place in self._written[part]:
            self._file.seek(place)
            self._note(found, self._file.read(TOGETHER * self._size))
        self._note(found, bytes(self._waiting[part]))
        return found

    def _note(self, found: dict[bytes, bytes], records: bytes) -> None:
        for at in range(0, len(records), self._size):
            found.setdefault(records[at : at + OCTETS], records[at + OCTETS : at + self._size])
