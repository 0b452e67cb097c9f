"""A connection to Redis once redis-py has made it: packed commands out, replies in, in order. It knows no command's meaning.

redis-py does connect, TLS, AUTH and the rest of the handshake; its transport is then handed to this protocol, as SMTP's is. Each reply that
its own reader takes costs 10 µs and more in coroutines; here what arrived at once is parsed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import InvalidResponse

_NOT_YET = object()  # a reply may be None or False


class Wire(asyncio.Protocol):
    """Owner of the transport. `answered` is told of each reply for which somebody waits, an error as such; `lost`, once, of an end that its
    owner did not make: the peer's, the loop's, or a reply that no connection outlives."""

    def __init__(
        self, connection: aioredis.Connection,
        answered: Callable[[asyncio.Future[Any], Any], None], lost: Callable[[Wire, Exception], None],
    ) -> None:  # fmt: skip
        reader, writer = connection._reader, connection._writer
        if reader is None or writer is None or reader.at_eof() or writer.transport.is_closing():
            raise Disconnected("closed by the server")
        self._connection = connection  # it closes the transport when it goes
        self._answered, self._lost = answered, lost
        self._replies = hiredis.Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_NOT_YET)
        self._loop = asyncio.get_running_loop()
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._is_paused = self._is_over = False
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def push(self, packed: bytes) -> asyncio.Future[Any]:
        """What is asked in one turn of the loop leaves in one write; the future of its reply."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.waiting.append(future)
        if not self._out and not self._is_paused:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        return future

    def abort(self) -> None:
        """Closed by RST: what it had still to send must not arrive behind what its successor says (RFC 9293 3.10.5)."""
        self._is_over = True
        if self._transport.is_closing():
            return
        if (own := self._transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):  # it is gone already
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def close(self) -> None:
        self._is_over = True
        await self._connection.disconnect(nowait=True)

    # from the loop

    def data_received(self, data: bytes) -> None:
        replies, waiting = self._replies, self.waiting
        replies.feed(data)
        try:
            while not self._is_over and (reply := replies.gets(False)) is not _NOT_YET:
                if isinstance(reply, Disconnected):  # the server is loading, has too many clients, …
                    raise reply
                if not waiting:
                    raise InvalidResponse("a reply that nobody asked for")
                future = waiting.popleft()
                if not future.done():
                    self._answered(future, reply)
        except (InvalidResponse, Disconnected) as error:
            self._end(error)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()

    def eof_received(self) -> None:
        self._end(Disconnected("closed by the server"))  # at once: what is unwritten would be waited for

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Disconnected(str(exc or "closed by the server")))  # whatever it is: the loop's errors are no bugs of the caller's

    def _flush(self) -> None:
        if self._out and not self._is_paused and not self._is_over:
            out, self._out = self._out, []
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _end(self, error: Exception) -> None:
        if not self._is_over:
            self._is_over = True
            self._lost(self, error)
