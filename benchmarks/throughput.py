"""How fast and how cheap: one unmetered worker process with journal and settlements, against a pool of aiosmtplib connections.

Both send the same two-kilobyte messages to the same sink, in turns, so that what disturbs the machine disturbs both; so does a bare
pipelined writer, the floor of any client that is written in Python.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time

import msgspec
import orjson
from redis.asyncio import Redis

from benchmarks.analysis import Spread, spread
from benchmarks.bench import Bench, Chart, Figure, Result, bench, children, cpu_seconds, free_port, kernel_seconds, server_pid
from sendengine.types import TlsPolicy

TITLE = "throughput: one worker process against an aiosmtplib pool of 10, 2 KB messages"
_WORKER_US, _REDIS_US, _LOG_OCTETS = 22.0, 5.0, 60.0
_LEAD_S = 1.0  # between the end of submitting and the start
_ROWS_PER_S = 50_000  # submitting is at least so fast
_PATH = os.environ.get("PATH", "") + ":/usr/sbin"  # where Debian puts smtp-sink


class Round(msgspec.Struct, frozen=True):
    per_second: float
    cpu_us: float  # of the sending process, a message
    redis_us: float = 0.0
    log_octets: float = 0.0  # that Redis wrote to its append-only file, a message; below 0: it was rewritten meanwhile
    kernel_us: float = 0.0  # of cpu_us


async def run(quick: bool) -> Result:
    rounds, size = (2, 5_000) if quick else (5, 60_000)
    async with bench() as b:
        port, name = await sink(b)
        worker = b.stage.worker()
        await b.workers_ready()
        [pid] = children(worker)
        ours, theirs, floor = [], [], []
        for number in range(rounds):
            ours.append(await engine(b, f"m{1000 + number}", size, port, pid))
            theirs.append(await pool(b, size, port))
            floor.append(await bare(b, port, size))
    return _result(ours, theirs, floor, name)


async def sink(b: Bench) -> tuple[int, str]:
    """Debian's smtp-sink where it is installed, since it costs less than ours and is everybody's."""
    program = shutil.which("smtp-sink", path=_PATH)
    if not program:
        return b.stage.relay().port, "sendengine sink"
    port = free_port()
    b.stage.start(program, *(("-u", "nobody") if os.geteuid() == 0 else ()), f"127.0.0.1:{port}", "100")
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return port, "smtp-sink"


async def engine(
    b: Bench, account: str, size: int, port: int, pid: int, octets: int = 0, tls: TlsPolicy = TlsPolicy.NONE
) -> Round:  # fmt: skip
    """All is queued before it starts, so that submitting is no part of it."""
    await b.account(account, "unmetered", port, tls)
    at = time.time() + size / _ROWS_PER_S + _LEAD_S
    send = await b.submit(account, size, at=at, octets=octets)
    assert time.time() < at, "submitting took longer than was thought"
    await asyncio.sleep(at - time.time() - 0.1)
    server, log = server_pid(b.stage), await log_size(b)
    before, kernel_before, server_before = cpu_seconds(pid), kernel_seconds(pid), cpu_seconds(server)
    final = await b.finished(send.id, 120)
    spent, kernel = cpu_seconds(pid) - before, kernel_seconds(pid) - kernel_before
    server_spent = cpu_seconds(server) - server_before
    written = await log_size(b) - log
    assert final.sent == size, final
    assert final.started_at is not None
    assert final.through_at is not None
    taken = (final.through_at - final.started_at).total_seconds()
    return Round((size - 1) / taken, spent / size * 1e6, server_spent / size * 1e6, written / size, kernel / size * 1e6)


async def log_size(b: Bench) -> int:
    """Octets of the server's append-only file."""
    async with Redis.from_url(b.stage.url) as redis:
        return int((await redis.info("persistence"))["aof_current_size"])


async def pool(b: Bench, size: int, port: int) -> Round:
    return await alone(b, "benchmarks.pool", str(port), str(size))


