"""No value from outside adds a command, a header or a recipient, in whatever field it comes: it arrives as it is, or it is
refused by one of our own errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine import config
from sendengine.address import is_host, is_host_name, normalise
from sendengine.batch import unpack
from sendengine.engine.campaigns import envelope
from sendengine.errors import RefusedInput, SendEngineError
from sendengine.intake import Intake
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Attachment, Message
from sendengine.scheduler import names
from sendengine.wiring import relay_from_url
from tests.attack.corpus import EVIL, FUZZ, PAYLOADS, nasty, nasty_octets, ours
from tests.attack.sending import TO, Mail, deliver, made, render
from tests.attack.wire import LENIENT, STRICT, Injected, Receiver, judge, read, rewritten, structure, unstuffed

Build = Callable[[str], tuple[Message, dict[str, object]]]

LOGIC = "{% if 1 %}{{ a }}{% endif %}"
EML = """From: News <news@example.org>
To: {{ email }}
Subject: Hi {{ a }}
X-Of: {{ a }} and {{ a }}
Content-Type: text/html

<p>{{ a }}</p>
"""


def _file(**changes: str) -> Message:
    file = Attachment(**({"filename": "f.txt", "data": b"x"} | changes))  # type: ignore[arg-type]
    return made(html="h\n", attachments=(file,))


def _literal(**parts: object) -> tuple[Message, dict[str, object]]:
    return made(**parts), {}


# What an author or a list may set; every one is judged by the fields that it has with a harmless value.
FIELDS: dict[str, Build] = {
    "from name": lambda v: _literal(sender=f"{v} <news@example.org>"),
    "from quoted name": lambda v: _literal(sender=f'"{v}" <news@example.org>'),
    "from address": lambda v: _literal(sender=f"news{v}@example.org"),
    "from domain": lambda v: _literal(sender=f"news@example.org{v}"),
    "from name merged": lambda v: (made(sender="{{ a }} <news@example.org>"), {"a": v}),
    "reply-to": lambda v: _literal(reply_to=f"r{v}@example.org"),
    "reply-to merged": lambda v: (made(reply_to="{{ a }}"), {"a": v}),
    "reply-to name merged": lambda v: (made(reply_to="Shop {{ a }} <r@example.org>"), {"a": v}),
    "subject": lambda v: _literal(subject=f"s {v}"),
    "subject merged": lambda v: (made(subject="Hi {{ a }}!"), {"a": v}),
    "subject alone": lambda v: (made(subject="{{ a }}"), {"a": v}),
    "subject of logic": lambda v: (made(subject=f"Hi {LOGIC}"), {"a": v}),
    "subject default": lambda v: (made(subject="Hi {{ b | default('" + v.replace("\\", "").replace("'", "") + "') }}"), {"a": v}),
    "header": lambda v: _literal(headers={"X-Of": f"x{v}"}),
    "header merged": lambda v: (made(headers={"X-Of": "{{ a }}{{ a }}", "X-On": "x {{ a }} y"}), {"a": v}),
    "header of logic": lambda v: (made(headers={"X-Of": LOGIC}), {"a": v}),
    "to name merged": lambda v: (made(headers={"To": "{{ a }} <{{ email }}>"}), {"a": v}),
    "unsubscribe": lambda v: _literal(list_unsubscribe=f"https://example.org/{v}"),
    "unsubscribe part": lambda v: (made(list_unsubscribe="https://example.org/u?x={{ a }}"), {"a": v}),
    "unsubscribe whole": lambda v: (made(list_unsubscribe="{{ a }}"), {"a": v}),
    "unsubscribe mailto": lambda v: (made(list_unsubscribe="<mailto:u@example.org?subject={{ a }}>, <{{ a }}>"), {"a": v}),
    "text": lambda v: _literal(text=f"x{v}y\n"),
    "text merged": lambda v: (made(text="{{ a }}\n{{ a }}.{{ a }}"), {"a": v}),
    "text of logic": lambda v: (made(text=f"{LOGIC}\n.{LOGIC}"), {"a": v}),
    "html merged": lambda v: (made(html="<p>{{ a }}</p>\n{{ a }}"), {"a": v}),
    "html of logic": lambda v: (made(html=f"<p>{LOGIC}</p>"), {"a": v}),
    "file name": lambda v: (_file(filename=f"f{v}.txt"), {}),
    "file type": lambda v: (_file(content_type=f"text/plain{v}"), {}),
    "file parameter": lambda v: (_file(content_type=f"text/plain; name={v}"), {}),
    "content id": lambda v: (_file(content_id=f"id{v}"), {}),
    "eml merged": lambda v: (Message.from_eml(EML.encode()), {"a": v}),
    "eml, replaced header": lambda v: (Message.from_eml(EML.encode(), headers={"X-Of": f"{v}{{{{ a }}}}"}), {"a": "x"}),
}
HARMLESS = {"from address": "x", "unsubscribe whole": "https://example.org/", "reply-to merged": "r@example.org",
            "unsubscribe mailto": "https://example.org/", "file type": "", "file parameter": "x", "from domain": ""}  # fmt: skip
FIXED_RECIPIENTS = {TO}


def attack(field: str, value: str, eightbit: bool = True) -> bool:
    """True when the value went out, False when it was refused; raises Injected."""
    message, row = FIELDS[field](HARMLESS.get(field, "harmless"))
    plain = render(message, row, eightbit=eightbit)
    wire = ours(lambda: render(*FIELDS[field](value), eightbit=eightbit))
    if isinstance(wire, SendEngineError):
        return False
    types = structure(unstuffed(wire if field == "file type" else plain))
    judge(wire, read(plain), types, FIXED_RECIPIENTS)
    if rewritten(wire) != rewritten(plain):
        raise Injected(f"once decoded and refolded its fields are {rewritten(wire)}")
    for habit in (STRICT, *LENIENT):
        receiver = Receiver(habit)
        deliver([Mail(wire, eightbit=eightbit), Mail(plain)], receiver)
        if [(each.sender, each.recipients) for each in receiver.taken] != [(b"news@example.org", [TO.encode()])] * 2:
            raise Injected(f"a receiver with the habit {habit.name!r} took {receiver.taken}")
    return True


@pytest.mark.parametrize("field", FIELDS)
def test_no_payload_adds_anything(field: str) -> None:
    assert attack(field, HARMLESS.get(field, "harmless"))
    for payload in PAYLOADS:
        attack(field, payload)


@FUZZ
@given(st.sampled_from(sorted(FIELDS)), nasty, st.booleans())
def test_nothing_nasty_adds_anything(field: str, value: str, eightbit: bool) -> None:
    attack(field, value, eightbit)


@pytest.mark.parametrize(
    "payload", [f"x\r\nBcc: {EVIL}", f"x\nBcc: {EVIL}", "x\ry", "x\r\n\r\n<script>", "x\0y", f"x\r\n.\r\nMAIL FROM:<{EVIL}>"]
)
def test_a_renderer_that_trusts_its_values_is_found_out(payload: str) -> None:
    """The control: the judge must not be blind."""
    message, row = FIELDS["subject merged"]("harmless")
    plain = render(message, row)
    naive = plain.replace(b"Hi harmless!", f"Hi {payload}!".encode())
    with pytest.raises(Injected):
        judge(naive, read(plain), structure(unstuffed(plain)), FIXED_RECIPIENTS)


def test_an_encoded_word_that_is_passed_on_is_found_out() -> None:
    """The control of the second reader: octets that are sound, and become a Bcc when they are decoded and refolded."""
    plain = render(*FIELDS["subject merged"]("harmless"))
    naive = plain.replace(b"Hi harmless!", b"=?utf-8?q?x=0d=0aBcc:_evil?=")
    assert read(naive).names == read(plain).names
    assert rewritten(naive) != rewritten(plain)


# The envelope


def _commands(recipient: bytes, sender: bytes = b"news@example.org") -> Receiver:
    receiver = Receiver(STRICT)
    deliver([Mail(b"A: b\r\n\r\nx\r\n", sender, recipient)], receiver)
    return receiver


@pytest.mark.parametrize("spelling", ["{v}", "a{v}@example.com", "a@example.com{v}", "a@ex{v}ample.com", "{v}@example.com"])
def test_no_address_adds_a_recipient(spelling: str) -> None:
    for payload in PAYLOADS:
        text = spelling.replace("{v}", payload)
        address = ours(lambda text=text: normalise(text))  # type: ignore[misc]
        if isinstance(address, str):
            assert [each.recipients for each in _commands(address.encode()).taken] == [[address.encode()]]
            assert envelope(address) == address.encode()
        sender = ours(lambda text=text: envelope(text))  # type: ignore[misc]
        if isinstance(sender, bytes):
            assert [each.sender for each in _commands(b"a@example.com", sender).taken] == [sender]


@FUZZ
@given(nasty)
def test_whatever_is_an_address_is_one(text: str) -> None:
    address = ours(lambda: normalise(text))
    if isinstance(address, str):
        assert normalise(address) == address
        assert [each.recipients for each in _commands(address.encode()).taken] == [[address.encode()]]


def test_an_address_written_as_it_came_is_found_out() -> None:
    with pytest.raises(Injected):
        _commands(f"a@example.com>\r\nRSET {EVIL}".encode())
    with pytest.raises(Injected):
        _commands(f"a@example.com> <{EVIL}".encode())


@FUZZ
@given(nasty_octets, st.booleans())
def test_what_a_list_says_reaches_the_envelope_as_one_address(octets: bytes, is_json: bool) -> None:
    """Overlong forms and surrogates come in as octets."""
    intake = Intake(("a",), salt=b"s", in_headers=frozenset("a"))
    line = b'{"email":"x%b@example.com","a":"%b"}\n' if is_json else b"email,a\nx%b@example.com,%b\n"
    read_rows = intake.from_ndjson if is_json else intake.from_csv
    found = ours(lambda: list(read_rows([line % (octets, octets)])))
    for packed in [] if isinstance(found, SendEngineError) else found:
        batch = unpack(packed.payload)
        for recipient, value in zip(batch.recipients, batch.columns[0], strict=True):
            assert [each.recipients for each in _commands(recipient.encode()).taken] == [[recipient.encode()]]
            wire = ours(lambda value=value: render(made(subject="{{ a }}"), {"a": value}))  # type: ignore[misc]
            if isinstance(wire, bytes):
                assert read(wire).names == read(render(made(), {})).names


# Names that people choose


@pytest.mark.parametrize("take", [names.account_id, names.campaign_id, lambda text: names.account_id(f"m1{text}"),
                                  lambda text: names.campaign_id(f"c{text}")])  # fmt: skip
def test_an_id_holds_nothing_but_its_letters(take: Callable[[str], str]) -> None:
    for payload in PAYLOADS:
        found = ours(lambda payload=payload: take(payload))  # type: ignore[misc]
        assert isinstance(found, SendEngineError) or found.replace("-", "").replace(".", "").replace("_", "").isalnum()


@pytest.mark.parametrize("shape", ["{v}", "mail{v}.example.org", "mail.example.org{v}"])
def test_a_host_name_ends_at_its_end(shape: str) -> None:
    for payload in PAYLOADS:
        name = shape.replace("{v}", payload)
        found = ours(lambda name=name: config.load(None, {"SENDENGINE_HOSTNAME": name}))  # type: ignore[misc]
        if not isinstance(found, SendEngineError) and name:
            assert is_host_name(found.hostname)
            assert found.hostname.isprintable()
            assert not set(found.hostname) & set(" <>\"'")


RELAYS = ["smtp://{v}", "smtp://mail{v}.example.org:25", "smtp://u{v}@mail.example.org", "smtp://mail.example.org:25{v}", "{v}"]


@pytest.mark.parametrize("shape", RELAYS)
def test_a_relay_is_a_host_and_a_port(shape: str) -> None:
    for payload in PAYLOADS:
        password = "p" if "@" in shape else ""
        found = ours(lambda payload=payload, password=password: relay_from_url(shape.replace("{v}", payload), password))  # type: ignore[misc]
        if not isinstance(found, SendEngineError):
            assert is_host(found.host)
            assert found.user.isprintable()


def test_a_password_with_a_control_character_is_refused() -> None:
    for control in "\0\r\n\x7f":
        with pytest.raises(RefusedInput):
            relay_from_url("smtp://u@mail.example.org", f"a{control}b")


def test_the_names_in_a_message_id_are_refused_or_kept() -> None:
    for payload in PAYLOADS:
        for uid, domain in ((f"u{payload}", None), ("u", f"example.org{payload}")):
            made_ = ours(lambda uid=uid, domain=domain: compile_message(made(), uid, domain))  # type: ignore[misc]
            if not isinstance(made_, SendEngineError):
                (values,) = made_.renderer(True).prepare([], [], [TO])
                assert isinstance(values, tuple)
                read(made_.renderer(True).wire(values, 1, b"d"))


# Whole messages


EML_HEADERS = [
    "Subject: x{v}",
    "X-{v}: x",
    "{v}",
    "To: {v} <a@example.com>",
    "Content-Type: text/plain; charset={v}",
    "Content-Type: multipart/mixed; boundary={v}",
    'Content-Type: multipart/mixed; boundary="{v}"',
    'Content-Disposition: attachment; filename="{v}"',
    "Content-Transfer-Encoding: {v}",
    "MIME-Version: {v}",
    "List-Unsubscribe: <{v}>",
]


@pytest.mark.parametrize("header", EML_HEADERS)
def test_an_eml_goes_out_sound_or_not_at_all(header: str) -> None:
    """Its author may write any header; but no hidden copy, nothing unsound and no second message."""
    for payload in PAYLOADS:
        head = f"From: a@example.org\n{header.replace('{v}', payload)}".encode("utf-8", "surrogatepass")
        wire = ours(lambda head=head: render(Message.from_eml(head + b"\n\nbody\n--x\n\nx\n--x--\n"), {}))  # type: ignore[misc]
        if isinstance(wire, bytes):
            assert "bcc" not in read(wire).names
            for habit in (STRICT, *LENIENT):
                receiver = Receiver(habit)
                deliver([Mail(wire), Mail(wire)], receiver)
                assert len(receiver.taken) == 2
