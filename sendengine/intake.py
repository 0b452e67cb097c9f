"""Intake: input rows become packed batches, and every row is either in one or refused with its line and its reason.

Pure. The rule that makes a repeated submit the same submit: batch k is input rows 100k … 100k+99, counted before
refused rows and duplicates are taken out. Checks run over whole columns (some 2 us a row); single rows are looked at
only when their column fails. A merge field counts as lacking when it is absent, null or, since a CSV row cannot leave
out a cell, empty. The address is no merge field here: `email` among the fields is the recipient itself, in its normal
form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
import orjson

from sendengine import rows as reading
from sendengine.addressing import BY_MAIL, Addressing
from sendengine.batch import BATCH_ROWS, MAX_CONTENT, Batch, content, seal
from sendengine.csv_cells import MAX_SHOWN
from sendengine.errors import RefusedInput
from sendengine.records import MASK_OCTETS
from sendengine.rows import Rows, Wanted

DEFAULT_LEVEL = 0  # of a send without a priority field
DIGEST_OCTETS = 8

_has_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refused row: its physical line (from 1), its place in the input (from 0), why, and what it said (its first 65,536 characters).

    Octets that are no UTF-8 show in the text as `\\xe9`; `octets` are then the row's own, and empty otherwise."""

    line: int
    row: int
    reason: str
    text: str
    octets: bytes = b""


class Pricing(Protocol):
    """Where rows cost something: the price of each, in order; a row without one gets a fault (render/sms.py)."""

    def prices(
        self, recipients: Sequence[str], names: Sequence[str], columns: Sequence[Sequence[object]], faults: dict[int, str]
    ) -> list[int]: ...


class PackedBatch(msgspec.Struct, frozen=True):
    """What the queue stores of 100 input rows. fingerprints and positions are in the order of the valid rows."""

    number: int
    rows: int  # input rows, 1 … 100
    payload: bytes
    digests: bytes  # 8 octets over its unpacked content and that of all before it, then 8 over its own: the hashes of refused rows included
    before: bytes  # the digests of the batch before it; b"" where the list begins
    fingerprints: bytes  # 8 octets a valid row
    positions: bytes  # 1 octet a valid row
    levels: dict[int, bytes]  # priority -> 13 octets, little-endian, one bit a position
    rejected: list[Rejected]
    prices: bytes = b""  # where rows cost something: u32 a valid row, 1/1000 credit


