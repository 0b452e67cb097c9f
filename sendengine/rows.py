"""Reading recipients: CSV, NDJSON or mappings, cut into hundreds of input rows and turned into columns.

Pure iterators in constant memory. This module knows text formats and line numbers; whether an address or a value is
acceptable is the business of intake.py. A column is found by its exact name, else case-blindly where that is one
column. A row that cannot be read is still a row: it keeps its place and carries a
fault. Blank lines are no rows.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any

import msgspec
import orjson

from sendengine.batch import BATCH_ROWS
from sendengine.errors import RefusedInput

EMAIL = "email"
MAX_LINE = 512 << 10  # octets; what a line has beyond is never kept in memory
MAX_COLUMNS = 20_000
_TOGETHER = 10  # long lines read at once: what is wider than the header is cut before more are read, for a line may hold 500,000 cells
_SHOWN = 4096  # characters of a line that are kept to be shown
_UNREADABLE = f"not UTF-8, or a line over {MAX_LINE >> 10} KiB"
_NEAR = 0.5  # of two equal names 1.0: `first name` is near `first_name`, `city` is not
_is_like_address = re.compile(r"[^@\s]+@[^@\s]+").fullmatch
_CSV_ERRORS = {
    "expected after": "a quote inside the field is not doubled",
    "unexpected end of data": "a quote is opened and never closed",
    "field larger than": "a field is too long; perhaps a quote is never closed",
    "new-line character seen": "a carriage return inside a field without quotes",
}


class Rows(msgspec.Struct):
    """At most 100 input rows in columns, all parallel. The intake that receives it owns it."""

    emails: list[Any]
    columns: list[list[Any]]  # one per name asked for; None where a row lacks it
    faults: dict[int, str]  # index -> why the row could not be read
    lines: Sequence[int]  # the physical line, from 1, where each row starts
    text_of: Callable[[int], str]  # the row as it was given; asked for refused rows only
    absent: Mapping[str, str]  # names asked for, and `email`, that no row here has a column for -> the nearest column, or ""


class MissingColumn(RefusedInput):
    """A column that the whole list lacks. `users`: where the message needs it, as people call it."""

    def __init__(self, column: str, nearest: str, users: Sequence[str] = ()) -> None:
        self.column, self.nearest = column, nearest
        used = f", which the message uses ({', '.join(users)})" if users else ""
        default = f'add it, or give the message a default: {{{{ {column} | default("…") }}}}'
        super().__init__(
            f"the recipients have no column {column!r}" + used + (f"; the nearest is {nearest!r}" if nearest else ""),
            default if users else "the first line of a CSV names the columns; one of them is `email`",
        )


class Wanted(msgspec.Struct, frozen=True):
    """The columns that the send uses, and those of them that a CSV header must have."""

    names: tuple[str, ...]
    required: frozenset[str]


def from_csv(chunks: Iterable[bytes | str], wanted: Wanted) -> Iterator[Rows]:
    """RFC 4180 with `,` `;` or tab, the header first. Raises RefusedInput when the header lacks what is wanted."""
    source = _Source(chunks)
    lines_of_text = source.decoded()
    head = next(lines_of_text, "").removeprefix("\ufeff")
    if not head.strip():
        raise RefusedInput("the list is empty: its first line names the columns, 'email' among them")
    delimiter, header = _read_header(head)
    email, places = _places(header, wanted)
    absent = {name: _nearest(name, tuple(header)) for name, place in zip(wanted.names, places, strict=True) if place is None}
    reader = csv.reader(lines_of_text, delimiter=delimiter, strict=True)  # else an open quote swallows what follows
    while True:
        source.forget_lines_before(reader.line_num + 2)
        rows, lines, faults, ends = _take(reader, len(header), source)
        if not rows:
            return
        if source.is_dirty:
            faults |= {at: _UNREADABLE for at, row in enumerate(rows) if not _is_clean(row)}
        level = rows if set(map(len, rows)) == {len(header)} else _level_out(rows, faults, len(header))
        cells = list(zip(*level, strict=True))
        yield Rows(
            emails=list(cells[email]),
            columns=[[None] * len(rows) if place is None else list(cells[place]) for place in places],
            faults=faults,
            lines=lines,
            text_of=partial(_row_text, source, rows, lines, ends),
            absent=absent,
        )


def from_ndjson(chunks: Iterable[bytes | str], wanted: Wanted) -> Iterator[Rows]:
    """One JSON object a line."""
    numbered = ((at, line) for at, line in enumerate(_Source(chunks).lines(), 1) if line.strip())
    while taken := list(islice(numbered, BATCH_ROWS)):
        lines, texts = zip(*taken, strict=True)
        yield from_mappings(_loads_all(texts), wanted, lines, partial(_line_text, texts))


def from_mappings(rows: Sequence[object], wanted: Wanted, lines: Sequence[int], text_of: Callable[[int], str]) -> Rows:
    """At most 100 rows of any source; a value that is no mapping is a row that could not be read."""
    faults: dict[int, str] = {}
    found: list[Mapping[str, Any]] = []
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            faults[at] = str(row) if isinstance(row, _Unreadable) else "not an object with fields"
            row = {}
        found.append(row)
    absent: dict[str, str] = {}
    emails = _column(EMAIL, found, absent)
    if len(faults) == len(rows):
        absent.clear()  # there was no object to have a column
    return Rows(
        emails=emails,
        columns=[_column(name, found, absent) for name in wanted.names],
        faults=faults,
        lines=lines,
        text_of=text_of,
        absent=absent,
    )


def _column(name: str, rows: Sequence[Mapping[str, Any]], absent: dict[str, str]) -> list[Any]:
    """A name's values. Only rows that lack the exact name are looked at closely, rows of the same keys once."""
    places: dict[tuple[Any, ...], str | None] = {}
    values, is_present = [], False
    for row in rows:
        key: str | None = name
        if name not in row:
            keys = tuple(row)
            if keys not in places:
                places[keys] = _place(name, [each for each in keys if isinstance(each, str)])
            key = places[keys]
        is_present |= key is not None
        values.append(None if key is None else row[key])
    if not is_present:
        absent[name] = _nearest(name, tuple(dict.fromkeys(each for keys in places for each in keys if isinstance(each, str))))
    return values


