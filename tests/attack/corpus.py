"""What an attacker would write into a field, and how hard to try."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sendengine.errors import SendEngineError

T = TypeVar("T")

EXAMPLES = int(os.environ.get("SENDENGINE_FUZZ_EXAMPLES", "80"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

EVIL = "evil@attacker.example"
LINE_ENDS = ["\r", "\n", "\r\n", "\n\r", "\r\r\n", "\r\n ", "\r\n\t", "\r\n\r\n",
             "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]  # fmt: skip
CONTROLS = [chr(code) for code in [*range(32), 127, 0x80, 0x9F]] + ["\ud800", "\udc0a", "\udc0d\udc0a", "\ufeff", "\u200b", "\u202e"]
ENCODED_WORDS = [
    "=?utf-8?q?x=0d=0aBcc:_evil@attacker.example?=",
    "=?utf-8?q?x=0d=0a?= =?utf-8?q?Bcc:_evil@attacker.example?=",
    "=?UTF-8?B?eA0KQmNjOiBldmlsQGF0dGFja2VyLmV4YW1wbGU=?=",
    "=?utf-8?b?DQo=?=Bcc: evil@attacker.example",
    "=?utf-7?q?+AA0ACg-Bcc:_evil@attacker.example?=",
    "=?utf-16be?b?AA0ACgBCAGMAYw==?=",
    "=?us-ascii?q?=3D=3Futf-8=3Fq=3Fx=3D0d=3D0aBcc:_evil=3F=3D?=",
    "=?utf-8?q?=3D?utf-8?q?=0d=0aBcc:_evil?=?=",
    "=?utf-8*en?q?x=0d=0aBcc:_evil?=",
    "=?utf-8?q?x=0d=0aBcc:_evil",
    "=?utf-8?x?=0d=0a?=",
    "=?utf-8?b?====?=",
    "=?nosuch?q?x=0d=0aBcc:_evil?=",
    "a=?utf-8?q?=0a?=b",
    "\"=?utf-8?q?x=0d=0aBcc:_evil?=\" <evil@attacker.example>",
]
WORDS = [
    "%0d%0aBcc:%20evil@attacker.example",
    "%0D%0A%0D%0A",
    "\\r\\nBcc: evil@attacker.example",
    f"a@example.com, {EVIL}",
    f"a@example.com>, <{EVIL}",
    f"a <{EVIL}>",
    f"a> SIZE=1 <{EVIL}",
    f">\r\nRCPT TO:<{EVIL}>",
    '"',
    '\\"',
    "(",
    "<>",
    ";",
    "undisclosed-recipients:;",
    f"g: {EVIL};",
    "{{ a }}",
    "{% raw %}",
    "%b%s%d%%",
    "\udcc0\udc8d\udcc0\udc8a",  # overlong CR LF, as undecodable octets come in
    "",
    " ",
    "." * 3,
    "x" * 2000,
]
PAYLOADS = [
    *(f"x{end}Bcc: {EVIL}" for end in LINE_ENDS),
    *(f"x{end}.{end}MAIL FROM:<{EVIL}>{end}" for end in LINE_ENDS),
    *(f"x{control}y" for control in CONTROLS),
    *ENCODED_WORDS,
    *WORDS,
]
OCTETS = [b"\xc0\x8d\xc0\x8a", b"\xe0\x80\x8d\xe0\x80\x8a", b"\xff\xfe", b"\xed\xa0\x80", *(bytes((code,)) for code in b'",\t;{}[]')]
PIECES = [*LINE_ENDS, *CONTROLS, *ENCODED_WORDS, *WORDS, ".", "=", "?", "Bcc: ", EVIL, "ž", "😀", "@"]

nasty = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=6).map("".join)
nasty_octets = st.lists(
    st.one_of(
        st.binary(max_size=12),
        nasty.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from(OCTETS),
    ),
    max_size=12,
).map(b"".join)


class Escaped(AssertionError):
    """Something that is none of our own errors came out."""


def ours(call: Callable[[], T]) -> T | SendEngineError:
    """The one claim of all fuzzing: accepted (the value), or one of our own errors (the error)."""
    try:
        return call()
    except SendEngineError as error:
        str(error).encode("utf-8", "backslashreplace")
        return error
    except BaseException as error:
        raise Escaped(f"{type(error).__name__}: {error}") from error
