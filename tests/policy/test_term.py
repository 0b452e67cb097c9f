"""The term of an account, to the second: what a verb makes of it, and what the time does (domain rule 3)."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import Conflict, RefusedInput
from sendengine.policy.term import DAY, NEXT, Phase, Term, Verb, change, fields_of, term_of

ENDS = 1_800_000_000.0
SECOND = 1.0
PHASES = (None, *Phase)
LATER = ENDS + 100 * DAY

# In each zone a wall time at which a term ends, and what the wall shows ten days later: there, summer time began, ended, or did not change;
# one lies half an hour off the hour, one changes by half an hour, and one skipped a whole day.
WALLS = [
    ("UTC", "2026-03-25 12:00:00", "2026-04-04 12:00:00"),
    ("Europe/Prague", "2026-03-25 12:00:00", "2026-04-04 13:00:00"),
    ("Europe/Prague", "2026-10-20 12:00:00", "2026-10-30 11:00:00"),
    ("Europe/Prague", "2026-03-19 02:30:00", "2026-03-29 03:30:00"),  # ends within the hour that is skipped
    ("Europe/Prague", "2026-06-01 23:59:59", "2026-06-11 23:59:59"),
    ("America/New_York", "2026-03-03 00:00:00", "2026-03-13 01:00:00"),
    ("America/New_York", "2026-10-25 01:30:00", "2026-11-04 00:30:00"),
    ("Asia/Kolkata", "2026-03-25 12:00:00", "2026-04-04 12:00:00"),
    ("Australia/Lord_Howe", "2026-04-01 12:00:00", "2026-04-11 11:30:00"),
    ("Pacific/Apia", "2011-12-25 12:00:00", "2012-01-05 12:00:00"),
]


def term(agreed: Phase = Phase.ACTIVE, ends: float | None = ENDS, **days: float) -> Term:
    return Term(agreed, ends, **days)


def in_phase(phase: Phase | None) -> tuple[Term | None, float]:
    """A term, and a time at which it is in that phase."""
    if phase is None:
        return None, ENDS
    if phase is Phase.GRACE:
        return term(), ENDS + DAY
    if phase is Phase.DELETED:
        return term(), ENDS + 11 * DAY
    return term(phase), ENDS - DAY


@pytest.mark.parametrize("agreed", [Phase.TRIAL, Phase.ACTIVE, Phase.CANCELLED_ACTIVE])
@pytest.mark.parametrize(
    ("after", "phase", "sends"),
    [
        (-10 * DAY, None, True),
        (-SECOND, None, True),
        (-1e-6, None, True),
        (0.0, Phase.GRACE, False),
        (SECOND, Phase.GRACE, False),
        (10 * DAY - SECOND, Phase.GRACE, False),
        (10 * DAY - 1e-6, Phase.GRACE, False),
        (10 * DAY, Phase.DELETED, False),
        (10 * DAY + SECOND, Phase.DELETED, False),
        (3650 * DAY, Phase.DELETED, False),
    ],
)
def test_time_alone_moves_a_term_on(agreed: Phase, after: float, phase: Phase | None, sends: bool) -> None:
    found = term(agreed)
    assert found.phase(ENDS + after) is (phase or agreed)
    assert found.may_send(ENDS + after) is sends


def test_term_without_an_end_goes_on() -> None:
    found = term(ends=None)
    assert (found.phase(1e11), found.may_send(1e11), found.grace_ends, found.purge_at) == (Phase.ACTIVE, True, None, None)


@pytest.mark.parametrize(("zone", "wall", "ten_days_later"), WALLS)
def test_ten_days_are_ten_days_in_every_zone(zone: str, wall: str, ten_days_later: str) -> None:
    ends = datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = term(ends=ends)
    over = datetime.fromtimestamp(found.grace_ends or 0.0, ZoneInfo(zone))
    assert over.strftime("%Y-%m-%d %H:%M:%S") == ten_days_later
    late, too_late = ends + timedelta(days=9, hours=23, minutes=59, seconds=59).total_seconds(), ends + 10 * DAY + 1
    assert change(found, Verb.RENEW, late, late + DAY).may_send(late)
    with pytest.raises(Conflict, match="its grace ended"):
        change(found, Verb.RENEW, too_late, too_late + DAY)


@pytest.mark.parametrize(
    ("days", "grace", "purge"),
    [({}, 10, 10), ({"purge_after_days": 30.0}, 10, 30), ({"purge_after_days": 2.0}, 10, 10), ({"grace_days": 3.0}, 3, 10),
     ({"grace_days": 0.0, "purge_after_days": 0.0}, 0, 10), ({"grace_days": 20.0}, 20, 20)],
)  # fmt: skip
def test_purge_comes_with_the_end_of_grace_and_never_before_day_ten(days: dict[str, float], grace: float, purge: float) -> None:
    found = term(**days)
    assert (found.grace_ends, found.purge_at) == (ENDS + grace * DAY, ENDS + purge * DAY)


@pytest.mark.parametrize(("verb", "phase"), list(product(Verb, PHASES)))
def test_each_verb_in_each_phase(verb: Verb, phase: Phase | None) -> None:
    """Every cell of the table: what is not in it is refused, and says why and what else to do."""
    before, now = in_phase(phase)
    ends = LATER if verb in (Verb.TRIAL, Verb.RENEW) or (verb is Verb.CANCEL and phase is None) else None
    if phase not in NEXT[verb]:
        with pytest.raises(Conflict) as refused:
            change(before, verb, now, ends)
        assert str(refused.value)
        return
    after = change(before, verb, now, ends)
    assert after.phase(now) is (Phase.GRACE if verb is Verb.EXPIRE else NEXT[verb][phase])


CELLS = {
    Verb.TRIAL: {None: Phase.TRIAL},
    Verb.RENEW: {None: Phase.ACTIVE, Phase.TRIAL: Phase.ACTIVE, Phase.ACTIVE: Phase.ACTIVE, Phase.CANCELLED_ACTIVE: Phase.ACTIVE,
                 Phase.GRACE: Phase.ACTIVE},
    Verb.CANCEL: {None: Phase.CANCELLED_ACTIVE, Phase.ACTIVE: Phase.CANCELLED_ACTIVE, Phase.CANCELLED_ACTIVE: Phase.CANCELLED_ACTIVE},
    Verb.REACTIVATE: {Phase.ACTIVE: Phase.ACTIVE, Phase.CANCELLED_ACTIVE: Phase.ACTIVE},
}  # fmt: skip


@pytest.mark.parametrize("verb", CELLS)
def test_the_table_is_this_one(verb: Verb) -> None:
    assert dict(NEXT[verb]) == CELLS[verb]


def test_nothing_brings_a_deleted_account_back() -> None:
    for verb in Verb:
        assert Phase.DELETED not in NEXT[verb]


def test_cancelling_changes_renewal_only() -> None:
    before = term()
    after = change(before, Verb.CANCEL, ENDS - DAY)
    assert after == term(Phase.CANCELLED_ACTIVE)
    assert [after.may_send(at) for at in (ENDS - SECOND, ENDS)] == [True, False]
    assert change(after, Verb.CANCEL, ENDS - DAY) == after
    assert change(after, Verb.REACTIVATE, ENDS - DAY) == before


def test_renewal_moves_the_end_and_never_nearer() -> None:
    assert change(term(), Verb.RENEW, ENDS - DAY, LATER).ends == LATER
    assert change(term(), Verb.RENEW, ENDS - DAY).ends is None
    with pytest.raises(RefusedInput, match="never shortens"):
        change(term(), Verb.RENEW, ENDS - 2 * DAY, ENDS - DAY)
    with pytest.raises(RefusedInput, match="over before it begins"):
        change(term(), Verb.RENEW, ENDS + DAY, ENDS + DAY)


def test_term_ends_at_once_and_only_once() -> None:
    now = ENDS - 5 * DAY
    over = change(term(Phase.TRIAL), Verb.EXPIRE, now)
    assert (over.ends, over.phase(now)) == (now, Phase.GRACE)
    assert change(over, Verb.EXPIRE, now + DAY) == over
    assert change(None, Verb.EXPIRE, now).ends == now


def test_account_keeps_the_days_it_was_given() -> None:
    first = change(None, Verb.TRIAL, 0.0, ENDS, grace_days=20.0, purge_after_days=30.0)
    again = change(first, Verb.RENEW, ENDS + 19 * DAY, LATER, grace_days=10.0, purge_after_days=10.0)
    assert (again.grace_days, again.purge_after_days) == (20.0, 30.0)


@pytest.mark.parametrize(
    ("before", "verb", "ends"),
    [(term(), Verb.CANCEL, LATER), (term(ends=None), Verb.CANCEL, None), (None, Verb.CANCEL, None), (None, Verb.TRIAL, 1.0)],
)
def test_impossible_end_is_refused(before: Term | None, verb: Verb, ends: float | None) -> None:
    with pytest.raises(RefusedInput):
        change(before, verb, ENDS - DAY, ends)


@given(
    st.builds(
        Term, st.sampled_from([Phase.TRIAL, Phase.ACTIVE, Phase.CANCELLED_ACTIVE]),
        st.none() | st.integers(0, 4_000_000_000_000_000).map(lambda us: us / 1e6), st.sampled_from([0.0, 0.5, 10.0, 30.0]),
        st.sampled_from([10.0, 60.0]),
    )
)  # fmt: skip
def test_fields_hold_a_term(kept: Term) -> None:
    assert term_of({name: value for name, value in fields_of(kept).items() if value}) == kept


def test_no_term_has_no_fields() -> None:
    assert set(fields_of(None).values()) == {""}
    assert term_of({"tier": "60k"}) is None


@given(st.lists(st.tuples(st.sampled_from(list(Verb)), st.floats(0.0, 15.0), st.floats(0.1, 40.0)), max_size=12))
def test_whatever_is_asked_a_term_never_comes_back_from_the_dead(life: list[tuple[Verb, float, float]]) -> None:
    """Deleted once, deleted for ever; and no purge is ever due before day 10 of the end that stands."""
    found, now, was_deleted = None, 0.0, False
    for verb, days, ahead in life:
        now += days * DAY
        was_deleted |= found is not None and found.phase(now) is Phase.DELETED
        try:
            found = change(found, verb, now, now + ahead * DAY if verb in (Verb.TRIAL, Verb.RENEW) else None)
        except (Conflict, RefusedInput):
            continue
        assert not was_deleted
        assert found.ends is None or (found.purge_at or 0.0) >= found.ends + 10 * DAY
