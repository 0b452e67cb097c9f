"""What may stand as the sender of an SMS: a name, a number or a short code. Pure.

A name (alphanumeric) has 1 to 11 characters, at least one letter among them: an address field of 7-bit letters holds no more (3GPP TS
23.040 9.1.2.5). A number is international, as in +46701234567; a short code has 3 to 8 digits.
"""

from __future__ import annotations

import re

import msgspec

from sendengine.errors import RefusedInput

NAME_MOST = 11
_is_number = re.compile(r"\+?[1-9][0-9]{8,14}").fullmatch
_is_short_code = re.compile(r"[0-9]{3,8}").fullmatch
_is_name = re.compile(rf"(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9 !#$%&'*+./=?_-]{{1,{NAME_MOST}}}").fullmatch


class SenderId(msgspec.Struct, frozen=True):
    """`ton` and `npi` as SMPP has them (3.4, 5.2.5, 5.2.6); a number goes without its plus."""

    text: str
    ton: int
    npi: int


ALPHANUMERIC, INTERNATIONAL, NETWORK = (5, 0), (1, 1), (3, 0)


def sender_id(text: str) -> SenderId:
    """Raises RefusedInput."""
    if _is_short_code(text):
        return SenderId(text, *NETWORK)
    if _is_number(text):
        return SenderId(text.removeprefix("+"), *INTERNATIONAL)
    if _is_name(text) and text == text.strip():
        return SenderId(text, *ALPHANUMERIC)
    remedy = f"a name of up to {NAME_MOST} letters, digits and blanks with a letter in it, a number as in +46701234567, or a short code"
    raise RefusedInput(f"{text!r} cannot be the sender of an SMS", remedy)
