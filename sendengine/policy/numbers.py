"""What a telephone number is, and the one spelling of it that the engine keeps: E.164 with its plus. Pure text.

The strict form is settled with one expression; phonenumbers, some 40 us a number, sees only what that leaves open: blanks, brackets, a
number without its country. Whether a number exists is nobody's business here: it is tried, and charged. Text that is no number is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sendengine.errors import RefusedInput

_STRICT = r"\+[1-9][0-9]{7,14}"  # ITU-T E.164: at most 15 digits with the country code
_is_strict = re.compile(_STRICT).fullmatch
_are_strict = re.compile(rf"{_STRICT}(?:\n{_STRICT})*").fullmatch
_may_be_number = re.compile(r"[+0-9 ()./\-\u00a0\u2010-\u2015]{3,40}").fullmatch
_is_region = re.compile(r"[A-Z]{2}").fullmatch
_BLANKS = " \t\u00a0\u200b\ufeff\u202a\u202c"  # what spreadsheets and address books leave around a cell


class BadNumber(RefusedInput):
    """No SMS can be addressed to this text; the message says why."""


def are_strict(texts: Sequence[str]) -> bool:
    """Whether every text is already its own normal form; False may only mean that `normalise` has to look."""
    joined = "\n".join(texts)
    return joined.count("\n") == len(texts) - 1 and bool(_are_strict(joined))


def looks_like_number(text: str) -> bool:
    return _may_be_number(text.strip(_BLANKS)) is not None


def normalise(text: str, region: str = "") -> str:
    """The number in E.164. `region` (ISO 3166, two letters) is where a number without its country code is at home. Raises BadNumber."""
    if _is_strict(text):
        return text
    text = text.strip(_BLANKS)
    if not text:
        raise BadNumber("no number")
    if not _may_be_number(text):
        raise BadNumber("not a telephone number")
    if not region and not text.startswith("+"):
        raise BadNumber("a number without its country code: write +46701234567, or name the region")
    return _ask_library(text, region)


def checked_region(region: str) -> str:
    """In capitals, "" for none. Raises RefusedInput for one that nobody knows."""
    if not region:
        return ""
    from phonenumbers import SUPPORTED_REGIONS

    if not _is_region(region.upper()) or region.upper() not in SUPPORTED_REGIONS:
        raise RefusedInput(f"{region!r} is no region", "two letters as in SE, GB, US (ISO 3166)")
    return region.upper()


def _ask_library(text: str, region: str) -> str:
    from phonenumbers import (  # its tables take a while to import, and most lists never need them
        NumberParseException,
        PhoneNumberFormat,
        format_number,
        is_possible_number,
        parse,
    )

    try:
        found = parse(text, region or None)
    except NumberParseException as error:
        raise BadNumber(f"not a telephone number: {str(error).rstrip('.').lower()}") from None
    if not is_possible_number(found):
        raise BadNumber("no number of its country has so many digits")
    number: str = format_number(found, PhoneNumberFormat.E164)
    if not _is_strict(number):
        raise BadNumber("no number of its country has so many digits")
    return number
