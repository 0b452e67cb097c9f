"""The protocol's models, run by spin: every rule holds, and each rule left out has its counter-example.

    python -m tests.model.runs                  all runs, a line each; exit 1 when one is not as expected
    python -m tests.model.runs NAME...          these
    python -m tests.model.runs --trail NAME     the counter-example of one, step by step

An `ok` run must search all states and find no error; a `no` run leaves a rule out and must find one. A search that was cut off says so
("incomplete"): it is no proof, and counts as failed unless the run is declared `partial`. Needs spin and a C compiler.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MEGABYTES = 3000
DEPTH = 500_000
COMPILE = ("gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}", "-DVECTORSZ=4096")


@dataclass(frozen=True)
class Run:
    name: str
    flags: str
    model: str = "engine"
    seconds: int = 120  # of search, at most
    is_quick: bool = False  # part of the ordinary tests
    is_partial: bool = False  # not searched to its end in that time: errors count, completeness is not claimed

    @property
    def must_fail(self) -> bool:
        return self.name.startswith("no_")


@dataclass(frozen=True)
class Result:
    run: Run
    errors: int
    states: int
    seconds: float
    is_complete: bool
    reason: str  # what was violated

    @property
    def is_as_expected(self) -> bool:
        if self.run.must_fail:
            return self.errors > 0
        return not self.errors and (self.is_complete or self.run.is_partial)

    @property
    def verdict(self) -> str:
        if self.errors:
            return "counter-example" if self.run.must_fail else "ERROR"
        kind = "complete" if self.is_complete else "incomplete"
        return kind if self.is_as_expected else f"NO COUNTER-EXAMPLE ({kind})" if self.run.must_fail else f"FAILED ({kind})"

    def __str__(self) -> str:
        return f"{self.run.name:<32} {self.verdict:<24} {self.states:>11,} states {self.seconds:6.1f} s  {self.reason}"


def missing() -> str:
    """The tool that is not here, or nothing."""
    return next((tool for tool in ("spin", "gcc") if shutil.which(tool) is None), "")


def search(run: Run, folder: Path) -> Result:
    """Build the verifier in this folder and let it search."""
    flags = [f"-D{flag}" for flag in run.flags.split()]
    subprocess.run(["spin", *flags, "-a", HERE / f"{run.model}.pml"], cwd=folder, check=True, capture_output=True)
    subprocess.run([*COMPILE, "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True)
    began, used = time.monotonic(), _children_cpu()
    try:
        done = subprocess.run(["./pan", f"-m{DEPTH}", f"-Q{max(1, run.seconds // 60)}"], cwd=folder, capture_output=True,
                              text=True, timeout=run.seconds, check=False)  # fmt: skip
        output = done.stdout
    except subprocess.TimeoutExpired as stopped:
        output = (stopped.stdout or b"").decode() if isinstance(stopped.stdout, bytes) else stopped.stdout or ""
    return _read(run, output, min(time.monotonic() - began, _children_cpu() - used))


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _read(run: Run, output: str, seconds: float) -> Result:
    """The verifier's report. No report at the end, or one that warns of depth or memory: the search was cut off."""
    errors = re.search(r"errors: (\d+)", output)
    stored = re.search(r"(\d+) states, stored", output)
    progress = re.findall(r"States=\s*([\d.e+]+)", output)
    states = int(stored.group(1)) if stored else int(float(progress[-1])) if progress else 0
    violation = re.search(r"^pan:\d+: (.*?)(?: \(at depth.*)?$", output, re.MULTILINE)
    reason = violation.group(1) if violation else ""
    is_complete = errors is not None and "Search not completed" not in output and "max search depth too small" not in output
    return Result(run, int(errors.group(1)) if errors else 0, states, seconds, is_complete, reason)


def check(run: Run) -> Result:
    with tempfile.TemporaryDirectory(prefix="se-model-") as folder:
        return search(run, Path(folder))


def trail(run: Run) -> str:
    """The steps of the counter-example, or nothing."""
    with tempfile.TemporaryDirectory(prefix="se-model-") as folder:
        if not search(run, Path(folder)).errors:
            return ""
        flags = [f"-D{flag}" for flag in run.flags.split()]
        shutil.copy(HERE / f"{run.model}.pml", folder)
        steps = ["spin", *flags, "-t", "-p", "-g", "-k", f"{run.model}.pml.trail", f"{run.model}.pml"]
        return subprocess.run(steps, cwd=folder, check=False, capture_output=True, text=True).stdout


