"""The end of a site, whatever it speaks: what is on the wire may end, and what does not in time is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol


class Cut(Protocol):
    def abort(self, detail: str) -> None: ...


async def closed(connections: Collection[Cut], opening: Collection[asyncio.Task[None]], empty: asyncio.Event, timeout: float) -> None:
    """Until `empty` is set, since each connection was told to end; those left after `timeout` seconds are cut. `opening`: cancelled."""
    try:
        if connections:
            await asyncio.wait_for(empty.wait(), timeout)
    except TimeoutError:
        for connection in list(connections):
            connection.abort("closed by us before the answer")
    await asyncio.gather(*opening, return_exceptions=True)
