"""No message becomes dearer unnoticed: `python -m benchmarks guard`, under a minute, a part of every check.

Only ratios are compared, each with a reference measured in the same round: stages over a loop of plain Python, the whole worker over a
pool of aiosmtplib. All of it interpreted: machine code over a loop of Python would say how quick this machine's Python is. What counts is
the median of the rounds; one half dearer than what was accepted is a failure, and only when a second measurement says so too. `--accept`
measures five times, refuses where those differ so much that noise could break the limit, and writes results/accepted.json.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from benchmarks import stages
from benchmarks.bench import RESULTS, bench, children, commit, machine
from benchmarks.throughput import engine, pool, sink
from sendengine.compiled import SWITCH, form

ACCEPTED = RESULTS / "accepted.json"
LIMIT = 1.5  # times what was accepted
STEADY = 1.2  # the greatest of the accepted measurements over the least: beyond it, the machine is too busy to accept anything
WHOLE = "worker over aiosmtplib pool, CPU"
_STAGE_ROUNDS, _WHOLE_ROUNDS, _SIZE = 31, 5, 8_000
_ACCEPTED_RUNS = 5

Ratios = dict[str, float]


class Range(msgspec.Struct, frozen=True):
    median: float
    low: float
    high: float


class Accepted(msgspec.Struct, frozen=True):
    machine: str
    commit: str
    at: datetime
    python: str  # 3.11: another interpreter has other ratios
    sink: str
    ratios: dict[str, Range]


def main(accept: bool) -> int:
    """Exit status."""
    if form() == "compiled":
        words = ["-m", "benchmarks", "guard", *(["--accept"] if accept else [])]
        return subprocess.run([sys.executable, *words], env=os.environ | {SWITCH: "0"}, check=False).returncode
    if accept:
        return _accept()
    if not ACCEPTED.exists():
        print("guard: nothing was accepted yet; `python -m benchmarks guard --accept` does it")
        return 0
    accepted = msgspec.json.decode(ACCEPTED.read_bytes(), type=Accepted)
    if accepted.python != _python():
        print(f"guard: Python {accepted.python} was accepted and this is {_python()}: nothing can be compared")
        return 0
    dear = judged(accepted, lambda: _told(accepted, *measure()))
    for name, words in dear.items():
        print(f"guard: {name} {words}")
    print("guard: MISSED" if dear else f"guard: holds, against {accepted.commit} of {accepted.at:%Y-%m-%d} on {accepted.machine}")
    return 1 if dear else 0


def _told(accepted: Accepted, sink_: str, now: Ratios) -> tuple[str, Ratios]:
    """Each ratio beside what was accepted of it."""
    for name, range_ in accepted.ratios.items():
        if (value := now.get(name)) is not None:
            print(f"guard: {name}: {value:.3f}, {value / range_.median:.2f} times what was accepted (at most {LIMIT:g})")
    return sink_, now


def judged(accepted: Accepted, measure_: Callable[[], tuple[str, Ratios]]) -> dict[str, str]:
    """What is too dear, in words. Measured once more before it is said: a neighbour may have woken up."""
    sink_, first = measure_()
    if not too_dear(accepted, sink_, first):
        return {}
    sink_, second = measure_()
    return too_dear(accepted, sink_, {name: min(value, second.get(name, value)) for name, value in first.items()})


def too_dear(accepted: Accepted, sink_: str, now: Mapping[str, float]) -> dict[str, str]:
    """A ratio that was accepted and is not measured any more is a miss, too: the guard would watch nothing."""
    found = {}
    for name, range_ in accepted.ratios.items():
        if name == WHOLE and sink_ != accepted.sink:
            continue  # another sink, other costs of the kernel
        value = now.get(name)
        if value is None:
            found[name] = "is not measured any more"
        elif value > range_.median * LIMIT:
            found[name] = f"is {value:.3f}, {value / range_.median:.2f} times the accepted {range_.median:.3f}"
    return found


def measure() -> tuple[str, Ratios]:
    """The sink's name, and the median of each ratio."""
    own = {name: statistics.median(values) for name, values in stages.ratios(stages.measure(_STAGE_ROUNDS)).items()}
    name, whole = asyncio.run(_whole())
    return name, {**own, WHOLE: statistics.median(whole)}


async def _whole() -> tuple[str, list[float]]:
    async with bench() as b:
        port, name = await sink(b)
        worker = b.stage.worker()
        await b.workers_ready()
        [pid] = children(worker)
        ratios = []
        for number in range(_WHOLE_ROUNDS):
            ours = await engine(b, f"m{1000 + number}", _SIZE, port, pid)
            theirs = await pool(b, _SIZE, port)
            ratios.append(ours.cpu_us / theirs.cpu_us)
    return name, ratios


def _accept() -> int:
    runs, names = list[Ratios](), set[str]()
    for number in range(_ACCEPTED_RUNS):
        name, own = measure()
        runs.append(own)
        names.add(name)
        print(f"{number + 1} of {_ACCEPTED_RUNS}: " + ", ".join(f"{key} {value:.3f}" for key, value in own.items()))
    ratios = ranges(runs)
    unsteady = [f"{name} ({one.low:.3f} to {one.high:.3f})" for name, one in ratios.items() if one.high > one.low * STEADY]
    if unsteady:
        print(f"guard: not accepted, the machine is too busy: {', '.join(unsteady)}")
        return 1
    accepted = Accepted(machine(), commit(), datetime.now(UTC).replace(microsecond=0), _python(), names.pop(), ratios)
    RESULTS.mkdir(exist_ok=True)
    ACCEPTED.write_bytes(msgspec.json.format(msgspec.json.encode(accepted), indent=2) + b"\n")
    print(f"accepted: {ACCEPTED}")
    return 0


def ranges(runs: list[Ratios]) -> dict[str, Range]:
    found = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found[name] = Range(statistics.median(values), min(values), max(values))
    return found


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
