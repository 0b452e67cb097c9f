"""How sends look to people: the columns of `status`, `list` and `top`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sendengine.commands import common

if TYPE_CHECKING:
    from sendengine.scheduler.binding import Binding
    from sendengine.scheduler.status import Status

COLUMNS = ("send", "state", "accepted", "pending", "deferred", "msg/h", "of", "through", "binds")


def rows(sends: Iterable[Status]) -> list[tuple[object, ...]]:
    return [
        (
            send.campaign, send.state + (" (loading)" if _is_loading(send) else ""), send.accepted, send.pending, send.deferred,
            send.rate_achieved, send.rate_contracted, send.through_at or send.finish_estimate,
            send.binding.limit if send.binding else None,
        )
        for send in sends
    ]  # fmt: skip


def facts(send: Status) -> list[tuple[str, object]]:
    outcomes = ((name, getattr(send, name)) for name in ("sent", "bounced", "expired", "suppressed", "cancelled", "unknown"))
    done = send.accepted - send.pending
    has_ended = send.state in ("finished", "cancelled")
    contracted = "unmetered" if send.rate_contracted is None else f"{send.rate_contracted:,.0f} messages per hour"
    return [
        ("state", send.state + (", its list is being loaded" if _is_loading(send) else "")),
        ("rows", f"{send.rows:,}: {send.accepted:,} accepted, {send.rejected:,} rejected, {send.duplicates:,} duplicates"),
        ("outcomes", ", ".join(f"{n:,} {name}" for name, n in outcomes if n) or "none yet"),
        ("receipts", None if send.delivered is None else f"{send.delivered:,} delivered, {send.undelivered:,} not"),
        ("pending", f"{send.pending:,}, {send.deferred:,} of them wait for a retry"),
        ("set aside", f"{send.quarantined:,}, see sendengine quarantine list {send.campaign}" if send.quarantined else None),
        ("progress", f"{done / send.accepted:.1%}" if send.accepted else None),
        ("rate contracted", None if has_ended else contracted),
        ("rate achieved", None if send.rate_achieved is None else f"{send.rate_achieved:,.0f} messages per hour"),
        ("started", send.started_at),
        ("through", send.through_at),
        ("finished", send.finished_at),
        ("will be through", _estimate(send)),
        ("beyond the end of the term", "yes: the rest is held until that is renewed" if send.passes_term else None),
        ("binds now", said(send.binding)),
    ]


def _is_loading(send: Status) -> bool:
    """Single messages come one by one: their list never ends."""
    return not send.sealed and not send.campaign.endswith(":transactional")


def _estimate(send: Status) -> str | None:
    from sendengine.scheduler.binding import UNTIMED

    limit = send.binding.limit if send.binding else ""
    if send.finish_estimate is not None:
        return common.shown(send.finish_estimate) + (" if a worker runs" if limit == "no_worker" else "")
    return common.shown(None) if limit in UNTIMED or _is_loading(send) else None


def said(binding: Binding | None) -> str | None:
    if binding is None:
        return None
    since = f" since {common.shown(binding.since)}" if binding.since else ""
    return f"{binding.limit}{since}; what lifts it: {binding.lift}"
