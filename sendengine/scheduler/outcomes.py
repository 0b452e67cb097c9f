"""Outcomes as people and programs see them: one record per recipient, read from the settlements in their order.

The stored record (records.py) is 14 octets; the recipient, the Message-ID and the times it leaves out are put back here. Rows that a cancel
ended have no record at all: they are what no settlement names.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime

import msgspec
import orjson

from sendengine.batch import BATCH_ROWS, Batch, unpack
from sendengine.errors import Conflict
from sendengine.lanes import is_paid, owner
from sendengine.ports import Desk, OutcomeChunk
from sendengine.records import NO_REPLY, TRANSACTIONAL, OutcomeRecord, decode_outcomes, rows_of, unwrap_ms
from sendengine.remedies import said, status
from sendengine.scheduler.names import Ref
from sendengine.scheduler.view import number, wall
from sendengine.types import Outcome

_CHUNKS = 200  # settlements read at once
_KEPT_BATCHES = 256
_FOLLOW_S = 0.5
# Columns of a single message: its campaign is older than it, and has no From of its own.
QUEUED_AT, DOMAIN = "_queued_at", "_domain"  # beside records.SENDER


class Delays(msgspec.Struct, frozen=True):
    """Seconds. They add up to finished_at - queued_at."""

    queued: float  # until a worker took it, earlier tries included
    paced: float  # until its MAIL was due
    connect: float
    transmit: float  # from MAIL to the last reply


class Receipt(msgspec.Struct, frozen=True):
    """`state` in SMPP's words: DELIVRD, UNDELIV, EXPIRED, REJECTD … It changes no outcome, and gives no credit back."""

    state: str
    error: str
    at: datetime


class RecipientOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    campaign: str
    account: str
    recipient: str
    index: int  # the input row, from 0
    outcome: str
    status: str  # RFC 3463
    reply: str
    relay: str
    attempts: int
    queued_at: datetime
    finished_at: datetime
    delays: Delays
    message_id: str
    worker: str
    possible_duplicate: bool
    receipt: Receipt | None = None  # SMS: what the provider said later


