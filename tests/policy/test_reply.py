"""Reading replies: any pieces, any peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.reply import MAX_LINE, MAX_TEXT, ReplyParser, _final_line, _final_lines, make_reply, strip_ids
from sendengine.types import Reply


def parsed(*pieces: bytes) -> tuple[list[Reply], str]:
    parser = ReplyParser()
    replies = [reply for piece in pieces for reply in parser.feed(piece)]
    return replies, parser.fault


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250 2.1.0 Ok\r\n", Reply(250, "2.1.0", "Ok")),
        (b"250\r\n", Reply(250, "", "")),
        (b"250 \r\n", Reply(250, "", "")),
        (b"250 2.0.0\r\n", Reply(250, "2.0.0", "")),
        (b"250 Ok\n", Reply(250, "", "Ok")),
        (b"550-5.1.1 no\r\n550 5.1.1 such user\r\n", Reply(550, "5.1.1", "no such user")),
        (b"250-first\r\n250-\r\n250 last\r\n", Reply(250, "", "first last")),
        (b"550 2.1.1 of another class\r\n", Reply(550, "", "2.1.1 of another class")),
        (b"450 4.2.2x no code\r\n", Reply(450, "", "4.2.2x no code")),
        (b"250 caf\xc3\xa9 \xff\r\n", Reply(250, "", "café �")),
        (b"250 a\x00\x1b[31mb\r\n", Reply(250, "", "a [31mb")),
        (b"250 " + b"x" * 3000 + b"\r\n", Reply(250, "", "x" * MAX_TEXT)),
    ],
)
def test_a_reply_is_read(octets: bytes, reply: Reply) -> None:
    assert parsed(octets) == ([reply], "")
    assert parsed(*(bytes([octet]) for octet in octets)) == ([reply], "")


def test_long_lines_are_not_remembered() -> None:
    """The caches of common replies belong to the process: a peer may not fill them by the read buffer."""
    before = _final_line.cache_info().misses, _final_lines.cache_info().misses
    parsed(b"x" * 65536)
    parsed(b"250 ok\r\n" + b"250 x\r\n" * MAX_LINE)
    assert (_final_line.cache_info().misses, _final_lines.cache_info().misses) == before


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"99 x\r\n",
        b"199 x\r\n",
        b"650 x\r\n",
        b"2500 x\r\n",
        b"250x\r\n",
        b"\r\n",
        b"250-a\r\n550 b\r\n",
        b"250 " + b"x" * 5000 + b"\r\n",
        b"x" * 5000,
        b"250-x\r\n" * 20000,
    ],
)
def test_garbage_is_a_fault(octets: bytes) -> None:
    replies, fault = parsed(b"250 before\r\n" + octets, b"250 after\r\n")
    assert replies == [Reply(250, "", "before")]
    assert fault


def test_an_unfinished_reply_is_none() -> None:
    assert parsed(b"250-a\r\n250") == ([], "")


LINES = st.builds(
    lambda code, mark, text: b"%d%b%b\r\n" % (code, mark, text.encode() if mark else b""),
    st.integers(200, 599),
    st.sampled_from([b" ", b""]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)


@given(st.lists(LINES, max_size=6), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_pieces_do_not_matter(lines: list[bytes], sizes: list[int]) -> None:
    octets = b"".join(lines)
    pieces, at, turn = [], 0, 0
    while at < len(octets):
        pieces.append(octets[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    assert parsed(*pieces) == parsed(octets)
    assert len(parsed(octets)[0]) == len(lines)


@given(st.binary(max_size=200))
def test_no_octets_raise(octets: bytes) -> None:
    parsed(octets, octets)


@given(st.integers(200, 599), st.lists(st.text(max_size=700), max_size=3))
def test_the_text_is_one_clean_bounded_line(code: int, lines: list[str]) -> None:
    text = make_reply(code, lines).text
    assert len(text) <= MAX_TEXT
    assert text.isprintable() or not any(ord(c) < 32 or ord(c) == 127 for c in text)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("2.0.0 Ok: queued as 4F2A1", "Ok: queued as *"),
        ("Ok: queued as 4Xm2YQ1Zz9 (thanks)", "Ok: queued as * (thanks)"),
        ("OK id=1sQ2rT-0003Xy-1K", "OK id=*"),
        ("<bob@example.org>: User unknown", "<*>: User unknown"),
        ("13579 bytes in 0.123, 100.521 KB/sec", "* bytes in *, * KB/sec"),
        ("Client host [192.0.2.155] blocked using zen.spamhaus.org", "Client host [192.0.2.155] blocked using zen.spamhaus.org"),
        ("mailbox full", "mailbox full"),
    ],
)
def test_ids_are_cut_out(text: str, shape: str) -> None:
    assert strip_ids(text) == shape
