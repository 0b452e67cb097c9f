"""A stage for trials: a directory, a server, trial relays and workers of one's own, of which nothing stays behind.

Everything is started the way a user starts it, as processes of `python -m sendengine` on loopback, and ended by process id when
the stage is left. It owes nothing to the user's configuration: no SENDENGINE_* of the environment reaches it.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import msgspec
import orjson

from sendengine import compiled
from sendengine.errors import Unavailable
from sendengine.queue import embedded

_START_S = 20.0
_STOP_S = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Relay(msgspec.Struct, frozen=True):
    """A trial relay that listens, and the file where it writes down what it took."""

    port: int
    ledger: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"


class Stage:
    """`with Stage() as stage:` — owner of the directory and of every process it started."""

    def __init__(self) -> None:
        self._processes: dict[subprocess.Popen[bytes], Path] = {}  # with the file of what each says on standard error
        self._started = 0
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stage:
        for number in _SIGNALS:  # so that these unwind the stack as an interrupt does
            self._former[number] = signal.signal(number, _interrupt)
        self.folder = Path(tempfile.mkdtemp(prefix="se-stage-"))
        try:
            self.url = embedded.ensure(self.folder, ephemeral=True)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in (signal.SIGINT, *_SIGNALS):  # a second interrupt must not leave anything behind
            self._former.setdefault(number, signal.getsignal(number))
            signal.signal(number, signal.SIG_IGN)
        try:
            self.stop(*self._processes)
            embedded.stop(self.folder)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            for number, handler in self._former.items():
                signal.signal(number, handler)

    def relay(self, *flags: str) -> Relay:
        """A listening `sendengine sink` with a ledger."""
        ledger = self.folder / f"ledger-{self._started}.ndjson"
        process = self._verb("sink", "--port", "0", "--ledger", str(ledger), *flags)
        return Relay(orjson.loads(self._first_line(process))["port"], ledger, process)

    def worker(self, *flags: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """`sendengine worker`, the supervisor; its processes are its children."""
        return self._verb("worker", *flags, environ=environ)

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """Ends them warm, and what does not end in time by force."""
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
            self._processes.pop(process, None)

    def ended(self) -> str | None:
        """What a process said last that should still run; None while all do."""
        for process in self._processes:
            if process.poll() is not None:
                return f"process {process.pid} ended with {process.returncode}: {self._last_words(process)}"
        return None

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Any program. In a session of its own: an interrupt at the terminal is ours, and we end it."""
        self._started += 1
        said = self.folder / f"log-{self._started}"
        with said.open("wb") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environ() | dict(environ or {}),
                start_new_session=True,
            )
        self._processes[process] = said
        return process

    def _verb(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-m", "sendengine", *words, environ=environ)

    def environ(self) -> dict[str, str]:
        def is_kept(name: str) -> bool:
            return name == compiled.SWITCH or not (name.startswith("SENDENGINE_") or name == "REDIS_URL")

        kept = {name: value for name, value in os.environ.items() if is_kept(name)}
        return kept | {"SENDENGINE_REDIS_URL": self.url, "SENDENGINE_STATE_DIR": str(self.folder)}

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        is_there = select.select([process.stdout], [], [], _START_S)[0]
        line = process.stdout.readline() if is_there else b""
        if not line:
            raise Unavailable(f"a process of the stage did not start: {self._last_words(process)}")
        return line

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        return self._processes[process].read_text(errors="replace").strip()[-500:] or "it said nothing"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
