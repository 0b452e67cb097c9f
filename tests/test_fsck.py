"""Planted inconsistencies: each is found and named, mended on request, and afterwards everybody still gets exactly one message.

A send in the middle: batch 0 has ended, batch 1 is leased (one row of it deferred), batch 2 waits; then somebody's hand slips.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from struct import pack
from typing import Any

import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Unavailable
from sendengine.intake import Intake
from sendengine.ports import Settlement
from sendengine.queue.desk import RedisDesk
from sendengine.queue.redis import RedisQueue
from sendengine.records import DEFERRED, FIRST_TRY, NO_ROWS, NUMS, OUTCOME, mask_of, rows_of
from sendengine.render.message import Message, dump
from sendengine.scheduler.fsck import Finding, check
from sendengine.scheduler.names import Ref
from sendengine.types import Outcome

A, C = "{m1}", "{m1}:c:c"
MESSAGE = Message(sender="Shop <news@shop.example>", subject="Hi", text="Hello")
LAST_ROWS = 50
N = 200 + LAST_ROWS
DEFERRED_ROW = 9


class Bench:
    def __init__(self, url: str) -> None:
        self.desk, self.queue = RedisDesk(url), RedisQueue(url)
        self.client = Client(desk=self.desk, config=Config())
        self.lease = b""

    async def redis(self, *words: str | bytes | int) -> Any:
        return await self.desk._link.call(*words)

    async def begin(self) -> None:
        await self.client.create_account("m1", "60k")
        rows = [{"email": f"u{i}@example.com"} for i in range(N)]
        await self.client.submit(account="m1", message=MESSAGE, recipients=rows, campaign="c")
        await self.queue.register("w1", b"w1-token")
        first, second = (await self.take(200))
        await self.settle(first, range(100))
        self.lease = second
        body = DEFERRED.pack(DEFERRED_ROW, FIRST_TRY, 1, 100, 3_600_000, 0)
        nums = NUMS.pack(*[0] * 6, 1, 1, 1e15, 1e15, 1e15)
        await self.queue.visit("m1", 0, 0.0, "=", [], [Settlement(second, NO_ROWS, b"", b"{}", nums, body)])

    async def take(self, rows: int) -> list[bytes]:
        tokens = [os.urandom(8) for _ in range(8)]
        leases = (await self.queue.take("m1", "w1", rows, tokens, [], [])).leases
        self.rows = {lease.token: rows_of(lease.mask) for lease in leases}
        return [lease.token for lease in leases]

    async def settle(self, token: bytes, rows: Any) -> None:
        rows = list(rows)
        records = b"".join(OUTCOME.pack(row, Outcome.SENT | FIRST_TRY, 1, 65535, 0, 0.0, 0.0, 0) for row in rows)
        nums = NUMS.pack(len(rows), *[0] * 5, len(rows), len(rows), 1e15, 1e15, 1e15)
        await self.queue.visit("m1", 0, 0.0, "=", [], [Settlement(token, mask_of(rows), records, b"{}", nums)])

    async def finish(self) -> None:
        """The worker settles what it holds, and takes and sends the rest; nothing waits for a retry any more."""
        await self.settle(self.lease, [row for row in range(100) if row != DEFERRED_ROW])
        await self.redis("ZADD", f"{C}:w", 0, 1)
        await self.redis("ZADD", f"{A}:again", 0, "c")
        entries = await self.redis("HGET", f"{C}:r", 1)
        if entries:
            await self.redis("HSET", f"{C}:r", 1, entries[:6] + bytes(8))
        while tokens := await self.take(1000):
            for token in tokens:
                await self.settle(token, self.rows[token])

    async def fsck(self, repair: bool = False) -> list[Finding]:
        return [finding async for finding in self.client.fsck("c", repair=repair)]


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    bench = Bench(redis_url)
    async with bench.client:
        await bench.begin()
        yield bench
        await bench.queue.close()
        await bench.desk.close()


def waiting(batch: int, *rows: int) -> bytes:
    """A record of rows given back."""
    return pack("<IB", batch, 0) + mask_of(rows)


async def swap_entry(bench: Bench, mask: bytes) -> None:
    """The waiting entry of batch 2, with another mask: in another level, since an entry cannot be written twice."""
    await bench.redis("XDEL", f"{C}:q0", "3-0")
    await bench.redis("XADD", f"{C}:q1", "3-0", "m", mask)


async def narrow_lease(bench: Bench, row: int) -> None:
    record = await bench.redis("HGET", f"{A}:lease", bench.lease)
    kept = mask_of(other for other in rows_of(record[:13]) if other != row)
    await bench.redis("HSET", f"{A}:lease", bench.lease, kept + record[13:])


Plant = Callable[[Bench], Awaitable[Any]]
PLANTS: dict[str, tuple[Plant, str, list[int]]] = {  # what is done, what is said of it, of which input rows
    "an entry dropped": (lambda b: b.redis("XDEL", f"{C}:q0", "3-0"), "nowhere", list(range(200, N))),
    "a bit of an entry cleared": (lambda b: swap_entry(b, mask_of(range(1, LAST_ROWS))), "nowhere", [200]),
    "a bit of an entry set": (lambda b: swap_entry(b, mask_of(range(LAST_ROWS + 1))), "never accepted", [N]),
    "one that has ended waits again": (lambda b: b.redis("RPUSH", f"{C}:b", waiting(0, 5)), "two places", [5]),
    "one that is leased waits too": (lambda b: b.redis("RPUSH", f"{C}:b", waiting(1, 3)), "two places", [103]),
    "one waits twice": (lambda b: b.redis("RPUSH", f"{C}:b", waiting(2, 7)), "two places", [207]),
    "one waits and has a retry": (lambda b: b.redis("RPUSH", f"{C}:b", waiting(1, DEFERRED_ROW)), "two places", [100 + DEFERRED_ROW]),
    "one nobody accepted was set aside": (lambda b: b.redis("RPUSH", f"{C}:z", waiting(2, 88)), "never accepted", [288]),
    "a lease lost a row": (lambda b: narrow_lease(b, 42), "nowhere", [142]),
    "a retry dropped": (lambda b: b.redis("HDEL", f"{C}:r", 1), "nowhere", [100 + DEFERRED_ROW]),
    "a count off": (lambda b: b.redis("HINCRBY", C, "sent", 3), "'sent'", []),
    "another count off": (lambda b: b.redis("HINCRBY", C, "leased", -3), "'leased'", []),
    "not found": (lambda b: b.redis("ZREM", f"{A}:ready", "c"), "may send", []),
    "its retry not found": (lambda b: b.redis("ZREM", f"{A}:again", "c"), "may send", []),
    "not let": (lambda b: b.redis("ZREM", f"{A}:run", "c"), "may send", []),
}


@pytest.mark.parametrize("name", PLANTS)
async def test_planted_is_found_named_and_mended(bench: Bench, name: str) -> None:
    plant, said, rows = PLANTS[name]
    assert await bench.fsck() == []
    await plant(bench)
    found = await bench.fsck()
    assert [finding.row for finding in found if said in finding.what and finding.row is not None] == rows
    assert any(said in finding.what for finding in found)
    assert await bench.fsck(repair=True) == found
    assert await bench.fsck() == []
    await bench.finish()
    status = await bench.client.status("c")
    assert (status.state, status.sent, status.pending) == ("finished", N, 0)
    assert await bench.fsck() == []


async def test_lease_dropped_is_sent_by_somebody_else(bench: Bench) -> None:
    """Its worker's settlement finds no lease and writes nothing."""
    await bench.redis("HDEL", f"{A}:lease", bench.lease)
    assert [finding.row for finding in await bench.fsck(repair=True) if finding.row] == [row for row in range(100, 200) if row != 109]
    assert await bench.fsck() == []
    await bench.finish()
    assert (await bench.client.status("c")).sent == N


