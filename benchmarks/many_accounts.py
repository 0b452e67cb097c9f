"""Many accounts at once: is each of them exact, and what does a message cost when no two in a row are of one account?

Every account has one send that lasts longer than what is looked at; the workers start when all are queued. A minute in the middle counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from benchmarks import csink
from benchmarks.analysis import above_ceiling, longest_gap, most_in
from benchmarks.bench import Bench, Chart, Figure, Result, bench, children, cpu_seconds, peak_mb, server_pid
from benchmarks.punctual import observed
from benchmarks.throughput import bare
from sendengine.trial.mails import rate_error

TITLE = "many_accounts: every account's own rate, and what a message costs"
BOUND_S = 1200.0
ATTACHED_S, SETTLED_S = 60.0, 10.0  # from the start until all have a worker, at most, and then until the first permits are used
_AT_ONCE = 32
_FIRST = 1001
_CALLS = ("cmdstat_evalsha", "cmdstat_fcall")
_PROFILE = "; where it goes: docs/design/023"
_REDIS_PROFILE = "; what one costs: docs/design/025"
MIXED = (5_000, 15_000, 30_000, 60_000, 100_000, 200_000)


class Trial(msgspec.Struct, frozen=True):
    """`rates`: messages an hour of each account; 0 is unmetered."""

    name: str
    rates: tuple[int, ...]
    workers: int
    window: float


class Found(msgspec.Struct, frozen=True):
    trial: str
    rates: tuple[int, ...]  # those that occur
    accounts: int
    workers: int
    per_second: float
    worker_us: float  # CPU a message, of all workers
    redis_us: float
    rss_kb: float  # peak memory of the workers together, per account
    calls: float  # of scripts and functions, a message
    commands: float  # all that Redis ran, those within scripts too
    errors: tuple[float, ...] = ()  # rate error of each account
    excess: float = 0.0  # the most that any account had in one second, above its rate
    above: float = 0.0  # the ceiling, of any account in any window
    silent: int = 0  # accounts with a gap, the window's edges included, longer than three intervals and a second
    lateness: str = ""  # the machine's own


def trials(quick: bool) -> list[Trial]:
    n, mixed, window, workers = (300, 60, 10.0, (1, 2)) if quick else (10_000, 1_000, 60.0, (1, 2, 4))
    even = [Trial(f"{n:,} at 5,000/h", (5_000,) * n, count, window) for count in workers]
    rates = tuple(MIXED[place % len(MIXED)] for place in range(mixed))
    unmetered = Trial("unmetered", (0,), 1, window / 6)
    return [unmetered, *even, *(Trial(f"{mixed:,} of mixed tiers", rates, count, window) for count in workers)]


async def run(quick: bool) -> Result:
    return _result([await _measure(trial) for trial in trials(quick)], await _floor(quick), quick)


async def _floor(quick: bool) -> float:
    """CPU us a message of a bare writer into the same sink."""
    async with bench() as b:
        return (await bare(b, csink.start(b.stage).port, 5_000 if quick else 100_000)).cpu_us


async def _measure(trial: Trial) -> Found:
    async with bench() as b:
        sink = csink.start(b.stage)
        await _load(b, trial, sink.port)
        worker = b.stage.worker("-p", str(trial.workers))
        await b.workers_ready(trial.workers)
        await attached(b, len(trial.rates))
        await asyncio.sleep(SETTLED_S if trial.rates[0] else 1.0)
        pids, server = children(worker), server_pid(b.stage)
        before = await _commands(b)
        since, own, redis = time.time(), cpu_seconds(*pids), cpu_seconds(server)
        async with observed() as lateness:
            await asyncio.sleep(trial.window)
        until, own, redis = time.time(), cpu_seconds(*pids) - own, cpu_seconds(server) - redis
        ran = {name: count - before.get(name, 0) for name, count in (await _commands(b)).items()}
        memory = sum(map(peak_mb, pids))
        await asyncio.to_thread(b.stage.stop, worker)
        await asyncio.to_thread(b.stage.stop, sink.process)
        times = by_account(sink.ledger, since, until)
    n = sum(map(len, times.values()))
    costs = {
        "per_second": n / (until - since), "worker_us": own / n * 1e6, "redis_us": redis / n * 1e6,
        "rss_kb": memory * 1024 / len(trial.rates),
        "calls": sum(ran.get(name, 0) for name in _CALLS) / n, "commands": sum(ran.values()) / n,
    }  # fmt: skip
    found = _found(trial, times, costs, since, until)
    return msgspec.structs.replace(found, lateness=str(lateness))


async def attached(b: Bench, count: int) -> None:
    """Workers have attached to so many accounts (one that two have counts twice); or a minute is over, and the figures tell."""
    end = time.monotonic() + ATTACHED_S
    while time.monotonic() < end:
        if sum(said["accounts"] for said in (await b.client.workers()).values() if said) >= count:
            return
        await asyncio.sleep(0.5)


async def _commands(b: Bench) -> dict[str, int]:
    """How often the server has run each command."""
    async with Redis.from_url(b.stage.url) as redis:
        return {name: stats["calls"] for name, stats in (await redis.info("commandstats")).items()}


async def _load(b: Bench, trial: Trial, port: int) -> None:
    """So many messages each that none ends while it is looked at."""
    lasts = ATTACHED_S + SETTLED_S + trial.window + 5.0
    waiting = iter(enumerate(trial.rates, _FIRST))

    async def some() -> None:
        for number, rate in waiting:
            await b.account(f"m{number}", str(rate) if rate else "unmetered", port)
            await b.submit(f"m{number}", int(rate / 3600 * lasts) if rate else int(60_000 * (trial.window + 5.0)))

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


def by_account(ledger: Path, since: float = 0.0, until: float = float("inf")) -> dict[int, list[float]]:
    """The times of each account's MAILs between these moments."""
    times: dict[int, list[float]] = {}
    for at, account in csink.mails(ledger):
        if since <= at <= until:
            times.setdefault(account, []).append(at)
    return times


