"""A body can hold whatever ends a message somewhere: every receiver, strict or lenient, takes exactly one message of it, and
reads what was meant (CVE-2023-51764 and its like)."""

from __future__ import annotations

import re
from collections.abc import Callable
from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import SendEngineError
from sendengine.render.message import Message
from tests.attack.corpus import FUZZ, ours
from tests.attack.sending import Mail, deliver, made, render
from tests.attack.wire import LENIENT, STRICT, Habit, Receiver, read, unstuffed

ENDS = [
    "\r\n.\r\n", "\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r", "\r\n\0.\r\n", "\r\n.\0\r\n",
    "\0\r\n.\r\n", "\r\n..\r\n", "\r\n.", ".\r\n", ".", "..", "\n.", ".\n",
    "\r\n. \r\n", "\r\r\n.\r\r\n", "\n\n.\n\n", "\x85.\x85", "\u2028.\u2028",
    "\r\n.\r\nMAIL FROM:<evil@attacker.example>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
    "=0D=0A.=0D=0A", "=\r\n.\r\n", "=\n.\n",
]  # fmt: skip
# Where the value stands: alone, after a line end, between text, over two slots, at the very start and the very end.
SHAPES = ["{a}", "x\n{a}", "x{a}y\n", "{a}{b}", "{a}.{b}", "{a}\n.{b}\n", ".{a}", "{a}.", "x\n.\n{a}", "ž{a}{b}.\n", "{a}{b}{a}"]
PLAIN = Mail(b"Subject: second\r\n\r\nsecond\r\n")
LETTERS = ["\r", "\n", ".", "\0", "x", "=", "ž", "\r\n", "\r\n.\r\n", " ", "\u2028", "-" * 80, "y" * 990]
pieces = st.lists(st.sampled_from(LETTERS), max_size=10).map("".join)
Write = Callable[[str], str]


def slots(shape: str) -> str:
    return shape.replace("{a}", "{{ a }}").replace("{b}", "{{ b }}")


def logic(shape: str) -> str:
    return "{% if 1 %}" + slots(shape) + "{% endif %}"


def unix(text: str) -> str:
    return re.sub("\r\n|\r", "\n", text)


def meant(shape: str, row: dict[str, str], write: Write) -> str:
    """Line ends of any kind are CRLF in mail, nothing else changes. A field's line ends are its own: a CR at the end of
    one and an LF at the start of the next are two; in a text with logic, which is rendered whole, they are one."""
    values = row if write is logic else {name: unix(value) for name, value in row.items()}
    return unix(re.sub(r"\{(\w)\}", lambda match: values[match[1]], shape.replace("\n", "\r\n"))).replace("\n", "\r\n")


def body_of(octets: bytes) -> str:
    data = message_from_bytes(octets).get_payload(decode=True)
    assert isinstance(data, bytes)
    return data.decode()


def check(wire: bytes, eightbit: bool = True) -> None:
    """One message for everybody, and the one behind it is where it should be."""
    read(wire)
    for habit in (STRICT, *LENIENT):
        for chunking in (False, True):
            receiver = Receiver(habit)
            attempts = deliver([Mail(wire, eightbit=eightbit), PLAIN], receiver, chunking)
            assert [attempt.reply is not None and attempt.reply.code for attempt in attempts] == [250, 250]
            assert [taken.message for taken in receiver.taken] == [unstuffed(wire), PLAIN.wire], (habit.name, chunking)


def same_text(got: str, want: str) -> bool:
    """A body that ends without a line end gets one."""
    return got == want or got == want + "\r\n"


@pytest.mark.parametrize("write", [slots, logic])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_end_of_data_in_a_value_ends_the_message(shape: str, write: Write) -> None:
    for a in ENDS:
        for b in ("", ".", a):
            row = {"a": a, "b": b}
            wire = render(made(text=write(shape)), dict(row))
            check(wire)
            assert same_text(body_of(unstuffed(wire)), meant(shape, row, write))


@FUZZ
@given(st.sampled_from(SHAPES), st.sampled_from([slots, logic]), pieces, pieces, st.booleans(), st.booleans())
def test_no_value_ends_the_message(shape: str, write: Write, a: str, b: str, eightbit: bool, is_html: bool) -> None:
    message = made(text=None, html=write(shape)) if is_html else made(text=write(shape))
    wire = render(message, {"a": a, "b": b}, eightbit=eightbit)
    check(wire, eightbit)
    if not is_html:
        assert same_text(body_of(unstuffed(wire)), meant(shape, {"a": a, "b": b}, write))


@pytest.mark.parametrize("end", ENDS)
def test_no_end_of_data_in_a_message_ends_it(end: str) -> None:
    """An author's own text, and a whole .eml, its copied parts among it."""
    head = "From: a@example.org\n"
    part = 'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: application/x\n\n{0}\n--b\n\n{0}\n--b--\n'
    messages = [made(text=f"x{end}y"), made(text=f"{end}y"), made(html=f"y{end}"),
                *(Message.from_eml((head + rest).encode()) for rest in (f"\n{end}", f"\nx{end}", part.format(end)))]  # fmt: skip
    sent = 0
    for message in messages:
        wire = ours(lambda message=message: render(message, {}))  # type: ignore[misc]
        if not isinstance(wire, SendEngineError):
            check(wire)
            sent += 1
    assert sent == len(messages) or re.search(r"\0|\r(?!\n)", end)


@pytest.mark.parametrize("habit", LENIENT, ids=lambda habit: habit.name)
def test_a_body_that_is_stuffed_for_the_strict_alone_is_found_out(habit: Habit) -> None:
    """The control: the receivers must be as gullible as those they stand for."""
    found = 0
    for end in ENDS:
        body = f"x{end}MAIL FROM:<e@a.example>\r\nRCPT TO:<v@a.example>\r\nDATA\r\nx\r\n"
        naive = b"Subject: x\r\n\r\n" + body.encode().replace(b"\r\n.\r\n", b"\r\n..\r\n")
        receiver = Receiver(habit)
        try:
            deliver([Mail(naive), PLAIN], receiver)
        except AssertionError:
            pass
        found += [taken.message for taken in receiver.taken] != [unstuffed(naive), PLAIN.wire]
    assert found


def test_a_body_that_is_not_stuffed_is_found_out_by_the_strict() -> None:
    receiver = Receiver(STRICT)
    deliver([Mail(b"Subject: x\r\n\r\nx\r\n.\r\nMAIL FROM:<e@a.example>\r\nRCPT TO:<v@a.example>\r\nDATA\r\nx\r\n"), PLAIN], receiver)
    assert [taken.sender for taken in receiver.taken][1] == b"e@a.example"
