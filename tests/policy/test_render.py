"""Rendering: whatever the merge values are, a peer receives one well-formed message that says what it should."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import DATE, bodies, check, failure, field, prepare, raw_fields, skeleton, wire

from sendengine.render.message import Attachment, Message, NewerPayload, dump, load
from sendengine.render.renderer import QuotedValues
from sendengine.render.values import RenderFailure

FIELDS = ["Date", "Message-ID", "To", "From", "Subject", "MIME-Version", "Content-Type"]
NASTY = [
    "\r",
    "\n",
    "\0",
    ".",
    "%",
    "%b",
    "{{ a }}",
    "{% if %}",
    "\u2028",
    "=",
    "=?utf-8?q?x?=",
    " ",
    "<",
    "&",
    "ž",
    "\U0001f600",
]
values = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=8)), max_size=6).map("".join)
long_values = st.one_of(values, st.builds(lambda text, n: text * n, values, st.integers(1, 400)))
literals = st.sampled_from(
    ["", ".", "..", "\n", "\n.", ".\n", "x", " ", "\nž. ", "100% %s ", "=20", "-" * 70, "y" * 500]
)
slots = st.sampled_from(["{{ a }}", "{{b}}", '{{ c | default("d.") }}'])
templates = st.lists(st.one_of(literals, slots), max_size=8).map("".join)


def expected(template: str, row: dict[str, str], quote: bool) -> str:
    def value(match: re.Match[str]) -> str:
        text = row[match[1]] or ("d." if match[1] == "c" else "")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return escape(text) if quote else text

    return re.sub(r"\{\{ ?(\w)(?: \| default\(\"d\.\"\))? ?\}\}", value, template).replace("\n", "\r\n")


@given(templates.filter(str.strip), long_values, long_values, values, st.booleans())
def test_any_value_arrives_as_it_is_and_adds_nothing(template: str, a: str, b: str, c: str, eightbit: bool) -> None:
    row = {"a": a, "b": b, "c": c}
    made = skeleton(text=template, html=template)
    octets = wire(made, eightbit, **row)
    assert [name for name, _ in raw_fields(octets)] == FIELDS
    assert bodies(octets) == [expected(template, row, quote=False), expected(template, row, quote=True)]


@given(values.filter(lambda text: not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)), st.booleans())
def test_any_printable_value_stays_inside_its_header(value: str, eightbit: bool) -> None:
    made = skeleton(subject="Hello {{ a }}, 100%", headers={"To": "{{ a }} <{{ email }}>", "X-Id": "{{ a }}{{ a }}"})
    octets = wire(made, eightbit, a=value)
    names = [name for name, _ in raw_fields(octets)]
    assert sorted(names) == sorted([*FIELDS, "X-Id", "Content-Transfer-Encoding"])
    assert field(octets, "Subject") == f"Hello {value}, 100%"
    assert field(octets, "X-Id") == (value + value).strip(" ")
    parsed = message_from_bytes(octets, policy=policy.default)
    assert [address.addr_spec for address in parsed["To"].addresses] == ["jan@example.com"]
    assert all(len(line) <= 78 or b" " not in line.strip() for line in octets.partition(b"\r\n\r\n")[0].split(b"\r\n"))


@given(st.sampled_from("\r\n\0\t\x0b\x1f\x7f\x85\u2028\u2029"), values, values)
def test_control_character_in_a_header_fails_the_row(control: str, before: str, after: str) -> None:
    made = skeleton(subject="Hello {{ a }}!")
    reason = failure(made, a=before + control + after)
    assert "control character" in reason


@given(st.lists(values, min_size=1, max_size=5))
def test_rows_of_a_batch_are_encoded_as_they_are_alone(column: list[str]) -> None:
    made = skeleton(text=".{{ a }}.\n", html="<p>{{ a }}</p>")
    for renderer in (made.renderer(True), made.renderer(False)):
        together = renderer.prepare(["a"], [column], ["x@example.com"] * len(column))
        alone = [renderer.prepare(["a"], [[value]], ["x@example.com"])[0] for value in column]
        assert together == alone


def test_encoded_word_in_a_value_is_shown_not_obeyed() -> None:
    evil = "=?utf-8?q?x=0d=0aBcc:_evil@example.net?="
    octets = wire(skeleton(subject="Hi {{ a }}", headers={"To": "{{ a }} <{{ email }}>"}), a=evil)
    assert b"Bcc" not in octets
    assert field(octets, "Subject") == f"Hi {evil}"
    assert message_from_bytes(octets, policy=policy.SMTP)["Bcc"] is None


def test_lone_surrogate_fails_its_row_only() -> None:
    made = skeleton(subject="{{ a }}", html="{{ a }}")
    rows = made.renderer(True).prepare(["a"], [["x", "\ud800", "ž"]], ["x@example.com"] * 3)
    assert [isinstance(row, RenderFailure) for row in rows] == [False, True, False]


def test_missing_value_fails_its_row_and_default_fills_in() -> None:
    made = skeleton(subject='{{ a | default("friend") }}', text="{{ b }} {{ c | default('it\\'s') }}\n")
    rows = made.renderer(True).prepare(["a", "b"], [["", None, "A"], ["B", 5, None]], ["x@example.com"] * 3)
    assert rows == [(b"x@example.com", b"friend", b"B", b"it's"), (b"x@example.com", b"friend", b"5", b"it's"), rows[2]]
    assert rows[2] == RenderFailure("merge field 'b' is missing")


def test_field_names_are_told() -> None:
    made = skeleton(
        subject='{{ a | default("x") }}', text="{{ b }}{{ email }}{{ a }}", list_unsubscribe="https://x/{{ t }}"
    )
    assert (set(made.fields), made.required, made.in_headers) == ({"a", "b", "t"}, {"a", "b", "t"}, {"a", "t"})


def test_a_value_too_long_for_8bit_goes_quoted_printable() -> None:
    made = skeleton(text="ž {{ a }}\n")
    values = prepare(made, a="y" * 2000)
    assert isinstance(values, QuotedValues)
    assert bodies(wire(made, a="y" * 2000)) == ["ž " + "y" * 2000 + "\r\n"]


def test_a_literal_line_too_long_makes_its_part_quoted_printable() -> None:
    made = skeleton(text=None, html="<p>" + "ž" * 600 + "</p>{{ a }}")
    octets = wire(made, a="x")
    assert b"Content-Transfer-Encoding: quoted-printable" in octets
    assert not made.renderer(True).has_eightbit


def test_quoted_printable_lines_are_at_most_76() -> None:
    made = skeleton(text=("ab ž" * 40 + "{{ a }}") * 3 + " \n \n")
    octets = wire(made, eightbit=False, a="ř x" * 70)
    assert max(map(len, octets.split(b"\r\n"))) <= 76
    assert not re.search(rb"[ \t]\r\n", octets)


@pytest.mark.parametrize("length", range(70, 80))
def test_a_soft_break_after_a_full_line_keeps_it_at_76(length: int) -> None:
    octets = wire(skeleton(text="y" * length + "{{ a }}ž\n"), eightbit=False, a="z" * length)
    assert max(map(len, octets.split(b"\r\n"))) <= 76
    assert bodies(octets) == ["y" * length + "z" * length + "ž\r\n"]


@pytest.mark.parametrize("value", ["", ".", "\n", "x\r", "\r\n.", "x"])
def test_a_dot_after_a_value_is_stuffed_where_it_begins_a_line(value: str) -> None:
    octets = wire(skeleton(text="{{ a }}.\n{{ a }}{{ a }}..\n"), a=value)
    assert bodies(octets) == [expected("{{ a }}.\n{{ a }}{{ a }}..\n", {"a": value}, quote=False)]


def test_long_header_text_is_folded_and_each_encoded_word_whole() -> None:
    made = skeleton(subject="{{ a }}")
    for value in ("word " * 60 + "end", "ž\U0001f600" * 60, "x" * 1200):
        head = wire(made, a=value).partition(b"\r\n\r\n")[0]
        assert max(map(len, head.split(b"\r\n"))) <= 78
        words = re.findall(r"=\?utf-8\?b\?[^?]+\?=", head.decode())
        assert all(len(word) <= 75 for word in words)
        assert "".join(str(make_header(decode_header(word))) for word in words) in (value, "")
        assert field(head + b"\r\n\r\n", "Subject") == value


def test_blanks_at_a_header_value_s_edge_are_left_out() -> None:
    assert b"Subject: Hi\r\n" in wire(skeleton(subject="Hi {{ a }}"), a=" ")


def test_a_boundary_in_a_value_ends_no_part() -> None:
    made = skeleton(text="{{ a }}\n", html="<p>ž</p>")
    boundary = message_from_bytes(wire(made, a="x")).get_boundary()
    octets = wire(made, a=f"\n--{boundary}\n\nevil\n--{boundary}--\n")
    assert [part.get_content_type() for part in message_from_bytes(octets).walk()][1:] == ["text/plain", "text/html"]


def test_ascii_message_without_fields_is_7bit() -> None:
    made = skeleton(text="plain\n")
    assert b"Content-Transfer-Encoding: 7bit" in wire(made)
    assert not made.renderer(True).has_eightbit


def test_message_id_is_the_same_for_every_attempt() -> None:
    renderer = skeleton().renderer(True)
    first, second = (renderer.wire((b"x@example.com",), 42, date) for date in (DATE, b"later"))
    assert first != second
    assert first.count(b"Message-ID: <m1.c.42@example.org>\r\n") == second.count(renderer.message_id(42).encode()) == 1


def test_files_and_images_have_their_places() -> None:
    image = Attachment("logo.png", b"\x89PNG" * 40, "image/png", "logo@x")
    file = Attachment("Příloha č. 1.pdf", b"%PDF", "application/pdf")
    octets = wire(skeleton(html='<img src="cid:logo@x">', attachments=(image, file)))
    parsed = message_from_bytes(octets, policy=policy.default)
    kinds = [part.get_content_type() for part in parsed.walk()]
    assert kinds == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html"),
        *("image/png", "application/pdf"),
    ]
    found = {part.get_filename(): part.get_payload(decode=True) for part in parsed.walk() if part.get_filename()}
    assert found == {"logo.png": image.data, "Příloha č. 1.pdf": b"%PDF"}


def test_unsubscribe_is_one_click_and_its_value_percent_encoded() -> None:
    octets = wire(
        skeleton(list_unsubscribe="https://example.org/u?e={{ email }}&t={{ t }}"), email="a+b@example.com", t="ž>\n"
    )
    assert field(octets, "List-Unsubscribe") == "<https://example.org/u?e=a%2Bb%40example.com&t=%C5%BE%3E%0A>"
    assert field(octets, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"


def test_a_whole_url_as_a_value_stays_one() -> None:
    made = skeleton(list_unsubscribe="{{ url }}")
    assert field(wire(made, url="https://example.org/?a=b"), "List-Unsubscribe") == "<https://example.org/?a=b>"
    assert "URL" in failure(made, url="https://example.org>, <mailto:evil@example.net")


def test_a_value_among_addresses_adds_none() -> None:
    made = skeleton(reply_to='"{{ name }}, sales" <{{ who }}>')
    octets = wire(made, name='x" <evil@example.net>, "', who="ok@example.org")
    parsed = message_from_bytes(octets, policy=policy.default)
    assert [address.addr_spec for address in parsed["Reply-To"].addresses] == ["ok@example.org"]
    assert "address" in failure(made, name="n", who="a@example.org, b@example.org")


def test_stored_message_is_read_back_and_a_newer_one_is_left_alone() -> None:
    message = Message(sender="a@example.org", html="ž", attachments=(Attachment("a", b"\0\xff"),), headers={"X-A": "b"})
    stored = dump(message)
    assert load(stored) == message
    with pytest.raises(NewerPayload):
        load(bytes((stored[0] + 1,)) + stored[1:])


def test_wire_check_can_fail() -> None:
    for bad in (b"a: b\r\n\r\n.x\r\n", b"a: b\r\n\r\nx\ry\r\n", b"a: b\r\n\r\nx", b"a: b\r\n\r\n\xff\r\n"):
        with pytest.raises(AssertionError):
            check(bad, may_be_eightbit=False)


def test_a_field_knows_its_users_as_their_author_calls_them() -> None:
    made = skeleton(
        subject="Hi {{ name }}", html="<p>{% if vip %}{{ name }}{% endif %}</p>", text="{{ town }} {{ name | default('x') }}",
        list_unsubscribe="https://example.org/u?{{ key }}",
    )  # fmt: skip
    assert set(made.users("name")) == {"Subject", "html", "text"}
    assert [made.users(field) for field in ("vip", "town", "key", "other")] == [["html"], ["text"], ["List-Unsubscribe"], []]
