"""A send as people and programs see it: exactly the fields that `status --json` prints."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sendengine.lanes import is_paid, owner
from sendengine.scheduler.binding import UNTIMED, Binding, binding
from sendengine.scheduler.names import Ref
from sendengine.scheduler.view import ENDED, View, finish_estimate, moment, number, passes_term, pending, rate_achieved, wall


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times are of MAIL on the wire (finished_at: of the last outcome). Rates are messages per hour; rate_contracted is None for an
    unmetered account and once the send has ended, when rate_achieved is the average over all of it. Counts may lag by 5 s.
    pending = accepted - sum of outcomes; deferred of these wait for a retry, quarantined ones for a person. `passes_term`: it will not be
    through before the account's term ends, and what is left then is held until that is renewed."""

    campaign: str  # the full form, m1234:ID or m1234/sms:ID
    account: str
    state: str
    sealed: bool
    rows: int
    accepted: int
    rejected: int
    duplicates: int
    sent: int
    bounced: int
    expired: int
    suppressed: int
    cancelled: int
    unknown: int
    pending: int
    deferred: int
    quarantined: int
    rate_contracted: float | None
    rate_achieved: float | None
    started_at: datetime | None
    through_at: datetime | None
    finished_at: datetime | None
    finish_estimate: datetime | None
    passes_term: bool
    binding: Binding | None
    delivered: int | None = None  # SMS: recipients that the provider says it reached, and
    undelivered: int | None = None  # that it did not; of e-mail there is neither


class Send(Status, frozen=True, kw_only=True, omit_defaults=True):
    """What a submit answers. `created` is False when the same send stood already; `added` are rows that this call stored: 0, and nothing
    changed, where all of them stood, fewer than `rows` where a call before this one broke off."""

    id: str
    created: bool
    added: int


def status(view: View, campaign: str) -> Status:
    send = view.sends[campaign]
    bound = binding(view, campaign)
    estimate = None if bound is not None and bound.limit in UNTIMED else finish_estimate(view, campaign)
    return Status(
        campaign=str(Ref(view.account, campaign)),
        account=owner(view.account),
        state=send["state"],
        sealed=send.get("sealed") == "1",
        rows=number(send, "rows"),
        accepted=number(send, "accepted"),
        rejected=number(send, "rejected"),
        duplicates=number(send, "duplicates"),
        sent=number(send, "sent"),
        bounced=number(send, "bounced"),
        expired=number(send, "expired"),
        suppressed=number(send, "suppressed"),
        cancelled=number(send, "cancelled"),
        unknown=number(send, "unknown"),
        pending=pending(send),
        deferred=number(send, "deferred"),
        quarantined=number(send, "quarantined"),
        rate_contracted=None if send["state"] in ENDED else view.rate,
        rate_achieved=rate_achieved(send, view.now),
        started_at=moment(send, "first_mail"),
        through_at=moment(send, "through"),
        finished_at=moment(send, "finished"),
        finish_estimate=None if estimate is None else wall(estimate),
        passes_term=passes_term(view, estimate),
        binding=bound,
        delivered=number(send, "delivered") if is_paid(view.account) else None,
        undelivered=number(send, "undelivered") if is_paid(view.account) else None,
    )


def as_send(found: Status, created: bool, added: int = 0) -> Send:
    return Send(**msgspec.structs.asdict(found), id=found.campaign, created=created, added=added)