class Intake:
    """Cuts one send's input.

    `fields` are those that the message uses, `required` those of them without a default, `in_headers` those that stand
    in a header; `salt` (1 … 64 octets) keys the fingerprints. `first` is the number of the first batch, where the rows go on those of an
    earlier list of the send, and `before` the digest of the last one of that.
    """

    def __init__(
        self,
        fields: Sequence[str],
        required: frozenset[str] = frozenset(),
        in_headers: frozenset[str] = frozenset(),
        priority: str | None = None,
        *,
        salt: bytes,
        whom: Addressing = BY_MAIL,
        pricing: Pricing | None = None,
        first: int = 0,
        before: bytes = b"",
    ) -> None:
        self._whom, self._pricing = whom, pricing
        self._fields = tuple(name for name in fields if name != whom.column)
        self._required = [at for at, name in enumerate(self._fields) if name in required]
        self._in_headers = [at for at, name in enumerate(self._fields) if name in in_headers]
        self._priority = priority
        must = (required | {priority} if priority else required) - {whom.column}
        self._wanted = Wanted(self._fields + ((priority,) if priority else ()), frozenset(must), whom)
        self._hasher = blake2b(digest_size=8, key=salt)
        self._first = self._number = first
        self._before = before * 2
        self._pushed: list[object] = []
        self.absent: dict[str, str] = {}  # fields that no row so far had a column for -> the nearest column, or ""

    def from_csv(self, chunks: Iterable[bytes | str]) -> Iterator[PackedBatch]:
        """Chunks cut anywhere. Raises RefusedInput when a column is missing altogether."""
        return map(self._cut, reading.from_csv(chunks, self._wanted))

    def from_ndjson(self, chunks: Iterable[bytes | str]) -> Iterator[PackedBatch]:
        """Raises RefusedInput when none of the first hundred objects has a column `email`; so do `from_rows` and `push`."""
        return map(self._cut, reading.from_ndjson(chunks, self._wanted))

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[PackedBatch]:
        for row in rows:
            if packed := self.push(row):
                yield packed
        if packed := self.flush():
            yield packed

    def push(self, row: Mapping[str, Any]) -> PackedBatch | None:
        """One row more; the batch that it completed, if it did."""
        self._pushed.append(row)
        return self.flush() if len(self._pushed) == BATCH_ROWS else None

    def flush(self) -> PackedBatch | None:
        """What was pushed and is in no batch yet; only the last batch of a send may be short."""
        pushed, self._pushed = self._pushed, []
        if not pushed:
            return None
        first = (self._number - self._first) * BATCH_ROWS + 1
        lines = range(first, first + len(pushed))
        return self._cut(reading.from_mappings(pushed, self._wanted, lines, lambda at: _as_text(pushed[at])))

    def _cut(self, rows: Rows) -> PackedBatch:
        number, self._number = self._number, self._number + 1
        size = len(rows.emails)
        column, is_first = self._whom.column, number == self._first
        if is_first and column in rows.absent:
            raise reading.MissingColumn(column, rows.absent[column], whom=self._whom)
        self.absent = {name: near for name, near in rows.absent.items() if name != column and (is_first or name in self.absent)}
        faults = rows.faults
        recipients = normalise_all(rows.emails, faults, self._whom)
        priorities = _digits(rows.columns[-1], faults) if self._priority else []
        self._judge(rows.columns, faults)
        prices = self._pricing.prices(recipients, self._fields, rows.columns, faults) if self._pricing else []
        batch, octets = self._encode(number, recipients, rows, priorities)
        if len(octets) > MAX_CONTENT:
            raise RefusedInput(f"the {BATCH_ROWS} rows from line {rows.lines[0]} are over {MAX_CONTENT >> 20} MiB")
        own, before = blake2b(octets, digest_size=DIGEST_OCTETS).digest(), self._before
        self._before = blake2b(before[:DIGEST_OCTETS] + own, digest_size=DIGEST_OCTETS).digest() + own
        return PackedBatch(
            number=number,
            rows=size,
            payload=seal(octets),
            digests=self._before,
            before=before,
            fingerprints=self._fingerprints(batch.recipients),
            positions=bytes(batch.positions),
            levels=_levels(batch),
            rejected=[rejected_row(rows.lines[at], number * BATCH_ROWS + at, faults[at], rows.text_of(at)) for at in sorted(faults)],
            prices=b"".join([prices[at].to_bytes(4, "little") for at in batch.positions]) if prices else b"",
        )

    def _judge(self, columns: list[list[Any]], faults: dict[int, str]) -> None:
        for at in self._required:
            if None in columns[at] or "" in columns[at]:
                for row, value in enumerate(columns[at]):
                    if value is None or value == "":
                        faults.setdefault(row, f"no value for the field {self._fields[at]!r}")
        for at in self._in_headers:
            texts = [value if type(value) is str else "" for value in columns[at]]
            if _has_control("".join(texts)):
                for row, text in enumerate(texts):
                    if _has_control(text):
                        faults.setdefault(row, f"control character in {self._fields[at]!r}, a field of a header")
        for name, column in zip(self._fields, columns, strict=False):
            if float in set(map(type, column)):
                for row, value in enumerate(column):
                    if type(value) is float and not math.isfinite(value):  # JSON would make it null, without a word
                        faults.setdefault(row, f"the value of {name!r} is no finite number")

    def _encode(self, number: int, recipients: list[str], rows: Rows, priorities: list[str]) -> tuple[Batch, bytes]:
        """The batch of the rows without fault; values that JSON cannot carry are found only by trying."""
        columns = rows.columns[: len(self._fields)]
        batch = _assemble(number, self._fields, recipients, columns, priorities, rows)
        try:
            return batch, content(batch)
        except TypeError:
            for at in range(len(recipients)):
                if not _is_json([column[at] for column in columns]):
                    rows.faults.setdefault(at, "a value that is not text, number or list, or not valid Unicode")
        batch = _assemble(number, self._fields, recipients, columns, priorities, rows)
        return batch, content(batch)

    def _fingerprints(self, recipients: list[str]) -> bytes:
        found, copy = [], self._hasher.copy
        for recipient in recipients:
            hasher = copy()
            hasher.update(recipient.encode())
            found.append(hasher.digest())
        return b"".join(found)


