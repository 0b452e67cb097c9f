"""Twice the addresses, twice the time: T against N, at two rates. All accounts send at once, for they do not disturb each other."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from benchmarks.analysis import slope
from benchmarks.bench import Bench, Chart, Figure, Result, bench, figure_of
from benchmarks.letter import sender
from sendengine.trial.mails import by_sender, duration

TITLE = "linearity: T from the first MAIL to the last, by N"


async def run(quick: bool) -> Result:
    sizes, rates, copies = ((250, 500), (200_000,), 1) if quick else ((500, 1000, 2000), (60_000, 200_000), 3)
    plan = [(rate, size, copy) for rate in rates for size in sizes for copy in range(copies)]
    async with bench() as b:
        relay = b.stage.relay()
        b.stage.worker()
        await b.workers_ready()
        names = {key: f"m{1001 + place}" for place, key in enumerate(plan)}
        late = dict(
            zip(plan, await asyncio.gather(*(_send(b, names[key], key[0], key[1], relay.port) for key in plan)), strict=True)
        )
        seen = by_sender(b.seen_by(relay))
    took = {key: duration([mail.at for mail in seen[sender(names[key])]]) for key in plan}
    return _result(sizes, rates, copies, took, late)


async def _send(b: Bench, account: str, rate: int, size: int, port: int) -> float:
    """How much later than estimated at submit the send was through, in seconds."""
    await b.account(account, str(rate), port)
    send = await b.submit(account, size)
    final = await b.finished(send.id, size * 3600 / rate * 1.5 + 30)
    assert send.finish_estimate is not None
    assert final.through_at is not None
    return (final.through_at - send.finish_estimate).total_seconds()


Key = tuple[int, int, int]  # rate per hour, N, copy


def _result(
    sizes: tuple[int, ...], rates: tuple[int, ...], copies: int, took: dict[Key, float], late: dict[Key, float]
) -> Result:
    rows, ratios, slopes, wrong = [], [], [], []
    for rate in rates:
        for size in sizes:
            times = sorted(took[rate, size, copy] for copy in range(copies))
            lateness = sorted((late[rate, size, copy] for copy in range(copies)), key=abs)
            promised = size * 3600 / rate
            rows.append([f"{rate:,}", f"{size:,}", f"{promised:.2f}", f"{times[copies // 2]:.2f}", f"{times[0]:.2f} to {times[-1]:.2f}",
                         f"{lateness[-1]:+.2f}"])  # fmt: skip
            wrong += [abs(one) / max(1.0, 0.02 * promised if promised > 60 else 1.0) for one in lateness]
        for copy in range(copies):
            ratios += [took[rate, large, copy] / took[rate, small, copy] for small, large in pairwise(sizes)]
            slopes.append(slope([(size, took[rate, size, copy]) for size in sizes]) * rate / 3600)
    figures = [
        figure_of("T(2N)/T(N)", "1.99 to 2.01", ratios, all(abs(ratio - 2) <= 0.01 for ratio in ratios)),
        figure_of("slope of T over N, times r", "1 within 1 %", slopes, all(abs(one - 1) <= 0.01 for one in slopes), 4),
        Figure("finish time against the estimate at submit", "1 s, or 2 % of sends longer than a minute",
               f"{max(wrong):.2f} of what is allowed", max(wrong) <= 1),
    ]  # fmt: skip
    series = {f"{rate:,} an hour": [(float(size), took[rate, size, copy]) for size in sizes for copy in range(copies)] for rate in rates}
    lines = {f"N/r at {rate:,}": [(0.0, 0.0), (sizes[-1], sizes[-1] * 3600 / rate)] for rate in rates}
    columns = ["messages an hour", "N", "N/r, s", "T, s (median)", "range", "late against estimate, s"]
    chart = Chart("N", "T, seconds", {**series, **lines}, "o-")
    data = {"took": {" ".join(map(str, key)): value for key, value in took.items()},
            "late": {" ".join(map(str, key)): value for key, value in late.items()}}  # fmt: skip
    return Result(TITLE, columns, rows, figures, chart, data)
