"""Addresses: one spelling each, and a reason for what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.address import BadAddress, all_plain, normalise

_SAMPLES = st.sampled_from(["a@b.cz", "A.b+c@X-y.Example.com", "jan@müller.de", "o'neil@a.test", "x@xn--mller-kva.de"])


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("jan.novak+x@example.com", "jan.novak+x@example.com"),
        ("  Jan@EXAMPLE.Com\t", "Jan@example.com"),
        ("\u00a0a@b.cz\ufeff", "a@b.cz"),
        ("a@müller.de", "a@xn--mller-kva.de"),
        ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah"),
        ("a@" + "b" * 63 + ".cz", "a@" + "b" * 63 + ".cz"),
        ("x" * 64 + "@b.cz", "x" * 64 + "@b.cz"),
    ],
)
def test_an_address_has_one_spelling(given_text: str, kept: str) -> None:
    assert normalise(given_text) == kept


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no address"),
        ("   ", "no address"),
        ("novak", "needs an @"),
        ("é@b.cz", "not ASCII"),
        ("a@b.cz\r\nRCPT TO:<evil@x.cz>", "control character"),
        ("a@b.cz\n", "control character"),
        ("a\x00@b.cz", "control character"),
        ("a@b\u2028.cz", "control character"),
        ("x" * 65 + "@b.cz", "local part longer"),
        ("a@" + "b" * 64 + ".cz", "label longer"),
        ("a@" + "b.c" * 90 + ".cz", "address longer"),
        ("a@intranet", "no dot"),
        ("a@[127.0.0.1]", "bracketed IP"),
        ("a@127.0.0.1", "bare IP"),
        ('"a b"@c.cz', "Quoting"),
        ("Jan <a@b.cz>", "display name"),
        ("a..b@c.cz", "two periods"),
        ("a@b@c.cz", "'@'"),
        ("a@b_c.cz", "'_'"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(BadAddress, match=reason.replace("[", r"\[")):
        normalise(text)


@given(st.one_of(st.text(max_size=40), st.text(alphabet='aB.-@é\r\n\x00 "<>:;_+', max_size=30), _SAMPLES))
def test_a_normal_form_is_its_own_normal_form_and_safe_on_the_wire(text: str) -> None:
    try:
        kept = normalise(text)
    except BadAddress:
        return
    assert normalise(kept) == kept
    assert kept.isascii()
    assert kept.isprintable()
    assert not set(kept) & set(' <>"\r\n')


@given(st.lists(st.one_of(_SAMPLES, st.just("a@b.cz\nc@d.cz"), st.text(max_size=9)), max_size=5))
def test_a_plain_column_holds_only_normal_forms(texts: list[str]) -> None:
    if all_plain(texts):
        assert [normalise(text) for text in texts] == texts


def test_a_line_break_inside_an_address_does_not_pass_as_two() -> None:
    assert not all_plain(["a@b.cz\nc@d.cz"])
    assert all_plain(["a@b.cz", "c@d.cz"])
