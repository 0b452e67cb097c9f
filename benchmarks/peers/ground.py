"""What all peers stand on: one stage with its Redis and our worker, one sink, and the servers that are kept from round to round."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import orjson

from benchmarks.bench import ROOT, Bench
from benchmarks.peers.install import Absent
from benchmarks.peers.sink import Arrival, Sink

ROUND_S = 60.0  # no round takes longer; what has come by then is its result
_START_S = 20.0
_STOP_S = 5.0

Arriving = asyncio.Task[Arrival]


class Server(msgspec.Struct, frozen=True):
    """One of the peers' that listens, and the file of what it says on standard error."""

    port: int
    process: subprocess.Popen[bytes]
    said: Path


class Ground:
    """`with Ground(…) as ground:` — owner of the kept servers. They are not the stage's: one that dies ends nobody's round but its own."""

    def __init__(self, b: Bench, sink: Sink, worker: int) -> None:
        self.b, self.sink, self.worker = b, sink, worker
        self._servers: dict[str, Server] = {}
        self._rounds = 0

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers.values():
            stop(server)

    def account(self) -> str:
        """One that was not used yet."""
        self._rounds += 1
        return f"m{1000 + self._rounds}"

    async def kept(self, name: str, start: Callable[[Ground], Server]) -> Server:
        """The server of that name, started the first time; it listens."""
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = start(self)
        await _listens(name, server)
        return server

    def server(self, name: str, port: int, *words: str, environ: Mapping[str, str] | None = None) -> Server:
        """A program in a session of its own, of which `stop` leaves nothing."""
        said = self.b.stage.folder / f"peer-{name}.log"
        clean = self.b.stage.environ() | dict(environ or {})
        with said.open("wb") as log:
            null = subprocess.DEVNULL
            process = subprocess.Popen(words, stdin=null, stdout=log, stderr=log, env=clean, cwd=ROOT, start_new_session=True)
        return Server(port, process, said)

    @contextlib.asynccontextmanager
    async def script(self, *words: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
        """A program that ends by itself, and is ended where it does not."""
        clean = self.b.stage.environ() | dict(environ or {})
        process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE, env=clean, cwd=ROOT, start_new_session=True)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def cost(self, *words: str, environ: Mapping[str, str] | None = None) -> float:
        """CPU µs a message that a sending program says of itself: its last line is {"cpu", "count"}. 0.0 when its time was up."""
        async with self.script(*words, environ=environ) as process:
            try:
                async with asyncio.timeout(ROUND_S):
                    out, errors = await process.communicate()
            except TimeoutError:
                return 0.0
        if process.returncode:
            raise Absent(f"{os.path.basename(words[0])} failed: {_last_line(errors)}")
        said = orjson.loads(out.splitlines()[-1])
        return float(said["cpu"]) / int(said["count"]) * 1e6

    async def inject(self, port: int, count: int) -> None:
        """The prepared letters handed to a relay over SMTP, by ten connections kept open."""
        await self.cost(sys.executable, "-m", "benchmarks.pool", str(port), str(count))


def stop(server: Server, within: float = _STOP_S) -> None:
    """Ends it and all of its session: those that a server leaves behind belong to nobody else."""
    server.process.terminate()
    try:
        server.process.wait(within)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()


async def _listens(name: str, server: Server) -> None:
    try:
        async with asyncio.timeout(_START_S):
            while True:
                if server.process.poll() is not None:
                    raise Absent(f"{name} ended with {server.process.returncode}: {_last_line(server.said.read_bytes())}")
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    greeting = await reader.readline()
                    writer.close()
                    if greeting.startswith(b"220"):
                        return
                except OSError:
                    pass
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Absent(f"{name} did not listen within {_START_S:.0f} s") from None


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:120] if lines else "it said nothing"


Send = Callable[[Ground, int, Arriving], Awaitable[float]]
