"""A server that stops answering is away, after a while, for whoever cannot watch it."""

from __future__ import annotations

import asyncio

import pytest

from sendengine.errors import Unavailable
from sendengine.queue.link import Link


async def test_a_silent_server_is_unavailable() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            pass
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = Link(f"redis://127.0.0.1:{port}", timeout=0.2)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(link.call("GET", "x"), 5)
    await link.close()
    server.close()