INDEX = [
    Run("ok_index", "SWEEP=0", "index", is_quick=True),
    Run("ok_index_workers_die", "WORKER_DIES=1 CALLER_DIES=0 VERBS=0", "index", is_quick=True),
    Run("ok_index_all_die", "WORKER_DIES=1 VERBS=0", "index"),
    Run("ok_index_workers_die_verbs", "WORKER_DIES=1 CALLER_DIES=0", "index"),
    Run("ok_index_two_workers_die", "WORKER_DIES=2 CALLER_DIES=0 VERBS=0", "index"),
    Run("no_TAKE_OUT_FIRST", "TAKE_OUT_FIRST=0 SWEEP=0", "index", is_quick=True),
    Run("no_INDEX_AFTER", "INDEX_AFTER=0 SWEEP=0", "index", is_quick=True),
    Run("no_REPEAT_INDEXES", "REPEAT_INDEXES=0 SWEEP=0", "index", is_quick=True),
    Run("no_LAST_LOOK", "LAST_LOOK=0 SWEEP=0", "index", is_quick=True),
    Run("no_ATTACHED_IS_LEASE", "ATTACHED_IS_LEASE=0 SWEEP=0", "index", is_quick=True),
    Run("no_INDEX_BEFORE_BURY", "INDEX_BEFORE_BURY=0 WORKER_DIES=1 SWEEP=0", "index", is_quick=True),
    Run("no_SWEEP_index", "SWEEP=0 WORKER_DIES=1", "index", is_quick=True),
]
ONE = "RESCUERS=1 RCRASH=1 LATE=0"
BACK = "ROLLBACK=1 LATE=0 RCRASH=0"
ENGINE = [
    Run("ok_resend_one_row", "N=1 RESCUERS=1", is_quick=True),
    Run("ok_hold_one_row", "N=1 RESCUERS=1 HOLD=1", is_quick=True),
    Run("ok_resend_one_row_cancel", "N=1 CANCEL=1 RESCUERS=1", is_quick=True),
    Run("ok_hold_one_row_cancel", "N=1 CANCEL=1 RESCUERS=1 HOLD=1"),
    Run("ok_resend_two_rescuers", "N=1"),
    Run("ok_hold_two_rescuers", "N=1 HOLD=1"),
    Run("ok_resend", "RESCUERS=1 RCRASH=0 LATE=0"),
    Run("ok_hold", "RESCUERS=1 RCRASH=0 LATE=0 HOLD=1"),
    Run("ok_resend_late", "RESCUERS=1 RCRASH=0 DEFERS=0"),
    Run("ok_hold_rescuer_dies", f"{ONE} HOLD=1"),
    Run("ok_hold_cancel", f"CANCEL=1 {ONE} HOLD=1 DEFERS=0"),
    Run("ok_resend_cancel", f"CANCEL=1 {ONE} DEFERS=0"),
    Run("ok_two_leases", "K=2 N=1 RESCUERS=1 RCRASH=0 LATE=0"),
    Run("ok_lapse", "N=1 RESCUERS=1 LAPSES=1"),
    Run("ok_hold_lapse", f"{ONE} LAPSES=1 HOLD=1 DEFERS=0"),
    Run("ok_rollback_one_row", f"N=1 {BACK} RESCUERS=1 LOSTANSWER=1", is_quick=True),
    Run("ok_rollback_one_row_hold", f"N=1 {BACK} RESCUERS=1 LOSTANSWER=1 HOLD=1", is_quick=True),
    Run("ok_rollback", f"{BACK} RESCUERS=1 DEFERS=0"),
    Run("ok_rollback_hold", f"{BACK} RESCUERS=1 LOSTREPLY=0 HOLD=1"),
]
SMALL = "RESCUERS=1 RCRASH=0 LATE=0"
RULES = (
    "FENCE_APPEND", "INTENT", "NOTE_WITH_INTENT", "TAKE_IS_ONE", "REVOKE_FIRST", "SETTLE_BEFORE_TRIM", "NOCREATE",
)  # fmt: skip
MUTANTS = [
    *(Run(f"no_{rule}", f"{rule}=0 {SMALL}", is_quick=True) for rule in RULES),
    *(Run(f"no_{rule}_hold", f"{rule}=0 {SMALL} HOLD=1") for rule in RULES),
    Run("no_LEASE_TOKEN", "LEASE_TOKEN=0 N=1 RESCUERS=1 RCRASH=0 LATE=1", is_quick=True),
    Run("no_DOUBT_WITH_FREE", "DOUBT_WITH_FREE=0 N=1 RESCUERS=2 RCRASH=1 LATE=0", is_quick=True),
    Run("no_FREE_BEFORE_BURY", "FREE_BEFORE_BURY=0 N=1 RESCUERS=1 RCRASH=1 LATE=0", is_quick=True),
    Run("no_SWEEP", "SWEEP=0 N=1 RESCUERS=1 RCRASH=0 LATE=0 LOSTREPLY=0 DEFERS=0", is_quick=True),
    Run("no_TRIM_EXACT", f"TRIM_EXACT=0 {SMALL}", is_quick=True),
    Run("no_STICKY", f"STICKY=0 CANCEL=1 {ONE}", is_quick=True),
    Run("no_CANCEL_DOUBT", f"CANCEL_DOUBT=0 CANCEL=1 {ONE} STICKY=0", is_quick=True),
    Run("no_WITHDRAW", "WITHDRAW=2 CANCEL=1 RESCUERS=0 RCRASH=0 LATE=0 NOCRASH=1", is_quick=True),
    Run("no_LAST_ENTRY", f"LAST_ENTRY=0 LAPSES=1 {ONE} HOLD=1", is_quick=True),
    Run("no_RETAIN", "RETAIN=0 ROLLBACK=1 LATE=0 RCRASH=0 RESCUERS=0 NOCRASH=1"),
    Run("no_RESYNC", "RESYNC=0 ROLLBACK=1 LATE=0 RCRASH=0 RESCUERS=0 NOCRASH=1"),
    Run("no_RETAIN_UNACTED", "RETAIN_UNACTED=0 LOSTANSWER=1 ROLLBACK=1 LATE=0 RCRASH=0 RESCUERS=0 NOCRASH=1", is_quick=True),
]
RUNS = [*ENGINE, *MUTANTS, *INDEX]


def main(arguments: list[str]) -> int:
    if tool := missing():
        print(f"{tool} is not installed (on Debian: apt-get install spin gcc)", file=sys.stderr)
        return 1
    by_name = {run.name: run for run in RUNS}
    if arguments[:1] == ["--trail"]:
        print(trail(by_name[arguments[1]]))
        return 0
    is_good = True
    for run in [by_name[name] for name in arguments] or RUNS:
        result = check(run)
        print(result, flush=True)
        is_good &= result.is_as_expected
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
