"""CSV lines cut into rows of cells, a hundred at a time, so that a stray quote costs its own line and nobody else.

Pure, in constant memory. Mostly a line is a row, and all of a portion are cut at once. Where that fails they are looked at one by one: a
cell may go on over several lines, but such a row is believed only when it is good as it stands (`CsvRows._joined`). Else its first line
alone is refused, and the next line is read as if nothing had been before it. What is looked at again is bounded, so time stays linear.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import msgspec

from sendengine.addressing import BY_MAIL, Addressing
from sendengine.batch import BATCH_ROWS
from sendengine.errors import RefusedInput

MAX_SHOWN = 64 << 10  # characters of a refused row that are kept
MAX_JOINED_LINES = 100  # of one row
MAX_JOINED = 64 << 10  # characters of a row of several lines
OPEN_QUOTE = "a quote that does not end on its line"
_LONG = 8192  # characters a line, on average: of such lines
_TOGETHER = 10  # are cut at once, for a line may hold 500,000 cells: what is wider than the header goes before more are cut
_CSV_ERRORS = {
    "expected after": "a quote inside the field is not doubled",
    "unexpected end of data": OPEN_QUOTE,
    "field larger than": "a field is too long; perhaps a quote is never closed",
    "new-line character seen": "a carriage return inside a field without quotes",
}


class Taken(msgspec.Struct):
    """At most a hundred rows that are not blank, all parallel."""

    rows: list[list[str]] = []
    lines: list[int] = []  # where each starts
    texts: list[str] = []  # as it stood, cut where it is very long
    faults: dict[int, str] = {}  # index -> why it could not be cut into the header's cells


class Lines:
    """Blocks of whole lines, decoded; what was no UTF-8 stands as surrogates. `number` is that of the next line, from 1."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._block = io.StringIO()
        self._together = BATCH_ROWS
        self._ahead: deque[str] = deque()
        self.number = 1
        self.is_dirty = False

    def take(self, most: int) -> list[str]:
        """The next lines; fewer than asked for at a block's end and where they are long, none at the end of input."""
        taken = [self._ahead.popleft() for _ in range(min(most, len(self._ahead)))] or self._fetch(most)
        self.number += len(taken)
        return taken

    def give_back(self, lines: Sequence[str]) -> None:
        self._ahead.extendleft(reversed(lines))
        self.number -= len(lines)

    def ahead(self) -> Iterator[str]:
        """The lines to come, without taking them: who asks stops in time."""
        at = 0
        while at < len(self._ahead) or self._look_further():
            yield self._ahead[at]
            at += 1

    def _look_further(self) -> bool:
        more = self._fetch(1)
        self._ahead.extend(more)
        return bool(more)

    def _fetch(self, most: int) -> list[str]:
        while True:
            if lines := list(islice(self._block, min(most, self._together))):
                return lines
            block = next(self._blocks, None)
            if block is None:
                return []
            self._open(block)

    def _open(self, block: bytes) -> None:
        try:
            text = block.decode()
        except UnicodeDecodeError:
            self.is_dirty = True
            text = block.decode("utf-8", "surrogateescape")
        self._together = _TOGETHER if len(text) > _LONG * (text.count("\n") + 1) else BATCH_ROWS
        self._block = io.StringIO(text, newline="\n")


class CsvRows:
    """Takes rows as wide as the header, whose column at `place` says whom they are to; what is wider or narrower has a fault."""

    def __init__(self, lines: Lines, delimiter: str, width: int, place: int, whom: Addressing = BY_MAIL) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._width, self._place, self._whom = width, place, whom

    def take(self) -> Taken:
        """The next hundred; the same ones however the input came in pieces."""
        taken = Taken()
        while len(taken.rows) < BATCH_ROWS and (given := self._lines.take(BATCH_ROWS - len(taken.rows))):
            end = self._lines.number
            rows = self._cut_all(given)
            if rows is not None:
                self._add(taken, rows, range(end - len(given), end), given)
                continue
            self._lines.give_back(given)
            while self._lines.number < end:
                self._take_one(taken)
        return taken

    def _cut_all(self, lines: list[str]) -> list[list[str]] | None:
        """A row for each line, or None where one of them is no row by itself."""
        try:
            rows = list(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error:
            return None
        return rows if len(rows) == len(lines) else None

    def _take_one(self, taken: Taken) -> None:
        number = self._lines.number
        [line] = self._lines.take(1)
        try:
            row = self._cut(line)
        except csv.Error as error:
            row, more = self._joined(line)
            if more:
                line = "".join([line, *self._lines.take(more)])
            else:
                taken.faults[len(taken.rows)] = _in_plain_words(str(error))
                row = [""] * self._width
        self._add(taken, [row], [number], [line])

    def _cut(self, line: str, strict: bool = True) -> list[str]:
        return next(csv.reader([line], delimiter=self._delimiter, strict=strict), [])

    def _joined(self, first: str) -> tuple[list[str], int]:
        """The row that begins on a line with an open quote, and how many lines more it takes; none if it is not good as it stands:
        closed, as wide as the header, with an address, not over the bounds, and with no line that looks like a row of its own."""
        rest: list[str] = []
        try:
            row = next(csv.reader(chain([first], self._continuation(len(first), rest)), delimiter=self._delimiter, strict=True), [])
        except csv.Error:
            return [], 0
        return (row, len(rest)) if len(row) == self._width and self._is_good(row[self._place]) else ([], 0)

    def _continuation(self, size: int, rest: list[str]) -> Iterator[str]:
        for line in islice(self._lines.ahead(), MAX_JOINED_LINES - 1):
            size += len(line)
            if size > MAX_JOINED or self._looks_like_a_row(line):
                return
            rest.append(line)
            yield line

    def _looks_like_a_row(self, line: str) -> bool:
        if self._whom is BY_MAIL and "@" not in line:
            return False
        try:
            row = self._cut(line, strict=False)  # its own quotes may be open
        except csv.Error:
            return False
        return len(row) == self._width and self._whom.resembles(row[self._place])

    def _is_good(self, text: str) -> bool:
        try:
            self._whom.normalise(text)
        except RefusedInput:
            return False
        return True

    def _add(self, taken: Taken, rows: list[list[str]], lines: Sequence[int], texts: list[str]) -> None:
        if set(map(len, rows)) != {self._width}:
            kept = [at for at, row in enumerate(rows) if row]  # blank ones are no rows
            rows, lines, texts = [rows[at] for at in kept], [lines[at] for at in kept], [texts[at] for at in kept]
            for at, row in enumerate(rows, len(taken.rows)):
                self._level(row, taken.faults, at)
        taken.rows += rows
        taken.lines += lines
        taken.texts += [text[:MAX_SHOWN] for text in texts]

    def _level(self, row: list[str], faults: dict[int, str], at: int) -> None:
        """Short and long rows are refused, and made as wide as the others so that they fit into columns."""
        if len(row) != self._width:
            faults[at] = f"{len(row)} column{'s' * (len(row) != 1)} where the header has {self._width}"
            row[self._width :] = [""] * (self._width - len(row))


def _in_plain_words(error: str) -> str:
    """What the csv module found, as whoever made the list would say it."""
    return next((words for part, words in _CSV_ERRORS.items() if part in error), error)
