"""One million recipients, from the call of submit to the last outcome, through one unmetered worker process.

The list is a CSV file. Submitting, sending, the sink and Redis share the machine, as they do in anybody's first trial.
"""

from __future__ import annotations

import asyncio
import os
import time

import msgspec

from benchmarks.analysis import spread
from benchmarks.bench import Bench, Chart, Figure, Result, bench, children, cpu_seconds, machine_seconds, message, server_pid, write_list
from benchmarks.throughput import bare, sink

TITLE = "million: one million recipients, submit to last outcome, one worker"
BOUND_S = 900.0
MILLION = 1_000_000
_WITHIN_S = 25.0
_LOOK_S = 0.5


class Round(msgspec.Struct, frozen=True):
    submitted: float  # seconds until the list was sealed
    ended: float  # seconds until the last outcome
    worker_us: float  # CPU a message
    redis_us: float
    machine_us: float  # of everybody: the submitting, the sink and the kernel for all of them, too
    curve: list[tuple[float, float]]  # seconds, sent


async def run(quick: bool) -> Result:
    size, rounds = (30_000, 1) if quick else (MILLION, 3)
    async with bench() as b:
        port, name = await sink(b)
        worker = b.stage.worker()
        await b.workers_ready()
        await asyncio.to_thread(write_list, b.stage.folder / "list.csv", "m1", size)
        floor = await bare(b, port, size // 5)
        found = [await _round(b, f"m{1001 + number}", size, port, children(worker)[0]) for number in range(rounds)]
    return _result(found, size, name, size / floor.per_second, quick)


async def _round(b: Bench, account: str, size: int, port: int, pid: int) -> Round:
    await b.account(account, "unmetered", port)
    server = server_pid(b.stage)
    before, server_before, machine_before = cpu_seconds(pid), cpu_seconds(server), machine_seconds()
    began = time.perf_counter()
    send = await b.client.submit(account=account, message=message(account), recipients=b.stage.folder / "list.csv", campaign="bench")
    submitted, curve = time.perf_counter() - began, [(0.0, 0.0)]
    while True:
        status = await b.client.status(send.id)
        curve.append((time.perf_counter() - began, float(status.sent)))
        if status.finished_at is not None:
            break
        await asyncio.sleep(_LOOK_S)
    assert status.sent == size, status
    spent = (cpu_seconds(pid) - before, cpu_seconds(server) - server_before, machine_seconds() - machine_before)
    return Round(submitted, curve[-1][0], *(seconds / size * 1e6 for seconds in spent), curve)


def _result(found: list[Round], size: int, name: str, bare_s: float, quick: bool) -> Result:
    rows = [_row(place + 1, one, size) for place, one in enumerate(found)]
    ended = spread([one.ended for one in found])
    got = f"{ended.median:.1f} s ({ended.low:.1f} to {ended.high:.1f})"
    alone, cores = spread([one.submitted for one in found]).median, os.cpu_count() or 1
    most = spread([one.machine_us for one in found]).median / 1e6 * size / cores
    wall = (
        f"a bare writer into the same sink {bare_s:.1f} s, submitting {alone:.1f} s; everybody's processor time is {most:.1f} s "
        f"on {cores} cores that never wait; a worker is one process, {spread([one.worker_us for one in found]).median * size / 1e6:.1f} s"
    )
    what, wanted = f"{size:,} recipients, submit to last outcome, median", f"<= {_WITHIN_S:g} s"
    figures = [] if quick else [Figure(what, wanted, got, ended.median <= _WITHIN_S, wall)]  # a second holds the beginning alone
    columns = ["round", "submitted s", "ended s", "messages/s", "worker us", "Redis us", "everybody us"]
    chart = Chart("seconds", "sent", {f"round {place + 1}": one.curve for place, one in enumerate(found)})
    return Result(f"{TITLE}, into {name}", columns, rows, figures, chart, {"rounds": msgspec.to_builtins(found), "bare_s": bare_s})


def _row(number: int, one: Round, size: int) -> list[str]:
    seconds, costs = (one.submitted, one.ended), (one.worker_us, one.redis_us, one.machine_us)
    return [str(number), *map("{:.1f}".format, seconds), f"{size / one.ended:,.0f}", *map("{:.1f}".format, costs)]
