"""One search of a model by spin: build the verifier, let it run within its bounds, read its report. What is searched for: runs.py."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MEGABYTES = 5000
DEPTH = 500_000
GRACE = 20.0  # seconds, for the report of a search that was told to stop
VERIFIER = "./pan"
COMPILE = ("gcc", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}", "-DVECTORSZ=4096")


@dataclass(frozen=True)
class Run:
    """A search and its bounds.

    `flags`: for the model's preprocessor, NAME=VALUE. `seconds`: of wall time, then it is cut off; at least six times of what it takes on
    an idle core. `is_quick`: part of the ordinary tests.
    """

    name: str
    flags: str
    model: str = "engine"
    seconds: int = 1200
    is_quick: bool = False

    @property
    def must_fail(self) -> bool:
        return self.name.startswith("no_")


@dataclass(frozen=True)
class Result:
    """`seconds`: CPU time of the search. `reason`: what was violated."""

    run: Run
    errors: int
    states: int
    seconds: float
    is_complete: bool
    reason: str

    @property
    def is_as_expected(self) -> bool:
        return self.errors > 0 if self.run.must_fail else self.is_complete and not self.errors

    @property
    def verdict(self) -> str:
        if self.errors:
            return "counter-example" if self.run.must_fail else "ERROR"
        kind = "complete" if self.is_complete else "INCOMPLETE"
        return f"NO COUNTER-EXAMPLE, {kind.lower()}" if self.run.must_fail else kind

    def __str__(self) -> str:
        return f"{self.run.name:<32} {self.verdict:<16} {self.states:>11,} states {self.seconds:6.1f} s  {self.reason}".rstrip()


def missing() -> str:
    """The tool that is not here, or nothing."""
    return next((tool for tool in ("spin", "gcc") if shutil.which(tool) is None), "")


def check(run: Run) -> Result:
    with tempfile.TemporaryDirectory(prefix="sendengine-model-") as folder:
        return search(run, Path(folder))


def trail(run: Run) -> str:
    """The steps of the counter-example, or nothing."""
    with tempfile.TemporaryDirectory(prefix="sendengine-model-") as folder:
        if not search(run, Path(folder)).errors:
            return ""
        shutil.copy(HERE / f"{run.model}.pml", folder)
        steps = ["spin", *_flags(run), "-t", "-p", "-g", "-k", f"{run.model}.pml.trail", f"{run.model}.pml"]
        return subprocess.run(steps, cwd=folder, check=False, capture_output=True, text=True).stdout


def search(run: Run, folder: Path) -> Result:
    """Build the verifier in this folder and let it search."""
    subprocess.run(["spin", *_flags(run), "-a", HERE / f"{run.model}.pml"], cwd=folder, check=True, capture_output=True)
    effort = "-O0" if run.is_quick or run.must_fail else "-O2"  # a short search is over before an optimizing compiler is
    subprocess.run([*COMPILE, effort, "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True)
    before = _children_cpu()
    output = output_of([VERIFIER, f"-m{DEPTH}", f"-Q{run.seconds // 60 + 1}"], folder, run.seconds)
    return read_report(run, output, _children_cpu() - before)


def _flags(run: Run) -> list[str]:
    return [f"-D{flag}" for flag in run.flags.split()]


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def output_of(command: list[str], folder: Path, seconds: float) -> str:
    """What it printed. After its time it is interrupted, for then a verifier still reports how far it came."""
    with group(command, folder) as process:
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
        try:
            return process.communicate(timeout=GRACE)[0]
        except subprocess.TimeoutExpired:
            return ""


@contextmanager
def group(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process group that ends with this block, however it is left: a forgotten search takes a core and gigabytes from the next one."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    try:
        yield process
    finally:
        if process.poll() is None:  # not reaped: the group's number is still its own
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_report(run: Run, output: str, seconds: float) -> Result:
    """The verifier's report. None at the end, or one that warns of depth, memory or an interruption: the search was cut off."""
    errors = re.search(r"errors: (\d+)", output)
    stored = re.search(r"(\d+) states, stored", output)
    violation = re.search(r"^pan:\d+: (.*?)(?: \(at depth.*)?$", output, re.MULTILINE)
    is_cut = errors is None or "Search not completed" in output or "max search depth too small" in output
    return Result(
        run,
        errors=int(errors.group(1)) if errors else 0,
        states=int(stored.group(1)) if stored else 0,
        seconds=seconds,
        is_complete=not is_cut,
        reason=violation.group(1) if violation else _why_cut(output) if is_cut else "",
    )


def _why_cut(output: str) -> str:
    return next((why for why in ("out of memory", "max search depth too small", "Interrupted") if why in output), "no report")
