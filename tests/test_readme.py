"""The README's commands, run as they are written (on a free port, in an empty directory, with a server of their own)."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
LIMIT = 40.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Shell:
    """Owner of a directory, of what was started in it, and of a `sendengine` on the path."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        command = folder / "bin" / "sendengine"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sendengine "$@"\n')
        command.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SENDENGINE_") and name != "REDIS_URL"}
        self.environ = clean | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SENDENGINE_STATE_DIR": str(state),
        }
        self.pids: list[int] = []

    def run(self, script: str) -> str:
        """Runs it as sh would; what it leaves in the background is noted."""
        noted = self.folder / "pids"
        script = script.replace(" &  ", f" & echo $! >> {noted};  ")
        done = subprocess.run(
            ["sh", "-e", "-c", script], cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, timeout=LIMIT, check=False,
        ) if " & echo" not in script else self._run_to_file(script)  # fmt: skip
        self.pids = [int(line) for line in noted.read_text().split()] if noted.exists() else []
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def _run_to_file(self, script: str) -> subprocess.CompletedProcess[str]:
        """Background processes keep a pipe open for ever; a file does not mind."""
        said = self.folder / "said"
        with said.open("w") as out:
            done = subprocess.run(
                ["sh", "-e", "-c", script], cwd=self.folder, env=self.environ, stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, timeout=LIMIT, check=False,
            )  # fmt: skip
        return subprocess.CompletedProcess(done.args, done.returncode, said.read_text())

    def close(self) -> None:
        for pid in self.pids:
            end_process(pid)
        subprocess.run([self.folder / "bin" / "sendengine", "embedded", "stop"], env=self.environ, check=False, capture_output=True)


def end_process(pid: int) -> None:
    """Returns when it has ended; it need not be a child of ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        select.select([handle], [], [], LIMIT)
    finally:
        os.close(handle)


@pytest.fixture
def shell(tmp_path: Path, state_dir: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, state_dir)
    yield made
    made.close()


@pytest.mark.timeout(150)
def test_the_tour_and_what_ops_type(shell: Shell) -> None:
    tour, ops = blocks("sh")[1:3]
    port = str(free_port())
    assert "m1001:summer-1" in shell.run(tour.replace("2525", port))
    shell.run("sendengine outcomes m1001:summer-1 --follow")  # until its end
    assert orjson.loads(shell.run("sendengine status m1001:summer-1 --json"))["state"] == "finished"
    lines = [orjson.loads(line) for line in (shell.folder / "ledger.ndjson").read_bytes().splitlines()]
    assert sorted(line["rcpt_to"] for line in lines) == ["ana@example.com", "bob@example.com"]
    assert {line["subject"] for line in lines} == {"Hi Ana", "Hi Bob"}
    [program] = blocks("python")
    (shell.folder / "program.py").write_text(program)
    said = shell.run(f"{sys.executable} program.py")
    assert "row 1 is refused, an address needs an @: {" in said
    assert "m1001:summer-2 1 1 " in said
    assert "finished 1 " in said
    for command in ops.replace("2525", port).splitlines():
        words = command.split("  #")[0].strip()
        if words and not words.startswith("sendengine worker "):  # one works already
            shell.run(words)
    assert orjson.loads(shell.run("sendengine status m1001:long-1 --json"))["cancelled"] > 50_000  # it was there to be steered all the time


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:docs|config|benchmarks)/[\w./-]*)`", README)) | set(re.findall(r"\]\(([\w./-]+)\)", README))
    assert [name for name in named if not (ROOT / name).exists()] == []
