"""How many different fingerprints there are, of a list of any length: on disk by their first octet, so that memory holds a part of them at
a time. Submit tells duplicates by the same fingerprints, so it comes to the same number."""

from __future__ import annotations

import tempfile
from typing import Self

OCTETS = 8  # of a fingerprint
PARTS = 256
PART_MOST = 1 << 16  # octets of one part that wait in memory


class Distinct:
    """Owner of a temporary file, which only a long list needs. Usable inside `with` only."""

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile()
        self._waiting = [bytearray() for _ in range(PARTS)]
        self._written: list[list[int]] = [[] for _ in range(PARTS)]  # where PART_MOST octets of each begin
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def add(self, prints: bytes) -> None:
        """Fingerprints, one behind the other."""
        for at in range(0, len(prints), OCTETS):
            part = prints[at]
            waiting = self._waiting[part]
            waiting += prints[at : at + OCTETS]
            if len(waiting) == PART_MOST:
                self._written[part].append(self._file.tell())
                self._file.write(waiting)
                waiting.clear()

    def count(self) -> int:
        """Of all that were added; nothing is added afterwards."""
        return sum(map(self._count, range(PARTS)))

    def _count(self, part: int) -> int:
        found = set(_cut(self._waiting[part]))
        for place in self._written[part]:
            self._file.seek(place)
            found.update(_cut(self._file.read(PART_MOST)))
        return len(found)


def _cut(prints: bytes | bytearray) -> list[bytes]:
    return [bytes(prints[at : at + OCTETS]) for at in range(0, len(prints), OCTETS)]
