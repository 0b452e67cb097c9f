"""How many parts a text has: a table of its borders, and what stands in the parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.policy.parts import BASIC, EXTENSION, BadText, Coding, coding_of, count, split

GSM, UCS = Coding.GSM7, Coding.UCS2
EURO, SMILE, CJK, DE = "€", "😀", "漢", "Ж"
FAMILY = "👨‍👩‍👧"  # three characters beyond the BMP and two joiners: 8 units


def _runs(letter: str, coding: Coding, borders: list[tuple[int, int]]) -> list[tuple[str, Coding, int]]:
    return [(letter * length, coding, parts) for length, parts in borders]


SEPTETS = [
    (1, 1), (2, 1), (69, 1), (70, 1), (71, 1), (152, 1), (153, 1), (154, 1), (159, 1), (160, 1), (161, 2), (162, 2), (305, 2), (306, 2),
    (307, 3), (458, 3), (459, 3), (460, 4), (611, 4), (612, 4), (613, 5), (1530, 10), (1531, 11), (153 * 255, 255),
]  # fmt: skip
UNITS = [
    (1, 1), (66, 1), (67, 1), (68, 1), (69, 1), (70, 1), (71, 2), (72, 2), (133, 2), (134, 2), (135, 3), (200, 3), (201, 3), (202, 4),
    (267, 4), (268, 4), (269, 5), (670, 10), (671, 11), (67 * 255, 255),
]  # fmt: skip
# two septets each: 80 alone; of 153 septets a pair fills 152
PAIRS = [(1, 1), (79, 1), (80, 1), (81, 2), (152, 2), (153, 3), (228, 3), (229, 4), (304, 4), (305, 5)]
# two units each: 35 alone; of 67 units a pair fills 66
HALVES = [(1, 1), (34, 1), (35, 1), (36, 2), (66, 2), (67, 3), (99, 3), (100, 4), (132, 4), (133, 5)]

TABLE: list[tuple[str, Coding, int]] = [
    *_runs("a", GSM, SEPTETS),
    *_runs("@", GSM, SEPTETS),
    *_runs("à", GSM, [(160, 1), (161, 2), (306, 2), (307, 3)]),
    *_runs("\n", GSM, [(160, 1), (161, 2), (306, 2), (307, 3)]),
    *_runs("Ω", GSM, [(160, 1), (161, 2)]),
    *_runs(" ", GSM, [(160, 1), (161, 2)]),
    *_runs(CJK, UCS, UNITS),
    *_runs(DE, UCS, UNITS),
    *_runs("ç", UCS, [(70, 1), (71, 2), (134, 2), (135, 3)]),  # its capital alone is in the alphabet
    *_runs("`", UCS, [(70, 1), (71, 2)]),
    *_runs("’", UCS, [(70, 1), (71, 2)]),
    *_runs("\u00a0", UCS, [(70, 1), (71, 2)]),
    *_runs("\t", UCS, [(70, 1), (71, 2)]),
    *_runs("\x1b", UCS, [(1, 1), (71, 2)]),  # the escape is no character
    *_runs(EURO, GSM, PAIRS),
    *_runs("[", GSM, PAIRS),
    *[(letter * 80, GSM, 1) for letter in EXTENSION],
    *[(letter * 81, GSM, 2) for letter in EXTENSION],
    *[(letter, GSM, 1) for letter in EXTENSION],
    *_runs(SMILE, UCS, HALVES),
    *_runs("𝄞", UCS, HALVES),
    # one extended character at each side of a border
    ("a" * 158 + EURO, GSM, 1), ("a" * 159 + EURO, GSM, 2), (EURO + "a" * 158, GSM, 1), (EURO + "a" * 159, GSM, 2),
    ("a" * 152 + EURO + "a" * 152, GSM, 3),  # 306 septets: the pair would straddle 153, so the first part is one short
    ("a" * 152 + EURO + "a" * 151, GSM, 2), ("a" * 151 + EURO + "a" * 153, GSM, 2), ("a" * 153 + EURO + "a" * 151, GSM, 2),
    ("a" * 152 + EURO + "a" * 6, GSM, 1), ("a" * 152 + EURO + "a" * 7, GSM, 2), ("a" * 304 + EURO, GSM, 2), ("a" * 305 + EURO, GSM, 3),
    ("a" * 151 + EURO * 2 + "a" * 151, GSM, 2), ("a" * 152 + EURO * 2 + "a" * 150, GSM, 3),
    # one character beyond the BMP at each side of a border
    (CJK * 68 + SMILE, UCS, 1), (CJK * 69 + SMILE, UCS, 2), (SMILE + CJK * 68, UCS, 1), (SMILE + CJK * 69, UCS, 2),
    (CJK * 66 + SMILE + CJK * 66, UCS, 3), (CJK * 66 + SMILE + CJK * 65, UCS, 2), (CJK * 65 + SMILE + CJK * 67, UCS, 2),
    (CJK * 67 + SMILE + CJK * 65, UCS, 2), (CJK * 132 + SMILE, UCS, 2), (CJK * 133 + SMILE, UCS, 3),
    # one character that is not in the alphabet makes all of it UCS-2
    ("a" * 69 + CJK, UCS, 1), ("a" * 70 + CJK, UCS, 2), ("a" * 133 + CJK, UCS, 2), ("a" * 134 + CJK, UCS, 3),
    ("a" * 68 + SMILE, UCS, 1), ("a" * 69 + SMILE, UCS, 2), (EURO * 69 + CJK, UCS, 1), (EURO * 70 + CJK, UCS, 2),
    (EURO * 134 + CJK, UCS, 3),
    # sequences that show as one sign count all their units
    (FAMILY, UCS, 1), (FAMILY * 8, UCS, 1), (FAMILY * 9, UCS, 2), (FAMILY * 16, UCS, 2), (FAMILY * 17, UCS, 3),
    ("e\u0301" * 35, UCS, 1), ("e\u0301" * 36, UCS, 2), ("🇸🇪" * 17, UCS, 1), ("🇸🇪" * 18, UCS, 2), ("👍🏽" * 17, UCS, 1),
    ("👍🏽" * 18, UCS, 2),
    # as people write
    ("Hello", GSM, 1), ("Your code is 123456.", GSM, 1), ("Grüße aus Köln, 5 £ und 3 ¥!", GSM, 1), ("Ça va?", GSM, 1), ("ça va?", UCS, 1),
    ("Tack så mycket, ÅÄÖ åäö", GSM, 1), ("Dobrý den", UCS, 1), ("Ελληνικά", UCS, 1), ("ΔΦΓΛΩΠΨΣΘΞ", GSM, 1), ("Привет", UCS, 1),
    ("מה שלומך", UCS, 1), ("مرحبا", UCS, 1), ("50 % off — today", UCS, 1), ("50 % off - today", GSM, 1), ("“quoted”", UCS, 1),
    ('"quoted"', GSM, 1), ("a\r\nb", GSM, 1), ("https://example.com/?a=1&b={x}~|^\\[]", GSM, 1), ("¿Qué? ¡Sí!", UCS, 1),
    ("¿Que? ¡Si!", GSM, 1),
]  # fmt: skip


def test_table_is_long_enough() -> None:
    assert len(TABLE) >= 200


@pytest.mark.parametrize(("text", "coding", "parts"), TABLE)
def test_text_has_its_coding_and_parts(text: str, coding: Coding, parts: int) -> None:
    assert (coding_of(text), count(text)) == (coding, parts)
    assert (split(text, 7)[0], len(split(text, 7)[1])) == (coding, parts)


def _read(coding: Coding, bodies: list[bytes]) -> str:
    """By another way than it was written: what a handset makes of it."""
    parts = []
    for number, body in enumerate(bodies, 1):
        if len(bodies) > 1:
            assert body[:6] == bytes((5, 0, 3, 0xC8, len(bodies), number))
            body = body[6:]
        assert 0 < len(body) <= (160 if coding is GSM else 140) - (0 if len(bodies) == 1 else 7 if coding is GSM else 6)
        parts.append(body.decode("utf-16-be") if coding is UCS else _septets(body))  # each stands by itself
    return "".join(parts)


def _septets(body: bytes) -> str:
    extended = {code: letter for letter, code in EXTENSION.items()}
    read, octets = [], iter(body)
    for octet in octets:
        read.append(extended[next(octets)] if octet == 0x1B else BASIC[octet])
    return "".join(read)


@pytest.mark.parametrize("text", [text for text, _, _ in TABLE if len(text) < 2000])
def test_parts_read_as_the_text(text: str) -> None:
    assert _read(*split(text, 456)) == text  # 456 is 0xC8 beyond 256


ANY = st.text(
    st.one_of(st.sampled_from(BASIC.replace("\x1b", "")), st.sampled_from("".join(EXTENSION)), st.sampled_from("漢😀Ж")),
    min_size=1,
    max_size=500,
)


@given(ANY)
def test_any_text_is_cut_and_read_whole(text: str) -> None:
    coding, bodies = split(text, 0xC8)
    assert _read(coding, bodies) == text
    assert count(text) == len(bodies)


@pytest.mark.parametrize("text", ["", "\ud83d", "a\ude00", "a" * (153 * 255 + 1), CJK * (67 * 255 + 1)])
def test_text_of_which_no_sms_can_be_made_is_refused(text: str) -> None:
    with pytest.raises(BadText):
        count(text)


def test_alphabet_has_128_places_and_no_letter_twice() -> None:
    assert len(BASIC) == len(set(BASIC)) == 128
    assert not set(EXTENSION) & set(BASIC)