async def test_outcomes_dropped_are_found_and_sent_again(bench: Bench) -> None:
    [(entry, _)] = await bench.redis("XRANGE", f"{C}:o", "-", "+")
    await bench.redis("XDEL", f"{C}:o", entry)
    found = await bench.fsck(repair=True)
    assert [finding.row for finding in found if "nowhere" in finding.what] == list(range(100))
    assert await bench.fsck() == []
    await bench.finish()
    assert (await bench.client.status("c")).sent == N


async def test_second_outcome_is_named_and_not_counted(bench: Bench) -> None:
    [(_, fields)] = await bench.redis("XRANGE", f"{C}:o", "-", "+")
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    again = [item for name, value in values.items() for item in (name, value[: OUTCOME.size] if name == b"r" else value)]
    await bench.redis("XADD", f"{C}:o", "*", *again)
    assert [(finding.row, finding.what) for finding in await bench.fsck(repair=True)] == [(0, "has two outcomes")]
    assert [finding.what for finding in await bench.fsck()] == ["has two outcomes"]  # nobody can tell which is true
    await bench.finish()
    assert (await bench.client.status("c")).sent == N


async def test_recipients_that_are_gone_are_named_while_the_send_goes_on(bench: Bench) -> None:
    await bench.redis("HDEL", f"{C}:p", 2)
    assert [(finding.batch, finding.what) for finding in await bench.fsck()] == [(2, "its recipients are gone")]


