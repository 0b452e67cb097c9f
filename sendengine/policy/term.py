"""The term of an account: trial, active, cancelled_active, grace, deleted (domain rule 3). Pure: now is passed in, UNIX seconds.

What was agreed (trial, active, cancelled_active) and when it ends are kept; grace and deleted follow from the time alone, so no clock has
to strike for them. A day is 86,400 seconds: ten days of grace are as long across a change to summer time, and the same in every zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from sendengine.errors import Conflict, RefusedInput, about
from sendengine.policy.times import format_time
from sendengine.remedies import Remedy, field, said, term_verb

DAY = 86400.0
GRACE_DAYS = 10.0
PURGE_SOONEST_DAYS = 10.0  # no setting brings a purge nearer to the end of the term


class Phase(StrEnum):
    TRIAL = "trial"
    ACTIVE = "active"
    CANCELLED_ACTIVE = "cancelled_active"
    GRACE = "grace"
    DELETED = "deleted"


class Verb(StrEnum):
    TRIAL = "trial"  # begin one
    RENEW = "renew"  # active until a later time, or without an end; a purchase, too
    CANCEL = "cancel"  # it will not be renewed; nothing else changes
    REACTIVATE = "reactivate"  # take the cancelling back
    EXPIRE = "expire"  # it ends now


class Term(msgspec.Struct, frozen=True):
    """`agreed` is trial, active or cancelled_active; `ends` None is without an end. Days are counted from `ends`."""

    agreed: Phase
    ends: float | None = None
    grace_days: float = GRACE_DAYS
    purge_after_days: float = PURGE_SOONEST_DAYS

    @property
    def grace_ends(self) -> float | None:
        """From here on it cannot be renewed."""
        return None if self.ends is None else self.ends + self.grace_days * DAY

    @property
    def purge_at(self) -> float | None:
        """From here on it may be purged: not before the grace is over, nor before day 10."""
        return None if self.ends is None else self.ends + max(self.grace_days, self.purge_after_days, PURGE_SOONEST_DAYS) * DAY

    def phase(self, now: float) -> Phase:
        """Each of the times belongs to what follows it."""
        if self.ends is None or self.grace_ends is None or now < self.ends:
            return self.agreed
        return Phase.GRACE if now < self.grace_ends else Phase.DELETED

    def may_send(self, now: float) -> bool:
        """Cancelling changes renewal only."""
        return self.ends is None or now < self.ends


# What each verb makes of a term in each phase; None: an account without a term, which may send and has no end. What is not here is refused.
NEXT: Mapping[Verb, Mapping[Phase | None, Phase]] = {
    Verb.TRIAL: {None: Phase.TRIAL},
    Verb.RENEW: dict.fromkeys((None, Phase.TRIAL, Phase.ACTIVE, Phase.CANCELLED_ACTIVE, Phase.GRACE), Phase.ACTIVE),
    Verb.CANCEL: dict.fromkeys((None, Phase.ACTIVE, Phase.CANCELLED_ACTIVE), Phase.CANCELLED_ACTIVE),
    Verb.REACTIVATE: dict.fromkeys((Phase.ACTIVE, Phase.CANCELLED_ACTIVE), Phase.ACTIVE),
    Verb.EXPIRE: {
        None: Phase.ACTIVE,
        Phase.TRIAL: Phase.TRIAL,
        Phase.ACTIVE: Phase.ACTIVE,
        Phase.CANCELLED_ACTIVE: Phase.CANCELLED_ACTIVE,
        Phase.GRACE: Phase.GRACE,
    },
}
_NOW = said(term_verb("expire"), " ends it now")
_IN_GRACE = said(term_verb("renew", "TIME"), ", before the grace ends")
_REFUSED: Mapping[tuple[Verb, Phase | None], tuple[str, str | Remedy]] = {  # what is said where there is more to say than the phase
    (Verb.TRIAL, Phase.GRACE): ("its term is over: a trial is the first one", _IN_GRACE),
    (Verb.CANCEL, Phase.TRIAL): ("a trial is not renewed: there is nothing to cancel", _NOW),
    (Verb.CANCEL, Phase.GRACE): ("its term is over: there is no renewal to cancel", _IN_GRACE),
    (Verb.REACTIVATE, Phase.GRACE): ("its term is over", _IN_GRACE),
}
_OTHERWISE: Mapping[Verb, tuple[str, str | Remedy]] = {
    Verb.TRIAL: ("it has a term already: a trial is the first one", term_verb("renew", "TIME")),
    Verb.REACTIVATE: ("it has no term that was cancelled", "look at its term: nothing of it was cancelled"),
}


def change(
    term: Term | None, verb: Verb, now: float, ends: float | None = None, *,
    grace_days: float = GRACE_DAYS, purge_after_days: float = PURGE_SOONEST_DAYS,
) -> Term:  # fmt: skip
    """The term after the verb; the same one where nothing changes. `ends` is for trial, renew, and the cancelling of a term without an end;
    the days are those of an account that had no term. Raises Conflict where the phase forbids it, RefusedInput for an impossible end."""
    phase = None if term is None else term.phase(now)
    after = NEXT[verb].get(phase)
    if after is None:
        raise _refusal(verb, phase, term)
    before = term or Term(Phase.ACTIVE, None, grace_days, purge_after_days)
    if phase is Phase.GRACE and verb is Verb.EXPIRE:
        return before
    with about("ends"):
        return msgspec.structs.replace(before, agreed=after, ends=_end(before, verb, now, ends))


def _end(term: Term, verb: Verb, now: float, ends: float | None) -> float | None:
    if verb is Verb.EXPIRE:
        return now if term.ends is None else min(term.ends, now)
    if ends is not None and ends <= now:
        raise RefusedInput(f"a term that ends at {format_time(ends)} is over before it begins", "name a later time")
    if verb in (Verb.TRIAL, Verb.RENEW):
        if ends is not None and term.ends is not None and ends < term.ends:
            raise RefusedInput(f"it stands until {format_time(term.ends)}: a renewal never shortens", _NOW)
        return ends
    if verb is Verb.CANCEL and term.ends is None and ends is None:
        raise RefusedInput("its term has no end, so cancelling would change nothing", said(field("ends", "TIME"), " says when it ends"))
    if ends is not None and term.ends is not None and ends != term.ends:
        raise RefusedInput(f"it ends at {format_time(term.ends)} already: a cancelling changes its renewal only", "leave `ends` out")
    return term.ends if ends is None else ends


def _refusal(verb: Verb, phase: Phase | None, term: Term | None) -> Conflict:
    if (verb, phase) in _REFUSED:
        return Conflict(*_REFUSED[verb, phase])
    if phase is Phase.DELETED and term is not None and term.grace_ends is not None:
        over = f"its grace ended at {format_time(term.grace_ends)}, and it is purged"
        return Conflict(over, "a new account, under another id; an id is never used again")
    return Conflict(*_OTHERWISE[verb])


_PURGED = "purged"


def purge_line(who: str) -> bytes:
    """The last line of an account's audit trail."""
    return msgspec.json.encode({"what": _PURGED, "who": who, "why": "its term, and the grace after it, are over"})


def tells_of_purge(line: bytes) -> bool:
    """Whoever it was that purged."""
    try:
        return msgspec.json.decode(line, type=_Said).what == _PURGED
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


class _Said(msgspec.Struct, frozen=True):
    what: str


# as the account's fields hold it


def term_of(fields: Mapping[str, str]) -> Term | None:
    if not fields.get("term"):
        return None
    ends = fields.get("term_ends")
    days = (float(fields.get(name) or least) for name, least in (("grace", GRACE_DAYS), ("purge_after", PURGE_SOONEST_DAYS)))
    return Term(Phase(fields["term"]), float(ends) / 1e6 if ends else None, *days)


def fields_of(term: Term | None) -> dict[str, str]:
    """"" is a field that is absent."""
    if term is None:
        return dict.fromkeys(("term", "term_ends", "grace", "purge_after"), "")
    ends = "" if term.ends is None else f"{term.ends * 1e6:.0f}"
    return {"term": term.agreed.value, "term_ends": ends, "grace": f"{term.grace_days:g}", "purge_after": f"{term.purge_after_days:g}"}
