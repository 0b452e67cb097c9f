"""The fault runner behind `make chaos`: every scenario at length, one account line each, a report, exit 1 where an identity is broken.

    python -m tests.failures.chaos [--seed N] [--minutes M] [--out FOLDER] [--failpoint STEP=ACTION@N] [SCENARIO ...]

A seed replays the choices (whom, when, how); the operating system's own timing is not ours to replay. Counts grow with the minutes.
No fault in n trials proves no more than: with 95 % certainty it happens in fewer than 3 of n.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.failures import controls, forgetting, process_faults, world_faults
from tests.failures.account import Account, Line
from tests.failures.failpoints import ACTIONS, Failpoint, parse

FULL_MINUTES = 10.0
Trial = Callable[[int, Callable[[int], int]], Coroutine[Any, Any, Line]]


def _with_failpoints(*actions: str) -> Trial:
    return lambda seed, times: process_faults.failpoints(seed, process_faults.failpoints_of(seed, actions))


# Each with the number of its faults in a run of ten minutes; `times` scales it.
TRIALS: dict[str, Trial] = {
    "worker_kills": lambda seed, times: process_faults.worker_kills(seed, times(100), 500, times(100_000)),
    "worker_kills_hold": lambda seed, times: process_faults.worker_kills(seed, times(25), 400, on_doubt="hold"),
    "worker_kills_trains": lambda seed, times: process_faults.worker_kills(seed, times(20), 400, together=5),
    "worker_stops": lambda seed, times: process_faults.worker_stops(seed, times(50)),
    "stops_without_redis": lambda seed, times: process_faults.stops_without_redis(seed, times(3)),
    "cancelled_in_doubt": lambda seed, times: process_faults.cancelled_in_doubt(seed, 3),
    "zombies": lambda seed, times: process_faults.zombies(seed, times(4)),
    "steering": lambda seed, times: process_faults.steering(seed, times(8)),
    "steering_unmetered": lambda seed, times: process_faults.steering(seed, times(8), None),
    "steering_trains": lambda seed, times: process_faults.steering(seed, times(8), None, together=5),
    "orphan": lambda seed, times: process_faults.orphan(seed),
    "slow_relay": lambda seed, times: process_faults.slow_relay(seed, 20.0, 40),
    "under_a_supervisor": lambda seed, times: process_faults.under_a_supervisor(seed, times(3)),
    "rescuers": lambda seed, times: process_faults.rescuers(seed, ACTIONS),
    "failpoints_kill": _with_failpoints("kill"),
    "failpoints_raise": _with_failpoints("raise"),
    "failpoints_stall": _with_failpoints("stall"),
    "failpoints_bug": _with_failpoints("bug"),
    "redis_kills": lambda seed, times: world_faults.redis_kills(seed, times(30)),
    "redis_forgets": lambda seed, times: forgetting.redis_forgets(seed, times(6)),
    "power_fails": lambda seed, times: forgetting.power_fails(seed, times(4)),
    "forgets_by_turns": lambda seed, times: forgetting.forgets_by_turns(seed, times(4)),
    "redis_cuts": lambda seed, times: world_faults.redis_cuts(seed, times(15)),
    "redis_partitions": lambda seed, times: world_faults.redis_partitions(seed, times(4)),
    "relay_kills": lambda seed, times: world_faults.relay_kills(seed, times(6)),
    "smtp_cuts": lambda seed, times: world_faults.smtp_cuts(seed, times(12)),
    "smtp_cuts_trains": lambda seed, times: world_faults.smtp_cuts(seed, times(12), 600, together=5),
}
CONTROLS: dict[str, Callable[[int], Coroutine[Any, Any, Line]]] = {
    "journal_off": controls.journal_off, "fence_off": controls.fence_off, "ack_first": controls.ack_first,
    "never_stale": controls.never_stale,
    "write_behind": controls.write_behind, "hopeful": controls.hopeful, "too_short": controls.too_short,
    "deaf": controls.deaf, "no_trains": controls.no_trains,
}  # fmt: skip
HEAD = (
    "scenario", "faults", "accepted", "outcomes", "lost", "duplicates ≤ bound", "phantom", "cross", "W", "recovery s", "proves p",
    "verdict",
)  # fmt: skip


class Result(msgspec.Struct, frozen=True):
    line: Line
    took: float
    is_control: bool
    error: str = ""

    @property
    def is_good(self) -> bool:
        """A control must be broken, and by what was left out."""
        return not self.error and (controls.fails_as_meant(self.line) if self.is_control else not self.line.broken)

    def cells(self) -> list[str]:
        line, found = self.line, self.line.account
        outcomes = " ".join(f"{name} {n}" for name, n in sorted(found.outcomes.items()))
        verdict = "; ".join(line.broken) or "holds"
        if self.is_control:
            verdict = f"control: {verdict}"
        proves = f"≤ {min(1.0, 3 / line.faults):.3f}" if line.faults and not line.broken else "–"
        return [
            line.scenario, str(line.faults), str(found.accepted), outcomes, str(found.lost), f"{found.duplicates} ≤ {line.bound}",
            str(found.phantom), str(found.cross), str(line.most_doubtful), f"{line.recovery:.1f}", proves, self.error or verdict,
        ]  # fmt: skip


async def run(name: str, trial: Coroutine[Any, Any, Line], seed: int, is_control: bool) -> Result:
    """A trial that does not come to rest is broken, too."""
    began = time.monotonic()
    try:
        result = Result(await trial, time.monotonic() - began, is_control)
    except Exception as error:
        traceback.print_exc()
        nothing = Line(name, seed, 0, Account(0, {}, 0, 0, 0, 0, 0, 0), 0, 0, 0.0, 0)
        result = Result(nothing, time.monotonic() - began, is_control, f"did not come to rest: {_first(error)}")
    print(f"{'ok ' if result.is_good else 'BAD'} {result.took:5.1f}s {result.error or result.line}", flush=True)
    return result


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__} {error}"


def chosen(names: Sequence[str], point: str) -> list[tuple[str, Trial, bool]]:
    if point:
        return [("failpoint", lambda seed, times: process_faults.failpoints(seed, _repeated(parse(point))), False)]
    unknown = set(names) - TRIALS.keys() - CONTROLS.keys()
    if unknown:
        raise SystemExit(f"no scenario {', '.join(sorted(unknown))}; there are {' '.join([*TRIALS, *CONTROLS])}")
    trials = [(name, trial, False) for name, trial in TRIALS.items() if not names or name in names]
    for name, control in CONTROLS.items():
        if not names or name in names:
            trials.append((name, lambda seed, times, control=control: control(seed), True))  # type: ignore[misc]
    return trials


def _repeated(point: Failpoint) -> list[Failpoint]:
    return [point] * 5


def table(results: Sequence[Result]) -> str:
    rows = [HEAD, *(result.cells() for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def report(results: Sequence[Result], seed: int, folder: Path) -> None:
    """Markdown for people, JSON for programs."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    proves = "*proves p*: 0 broken identities in n faults proves, with 95 % certainty, a probability of at most 3/n each."
    text = f"# Faults, seed {seed}\n\n{machine}. {proves}\n\n{table(results)}\n"
    (folder / "chaos.md").write_text(text, encoding="utf-8")
    found = [
        {**msgspec.to_builtins(result.line), "broken": result.line.broken, "seconds": result.took, "error": result.error,
         "is_control": result.is_control, "is_good": result.is_good}
        for result in results
    ]  # fmt: skip
    content = msgspec.json.encode({"seed": seed, "machine": machine, "lines": found})
    (folder / "chaos.json").write_bytes(msgspec.json.format(content, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.failures.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=" ".join([*TRIALS, *CONTROLS]))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES, help="about how long a run of everything takes")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder of the report")
    parser.add_argument("--failpoint", default="", metavar="STEP=ACTION@N", help="this one alone, five times")
    options = parser.parse_args()

    def times(n: int) -> int:
        return max(1, round(n * float(options.minutes) / FULL_MINUTES))

    results = []
    for name, trial, is_control in chosen(options.scenarios, options.failpoint):
        results.append(asyncio.run(run(name, trial(options.seed, times), options.seed, is_control)))
    print("\n" + table(results))
    report(results, options.seed, options.out)
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
