"""How punctual the machine itself is: a process that does nothing but wake every 10 ms, and how late it did.

The floor of every figure about moments. `python -m benchmarks.punctual` runs until its standard input ends; it prints an empty line
when it begins, then {"p50", "p99", "most", "count"}: seconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from benchmarks.bench import ROOT

_EVERY_S = 0.01


class Lateness(msgspec.Struct):
    """What was found; nothing until `observed` has ended."""

    p50: float = 0.0
    p99: float = 0.0
    most: float = 0.0
    count: int = 0

    def __str__(self) -> str:
        times = f"p50 {1e3 * self.p50:.1f} ms, p99 {1e3 * self.p99:.1f} ms, at most {1e3 * self.most:.0f} ms"
        return f"an idle process that wakes every {1e3 * _EVERY_S:.0f} ms beside it woke late by {times}"


@asynccontextmanager
async def observed() -> AsyncIterator[Lateness]:
    """The machine's lateness while the block runs; there when it has ended."""
    found = Lateness()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.punctual", stdin=PIPE, stdout=PIPE, cwd=ROOT, start_new_session=True
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield found
        out, _ = await process.communicate(b"")
        seen = msgspec.json.decode(out, type=Lateness)
        found.p50, found.p99, found.most, found.count = seen.p50, seen.p99, seen.most, seen.count
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _watch() -> Lateness:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))
    late: list[float] = []
    print(flush=True)
    due = time.monotonic()
    while not ended.done():
        due = max(due + _EVERY_S, time.monotonic())
        await asyncio.wait((ended,), timeout=due - time.monotonic())
        late.append(max(0.0, time.monotonic() - due))
    late = late[:-1] or [0.0]  # the last one was woken by the end
    cuts = statistics.quantiles([*late, late[-1]], n=100, method="inclusive")
    return Lateness(cuts[49], cuts[98], max(late), len(late))


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(_watch())).decode())
