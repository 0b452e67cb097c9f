"""Numbers, senders and prices as people write them."""

from __future__ import annotations

from datetime import date

import pytest

from sendengine.errors import ConfigError, NotFound, RefusedInput
from sendengine.policy import prices
from sendengine.policy.numbers import BadNumber, are_strict, checked_region, looks_like_number, normalise
from sendengine.policy.senders import sender_id


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("+46701234567", "", "+46701234567"),
        (" +46 70-123 45 67 ", "", "+46701234567"),
        ("+1 (415) 555-2671", "", "+14155552671"),
        ("070-123 45 67", "SE", "+46701234567"),
        ("0046701234567", "SE", "+46701234567"),
        ("+44 20 7946 0958", "SE", "+442079460958"),
        ("+99912345678", "", "+99912345678"),  # of no country: no mistake of spelling; its price decides
        ("+4670123456", "", "+4670123456"),
    ],
)
def test_number_in_its_normal_form(text: str, region: str, number: str) -> None:
    assert normalise(text, region) == number


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("", ""), ("hello", ""), ("0701234567", ""), ("46701234567", ""), ("+", ""), ("+46", ""), ("+4670123456712345", ""), ("12", "SE"),
        ("+0701234567", ""), ("a@example.com", "SE"), ("+46701234567;+46701234568", ""), ("+46701234567\n", "SE\n"[:0]),
        ("＋46701234567x", ""),
        ("+46 70 123 45 67 ext. 5", "SE"), ("١٢٣٤٥٦٧٨٩", "EG"), ("+4670123\x004567", ""), ("0" * 41, "SE"),
    ],
)  # fmt: skip
def test_text_that_is_no_number_is_refused(text: str, region: str) -> None:
    if text.endswith("\n"):
        assert not are_strict([text])
        return
    with pytest.raises(BadNumber):
        normalise(text, region)


def test_column_of_normal_numbers_is_told_at_a_glance() -> None:
    assert are_strict(["+46701234567", "+14155552671"])
    assert not are_strict(["+46701234567", "0701234567"])
    assert not are_strict(["+46701234567\n+46701234567"])
    assert not are_strict([])
    assert looks_like_number(" 070-123 45 67")
    assert not looks_like_number("phone")


def test_region_is_two_letters_of_a_country() -> None:
    assert checked_region("se") == "SE"
    assert checked_region("") == ""
    for bad in ("SWE", "XX", "1", "s e"):
        with pytest.raises(RefusedInput):
            checked_region(bad)


@pytest.mark.parametrize(
    ("text", "sent", "ton", "npi"),
    [
        ("ACME", "ACME", 5, 0), ("ACME Shop 1", "ACME Shop 1", 5, 0), ("3PO", "3PO", 5, 0), ("A", "A", 5, 0),
        ("e-mail+", "e-mail+", 5, 0),
        ("+46701234567", "46701234567", 1, 1), ("46701234567", "46701234567", 1, 1), ("72323", "72323", 3, 0), ("123", "123", 3, 0),
        ("012345", "012345", 3, 0),
    ],
)  # fmt: skip
def test_sender_is_a_name_a_number_or_a_short_code(text: str, sent: str, ton: int, npi: int) -> None:
    found = sender_id(text)
    assert (found.text, found.ton, found.npi) == (sent, ton, npi)


@pytest.mark.parametrize(
    "text", ["", "Twelve chars", " ACME", "ACME ", "...", "12", "+", "+123", "Å", "A\n", "A\x00", "1234567890123456", "a@b", "A;B"]
)
def test_other_senders_are_refused(text: str) -> None:
    with pytest.raises(RefusedInput):
        sender_id(text)


TABLE = prices.table("v1", date(2026, 1, 1), {"1": 1, "46": "0.5", "467": 0.125, "4670": 2, "44": 3.0, "other": 9}, "file")


@pytest.mark.parametrize(
    ("number", "price"),
    [
        ("+14155552671", 1000),
        ("+46812345678", 500),
        ("+46731234567", 125),
        ("+46701234567", 2000),
        ("+442079460958", 3000),
        ("+99912345678", 9000),
    ],
)
def test_longest_prefix_decides(number: str, price: int) -> None:
    assert TABLE.of(number) == price


def test_number_without_a_prefix_has_no_price_where_there_is_no_other() -> None:
    assert prices.table("v", date(2026, 1, 1), {"46": 1}, "f").of("+14155552671") is None


def test_version_in_force_is_the_latest_that_has_begun() -> None:
    tables = [
        prices.table(name, day, {"other": 1}, "f")
        for name, day in (("b", date(2026, 6, 1)), ("a", date(2026, 1, 1)), ("c", date(2027, 1, 1)))
    ]
    assert prices.in_force(tables, date(2026, 5, 31)).version == "a"
    assert prices.in_force(tables, date(2026, 6, 1)).version == "b"
    assert prices.version(tables, "c").version == "c"
    with pytest.raises(NotFound):
        prices.in_force(tables, date(2025, 12, 31))
    with pytest.raises(NotFound):
        prices.version(tables, "d")


@pytest.mark.parametrize(
    ("prefix", "price"), [("46", -1), ("46", 0.0001), ("46", "x"), ("46", float("nan")), ("46", 1e30), ("4x", 1), ("", 1e7),
    ("1" * 16, 1)]
)
def test_table_with_what_is_no_price_is_refused(prefix: str, price: float | str) -> None:
    with pytest.raises(ConfigError, match=r"f: v"):
        prices.table("v", date(2026, 1, 1), {prefix: price}, "f")


def test_amounts_are_shown_as_credits() -> None:
    assert [prices.shown(amount) for amount in (0, 1000, 1500, 1005, -250, 1234567)] == ["0", "1", "1.5", "1.005", "-0.25", "1234.567"]
