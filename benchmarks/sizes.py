"""What a message costs by its size, and under TLS: one unmetered worker against a bare pipelined writer of the same octets, in turns.

Both keep ten connections to one sink. Plain messages go to the sink in C; TLS goes to `sendengine sink`, which costs more than either
client, so that there the processor time counts and the speed does not.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from benchmarks import csink
from benchmarks.analysis import Spread, spread
from benchmarks.bench import Chart, Figure, Result, bench, children
from benchmarks.throughput import Round, bare, engine
from sendengine.errors import SendEngineError
from sendengine.types import TlsPolicy

TITLE = "sizes: CPU a message by its size and under TLS 1.3, against a bare pipelined writer"
_SESSIONS = ("-c", "10")
_TLS_MOST_US = 50.0
_BARE_MOST = 2.0


class Trial(msgspec.Struct, frozen=True):
    name: str
    octets: int
    count: int
    is_tls: bool = False


PLAIN = (Trial("2 KB", 2_000, 40_000), Trial("20 KB", 20_000, 15_000), Trial("75 KB", 75_000, 6_000))
TRIALS = (*PLAIN, Trial("2 KB, TLS", 2_000, 15_000, is_tls=True))


async def run(quick: bool) -> Result:
    rounds, part = (2, 10) if quick else (5, 1)
    trials = [msgspec.structs.replace(trial, count=trial.count // part) for trial in TRIALS]
    ours: dict[str, list[Round]] = {trial.name: [] for trial in trials}
    floor: dict[str, list[Round]] = {trial.name: [] for trial in trials}
    async with bench() as b:
        plain = csink.start(b.stage).port
        secret = b.stage.relay(*await _certificate(b.stage.folder)).port
        worker = b.stage.worker(*_SESSIONS)
        await b.workers_ready()
        [pid] = children(worker)
        for number in range(rounds):
            for place, trial in enumerate(trials):
                port = secret if trial.is_tls else plain
                account = f"m{1000 + number * len(trials) + place}"
                tls = TlsPolicy.REQUIRED if trial.is_tls else TlsPolicy.NONE
                ours[trial.name].append(await engine(b, account, trial.count, port, pid, trial.octets, tls))
                words = ("tls",) if trial.is_tls else ()
                floor[trial.name].append(await bare(b, port, trial.count, trial.octets, *words))
    return _result(ours, floor)


async def _certificate(folder: Path) -> tuple[str, ...]:
    """Flags of a sink that offers STARTTLS. Raises SendEngineError where openssl is not installed."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1")
    files = ("-out", str(cert), "-keyout", str(key))
    try:
        process = await asyncio.create_subprocess_exec("openssl", *words, *files, stderr=asyncio.subprocess.DEVNULL)
    except FileNotFoundError:
        raise SendEngineError("openssl is not installed, and it makes the certificate: apt-get install openssl") from None
    if await process.wait():
        raise SendEngineError("openssl makes no certificate")
    return "--cert", str(cert), "--key", str(key), "--no-chunking"


def _result(ours: dict[str, list[Round]], bare: dict[str, list[Round]]) -> Result:
    short = PLAIN[0].name
    engine_us = spread(_cpu(ours[short])).median - spread(_cpu(bare[short])).median
    rows, figures = [], []
    for trial in TRIALS:
        cpu, least, times = spread(_cpu(ours[trial.name])), spread(_cpu(bare[trial.name])), _times(ours[trial.name], bare[trial.name])
        speed = spread([one.per_second for one in ours[trial.name]])
        rows.append([trial.name, *_columns(cpu, 1), *_columns(least, 1), *_columns(times, 2), f"{speed.median:,.0f}"])
        if trial.is_tls:
            what, wall = f"worker CPU a message, {trial.name}", f"the bare writer takes {least.median:.1f} us"
            figures.append(Figure(what, f"<= {_TLS_MOST_US:.0f} us", f"{cpu.median:.1f} us", cpu.median <= _TLS_MOST_US, wall))
        elif trial != PLAIN[0]:
            what, wall = f"CPU against the bare writer, {trial.name}", _wall(engine_us, least.median)
            figures.append(Figure(what, f"<= {_BARE_MOST:g}", f"{times.median:.2f}", times.median <= _BARE_MOST, wall))
    columns = ["message", "worker us", "range", "bare us", "range", "ratio", "range", "messages/s"]
    series = {
        f"{trial.name}, {who}": [(0.0, spread(_cpu(found[trial.name])).median)]
        for trial in TRIALS
        for who, found in (("worker", ours), ("bare writer", bare))
    }
    data = {"ours": msgspec.to_builtins(ours), "bare": msgspec.to_builtins(bare)}
    return Result(TITLE, columns, rows, figures, Chart("us of CPU a message, median", "", series, "bars"), data)


def _wall(engine_us: float, bare_us: float) -> str:
    """With no more than what the engine does for a message of any size, by the shortest, and nothing for the octets."""
    least = (engine_us + bare_us) / bare_us
    return f"the bare writer takes {bare_us:.1f} us, the engine adds {engine_us:.1f} us to the shortest message: {least:.2f} at best"


def _times(ours: list[Round], bare: list[Round]) -> Spread:
    return spread([one.cpu_us / other.cpu_us for one, other in zip(ours, bare, strict=True)])


def _cpu(rounds: list[Round]) -> list[float]:
    return [one.cpu_us for one in rounds]


def _columns(values: Spread, digits: int) -> list[str]:
    return [f"{values.median:.{digits}f}", f"{values.low:.{digits}f} to {values.high:.{digits}f}"]
