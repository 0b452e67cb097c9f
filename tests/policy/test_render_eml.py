"""An .eml keeps its structure, the order of its fields and every octet that is no text of its author's."""

from __future__ import annotations

import quopri
from base64 import b64encode
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendering import DATE, bodies, eml, field, raw_fields, wire

from sendengine.errors import RefusedInput
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message

HEAD = ("From: News <news@example.org>", "Subject: s")
NESTED = (
    *("Received: from x", "Return-Path: <r@example.org>", "X-First:  two  blanks", "From: News <news@example.org>"),
    *("To: {{ name }} <{{ email }}>", "Bcc: secret@example.org", "Subject: =?utf-8?q?=C5=BD_=7B=7B_name_=7D=7D?="),
    *("Date: x", "Message-ID: <x@y>", "DKIM-Signature: v=1;", "\tb=abc", "MIME-Version: 1.0"),
    *("Content-Type: multipart/mixed;", ' boundary="outer"', "", "preamble", "--outer"),
    *(
        "Content-Type: multipart/alternative; boundary=inner; x=y",
        "",
        "--inner",
        "",
        "Hi {{ name }}",
        ".dot",
        "--inner",
    ),
    *(
        'Content-Type: text/html; CHARSET="iso-8859-2"',
        "Content-Transfer-Encoding: quoted-printable",
        "X-Part: kept",
        "",
    ),
    *("<p>=AE {{=", " name }}</p>", "--inner--", "--outer"),
    *(
        "Content-Type: image/png",
        "Content-Transfer-Encoding: base64",
        "",
        "iVBOR{{ name }}",
        ".x%d",
        "--outer--",
        "epilogue",
    ),
)


def test_eml_keeps_what_it_should() -> None:
    made = eml(*NESTED)
    octets = wire(made, name="Jan <& Žofie")
    assert [name for name, _ in raw_fields(octets)] == [
        *("Date", "Message-ID", "X-First", "From", "To", "Subject", "MIME-Version", "Content-Type")
    ]
    assert b"X-First:  two  blanks\r\n" in octets
    assert field(octets, "Subject") == "Ž Jan <& Žofie"
    assert bodies(octets) == ["Hi Jan <& Žofie\r\n.dot", "<p>Ž Jan &lt;&amp; Žofie</p>"]
    assert b'boundary="=_' in octets
    assert b"; x=y\r\n" in octets
    assert b"X-Part: kept\r\n" in octets
    assert b"\r\n\r\niVBOR{{ name }}\r\n.x%d\r\n--=_" in octets
    assert b"secret" not in octets
    kinds = [part.get_content_type() for part in message_from_bytes(octets).walk()]
    assert kinds == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "image/png"]
    assert (made.fields, made.from_domain) == (("name",), "example.org")


def test_lf_and_crlf_sources_give_the_same_message() -> None:
    unix = "\n".join(NESTED).encode()
    made = [compile_message(Message.from_eml(source), "u") for source in (unix, unix.replace(b"\n", b"\r\n"))]
    bodies_of = [bodies(wire(each, name="x")) for each in made]
    assert bodies_of[0] == bodies_of[1]


def test_to_is_added_where_there_is_none() -> None:
    octets = wire(eml(*HEAD, "", "hi"), email="jan@example.com")
    assert field(octets, "To") == "jan@example.com"
    assert field(octets, "MIME-Version") == "1.0"


def test_fixed_to_is_kept_raw() -> None:
    octets = wire(eml(*HEAD, "To: undisclosed-recipients:;", "", "hi"))
    assert field(octets, "To") == "undisclosed-recipients:;"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_body_is_decoded_filled_in_and_encoded(encoding: str) -> None:
    text = "Milá {{ name }},\n.tečka\n"
    encoded = {
        "base64": b64encode(text.encode()).decode(),
        "quoted-printable": quopri.encodestring(text.encode()).decode(),
        "8bit": text,
    }[encoding]
    head = ("Content-Type: text/plain; charset=utf-8", f"Content-Transfer-Encoding: {encoding}")
    octets = wire(eml(*HEAD, *head, "", encoded), eightbit=False, name="Jano")
    assert [text.rstrip() for text in bodies(octets)] == ["Milá Jano,\r\n.tečka"]
    assert [name for name, _ in raw_fields(octets)].count("Content-Transfer-Encoding") == 1