class Outcomes:
    """Reads one campaign's outcomes. Owner of a small cache of unpacked batches."""

    def __init__(self, desk: Desk, ref: Ref) -> None:
        self._desk, self._ref = desk, ref
        self._fields: Mapping[str, str] = {}
        self._batches: OrderedDict[int, Batch | None] = OrderedDict()
        self._doubts: Mapping[tuple[int, int], int] = {}

    async def read(self, follow: bool = False) -> AsyncIterator[RecipientOutcome]:
        """All of them, settled first first; with `follow` until the send has ended. Raises Conflict when they are kept no longer."""
        await self._prepare()
        after, named = "", dict[int, int]()
        while True:
            has_ended = "finished" in self._fields
            chunks = await self._desk.outcomes(self._ref.account, self._ref.id, after, _CHUNKS)
            if chunks:
                after = chunks[-1].entry
                async for outcome in self._of_chunks(chunks, named):
                    yield outcome
            elif not follow or has_ended:
                break
            else:
                await asyncio.sleep(_FOLLOW_S)
                await self._refresh()
        if self._fields["state"] == "cancelled":
            async for outcome in self._cancelled(named):
                yield outcome

    async def of(self, chunks: list[OutcomeChunk]) -> AsyncIterator[RecipientOutcome]:
        """Those of settlements that were read already."""
        await self._prepare()
        async for outcome in self._of_chunks(chunks, {}):
            yield outcome

    async def _prepare(self) -> None:
        await self._refresh()
        has_list = self._ref.id != TRANSACTIONAL and number(self._fields, "batches") > 0
        if has_list and await self._desk.batches(self._ref.account, self._ref.id, [0]) == [None]:
            raise Conflict(f"the outcomes of {self._ref} are kept no longer", said("its counts are: ", status(str(self._ref))))

    async def _refresh(self) -> None:
        self._fields = await self._desk.campaign(self._ref.account, self._ref.id)
        if self._fields.get("doubts"):
            self._doubts = (await self._desk.standing(self._ref.account, self._ref.id)).doubts

    async def _of_chunks(self, chunks: list[OutcomeChunk], named: dict[int, int]) -> AsyncIterator[RecipientOutcome]:
        await self._fetch({chunk.batch for chunk in chunks})
        for chunk in chunks:
            batch = await self._batch(chunk.batch)
            texts = orjson.loads(chunk.dictionary)
            receipts = await self._receipts(chunk)
            for record in decode_outcomes(chunk.records):
                named[chunk.batch] = named.get(chunk.batch, 0) | 1 << record.row
                outcome = self._outcome(chunk, batch, record, texts.get(str(record.reply), ("", "", "")))
                yield msgspec.structs.replace(outcome, receipt=receipts[record.row]) if record.row in receipts else outcome

    async def _receipts(self, chunk: OutcomeChunk) -> dict[int, Receipt]:
        """Of the rows of a chunk, those that have one."""
        if not is_paid(self._ref.account):
            return {}
        rows = [(chunk.batch, record.row) for record in decode_outcomes(chunk.records)]
        found = zip(rows, await self._desk.receipts(self._ref.account, self._ref.id, rows), strict=True)
        return {row: Receipt(said[0], said[1], wall(said[2] / 1e3)) for (_, row), said in found if said is not None}

    def _outcome(self, chunk: OutcomeChunk, batch: Batch | None, record: OutcomeRecord, text: tuple[str, str, str]) -> RecipientOutcome:
        queued, recipient = self._queued_at(batch), _recipient(batch, record.row)
        mail_at = unwrap_ms(record.mail_ms, chunk.at_ms) / 1e3 if record.mail_ms else chunk.at_ms / 1e3  # 0: no MAIL was written
        finished = max(queued, mail_at + record.transmit)
        waited = max(0.0, finished - queued - record.paced - record.connect - record.transmit)
        times = self._doubts.get((chunk.batch, record.row), 0)
        return RecipientOutcome(
            campaign=str(self._ref), account=owner(self._ref.account), recipient=recipient, index=BATCH_ROWS * chunk.batch + record.row,
            outcome=record.outcome.name.lower(), status=text[0], reply=text[1], relay=text[2] if record.reply != NO_REPLY else "",
            attempts=record.tries, queued_at=wall(queued), finished_at=wall(finished),
            delays=Delays(*(round(delay, 6) for delay in (waited, record.paced, record.connect, record.transmit))),
            message_id=self._message_id(batch, chunk.batch, record.row), worker=chunk.worker,
            possible_duplicate=times > 1 or (times == 1 and record.outcome is not Outcome.UNKNOWN),
        )  # fmt: skip

    async def _cancelled(self, named: Mapping[int, int]) -> AsyncIterator[RecipientOutcome]:
        """Rows without a record that are on no worker's hands any more."""
        leased = (await self._desk.standing(self._ref.account, self._ref.id)).leased
        ended = wall(number(self._fields, "cancelled_at") / 1e6)
        for start in range(0, number(self._fields, "batches"), _CHUNKS):
            numbers = range(start, min(start + _CHUNKS, number(self._fields, "batches")))
            for k, stored in zip(numbers, await self._desk.batches(self._ref.account, self._ref.id, numbers), strict=True):
                if stored is None:
                    continue
                held = sum(int.from_bytes(mask, "little") for mask in leased.get(k, ()))
                batch = unpack(stored[1])
                queued = wall(self._queued_at(batch))
                for row in rows_of(stored[0]):
                    if not (named.get(k, 0) | held) >> row & 1:
                        yield RecipientOutcome(
                            str(self._ref), owner(self._ref.account), _recipient(batch, row), BATCH_ROWS * k + row, "cancelled",
                            "", "", "", 0, queued, ended, Delays(max(0.0, (ended - queued).total_seconds()), 0.0, 0.0, 0.0),
                            self._message_id(batch, k, row), "", False,
                        )  # fmt: skip

    def _queued_at(self, batch: Batch | None) -> float:
        if batch is not None and QUEUED_AT in batch.fields:
            return float(batch.columns[batch.fields.index(QUEUED_AT)][0])
        return number(self._fields, "created") / 1e6

    def _message_id(self, batch: Batch | None, k: int, row: int) -> str:
        """As the renderer writes it (render/compile.py; engine/campaigns.py for single messages)."""
        if is_paid(self._ref.account):  # no header of an SMS holds one
            return ""
        uid, domain = self._fields["uid"], self._fields.get("domain", "")
        if self._ref.id == TRANSACTIONAL:
            uid = f"{uid}.{k}"
            domain = batch.columns[batch.fields.index(DOMAIN)][0] if batch is not None and DOMAIN in batch.fields else ""
        return f"<{uid}.{BATCH_ROWS * k + row}@{domain}>"

    async def _batch(self, k: int) -> Batch | None:
        if k not in self._batches:
            await self._fetch({k})
        return self._batches[k]

    async def _fetch(self, numbers: Iterable[int]) -> None:
        missing = [k for k in numbers if k not in self._batches]
        for k, stored in zip(missing, await self._desk.batches(self._ref.account, self._ref.id, missing), strict=True):
            self._batches[k] = None if stored is None else unpack(stored[1])
        while len(self._batches) > _KEPT_BATCHES:
            self._batches.popitem(last=False)


def _recipient(batch: Batch | None, row: int) -> str:
    if batch is None or row not in batch.positions:
        return ""
    return batch.recipients[batch.positions.index(row)]