def _place(name: str, columns: Sequence[str]) -> str | None:
    if name in columns:
        return name
    alike = [column for column in columns if column.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def _row_text(source: _Source, rows: list[list[str]], lines: Sequence[int], ends: Mapping[int, int], at: int) -> str:
    """As it stood: quotes, line ends inside them and all. Where csv gave up it says where; else a row's cells tell."""
    last = ends.get(at) or lines[at] + sum(cell.count("\n") for cell in rows[at])
    return source.text(lines[at], last)


def _line_text(texts: Sequence[bytes], at: int) -> str:
    return texts[at].decode("utf-8", "backslashreplace").rstrip("\r\n")


class _Unreadable(str):
    """Stands where a line's object would: the reason why there is none."""


class _Source:
    """Lines with their ends, of chunks cut anywhere; large chunks are fastest. Notes whether any of it was no UTF-8.

    Decoded blocks are kept until they are forgotten: a refused row is shown as it stood, and noting each line would cost every row.
    """

    def __init__(self, chunks: Iterable[bytes | str]) -> None:
        self._blocks = _whole_lines(map(_octets, chunks))
        self._kept: list[_Block] = []
        self.is_dirty = False

    def lines(self) -> Iterator[bytes]:
        return chain.from_iterable(map(io.BytesIO, self._blocks))

    def decoded(self) -> Iterator[str]:
        return chain.from_iterable(map(self._decode, self._blocks))

    def _decode(self, block: bytes) -> Iterator[str]:
        try:
            text = block.decode()
        except UnicodeDecodeError:
            self.is_dirty = True
            text = block.decode("utf-8", "surrogateescape")
        self._kept.append(_Block(self._kept[-1].end if self._kept else 1, text))
        return io.StringIO(text, newline="\n")

    def forget_lines_before(self, line: int) -> None:
        while len(self._kept) > 1 and self._kept[0].end <= line:
            del self._kept[0]

    def ahead_of(self, line: int) -> int:
        """How many lines from this one on may be cut into cells at once: those of a block, and of a block of long ones a few."""
        block = self._kept[-1]
        return max(1, min(block.end - line, _TOGETHER if block.is_long else BATCH_ROWS))

    def text(self, first: int, last: int) -> str:
        """The physical lines first … last, without the last one's end; what was no UTF-8 shows as \\xff."""
        found = "\n".join(line for block in self._kept for line in block.lines(first, last))
        return found.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").rstrip("\r\n")


class _Block:
    """Whole lines of decoded text, from line `first` up to before line `end`; cut into lines when one is asked for."""

    def __init__(self, first: int, text: str) -> None:
        self.first, self.end = first, first + text.count("\n") + (not text.endswith("\n"))
        self.is_long = len(text) > 2 * _SHOWN * (self.end - first)
        if self.is_long:  # nobody will show them whole
            text = "\n".join(line[:_SHOWN] for line in text.split("\n"))
        self._text = text
        self._lines: list[str] | None = None

    def lines(self, first: int, last: int) -> list[str]:
        if first >= self.end or last < self.first:
            return []
        if self._lines is None:
            self._lines = self._text.split("\n")
        return self._lines[max(0, first - self.first) : min(last + 1, self.end) - self.first]


def _octets(chunk: bytes | str) -> bytes:
    if not isinstance(chunk, str):
        return chunk
    try:
        return chunk.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no octet: no UTF-8 either way
        return chunk.encode("utf-8", "surrogatepass")


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks cut again at line ends. A line that never ends loses its rest, and 0xFF makes what is kept unreadable."""
    tail, is_skipping = b"", False
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if is_skipping and not cut:
            continue
        if is_skipping:
            start = chunk.find(b"\n") + 1
            chunk, cut, is_skipping = chunk[start:], cut - start, False
        if cut:
            yield tail + chunk[:cut]
            tail = chunk[cut:]
        else:
            tail += chunk
        if len(tail) > MAX_LINE:
            yield tail[:MAX_LINE] + b"\xff\n"
            tail, is_skipping = b"", True
    yield tail


def _read_header(head: str) -> tuple[str, list[str]]:
    """The delimiter is the one that makes a column `email` appear."""
    try:
        headers = {delimiter: [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter), [])] for delimiter in ",;\t"}
    except csv.Error as error:
        raise RefusedInput(f"the list's first line, which names the columns, cannot be read: {error}") from None
    for delimiter, header in headers.items():
        if EMAIL in map(str.lower, header):
            if len(header) > MAX_COLUMNS:
                raise RefusedInput(f"the list has {len(header)} columns, {MAX_COLUMNS} are allowed")
            return delimiter, header
    header = max(headers.values(), key=len)
    if any(_is_like_address(cell) for cell in header):
        raise RefusedInput("the list has no header: its first line holds an address", "its first line names the columns, as in email,name")
    raise MissingColumn(EMAIL, _nearest(EMAIL, tuple(header)))


def _places(header: list[str], wanted: Wanted) -> tuple[int, list[int | None]]:
    lowered = [name.lower() for name in header]
    for name, names in ((EMAIL, lowered), *((name, header) for name in wanted.names)):
        if names.count(name) > 1:
            raise RefusedInput(f"the recipients have the column {name!r} twice")
    found = {name: _place(name, header) for name in (*wanted.names, *wanted.required)}
    for name in sorted(wanted.required):
        if found[name] is None:
            raise MissingColumn(name, _nearest(name, tuple(header)))
    columns = [found[name] for name in wanted.names]
    return lowered.index(EMAIL), [None if column is None else header.index(column) for column in columns]


@lru_cache(64)
def _nearest(name: str, header: tuple[str, ...]) -> str:
    """The column that was probably meant, or "". Kept, since every hundred rows of NDJSON ask the same."""
    near = difflib.get_close_matches(name.lower(), [cell.lower() for cell in header], 1, cutoff=_NEAR)
    return next((cell for cell in header if near and cell.lower() == near[0]), "")


def _take(reader: Any, width: int, source: _Source) -> tuple[list[list[str]], list[int], dict[int, str], dict[int, int]]:
    """The next hundred rows that are not blank, their lines, and of those that csv gave up the reason and the last line. After an error
    csv starts afresh at the next line."""
    rows: list[list[str]] = []
    lines: list[int] = []
    faults: dict[int, str] = {}
    ends: dict[int, int] = {}
    while len(rows) < BATCH_ROWS:
        got: list[list[str]] = []
        fault = ""
        line = reader.line_num + 2  # the header was the first, and csv counts those it has finished
        try:
            got.extend(islice(reader, min(source.ahead_of(line), BATCH_ROWS - len(rows))))  # what came before an error stays
        except csv.Error as error:
            fault = _in_plain_words(str(error))
        if not got and not fault:
            break
        if max(map(len, got), default=0) > width:
            faults |= _cut_off(got, len(rows), width)
        starts, line = _starts(got, line, reader.line_num + 2)
        lines += [at for row, at in zip(got, starts, strict=True) if row]
        rows += filter(None, got)
        if fault:
            faults[len(rows)], ends[len(rows)] = fault, reader.line_num + 1
            rows.append([""])
            lines.append(line)
    return rows, lines, faults, ends


def _in_plain_words(error: str) -> str:
    """What the csv module found, as whoever made the list would say it."""
    return next((words for part, words in _CSV_ERRORS.items() if part in error), error)


def _cut_off(got: list[list[str]], first: int, width: int) -> dict[int, str]:
    """Rows wider than the header keep its width; by their place among the rows, what is wrong with them."""
    faults: dict[int, str] = {}
    for row in got:
        if len(row) > width:
            faults[first] = _width_fault(len(row), width)
            del row[width:]
        first += bool(row)  # blank ones are no rows
    return faults


def _width_fault(found: int, width: int) -> str:
    return f"{found} column{'s' * (found != 1)} where the header has {width}"


def _starts(rows: list[list[str]], line: int, end: int) -> tuple[Sequence[int], int]:
    """The physical line of each row, the first of them at `line`, and the line after them; mostly a row is a line."""
    if end - line == len(rows):
        return range(line, end), end
    starts = []
    for row in rows:
        starts.append(line)
        line += 1 + sum(cell.count("\n") for cell in row)
    return starts, line


def _is_clean(row: list[str]) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in "".join(row))


def _level_out(rows: list[list[str]], faults: dict[int, str], width: int) -> list[list[str]]:
    """Short and long rows are refused, and made as wide as the others so that they fit into columns."""
    for at, row in enumerate(rows):
        if len(row) != width:
            faults.setdefault(at, _width_fault(len(row), width))
    return [row if len(row) == width else [*row, *[""] * width][:width] for row in rows]


def _loads_all(texts: Sequence[bytes]) -> list[object]:
    try:
        return list(map(orjson.loads, texts))
    except orjson.JSONDecodeError:
        return [_loads(text) for text in texts]


def _loads(text: bytes) -> object:
    try:
        found: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _Unreadable(f"not JSON: {error.msg} at character {error.pos + 1}")
    return found
