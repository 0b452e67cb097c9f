"""Peers are measured by what the sink took, and one that cannot run is a line of the table."""

from __future__ import annotations

import asyncio
import subprocess
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path

import pytest

from benchmarks.bench import session_cpu_seconds
from benchmarks.letter import SUBJECT, email_message, filled, rows
from benchmarks.peers import suite
from benchmarks.peers.ground import Server, stop
from benchmarks.peers.install import program
from benchmarks.peers.sink import Arrival, Sink, arrival, last_count
from benchmarks.peers.suite import PEERS, Round
from benchmarks.pool import prepared


@pytest.mark.parametrize(
    ("tail", "count"),
    [
        (b"", 0),
        (b"sess=1 quit=0 mesg=0\r", 0),
        (b"esg=16\rsess=1 quit=0 mesg=17\rsess=2 quit=1 mesg=", 17),
        (b"sess=1 quit=0 mesg=16\rsess=1 quit=0 mesg=17\rsess=2 quit=1 mesg=2", 17),
    ],
)
def test_the_last_whole_number_counts(tail: bytes, count: int) -> None:
    assert last_count(tail) == count


async def test_a_round_is_timed_from_the_first_that_came_to_the_last() -> None:
    counts = iter([100, 100, 101, 150, 199, 200])

    came = await arrival(lambda: next(counts), 100, within=10.0)

    assert came.is_whole
    assert came.count == 100
    assert came.per_second > 0


async def test_what_came_by_the_end_of_its_time_is_a_result_too() -> None:
    came = await arrival(lambda: 7, 100, within=0.0)

    assert came == Arrival(0.0, 0, 100)
    assert not came.is_whole


def test_both_letters_say_the_same() -> None:
    """What the engine's skeleton makes, and what the standard library makes, are the same letter to the same person."""
    row = list(rows("m1", 4))[3]
    [*_, (to, ours)] = prepared(4)
    left = message_from_bytes(ours, policy=SMTP)
    right = message_from_bytes(email_message("m1", row).as_bytes(), policy=SMTP)

    assert to == row["email"]
    assert left["subject"] == right["subject"] == filled(SUBJECT, row)
    assert left.get_content().splitlines() == right.get_content().splitlines()
    assert abs(len(ours) - len(email_message("m1", row).as_bytes())) < 200


def test_ratios_are_taken_within_a_round_and_the_absent_are_named() -> None:
    def round_(speed: float, count: int = 10) -> Round:
        return Round(Arrival(speed, count, 10), 5.0)

    wire = PEERS[2].name
    rounds = {"sendengine": [round_(100), round_(300), round_(200)], wire: [round_(50), round_(100), round_(100, 3)]}

    result = suite._result(rounds, {PEERS[3].name: "it has no wheels"})

    lines = {row[0]: row for row in result.rows}
    assert lines[f"{wire} (1 of 3 rounds cut short)"][5] == "2.0 (2.0 to 3.0)"
    assert lines[PEERS[3].name][1] == "skipped: it has no wheels"
    [figure] = result.figures
    assert figure.holds


async def test_the_sink_counts_what_it_took() -> None:
    if program("smtp-sink") is None:
        pytest.skip("smtp-sink is not installed (Debian: postfix)")
    with Sink() as sink:
        await sink.listens()
        arriving = asyncio.create_task(sink.arrive(3, 20.0))
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        for _ in range(3):
            writer.write(b"HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
            while not (await reader.readline()).startswith(b"354"):
                pass
            writer.write(b"x\r\n.\r\n")
            await reader.readline()
        assert (await arriving).is_whole
        writer.close()


def test_a_server_that_is_ended_leaves_nobody_of_its_session(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 60 & echo; wait; sleep 60"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()

    stop(Server(0, process, tmp_path / "log"), within=0.1)

    assert process.returncode is not None
    assert session_cpu_seconds(process.pid) == 0
    process.stdout.close()
