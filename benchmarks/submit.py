"""How fast a list is accepted, in how much memory, and how small it lies in Redis: `python -m benchmarks.submit [ROWS]`.

A CSV of address and two short fields goes through the Client into an embedded server that syncs every write. Each size runs in a process of
its own, whose largest resident set is what is shown. What lies in Redis is the memory of its keys (MEMORY USAGE, every element), when
the list is loaded and after the seal: the server's own (scripts, buffers) is no recipient's.
"""

from __future__ import annotations

import asyncio
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.intake import rows
from sendengine import Client, Message
from sendengine.ports import Stored
from sendengine.queue import embedded
from sendengine.queue.desk import RedisDesk

TEXT = "Hello {{ first_name }} of {{ city }}\r\n"
SMALL, LARGE = 10_000, 2_000_000


class MeasuringDesk(RedisDesk):
    """Reads the server's memory when the list is loaded, before the seal frees the fingerprints."""

    loaded = sealed = 0
    measuring = 0.0  # seconds that the reading took

    async def seal(self, account: str, campaign: str, batches: int) -> Stored:
        self.loaded = await self.memory()
        stored = await super().seal(account, campaign, batches)
        self.sealed = await self.memory()
        return stored

    async def memory(self) -> int:
        started = time.perf_counter()
        try:
            return await self._octets()
        finally:
            self.measuring += time.perf_counter() - started

    async def _octets(self) -> int:
        names = await self._link.call("KEYS", "*")
        return sum([await self._link.call("MEMORY", "USAGE", name, "SAMPLES", 0) or 0 for name in names])


async def measure(path: Path, url: str) -> dict[str, float]:
    desk = MeasuringDesk(url)
    async with Client(desk=desk) as client:
        await client.create_account("m1", "60k")
        before = await desk.memory()
        message = Message(sender="News <news@shop.example>", subject="Hi {{ first_name }}", text=TEXT)
        started = time.perf_counter()
        send = await client.submit(account="m1", message=message, recipients=path)
        seconds = time.perf_counter() - started - desk.measuring
    await desk.close()
    n = send.accepted
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    octets = {"loading": (desk.loaded - before) / n, "sealed": (desk.sealed - before) / n}
    return {"rows": send.rows, "rate": send.rows / seconds, "rss": peak, **octets}


def lines(count: int) -> Iterator[str]:
    yield "email,first_name,city\n"
    for at, (email, name, city) in enumerate(rows(count)):
        yield f"{at}.{email},{name},{city}\n"


def run(count: int) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="se-"))
    try:
        path = folder / "list.csv"
        with path.open("w") as stream:
            stream.writelines(lines(count))
        url = embedded.ensure(folder, ephemeral=True)
        command = [sys.executable, "-m", "benchmarks.submit", "--child", str(path), url]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder)


def main(count: int) -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}; python -m benchmarks.submit {count}")
    for size in (SMALL, count, LARGE):
        found = run(size)
        print(
            f"{size:9,} rows: {found['rate']:9,.0f} rows/s; Redis octets a recipient: {found['loading']:.1f} loading, "
            f"{found['sealed']:.1f} sealed; client RSS {found['rss']:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asyncio.run(measure(Path(sys.argv[2]), sys.argv[3]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
