"""The sink in C, compiled where a compiler is at hand: what the client costs is measured, and not what a sink in Python does."""

from __future__ import annotations

import shutil
import subprocess
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.bench import free_port
from sendengine.errors import SendEngineError
from sendengine.trial.stage import Stage

SOURCE = Path(__file__).parent / "sink" / "sink.c"
RECORD = 16  # octets: the time and the account's number


class CSink(msgspec.Struct, frozen=True):
    port: int
    ledger: Path
    process: subprocess.Popen[bytes]


def start(stage: Stage, *words: str) -> CSink:
    """Listening. `words`: chunking. Raises SendEngineError where nothing compiles C."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise SendEngineError("no C compiler (cc) is installed, and this suite's sink is written in C: apt-get install gcc libc6-dev")
    program, ledger, port = stage.folder / "sink", stage.folder / f"mails-{free_port()}", free_port()
    if not program.exists():
        subprocess.run([compiler, "-O2", "-o", program, SOURCE], check=True)
    process = stage.start(str(program), str(port), str(ledger), *words)
    assert process.stdout is not None
    if process.stdout.readline() != b"listening\n":
        raise SendEngineError("the sink does not listen")
    return CSink(port, ledger, process)


def mails(path: Path) -> Iterator[tuple[float, int]]:
    """Every MAIL: its time and the number of its account."""
    octets = path.read_bytes()
    octets = octets[: len(octets) // RECORD * RECORD]
    return zip(array("d", octets)[::2], array("Q", octets)[1::2], strict=True)
