"""One worker process: a loop, one engine Worker in it, its signals, and its leash.

A process that a supervisor started (`python -m sendengine.process OPTIONS`) is on a leash: standard input is the leash, and its
end of file means *leave warm*, sent by the supervisor, or by the kernel when the supervisor is gone. Standard output takes beats,
a line each, "1" while it can journal and "0" while it cannot. Terminal signals are the supervisor's. Without a leash the process
is its own master (workers/send.py).
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import uvloop

from sendengine.config import Config
from sendengine.engine.worker import Worker
from sendengine.errors import Fenced, RefusedInput, SendEngineError, Unavailable
from sendengine.launch import EXIT_AGAIN, EXIT_COLD, EXIT_FENCED, WorkerOptions, configured, embedded_dir, server_url
from sendengine.logs import log_to_stderr
from sendengine.ports import Meter
from sendengine.queue import embedded
from sendengine.queue.redis import RedisQueue
from sendengine.sink.silent import SilentMeter
from sendengine.wiring import build_queue, build_worker, keyring

if TYPE_CHECKING:
    from sendengine.sink.metrics import PrometheusMeter

log = structlog.get_logger("sendengine.process")

Build = Callable[[Config, str, Meter, str], Worker]  # configuration, URL of Redis, meter, worker id

BEAT_EVERY = 0.5
LOOK_EVERY = 0.5
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
GARBAGE = (5_000, 10, 1_000)  # objects more than before, then collections of the younger ones, until those of an age are looked through


class Leash(msgspec.Struct, frozen=True):
    hold: int  # file descriptor whose end of file ends us
    beats: int


def main() -> int:
    """The leashed one. Whatever prints to standard output is led to standard error, away from the beats."""
    options = msgspec.json.decode(sys.argv[1], type=WorkerOptions)
    leash = Leash(sys.stdin.fileno(), os.dup(1))
    os.dup2(2, 1)
    try:
        return run(options, leash)
    except SendEngineError as error:
        log.error("worker_not_started", error=str(error), remedy=error.remedy)
        return error.exit_code


def run(options: WorkerOptions, leash: Leash | None = None, build: Build = build_worker) -> int:
    """Send until told to stop; the exit status. `build` makes the worker inside the loop; the fault tests have one of their own.
    Raises ConfigError, RefusedInput, Unavailable when it cannot begin."""
    config = configured(options)
    log_to_stderr(config.log_format)
    url = server_url(config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_send(config, options, url, leash, build))


async def _send(config: Config, options: WorkerOptions, url: str, leash: Leash | None, build: Build) -> int:
    meter = _meter(options)
    worker = build(config, url, meter, worker_id())
    collect_seldom()
    asyncio.get_running_loop().set_exception_handler(partial(_on_lost_error, worker))
    stop = Stop(worker, options, config.engine.shutdown_timeout_s)
    stop.listen(leash)
    sides: list[Coroutine[object, object, None]] = []
    if leash is not None:
        sides.append(_beat(worker, stop, leash.beats))
    if (state_dir := embedded_dir(config)) is not None:
        sides.append(_keep_server(worker, state_dir))
    if config.workers_tell:
        sides.append(_tell(config, url))
    if options.burst:
        sides.append(_leave_when_idle(worker, build_queue(config, url)))
    tasks = [_side(worker, side) for side in sides]
    log.info("worker_runs", worker=worker.id)
    try:
        await worker.run()
    except Fenced as error:
        log.error("worker_fenced", worker=worker.id, error=str(error))
        return EXIT_FENCED
    except RefusedInput:
        raise
    except Exception:
        log.exception("worker_failed", worker=worker.id)
        return 1
    finally:
        for task in tasks:
            task.cancel()
        meter.flush()
    log.info("worker_left", worker=worker.id)
    return EXIT_AGAIN if stop.is_reload else 0


def collect_seldom() -> None:
    """A worker of ten thousand accounts holds a million objects that stay, and looking through them all takes 0.3 s in which every permit
    waits. What it makes for a message goes with its last reference; the few cycles are young when they die."""
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def _on_lost_error(worker: Worker, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that a callback, a session or a task let out reaches nobody: the loop would log it and go on, with a recipient that nobody
    holds any more. It is a bug, and ends the worker. What the network does is none (OSError), and others' protocols are not ours."""
    loop.default_exception_handler(context)
    error = context.get("exception")
    is_protocol_ours = type(context.get("protocol")).__module__.startswith("sendengine.")
    is_ours = "handle" in context or isinstance(context.get("future"), asyncio.Task) or is_protocol_ours
    if is_ours and isinstance(error, Exception) and not isinstance(error, OSError | Unavailable):
        worker.fail(error)


def worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def _meter(options: WorkerOptions) -> SilentMeter | PrometheusMeter:
    """Prometheus' library is loaded only where somebody scrapes."""
    if options.metrics_port is None:
        return SilentMeter()
    from sendengine.sink.metrics import PrometheusMeter

    return PrometheusMeter()


class Stop:
    """How this process ends: warm first; cold at the second signal, at QUIT, or when warm takes too long."""

    def __init__(self, worker: Worker, options: WorkerOptions, timeout: float) -> None:
        self._worker, self._options, self._timeout = worker, options, timeout
        self._signals = 0
        self.is_asked = False
        self.is_reload = False

    def listen(self, leash: Leash | None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal)
        loop.add_signal_handler(signal.SIGQUIT, self.cold)
        loop.add_signal_handler(signal.SIGUSR1, dump_tasks)
        if leash is None:
            loop.add_signal_handler(signal.SIGINT, self._on_signal)
            loop.add_signal_handler(signal.SIGHUP, self._on_hup)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            loop.add_reader(leash.hold, self._on_leash, leash.hold)

    def warm(self) -> None:
        if not self.is_asked:
            self.is_asked = True
            asyncio.get_running_loop().call_later(self._timeout, self.cold)
            self._worker.stop()

    def cold(self) -> None:
        """At once, within the crash bound: the others take over."""
        log.warning("worker_left_cold", worker=self._worker.id, doubtful=self._worker.journal.doubtful)
        os._exit(EXIT_COLD)

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            self.cold()
        self.warm()

    def _on_hup(self) -> None:
        """Without a supervisor: warm, then anew with the configuration of now. One that cannot be read changes nothing."""
        try:
            keyring(configured(self._options))
        except SendEngineError as error:
            log.error("reload_refused", error=str(error), remedy=error.remedy)
            return
        self.is_reload = True
        self.warm()

    def _on_leash(self, hold: int) -> None:
        try:
            is_held = os.read(hold, 64) != b""
        except ConnectionResetError:  # the supervisor was killed
            is_held = False
        if not is_held:
            asyncio.get_running_loop().remove_reader(hold)
            self.warm()


def dump_tasks() -> None:
    """What every task waits for, on standard error."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


def _side(worker: Worker, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    """Work beside the worker's own; a bug there ends the worker."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            worker.fail(error)

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(ended)
    return task


async def _beat(worker: Worker, stop: Stop, beats: int) -> None:
    """The loop turns, and whether it can journal: an append was answered, Redis is there, and it is not draining."""
    os.set_blocking(beats, False)
    while True:
        can_journal = worker.journal.latency > 0 and not worker.journal.is_away and not stop.is_asked
        try:
            os.write(beats, b"1\n" if can_journal else b"0\n")
        except BlockingIOError:
            pass  # the supervisor does not read at present
        except BrokenPipeError:
            return  # it is gone, and the leash says so
        await asyncio.sleep(BEAT_EVERY)


async def _keep_server(worker: Worker, state_dir: Path) -> None:
    """The embedded server has no keeper but us: one that ended unasked (killed, a full disk) is started again, after a pause that doubles
    while its successors do not last."""
    pause = FIRST_PAUSE
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if not worker.journal.is_away:
            pause = FIRST_PAUSE
            continue
        try:
            if await asyncio.to_thread(embedded.revive, state_dir):
                log.warning("embedded_server_revived", worker=worker.id)
        except Unavailable as error:
            log.error("embedded_server_not_revived", error=str(error))
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _tell(config: Config, url: str) -> None:
    """Webhooks out. What posts to them is loaded only where they are told."""
    from sendengine.posting import HttpPoster
    from sendengine.queue.desk import RedisDesk
    from sendengine.scheduler.hooks import Teller

    async with HttpPoster(config.api.private_webhooks) as poster:
        await Teller(RedisDesk(url), poster, lambda result: None).run()


async def _leave_when_idle(worker: Worker, queue: RedisQueue) -> None:
    """Burst: stop when nobody has anything due now, in retry or leased. Only who has nothing left to pick asks the queue."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            if not worker.report().rows and await is_idle(queue):
                worker.stop()
                return
        except Unavailable:
            pass  # nobody knows: look again


async def is_idle(queue: RedisQueue) -> bool:
    """No account has work that a worker could do now or after a retry's wait. Scheduled and paused sends do not count."""
    for account in await queue.accounts():
        if not await queue.is_idle(account):
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