async def bare(b: Bench, port: int, count: int, octets: int = 0, *words: str) -> Round:
    """The writer that does nothing else (bare.py)."""
    return await alone(b, "benchmarks.bare", str(port), str(count), str(octets), *words)


async def alone(b: Bench, *module: str) -> Round:
    """A client that needs no engine: it prints {"seconds", "cpu", "count"}."""
    measured = orjson.loads(await said_by(b, 120, *module))
    return Round(measured["count"] / measured["seconds"], measured["cpu"] / measured["count"] * 1e6)


async def said_by(b: Bench, within: float, *module: str) -> bytes:
    """What a Python module prints that runs as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, stdout=asyncio.subprocess.PIPE, env=b.stage.environ(), start_new_session=True
    )
    try:
        async with asyncio.timeout(within):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return out


def _result(ours: list[Round], theirs: list[Round], floor: list[Round], into: str) -> Result:
    all_of_them = {"sendengine": ours, "aiosmtplib pool": theirs, "bare pipelined writer": floor}
    rows = [_row(who, rounds) for who, rounds in all_of_them.items()]
    places = [float(number) for number in range(1, len(ours) + 1)]
    series = {who: list(zip(places, [one.per_second for one in rounds], strict=True)) for who, rounds in all_of_them.items()}
    columns = ["", "messages/s", "range", "CPU us/message", "range", "of it kernel", "Redis us/message"]
    data = {"engine": msgspec.to_builtins(ours), "pool": msgspec.to_builtins(theirs), "bare": msgspec.to_builtins(floor), "sink": into}
    chart = Chart("round", "messages a second", series)
    return Result(f"{TITLE}, into {into}", columns, rows, [_times(ours, theirs, floor), *_costs(ours, floor)], chart, data)


def _times(ours: list[Round], theirs: list[Round], floor: list[Round]) -> Figure:
    ratio, most = _ratio(ours, theirs), _ratio(floor, theirs)
    got, wall = f"{ratio.median:.2f} ({_range(ratio, 2)})", f"the bare writer is {most.median:.2f} times the pool ({_range(most, 2)})"
    return Figure("messages/s against the pool, median of the rounds", ">= 3", got, ratio.median >= 3, wall)


def _ratio(ours: list[Round], theirs: list[Round]) -> Spread:
    return spread([own.per_second / other.per_second for own, other in zip(ours, theirs, strict=True)])


def _costs(ours: list[Round], floor: list[Round]) -> list[Figure]:
    cpu, redis = spread([one.cpu_us for one in ours]).median, spread([one.redis_us for one in ours]).median
    kernel, least = spread([one.kernel_us for one in ours]).median, spread([one.cpu_us for one in floor]).median
    log = spread([one.log_octets for one in ours if one.log_octets > 0] or [0.0]).median
    wall = f"the bare writer takes {least:.1f} us; of ours {kernel:.1f} us are the kernel's, and `stages` tells the rest apart"
    return [
        Figure("worker CPU a message, median", f"<= {_WORKER_US:g} us", f"{cpu:.1f} us", cpu <= _WORKER_US, wall),
        Figure("Redis CPU a message, median", f"<= {_REDIS_US:g} us", f"{redis:.1f} us", redis <= _REDIS_US),
        Figure("octets in Redis' log a message, median", f"<= {_LOG_OCTETS:g}", f"{log:.1f}", 0 < log <= _LOG_OCTETS),
    ]


def _row(name: str, rounds: list[Round]) -> list[str]:
    speed, cpu = spread([one.per_second for one in rounds]), spread([one.cpu_us for one in rounds])
    kernel, redis = (spread(values).median for values in ([one.kernel_us for one in rounds], [one.redis_us for one in rounds]))
    costs = [f"{cpu.median:.1f}", _range(cpu, 1), f"{kernel:.1f}" if kernel else "", f"{redis:.1f}" if redis else ""]
    return [name, f"{speed.median:,.0f}", _range(speed, 0), *costs]


def _range(values: Spread, digits: int) -> str:
    return f"{values.low:,.{digits}f} to {values.high:,.{digits}f}"
