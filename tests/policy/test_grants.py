"""The rate in force: the highest of the tier's and of the grants whose time it is."""

from __future__ import annotations

import pytest

from sendengine.policy.grants import FIELD, Grant, Words, changes, encode, grants_of, rate_at


def grant(number: int, rate: float, start: float, end: float) -> Grant:
    return Grant(number, start, end, Words(rate, "ops", "sale", 0.0))


NIGHT = [grant(1, 500.0, 100, 200), grant(2, 900.0, 150, 160), grant(3, 50.0, 0, 1000)]


@pytest.mark.parametrize(
    ("at", "rate"),
    [(99.9, 100.0), (100, 500.0), (149, 500.0), (150, 900.0), (159.9, 900.0), (160, 500.0), (199, 500.0), (200, 100.0), (2000, 100.0)],
)
def test_highest_that_holds(at: float, rate: float) -> None:
    assert rate_at(100.0, NIGHT, at) == rate


def test_nothing_is_above_unmetered() -> None:
    assert rate_at(None, NIGHT, 150) is None
    assert changes(None, NIGHT, 0) == []


def test_rates_to_come() -> None:
    assert changes(100.0, NIGHT, 120) == [(150, 900.0), (160, 500.0), (200, 100.0), (1000, 100.0)]
    assert changes(100.0, NIGHT, 1000) == []


def test_grant_is_read_as_it_was_written() -> None:
    octets = encode(1_800_000_000.25, 1_800_003_600.0, Words(200_000.0, "ops", "Frühjahr", 1_799_999_999.0))
    fields = {FIELD + "12": octets.decode("utf-8", "surrogateescape"), "boosts": "12", "iv": "1"}
    assert grants_of(fields) == [
        Grant(12, 1_800_000_000.25, 1_800_003_600.0, Words(200_000.0, "ops", "Frühjahr", 1_799_999_999.0))
    ]
