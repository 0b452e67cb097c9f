"""What an address is, and the one spelling of it that the engine keeps: trimmed, its domain in lower case and A-labels.

Pure text. The limits are those of RFC 5321 4.5.3.1 (local part 64, path 256 with its brackets, so 254 for the
address). The strict ASCII form is settled here with one expression; email-validator, some 250 us an address, sees only
what that form leaves open. Quoted local parts, address literals and domains without a dot are refused: in a bulk list
they are mistakes, not mailboxes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sendengine.errors import RefusedInput

# Possessive are characters alone: of groups, Python before 3.11.5 (Debian 12 has 3.11.2) matches none that it should (gh-106052). What each
# group begins with ends the one before it, so that going back costs no more than having come.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_LOCAL = rf"{_ATEXT}(?:\.{_ATEXT})*"
_DOMAIN = r"(?:[a-z0-9]++(?:-++[a-z0-9]++)*\.)+[a-z]{2,}+"
_plain = re.compile(f"{_LOCAL}@{_DOMAIN}").fullmatch
_plain_lines = re.compile(rf"{_LOCAL}@{_DOMAIN}(?:\n{_LOCAL}@{_DOMAIN})*").fullmatch
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}"
_is_host = re.compile(rf"{_HOST}|[0-9A-Fa-f:.]{{2,45}}(?:%[A-Za-z0-9_.-]{{1,32}})?").fullmatch
_is_host_name = re.compile(rf"{_HOST}|\[(?:IPv6:)?[0-9A-Fa-f:.]{{2,45}}\]").fullmatch
_has_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search

_SHORT = 64  # an address no longer than this cannot exceed any of the limits
_LOCAL_LIMIT, _LABEL_LIMIT, _ADDRESS_LIMIT = 64, 63, 254
_BLANKS = " \t\u00a0\u200b\ufeff"  # what spreadsheets leave around a cell; CR and LF are no blanks: they are refused


class BadAddress(RefusedInput):
    """No mail can be addressed to this text; the message says why."""


def normalise(text: str) -> str:
    """The address as it goes on the wire and into fingerprints; raises BadAddress."""
    if len(text) <= _SHORT and _plain(text):
        return text
    return _normalise_slowly(text.strip(_BLANKS))


def is_host_name(text: str) -> bool:
    """What may be said at EHLO (RFC 5321 4.1.1.1): a domain, underscores forgiven, or an address literal."""
    return _is_host_name(text) is not None


def is_host(text: str) -> bool:
    """What may be connected to: a domain or an address, without brackets."""
    return _is_host(text) is not None


def all_plain(texts: Sequence[str]) -> bool:
    """Whether every text is already its own normal form; False may only mean that `normalise` has to look.

    One match over the joined column costs half of one match per address.
    """
    joined = "\n".join(texts)
    is_one_a_line = joined.count("\n") == len(texts) - 1
    return is_one_a_line and max(map(len, texts), default=0) <= _SHORT and bool(_plain_lines(joined))


def _normalise_slowly(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not at:
        raise BadAddress("no address" if not text else "an address needs an @")
    if len(text) > _ADDRESS_LIMIT:
        raise BadAddress(f"address longer than {_ADDRESS_LIMIT} characters")
    if _has_control(text):
        raise BadAddress("control character in the address")
    if not local.isascii():
        raise BadAddress("local part is not ASCII")
    address = f"{local}@{domain.lower()}"
    if not _plain(address):
        address = _ask_library(text)
    _check_lengths(address)
    return address


def _check_lengths(address: str) -> None:
    local, _, domain = address.rpartition("@")
    if len(local) > _LOCAL_LIMIT:
        raise BadAddress(f"local part longer than {_LOCAL_LIMIT} characters")
    if len(address) > _ADDRESS_LIMIT:
        raise BadAddress(f"address longer than {_ADDRESS_LIMIT} characters")
    if max(map(len, domain.split("."))) > _LABEL_LIMIT:
        raise BadAddress(f"domain label longer than {_LABEL_LIMIT} characters")


def _ask_library(text: str) -> str:
    """Internationalised domains (RFC 5891) and the reasons people read for what is none."""
    from email_validator import EmailNotValidError, validate_email  # 60 ms to import, and most lists never need it

    try:
        found = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except (EmailNotValidError, UnicodeError) as error:
        raise BadAddress(str(error)) from None
    if found.ascii_email is None or "." not in found.ascii_domain:
        raise BadAddress("the domain has no dot")
    if found.ascii_domain.rpartition(".")[2].isdigit():
        raise BadAddress("the domain is a bare IP address")
    return f"{found.ascii_local_part}@{found.ascii_domain.lower()}"