def normalise_all(given: list[Any], faults: dict[int, str], whom: Addressing = BY_MAIL) -> list[str]:
    """Their normal forms; one that has none is "" and gets its fault."""
    if set(map(type, given)) == {str} and whom.are_normal(given):
        return given
    return [_normalise(whom, at, each, faults) for at, each in enumerate(given)]


def _normalise(whom: Addressing, at: int, given: object, faults: dict[int, str]) -> str:
    try:
        return whom.normalise(given if isinstance(given, str) else "")
    except RefusedInput as error:
        faults.setdefault(at, str(error))
        return ""


def _digits(values: list[Any], faults: dict[int, str]) -> list[str]:
    """Priorities as digits; anything else but an integer 0 … 9 refuses the row."""
    found = [value.strip() if type(value) is str else str(value) if type(value) is int and 0 <= value <= 9 else "" for value in values]
    for at, digit in enumerate(found):
        if len(digit) != 1 or digit not in "0123456789":
            faults.setdefault(at, "the priority is not an integer from 0 to 9")
    return found


def _assemble(
    number: int,
    fields: tuple[str, ...],
    recipients: list[str],
    columns: list[list[Any]],
    priorities: list[str],
    rows: Rows,
) -> Batch:
    faults = rows.faults
    positions = list(range(len(recipients)))
    if faults:
        positions = [at for at in positions if at not in faults]
        recipients = [recipients[at] for at in positions]
        columns = [[column[at] for at in positions] for column in columns]
        priorities = [priorities[at] for at in positions] if priorities else priorities
    rejected = [(at, _hash(rows.text_of(at))) for at in sorted(faults)]
    return Batch(number, positions, recipients, fields, columns, rejected, "".join(priorities))


def _levels(batch: Batch) -> dict[int, bytes]:
    masks: dict[int, int] = {}
    if batch.priorities:
        for at, digit in zip(batch.positions, batch.priorities, strict=True):
            masks[int(digit)] = masks.get(int(digit), 0) | 1 << at
    elif batch.positions:
        masks[DEFAULT_LEVEL] = sum(1 << at for at in batch.positions)
    return {level: mask.to_bytes(MASK_OCTETS, "little") for level, mask in masks.items()}


def _is_json(values: list[Any]) -> bool:
    try:
        orjson.dumps(values)
    except TypeError:
        return False
    return True


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(_octets(text), digest_size=4).digest(), "little")


def rejected_row(line: int, row: int, reason: str, text: str) -> Rejected:
    octets = _octets(text)
    try:
        return Rejected(line, row, reason, octets.decode())
    except UnicodeDecodeError:
        return Rejected(line, row, reason, octets.decode("utf-8", "backslashreplace"), octets)


def _octets(text: str) -> bytes:
    """As they came, as far as they are kept; those that were no UTF-8 stand as surrogates in the text."""
    return text[:MAX_SHOWN].encode("utf-8", "surrogateescape")


def _as_text(row: object) -> str:
    try:
        return orjson.dumps(row).decode()
    except TypeError:
        pass
    try:
        return repr(row).encode("utf-8", "backslashreplace").decode()  # a class of its own may show itself as it likes
    except (ValueError, RecursionError):  # an int of 5,000 digits, a list within a list within a …
        return f"a {type(row).__name__} that cannot be shown"
