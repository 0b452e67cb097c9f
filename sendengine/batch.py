"""A batch: the unit of moving. What input rows 100k … 100k+99 of a send became, and its packed form.

Pure. The packed form is one version byte, then a zstd frame of one JSON array, in columns: like stands beside like, so
that addresses with two short fields take about 14 octets a recipient (43 unpacked; benchmarks/intake.py measures it).
Levels above 3 cost twice the time for 3 % less. A dictionary made of the send's first batch would save 3 octets of the
14: not worth a key of its own and a second thing to lose.

A row's place in the batch is its bit everywhere else in the engine: positions never shift when a row is rejected.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import orjson
import zstandard

from sendengine.errors import SendEngineError

BATCH_ROWS = 100
VERSION = 1
MAX_CONTENT = 64 << 20  # of the unpacked JSON: a payload that promises more is an attack or an accident

_LEVEL = 3


class UnknownVersion(SendEngineError):
    """Written by a newer release: it is left, untouched, for a worker that knows it."""


class CorruptPayload(SendEngineError):
    """Not a batch, or damaged."""


class Batch(msgspec.Struct, frozen=True):
    """The valid rows of 100 input rows, in columns. recipients, positions and every column are parallel.

    `rejected` keeps, for the rows that were refused, their position and a 32-bit hash of their text, so that a repeated
    submit with another bad row is still told apart. `priorities` has a digit for each recipient, or is empty when the
    send has no priority field.
    """

    number: int
    positions: list[int]  # 0 … 99, ascending
    recipients: list[str]
    fields: tuple[str, ...]
    columns: list[list[Any]]  # one per field
    rejected: list[tuple[int, int]] = []
    priorities: str = ""


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """The JSON array. `positions` is null when they are 0, 1, 2 …: the usual case costs nothing."""

    number: int
    fields: tuple[str, ...]
    positions: list[int] | None
    recipients: list[str]
    columns: list[list[Any]]
    rejected: list[tuple[int, int]]
    priorities: str


class _Codecs(threading.local):
    """zstandard's objects are costly to make and not safe to share between threads."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()
_decode = msgspec.json.Decoder(_Content).decode


def content(batch: Batch) -> bytes:
    """The canonical unpacked form: equal batches have equal contents, digests are taken over it.

    Raises TypeError when a value is no JSON value or text that UTF-8 cannot carry.
    """
    positions = None if batch.positions == list(range(len(batch.positions))) else batch.positions
    return orjson.dumps([batch.number, batch.fields, positions, batch.recipients, batch.columns, batch.rejected, batch.priorities])


def seal(content: bytes) -> bytes:
    """The payload of a content."""
    return bytes((VERSION,)) + _codecs.compressor.compress(content)


def pack(batch: Batch) -> bytes:
    return seal(content(batch))


def unpack(payload: bytes) -> Batch:
    """The batch of a payload; raises UnknownVersion or CorruptPayload."""
    if payload[:1] != bytes((VERSION,)):
        raise _misread(payload)
    try:
        found = _decode(_decompress(payload[1:]))
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptPayload(f"batch payload: {error}") from error
    batch = Batch(
        number=found.number,
        positions=list(range(len(found.recipients))) if found.positions is None else found.positions,
        recipients=found.recipients,
        fields=found.fields,
        columns=found.columns,
        rejected=found.rejected,
        priorities=found.priorities,
    )
    if not _is_coherent(batch):
        raise CorruptPayload("batch payload: its columns do not fit together")
    return batch


def first_difference(stored: bytes, mine: bytes) -> int | None:
    """The first position (0 … 99) at which two payloads of the same batch number differ, refused rows included."""
    ours, theirs = unpack(mine), unpack(stored)
    if ours.fields != theirs.fields:
        return 0
    left, right = _by_position(ours), _by_position(theirs)
    return next((at for at in range(BATCH_ROWS) if left.get(at) != right.get(at)), None)


def rows_in(payload: bytes) -> int:
    """Input rows that it was cut of, refused ones included."""
    batch = unpack(payload)
    return len(batch.positions) + len(batch.rejected)


def _misread(payload: bytes) -> SendEngineError:
    if payload and payload[0] > VERSION:
        return UnknownVersion(f"batch payload of version {payload[0]}; this release reads {VERSION}")
    return CorruptPayload("batch payload: no version")


def _decompress(frame: bytes) -> bytes:
    """The size is judged before memory is taken: the library believes whatever the frame's head promises."""
    size = zstandard.frame_content_size(frame)
    if not 0 <= size <= MAX_CONTENT:
        raise CorruptPayload(f"batch payload: promises {size} octets")
    return _codecs.decompressor.decompress(frame)


def _is_coherent(batch: Batch) -> bool:
    size = len(batch.recipients)
    return (
        batch.number >= 0
        and len(batch.positions) == size
        and len(batch.columns) == len(batch.fields)
        and all(len(column) == size for column in batch.columns)
        and len(batch.priorities) in (0, size)
        and _ascends(batch.positions)
    )


def _ascends(positions: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise([-1, *positions, BATCH_ROWS]))


def _by_position(batch: Batch) -> dict[int, object]:
    priorities = batch.priorities or [""] * len(batch.recipients)
    rows: dict[int, object] = dict(zip(batch.positions, zip(batch.recipients, priorities, *batch.columns, strict=True), strict=True))
    return rows | dict(batch.rejected)
