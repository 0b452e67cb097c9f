"""Memory is full, or the disk, in mid-send: no dot without a journalled intent, nothing is accepted, and all goes on when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sendengine import records
from sendengine.errors import Unavailable
from tests.failures.redis_rig import RedisRig, redis_rig, until, until_answered, until_quiet
from tests.failures.stage_rig import ACCOUNT, MESSAGE, FailureRig
from tests.forms import Server, SmallDisk, server, small_disk

pytestmark = pytest.mark.timeout(150)

RATE = 900_000
N = 500


async def test_memory_is_full_in_mid_send_and_room_comes_back() -> None:
    with server() as full:
        async with redis_rig(full.url, "--delay", "dot=0.05") as rig:
            campaign = await rig.submit(N, RATE)
            workers = rig.start_workers(2)
            await rig.until_sent(100)
            full.client.config_set("maxmemory", 1)
            sent = await until_quiet(rig, 1.0)
            assert 0 < sent < N
            assert _indexes(rig) <= await _journalled(rig, full)
            await _nothing_is_accepted(rig)
            assert await asyncio.to_thread(_submit_by_command, rig) == 75
            status = await rig.client.status(campaign)
            assert (status.state, status.accepted) == ("sending", N)
            assert await until_quiet(rig, 2.5) == sent  # longer than a silence that others would take for a worker's death
            full.client.config_set("maxmemory", 0)
            await _ends_well(rig, campaign)
            assert workers.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="a process's limits are set from outside on Linux only (prlimit)")
async def test_the_disk_is_full_in_mid_send_and_room_comes_back() -> None:
    """With `always` the server ends at the first write that it cannot make, and is started again and again; else it refuses writes."""
    slow = ("--delay", "dot=0.05")
    with small_disk(appendfsync="always") as ends, small_disk(appendfsync="everysec") as refuses:
        async with redis_rig(ends.url, *slow) as first, redis_rig(refuses.url, *slow) as second, _kept(ends):
            await asyncio.gather(_disk_is_full(first, ends), _disk_is_full(second, refuses, is_readable=True))
    for disk in (ends, refuses):
        assert re.search("(Short write while|Error) writing to the AOF", disk.said)  # else the fault was not there


async def _disk_is_full(rig: RedisRig, disk: SmallDisk, is_readable: bool = False) -> None:
    campaign = await rig.submit(N, RATE)
    workers = rig.start_workers(1)
    await rig.until_sent(100)
    disk.fill()
    sent = await until_quiet(rig, 1.5)
    assert 0 < sent < N
    await _nothing_is_accepted(rig)
    if is_readable:
        assert (await rig.client.status(campaign)).accepted == N
    disk.make_room()
    await until(disk.answers)
    await until_answered(rig)
    await _ends_well(rig, campaign)
    assert workers.poll() is None


@contextlib.asynccontextmanager
async def _kept(disk: SmallDisk) -> AsyncIterator[None]:
    async def keep() -> None:
        while True:
            await asyncio.to_thread(disk.keep)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _indexes(rig: FailureRig) -> set[int]:
    """Rows that the relay took."""
    return {int(line["rcpt_to"].partition("@")[0].removeprefix("r")) for line in rig.ledger()}


async def _journalled(rig: FailureRig, server: Server) -> set[int]:
    """Rows that stand in a journal as about to be sent, or whose outcome is settled."""
    raw = server.raw()
    found: set[int] = set()
    for worker in raw.smembers("{x}:workers"):
        journal = raw.hgetall(b"{w:" + worker + b"}")
        notes = {int(name[1:]): records.decode_note(value) for name, value in journal.items() if name[:1] == b"L"}
        for name, blob in journal.items():
            if name.isdigit():
                found |= {notes[lease].batch * 100 + body[0] for _, lease, body in records.journal_entries(blob) if lease in notes}
    for chunk in await rig.client.desk.outcomes(ACCOUNT, "c", "", 10_000):
        found |= {chunk.batch * 100 + record.row for record in records.decode_outcomes(chunk.records)}
    return found


async def _nothing_is_accepted(rig: FailureRig) -> None:
    rows = [{"email": "a@example.com", "name": "A", "token": "t"}]
    with pytest.raises(Unavailable) as refused:
        await rig.client.submit(account=ACCOUNT, message=MESSAGE, recipients=rows, campaign="later")
    assert refused.value.exit_code == 75


def _submit_by_command(rig: FailureRig) -> int:
    rows = Path(rig.stage.folder) / "rows.csv"
    rows.write_text("email,name,token\na@example.com,A,t\n")
    words = ["submit", "--account", ACCOUNT, "--from", "a@example.com", "--subject", "s", "--html", str(rows), "--recipients", str(rows)]
    return rig.stage.start(sys.executable, "-m", "sendengine", *words).wait(60)


async def _ends_well(rig: FailureRig, campaign: str) -> None:
    await rig.until_ended(campaign)
    account = await rig.reckon(campaign)
    assert (account.lost, account.phantom, account.duplicates, account.doubts, account.pending, account.findings) == (0, 0, 0, 0, 0, 0)
    assert account.outcomes == {"sent": N}
