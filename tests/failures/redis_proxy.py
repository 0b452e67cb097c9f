"""A TCP proxy on loopback that can fall silent, as a partitioned network does: nothing passes, nothing ends, and what was sent waits.

A connection that is reset meanwhile loses what it had waiting, as a kernel that has dropped its socket sends nothing again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    def __init__(self, target: int) -> None:
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.held = 0  # octets that waited for the end of a silence

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def silence(self) -> None:
        self._passing.clear()

    def heal(self) -> None:
        self._passing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A new connection comes through when the network does."""
        await self._passing.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        for each in (self._pump(reader, back), self._pump(there, writer)):
            task = asyncio.get_running_loop().create_task(each)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65536):
                if not self._passing.is_set():
                    self.held += len(chunk)
                    await self._passing.wait()
                    if source.exception() is not None:
                        break
                sink.write(chunk)
                await sink.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            sink.transport.abort()
        finally:
            sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    made = Proxy(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
