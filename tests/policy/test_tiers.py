"""Rates as people write them."""

from __future__ import annotations

import pytest

from sendengine.errors import RefusedInput
from sendengine.policy.tiers import Tier, parse_rate

TIERS = {tier.name: tier for tier in (Tier("60k", 60_000.0, ""), Tier("gold", 250.5, ""), Tier("unmetered", None, ""))}


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60k", ("60k", 60_000.0)),
        (" 60K ", ("60k", 60_000.0)),
        ("gold", ("gold", 250.5)),
        ("unmetered", ("unmetered", None)),
        ("200000/h", ("200000", 200_000.0)),
        ("200k/h", ("200000", 200_000.0)),
        ("7500", ("7500", 7_500.0)),
        ("2.5m", ("2500000", 2_500_000.0)),
        ("1.25", ("1.25", 1.25)),
    ],
)
def test_rate_is_a_tier_or_a_figure(text: str, rate: tuple[str, float | None]) -> None:
    assert parse_rate(text, TIERS) == rate


def test_tier_named_like_a_figure_is_the_tier() -> None:
    assert parse_rate("5k", {"5k": Tier("5k", 4_000.0, "")}) == ("5k", 4_000.0)


def test_name_of_a_figure_is_read_back_as_that_figure() -> None:
    name, per_hour = parse_rate("12.5k", TIERS)
    assert parse_rate(name, TIERS) == (name, per_hour)


@pytest.mark.parametrize(("text", "near"), [("golf", "gold"), ("unmetred", "unmetered"), ("60kk", "60k"), ("77zz", "60k")])
def test_unknown_tier_names_the_nearest(text: str, near: str) -> None:
    with pytest.raises(RefusedInput, match=f"nearest is '{near}'"):
        parse_rate(text, TIERS)


@pytest.mark.parametrize("text", ["", "fast", "-5", "1e5", "60k/s", "nan", "٣"])
def test_what_is_no_rate_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        parse_rate(text, TIERS)
    assert caught.value.remedy == "one of 60k gold unmetered, or a number of messages per hour"


@pytest.mark.parametrize("text", ["0", "0.5", "999999m", "9" * 400])
def test_rate_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(RefusedInput, match="outside 1 to 3600000000"):
        parse_rate(text, TIERS)
