"""The supervisor behind `sendengine worker`: keeps N worker processes, and is what signals and probes are for.

It knows processes, not mail. TERM or INT: warm stop; again, or QUIT: cold. HUP: each process is replaced by one with the
configuration of now, the old one leaving when the new one can journal. USR1: tasks are dumped. A process that ends unasked is
started again, after a pause that doubles while its successors do not live long.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from enum import Enum

import msgspec
import structlog

from sendengine import health
from sendengine.errors import ConfigError
from sendengine.launch import EXIT_COLD, EXIT_FENCED, EXIT_REFUSED, WorkerOptions, configured, server_url
from sendengine.logs import log_to_stderr

__all__ = ["Supervisor", "WorkerOptions", "supervise"]

log = structlog.get_logger("sendengine.supervisor")

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
HEALTHY_AFTER = 30.0
SILENT_AFTER = 3.0  # seconds without a beat: its loop does not turn
GRACE = 1.0  # a process turns cold by itself; one that cannot is killed this much later


def supervise(options: WorkerOptions, unknown: Mapping[str, str] | None = None) -> int:
    """Run until told to stop; the exit status: 0 after a warm stop, 1 after a cold one. Raises SendEngineError. `unknown` are variables
    that nothing reads, each with the nearest known one or ""."""
    config = configured(options)
    log_to_stderr(config.log_format)
    for name, nearest in (unknown or {}).items():
        log.warning("unknown_variable", name=name, nearest=nearest)
    server_url(config)  # an embedded server is started once, and what stands in the way is said here
    folder = tempfile.mkdtemp(prefix="sendengine-metrics-") if options.metrics_port is not None else ""
    try:
        return asyncio.run(Supervisor(options, config.engine.shutdown_timeout_s, folder).run())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Part(Enum):
    CANDIDATE = "candidate"  # a reload's: not replaced if it fails
    SERVING = "serving"
    LEAVING = "leaving"


class Child:
    """One worker process as its supervisor sees it. Owner: the supervisor."""

    def __init__(self, process: asyncio.subprocess.Process, part: Part, pause: float, now: float) -> None:
        self.process = process
        self.pid = process.pid
        self.part = part
        self.pause = pause  # before its successor starts, if it does not live long
        self.started_at = self.beat_at = now
        self.has_beaten = False  # so its signal handlers stand
        self.is_ready = False
        self.known = asyncio.Event()  # it was ready once, or has ended

    def leave(self) -> None:
        """Warm. By its leash, since a TERM that comes before its handler stands would kill it."""
        self.part = Part.LEAVING
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Owner of the children. `folder`: where they write their metrics, empty when nobody reads them."""

    def __init__(self, options: WorkerOptions, timeout: float, folder: str) -> None:
        self._options, self._timeout, self._folder = options, timeout, folder
        self._children: list[Child] = []
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._is_reloading = False
        self._code = 0

    async def run(self) -> int:
        server = await self._serve() if self._folder else None
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._listen_to_signals()
                for _ in range(self._options.processes):
                    self._tasks.create_task(self._keep(await self._start(Part.SERVING, FIRST_PAUSE)))
        finally:
            if server is not None:
                server.close()
        log.info("supervisor_left", code=self._code)
        return self._code

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGQUIT, self.kill)
        loop.add_signal_handler(signal.SIGHUP, self._on_hup)
        loop.add_signal_handler(signal.SIGUSR1, self._on_usr1)

    # ending

    def stop(self) -> None:
        """Warm; a second time: cold."""
        if self._stopping.is_set():
            self.kill()
            return
        log.info("stopping", processes=len(self._children))
        self._stopping.set()
        for child in self._children:
            self._release(child)

    def kill(self) -> None:
        """Cold: whatever they hold is taken over by others."""
        self._stopping.set()
        for child in self._children:
            child.signal(signal.SIGKILL)

    def _release(self, child: Child) -> None:
        child.leave()
        asyncio.get_running_loop().call_later(self._timeout + GRACE, child.signal, signal.SIGKILL)

    # keeping

    async def _keep(self, child: Child) -> None:
        """Follow a child and its successors until one is not to be replaced."""
        while True:
            code = await self._follow(child)
            if self._stopping.is_set() or child.part is not Part.SERVING or (self._options.burst and code == 0):
                if code and child.part is not Part.CANDIDATE:
                    self._code = self._code or EXIT_COLD
                return
            if code == EXIT_REFUSED and not self._was_ready:  # it will not get better by itself
                self._code = EXIT_REFUSED
                self.stop()
                return
            pause = self._pause_after(child, code)
            log.error("worker_died", pid=child.pid, code=code, again_in=pause)
            await self._stopping_within(pause)
            if self._stopping.is_set():
                return
            child = await self._start(Part.SERVING, min(2 * max(pause, FIRST_PAUSE), LONGEST_PAUSE))

    def _pause_after(self, child: Child, code: int) -> float:
        if code == EXIT_FENCED:
            return 0.0
        lived = asyncio.get_running_loop().time() - child.started_at
        return FIRST_PAUSE if lived >= HEALTHY_AFTER else child.pause

    async def _stopping_within(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            pass

    async def _start(self, part: Part, pause: float) -> Child:
        """A session of its own: an interrupt at the terminal is the supervisor's to pass on."""
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._folder} if self._folder else None
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sendengine.process", msgspec.json.encode(self._options).decode(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environ, start_new_session=True,
        )  # fmt: skip
        child = Child(process, part, pause, asyncio.get_running_loop().time())
        self._children.append(child)
        log.info("worker_started", pid=child.pid)
        if self._stopping.is_set():
            self._release(child)
        return child

    async def _follow(self, child: Child) -> int:
        """Read its beats to its end; its exit status, negative for a signal."""
        assert child.process.stdout is not None
        while beat := await child.process.stdout.readline():
            child.beat_at = asyncio.get_running_loop().time()
            child.has_beaten = True
            child.is_ready = beat == b"1\n"
            if child.is_ready and not child.known.is_set():
                self._was_ready = True
                child.known.set()
                log.info("worker_ready", pid=child.pid)
        code = await child.process.wait()
        self._children.remove(child)
        child.is_ready = False
        child.known.set()
        if self._folder:
            from sendengine.sink.metrics import mark_dead

            mark_dead(child.pid, self._folder)
        return code

    # signals

    def _on_usr1(self) -> None:
        for child in self._children:
            if child.has_beaten:
                child.signal(signal.SIGUSR1)

    def _on_hup(self) -> None:
        if self._children and not self._is_reloading and not self._stopping.is_set():
            self._is_reloading = True
            self._tasks.create_task(self._reload())

    async def _reload(self) -> None:
        """One after the other, so that somebody sends all the time. A configuration that is refused changes nothing."""
        try:
            configured(self._options)
            for old in list(self._children):
                if not await self._replace(old):
                    return
            log.info("reloaded", processes=sum(child.part is Part.SERVING for child in self._children))
        except ConfigError as error:
            log.error("reload_refused", error=str(error))
        finally:
            self._is_reloading = False

    async def _replace(self, old: Child) -> bool:
        new = await self._start(Part.CANDIDATE, FIRST_PAUSE)
        self._tasks.create_task(self._keep(new))
        await new.known.wait()
        if self._stopping.is_set():
            return False
        if not new.is_ready:
            log.error("reload_refused", error="the new process ended before it could send")
            return False
        new.part = Part.SERVING
        if old in self._children:
            self._release(old)
        return True

    # probes

    async def _serve(self) -> asyncio.Server:
        from sendengine.sink.metrics import CONTENT_TYPE_LATEST, exposition

        server = await health.serve(
            self._options.metrics_host,
            self._options.metrics_port or 0,
            {
                "/healthz": lambda: self._answer(self._is_alive),
                "/readyz": lambda: self._answer(lambda child: child.is_ready and self._is_alive(child)),
                "/metrics": lambda: health.Answer(200, exposition(self._folder), CONTENT_TYPE_LATEST),
            },
        )
        log.info("metrics_served", port=server.sockets[0].getsockname()[1])
        return server

    def _is_alive(self, child: Child) -> bool:
        return asyncio.get_running_loop().time() - child.beat_at < SILENT_AFTER

    def _answer(self, holds: Callable[[Child], bool]) -> health.Answer:
        """200 when it holds for every process that should run."""
        serving = [child for child in self._children if child.part is Part.SERVING]
        if len(serving) >= self._options.processes and all(map(holds, serving)):
            return health.Answer(200, b"ok\n")
        return health.Answer(503, b"no\n")
