"""What an account's events from billing wait for: one that has not come, one that has and cannot be applied, or a payment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from sendengine.errors import RefusedInput
from sendengine.policy.billing import AnyEvent, decode, type_of
from sendengine.policy.entitlements import entitlements_of
from sendengine.policy.times import format_time
from sendengine.ports import Desk
from sendengine.scheduler.view import wall


class Awaited(msgspec.Struct, frozen=True):
    """`sequence` is that of the event awaited, or of the one that stands in the way (`why`); `events` have come and wait, the first of them
    `since`: None where the release before let one wait, and did not say when it came."""

    sequence: int
    events: int
    since: datetime | None
    why: str | None

    @property
    def said(self) -> str:
        n = f"{self.events:,} event{'' if self.events == 1 else 's'}"
        waiting = n if self.since is None else f"{n} since {format_time(self.since.timestamp())}"
        if self.why:
            return f"event {self.sequence} cannot be applied: {self.why}; it is tried again with the next event, waiting are {waiting}"
        return f"event {self.sequence} has not come from billing, waiting for it are {waiting}"


class OrderLine(msgspec.Struct, frozen=True):
    """An event that takes effect with the payment."""

    event: str
    type: str
    sequence: int


class OpenOrder(msgspec.Struct, frozen=True):
    """An order that nobody has paid yet."""

    order: str
    lines: list[OrderLine]

    @property
    def said(self) -> str:
        return f"{self.order}: " + ", ".join(f"{line.type} ({line.event})" for line in self.lines)


async def open_orders(desk: Desk, account: str, fields: Mapping[str, str]) -> list[OpenOrder]:
    """The one that has waited longest first. `fields` are the account's own."""
    kept = await desk.orders(account) if entitlements_of(fields).sequence else {}
    found = [OpenOrder(order, [*filter(None, map(_line, lines.split(b"\n")))]) for order, lines in kept.items()]
    return sorted(found, key=lambda each: (each.lines[0].sequence if each.lines else 0, each.order))


def _line(kept: bytes) -> OrderLine | None:
    """One in words of another release hides no other."""
    try:
        event: AnyEvent = decode(kept)
    except RefusedInput:
        return None
    return OrderLine(event.id, type_of(event), event.sequence)


async def awaited(desk: Desk, account: str, fields: Mapping[str, str]) -> Awaited | None:
    """`fields` are the account's own. None where nothing waits."""
    expected, early = entitlements_of(fields).sequence + 1, await desk.early(account)
    waiting = {at: came for at, came in early.items() if at >= expected}
    if not waiting:
        return None
    first = min(waiting.values())
    stuck, _, why = fields.get("stuck", "").partition(" ")
    return Awaited(expected, len(waiting), wall(first / 1e6) if first else None, why if stuck == str(expected) else None)
