"""Helpers of the rendering tests: render one recipient, and read back what a peer would get, octet by octet."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message as Parsed

from sendengine.render.compile import Skeleton
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message
from sendengine.render.values import RenderFailure

DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"


def skeleton(**parts: object) -> Skeleton:
    given: dict[str, object] = {"sender": "News <news@example.org>", "subject": "s", "text": "t\n"}
    return compile_message(Message(**(given | parts)), "m1.c")  # type: ignore[arg-type]


def eml(*lines: str, **more: object) -> Skeleton:
    return compile_message(Message.from_eml("\n".join(lines).encode(), **more), "m1.c")  # type: ignore[arg-type]


def prepare(made: Skeleton, eightbit: bool = True, email: str = "jan@example.com", **row: object) -> tuple[bytes, ...]:
    (values,) = made.renderer(eightbit).prepare(list(row), [[value] for value in row.values()], [email])
    assert not isinstance(values, RenderFailure), values
    return values


def wire(made: Skeleton, eightbit: bool = True, email: str = "jan@example.com", **row: object) -> bytes:
    """One message as its peer takes it off the wire: dots unstuffed, and the form of RFC 5321 checked on the way."""
    renderer = made.renderer(eightbit)
    octets = renderer.wire(prepare(made, eightbit, email, **row), 7, DATE)
    check(octets, renderer.has_eightbit)
    return re.sub(rb"(?m)^\.\.", b".", octets)


def check(octets: bytes, may_be_eightbit: bool) -> None:
    assert octets.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets)
    assert not re.search(rb"(?m)^\.(?!\.)", octets)
    assert octets.isascii() or may_be_eightbit
    assert max(map(len, octets.split(b"\r\n"))) <= 999  # 998 and a stuffed dot
    assert octets.partition(b"\r\n\r\n")[0].isascii()


def failure(made: Skeleton, email: str = "jan@example.com", **row: object) -> str:
    (values,) = made.renderer(True).prepare(list(row), [[value] for value in row.values()], [email])
    assert isinstance(values, RenderFailure), values
    return values.reason


def raw_fields(octets: bytes) -> list[tuple[str, str]]:
    """Name and unfolded value, without the email package."""
    head = octets.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    pairs = (line.partition(b":") for line in head.split(b"\r\n"))
    return [(name.decode(), value.strip(b" ").decode()) for name, _, value in pairs]


def field(octets: bytes, name: str) -> str:
    """The value as a reader shows it (RFC 2047 decoded)."""
    (value,) = (value for key, value in raw_fields(octets) if key == name)
    return str(make_header(decode_header(value)))


def bodies(octets: bytes) -> list[str]:
    """The decoded text of every text part."""
    leaves = [part for part in message_from_bytes(octets).walk() if part.get_content_maintype() == "text"]
    return [body(part) for part in leaves]


def body(part: Parsed) -> str:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data.decode()
