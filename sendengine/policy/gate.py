"""Whether an account may send now, and what forbids it: its term, else its holds (domain rule 3). Pure; the scripts read the same fields.

The field `gate` of the account is what they read: 0 under a hold, else the µs at which its term ends, absent where it has no end
(queue/lua/gate.lua keeps it, docs/design/016).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sendengine import remedies
from sendengine.errors import Conflict
from sendengine.policy.holds import Hold, holds_of
from sendengine.policy.term import Phase, term_of
from sendengine.policy.times import format_time
from sendengine.remedies import Remedy

HOLD, TERM = "hold", "term"


class Shut(msgspec.Struct, frozen=True):
    """Why nothing goes: `limit` as `binding` names it, since when (UNIX seconds), and what would lift it."""

    limit: str
    since: float
    what: str
    lift: Remedy


def shut(account: str, fields: Mapping[str, str], now: float) -> Shut | None:
    """None while it may send. An end of the term hides the holds: renewing comes first, or it is too late for anything."""
    term = term_of(fields)
    if term is not None and term.ends is not None and not term.may_send(now):
        if term.phase(now) is Phase.DELETED:
            lift = remedies.said("nothing: its data are purged, and its id is never used again")
            return Shut(TERM, term.ends, "the account is deleted: its grace is over", lift)
        until = format_time(term.grace_ends or 0.0)
        what = f"the term ended at {format_time(term.ends)}"
        return Shut(TERM, term.ends, what, remedies.said(f"renew it before {until}: ", remedies.renew(account)))
    holds = holds_of(fields)
    if not holds:
        return None
    first, *others = (_lift(account, hold) for hold in holds)
    lift = remedies.said(first, *(part for each in others for part in ("; ", each)))
    return Shut(HOLD, holds[0].since, " and ".join(map(_what, holds)), lift)


def _what(hold: Hold) -> str:
    return f"it is held: {hold.title}" + (f" ({hold.text})" if hold.text else "")


def _lift(account: str, hold: Hold) -> Remedy:
    text = f" ({hold.text})" if hold.text else ""
    what = f"{hold.title}{text}: {hold.remedy}; {hold.department} lifts it: "
    return remedies.said(what, remedies.release(account, hold.reason))


def admit(account: str, fields: Mapping[str, str], now: float) -> None:
    """Raises Conflict, with the remedy, where the account takes no sends now."""
    found = shut(account, fields, now)
    if found is not None:
        raise Conflict(f"account {account} takes no sends now: {found.what}", found.lift)
