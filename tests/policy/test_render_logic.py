"""Texts with logic: rendered whole, escaped as their part needs, and never able to run away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import bodies, failure, field, skeleton, wire

from sendengine.errors import RefusedInput


def test_conditions_loops_and_filters_work_in_every_part() -> None:
    text = "{% if vip %}Dear {{ name | upper }}{% else %}Hi{% endif %}\n.{% for i in items %}{{ i }},{% endfor %}\n"
    made = skeleton(subject="{% if vip %}{{ name }}{% endif %}!", text=text, html=f"<p>{text}</p>")
    octets = wire(made, vip=True, name="žan<", items=["a&b", 2])
    assert field(octets, "Subject") == "žan<!"
    assert bodies(octets) == ["Dear ŽAN<\r\n.a&b,2,\r\n", "<p>Dear ŽAN&lt;\r\n.a&amp;b,2,\r\n</p>"]


@given(st.text(max_size=60), st.booleans())
def test_any_value_arrives_through_logic(value: str, eightbit: bool) -> None:
    made = skeleton(text="{% if 1 %}.{{ a }}{% endif %}.\n")
    want = value.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    assert bodies(wire(made, eightbit, a=value)) == [f".{want}.\r\n"]


def test_undefined_field_fails_its_row() -> None:
    made = skeleton(text="{% if a %}x{% endif %}")
    assert "undefined" in failure(made)
    assert "undefined" in failure(made, a=None)


def test_line_end_from_logic_in_a_header_fails_its_row() -> None:
    made = skeleton(subject="{% if 1 %}{{ a }}{% endif %}")
    assert "control character" in failure(made, a="x\r\nBcc: evil@example.net")


def test_required_leaves_out_what_the_author_has_thought_of() -> None:
    made = skeleton(
        text="{{ a | upper }}{% if b is defined %}{{ b }}{% endif %}{{ c | default('x') | upper }}{{ email|upper }}"
    )
    assert set(made.fields) == {"a", "b", "c"}
    assert made.required == {"a"}


def test_default_stands_for_missing_and_empty() -> None:
    made = skeleton(text="{{ a | default('friend') | upper }}\n")
    assert bodies(wire(made)) == bodies(wire(made, a="")) == ["FRIEND\r\n"]


def test_css_is_no_comment() -> None:
    made = skeleton(html="<style>@media print{#x{color:red}}</style>{% if 1 %}{{ a }}{% endif %}")
    assert bodies(wire(made, a="y"))[-1] == "<style>@media print{#x{color:red}}</style>y"


def test_endless_loop_fails_its_row() -> None:
    digits = "1234567890" * 10
    made = skeleton(text="".join(f"{{% for {v} in '{digits}' %}}" for v in "abcd") + "x" + "{% endfor %}" * 4)
    assert "fuel" in failure(made)


def test_enormous_output_is_cut_by_fuel_before_it_exists() -> None:
    digits = "1234567890" * 10
    loops = "".join(f"{{% for {v} in '{digits}' %}}" for v in "abc")
    assert "fuel" in failure(skeleton(text=loops + "x" * 900 * 100 + "{% endfor %}" * 3))
    assert "fuel" in failure(skeleton(text=loops + "{{ big }}{% endfor %}{% endfor %}{% endfor %}"), big="x" * 90_000)


def test_values_too_large_to_be_handled_in_no_time_fail_their_row() -> None:
    made = skeleton(text="{% if a %}{{ b }}{% endif %}{{ c | default('') | upper }}")
    for large in (["x"] * 50_000, [[1] * 3] * 2_000, "x" * 100_001):
        assert "exceed 100000 characters" in failure(made, a=large, b="y")
    assert bodies(wire(made, a=["x"] * 30_000, b="y")) == ["y\r\n"]


def test_one_long_list_may_be_sorted_and_ten_times_not() -> None:
    a = ["ba"] * 19_000
    assert bodies(wire(skeleton(text="{{ a | sort | first }}"), a=a)) == ["ba\r\n"]
    assert "fuel" in failure(skeleton(text="{{ a | sort | first }}" * 10), a=a)


def test_value_that_is_no_plain_data_fails_its_row() -> None:
    assert "plain data" in failure(skeleton(text="{{ a | upper }}"), a=object())
    assert "neither text" in failure(skeleton(text="{{ a }}"), a=["x"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ok\n{{ a | nofilter }}", "html, line 2: unknown filter 'nofilter'"),
        ("ok\n\n{{ a b }}", "html, line 3: syntax error"),
        ("{{ a", "html, line 1: syntax error"),
        ("\n{% endif %}", "html, line 2: syntax error"),
        ("{% set a = 'x' %}{{ a }}", "unknown statement 'set'"),
        ("{% macro m() %}{% endmacro %}", "unknown statement 'macro'"),
        ("{% include 'x' %}", "unknown statement 'include'"),
        ("{{ 'x' * 100 }}", "multiplication"),
        ("{% for i in range(9) %}{% endfor %}", "'range' cannot be called"),
        ("{{ a.join(b) }}", "'join' cannot be called"),
        ("{{ '}}' | replace('a', 'b') }}", "unknown filter 'replace'"),
        ('{{ "%}" | replace("\\"", "b") }}', "unknown filter 'replace'"),
        ("{% raw %}{{{% endraw %}{{ a | replace('a', 'b') }}", "unknown filter 'replace'"),
    ],
)
def test_template_that_may_not_run_is_refused_with_its_line(text: str, place: str) -> None:
    with pytest.raises(RefusedInput) as refusal:
        skeleton(html=text)
    assert place in str(refusal.value)


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"sender": ""}, "no From"),
        ({"sender": "{{ a }}@example.org"}, "field From"),
        ({"sender": "a@b\r\nBcc: x@example.org"}, "field From"),
        ({"text": None}, "no body"),
        ({"text": "a\nb\rc"}, "text, line 2: a bare CR"),
        ({"html": "a\0"}, "html, line 1: a NUL"),
        ({"html": "\ud800"}, "not Unicode"),
        ({"subject": "a\nBcc: x"}, "field Subject"),
        ({"subject": "{{ a }}\nBcc: x"}, "field Subject"),
        ({"subject": "{{ a | nofilter }}"}, "field Subject, line 1: unknown filter"),
        ({"headers": {"Bcc": "x@example.org"}}, "field Bcc"),
        ({"headers": {"X A": "x"}}, "'X A'"),
        ({"headers": {"To": ""}}, "field To"),
        ({"list_unsubscribe": "https://x/ž"}, "field List-Unsubscribe"),
        ({"text": "x" * 50_000_001}, "50000000 are allowed"),
    ],
)
def test_bad_message_is_refused_with_its_place(parts: dict[str, object], place: str) -> None:
    with pytest.raises(RefusedInput) as refusal:
        skeleton(**parts)
    assert place in str(refusal.value)
