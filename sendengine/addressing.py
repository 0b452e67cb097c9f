"""Whom a row is to: the column that says it, and what stands there. E-mail by address.py, SMS by policy/numbers.py. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from sendengine import address
from sendengine.policy import numbers

EMAIL, PHONE = "email", "phone"
_is_like_address = re.compile(r"\s*[^@\s]+@[^@\s]+\s*").fullmatch


class Addressing(msgspec.Struct, frozen=True):
    """`normalise` raises RefusedInput; `are_normal` may say False of what is; `resembles` is for lists that are damaged."""

    column: str
    normalise: Callable[[str], str]
    are_normal: Callable[[Sequence[str]], bool]
    resembles: Callable[[str], bool]


def resembles_address(text: str) -> bool:
    return _is_like_address(text) is not None


BY_MAIL = Addressing(EMAIL, address.normalise, address.all_plain, resembles_address)


def _by_its_looks(text: str) -> str:
    """An e-mail address or, from its plus on, a number."""
    return numbers.normalise(text) if text.strip().startswith("+") else address.normalise(text)


BY_EITHER = Addressing(EMAIL, _by_its_looks, address.all_plain, resembles_address)


def by_phone(region: str = "") -> Addressing:
    """`region`: where numbers without a country code are at home."""
    return Addressing(PHONE, partial(numbers.normalise, region=region), numbers.are_strict, numbers.looks_like_number)
