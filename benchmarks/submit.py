"""How fast a list is accepted, in how much memory, and how small it lies in Redis.

A CSV of address and two short fields goes through the Client into an embedded server that syncs every write. Each client is a process
of its own, whose largest resident set is what is shown; two at once load a list each into the one server. Beside it what the same file
takes to be read, checked, hashed and packed, and nothing else. What lies in Redis is the memory of its keys (MEMORY USAGE, every
element), when the list is loaded and after the seal: the server's own (scripts, buffers) is no recipient's.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.analysis import Spread, spread
from benchmarks.bench import Bench, Chart, Figure, Result, bench
from benchmarks.intake import rows
from benchmarks.throughput import said_by
from sendengine import Client, Message
from sendengine.intake import Intake
from sendengine.ports import Stored
from sendengine.queue.desk import RedisDesk
from sendengine.scheduler.sources import batches

TITLE = "submit: rows a second from CSV, octets in Redis a recipient, resident memory"
_MILLION = 1_000_000
_SHORT = 10_000
_AT_LEAST = 400_000
_LOADING_MOST, _SEALED_MOST = 50.0, 32.0
_FLAT = 1.25  # times as much memory for a hundred times as many rows
_TEXT = "Hello {{ first_name }} of {{ city }}\r\n"
_COUNTED = "count"  # with these words a client reads the memory, which takes longer than submitting


class Trial(msgspec.Struct, frozen=True):
    name: str
    clients: int
    count: int  # of each


class Load(msgspec.Struct, frozen=True):
    """What one client says of itself; times by the clock that all processes share."""

    began: float
    ended: float
    peak_mb: float
    loading: float = 0.0  # octets a recipient
    sealed: float = 0.0


class MeasuringDesk(RedisDesk):
    """Reads the server's memory when the list is loaded, before the seal frees the fingerprints."""

    loaded = sealed = 0

    async def seal(self, account: str, campaign: str, batches: int, digests: bytes = b"") -> Stored:
        self.loaded = await self.memory()
        stored = await super().seal(account, campaign, batches, digests)
        self.sealed = await self.memory()
        return stored

    async def memory(self) -> int:
        names = await self._link.call("KEYS", "*")
        return sum([await self._link.call("MEMORY", "USAGE", name, "SAMPLES", 0) or 0 for name in names])


async def run(quick: bool) -> Result:
    part, rounds = (20, 1) if quick else (1, 3)
    alone, two = Trial("one process", 1, _MILLION // part), Trial("two processes", 2, _MILLION // part)
    found: dict[str, list[float]] = {trial.name: [] for trial in (alone, two)}
    bare: list[float] = []
    async with bench() as b:
        for number in range(rounds):
            for trial in (alone, two):
                files = [_file(b.stage.folder / f"{place}.csv", trial.count) for place in range(trial.clients)]
                found[trial.name].append(_speed(trial, await _load(b, files, f"{number}-{trial.clients}")))
            bare.append(alone.count / await _bare_seconds(files[0]))
        [short] = await _load(b, [_file(b.stage.folder / "short.csv", _SHORT)], "short", _COUNTED)
        [long] = await _load(b, files[:1], "long", _COUNTED)
    return _result(found, bare, short, long, alone.count)


def _file(path: Path, count: int) -> Path:
    if not path.exists():
        with path.open("w", encoding="utf-8") as stream:
            stream.write("email,first_name,city\n")
            stream.writelines(f"{at}.{email},{name},{city}\n" for at, (email, name, city) in enumerate(rows(count)))
    return path


async def _load(b: Bench, files: list[Path], campaign: str, *words: str) -> list[Load]:
    """Each by a client of its own, at once."""
    for place in range(len(files)):
        await b.client.create_account(f"m{1 + place}", "60k")
    commands = [(str(path), b.stage.url, f"m{1 + place}", campaign, *words) for place, path in enumerate(files)]
    return await asyncio.gather(*(_client(b, command) for command in commands))


async def _client(b: Bench, words: tuple[str, ...]) -> Load:
    return msgspec.json.decode(await said_by(b, 300, "benchmarks.submit", *words), type=Load)


def _speed(trial: Trial, loads: list[Load]) -> float:
    """Rows a second of all together, from the first one's beginning to the last one's end."""
    return trial.clients * trial.count / (max(one.ended for one in loads) - min(one.began for one in loads))


async def _bare_seconds(path: Path) -> float:
    intake = Intake(("first_name", "city"), frozenset({"first_name", "city"}), salt=b"benchmark")
    began = time.perf_counter()
    async for _ in batches(path, intake):
        pass
    return time.perf_counter() - began


def _result(found: dict[str, list[float]], bare: list[float], short: Load, long: Load, count: int) -> Result:
    speeds = {name: spread(values) for name, values in found.items()} | {"read, checked, hashed, packed; one process": spread(bare)}
    best = max(speeds[name].median for name in found)
    flat = long.peak_mb / short.peak_mb
    wall = f"one process that reads, checks, hashes and packs, and stores nothing: {spread(bare).median:,.0f}; Redis' part: docs/design/020"
    figures = [
        Figure("rows/s from CSV, the better of one process and two", f">= {_AT_LEAST:,}", f"{best:,.0f}", best >= _AT_LEAST, wall),
        _octets("loading", long.loading, _LOADING_MOST),
        _octets("sealed", long.sealed, _SEALED_MOST),
        Figure(f"client's memory, {count:,} rows against 10,000", f"<= {_FLAT:g}", f"{flat:.2f}", flat <= _FLAT),
    ]
    table = [[name, f"{values.median:,.0f}", _range(values), ""] for name, values in speeds.items()]
    for name, load in (("10,000 rows, its memory read", short), (f"{count:,} rows, its memory read", long)):
        table.append([name, "", "", f"{load.loading:.1f} loading, {load.sealed:.1f} sealed; client {load.peak_mb:.0f} MB"])
    columns = ["", "rows/s", "range", "octets a recipient"]
    chart = Chart("rows a second, median", "", {name: [(0.0, values.median)] for name, values in speeds.items()}, "bars")
    data = {"rows_per_second": found, "bare": bare, "short": msgspec.to_builtins(short), "long": msgspec.to_builtins(long)}
    return Result(TITLE, columns, table, figures, chart, data)


def _octets(when: str, got: float, most: float) -> Figure:
    return Figure(f"octets in Redis a recipient, {when}", f"<= {most:g}", f"{got:.1f}", got <= most)


def _range(values: Spread) -> str:
    return f"{values.low:,.0f} to {values.high:,.0f}"


# in the client's process


async def load(path: Path, url: str, account: str, campaign: str, is_counted: bool) -> Load:
    desk = MeasuringDesk(url) if is_counted else RedisDesk(url)
    before = await desk.memory() if isinstance(desk, MeasuringDesk) else 0
    async with Client(desk=desk) as client:
        message = Message(sender="News <news@shop.example>", subject="Hi {{ first_name }}", text=_TEXT)
        began = time.monotonic()
        send = await client.submit(account=account, message=message, recipients=path, campaign=campaign)
        ended = time.monotonic()
    await desk.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not isinstance(desk, MeasuringDesk):
        return Load(began, ended, peak)
    return Load(began, ended, peak, (desk.loaded - before) / send.accepted, (desk.sealed - before) / send.accepted)


if __name__ == "__main__":
    list_, url_, account_, campaign_, *rest = sys.argv[1:]
    found_ = asyncio.run(load(Path(list_), url_, account_, campaign_, rest == [_COUNTED]))
    print(msgspec.json.encode(found_).decode())
