"""The supervisor and its processes as real ones, on a real server: signals, deaths, probes.

Every test waits for log lines and for ends of files, with the suite's timeout as its only clock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from redis import Redis

from sendengine.launch import EXIT_COLD, EXIT_REFUSED, WorkerOptions

ROOT = Path(__file__).parent.parent.parent
MAIN = "import sys, msgspec; from sendengine.supervisor import *; sys.exit(supervise(msgspec.json.decode(sys.argv[1], type=WorkerOptions)))"
WORKERS = "{x}:workers"

Event = dict[str, Any]


class Running:
    """A supervisor and what it and its children log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen: list[Event] = []

    async def next(self, event: str) -> Event:
        """The next line of that kind; the others are remembered."""
        return await self.until(lambda line: line.get("event") == event)

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        while True:
            line = await self._line()
            assert line is not None, f"it ended: {self.seen}"
            if wanted(line):
                return line

    async def ready(self, n: int) -> list[int]:
        """The pids of the next n processes that can journal."""
        return [(await self.next("worker_ready"))["pid"] for _ in range(n)]

    async def end(self) -> int:
        """Its exit status, when it and every child of it has let go of standard error."""
        while await self._line() is not None:
            pass
        return await self.process.wait()

    async def _line(self) -> Event | None:
        assert self.process.stderr is not None
        line = await self.process.stderr.readline()
        if not line:
            return None
        self.seen.append(orjson.loads(line) if line.startswith(b"{") else {"text": line.decode()})
        return self.seen[-1]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def events(self) -> list[str]:
        return [line["event"] for line in self.seen if "event" in line]


class Start:
    def __init__(self, url: str, folder: Path) -> None:
        self.config = folder / "own.toml"
        self.config.write_text("")
        self._environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SENDENGINE_REDIS_URL": url, "SENDENGINE_LOG_FORMAT": "json",
            "SENDENGINE_CONFIG": str(self.config), "TMPDIR": str(folder),
        }  # fmt: skip
        self.running: list[Running] = []

    async def __call__(self, options: WorkerOptions, *command: str) -> Running:
        command = command or (sys.executable, "-c", MAIN, msgspec.json.encode(options).decode())
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=self._environ, cwd=ROOT)
        self.running.append(Running(process))
        return self.running[-1]


@pytest.fixture
async def start(redis_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    start = Start(redis_url, tmp_path)
    yield start
    for running in start.running:
        if running.process.returncode is None:
            running.process.kill()
        await running.end()


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url, decode_responses=True)


async def test_term_lets_every_process_leave_warm(start: Start, redis: Redis) -> None:
    running = await start(WorkerOptions(processes=2))
    await running.ready(2)
    registered = redis.scard(WORKERS)
    running.signal(signal.SIGTERM)
    assert await running.end() == 0
    assert registered == 2
    assert redis.scard(WORKERS) == 0
    assert running.events().count("worker_left") == 2


async def test_term_while_processes_start_lets_them_leave_warm(start: Start, redis: Redis) -> None:
    running = await start(WorkerOptions(processes=2))
    await running.next("worker_started")
    running.signal(signal.SIGTERM)
    assert await running.end() == 0
    assert redis.scard(WORKERS) == 0


async def test_second_term_kills_a_process_that_cannot_leave(start: Start) -> None:
    running = await start(WorkerOptions())
    (pid,) = await running.ready(1)
    os.kill(pid, signal.SIGSTOP)
    running.signal(signal.SIGTERM)
    await running.next("stopping")
    running.signal(signal.SIGTERM)
    assert await running.end() == EXIT_COLD


async def test_shutdown_timeout_turns_a_warm_stop_cold(start: Start) -> None:
    running = await start(WorkerOptions(shutdown_timeout=0.1))
    (pid,) = await running.ready(1)
    os.kill(pid, signal.SIGSTOP)
    running.signal(signal.SIGTERM)
    assert await running.end() == EXIT_COLD


async def test_killed_process_is_started_again(start: Start) -> None:
    running = await start(WorkerOptions())
    (pid,) = await running.ready(1)
    os.kill(pid, signal.SIGKILL)
    died = await running.next("worker_died")
    (successor,) = await running.ready(1)
    running.signal(signal.SIGTERM)
    assert await running.end() == 0
    assert (died["pid"], died["code"], died["again_in"]) == (pid, -signal.SIGKILL, 0.2)
    assert successor != pid


