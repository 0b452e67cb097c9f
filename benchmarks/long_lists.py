"""Nothing follows the length of a list: visits, takes, stopping and a worker's memory with ten thousand, a million and ten million queued.

All lists lie in one server. Visits and takes are timed from outside, through the scripts that workers call, the lists in turns; each list
is then sent for some seconds and stopped.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable

import msgspec

from benchmarks import csink
from benchmarks.bench import Bench, Chart, Result, bench, children, figure_of, message, peak_mb, write_list
from sendengine.engine.takeover import give_back
from sendengine.queue.desk import RedisDesk
from sendengine.queue.redis import RedisQueue

TITLE = "long_lists: what a visit, a take, a stop and a worker cost, however many are queued"
SENDS_S = 5.0
_TIER = "1m"
_ROWS = 200  # to be taken at once


class Found(msgspec.Struct, frozen=True):
    queued: int
    rows_per_second: float
    octets: float  # in Redis, a recipient
    visit_p99: float  # ms
    take_p99: float  # ms
    verb: float  # ms until `pause` has answered
    stop: float  # ms from that answer to the last MAIL; negative when the last was before
    rss: float  # MB, of a worker that sends from this list


async def run(quick: bool) -> Result:
    sizes, calls = ((5_000, 20_000, 100_000), 200) if quick else ((10_000, 1_000_000, 10_000_000), 1000)
    async with bench() as b:
        sink = csink.start(b.stage)
        loads = [await _load(b, _account(place), size, sink.port) for place, size in enumerate(sizes)]
        scripts = await _scripts(b, [_account(place) for place in range(len(sizes))], calls)
        stops = [await _stop(b, _account(place)) for place in range(len(sizes))]
        await asyncio.to_thread(b.stage.stop, sink.process)
        last: dict[int, float] = {}
        for at, account in csink.mails(sink.ledger):
            last[account] = at
    found = []
    for place, size in enumerate(sizes):
        verb, answered, rss = stops[place]
        stopped = (last[int(_account(place)[1:])] - answered) * 1e3
        found.append(Found(size, *loads[place], *scripts[place], verb * 1e3, stopped, rss))
    return _result(found)


def _account(place: int) -> str:
    return f"m{1001 + place}"


async def _load(b: Bench, account: str, size: int, port: int) -> tuple[float, float]:
    """Rows a second, and octets a recipient."""
    await b.account(account, _TIER, port)
    path = b.stage.folder / "list.csv"
    await asyncio.to_thread(write_list, path, account, size)
    before, began = await _memory(b), time.perf_counter()
    await b.client.submit(account=account, message=message(account), recipients=path, campaign="bench")
    seconds = time.perf_counter() - began
    await b.client.pause(f"{account}:bench")
    return size / seconds, (await _memory(b) - before) / size


async def _memory(b: Bench) -> int:
    desk = b.client.desk
    assert isinstance(desk, RedisDesk)
    names = await desk._link.call("KEYS", "*")
    return sum([await desk._link.call("MEMORY", "USAGE", name, "SAMPLES", 0) or 0 for name in names])


async def _scripts(b: Bench, accounts: list[str], calls: int) -> list[tuple[float, float]]:
    """The 99th percentiles of a visit and of a take, in ms; the accounts in turns."""
    queue = RedisQueue(b.stage.url, 200_000.0)
    visits: list[list[float]] = [[] for _ in accounts]
    takes: list[list[float]] = [[] for _ in accounts]
    for account in accounts:
        await b.client.resume(f"{account}:bench")
    for _ in range(calls):
        for place, account in enumerate(accounts):
            visits[place].append(await _timed(lambda account=account: queue.visit(account, 0, 0.0, "=", [], [])))  # type: ignore[misc]
            tokens = [os.urandom(8) for _ in range(4)]
            takes[place].append(await _timed(lambda account=account, tokens=tokens: queue.take(account, "bench", _ROWS, tokens, [], [])))  # type: ignore[misc]
            await queue.visit(account, 0, 0.0, "=", [], [give_back(token) for token in tokens])
    await queue.close()
    for account in accounts:
        await b.client.pause(f"{account}:bench")
    return [(_p99(visits[place]), _p99(takes[place])) for place in range(len(accounts))]


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1e3


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def _stop(b: Bench, account: str) -> tuple[float, float, float]:
    """Seconds that `pause` took, the wall time of its answer, and the worker's memory."""
    await b.client.resume(f"{account}:bench")
    worker = b.stage.worker()
    await b.workers_ready()
    async with asyncio.timeout(20):
        async for status in b.client.watch(f"{account}:bench", every=0.1):
            if status.sent:
                break
    await asyncio.sleep(SENDS_S)
    began = time.perf_counter()
    await b.client.pause(f"{account}:bench")
    took, answered = time.perf_counter() - began, time.time()
    await asyncio.sleep(1.5)
    memory = sum(map(peak_mb, children(worker)))
    await asyncio.to_thread(b.stage.stop, worker)
    return took, answered, memory


def _result(found: list[Found]) -> Result:
    short, *longer = found
    table = [
        [f"{one.queued:,}", f"{one.rows_per_second:,.0f}", f"{one.octets:.1f}", f"{one.visit_p99:.2f}", f"{one.take_p99:.2f}",
         f"{one.verb:.1f}", f"{one.stop:+.1f}", f"{one.rss:.1f}"]
        for one in found
    ]  # fmt: skip
    visits = [one.visit_p99 / short.visit_p99 for one in longer]
    takes = [one.take_p99 / short.take_p99 for one in longer]
    stops = [(one.verb + one.stop) / 1e3 for one in found]
    memory = [one.rss / short.rss for one in longer]
    octets = [one.octets for one in longer]
    figures = [
        figure_of("visit p99 against the shortest list", "<= 1.5", visits, max(visits) <= 1.5, 2),
        figure_of("take p99 against the shortest list", "<= 1.5", takes, max(takes) <= 1.5, 2),
        figure_of("pause asked to last MAIL, s", "<= 1", stops, max(stops) <= 1.0),
        figure_of("worker memory against the shortest list", "<= 1.5", memory, max(memory) <= 1.5, 2),
        figure_of("Redis octets a queued recipient after the seal", "<= 32", octets, max(octets) <= 32, 1),
    ]
    series = {
        "visit p99, ms": [(float(one.queued), one.visit_p99) for one in found],
        "take p99, ms": [(float(one.queued), one.take_p99) for one in found],
    }
    columns = ["queued", "rows/s", "octets", "visit p99 ms", "take p99 ms", "pause ms", "to last MAIL ms", "worker MB"]
    return Result(TITLE, columns, table, figures, Chart("queued", "ms", series), {"found": msgspec.to_builtins(found)})
