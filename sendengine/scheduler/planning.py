"""Before a send starts: when would it be through, and which tier would make a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from sendengine.errors import RefusedInput
from sendengine.policy.estimate import Job, estimate
from sendengine.policy.grants import changes, rate_at
from sendengine.policy.tiers import Tier
from sendengine.policy.times import format_time
from sendengine.remedies import field, said
from sendengine.scheduler.view import View, jobs, passes_term, wall


class TierEstimate(msgspec.Struct, frozen=True):
    tier: str
    per_hour: float | None
    finish_estimate: datetime | None
    makes_it: bool | None  # None without a deadline, and where nobody can tell (unmetered)


class Estimate(msgspec.Struct, frozen=True):
    """`finish_estimate`: at the account's own rate, beside what it has to do already; None when nobody can tell (unmetered)."""

    account: str
    recipients: int
    rate_contracted: float | None
    finish_estimate: datetime | None
    seconds: float | None
    finish_by: datetime | None
    makes_it: bool | None
    passes_term: bool  # it ends after the account's term does
    tier: str | None  # the slowest that makes it
    tiers: list[TierEstimate]


def plan(view: View, tiers: Mapping[str, Tier], recipients: int, start: float | None, finish_by: float | None) -> Estimate:
    """Raises RefusedInput for a deadline that is over."""
    if finish_by is not None and finish_by <= view.now:
        later = said(field("finish_by"), " names a time to come, as in +2h")
        raise RefusedInput(f"{format_time(finish_by)} is past: nothing is finished by then", later)
    todo = [*jobs(view).values(), Job(remaining=recipients, starts_at=start or 0.0)]

    def through(tier: float | None) -> float | None:
        """With the account's boosts, whatever the tier."""
        rate = rate_at(tier, view.grants, view.now)
        return None if rate is None else estimate(view.now, rate, todo, len(todo) - 1, changes(tier, view.grants, view.now))

    def makes_it(end: float | None) -> bool | None:
        return None if finish_by is None or end is None else end <= finish_by

    rows = []
    for tier in tiers.values():
        end = through(tier.per_hour)
        rows.append(TierEstimate(tier.name, tier.per_hour, None if end is None else wall(end), makes_it(end)))
    rows.sort(key=lambda row: row.per_hour or float("inf"))
    own = through(view.tier_rate)
    return Estimate(
        account=view.account,
        recipients=recipients,
        rate_contracted=view.rate,
        finish_estimate=None if own is None else wall(own),
        seconds=None if own is None else round(own - max(view.now, start or 0.0), 3),
        finish_by=None if finish_by is None else wall(finish_by),
        makes_it=makes_it(own),
        passes_term=passes_term(view, own),
        tier=next((row.tier for row in rows if row.makes_it), None),
        tiers=rows,
    )
