"""One account at 200,000 messages an hour, shared out among 1, 2 and 4 worker processes: floor, ceiling and rate error at the relay.

And one at 1,000,000 an hour on the most of them: how full is its fullest tenth of a second? There the sink in C takes the times, since one
in Python reads 278 messages a second in lumps of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from benchmarks import csink
from benchmarks.analysis import above_ceiling, floor_of, full_windows, histogram, most_in, window_errors
from benchmarks.bench import Bench, Chart, Figure, Result, bench, figure_of
from benchmarks.letter import sender
from benchmarks.punctual import Lateness, observed
from sendengine.trial.mails import by_sender, rate_error

TITLE = "exactness: one account at 200,000 an hour, and one at 1,000,000, on several processes that share it"
PER_HOUR = 200_000
R = PER_HOUR / 3600
SPAN = 10.0
FASTEST = 1_000_000
_SHORTEST_SPAN, _MOST_IN_IT = 0.1, 1.15  # seconds; times what is expected in them
_ERROR_SPAN = 5.0  # of the histogram's windows
_EVERYBODY = {"SENDENGINE_ENGINE_SPREAD_ABOVE": "1"}  # the account is offered to all of them


async def run(quick: bool) -> Result:
    seconds, counts = (13, (1, 2)) if quick else (35, (1, 2, 4))
    async with bench() as b:
        relay = b.stage.relay()
        shares = {count: await _send(b, _account(count), count, PER_HOUR, seconds, relay.port) for count in counts}
        seen = by_sender(b.seen_by(relay))
        sink = csink.start(b.stage)
        async with observed() as lateness:
            await _send(b, _account(0), counts[-1], FASTEST, seconds, sink.port)
        await asyncio.to_thread(b.stage.stop, sink.process)
        fast = sorted(at for at, _ in csink.mails(sink.ledger))
    times = {count: [mail.at for mail in seen[sender(_account(count))]] for count in counts}
    return _result(times, shares, _fullest(fast, counts[-1], lateness), fast)


def _account(processes: int) -> str:
    return f"m{1000 + processes}"


async def _send(b: Bench, account: str, processes: int, per_hour: int, seconds: float, port: int) -> list[int]:
    """How many messages each process sent."""
    size = int(per_hour / 3600 * seconds)
    worker = b.stage.worker("-p", str(processes), environ=_EVERYBODY)
    await b.workers_ready(processes)
    await b.account(account, str(per_hour), port)
    send = await b.submit(account, size)
    await b.finished(send.id, seconds * 1.5 + 30)
    senders = Counter([outcome.worker async for outcome in b.client.outcomes(send.id)])
    await asyncio.to_thread(b.stage.stop, worker)
    return sorted(senders.values(), reverse=True)


def _result(times: dict[int, list[float]], shares: dict[int, list[int]], fullest: Figure, fast: list[float]) -> Result:
    rows, data = [], dict[str, Any]()
    least, excess, errors, sharing = [], [], [], []
    for processes, own in times.items():
        windows = full_windows(own, SPAN)
        least.append(min(windows))
        excess.append(above_ceiling(own, R))
        errors.append(rate_error(own, R))
        sharing.append(len(shares[processes]) == processes)
        rows.append([str(processes), f"{len(own):,}", " ".join(map(str, windows)), f"{excess[-1]:+.1f}", f"{errors[-1] * 100:+.3f} %",
                     " ".join(map(str, shares[processes]))])  # fmt: skip
        data[str(processes)] = {"mail_times": [round(at - own[0], 6) for at in own], "shares": shares[processes]}
    wanted = floor_of(R, SPAN)
    figures = [
        figure_of("messages in every full 10 s", f">= {wanted}", least, min(least) >= wanted, 0),
        figure_of("above the ceiling in any window up to 60 s", "<= 0", excess, max(excess) <= 0, 1),
        figure_of("rate error, %", "within 1", [error * 100 for error in errors], all(abs(error) <= 0.01 for error in errors)),
        Figure("every process sent", "yes", "yes" if all(sharing) else "no", all(sharing)),
        fullest,
    ]
    data["fast"] = {"mail_times": [round(at - fast[0], 6) for at in fast]}
    series = {
        f"{processes} processes": [(second + 0.5, float(count)) for second, count in enumerate(full_windows(own, 1.0))]
        for processes, own in times.items()
    }
    series["contracted"] = [(0.0, R), (max(len(points) for points in series.values()), R)]
    columns = ["processes", "messages", "in each full 10 s", "above the ceiling", "rate error", "sent by each"]
    return Result(TITLE, columns, rows, figures, Chart("seconds", "messages in each second", series), data, [_errors(times)])


def _fullest(fast: list[float], processes: int, lateness: Lateness) -> Figure:
    """Without the first second, in which the processes begin one after the other."""
    times = [at for at in fast if at >= fast[0] + 1.0]
    found = most_in(times, _SHORTEST_SPAN) / (FASTEST / 3600 * _SHORTEST_SPAN)
    what = f"the fullest 0.1 s at 1,000,000 an hour on {processes} processes, times what is expected"
    return Figure(what, f"<= {_MOST_IN_IT}", f"{found:.2f}", found <= _MOST_IN_IT, str(lateness))


def _errors(times: dict[int, list[float]]) -> Chart:
    of = {f"{processes} processes": window_errors(own, R, _ERROR_SPAN) for processes, own in times.items()}
    columns = {name: histogram([100 * error for error in errors], 0.1, 1.0) for name, errors in of.items()}
    return Chart(f"rate error of each full {_ERROR_SPAN:.0f} s, %", "windows", columns, "histogram")
