"""Answers that last: NDJSON and server-sent events. They end within a second of the revocation of their key, or of a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Generic, TypeVar

from starlette.responses import StreamingResponse

from sendengine.api.access import CHECK_AGAIN_S
from sendengine.api.call import Call
from sendengine.api.problems import Problem, octets, problem_of
from sendengine.errors import SendEngineError

T = TypeVar("T")
AHEAD = 1000  # items that are read while the client takes its time
BEAT_S = 15.0
NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"
NO_STORE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def ndjson(call: Call, items: AsyncIterator[T], encode: Callable[[T], bytes]) -> StreamingResponse:
    """One item a line. What is wrong at once is a problem document; later the body is broken off, which a client sees."""
    return await _streamed(call, items, lambda item: encode(item) + b"\n", NDJSON, b"")


async def events(call: Call, items: AsyncIterator[T], encode: Callable[[T], bytes]) -> StreamingResponse:
    """WHATWG HTML 9.2: an event `status` each; a comment now and then, so that nobody on the way thinks it dead."""
    return await _streamed(call, items, lambda item: b"event: status\ndata: " + encode(item) + b"\n\n", EVENTS, b": still here\n\n")


async def _streamed(
    call: Call, items: AsyncIterator[T], encode: Callable[[T], bytes], media: str, beat: bytes
) -> StreamingResponse:
    stack = ExitStack()
    stack.enter_context(call.services.door.streams.one(call.key.digest))
    ahead = _Ahead(items, encode)
    try:
        await ahead.some(CHECK_AGAIN_S)  # what nobody has said by then is said in the stream
    except BaseException:
        await ahead.close()
        stack.close()
        raise

    async def body() -> AsyncIterator[bytes]:
        try:
            async for part in _lasting(call, ahead, beat):
                yield part
        except (Problem, SendEngineError) as error:
            if media != EVENTS:
                raise
            yield b"event: problem\ndata: " + octets(problem_of(error)) + b"\n\n"
        finally:
            stack.close()
            await ahead.close()

    return StreamingResponse(body(), headers=NO_STORE, media_type=media)


async def _lasting(call: Call, ahead: _Ahead[T], beat: bytes) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    asked_at = beat_at = loop.time()
    while True:
        part = ahead.take()
        if part:
            beat_at = loop.time()
            yield part
        elif ahead.has_ended:
            return
        elif beat and loop.time() - beat_at >= BEAT_S:
            beat_at = loop.time()
            yield beat
        if loop.time() - asked_at >= CHECK_AGAIN_S:
            asked_at = loop.time()
            await call.go_on()
        await ahead.some(CHECK_AGAIN_S)


class _Ahead(Generic[T]):
    """Reads items ahead of whoever takes them, so many at most. Owner of the task that reads."""

    def __init__(self, items: AsyncIterator[T], encode: Callable[[T], bytes]) -> None:
        self._items, self._encode = items, encode
        self._parts: list[bytes] = []
        self._has_some, self._has_room = asyncio.Event(), asyncio.Event()
        self._is_over = False
        self._error: Exception | None = None
        self._task = asyncio.get_running_loop().create_task(self._read())

    @property
    def has_ended(self) -> bool:
        """Raises what ended the reading: an end before the end must not look like one."""
        if not self._is_over or self._parts:
            return False
        if self._error is not None:
            raise self._error
        return True

    async def some(self, seconds: float) -> None:
        """Until there is something to take, the end, or so long. Raises what ended the reading."""
        if not self._parts and not self._is_over:
            self._has_some.clear()
            try:
                await asyncio.wait_for(self._has_some.wait(), seconds)
            except TimeoutError:
                return
        _ = self.has_ended

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        self._has_room.set()
        return b"".join(parts)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for item in self._items:
                self._parts.append(self._encode(item))
                self._has_some.set()
                if len(self._parts) >= AHEAD:
                    self._has_room.clear()
                    await self._has_room.wait()
        except Exception as error:
            self._error = error
        finally:
            self._is_over = True
            self._has_some.set()
