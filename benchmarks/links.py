"""What a call costs on each form of Redis: `python -m benchmarks.links [ROUNDS]`.

One server, one server whose writes wait for a replica, and a Cluster of three masters, all on loopback ports. A round is a hundred calls in
one turn of the loop, as a worker makes them; then one call alone. CPU is this process's; the median of the rounds and their quartiles.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import sys
import time

from sendengine.queue.cluster import open_link
from tests import forms

CALLS = 100


async def measure(name: str, url: str, wait_ms: int, rounds: int) -> None:
    link = open_link(url, wait_ms=wait_ms)
    cpu, alone = [], []
    await link.connect()
    for at in range(rounds + 20):
        begun = time.process_time()
        await asyncio.gather(*(link.commit("HSET", f"{{m{n}}}", "f", at) for n in range(CALLS)))
        spent = (time.process_time() - begun) / CALLS * 1e6
        asked = time.perf_counter()
        await link.commit("HSET", "{m1}", "f", at)
        if at >= 20:
            cpu.append(spent)
            alone.append((time.perf_counter() - asked) * 1e6)
    print(f"{name:<22}{spread(cpu)} µs of CPU a call   {spread(alone)} µs until one alone is answered")
    await link.close()


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:7.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(platform.processor() or platform.machine(), platform.python_version())
    with forms.replicated() as (master, _), forms.cluster() as cluster:
        asyncio.run(measure("one server", master.url, 0, rounds))
        asyncio.run(measure("waiting for a replica", master.url, 500, rounds))
        asyncio.run(measure("a cluster", cluster.url, 0, rounds))


if __name__ == "__main__":
    main()
