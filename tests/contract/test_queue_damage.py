"""Takeover of a worker whose journal cannot be read whole: no rescuer stops, what cannot be told is in doubt (docs/design/011)."""

from __future__ import annotations

import pytest
from queue_bench import SETTINGS, Bench, addresses, batches, outcomes, rows
from structlog.testing import capture_logs

from sendengine import records
from sendengine.engine.identity import Identity
from sendengine.engine.settings import EngineSettings
from sendengine.engine.takeover import LEAST_READINGS, Takeover
from sendengine.ports import Leased
from sendengine.types import Outcome

DEAD = "w1"


def intents(number: int, *those: int) -> bytes:
    return b"".join(records.INTENT.pack(records.KIND_INTENT, number, row) for row in those)


def sent(number: int, *those: int) -> bytes:
    return b"".join(records.ENTRY.pack(records.KIND_OUTCOME, number) + outcomes([row]) for row in those)


def note(lease: Leased) -> bytes:
    return records.encode_note(records.Note("m1", lease.token, "c", lease.batch))


async def two_leases(bench: Bench, on_doubt: str = "resend") -> list[Leased]:
    """100 rows and 10, of one campaign, taken by the worker that is to die."""
    await bench.account()
    await bench.campaign("c", 110, on_doubt=on_doubt)
    leases = list((await bench.take(worker=DEAD)).leases)
    assert [len(rows(lease)) for lease in leases] == [100, 10]
    await bench.queue.register(DEAD, b"token")
    return leases


async def rescue(bench: Bench, *fields: bytes) -> list[str]:
    """The journal holds these fields and its worker is dead; what was logged as an error."""
    await bench.queue.append(DEAD, b"token", 0, [], list(fields))
    time = iter(range(0, 1000, 10))
    takeover = Takeover(bench.queue, Identity("w2"), EngineSettings(), lambda: float(next(time)), lambda: 0.0)
    with capture_logs() as logs:
        for _ in range(LEAST_READINGS + 1):
            await takeover.watch()
        await takeover.sweep()
    assert await bench.queue.workers() == []
    return [line["event"] for line in logs if line["log_level"] == "error"]


async def counts(bench: Bench) -> dict[str, int]:
    """Rows by where they stand or how they ended, and how many were put in doubt."""
    fields, where = await bench.fields("c"), await bench.where("c")
    in_doubt = len((await bench.desk.standing("m1", "c")).doubts)
    ends = {o.name.lower(): int(fields.get(o.name.lower(), 0)) for o in (Outcome.SENT, Outcome.UNKNOWN)}
    return {"ready": where["ready"], "leased": where["leased"], "doubts": in_doubt, **ends}


async def test_a_whole_journal_puts_only_open_intents_in_doubt(bench: Bench) -> None:
    first, second = await two_leases(bench)
    ticks = b"0", intents(0, 1, 2, 3) + intents(1, 4), b"1", sent(0, 1)
    assert await rescue(bench, b"L0", note(first), b"L1", note(second), *ticks) == []
    assert await counts(bench) == {"ready": 109, "leased": 0, "doubts": 3, "sent": 1, "unknown": 0}


@pytest.mark.parametrize("bad", [
    intents(0, 5) + b"\x07", intents(0, 5)[:-1], intents(0, 200), sent(0, 5).replace(outcomes([5])[:2], bytes((5, 7))),
    sent(0, 9) + b"\xff",  # what seems to be `sent` here may be the flipped bit's work
])  # fmt: skip
async def test_a_damaged_tick_puts_in_doubt_all_that_no_other_tick_ends(bench: Bench, bad: bytes) -> None:
    first, second = await two_leases(bench)
    ticks = b"0", intents(0, 1, 2), b"1", bad, b"2", sent(0, 1) + sent(1, 0)
    assert await rescue(bench, b"L0", note(first), b"L1", note(second), *ticks) == ["journal_damaged"]
    assert await counts(bench) == {"ready": 108, "leased": 0, "doubts": 108, "sent": 2, "unknown": 0}


async def test_a_damaged_tick_under_hold_sends_nobody_again_who_may_have_been_sent(bench: Bench) -> None:
    first, _ = await two_leases(bench, "hold")
    assert await rescue(bench, b"L0", note(first), b"0", sent(0, 1), b"1", b"\xff") == ["journal_damaged"]
    # The second lease has no note, and none is lacking: it was never sent from.
    assert await counts(bench) == {"ready": 10, "leased": 0, "doubts": 99, "sent": 1, "unknown": 99}
    chunk = (await bench.desk.outcomes("m1", "c", "", 9))[-1]
    assert {record.outcome for record in records.decode_outcomes(chunk.records)} == {Outcome.UNKNOWN}
    assert b"its journal is damaged" in chunk.dictionary


async def test_a_damaged_note_puts_in_doubt_what_was_begun_under_any_lease_it_may_have_named(bench: Bench) -> None:
    first, second = await two_leases(bench)
    ticks = b"0", intents(0, 1, 2, 3) + intents(1, 4, 5), b"1", sent(0, 1) + sent(1, 4)
    assert await rescue(bench, b"L0", note(first), b"L1", note(second)[:-3], *ticks) == ["journal_damaged"]
    assert await counts(bench) == {"ready": 109, "leased": 0, "doubts": 4, "sent": 1, "unknown": 0}


@pytest.mark.parametrize("name", [b"M0", b"Lx", b"q"])
async def test_a_field_of_no_known_name_may_have_been_anything(bench: Bench, name: bytes) -> None:
    first, second = await two_leases(bench, "hold")
    assert await rescue(bench, b"L1", note(second), name, note(first), b"0", sent(1, 0)) == ["journal_damaged"]
    assert await counts(bench) == {"ready": 0, "leased": 0, "doubts": 109, "sent": 1, "unknown": 109}


async def test_a_damaged_reply_costs_its_text_alone(bench: Bench) -> None:
    first, second = await two_leases(bench)
    one = records.OUTCOME.pack(1, Outcome.SENT | records.FIRST_TRY, 1, 0, 0, 0.0, 0.0, 0)
    tick = b"0", records.ENTRY.pack(records.KIND_OUTCOME, 0) + one
    assert await rescue(bench, b"L0", note(first), b"L1", note(second), b"R0", b'["2.0.0","o', *tick) == ["journal_damaged"]
    assert await counts(bench) == {"ready": 109, "leased": 0, "doubts": 0, "sent": 1, "unknown": 0}
    assert [chunk.dictionary for chunk in await bench.desk.outcomes("m1", "c", "", 9)] == [b"{}"]


async def test_a_damaged_journal_keeps_no_other_worker_waiting(bench: Bench) -> None:
    first, _ = await two_leases(bench)
    await bench.desk.create("m1", "other", b"digest", None, b"message", SETTINGS)
    await bench.load("other", batches(addresses(7)))
    [third] = (await bench.take(worker="w3")).leases
    await bench.queue.register("w3", b"token")
    note_of_third = records.encode_note(records.Note("m1", third.token, "other", 0))
    await bench.queue.append("w3", b"token", 0, [], [b"L0", note_of_third, b"0", sent(0, 1)])
    assert await rescue(bench, b"L0", note(first)[:-3], b"0", b"\xff") == ["journal_damaged"]
    assert (await bench.where("other"), (await bench.fields("other"))["sent"]) == ({"ready": 6, "leased": 0, "retry": 0}, "1")
