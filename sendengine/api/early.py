"""Receipts that came before the ids of their messages were written: kept for a minute, and asked about again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from sendengine.ports import Desk
from sendengine.types import Receipt

KNOWN_AFTER_S = 60.0  # what names no message for so long is none of ours
EARLY_MOST = 20_000
TOGETHER = 1000  # of a provider in one look: all that are kept have their turn within KNOWN_AFTER_S


class Early:
    """Owner of the receipts that named nothing known: their ids may be on their way still. Bounded; a process loses
    them with its end."""

    def __init__(self) -> None:
        self._some: dict[str, deque[tuple[float, Receipt]]] = {}  # by provider: kept until; who was looked at longest ago first

    def __len__(self) -> int:
        return sum(map(len, self._some.values()))

    @property
    def providers(self) -> list[str]:
        return list(self._some)

    def add(self, now: float, provider: str, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Those that there is no room for."""
        room = max(0, EARLY_MOST - len(self))
        self._some.setdefault(provider, deque()).extend((now + KNOWN_AFTER_S, each) for each in receipts[:room])
        return receipts[room:]

    async def ask(self, desk: Desk, provider: str, now: float) -> tuple[list[Receipt], list[Receipt]]:
        """Of those whose turn it is: the ones that are known by now, and the ones that are given up. Raises Unavailable: all stay. For one
        caller at a time."""
        own = self._some.get(provider, deque())
        asked = list(islice(own, TOGETHER))
        unknown = {id(each) for each in await desk.receive(provider, [receipt for _, receipt in asked])} if asked else set()
        for _ in asked:  # only now: what has no answer is still there
            own.popleft()
        own.extend((until, receipt) for until, receipt in asked if id(receipt) in unknown and until > now)
        found = [receipt for _, receipt in asked if id(receipt) not in unknown]
        return found, [receipt for until, receipt in asked if id(receipt) in unknown and until <= now]
