"""A worker's memory does not follow the length of the list: its peak while 10,000 and while 1,000,000 recipients are queued."""

from __future__ import annotations

import asyncio

from benchmarks.analysis import spread
from benchmarks.bench import Bench, Chart, Figure, Result, bench, children, figure_of, peak_mb

TITLE = "worker_memory: peak resident memory of one worker process, 1,000,000 an hour"
_WATCH_S = 8.0


async def run(quick: bool) -> Result:
    sizes, rounds = ((5_000, 50_000), 1) if quick else ((10_000, 1_000_000), 3)
    peaks: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            async with bench() as b:
                peaks[size].append(await _peak(b, size))
    return _result(peaks)


async def _peak(b: Bench, size: int) -> float:
    """Of a fresh worker that starts when all is queued, after it has sent for a while. The rest is left unsent."""
    relay = b.stage.relay()
    await b.account("m1001", "1m", relay.port)
    send = await b.submit("m1001", size)
    worker = b.stage.worker()
    await b.workers_ready()
    async with asyncio.timeout(20):
        while True:
            if (await b.client.status(send.id)).sent:
                break
            await asyncio.sleep(0.2)
    await asyncio.sleep(_WATCH_S)
    [pid] = children(worker)
    return peak_mb(pid)


def _result(peaks: dict[int, list[float]]) -> Result:
    rows = []
    for size, found in peaks.items():
        own = spread(found)
        rows.append([f"{size:,}", f"{own.median:.1f}", f"{own.low:.1f} to {own.high:.1f}"])
    short, long = (spread(found).median for found in peaks.values())
    every = [peak for found in peaks.values() for peak in found]
    figures = [
        figure_of("peak, MB", "<= 120", every, max(every) <= 120, 1),
        Figure("the long list against the short one", "same within 5 %", f"{long / short:.3f}", abs(long / short - 1) <= 0.05),
    ]
    series = {f"{size:,} queued": [(float(number + 1), peak) for number, peak in enumerate(found)] for size, found in peaks.items()}
    chart = Chart("round", "peak resident memory, MB", series)
    return Result(TITLE, ["queued", "peak, MB (median)", "range"], rows, figures, chart, {"peaks": {str(k): v for k, v in peaks.items()}})