def _found(trial: Trial, times: dict[int, list[float]], costs: dict[str, float], since: float, until: float) -> Found:
    rates = tuple(sorted(set(trial.rates)))
    facts = {"trial": trial.name, "rates": rates, "accounts": len(trial.rates), "workers": trial.workers}
    if not trial.rates[0]:
        return msgspec.convert(facts | costs, Found)
    errors, excess, above, silent = [], float("-inf"), float("-inf"), 0
    for number, rate in enumerate(trial.rates, _FIRST):
        own = times.get(number, [])
        silent += longest_gap(own, since, until) > 3 * 3600 / rate + 1.0
        if len(own) < 2:
            continue
        errors.append(rate_error(own, rate / 3600))
        excess = max(excess, most_in(own, 1.0) - rate / 3600)
        above = max(above, above_ceiling(own, rate / 3600))
    return Found(**facts, **costs, errors=tuple(errors), excess=excess, above=above, silent=silent)  # type: ignore[arg-type]


def _result(found: Sequence[Found], bare_us: float, quick: bool) -> Result:
    unmetered, *metered = found
    rows = [_row(one) for one in found]
    figures = [_exact(one) for one in metered]
    figures += [_least_burst(one) if len(one.rates) == 1 else _ceiling(one) for one in metered]
    first = metered[0]
    ratio = first.worker_us / unmetered.worker_us
    wall = f"a bare writer into the same sink takes {bare_us:.1f} us, one unmetered account {unmetered.worker_us:.1f} us{_PROFILE}"
    redis_wall = (
        f"one unmetered account {unmetered.redis_us:.1f} us; counts are to be no older than 5 s, and so there are "
        f"{first.calls:.3f} calls a message{_REDIS_PROFILE}"
    )
    figures += [] if quick else [  # some hundred accounts leave most of each tick empty
        Figure("worker CPU a message, one worker", "<= 26 us", f"{first.worker_us:.1f} us", first.worker_us <= 26, wall),
        Figure("… against unmetered", "<= 1.4", f"{ratio:.2f}", ratio <= 1.4, wall),
        Figure("Redis CPU a message, one worker", "<= 6.5 us", f"{first.redis_us:.1f} us", first.redis_us <= 6.5, redis_wall),
    ]
    series = {f"{one.trial}, {one.workers}": _ranked(one.errors) for one in metered}
    columns = ["", "workers", "messages/s", "CPU us", "Redis us", "calls", "commands", "KB", "rate errors", "1 s", "silent"]
    costs = {f"{one.trial}, {one.workers}: {name}": [(0.0, value)] for one in found for name, value in _costs(one)}
    plots = [Chart("us of CPU a message, by the number of workers", "", costs, "bars")]
    data = {"found": msgspec.to_builtins(found), "bare_us": bare_us}
    notes = [
        "*CPU*, of all workers, and *Redis*: a message. *calls*: scripts and functions a message; *commands*: with all that they run.",
        "*KB*: the workers' peak memory over the accounts. *1 s*: the most of any account in a second, above its rate.",
        *(["What a message costs is promised of the full form: of few accounts most of each tick is empty."] if quick else []),
        "*silent*: accounts with a gap longer than three intervals and a second, the window's edges included.",
    ]
    return Result(TITLE, columns, rows, figures, Chart("accounts, by rate error", "rate error, %", series, "-"), data, plots, notes)


def _costs(one: Found) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("workers", one.worker_us), ("Redis", one.redis_us)


def _row(one: Found) -> list[str]:
    errors = f"{min(one.errors) * 100:+.3f} to {max(one.errors) * 100:+.3f} %" if one.errors else ""
    burst = f"{one.excess:+.2f}" if one.errors else ""
    return [one.trial, str(one.workers), f"{one.per_second:,.0f}", f"{one.worker_us:.1f}", f"{one.redis_us:.1f}", f"{one.calls:.3f}",
            f"{one.commands:.2f}", f"{one.rss_kb:,.0f}", errors, burst, str(one.silent) if one.errors else ""]  # fmt: skip


def _exact(one: Found) -> Figure:
    worst = max(map(abs, one.errors), default=1.0)
    what = f"rate error of every account, {one.trial}, {one.workers} workers"
    return Figure(what, "within 0.2 %", f"{worst * 100:.3f} %", worst <= 0.002 and not one.silent, one.lateness)


def _least_burst(one: Found) -> Figure:
    what = f"most of any account in 1 s above its rate, {one.trial}, {one.workers} workers"
    return Figure(what, "<= 1", f"{one.excess:.2f}", one.excess <= 1.0, one.lateness)


def _ceiling(one: Found) -> Figure:
    what = f"above the ceiling, any account in any window, {one.trial}, {one.workers} workers"
    return Figure(what, "<= 0", f"{one.above:.1f}", one.above <= 0, one.lateness)


def _ranked(values: Iterable[float]) -> list[tuple[float, float]]:
    ordered = sorted(value * 100 for value in values)
    step = max(1, len(ordered) // 500)
    return [(float(place * step), value) for place, value in enumerate(islice(ordered, 0, None, step))]