async def test_fenced_process_begins_anew_at_once_under_another_id(start: Start, redis: Redis) -> None:
    running = await start(WorkerOptions())
    await running.ready(1)
    (worker,) = map(str, redis.smembers(WORKERS))
    redis.delete(f"{{w:{worker}}}")
    died = await running.next("worker_died")
    await running.ready(1)
    assert died["again_in"] == 0.0
    assert {line["worker"] for line in running.seen if line.get("event") == "worker_runs"} > {worker}


async def test_processes_leave_warm_when_their_supervisor_is_killed(start: Start, redis: Redis) -> None:
    running = await start(WorkerOptions(processes=2))
    await running.ready(2)
    running.signal(signal.SIGKILL)
    assert await running.end() == -signal.SIGKILL
    assert running.events().count("worker_left") == 2
    assert redis.scard(WORKERS) == 0


async def test_interrupt_of_the_whole_group_is_one_warm_stop(start: Start) -> None:
    running = await start(WorkerOptions())
    (pid,) = await running.ready(1)
    os.kill(pid, signal.SIGINT)
    running.signal(signal.SIGINT)
    assert await running.end() == 0
    assert running.events().count("worker_left") == 1


async def test_hup_replaces_the_processes(start: Start) -> None:
    running = await start(WorkerOptions())
    (old,) = await running.ready(1)
    running.signal(signal.SIGHUP)
    (new,) = await running.ready(1)
    assert (await running.next("reloaded"))["processes"] == 1
    if "worker_left" not in running.events():
        await running.next("worker_left")
    running.signal(signal.SIGTERM)
    assert await running.end() == 0
    assert old != new
    assert "worker_died" not in running.events()


@pytest.mark.parametrize("text", ["sesions = 3", 'relay = "http://127.0.0.1"'])
async def test_hup_with_a_bad_configuration_changes_nothing(start: Start, text: str) -> None:
    running = await start(WorkerOptions())
    await running.ready(1)
    start.config.write_text(text)
    running.signal(signal.SIGHUP)
    await running.next("reload_refused")
    running.signal(signal.SIGTERM)
    assert await running.end() == 0
    assert running.events().count("worker_left") == 1


async def test_configuration_that_only_the_processes_can_refuse_ends_the_supervisor(start: Start) -> None:
    start.config.write_text('relay = "http://127.0.0.1"')
    running = await start(WorkerOptions(processes=2))
    assert await running.end() == EXIT_REFUSED
    refused = [line for line in running.seen if line.get("event") == "worker_not_started"]
    assert "smtp://" in refused[0]["error"]


async def test_usr1_dumps_tasks_and_the_work_goes_on(start: Start) -> None:
    running = await start(WorkerOptions())
    await running.ready(1)
    running.signal(signal.SIGUSR1)
    await running.until(lambda line: "_tick_forever" in line.get("text", ""))
    running.signal(signal.SIGTERM)
    assert await running.end() == 0


async def test_burst_leaves_when_there_is_nothing_to_do(start: Start, redis: Redis) -> None:
    redis.sadd("{x}:accounts", "m1")
    redis.zadd("{m1}:at", {"later": 4e15})
    running = await start(WorkerOptions(processes=2, burst=True))
    assert await running.end() == 0
    assert running.events().count("worker_left") == 2


async def test_worker_without_a_supervisor_stops_warm_on_its_own_signals(start: Start, redis: Redis) -> None:
    running = await start(WorkerOptions(), sys.executable, "-m", "workers.send")
    await running.next("worker_runs")
    running.signal(signal.SIGINT)
    assert await running.end() == 0
    assert redis.scard(WORKERS) == 0


async def get(port: int, request: bytes) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body.decode()


async def test_probes_tell_alive_from_ready_and_metrics_are_summed(start: Start) -> None:
    running = await start(WorkerOptions(processes=2, metrics_port=0))
    port = (await running.next("metrics_served"))["port"]
    early, _ = await get(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    await running.ready(2)
    paths = ("/healthz", "/readyz", "/metrics", "/other")
    answers = {path: await get(port, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()) for path in paths}
    assert early == 503
    assert {path: code for path, (code, _) in answers.items()} == {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/other": 404}
    assert "# TYPE sendengine_outcomes_total counter" in answers["/metrics"][1]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: %b\r\n" % (b"y" * 9000) + b"\r\n", 431),
    ],
)
async def test_odd_requests_are_refused(start: Start, request_: bytes, code: int) -> None:
    running = await start(WorkerOptions(metrics_port=0))
    port = (await running.next("metrics_served"))["port"]
    assert (await get(port, request_))[0] == code
