"""Receipts that came before the ids of their messages were written: kept for a minute, and asked about again."""

from __future__ import annotations

from sendengine.ports import Desk
from sendengine.types import Receipt

KNOWN_AFTER_S = 60.0  # what names no message for so long is none of ours
EARLY_MOST = 20_000


class Early:
    """Owner of the receipts that named nothing known: their ids may be on their way still. Bounded; a process loses
    them with its end."""

    def __init__(self) -> None:
        self._some: list[tuple[float, str, Receipt]] = []

    def add(self, now: float, provider: str, receipts: list[Receipt]) -> None:
        self._some += [(now + KNOWN_AFTER_S, provider, each) for each in receipts[: EARLY_MOST - len(self._some)]]

    async def ask(self, desk: Desk, now: float) -> list[tuple[str, Receipt]]:
        """Those that are known by now, with their providers."""
        asked, self._some = self._some, []
        found: list[tuple[str, Receipt]] = []
        for provider in {provider for _, provider, _ in asked}:
            own = [(until, receipt) for until, each, receipt in asked if each == provider]
            unknown = {id(each) for each in await desk.receive(provider, [receipt for _, receipt in own])}
            found += [(provider, receipt) for _, receipt in own if id(receipt) not in unknown]
            self._some += [(until, provider, receipt) for until, receipt in own if id(receipt) in unknown and until > now]
        return found
