"""The list of those who get nothing any more of an account: put on, taken off, read; in files of any length, in constant memory.

Addresses are kept in the normal form of a submit (address.py), so that one matches the other.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from sendengine import rows as reading
from sendengine.addressing import BY_EITHER, EMAIL
from sendengine.errors import NoAccount, RefusedInput, about
from sendengine.intake import Rejected, normalise_all, rejected_row
from sendengine.policy.suppression import Listed, Reason, Suppressed, decode, encode, graver, reason_of
from sendengine.policy.tiers import nearest
from sendengine.policy.times import parse_time
from sendengine.ports import Desk, Part
from sendengine.rows import Rows, Wanted
from sendengine.scheduler import audit
from sendengine.scheduler.sources import STDIN, Upload, chunks_of, opened, read_upload, sniffed

T = TypeVar("T")
Source = Path | Upload | Iterable[Mapping[str, Any] | str] | AsyncIterable[Mapping[str, Any] | str]
OnReject = Callable[[Sequence[Rejected]], None]

PART = 500  # addresses a call: a millisecond of the server's time
TELL_EVERY = 0.25  # seconds between two calls of a long import that tell the workers; the last one always does
_REASON, _SINCE = "reason", "since"
_WANTED = Wanted((_REASON, _SINCE), frozenset())


class Imported(msgspec.Struct, frozen=True):
    """`rows` read; `added` of them new on the list, `changed` there for a lighter reason before; `rejected` as no address, or with a reason
    or time that there is not."""

    rows: int
    added: int
    changed: int
    rejected: int


def reason_named(text: str) -> Reason:
    try:
        return Reason(text.strip().lower())
    except ValueError:
        near = nearest(text, {each.value: each for each in Reason})
        raise RefusedInput(f"no reason {text!r}{near}", f"one of {' '.join(Reason)}") from None


async def add(desk: Desk, account: str, addresses: Iterable[str], reason: str, now: float, who: str, run: str) -> Listed:
    """`run`, here and below, is a name that no other change has. Raises RefusedInput, and then nothing was changed, NotFound."""
    named = reason_named(reason)
    entry, names = encode(named, now), [_normal(address) for address in addresses]
    line, listed = audit.line("suppress", who, reason=named), Listed()
    for some, part in _parts(names, line, run):
        entries = dict.fromkeys(some, entry)
        found = await desk.suppress(account, entries, part=part, are_complaints=named is Reason.COMPLAINED)
        listed += _existing(found, account)
    return listed


async def remove(desk: Desk, account: str, addresses: Iterable[str], who: str, run: str) -> int:
    """How many stood on the list."""
    names, line = [_normal(address) for address in addresses], audit.line("unsuppress", who)
    return sum([await desk.unsuppress(account, some, part=part) for some, part in _parts(names, line, run)])


async def found(desk: Desk, account: str, addresses: Iterable[str]) -> AsyncIterator[Suppressed]:
    """Those of them that are on the list."""
    for part in _hundreds([_normal(address) for address in addresses], PART):
        for name, entry in zip(part, await desk.suppressed(account, part), strict=True):
            if entry is not None:
                yield decode(name, entry)


async def listed(desk: Desk, account: str, reason: str | None) -> AsyncIterator[Suppressed]:
    """All of the list, or those for one reason, in no order. While it grows one may come twice."""
    only = None if reason is None else reason_named(reason)
    cursor = 0
    while True:
        cursor, some = await desk.suppressions(account, cursor, PART)
        for name, entry in some:
            each = decode(name, entry)
            if only is None or each.reason is only:
                yield each
        if not cursor:
            return


async def load(
    desk: Desk, account: str, source: Source, reason: str, now: float, on_reject: OnReject | None, who: str, run: str
) -> Imported:  # fmt: skip
    """A file or rows with `email`, and where they have them `reason` and `since`; a file may be nothing but addresses, one a line. Twice is
    once. Raises RefusedInput for what cannot be read at all, NotFound; what came before stays on the list."""
    loading = _Loading(desk, account, on_reject, who, run)
    reader = _Reader(reason_named(reason), now)
    try:
        async for rows in _rows_of(source):
            await loading.take(*reader.read(rows))
    finally:
        await loading.finish()
    return Imported(reader.rows, loading.listed.added, loading.listed.changed, reader.rejected)


class _Loading:
    """One part is written while the next one is read. Owner of the task that writes."""

    def __init__(self, desk: Desk, account: str, on_reject: OnReject | None, who: str, run: str) -> None:
        self._desk, self._account, self._on_reject, self._who, self._run = desk, account, on_reject, who, run
        self._part: dict[bytes, bytes] = {}
        self._last: dict[bytes, bytes] = {}
        self._writing: asyncio.Task[Listed | None] | None = None
        self._told_at = time.monotonic()
        self._reasons: set[Reason] = set()
        self.listed = Listed()

    async def take(self, entries: Mapping[bytes, bytes], rejected: Sequence[Rejected]) -> None:
        if rejected and self._on_reject is not None:
            self._on_reject(rejected)
        for name, entry in entries.items():
            self._part[name] = graver(self._part.get(name), entry)
        self._reasons.update(map(reason_of, set(entries.values())))
        if len(self._part) > PART - 100:  # a hundred rows come at once
            await self._write(time.monotonic() - self._told_at >= TELL_EVERY)

    async def finish(self) -> None:
        """The last part tells, whether it holds anything or not: nothing before it may have been told. Broken off meanwhile, or by Redis,
        it leaves nothing running."""
        try:
            await self._written()
            self._last, self._part = self._part or self._last, {}
            if self._last:
                self._start(tells=True, is_last=True)
                await self._written()
        finally:
            if self._writing is not None:
                self._writing.cancel()
                await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self, tells: bool) -> None:
        await self._written()
        if tells:
            self._told_at = time.monotonic()
        self._last, self._part = self._part, {}
        self._start(tells, is_last=False)
        await asyncio.sleep(0)  # it leaves now

    def _start(self, tells: bool, is_last: bool) -> None:
        line = audit.line("suppress.import", self._who, reason=" ".join(sorted(self._reasons)))
        self._writing = asyncio.create_task(self._desk.suppress(self._account, self._last, tells, part=Part(line, self._run, is_last)))

    async def _written(self) -> None:
        """Who stops waiting for it stops it not: `finish` waits for it again."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self.listed += _existing(self._writing.result(), self._account)
            self._writing = None


