"""The floor of the channel: ten connections that write the same octets with RFC 2920 and nothing else.

`python -m benchmarks.bare PORT COUNT OCTETS [tls]`. Nothing is taken, rendered, journalled, judged or settled: some prepared messages go
round, each body in one write with the next message's commands, and replies are looked at for a 354 only. Prints
{"seconds", "cpu", "count"}.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice

import orjson
import uvloop

from benchmarks.letter import sender
from benchmarks.pool import prepared

_CONNECTIONS = 10
_PREPARED = 200
_ACCOUNT = "m1"


class Writer(asyncio.Protocol):
    """One connection. A reply that ends in 354 asks for the next write; the greeting and EHLO are over."""

    def __init__(self, letters: Iterator[tuple[bytes, bytes]], stream: asyncio.StreamWriter) -> None:
        self._letters, self._transport = letters, stream.transport
        self._stream = stream  # it closes the transport when it goes
        self.is_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._body: bytes | None = b""

    def begin(self) -> None:
        self._next(b"")

    def data_received(self, data: bytes) -> None:
        if self._body is None:
            if b"\r\n250" in b"\r\n" + data and not self.is_done.done():
                self.is_done.set_result(None)
        elif b"\r\n354" in b"\r\n" + data:
            self._next(self._body)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_done.done():
            self.is_done.set_exception(error or ConnectionResetError("the sink hung up"))

    def _next(self, body: bytes) -> None:
        commands, self._body = next(self._letters, (b"", None))
        self._transport.write(body + commands)


async def send(port: int, count: int, octets: int, is_tls: bool) -> dict[str, float]:
    messages = [(_commands(to), wire + b".\r\n") for to, wire in prepared(_PREPARED, octets)]
    letters = islice(cycle(messages), count)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    writers = [await _connected(port, letters, context if is_tls else None) for _ in range(_CONNECTIONS)]
    started, cpu = time.perf_counter(), time.process_time()
    for writer in writers:
        writer.begin()
    await asyncio.gather(*(writer.is_done for writer in writers))
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "count": count}


def _commands(to: str) -> bytes:
    return f"MAIL FROM:<{sender(_ACCOUNT)}> BODY=8BITMIME\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode()


async def _connected(port: int, letters: Iterator[tuple[bytes, bytes]], context: ssl.SSLContext | None) -> Writer:
    """Greeted, under TLS where a context is given, and ready for MAIL."""
    reader, stream = await asyncio.open_connection("127.0.0.1", port)
    await _reply(reader)
    await _say(reader, stream, b"EHLO bare.example\r\n")
    if context is not None:
        await _say(reader, stream, b"STARTTLS\r\n")
        await stream.start_tls(context)
        await _say(reader, stream, b"EHLO bare.example\r\n")
    writer = Writer(letters, stream)
    stream.transport.set_protocol(writer)
    return writer


async def _say(reader: asyncio.StreamReader, stream: asyncio.StreamWriter, command: bytes) -> None:
    stream.write(command)
    await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> None:
    while (await reader.readline())[3:4] == b"-":
        pass


if __name__ == "__main__":
    to_port, how_many, size = map(int, sys.argv[1:4])
    print(orjson.dumps(uvloop.run(send(to_port, how_many, size, sys.argv[4:] == ["tls"]))).decode())