async def test_after_the_retention_counts_are_all_that_is_looked_at(bench: Bench) -> None:
    await bench.finish()
    await bench.redis("DEL", f"{C}:p", f"{C}:o")
    assert await bench.fsck() == []


async def test_one_that_fell_out_of_the_line_is_named_and_sent_in_its_turn(bench: Bench) -> None:
    rows = [{"email": "a@example.com"}]
    for name in ("first", "second"):
        await bench.client.submit(account="m1", message=MESSAGE, recipients=rows, campaign=name, sequential=True)
    await bench.redis("LREM", f"{A}:line", 0, "second")
    found = [(finding.campaign, finding.what) async for finding in bench.client.fsck(repair=True)]
    assert found == [("m1:second", "does not stand in the line")]
    assert await bench.redis("LRANGE", f"{A}:line", 0, -1) == [b"first", b"second"]
    await bench.finish()
    assert (await bench.client.status("second")).state == "finished"


S, SINGLES = f"{A}:c:transactional", Ref("m1", "transactional")


async def singles(bench: Bench) -> None:
    """Of three single messages the first was sent, the second is leased, the third waits."""
    for i in range(3):
        await bench.client.send(account="m1", message=MESSAGE, to=f"s{i}@example.com")
    skip = ["c"]
    tokens = [os.urandom(8) for _ in range(2)]
    leases = (await bench.queue.take("m1", "w1", 2, tokens, skip, skip)).leases
    assert [lease.batch for lease in leases] == [0, 1]
    bench.lease = leases[1].token
    await bench.settle(leases[0].token, [0])


SINGLE_PLANTS: dict[str, tuple[Plant, str, list[int]]] = {
    "a waiting one dropped": (lambda b: b.redis("XDEL", f"{S}:q0", "3-0"), "nowhere", [200]),
    "a leased one dropped": (lambda b: b.redis("HDEL", f"{A}:lease", b.lease), "nowhere", [100]),
    "one that was sent waits again": (lambda b: b.redis("RPUSH", f"{S}:b", waiting(0, 0)), "two places", [0]),
    "a leased one waits too": (lambda b: b.redis("RPUSH", f"{S}:b", waiting(1, 0)), "two places", [100]),
    "a row that is none": (lambda b: b.redis("RPUSH", f"{S}:b", waiting(2, 1)), "never accepted", [201]),
    "its campaign paused": (lambda b: b.redis("HSET", S, "state", "paused"), "is paused", []),
    "its campaign cancelled": (lambda b: b.redis("HSET", S, "state", "cancelled"), "is cancelled", []),
    "a count off": (lambda b: b.redis("HINCRBY", S, "leased", 2), "'leased'", []),
}


@pytest.mark.parametrize("name", SINGLE_PLANTS)
async def test_planted_in_single_messages_is_found_named_and_mended(bench: Bench, name: str) -> None:
    plant, said, rows = SINGLE_PLANTS[name]
    await singles(bench)
    assert (await check(bench.desk, SINGLES)).findings == []
    await plant(bench)
    found = (await check(bench.desk, SINGLES)).findings
    assert [finding.row for finding in found if said in finding.what and finding.row is not None] == rows
    assert any(said in finding.what for finding in found)
    named = [finding.recipient for finding in found if finding.row in (0, 100, 200)]
    assert named == [f"s{row // 100}@example.com" for row in rows if row % 100 == 0]
    assert (await check(bench.desk, SINGLES, repair=True)).findings == found
    assert (await check(bench.desk, SINGLES)).findings == []
    await bench.settle(bench.lease, [0])
    while leases := (await bench.queue.take("m1", "w1", 9, [os.urandom(8) for _ in range(4)], ["c"], ["c"])).leases:
        for lease in leases:
            assert lease.message
            await bench.settle(lease.token, rows_of(lease.mask))
    fields = await bench.desk.campaign("m1", "transactional")
    assert (fields["state"], fields["accepted"], fields["sent"]) == ("sending", "3", "3")
    assert (await check(bench.desk, SINGLES)).findings == []


async def test_a_single_message_of_which_nothing_is_left_shows_in_the_counts(bench: Bench) -> None:
    await singles(bench)
    await bench.redis("XDEL", f"{S}:q0", "3-0")
    await bench.redis("HDEL", f"{S}:p", 2)
    found = (await check(bench.desk, SINGLES)).findings
    assert [finding.what for finding in found] == ["accepted is not the sum of outcomes + what stands"]


