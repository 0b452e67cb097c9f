"""A TCP proxy that fails on purpose: delay, bandwidth, blackhole, cut by FIN or RST, each by direction. For SMTP and for Redis.

It runs in the loop of whoever makes it. Faults are attributes, changed at any time, for all connections of the proxy; `cut` acts at once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_OCTETS = 16384


class Direction:
    """One way through the proxy: "up" leads to the server, "down" back to the client. Owner: the proxy."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds that each octet is late
        self.bandwidth = 0  # octets a second and connection; 0: any
        self.open = asyncio.Event()  # cleared: nothing passes, nothing is lost (a blackhole that may end)
        self.open.set()


class Proxy:
    """Listens on a free port of loopback in front of `target`; made by `proxy_to`. `is_telling`: each connection comes from an address of
    its own, by which the target tells it from all others, for good."""

    def __init__(self, target: int, is_telling: bool = False) -> None:
        self.target = target
        self._is_telling = is_telling
        self.port = 0
        self.up, self.down = Direction(), Direction()
        self.refuses = False  # new connections are closed at once
        self.accepted = 0
        self.cut_connections = 0
        self.cut_peers: set[str] = set()  # what the target knew them by
        self._pairs: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter | None]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.cut("rst")

    @property
    def peers(self) -> set[str]:
        """What the target knows the open connections by."""
        return {"{}:{}".format(*ahead.get_extra_info("sockname")) for _, ahead in self._pairs.values() if ahead is not None}

    def blackhole(self, up: bool = True, down: bool = True) -> None:
        for way, is_closed in ((self.up, up), (self.down, down)):
            if is_closed:
                way.open.clear()

    def heal(self) -> None:
        for way in (self.up, self.down):
            way.open.set()
            way.delay, way.bandwidth = 0.0, 0
        self.refuses = False

    async def cut(self, how: str = "rst") -> int:
        """End all connections on both sides, by FIN or RST; what was on its way in them is lost. Their number."""
        self.cut_peers |= self.peers
        pairs, self._pairs = self._pairs, {}
        for task, sides in pairs.items():
            for side in filter(None, sides):
                _end(side, how)
            task.cancel()
        self.cut_connections += len(pairs)
        await asyncio.gather(*pairs, return_exceptions=True)
        return len(pairs)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.refuses:
            _end(writer, "rst")
            return
        self.accepted += 1
        self._pairs[task] = (writer, None)
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", self.target, local_addr=self._source())
            self._pairs[task] = (writer, ahead)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry(reader, ahead, self.up))
                ways.create_task(_carry(behind, writer, self.down))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for side in filter(None, self._pairs.pop(task, ())):
                _end(side, "fin")

    def _source(self) -> tuple[str, int] | None:
        """All of 127.0.0.0/8 is loopback."""
        high, low = divmod(self.accepted, 250)
        return (f"127.1.{high}.{low + 1}", 0) if self._is_telling else None


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction) -> None:
    """Octets are late by `delay` each, whatever their number: read and written by two tasks."""
    loop = asyncio.get_running_loop()
    late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            at, data = await late.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            await way.open.wait()
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            if way.bandwidth:
                await asyncio.sleep(len(data) / way.bandwidth)

    writing = asyncio.create_task(write())
    try:
        while data := await reader.read(_OCTETS):
            late.put_nowait((loop.time() + way.delay, data))
        late.put_nowait((loop.time() + way.delay, b""))
        await writing
    finally:
        writing.cancel()


def _end(writer: asyncio.StreamWriter, how: str) -> None:
    raw = writer.get_extra_info("socket")
    if how == "rst" and raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


@asynccontextmanager
async def proxy_to(target: int, is_telling: bool = False) -> AsyncIterator[Proxy]:
    proxy = Proxy(target, is_telling)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
