"""The loop's time that rendering with logic may take: a few milliseconds at a time, a quarter of it while others wait, one at a time.

A row with logic takes from microseconds to tenths of a second, as its author likes, and which of them nobody can tell before. So the
clock is looked at after each row; and what was taken is followed by three times as much for everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SLICE = 0.004  # seconds after which no further row is begun; a fifth of a tick
REST = 3.0  # times what a slice took


class Turnstile:
    """Owner of the right to render rows with logic in this worker. First come, first served, a slice each."""

    def __init__(self, now: Callable[[], float], is_shared: Callable[[], bool]) -> None:
        self._now, self._is_shared = now, is_shared
        self._turn = asyncio.Lock()
        self._free_at = 0.0

    async def slice(self, step: Callable[[], bool]) -> bool:
        """Wait for a turn and call `step` until the time is over or it returns False; then False."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._free_at - self._now()))
            began = self._now()
            try:
                while step():
                    if self._now() - began >= SLICE:
                        return True
                return False
            finally:
                ended = self._now()
                self._free_at = ended + REST * (ended - began) if self._is_shared() else ended
