"""The batches of one call that loads a list, on their way to the desk: a window of them in flight, answers looked at in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

from sendengine.batch import BATCH_ROWS, first_difference, rows_in
from sendengine.errors import Conflict, LacksCredit, RefusedInput, Unavailable
from sendengine.intake import PackedBatch
from sendengine.lanes import owner
from sendengine.ports import Desk, Run, Stored
from sendengine.remedies import Remedy, field, said
from sendengine.scheduler import audit
from sendengine.scheduler.names import Ref
from sendengine.scheduler.sources import TOGETHER
from sendengine.scheduler.view import number

IN_FLIGHT = 64
COUNTED_FOR = 2.0  # seconds in which what flew when a submit broke off may still answer
ANOTHER = said("choose another ", field("campaign"))


def going_on(batches: int, is_sealed: bool) -> Remedy:
    """What is done with rows that have no place where they were uploaded to; so many batches stand."""
    if is_sealed:
        return said("it is sealed: for more rows ", ANOTHER)
    return said(f"first_batch={batches} goes on behind what stands, with the rows that follow; for other ones ", ANOTHER)


class TooDear(Exception):
    """A batch was not stored: it costs more than is free."""

    def __init__(self, batch: PackedBatch, stored: Stored) -> None:
        super().__init__(batch.number)
        self.first, self.needed, self.free = 100 * batch.number, stored.needed, stored.free


class Flight:
    """Batches on their way, oldest first. Owner of their tasks; they leave in order, and answers are looked at in order. The first that
    would be new waits until those which stand already have been compared: behind one that differs nothing is stored, of a list of the
    release before neither, whose digests say nothing of what stands before them.

    A batch that is not full ends the list, and goes with the seal; of a piece, which others may follow, it goes as the others. `who` is for
    the audit trail; None: it tells of this already."""

    def __init__(
        self, desk: Desk, ref: Ref, line_of: Callable[[int], int | None], who: str | None, is_piece: bool = False, first: int = 0
    ) -> None:
        self._desk, self._ref, self._line_of, self._who, self.is_piece = desk, ref, line_of, who, is_piece
        self._run = Run(token_hex(8), first)
        self._flying: deque[tuple[PackedBatch, asyncio.Task[Stored]]] = deque()
        self._last: PackedBatch | None = None  # of what was sent
        self._standing: int | None = None  # batches that stood there before
        self._is_sealed = False  # and nothing may follow them
        self._rows = self._batches = 0
        self.added = 0  # rows that were stored
        self.unheard = 0  # rows that may have been

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """However the call ends, what it stored is told; and a list that was refused as a whole is as though it had not begun."""
        async with audit.told(self._desk, owner(self._ref.account), self._line):
            try:
                yield
            except LacksCredit:
                raise
            except RefusedInput:
                await self.give_up()
                with suppress(Unavailable):  # the caller hears what is wrong with the list
                    await self._leave()
                raise
            finally:
                await self.give_up()

    async def begin(self) -> None:
        await self._desk.begin_list(self._ref.account, self._ref.id, self._run)

    async def end(self) -> None:
        """Of a piece. One without rows is none."""
        await self.land_all()
        if self._batches:
            await self._desk.end_list(self._ref.account, self._ref.id, self._run, self._run.first + self._batches)
        else:
            await self._leave()

    async def _leave(self) -> None:
        await self._desk.leave_list(self._ref.account, self._ref.id, self._run)

    async def send(self, batch: PackedBatch) -> None:
        if self._standing is None:
            fields = await self._desk.campaign(self._ref.account, self._ref.id)
            self._standing, self._is_sealed = number(fields, "batches"), fields.get("sealed") == "1"
        if batch.number == self._standing or self._ends(batch):
            await self.land_all()
        self._rows += batch.rows
        self._batches += 1
        self._last = batch
        self._flying.append(self._sent(batch))
        if self._batches == 1:  # alone: it loads the script
            await self._land()
        elif self._batches % TOGETHER == 0:
            await asyncio.sleep(0)  # their calls are made,
            await asyncio.sleep(0)  # and written: the server works while the next ones are cut
        while self._flying and (self._flying[0][1].done() or len(self._flying) >= IN_FLIGHT):
            await self._land()

    async def seal(self) -> None:
        await self.land_all()
        digests = self._last.digests if self._last else b""
        stored = await self._desk.seal(self._ref.account, self._ref.id, self._batches, digests)
        if stored.status == "expected":
            raise self._differs(self._rows, f"it has rows beyond the {self._rows} of this list")
        if stored.status == "apart":
            raise self._differs(self._rows - 1, "it stands with other rows")
        if stored.status == "closed":
            raise Conflict(f"{self._ref} is {stored.state}: its list takes no end any more")

    async def land_all(self) -> None:
        while self._flying:
            await self._land()

    async def give_up(self) -> list[PackedBatch]:
        """What still flies when the submit ended by an error is not looked at any more, but counted where it was stored; which batches
        that are. A cancellation meanwhile ends the waiting."""
        flying = [batch for batch, _ in self._flying]
        try:
            if flying:
                await asyncio.wait([task for _, task in self._flying], timeout=COUNTED_FOR)
        finally:
            while self._flying:
                self._count(*self._flying.popleft())
        return flying

    def _line(self) -> bytes:
        """For the audit trail: rows that were stored, and those that may have been, since the answer was not heard; b"" for none."""
        if self._who is None or not (self.added or self.unheard):
            return b""
        added, unheard = (str(count or "") for count in (self.added, self.unheard))
        return audit.line("send.load", self._who, send=self._ref.id, added=added, unheard=unheard)

    def _count(self, batch: PackedBatch, task: asyncio.Task[Stored]) -> None:
        if task.cancel() or task.cancelled() or task.exception() is not None:
            self.unheard += batch.rows if batch.number >= (self._standing or 0) else 0
        elif task.result().status == "stored":
            self.added += batch.rows

    def _ends(self, batch: PackedBatch) -> bool:
        return batch.rows < BATCH_ROWS and not self.is_piece

    def _sent(self, batch: PackedBatch) -> tuple[PackedBatch, asyncio.Task[Stored]]:
        return batch, asyncio.create_task(self._submit(batch))

    async def _submit(self, batch: PackedBatch) -> Stored:
        line = b""
        if self._who is not None and not self.added:  # else one has brought it
            line = audit.line("send.load.begin", self._who, send=self._ref.id, batch=str(batch.number))
        return await self._desk.submit(self._ref.account, self._ref.id, batch, is_last=self._ends(batch), run=self._run, line=line)

    async def _answer(self) -> Stored:
        """Of the oldest. It flies on until it was heard: who is cancelled here counts it in `give_up`."""
        _, task = self._flying[0]
        if not task.done():
            await asyncio.wait([task])
        return task.result()

    async def _land(self) -> None:
        stored = await self._answer()
        if stored.status == "expected":  # those before it have landed: its turn has come, or Redis lost some of them
            self._flying[0] = self._sent(self._flying[0][0])
            stored = await self._answer()
        batch, _ = self._flying.popleft()
        if stored.status == "stored":
            self.added += batch.rows
        if stored.status == "expected":
            raise Unavailable(f"{self._ref}: batch {batch.number} came where {stored.number} was due")
        if stored.status == "differs":
            raise self._other_rows(batch, stored.payload)
        if stored.status == "apart":  # Redis lost what had landed, and somebody else was there first
            raise self._differs(100 * batch.number, "other rows stand before it now")
        if stored.status == "credit":
            raise TooDear(batch, stored)
        if stored.status == "closed" and stored.state == "sealed":
            self._is_sealed = True
            raise self._differs(100 * batch.number, "its list ended before this row")
        if stored.status == "closed":
            raise Conflict(f"{self._ref} is {stored.state}: it takes no more rows")

    def _other_rows(self, batch: PackedBatch, standing: bytes) -> Conflict:
        """A list that went on behind a batch which was not full is numbered otherwise from there on: what follows is a list of its own."""
        position = first_difference(standing, batch.payload) or 0
        row = 100 * batch.number + position
        if position == batch.rows:
            return self._differs(row, f"it has rows beyond the {self._rows} of this list")
        if position < rows_in(standing):
            return self._differs(row, "it stands with other rows")
        return self._differs(row, "a list of it ended before this row")

    def _differs(self, row: int, what: str) -> Conflict:
        line = self._line_of(row)
        place = f"row {row}" + (f" (line {line})" if line else "")
        remedy = going_on(self._standing or 0, self._is_sealed) if self.is_piece else ANOTHER
        return Conflict(f"{self._ref} exists: {what}; the first that differs is {place}", remedy)