async def test_a_single_message_whose_outcome_is_lost_is_named_and_not_sent_again(bench: Bench) -> None:
    await singles(bench)
    [(entry, _)] = await bench.redis("XRANGE", f"{S}:o", "-", "+")
    await bench.redis("XDEL", f"{S}:o", entry)
    told = [(finding.row, finding.recipient, finding.what) for finding in (await check(bench.desk, SINGLES, repair=True)).findings]
    assert told == [(0, "s0@example.com", "has ended, and its outcome is lost")]
    assert (await bench.desk.standing("m1", "transactional")).ready.keys() == {2}


async def test_forgotten_single_messages_are_not_missed(bench: Bench) -> None:
    await singles(bench)
    [(entry, _)] = await bench.redis("XRANGE", f"{S}:o", "-", "+")
    await bench.redis("XDEL", f"{S}:o", entry)
    await bench.redis("HDEL", f"{S}:p", 0)
    assert (await check(bench.desk, SINGLES)).findings == []


async def test_an_outcome_that_a_cancelled_send_lost_is_found_and_named(bench: Bench) -> None:
    await bench.client.cancel("c")
    await bench.settle(bench.lease, [row for row in range(100) if row != DEFERRED_ROW])
    assert await bench.fsck() == []
    (first, fields), _ = await bench.redis("XRANGE", f"{C}:o", "-", "+")
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    await bench.redis("XDEL", f"{C}:o", first)
    at = 5 * OUTCOME.size
    values[b"r"] = values[b"r"][:at] + values[b"r"][at + OUTCOME.size :]
    await bench.redis("XADD", f"{C}:o", "*", *(item for pair in values.items() for item in pair))
    found = await bench.fsck()
    assert "outcomes are lost, and no record says of whom: 1" in [finding.what for finding in found]
    assert "the count 'sent' is not what the records say" in [finding.what for finding in found]
    named = {finding.recipient for finding in found if "may be whose" in finding.what}
    assert named == {"u5@example.com", f"u{100 + DEFERRED_ROW}@example.com"}  # nobody of batch 2, which was never begun
    assert await bench.fsck(repair=True) == found
    assert await bench.fsck() == []
    status = await bench.client.status("c")
    assert (status.sent, status.cancelled) == (N - LAST_ROWS - 2, LAST_ROWS + 2)


async def _racing(bench: Bench, what: Callable[[], Awaitable[object]]) -> None:
    """Somebody does it between the reading and the repair."""
    restore, done = bench.desk.restore, []

    async def racing(*args: Any) -> int:
        if not done:
            done.append(True)
            await what()
        return await restore(*args)

    bench.desk.restore = racing  # type: ignore[method-assign]


async def test_a_batch_that_comes_between_reading_and_repair_is_kept(bench: Bench) -> None:
    await bench.client.create_account("m2", "60k")
    rows = [{"email": f"u{i}@example.com"} for i in range(300)]
    first, *rest = Intake((), salt=b"salt").from_rows(rows)
    await bench.desk.create("m2", "late", b"d", None, dump(MESSAGE), {})
    await bench.desk.submit("m2", "late", first)
    await bench.redis("HSET", "{m2}:c:late", "deferred", 7)

    async def submit() -> None:
        for batch in rest:
            await bench.desk.submit("m2", "late", batch)

    await _racing(bench, submit)
    await check(bench.desk, Ref("m2", "late"), repair=True)
    fields = await bench.desk.campaign("m2", "late")
    assert (fields["accepted"], fields["deferred"]) == ("300", "0")


@pytest.mark.parametrize("error", [Unavailable("Redis is away"), asyncio.CancelledError()])
async def test_a_repair_whose_proof_fails_is_in_the_trail(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    await bench.redis("HINCRBY", C, "leased", -3)
    restore, read = bench.desk.restore, bench.desk.campaign

    async def fail_once(*args: Any) -> Any:
        monkeypatch.setattr(bench.desk, "campaign", read)
        raise error

    async def mend(*args: Any) -> int:
        monkeypatch.setattr(bench.desk, "campaign", fail_once)
        return await restore(*args)

    monkeypatch.setattr(bench.desk, "restore", mend)
    with pytest.raises(type(error)):
        await bench.fsck(repair=True)
    assert await bench.fsck() == []
    assert [each.what async for each in bench.client.audit("m1")][-1] == "send.repair"


async def test_a_cancel_between_reading_and_repair_is_kept(bench: Bench) -> None:
    await bench.redis("HSET", C, "deferred", 7)
    await _racing(bench, lambda: bench.desk.cancel("m1", "c"))
    await check(bench.desk, Ref("m1", "c"), repair=True)
    fields = await bench.desk.campaign("m1", "c")
    assert fields["state"] == "cancelled"
    assert int(fields["sent"]) + int(fields["cancelled"]) + int(fields["leased"]) == N
