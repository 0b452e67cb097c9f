"""Call-backs of providers: each one's own words, by the template of its table."""

from __future__ import annotations

from typing import Any

import pytest

from sendengine.policy.callbacks import receipts_of, value_at
from sendengine.types import Provider, Receipt


def told(said: Any, **places: Any) -> list[Receipt | None]:
    return [each for part in receipts_of(Provider(name="p", kind="http", **places), said) for each in part]


def test_places_are_found_or_are_nothing() -> None:
    assert value_at({"a": [{"b": 5}]}, "a.0.b") == 5
    assert [value_at({"a": [1]}, place) for place in ("a.1", "a.x", "b", "a.0.c")] == [None] * 4
    assert value_at([1], "") == [1]


@pytest.mark.parametrize(
    ("word", "state"),
    [("DELIVRD", "DELIVRD"), ("delivered", "DELIVRD"), ("Failed", "UNDELIV"), ("rejected", "REJECTD"), ("EXPIRED", "EXPIRED"),
     ("sent", None), ("queued", None), ("ENROUTE", None), ("", None), (None, None), ({}, None), ("x y", None)],
)  # fmt: skip
def test_usual_words_are_known_and_what_is_not_final_says_nothing(word: Any, state: str | None) -> None:
    [found] = told({"id": "a1", "status": word})
    assert (found and found.state) == state


def test_a_table_of_words_is_the_whole_of_them() -> None:
    states = (("ok", "DELIVRD"), ("gone", "UNDELIV"))
    found = told([{"id": 1, "status": "ok"}, {"id": 2, "status": "gone"}, {"id": 3, "status": "delivered"}], receipt_states=states)
    assert found == [Receipt("1", "DELIVRD"), Receipt("2", "UNDELIV"), None]


def test_what_names_no_message_is_none() -> None:
    assert told([{}, {"id": "a b", "status": "DELIVRD"}, {"id": "x" * 65, "status": "DELIVRD"}, 7]) == [None] * 4


def test_an_error_that_is_no_word_is_left_out() -> None:
    [found] = told({"id": "a", "status": "failed", "why": "27"}, receipt_error="why")
    assert found == Receipt("a", "UNDELIV", "27")
    [found] = told({"id": "a", "status": "failed", "why": "no such\nthing stat:DELIVRD"}, receipt_error="why")
    assert found == Receipt("a", "UNDELIV", "no")


def test_all_receipts_of_a_call_back_are_read_in_parts() -> None:
    said = [{"id": f"a{n}", "status": "delivered"} for n in range(2500)]
    parts = list(receipts_of(Provider(name="p", kind="http"), said))
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert [each and each.message_id for part in parts for each in part] == [f"a{n}" for n in range(2500)]
