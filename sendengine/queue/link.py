"""One connection to Redis with many commands in flight: what is asked in one turn of the loop leaves in one write, replies come in order.

redis-py's own asyncio pipeline costs 11 to 15 µs of client CPU a command; commands packed once cost 0.7 to 2.3 (docs/design/001).
A lost connection fails whatever is in flight with Unavailable; the next call connects anew. Nothing is ever retried here: scripts are
idempotent by key, and who calls knows what a repeat means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from sendengine.errors import ConfigError, Fenced, Unavailable

Argument = bytes | str | int | float

CONNECT_SECONDS = 5.0  # the TCP connect and the handshake
_TEMPORARY = frozenset(("OOM", "LOADING", "MISCONF", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS"))
_ELSEWHERE = frozenset(("MOVED", "ASK", "CROSSSLOT"))


def pack(args: tuple[Argument, ...]) -> bytes:
    """A command as RESP octets."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        if not isinstance(arg, bytes):
            arg = str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(parts)


def translate(error: Exception) -> Exception:
    """redis-py's errors as ours, at this one seam. It cuts the code off the text of those it has a class for, so both are looked at."""
    text = str(error)
    if isinstance(error, ResponseError) and not isinstance(error, NoScriptError):
        code = error.status_code or text.partition(" ")[0]
        if code == "FENCED":
            return Fenced(text)
        if code in _ELSEWHERE:
            return ConfigError(f"this Redis is part of a cluster: {code} {text}", "name it redis+cluster://host:port,host:port")
        if code not in _TEMPORARY and not any(word in text for word in ("OOM ", "MISCONF")):
            return error
        text = f"{code} {text.removeprefix(code).lstrip()}"
    elif not isinstance(error, (RedisError, OSError, asyncio.TimeoutError, EOFError)):
        return error
    return Unavailable(f"Redis is away: {text or type(error).__name__}", "the same call may go through later")


class Link:
    """Owner of one connection. `timeout`: seconds after which a silent server counts as away; None: its owner watches."""

    def __init__(self, url: str, timeout: float | None = None, connect_within: float = CONNECT_SECONDS) -> None:
        self._pool = aioredis.ConnectionPool.from_url(url, protocol=2, socket_connect_timeout=connect_within, socket_timeout=None)
        self._timeout, self._connect_within = timeout, connect_within
        self._connection: aioredis.Connection | None = None
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._pump: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._has_work = asyncio.Event()
        self._connecting = asyncio.Lock()
        self.generation = 0  # connections made so far: who must know of a reconnect compares it

    async def call(self, *args: Argument) -> Any:
        """One command; its reply, as redis-py parses it, in octets. Unavailable when Redis is away, full or loading."""
        if self._timeout is None:
            return await self._call(args)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._call(args)
        except TimeoutError:
            self.drop("no answer")
            raise Unavailable(f"Redis is away: no answer for {self._timeout:g} s", "the same call may go through later") from None

    async def _call(self, args: tuple[Argument, ...]) -> Any:
        if self._connection is None:
            await self._connect()
        return await self.push(pack(args))

    def push(self, packed: bytes) -> asyncio.Future[Any]:
        """A packed command into the next write; the future of its reply. Fails at once when not connected."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._connection is None:
            future.set_exception(Unavailable("Redis is away: not connected"))
            return future
        self._waiting.append(future)
        self._out.append(packed)
        self._has_work.set()
        return future

    async def connect(self) -> None:
        """Connect now if not connected."""
        if self._connection is None:
            await self._connect()

    async def _connect(self) -> None:
        async with self._connecting:
            if self._connection is not None:
                return
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(self._connect_within):
                    await connection.connect()
            except BaseException as error:  # a caller that gave up, too, must not leave a half-made connection
                await connection.disconnect(nowait=True)
                if isinstance(error, (TimeoutError, RedisError, OSError)):
                    raise translate(error) from error
                raise
            self._connection = connection
            self.generation += 1
            self._out.clear()
            self._pump = asyncio.create_task(self._write_all(connection))
            self._reader = asyncio.create_task(self._read_all(connection))

    async def _write_all(self, connection: aioredis.Connection) -> None:
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                out, self._out = self._out, []
                if out:
                    await connection.send_packed_command([b"".join(out)], check_health=False)
        except (RedisError, OSError) as error:
            self._lose(connection, error)

    async def _read_all(self, connection: aioredis.Connection) -> None:
        """Replies in order. A reply that is overdue while others wait means the connection is dead."""
        try:
            while True:
                try:
                    reply = await connection.read_response(disable_decoding=True, timeout=None)
                except ResponseError as error:
                    reply = error
                future = self._waiting.popleft()
                if future.done():
                    continue
                if isinstance(reply, Exception):
                    future.set_exception(reply if isinstance(reply, NoScriptError) else translate(reply))
                else:
                    future.set_result(reply)
                if isinstance(reply, ReadOnlyError):  # no master any more: what the address leads to now is
                    self._lose(connection, reply)
                    return
        except (RedisError, OSError, EOFError) as error:
            self._lose(connection, error)

    def _lose(self, connection: aioredis.Connection, error: Exception) -> None:
        if self._connection is not connection:
            return
        self._connection = None
        current = asyncio.current_task()
        for task in (self._pump, self._reader):
            if task is not None and task is not current:
                task.cancel()
        waiting, self._waiting = self._waiting, deque()
        self._out.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(translate(error))
                future.exception()  # a caller that went away need not be told twice
        asyncio.get_running_loop().create_task(connection.disconnect(nowait=True))

    def drop(self, reason: str) -> None:
        """Give the connection up: it does not answer."""
        if self._connection is not None:
            self._lose(self._connection, TimeoutError(reason))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        for task in (self._pump, self._reader):
            if task is not None:
                task.cancel()
        for future in self._waiting:
            if not future.done():
                future.cancel()
        self._waiting.clear()
        if connection is not None:
            await connection.disconnect(nowait=True)