class _Reader:
    """Makes entries of rows, and says what is wrong with those that are none."""

    def __init__(self, reason: Reason, now: float) -> None:
        self._reason, self._now = reason, now
        self._usual = encode(reason, now)
        self.rows = self.rejected = 0

    def read(self, rows: Rows) -> tuple[dict[bytes, bytes], list[Rejected]]:
        faults, first = rows.faults, self.rows
        self.rows += len(rows.emails)
        names = normalise_all(rows.emails, faults, BY_EITHER)
        reasons, times = rows.columns
        is_usual = not any(reasons) and not any(times)
        entries: dict[bytes, bytes] = {}
        for at, name in enumerate(names):
            if at not in faults:
                try:
                    entry = self._usual if is_usual else self._entry(reasons[at], times[at])
                except RefusedInput as error:
                    faults[at] = str(error)
                    continue
                octets = name.encode()
                entries[octets] = graver(entries.get(octets), entry)
        self.rejected += len(faults)
        return entries, [rejected_row(rows.lines[at], first + at, faults[at], rows.text_of(at)) for at in sorted(faults)]

    def _entry(self, reason: object, since: object) -> bytes:
        found = self._reason if reason in (None, "") else reason_named(str(reason))
        return encode(found, self._now if since in (None, "") else parse_time(str(since), self._now))


async def _rows_of(source: Source) -> AsyncIterator[Rows]:
    if isinstance(source, AsyncIterable):
        pushed: list[Mapping[str, Any] | str] = []
        async for each in source:
            pushed.append(each)
            if len(pushed) == 100:
                yield _rows(pushed)
                pushed = []
        if pushed:
            yield _rows(pushed)
    elif isinstance(source, Upload):
        async for uploaded in read_upload(source, _cut_chunks):
            yield uploaded
    elif not isinstance(source, Path):
        for some in _hundreds(source):
            yield _rows(some)
    else:
        if source == STDIN:
            cut = _cut(sys.stdin.buffer)
            while (rows := await asyncio.to_thread(next, cut, None)) is not None:
                yield rows
        else:
            with opened(source) as stream:
                for rows in _cut(stream):
                    yield rows


def _rows(given: Sequence[Mapping[str, Any] | str]) -> Rows:
    mappings = [{EMAIL: each} if isinstance(each, str) else each for each in given]
    return reading.from_mappings(mappings, _WANTED, range(1, len(mappings) + 1), lambda at: str(given[at]))


def _cut(stream: BinaryIO) -> Iterator[Rows]:
    return _cut_chunks(chunks_of(stream))


def _cut_chunks(chunks: Iterator[bytes]) -> Iterator[Rows]:
    chunks, is_ndjson = sniffed(chunks)
    if is_ndjson:
        return reading.from_ndjson(chunks, _WANTED)
    first = next(chunks, b"")
    if not _is_bare(first):
        return reading.from_csv(chain([first], chunks), _WANTED)
    return map(_one_line_up, reading.from_csv(chain([b"email\n", first], chunks), _WANTED))


def _is_bare(first: bytes) -> bool:
    """Nothing but addresses: the first line is one, not the name of a column."""
    line = first.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    try:
        BY_EITHER.normalise(line.strip(' \t\r"'))
    except RefusedInput:
        return False
    return True


def _one_line_up(rows: Rows) -> Rows:
    rows.lines = [line - 1 for line in rows.lines]
    return rows


def _normal(address: str) -> bytes:
    try:
        return BY_EITHER.normalise(address).encode()
    except RefusedInput as error:
        with about("addresses"):
            raise RefusedInput(f"{address!r}: {error}") from None


def _parts(names: Sequence[bytes], line: bytes, run: str) -> Iterator[tuple[list[bytes], Part]]:
    """With how each is told. The audit trail outlives the account: it names no addresses."""
    distinct = list(dict.fromkeys(names))
    for at in range(0, len(distinct), PART):
        yield distinct[at : at + PART], Part(line, run, is_last=at + PART >= len(distinct))


def _hundreds(items: Iterable[T], size: int = 100) -> Iterator[list[T]]:
    rest = iter(items)
    while taken := list(islice(rest, size)):
        yield taken


def _existing(listed: Listed | None, account: str) -> Listed:
    if listed is None:
        raise NoAccount(f"no account {account}")
    return listed
