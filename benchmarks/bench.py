"""What all suites share: a stage with a client on it, what a process costs, and one way to write results down.

Linux only: processor time and memory are read from /proc. A result stands with its machine, its commit and its command.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.interpreter import step_ns
from benchmarks.letter import SUBJECT, TEXT, rows, sender, text_of
from benchmarks.plots import Chart, svg
from sendengine.client import Client
from sendengine.compiled import form
from sendengine.config import Config
from sendengine.errors import SendEngineError
from sendengine.queue import embedded
from sendengine.render.message import Message
from sendengine.scheduler.status import Send, Status
from sendengine.trial.mails import Mail, read_ledger
from sendengine.trial.stage import Relay, Stage
from sendengine.types import Relay as AccountRelay
from sendengine.types import TlsPolicy

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.1
_WIDTH = 140


class Figure(msgspec.Struct, frozen=True):
    """A promise and what was measured."""

    what: str
    wanted: str
    got: str
    holds: bool
    floor: str = ""  # what bounds it on this machine, measured in the same run; said where the figure is missed
    used: float | None = None  # the share of what is allowed that was used, where that is one number

    @property
    def verdict(self) -> str:
        """One that holds just so does not look like one that holds with ease."""
        said = "holds" if self.holds else "MISSED"
        return said if self.used is None else f"{said}, at {self.used * 100:.1f} % of what is allowed"


class Result(msgspec.Struct, frozen=True):
    title: str
    columns: list[str]
    rows: list[list[str]]
    figures: list[Figure]
    chart: Chart
    data: dict[str, Any]  # every measured value, for whoever wants to reckon anew
    plots: list[Chart] = []  # further ones, for the report
    notes: list[str] = []  # how the columns are read, beneath them


class Bench:
    """One suite's stage and client."""

    def __init__(self, stage: Stage, client: Client) -> None:
        self.stage, self.client = stage, client

    async def account(self, account: str, tier: str, port: int, tls: TlsPolicy = TlsPolicy.NONE) -> None:
        await self.client.create_account(account, tier, relay=AccountRelay("127.0.0.1", port, tls=tls))

    async def submit(self, account: str, count: int, *, at: float | None = None, octets: int = 0) -> Send:
        """One send of the account, by which its messages are known in the ledger: sender(account)."""
        letter = message(account, octets)
        return await self.client.submit(account=account, message=letter, recipients=rows(account, count), campaign="bench", at=at)

    async def finished(self, send: str, within: float) -> Status:
        """Its last status. Raises TimeoutError, and SendEngineError when a process of the stage has ended."""
        async with asyncio.timeout(within):
            while True:
                status = await self.client.status(send)
                if status.finished_at is not None:
                    return status
                if (trouble := self.stage.ended()) is not None:
                    raise SendEngineError(trouble)
                await asyncio.sleep(_LOOK_S)

    async def workers_ready(self, count: int = 1) -> None:
        """So many workers have registered."""
        async with asyncio.timeout(20):
            while True:
                if sum(1 for said in (await self.client.workers()).values() if said) >= count:
                    return
                await asyncio.sleep(_LOOK_S)

    def seen_by(self, relay: Relay) -> list[Mail]:
        """All that the relay took. It is ended for that: a ledger is whole when it is closed."""
        self.stage.stop(relay.process)
        return read_ledger(relay.ledger.read_bytes())


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with Stage() as stage:
        async with Client(stage.url, config=Config()) as client:
            yield Bench(stage, client)


# load


def message(account: str, octets: int = 0) -> Message:
    """Of two kilobytes, or about so many octets."""
    return Message(sender=f"News <{sender(account)}>", subject=SUBJECT, text=text_of(octets) if octets else TEXT)


def write_list(path: Path, account: str, count: int) -> None:
    """The recipients as a CSV file."""
    with path.open("w", encoding="utf-8") as file:
        file.write("email,first_name,city\n")
        file.writelines(f"{row['email']},{row['first_name']},{row['city']}\n" for row in rows(account, count))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# costs


def session_cpu_seconds(leader: int) -> float:
    """User and system time so far of a process that leads a session, of all that run in it and of its children that have ended."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == leader:
            total += int(fields[11]) + int(fields[12])
            if int(stat.parent.name) == leader:
                total += int(fields[13]) + int(fields[14])
    return total / _TICKS


def children(process: subprocess.Popen[bytes]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def cpu_seconds(*pids: int) -> float:
    """User and system time of these processes so far."""
    return sum(sum(_times(pid)) for pid in pids) / _TICKS


def kernel_seconds(pid: int) -> float:
    """The system time alone."""
    return _times(pid)[1] / _TICKS


def machine_seconds() -> float:
    """Processor time of everybody so far, on all cores; interrupts are in it, what a hypervisor took is not."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / _TICKS


def _times(pid: int) -> tuple[int, int]:
    """User and system time, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def peak_mb(pid: int) -> float:
    """The most memory that was resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SendEngineError(f"process {pid} has no memory to speak of")


def server_pid(stage: Stage) -> int:
    found = embedded.status(stage.folder)
    if found is None:
        raise SendEngineError("the embedded server is gone")
    return found.pid


# results


def record(name: str, result: Result, quick: bool) -> bool:
    """Prints one table; writes NAME.json and NAME.svg; neither for a quick run. True when every figure holds."""
    console = Console(width=_WIDTH, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(result.columns):
        table.add_column(column, justify="right" if place else "left")
    for row in result.rows:
        table.add_row(*row)
    console.print(f"\n[bold]{result.title}[/]")
    console.print(table)
    for note in result.notes:
        console.print(note)
    for figure in result.figures:
        colour = "green" if figure.holds else "bold red"
        console.print(f"[{colour}]{figure.verdict}[/]: {figure.what}: [bold]{figure.got}[/], wanted {figure.wanted}")
        if figure.floor and not figure.holds:
            console.print(f"       floor: {figure.floor}")
    console.print(machine() + (" (quick: shows that it runs, proves nothing)" if quick else ""))
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        about = {"suite": name, "command": f"python -m benchmarks {name}", "machine": machine(), "commit": commit()}
        document = {**about, "at": datetime.now(UTC), **msgspec.to_builtins(result)}
        del document["chart"], document["plots"]  # the pictures show them, and `data` holds what it is made of
        (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        (RESULTS / f"{name}.svg").write_text(svg(result.chart, result.title))
    return all(figure.holds for figure in result.figures)


def machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    python = f"Python {platform.python_version()} ({step_ns():.0f} ns a step of plain Python), {form()}"
    return f"{os.cpu_count()} x {model}, Linux {platform.release().split('-')[0]}, {python}"


def commit() -> str:
    """Of this checkout, with + when it was changed since."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return done.stdout.strip()


def figure_of(
    what: str, wanted: str, values: Sequence[float], holds: bool, digits: int = 3, used: float | None = None
) -> Figure:
    """What was measured as the range of its values."""
    low, high = min(values), max(values)
    got = f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"
    return Figure(what, wanted, got, holds, used=used)
