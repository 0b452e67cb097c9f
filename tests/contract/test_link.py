"""A server that does not answer, is full, or is no master any more is away: to be asked again, never a bug of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sendengine.errors import ConfigError, Unavailable
from sendengine.queue.link import Link, pack


@asynccontextmanager
async def server(*answers: bytes) -> AsyncIterator[str]:
    """One that gives each connection these answers to its SETs, in order, and OK to whatever a client says of itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = iter(answers)
        while line := await reader.readline():
            if line == b"CLIENT\r\n":
                writer.write(b"+OK\r\n")
            elif line == b"SET\r\n" and (answer := next(waiting, None)) is not None:
                writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def until_set(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers what a client says of itself, up to the first SET."""
    while (line := await reader.readline()) != b"SET\r\n":
        if line == b"CLIENT\r\n":
            writer.write(b"+OK\r\n")


async def test_a_silent_server_is_unavailable() -> None:
    async with server() as url:
        link = Link(url, timeout=0.2)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(link.call("SET", "x", "y"), 5)
        await link.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'. script: x, on @user_script:1.\r\n",
        b"-MISCONF Errors writing to the AOF file: No space left on device\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-LOADING the dataset in memory\r\n",
        b"-NOREPLICAS Not enough good replicas to write.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-BUSY a script is running\r\n",
    ],
)
async def test_a_server_that_cannot_serve_now_is_unavailable(answer: bytes) -> None:
    async with server(answer) as url:
        link = Link(url, timeout=5)
        with pytest.raises(Unavailable):
            await link.call("SET", "x", "y")
        await link.close()


async def test_a_master_that_became_a_replica_is_left() -> None:
    """Behind its address, or its sentinel, stands another one by now: only a new connection finds it."""
    async with server(b"-READONLY You can't write against a read only replica.\r\n") as url:
        link = Link(url, timeout=5)
        with pytest.raises(Unavailable):
            await link.call("SET", "x", "y")
        await link.connect()
        assert link.generation == 2
        await link.close()


async def test_a_cluster_named_as_a_single_server_is_refused_with_the_way_out() -> None:
    async with server(b"-MOVED 3999 127.0.0.1:6381\r\n") as url:
        link = Link(url, timeout=5)
        with pytest.raises(ConfigError, match="cluster") as refused:
            await link.call("SET", "x", "y")
        await link.close()
    assert "redis+cluster://" in refused.value.remedy


async def test_a_server_that_hangs_up_is_lost_at_once_whatever_is_unsent() -> None:
    """A proxy may close its half, and read no more."""
    closed = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_set(reader, writer)
        writer.write_eof()
        await closed.wait()
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0, limit=1024)
    async with listening:
        link = Link(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        with pytest.raises(Unavailable):
            await asyncio.wait_for(link.call("SET", "x", b"y" * 30_000_000), 20)
        closed.set()
        await link.close()


async def test_a_reply_that_nobody_asked_for_ends_the_connection_and_no_caller() -> None:
    async with server(b"+OK\r\n-ERR from somebody between\r\n") as url:
        link = Link(url, timeout=5)
        for generation in (1, 2):
            assert await link.call("SET", "x", "y") == b"OK"
            assert link.generation == generation
        await link.close()


async def test_a_server_that_accepts_and_says_nothing_does_not_hold_a_connect() -> None:
    """A partition: the handshake is bounded as the TCP connect is, and what was begun is closed."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.append(await reader.read() is not None)
        writer.close()

    left: list[bool] = []
    listening = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with listening:
        link = Link(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}", connect_within=0.2)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(link.connect(), 30)
        while not left:  # noqa: ASYNC110 - the peer's own task sees the end of file
            await asyncio.sleep(0.01)
        await link.close()


async def test_what_a_given_up_connection_had_still_to_send_never_arrives() -> None:
    """A take that arrives late, behind its successor's give-back, would be a lease that nobody knows of."""
    reading, drop, got = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop().create_future()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_set(reader, writer)
        reading.set()
        await drop.wait()
        size, end = 0, ""
        try:
            while chunk := await reader.read(65536):
                size += len(chunk)
        except ConnectionResetError:
            end = "reset"
        got.set_result((size, end))
        writer.close()

    listening = await asyncio.start_server(late, "127.0.0.1", 0, limit=1024)
    async with listening:
        link = Link(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}", timeout=30)
        await link.connect()
        future = link.push(pack(("SET", "x", b"y" * 30_000_000)))
        await reading.wait()
        link.drop("no answer")
        drop.set()
        with pytest.raises(Unavailable):
            await future
        size, end = await asyncio.wait_for(got, 20)
        await link.close()
    assert size < 30_000_000
    assert end == "reset"
