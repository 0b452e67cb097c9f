"""One connection to Redis with many commands in flight: what is asked in one turn of the loop leaves in one write, replies come in order.

redis-py's own asyncio pipeline costs 11 to 15 µs of client CPU a command; commands packed once cost 0.7 to 2.3 (docs/design/001).
A lost connection fails whatever is in flight with Unavailable; the next call connects anew. Nothing is ever retried here: scripts are
idempotent by key, and who calls knows what a repeat means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from sendengine.errors import ConfigError, Fenced, Unavailable
from sendengine.queue.servers import connections
from sendengine.queue.wire import Wire

Argument = bytes | str | int | float
Command = tuple[Argument, ...]

CONNECT_SECONDS = 5.0  # the TCP connect and the handshake
MARK_MS = 1000
_TEMPORARY = frozenset(("OOM", "LOADING", "MISCONF", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS"))
_ELSEWHERE = frozenset(("MOVED", "ASK", "CROSSSLOT"))


_UNKNOWN_FUNCTION = "Function not found"


class FunctionMissing(ResponseError):
    """A function that a server does not keep; `link` leads to that server, whatever a table of slots says of it."""

    def __init__(self, text: str, link: Link) -> None:
        super().__init__(text)
        self.link = link


class Caller(Protocol):
    """What the queue asks of Redis, whatever its form: a Link to one server, or a ClusterLink (cluster.py)."""

    @property
    def generation(self) -> int:
        """It changes when the server may have lost its last writes, or another one answers now."""
        ...

    async def call(self, *args: Argument) -> Any: ...
    async def commit(self, *args: Argument, mark: Argument | None = None) -> Any: ...
    async def masters(self) -> Sequence[Link]: ...
    async def at(self, key: str) -> Link:
        """The server that a key stands on."""
        ...

    async def connect(self) -> None: ...
    def drop(self, reason: str) -> None: ...
    async def close(self) -> None: ...


def pack(args: Command) -> bytes:
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
        code = str(error.status_code or text.partition(" ")[0])
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


def committed(args: Command, mark: Argument | None, wait_ms: int) -> list[Command]:
    """A write and the wait for one replica that has it. WAIT speaks of the connection's own last write, and a new connection that wrote
    nothing is told that all is well: where the command may change nothing (a repeat), `mark`, a key of its slot, is written too."""
    written: list[Command] = [] if mark is None else [("SET", mark, "", "PX", MARK_MS)]
    return [args, *written, ("WAIT", 1, wait_ms)]


def asked(commands: Sequence[Command]) -> list[Command]:
    """The same for the node that is importing their slot."""
    return [each for command in commands for each in ((command,) if command[0] == "WAIT" else (("ASKING",), command))]


class Link:
    """Owner of one connection. `timeout`: seconds after which a silent server counts as away; None: its owner watches. `wait_ms`: how long
    `commit` waits for a replica; 0: it does not. `passed`: errors that the caller wants as they are."""

    def __init__(
        self, url: str, timeout: float | None = None, wait_ms: int = 0, connect_within: float = CONNECT_SECONDS,
        passed: tuple[type[Exception], ...] = (NoScriptError,),
    ) -> None:  # fmt: skip
        self._pool = connections(url, connect_within)
        self._timeout, self._wait_ms, self._connect_within, self._passed = timeout, wait_ms, connect_within, passed
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self.generation = 0  # connections made so far: who must know of a reconnect compares it

    async def call(self, *args: Argument) -> Any:
        """One command; its reply, as redis-py parses it, in octets. Unavailable when Redis is away, full or loading."""
        return await (self._call(args) if self._timeout is None else self._within_time(self._call(args), self._timeout))

    async def commit(self, *args: Argument, mark: Argument | None = None) -> Any:
        """As `call`, for a write that counts only when a replica has it, where one is waited for (`committed`). Unavailable otherwise,
        and then nobody knows: it may stand."""
        return await (self.together(committed(args, mark, self._wait_ms)) if self._wait_ms else self.call(*args))

    async def together(self, commands: Sequence[Command]) -> Any:
        """Commands that leave in one write, nothing between them; the reply of the first that is no ASKING."""
        work = self._together(commands)
        return await (work if self._timeout is None else self._within_time(work, self._timeout))

    async def masters(self) -> Sequence[Link]:
        return (self,)

    async def at(self, key: str) -> Link:
        return self

    async def _within_time(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            self.drop("no answer")
            raise Unavailable(f"Redis is away: no answer for {seconds:g} s", "the same call may go through later") from None

    async def _call(self, args: Command) -> Any:
        if self._wire is None:
            await self._connect()
        return await self.push(pack(args))

    async def _together(self, commands: Sequence[Command]) -> Any:
        if self._wire is None:
            await self._connect()
        replies = await asyncio.gather(*[self.push(pack(command)) for command in commands], return_exceptions=True)
        answers: list[Any] = []
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, BaseException):
                raise reply
            if command[0] == "WAIT" and reply < command[1]:
                raise Unavailable(f"no replica has it after {self._wait_ms} ms", "the same call may go through when one keeps up")
            if command[0] != "ASKING":
                answers.append(reply)
        return answers[0]

    def push(self, packed: bytes) -> asyncio.Future[Any]:
        """A packed command into the next write; the future of its reply. Fails at once when not connected."""
        if self._wire is not None:
            return self._wire.push(packed)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(Unavailable("Redis is away: not connected"))
        return future

    async def connect(self) -> None:
        """Connect now if not connected."""
        if self._wire is None:
            await self._connect()

    async def _connect(self) -> None:
        async with self._connecting:
            if self._wire is not None:
                return
            connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(self._connect_within):
                    await connection.connect()
                self._wire = Wire(connection, self._answered, self._lose)
            except BaseException as error:  # a caller that gave up, too, must not leave a half-made connection
                await connection.disconnect(nowait=True)
                if isinstance(error, (TimeoutError, RedisError, OSError)):
                    raise translate(error) from error
                raise
            self.generation += 1

    def _answered(self, future: asyncio.Future[Any], reply: Any) -> None:
        if isinstance(reply, Exception):
            future.set_exception(self._told(reply))
        else:
            future.set_result(reply)
        if isinstance(reply, ReadOnlyError) and self._wire is not None:  # no master any more: what the address leads to now is
            self._lose(self._wire, reply)

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, ResponseError) and _UNKNOWN_FUNCTION in str(error):
            return FunctionMissing(str(error), self)
        return error if isinstance(error, self._passed) else translate(error)

    def _lose(self, wire: Wire, error: Exception) -> None:
        if self._wire is not wire:
            return
        self._wire = None
        wire.abort()
        for future in wire.waiting:
            if not future.done():
                future.set_exception(translate(error))
                future.exception()  # a caller that went away need not be told twice
        asyncio.get_running_loop().create_task(wire.close())

    def drop(self, reason: str) -> None:
        """Give the connection up: it does not answer."""
        if self._wire is not None:
            self._lose(self._wire, TimeoutError(reason))

    async def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            for future in wire.waiting:
                future.cancel()
            await wire.close()
        await self._pool.aclose()
