"""Lots: when they expire, which pays; and whatever happens in whatever order, the ledger adds up."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.policy.credits import Balance, Entry, Home, Kind, Lot, balance, draw, fold, good_until, in_order, of_draws


def us(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6


BOUGHT, FIXED = us("2026-01-15"), us("2028-01-15")
ALONE, WITH_MAIL = Lot(1, 1000, BOUGHT, FIXED), Lot(2, 1000, BOUGHT, 0)


@pytest.mark.parametrize(
    ("lot", "home", "expires"),
    [
        (ALONE, Home(has_mail=False), FIXED),
        (ALONE, Home(has_mail=False, term_ends_us=us("2030-01-01")), FIXED),
        (ALONE, Home(term_ends_us=us("2027-01-01")), FIXED),  # the later of the two
        (ALONE, Home(term_ends_us=us("2029-01-01")), us("2029-01-01")),
        (ALONE, Home(), math.inf),
        (WITH_MAIL, Home(term_ends_us=us("2027-01-01")), us("2027-01-01")),
        (WITH_MAIL, Home(term_ends_us=us("2028-01-01")), us("2028-01-01")),  # renewed: it moves along
        (WITH_MAIL, Home(), math.inf),
    ],
)
def test_lot_expires_by_what_the_account_was_and_is(lot: Lot, home: Home, expires: float) -> None:
    assert lot.expires_us(home) == expires


@pytest.mark.parametrize(
    ("bought", "until"),
    [("2026-01-15T10:00", "2028-01-15T10:00"), ("2024-02-29", "2026-02-28"), ("2026-12-31T23:59:59", "2028-12-31T23:59:59")],
)
def test_24_months_are_of_the_calendar(bought: str, until: str) -> None:
    assert good_until(us(bought)) == us(until)


def test_lot_is_good_to_the_last_microsecond() -> None:
    home = Home(has_mail=False)
    assert ALONE.free(home, FIXED - 1) == 1000
    assert ALONE.free(home, FIXED) == 0
    assert balance([ALONE], home, FIXED) == Balance(granted=1000, reserved=0, spent=0, free=0, frozen=0, expired=1000)


def test_in_grace_credits_are_frozen_and_a_renewal_frees_them() -> None:
    lots, end = [ALONE, WITH_MAIL], us("2027-01-01")
    assert balance(lots, Home(term_ends_us=end), end) == Balance(granted=2000, reserved=0, spent=0, free=0, frozen=2000, expired=0)
    assert draw(lots, Home(term_ends_us=end), end, 1) is None
    assert balance(lots, Home(term_ends_us=us("2027-02-01")), end).free == 2000


def test_account_without_channels_named_has_mail() -> None:
    assert Home.of({}) == Home()
    assert Home.of({"channels": "sms", "term_ends": ""}) == Home(has_mail=False)
    assert Home.of({"channels": "mail sms", "term_ends": "5"}) == Home(term_ends_us=5.0)
    assert Home.of({"channels": "email,sms"}).has_mail
    assert Home.of({"channels": '["Email", "sms"]'}).has_mail
    assert not Home.of({"channels": '["sms"]'}).has_mail


def test_earliest_expiring_lot_pays_first() -> None:
    lots = [
        Lot(1, 100, us("2026-03-01"), us("2028-03-01")),
        Lot(2, 100, us("2026-01-01"), us("2028-01-01")),
        Lot(3, 100, us("2026-01-01"), us("2028-01-01")),
    ]
    home = Home(has_mail=False)
    assert [lot.number for lot in in_order(lots, home)] == [2, 3, 1]
    assert draw(lots, home, us("2026-04-01"), 150) == {2: 100, 3: 50}
    assert draw(lots, home, us("2028-02-01"), 60) == {1: 60}
    assert draw(lots, home, us("2028-02-01"), 101) is None
    assert draw(lots, home, us("2026-04-01"), 0) == {}


def test_spending_takes_the_first_lots_of_a_draw_and_release_the_last() -> None:
    draws = {1: 30, 2: 50}
    assert of_draws(draws, [2, 1], 60) == {2: 50, 1: 10}
    assert of_draws(draws, [1, 2], 40) == {1: 30, 2: 10}
    assert of_draws(draws, [1, 2], 999) == {1: 30, 2: 50}


HOMES = st.builds(Home, st.booleans(), st.one_of(st.just(math.inf), st.integers(1, 200).map(float)))
LOTS = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 100), st.integers(0, 200)), min_size=1, max_size=5)
DEEDS = st.lists(
    st.tuples(st.sampled_from(["reserve", "spend", "release"]), st.integers(0, 3), st.integers(0, 300), st.integers(0, 200), HOMES),
    max_size=40,
)


@given(LOTS, DEEDS)
def test_whatever_happens_it_adds_up_and_nothing_is_below_zero(granted: list[tuple[int, int, int]], deeds: list) -> None:  # type: ignore[type-arg]
    entries = [
        Entry(Kind.GRANT, {n: amount}, bought_us=float(at), fixed_us=float(fixed)) for n, (amount, at, fixed) in enumerate(granted, 1)
    ]
    draws: dict[int, dict[int, int]] = {}
    for deed, send, amount, now, home in deeds:
        lots = fold(entries)
        mine = draws.setdefault(send, {})
        order = [lot.number for lot in in_order(lots.values(), home)]
        if deed == "reserve":
            drawn = draw(list(lots.values()), home, now, amount)
            if drawn is None:
                assert balance(list(lots.values()), home, now).free < amount
                continue
            for number, part in drawn.items():
                mine[number] = mine.get(number, 0) + part
        else:
            drawn = of_draws(mine, order if deed == "spend" else order[::-1], amount)
            for number, part in drawn.items():
                mine[number] -= part
        entries.append(Entry(Kind(deed), drawn, campaign=str(send)))
        after = fold(entries)
        for lot in after.values():
            assert min(lot.reserved, lot.spent, lot.rest) >= 0
        b = balance(list(after.values()), home, now)
        assert b.granted == b.reserved + b.spent + b.free + b.frozen + b.expired == sum(amount for amount, _, _ in granted)
        assert min(b.reserved, b.spent, b.free, b.frozen, b.expired) >= 0
        assert b.reserved == sum(sum(each.values()) for each in draws.values())
