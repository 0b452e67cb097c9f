"""DKIM: what we sign is what dkimpy, which shares nothing with us, finds in the octets that a receiver gets."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given
from hypothesis import strategies as st
from rendering import DATE, check, eml, prepare, skeleton

from sendengine.keyring import read_key
from sendengine.policy.signing import ED25519, RSA
from sendengine.render.compile import Skeleton
from sendengine.render.dkim import OVERSIGNED, SigningKey, relaxed_body, relaxed_field
from tests import verifying
from tests.verifying import SEED, rsa_pem, tags

TIME = 1_767_225_600
RFC_MESSAGE = b"""From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")  # A.3
RFC_FIELD = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=""".replace(b"\n", b"\r\n")
RFC_SIGNATURE = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="


KEYS = {"ed": read_key(SEED, "test"), "rsa": read_key(rsa_pem(), "test")}
PUBLISHED = {f"{name}._domainkey.example.org": key for name, key in KEYS.items()}
SIGNERS = tuple(SigningKey("example.org", name, key.algorithm, key.sign) for name, key in KEYS.items())


def signed(made: Skeleton, eightbit: bool = True, keys: tuple[SigningKey, ...] = SIGNERS, **row: object) -> bytes:
    """One message as its peer takes it off the wire: dots unstuffed."""
    renderer = made.renderer(eightbit)
    octets = renderer.wire(prepare(made, eightbit, **row), 7, DATE, TIME, keys)
    check(octets, renderer.has_eightbit)
    return re.sub(rb"(?m)^\.\.", b".", octets)


def verdicts(octets: bytes) -> list[bool]:
    return verifying.verdicts(octets, PUBLISHED)


def test_rfc_8463_vector_is_reproduced() -> None:
    head, _, body = RFC_MESSAGE.partition(b"\r\n\r\n")
    by_name = {field.partition(b":")[0].lower(): field for field in head.split(b"\r\n")}
    names = (b"from", b"to", b"subject", b"date", b"message-id")
    data = b"".join(relaxed_field(by_name[name]) + b"\r\n" for name in names) + relaxed_field(RFC_FIELD)
    key = KEYS["ed"]
    assert key.public == "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert b64encode(sha256(relaxed_body(body)).digest()) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    assert b64encode(key.sign(sha256(data).digest())).decode() == RFC_SIGNATURE


BLANKS = st.sampled_from(
    ["", " ", "  ", "\t", "\n", " \n", "\n ", "\n\n", "\n \t\n", ".", "..", "\n.", "\n..x", "a", "ž", "%", "%b", "=", "-" * 80]
)
texts = st.lists(BLANKS, max_size=6).map("".join)
templates = st.lists(st.one_of(BLANKS, st.sampled_from(["{{ a }}", "{{ b }}", "{{ c }}"])), max_size=10).map("".join)
templates = templates.filter(str.strip)  # a message without a text is refused


@given(templates, texts, texts, texts, st.booleans(), st.booleans())
def test_body_hash_is_that_of_the_octets_received(template: str, a: str, b: str, c: str, eightbit: bool, has_html: bool) -> None:
    made = skeleton(text=template, html=template if has_html else None)
    octets = signed(made, eightbit, SIGNERS[:1], a=a, b=b, c=c)
    body = octets.partition(b"\r\n\r\n")[2]
    (wanted,) = {sha256(CanonicalizationPolicy.from_c_value(b"relaxed/relaxed").canonicalize_body(body)).digest()}
    assert b64decode(tags(octets)["bh"]) == wanted
    assert verdicts(octets) == [True]


@given(templates, texts, texts, st.booleans())
def test_body_with_logic_is_signed_as_received(template: str, a: str, b: str, eightbit: bool) -> None:
    made = skeleton(text="{% if a %}{{ a }}{% endif %}" + template, html=None)
    assert verdicts(signed(made, eightbit, SIGNERS[:1], a=a, b=b, c="")) == [True]


words = st.lists(st.sampled_from(["", " ", "  ", "word", ": ", "ž", "%", "x" * 90, "=?utf-8?q?x?=", '"', ","]), max_size=12).map("".join)


@given(words, words, words)
def test_fields_are_signed_as_received(a: str, b: str, literal: str) -> None:
    made = skeleton(
        subject="{{ a }}  100%  {{ b }}", reply_to="{{ b }} <reply@example.org>",
        headers={"To": "{{ a }} <{{ email }}>", "List-Id": literal + "<l>"}, list_unsubscribe="https://example.org/?u={{ a }}",
    )  # fmt: skip
    assert verdicts(signed(made, keys=SIGNERS[:1], a=a, b=b)) == [True]


def test_both_keys_sign() -> None:
    octets = signed(skeleton(text="Hello {{ a }}\n"), a="x")
    assert [tags(octets)[name] for name in "acdst"] == [ED25519, "relaxed/relaxed", "example.org", "ed", str(TIME)]
    assert tags(octets, 1)["a"] == RSA
    assert verdicts(octets) == [True, True]


@pytest.mark.parametrize(
    "change", [(b"Hello x", b"Hello y"), (b"\r\nSubject: s", b"\r\nSubject: t"), (b"Message-ID: <m1", b"Message-ID: <m2")]
)
def test_what_is_changed_on_the_way_is_noticed(change: tuple[bytes, bytes]) -> None:
    octets = signed(skeleton(text="Hello {{ a }}\n"), a="x")
    assert change[0] in octets
    assert verdicts(octets.replace(*change)) == [False, False]


def test_a_signature_that_was_changed_is_none() -> None:
    octets = signed(skeleton(text="Hello {{ a }}\n"), a="x")
    assert verdicts(octets.replace(b" t=%d" % TIME, b" t=%d" % (TIME + 1), 1)) == [False, True]


@pytest.mark.parametrize("name", sorted(OVERSIGNED))
@pytest.mark.parametrize("has_list", [True, False])
def test_a_field_added_to_a_signed_message_breaks_it(name: str, has_list: bool) -> None:
    octets = signed(skeleton(list_unsubscribe="https://example.org/{{ a }}" if has_list else None), a="x")
    assert verdicts(octets) == [True, True]
    for added in (
        name.title().encode() + b": attacker <a@example.net>\r\n" + octets,
        octets.replace(b"\r\n\r\n", b"\r\n" + name.encode() + b": x\r\n\r\n", 1),
    ):
        assert verdicts(added) == [False, False]


def test_each_standing_field_is_named_and_the_guarded_ones_once_more() -> None:
    octets = signed(skeleton(list_unsubscribe="https://example.org/{{ a }}"), a="x")
    named = re.sub(r"\s", "", tags(octets)["h"]).split(":")
    assert sorted(named) == sorted(
        ["date", "message-id", "mime-version", "content-type", "content-transfer-encoding", *OVERSIGNED, *OVERSIGNED]
    )


def test_absent_subject_is_named_once() -> None:
    octets = signed(eml("From: a@example.org", "", "Hello"))
    assert re.sub(r"\s", "", tags(octets)["h"]).split(":").count("subject") == 1
    assert verdicts(octets) == [True, True]
    assert verdicts(b"Subject: added\r\n" + octets) == [False, False]


@pytest.mark.parametrize("eightbit", [True, False])
def test_eml_with_odd_fields_and_parts_is_signed_as_it_stands(eightbit: bool) -> None:
    made = eml(
        'From: "A  B" \t <a@example.org>', "Subject: folded\t  and", "\t 100% {{ a }}  blank ", "Cc: one@example.org,", "  two@example.org",
        "References: <a@b>", "References:  <c@d>",
        "Content-Type: multipart/mixed; boundary=x", "", "--x", "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit", "",
        ".dots", "..and {{ a }} \t", "", "ž", "", "--x", "Content-Type: application/pdf",
        "Content-Transfer-Encoding: base64", "", "JVBERi0=", "", "", "--x--",
    )  # fmt: skip
    assert verdicts(signed(made, eightbit, a=".  x")) == [True, True]


def test_row_that_goes_quoted_printable_among_8bit_ones_is_signed() -> None:
    made = skeleton(text="ž {{ a }}\n")
    octets = signed(made, a="long" * 400)
    assert b"Content-Transfer-Encoding: quoted-printable" in octets
    assert verdicts(octets) == [True, True]


def test_a_body_that_is_the_same_for_all_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = skeleton(subject="{{ a }}", text="Hello\n")
    first = signed(made, a="x")
    monkeypatch.setattr("sendengine.render.dkim._reduced", lambda octets: octets if b"Hello" not in octets else pytest.fail("again"))
    second = signed(made, a="y")
    assert tags(first)["bh"] == tags(second)["bh"]


def test_without_keys_nothing_is_added() -> None:
    assert b"DKIM" not in signed(skeleton(), keys=())


def test_signature_fields_keep_to_78_columns() -> None:
    octets = signed(skeleton(list_unsubscribe="https://example.org/{{ a }}"), a="x")
    head = octets.partition(b"\r\nDate:")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 78
    assert {SIGNERS[0].algorithm, SIGNERS[1].algorithm} == {ED25519, RSA}


@pytest.mark.parametrize("most", [0, 3])
@given(templates, texts, texts, texts)
def test_large_cores_are_hashed_where_they_lie(most: int, template: str, a: str, b: str, c: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sendengine.render.dkim._COPIED_MOST", most)
        made = skeleton(text=template, html="{{ c }}%<p>{{ a }}  </p>")
        assert verdicts(signed(made, keys=SIGNERS[:1], a=a, b=b, c=c)) == [True]