def test_signed_part_is_copied_octet_for_octet() -> None:
    inner = (
        "--b",
        "Content-Type: text/plain",
        "",
        "Hi {{ name }} ",
        "--b",
        "Content-Type: application/x",
        "",
        "sig",
        "--b--",
    )
    octets = wire(eml(*HEAD, "Content-Type: multipart/signed; boundary=b", "", *inner))
    assert octets.partition(b"\r\n\r\n")[2] == "\r\n".join((*inner, "")).encode()


def test_eightbit_attachment_becomes_base64() -> None:
    part = ("--b", "Content-Type: text/csv; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "ž;1", "--b--")
    made = eml(*HEAD, "Content-Type: multipart/mixed; boundary=b", "", *part)
    (leaf,) = [part for part in message_from_bytes(wire(made, eightbit=False)).walk() if not part.is_multipart()]
    assert leaf.get_payload(decode=True) == "ž;1".encode()
    assert not made.renderer(True).has_eightbit


def test_text_attachment_is_no_template() -> None:
    part = ("--b", "Content-Disposition: attachment", "", "Hi {{ name }}", "--b--")
    octets = wire(eml(*HEAD, "Content-Type: multipart/mixed; boundary=b", "", *part))
    assert b"\r\n\r\nHi {{ name }}\r\n" in octets


def test_raw_utf8_field_is_encoded() -> None:
    octets = wire(eml("From: Žofie <z@example.org>", "Subject: Čau {{ name }}", "", "hi"), name="Ž")
    assert field(octets, "Subject") == "Čau Ž"
    assert str(message_from_bytes(octets, policy=policy.default)["From"]) == "Žofie <z@example.org>"


def test_extra_fields_replace_those_of_the_eml() -> None:
    source = (*HEAD, "List-Unsubscribe: <mailto:old@example.org>", "X-A: old", "", "hi")
    octets = wire(eml(*source, headers={"X-A": "new {{ a }}"}, list_unsubscribe="https://example.org/{{ a }}"), a="1")
    assert [value for name, value in raw_fields(octets) if name in ("X-A", "List-Unsubscribe")] == [
        *("new 1", "<https://example.org/1>")
    ]


@given(st.binary(max_size=120), st.booleans())
def test_any_octets_are_taken_or_refused_never_broken(tail: bytes, is_multipart: bool) -> None:
    kind = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" if is_multipart else b""
    try:
        made = compile_message(Message.from_eml(b"From: a@example.org\n" + kind + tail), "u")
    except RefusedInput:
        return
    values = made.renderer(False).prepare(list(made.fields), [["x"]] * len(made.fields), ["jan@example.com"])
    if isinstance(values[0], tuple):
        octets = made.renderer(False).wire(values[0], 1, DATE)
        assert octets.isascii()
        assert octets.endswith(b"\r\n")
        assert b"\0" not in octets
        assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (b"Subject: s\n\nhi", "no From"),
        (b"From: a@example.org\nFrom: b@example.org\n\nhi", "2 From"),
        (b"From: a@example.org\n\nhi\rthere", "line 3: a bare CR"),
        (b"From: a@example.org\n\nhi\0", "line 3: a NUL"),
        (b"From: a@example.org\n\n\n" + b"x" * 999, "line 4: 999 octets"),
        (b"From: a@example.org\nno field\n\nhi", "header field 2"),
        (b"From: a@example.org\nSubject: \xff\n\nhi", "field Subject"),
        (b"From: {{ a }}@example.org\n\nhi", "field From"),
        (b"From: nobody\n\nhi", "field From: 'nobody'"),
        (b"From: a@example.org\nContent-Type: multipart/mixed; boundary=b\n\nhi", "boundary"),
        (b"From: a@example.org\nContent-Type: text/plain; charset=utf-8\n\n\xff", "not utf-8"),
        (b"From: a@example.org\nContent-Type: text/plain; charset=klingon\n\nhi", "klingon"),
        (b"From: a@example.org\nContent-Type: message/rfc822\n\nSubject: \xc5\xbe", "message/rfc822"),
        (b"From: a@example.org\n\nhi\n{{ a | nofilter }}", "message, line 2: unknown filter 'nofilter'"),
        (b"From: a@example.org\nTo: {{ a | upper }} <b@example.org>\n\nhi", "field To"),
    ],
)
def test_bad_eml_is_refused_with_its_place(source: bytes, place: str) -> None:
    with pytest.raises(RefusedInput) as refusal:
        compile_message(Message.from_eml(source), "u")
    assert place in str(refusal.value)
