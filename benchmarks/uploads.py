"""How fast the HTTP API takes recipients, in how much memory, and whether others wait meanwhile.

A process of the API and an embedded server that syncs every write. Lists of NDJSON lie in files and go out by sendfile, so that the sender
costs next to nothing; beside each upload another key asks for its account, twenty times a second.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bench import Figure, Result, figure_of, peak_mb
from benchmarks.intake import rows
from benchmarks.plots import Chart
from sendengine.client import Client
from sendengine.queue import embedded

TITLE = "uploads: recipients by HTTP, as NDJSON"
WANTED, GROWTH, ASK_S = 100_000, 1.1, 0.05
_BLOCK = 1000
_ROOT = Path(__file__).parent.parent


class Found(msgspec.Struct, frozen=True):
    rows: int
    per_second: float
    rss: float  # MB, the peak of the API's process so far
    asked_ms: tuple[float, float]  # median and 99th of a hundred, of another key's request meanwhile


async def run(quick: bool) -> Result:
    sizes = (10_000, 100_000) if quick else (100_000, 1_000_000, 5_000_000)
    folder = Path(tempfile.mkdtemp(prefix="se-"))
    try:
        url = await asyncio.to_thread(embedded.ensure, folder, ephemeral=True)
        keys = await _keys(url)
        with _api(url) as (port, pid):
            found = [await asyncio.to_thread(_measure, folder, size, port, pid, keys) for size in sizes]
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder)
    return _result(found)


async def _keys(url: str) -> tuple[str, str]:
    async with Client(url) as client:
        await client.create_account("m1", "60k")
        made = [await client.create_key("m1", scopes=["read", "send"], seat=seat) for seat in ("loads", "asks")]
    return made[0].key, made[1].key


@contextmanager
def _api(url: str) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "workers.api", "--port", "0"]
    environ = os.environ | {"SENDENGINE_REDIS_URL": url, "SENDENGINE_LOG_FORMAT": "json"}
    with subprocess.Popen(command, cwd=_ROOT, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = next(int(found[1]) for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield port, process.pid
        finally:
            process.terminate()


def _measure(folder: Path, size: int, port: int, pid: int, keys: tuple[str, str]) -> Found:
    path = folder / "list.ndjson"
    _write(path, size)
    letter = {"from": "shop@news.example", "subject": "Hi {{ first_name }}", "text": "Hello {{ first_name }} of {{ city }}"}
    _ask(port, keys[0], "POST", "/v1/sends", letter | {"campaign": f"n{size}"})
    times: list[float] = []
    ended = threading.Event()
    asker = threading.Thread(target=_ask_on, args=(port, keys[1], ended, times))
    asker.start()
    started = time.perf_counter()
    answer = _upload(port, keys[0], f"/v1/sends/n{size}/recipients", path)
    seconds = time.perf_counter() - started
    ended.set()
    asker.join()
    assert (answer["rows"], answer["rejected"]) == (size, 0), answer
    sealed = _ask(port, keys[0], "POST", f"/v1/sends/n{size}/seal", {"rows": size})
    assert sealed["accepted"] == size, sealed
    times.sort()
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return Found(size, size / seconds, peak_mb(pid), (statistics.median(times) * 1e3, p99 * 1e3))


def _write(path: Path, size: int) -> None:
    """Nobody twice: each block of a thousand has its own number before the address."""
    lines = [json.dumps({"email": f"\0{email}", "first_name": name, "city": city}) + "\n" for email, name, city in rows(_BLOCK)]
    heads = [line.split("\\u0000") for line in lines]
    with path.open("w") as stream:
        for block in range(size // _BLOCK):
            stream.writelines(f"{before}{block}.{after}" for before, after in heads)


def _upload(port: int, key: str, target: str, path: Path) -> Any:
    with socket.create_connection(("127.0.0.1", port)) as own, path.open("rb") as stream:
        head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/x-ndjson\r\n"
        own.sendall(f"{head}Content-Length: {path.stat().st_size}\r\n\r\n".encode())
        own.sendfile(stream)
        response = http.client.HTTPResponse(own)
        response.begin()
        return json.loads(response.read())


def _ask(port: int, key: str, method: str, target: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    octets = None if body is None else json.dumps(body)
    connection.request(method, target, octets, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def _ask_on(port: int, key: str, ended: threading.Event, times: list[float]) -> None:
    while not ended.wait(ASK_S) or not times:
        started = time.perf_counter()
        _ask(port, key, "GET", "/v1/accounts/m1")
        times.append(time.perf_counter() - started)


def _result(found: list[Found]) -> Result:
    cells = [
        [f"{each.rows:,}", f"{each.per_second:,.0f}", f"{each.rss:.0f}", *(f"{ms:.1f}" for ms in each.asked_ms)] for each in found
    ]
    growth = found[-1].rss / found[0].rss
    slowest = min(each.per_second for each in found)
    figures = [
        Figure("recipients a second, the slowest list", f"≥ {WANTED:,}", f"{slowest:,.0f}", slowest >= WANTED),
        figure_of("peak memory, the longest list over the shortest", f"≤ {GROWTH}", [growth], growth <= GROWTH),
    ]
    chart = Chart("recipients", "recipients a second", {"upload": [(float(each.rows), each.per_second) for each in found]})
    columns = ["recipients", "a second", "peak RSS MB", "another's request, median ms", "p99 ms"]
    return Result(TITLE, columns, cells, figures, chart, {"found": msgspec.to_builtins(found)})
