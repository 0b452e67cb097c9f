"""Where recipients come from: a file, standard input, or the caller's own rows; all become packed batches in constant memory.

CSV and NDJSON are told apart by their first letter. A source that may keep us waiting (standard input) is read in a thread, so that what
was read already goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Executor
from itertools import chain, islice
from pathlib import Path
from struct import Struct
from typing import IO, Any, BinaryIO, TypeVar

import msgspec

from sendengine import rows as reading
from sendengine.errors import RefusedInput
from sendengine.intake import Intake, PackedBatch, Rejected
from sendengine.remedies import said, without

Recipients = Path | Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
STDIN = Path("-")
T = TypeVar("T")

TOGETHER = 8  # batches that leave in one write: the server syncs its log once for all of them

_CHUNK = 1 << 18
_BOM = b"\xef\xbb\xbf"
_SHOWN = 3  # refused rows named in an error
_HEAD = Struct("<I")


async def batches(recipients: Recipients, intake: Intake) -> AsyncIterator[PackedBatch]:
    """Raises RefusedInput for a file that cannot be read or lacks a column altogether."""
    if isinstance(recipients, AsyncIterable):
        async for row in recipients:
            if packed := intake.push(row):
                yield packed
        if packed := intake.flush():
            yield packed
    elif not isinstance(recipients, Path):
        for packed in intake.from_rows(recipients):
            yield packed
    elif recipients == STDIN:
        cut = _cut(sys.stdin.buffer, intake)
        while packed := await asyncio.to_thread(next, cut, None):
            yield packed
    else:
        with opened(recipients) as stream:
            for packed in _cut(stream, intake):
                yield packed


class Upload(msgspec.Struct, frozen=True):
    """A list that comes over the network, in chunks cut anywhere. Its reader is a thread of `pool` (None: the loop's)."""

    chunks: AsyncIterable[bytes]
    pool: Executor | None = None


def uploaded(upload: Upload, intake: Intake) -> AsyncIterator[PackedBatch]:
    return read_upload(upload, lambda chunks: _cut_chunks(chunks, intake))


async def read_upload(upload: Upload, read: Callable[[Iterator[bytes]], Iterator[T]]) -> AsyncIterator[T]:
    """What `read` makes of its chunks. The thread waits as long as the sender does, and asks for the next chunk when it has read the last:
    nothing piles up."""
    loop, source = asyncio.get_running_loop(), aiter(upload.chunks)

    async def following() -> bytes:
        return await anext(source, b"")

    def next_chunk() -> bytes:
        return asyncio.run_coroutine_threadsafe(following(), loop).result()

    cut = await loop.run_in_executor(upload.pool, lambda: read(iter(next_chunk, b"")))
    while some := await loop.run_in_executor(upload.pool, lambda: list(islice(cut, TOGETHER))):
        for each in some:
            yield each


def line_of(recipients: Recipients, wanted: reading.Wanted, row: int) -> int | None:
    """The physical line of an input row (from 0), where the source can be read again."""
    if not isinstance(recipients, Path) or recipients == STDIN:
        return None
    with opened(recipients) as stream:
        chunks, is_ndjson = sniffed(chunks_of(stream))
        read = reading.from_ndjson if is_ndjson else reading.from_csv
        for number, found in enumerate(read(chunks, wanted)):
            if number == row // 100:
                return found.lines[row % 100] if row % 100 < len(found.lines) else None
    return None


def expected_rows(recipients: Recipients) -> int:
    """About how many there will be: counted, or by a file's size and its first lines; 0 where nothing is known. A hint, never a truth."""
    if isinstance(recipients, Sized):
        return len(recipients)
    if not isinstance(recipients, Path) or recipients == STDIN or not recipients.is_file():
        return 0
    with opened(recipients) as stream:
        head = stream.read(_CHUNK)
        return recipients.stat().st_size * head.count(b"\n") // max(len(head), 1)


async def spooled(source: AsyncIterator[PackedBatch], is_strict: bool) -> AsyncIterator[PackedBatch]:
    """The same batches, but none before one with a row that can be sent was read: until then they wait on disk. If `is_strict`, none before
    all were read. Raises RefusedInput naming the first refused rows where no row can be sent, or, if `is_strict`, where one cannot."""
    with tempfile.TemporaryFile() as file:
        spool = _Spool(file)
        async for packed in source:
            spool.write(packed)
            if packed.positions and not is_strict:
                break
        if spool.refused and (is_strict or not spool.sendable):
            raise spool.refusal()
        for packed in spool.read():
            yield packed
    async for packed in source:
        yield packed


class _Spool:
    """Batches on disk, and what is told of them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encode = msgspec.msgpack.Encoder().encode
        self._some: list[Rejected] = []
        self.refused = self.sendable = 0

    def write(self, packed: PackedBatch) -> None:
        self.refused += len(packed.rejected)
        self.sendable += len(packed.positions)
        self._some += packed.rejected[: _SHOWN - len(self._some)]
        record = self._encode(packed)
        self._file.write(_HEAD.pack(len(record)) + record)

    def read(self) -> Iterator[PackedBatch]:
        decode = msgspec.msgpack.Decoder(PackedBatch).decode
        self._file.seek(0)
        while head := self._file.read(_HEAD.size):
            yield decode(self._file.read(_HEAD.unpack(head)[0]))

    def refusal(self) -> RefusedInput:
        shown = "; ".join(f"line {row.line}: {row.reason}" for row in self._some)
        rows = f"{self.refused:,} row{'s' * (self.refused != 1)}"
        if not self.sendable:
            return RefusedInput(f"nothing can be sent: every row of the list was refused ({rows}): {shown}", "correct them")
        return RefusedInput(f"{rows} refused, nothing was sent: {shown}", said("correct them, or ", without("strict")))


def opened(path: Path) -> BinaryIO:
    """Raises RefusedInput."""
    try:
        return path.open("rb")
    except OSError as error:
        raise RefusedInput(f"cannot read {path}: {error.strerror}") from error


def _cut(stream: BinaryIO, intake: Intake) -> Iterator[PackedBatch]:
    return _cut_chunks(chunks_of(stream), intake)


def _cut_chunks(chunks: Iterator[bytes], intake: Intake) -> Iterator[PackedBatch]:
    chunks, is_ndjson = sniffed(chunks)
    return intake.from_ndjson(chunks) if is_ndjson else intake.from_csv(chunks)


def chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    """A pipe gives what it has: rows are not kept waiting for a full chunk."""
    read = getattr(stream, "read1", stream.read)
    return iter(lambda: read(_CHUNK), b"")


def sniffed(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], bool]:
    """The same chunks, and whether they hold JSON objects: the first letter tells, wherever a chunk ends. Those are without the byte order
    mark, which no line of JSON begins with; a CSV's header knows it."""
    head = b""
    for chunk in chunks:
        head += chunk
        text = head.removeprefix(_BOM)
        if text.strip() and not _BOM.startswith(head):
            is_ndjson = text.lstrip().startswith(b"{")
            return chain([text if is_ndjson else head], chunks), is_ndjson
        if len(head) > _CHUNK:
            break
    return chain([head], chunks), False
