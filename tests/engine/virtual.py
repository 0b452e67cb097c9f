"""An event loop whose time passes only when nothing else is left to do: a day of retries in milliseconds.

Everything that runs on it must be in memory: a socket would wait in virtual time for real octets. What runs `as_process` can be halted as
SIGSTOP halts a process, between any two steps of it, and continued later, or never: then it was killed.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

Result = TypeVar("Result")

_process: ContextVar[str] = ContextVar("process", default="")  # whose callback runs; tasks and timers inherit it


class Stuck(RuntimeError):
    """Nothing is left to run and no timer is set: the engine waits for something that cannot come."""


class _Jump(selectors.SelectSelector):
    """Selects without waiting, and moves the loop's time on by what it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("no timer is set")
        if timeout > 0:
            self.elapsed += timeout
        return super().select(0)


class _Step:
    """A callback on its way; `handle` is what its owner may cancel."""

    __slots__ = ("args", "callback", "context", "handle")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.callback, self.args, self.context = callback, args, context
        self.handle: asyncio.Handle | None = None


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        self._halted: dict[str, list[_Step]] = {}  # process -> what it would have done since
        super().__init__(self._jump)

    def time(self) -> float:
        return 1000.0 + self._jump.elapsed

    def stand_still(self, seconds: float) -> None:
        """What runs now takes so long, and nothing else runs meanwhile."""
        self._jump.elapsed += seconds

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        step = _Step(callback, args, context or copy_context())
        step.handle = super().call_soon(self._run, step, context=step.context)
        return step.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        step = _Step(callback, args, context or copy_context())
        step.handle = handle = super().call_at(when, self._run, step, context=step.context)
        return handle

    def _run(self, step: _Step) -> None:
        if step.handle is not None and step.handle.cancelled():
            return
        waiting = self._halted.get(_process.get())
        if waiting is None:
            step.callback(*step.args)
        else:
            waiting.append(step)

    def as_process(self, name: str, main: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        context = copy_context()
        context.run(_process.set, name)
        return self.create_task(main, context=context)

    def halt(self, name: str) -> None:
        self._halted[name] = []

    def go_on(self, name: str) -> None:
        for step in self._halted.pop(name):
            super().call_soon(self._run, step, context=step.context)


def virtual_loop() -> VirtualLoop:
    """The running one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


class VirtualClock:
    """ports.Clock on the running virtual loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_at(when, callback)


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
