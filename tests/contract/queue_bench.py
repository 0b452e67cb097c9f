"""What the contract tests of the queue stand on: one bench over Redis and over its twin, and settlements as workers write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sendengine import records
from sendengine.intake import Intake, PackedBatch
from sendengine.lanes import is_paid
from sendengine.ports import Blame, Desk, Leased, Queue, Settlement, Standing, Taken, Visited
from sendengine.queue.desk import RedisDesk
from sendengine.queue.memory import MemoryDesk, MemoryQueue, MemoryStore
from sendengine.queue.redis import RedisQueue
from sendengine.types import Outcome

NOON = 1_800_000_000e6
HORIZON = 1e6
SETTINGS = {"on_doubt": "resend", "max_doubt": "1", "retention": "600", "uid": "u"}


class ManualClock:
    """µs; each reading is one later, as no two scripts of a Redis run at the same time."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        self.now += 1
        return self.now


def batches(addresses: Iterable[str], priority: Sequence[int] | None = None) -> list[PackedBatch]:
    """A list as the intake cuts it."""
    rows = [{"email": address} for address in addresses]
    if priority is not None:
        rows = [row | {"p": str(level)} for row, level in zip(rows, priority, strict=True)]
    return list(Intake((), priority=None if priority is None else "p", salt=b"salt").from_rows(rows))


def addresses(n: int, start: int = 0) -> list[str]:
    return [f"u{at}@example.com" for at in range(start, start + n)]


def outcomes(rows: Iterable[int], outcome: Outcome = Outcome.SENT, first: bool = True) -> bytes:
    what = outcome | (records.FIRST_TRY if first else 0)
    return b"".join(records.OUTCOME.pack(row, what, 1, records.NO_REPLY, 0, 0.0, 0.0, 0) for row in rows)


def deferred(rows: Iterable[int], delay_ms: int, tries: int = 1, first: int = 100) -> bytes:
    return b"".join(records.DEFERRED.pack(row, records.FIRST_TRY if tries == 1 else 0, tries, first, delay_ms, 0) for row in rows)


def doubts(rows: Iterable[int], tries: int = 1, first: int = 100) -> bytes:
    what = Outcome.UNKNOWN | (records.FIRST_TRY if tries == 1 else 0)
    return b"".join(records.DOUBT.pack(row, what, tries, records.NO_REPLY, 0, 0.0, 0.0, 0, first) for row in rows)


def settlement(
    token: bytes, finals: bytes = b"", deferred: bytes = b"", doubts: bytes = b"", back: Iterable[int] = (), at: float = NOON,
    blame: Blame = Blame.NONE, marks: bytes = b"",
) -> Settlement:  # fmt: skip
    """Outcomes as a worker settles them; every row with a record was mailed at `at`."""
    rows, counts, tried = [], [0] * 6, 0
    for record in records.decode_outcomes(finals):
        rows.append(record.row)
        counts[record.outcome - 1] += 1
        tried += record.was_first_try
    mails = len(rows) + len(deferred) // records.DEFERRED.size + len(doubts) // records.DOUBT.size
    times = (at, at, at) if mails else (0.0, 0.0, 0.0)
    nums = records.NUMS.pack(*counts, tried, mails, *times)
    given = records.mask_of(back) if back else b""
    return Settlement(token, records.mask_of(rows), finals, b"{}", nums, deferred, doubts, given, blame, marks)


def rows(lease: Leased) -> list[int]:
    return records.rows_of(lease.mask)


def where(standing: Standing) -> dict[str, int]:
    """Rows by where they stand."""
    parts = {"ready": standing.ready, "leased": standing.leased, "retry": standing.retry}
    if standing.aside:
        parts["aside"] = standing.aside
    return {name: sum(records.count(mask) for masks in part.values() for mask in masks) for name, part in parts.items()}


def ended(fields: Mapping[str, str]) -> dict[str, int]:
    """Recipients by outcome, those that there are."""
    return {o.name.lower(): int(fields[o.name.lower()]) for o in Outcome if int(fields.get(o.name.lower(), 0))}


class Bench:
    """A queue and a desk on the same state, with account m1 made."""

    def __init__(self, queue: Queue, desk: Desk, clock: ManualClock | None) -> None:
        self.queue, self.desk, self.clock = queue, desk, clock
        self._tokens = itertools.count(1)

    def tokens(self, n: int = 16) -> list[bytes]:
        return [next(self._tokens).to_bytes(8, "big") for _ in range(n)]

    async def account(self, account: str = "m1", per_hour: float | None = None) -> None:
        iv = "0" if per_hour is None else f"{3.6e9 / per_hour:.3f}"
        assert await self.desk.create_account(account, {"tier": "t", "rate": str(per_hour or ""), "iv": iv})

    async def campaign(
        self, name: str, n: int = 0, *, sealed: bool = True, at_us: float | None = None, account: str = "m1", **settings: str
    ) -> None:
        """Make it, with n recipients."""
        assert await self.desk.create(account, name, b"digest", at_us, b"message", SETTINGS | settings) == "new"
        await self.load(name, batches(addresses(n)), sealed, account)

    async def load(self, name: str, packed: list[PackedBatch], sealed: bool = True, account: str = "m1") -> None:
        for batch in packed:
            free = msgspec.structs.replace(batch, prices=bytes(4 * len(batch.positions))) if is_paid(account) else batch
            assert (await self.desk.submit(account, name, free)).status == "stored"
        if sealed:
            assert (await self.desk.seal(account, name, len(packed))).status == "sealed"

    async def take(self, n: int = 10_000, worker: str = "w1", tokens: int = 16, skip: Sequence[str] = ()) -> Taken:
        return await self.queue.take("m1", worker, n, self.tokens(tokens), skip, skip)

    async def settle(self, *settlements: Settlement) -> tuple[int, ...]:
        return (await self.queue.visit("m1", 0, 0.0, "=", [], settlements)).acted

    async def visit(self, want: int, held: Sequence[str], horizon: float = HORIZON, bind: str = "=") -> Visited:
        return await self.queue.visit("m1", want, horizon, bind, held, [])

    async def fields(self, name: str) -> Mapping[str, str]:
        return await self.desk.campaign("m1", name)

    async def where(self, name: str) -> dict[str, int]:
        return where(await self.desk.standing("m1", name))

    async def close(self) -> None:
        await self.queue.close()
        await self.desk.close()


def memory_bench() -> Bench:
    store, clock = MemoryStore(), ManualClock()
    return Bench(MemoryQueue(store, clock), MemoryDesk(store, clock), clock)


def redis_bench(url: str) -> Bench:
    return Bench(RedisQueue(url), RedisDesk(url), None)
