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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any

import msgspec
import orjson

from sendengine.addressing import BY_MAIL, Addressing
from sendengine.batch import BATCH_ROWS
from sendengine.csv_cells import CsvRows, Lines
from sendengine.errors import RefusedInput

MAX_LINE = 512 << 10  # octets; what a line has beyond is never kept in memory
MAX_COLUMNS = 20_000
_UNREADABLE = f"not UTF-8, or a line over {MAX_LINE >> 10} KiB"
_PACKED = {"\x1f\udc8b": "gzip", "PK\x03\x04": "zip"}  # as a list that is no UTF-8 begins; a zip is what spreadsheets are, too
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")  # its byte order marks, which are no UTF-8
_NEAR = 0.5  # of two equal names 1.0: `first name` is near `first_name`, `city` is not


class Rows(msgspec.Struct):
    """At most 100 input rows in columns, all parallel. The intake that receives it owns it."""

    emails: list[Any]
    columns: list[list[Any]]  # one per name asked for; None where a row lacks it
    faults: dict[int, str]  # index -> why the row could not be read
    lines: Sequence[int]  # the physical line, from 1, where each row starts
    text_of: Callable[[int], str]  # the row as it was given, what is no UTF-8 as surrogates; asked for refused rows only
    absent: Mapping[str, str]  # names asked for, and the recipient's column, that no row here has a column for -> the nearest column, or ""


class MissingColumn(RefusedInput):
    """A column that the whole list lacks. `users`: where the message needs it, as people call it."""

    def __init__(self, column: str, nearest: str, users: Sequence[str] = (), whom: Addressing = BY_MAIL) -> None:
        self.column, self.nearest = column, nearest
        used = f", which the message uses ({', '.join(users)})" if users else ""
        default = f'add it, or give the message a default: {{{{ {column} | default("…") }}}}'
        super().__init__(
            f"the recipients have no column {column!r}" + used + (f"; the nearest is {nearest!r}" if nearest else ""),
            default if users else f"the first line of a CSV names the columns; one of them is `{whom.column}`",
        )


class Wanted(msgspec.Struct, frozen=True):
    """The columns that the send uses, and those of them that a CSV header must have."""

    names: tuple[str, ...]
    required: frozenset[str]
    whom: Addressing = BY_MAIL


def from_csv(chunks: Iterable[bytes | str], wanted: Wanted) -> Iterator[Rows]:
    """RFC 4180 with `,` `;` or tab, the header first. Raises RefusedInput when the header lacks what is wanted."""
    lines = Lines(_whole_lines(map(_octets, chunks)))
    head = "".join(lines.take(1)).removeprefix("\ufeff")
    if packing := next((name for magic, name in _PACKED.items() if head.startswith(magic)), ""):
        raise RefusedInput(f"this is {packing}: a list is CSV or NDJSON", "unpack it")
    if "\0" in head or head.startswith(_UTF_16):
        raise RefusedInput("this is UTF-16; save it as UTF-8", 'in Excel: "CSV UTF-8 (comma delimited)"')
    if not head.strip():
        raise RefusedInput(f"the list is empty: its first line names the columns, {wanted.whom.column!r} among them")
    delimiter, header = _read_header(head, wanted.whom)
    place, places = _places(header, wanted)
    absent = {name: _nearest(name, tuple(header)) for name, at in zip(wanted.names, places, strict=True) if at is None}
    reader = CsvRows(lines, delimiter, len(header), place, wanted.whom)
    while (taken := reader.take()).rows:
        if lines.is_dirty:
            taken.faults |= {at: _UNREADABLE for at, row in enumerate(taken.rows) if not _is_clean(row)}
        cells = list(zip(*taken.rows, strict=True))
        yield Rows(
            emails=list(cells[place]),
            columns=[[None] * len(taken.rows) if at is None else list(cells[at]) for at in places],
            faults=taken.faults,
            lines=taken.lines,
            text_of=partial(_line_text, taken.texts),
            absent=absent,
        )


def from_ndjson(chunks: Iterable[bytes | str], wanted: Wanted) -> Iterator[Rows]:
    """One JSON object a line."""
    whole = chain.from_iterable(map(io.BytesIO, _whole_lines(map(_octets, chunks))))
    numbered = ((at, line) for at, line in enumerate(whole, 1) if line.strip())
    while taken := list(islice(numbered, BATCH_ROWS)):
        lines, texts = zip(*taken, strict=True)
        yield from_mappings(_loads_all(texts), wanted, lines, partial(_decoded, texts))


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
    emails = _column(wanted.whom.column, found, absent)
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


def _line_text(texts: Sequence[str], at: int) -> str:
    return texts[at].rstrip("\r\n")


def _decoded(texts: Sequence[bytes], at: int) -> str:
    return texts[at].decode("utf-8", "surrogateescape").rstrip("\r\n")


class _Unreadable(str):
    """Stands where a line's object would: the reason why there is none."""


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


def _read_header(head: str, whom: Addressing) -> tuple[str, list[str]]:
    """The delimiter is the one that makes the recipient's column appear."""
    try:
        headers = {delimiter: [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter), [])] for delimiter in ",;\t"}
    except csv.Error as error:
        raise RefusedInput(f"the list's first line, which names the columns, cannot be read: {error}") from None
    for delimiter, header in headers.items():
        if whom.column in map(str.lower, header):
            if len(header) > MAX_COLUMNS:
                raise RefusedInput(f"the list has {len(header)} columns, {MAX_COLUMNS} are allowed")
            return delimiter, header
    header = max(headers.values(), key=len)
    if any(map(whom.resembles, header)):
        what = "an address" if whom is BY_MAIL else "a number"
        remedy = f"its first line names the columns, as in {whom.column},name"
        raise RefusedInput(f"the list has no header: its first line holds {what}", remedy)
    raise MissingColumn(whom.column, _nearest(whom.column, tuple(header)), whom=whom)


def _places(header: list[str], wanted: Wanted) -> tuple[int, list[int | None]]:
    lowered = [name.lower() for name in header]
    for name, names in ((wanted.whom.column, lowered), *((name, header) for name in wanted.names)):
        if names.count(name) > 1:
            raise RefusedInput(f"the recipients have the column {name!r} twice")
    found = {name: _place(name, header) for name in (*wanted.names, *wanted.required)}
    for name in sorted(wanted.required):
        if found[name] is None:
            raise MissingColumn(name, _nearest(name, tuple(header)))
    columns = [found[name] for name in wanted.names]
    return lowered.index(wanted.whom.column), [None if column is None else header.index(column) for column in columns]


@lru_cache(64)
def _nearest(name: str, header: tuple[str, ...]) -> str:
    """The column that was probably meant, or "". Kept, since every hundred rows of NDJSON ask the same."""
    near = difflib.get_close_matches(name.lower(), [cell.lower() for cell in header], 1, cutoff=_NEAR)
    return next((cell for cell in header if near and cell.lower() == near[0]), "")


def _is_clean(row: list[str]) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in "".join(row))


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
