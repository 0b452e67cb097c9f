"""How much a distant relay costs: one worker process against a pool of aiosmtplib connections, messages a second and connection.

The relay stands here: it answers at once, and each of its answers arrives so many milliseconds later, as over a line of that length. What
came in one write is answered in one. Both sides are slow for the same reason, so the ratio is one that a busy machine disturbs little.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from benchmarks.bench import Bench, Chart, Figure, Result, bench
from benchmarks.throughput import pool

TITLE = "distance: one worker process against an aiosmtplib pool, messages a second and connection, by the relay's answer time"
BOUND_S = 120.0
DELAYS_MS = (5, 20, 50)
FAR = DELAYS_MS[-1]
TOGETHER = 10
OURS = 2  # connections
THEIRS = 10
SECONDS = 2.0  # of the pool, and of ours where it is no faster than foreseen
_MOST = 12_000  # messages of a run
_BDAT = re.compile(rb"BDAT (\d+)")


class Way(msgspec.Struct, frozen=True):
    """How the engine sends. `factor`: messages in the time of one answer, as foreseen."""

    name: str
    chunking: bool
    together: int
    factor: float


WAYS = (
    Way("one by one, DATA", False, 1, 1.0),
    Way("one by one, BDAT", True, 1, 1.0),
    Way(f"chunk_messages = {TOGETHER}", True, TOGETHER, 2.0 * TOGETHER),
)


class _Sink(asyncio.Protocol):
    """One connection of the relay. Its clock tells when each message was taken."""

    def __init__(self, relay: DistantRelay) -> None:
        self._relay = relay
        self._unread = b""
        self._is_in_data = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._answer(b"220 distant ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._unread += data
        answers = []
        while (answer := self._next()) is not None:
            answers.append(answer)
        if answers:
            self._answer(b"".join(answers))

    def _answer(self, said: bytes) -> None:
        asyncio.get_running_loop().call_later(self._relay.delay, self._transport.write, said)

    def _next(self) -> bytes | None:
        """The answer to what has come whole."""
        line, end, rest = self._unread.partition(b"\r\n.\r\n" if self._is_in_data else b"\r\n")
        if not end:
            return None
        if self._is_in_data:
            self._is_in_data = False
        elif chunk := _BDAT.match(line):
            if len(rest) < int(chunk[1]):
                return None
            rest = rest[int(chunk[1]) :]
        else:
            self._unread = rest
            return self._command(line[:4].upper())
        self._unread = rest
        self._relay.took(self)
        return b"250 2.0.0 Ok: queued\r\n"

    def _command(self, verb: bytes) -> bytes:
        if verb == b"EHLO":
            return self._relay.greeting
        if verb == b"DATA":
            self._is_in_data = True
            return b"354 go on\r\n"
        return b"221 2.0.0 Bye\r\n" if verb == b"QUIT" else b"250 2.0.0 Ok\r\n"


class DistantRelay:
    """Takes everything; what it took is known by connection."""

    def __init__(self, delay: float, chunking: bool) -> None:
        self.delay = delay
        self.greeting = b"250-distant\r\n250-PIPELINING\r\n" + b"250-CHUNKING\r\n" * chunking + b"250 8BITMIME\r\n"
        self._taken: dict[_Sink, list[float]] = {}

    def took(self, connection: _Sink) -> None:
        self._taken.setdefault(connection, []).append(asyncio.get_running_loop().time())

    def per_second(self) -> float:
        """Messages a second of one connection: from the first fifth of what it took, when all were open and warm, to the last."""
        speeds = []
        for times in self._taken.values():
            start = len(times) // 5
            if len(times) > 10:
                speeds.append((len(times) - 1 - start) / (times[-1] - times[start]))
        return sum(speeds) / len(speeds)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        server = await asyncio.get_running_loop().create_server(lambda: _Sink(self), "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


async def run(quick: bool) -> Result:
    delays = (FAR,) if quick else DELAYS_MS
    seconds = 1.0 if quick else SECONDS
    measured: dict[str, dict[int, float]] = {"aiosmtplib pool": {}, **{way.name: {} for way in WAYS}}
    async with bench() as b:
        for delay in delays:
            measured["aiosmtplib pool"][delay] = await _pool(b, delay / 1000, seconds)
        for number, way in enumerate(WAYS):
            environ = {"SENDENGINE_CHUNK_MESSAGES": str(way.together)}
            worker = b.stage.worker("-p", "1", "-c", str(OURS), environ=environ)
            for delay in delays:
                measured[way.name][delay] = await _engine(b, f"m{1000 * number + delay}", way, delay / 1000, seconds)
            b.stage.stop(worker)
    return _result(measured)


async def _pool(b: Bench, delay: float, seconds: float) -> float:
    relay = DistantRelay(delay, False)
    async with relay.serving() as port:
        await pool(b, max(20 * THEIRS, int(seconds * THEIRS / (4 * delay))), port)
    return relay.per_second()


async def _engine(b: Bench, account: str, way: Way, delay: float, seconds: float) -> float:
    relay = DistantRelay(delay, way.chunking)
    async with relay.serving() as port:
        await b.account(account, "unmetered", port)
        send = await b.submit(account, min(_MOST, int(seconds * OURS * way.factor / delay)))
        await b.finished(send.id, 60)
    return relay.per_second()


def _result(measured: dict[str, dict[int, float]]) -> Result:
    rivals = measured["aiosmtplib pool"]
    ratios = {way.name: {delay: speed / rivals[delay] for delay, speed in measured[way.name].items()} for way in WAYS}
    columns = ["", *(f"{delay} ms: messages/s and connection" for delay in rivals)]
    rows = [["aiosmtplib pool", *(f"{speed:.1f}" for speed in rivals.values())]]
    for name, own in ratios.items():
        rows.append([name, *(f"{measured[name][delay]:.1f} ({ratio:.2f} x)" for delay, ratio in own.items())])
    plain, _, together = (ratios[way.name][FAR] for way in WAYS)
    figures = [
        Figure(f"against the pool at {FAR} ms, one by one, DATA", ">= 3.5", f"{plain:.2f}", plain >= 3.5),
        Figure(f"against the pool at {FAR} ms, chunk_messages = {TOGETHER}", ">= 50", f"{together:.1f}", together >= 50),
    ]
    series = {name: [(float(delay), speed) for delay, speed in speeds.items()] for name, speeds in measured.items()}
    data = {name: {str(delay): speed for delay, speed in speeds.items()} for name, speeds in measured.items()}
    return Result(TITLE, columns, rows, figures, Chart("ms until an answer", "messages a second and connection", series), data)
