"""An event loop whose time passes only when nothing else is left to do: a day of retries in milliseconds.

Everything that runs on it must be in memory: a socket would wait in virtual time for real octets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


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


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return 1000.0 + self._jump.elapsed


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
