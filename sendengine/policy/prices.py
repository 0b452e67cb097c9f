"""What a part of an SMS costs, by its destination: the longest prefix of the number that the table has. Pure; the tables are data
(config/prices.toml), each a version in force from its date on.

A send keeps the version that held when it was created, however long its list is loaded. Amounts are thousandths of a credit, whole numbers
throughout: a price is exact, and so is every sum of prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation

import msgspec

from sendengine.errors import ConfigError, NotFound

MILLI = 1000  # thousandths in a credit
PRICE_MOST = 1_000_000 * MILLI  # of one part; a row's price must fit 32 bits with all its parts
PREFIX_MOST = 15


class PriceTable(msgspec.Struct, frozen=True):
    """One version. `prices`: digits of a prefix, without plus -> thousandths of a credit a part; "" is the price of all others."""

    version: str
    since: date
    prices: Mapping[str, int]

    def of(self, number: str) -> int | None:
        """The price of a part to an E.164 number; None where the table has none."""
        digits = number.removeprefix("+")
        for length in range(min(PREFIX_MOST, len(digits)), -1, -1):
            found = self.prices.get(digits[:length])
            if found is not None:
                return found
        return None


def table(version: str, since: date, prices: Mapping[str, str | float], place: str) -> PriceTable:
    """As the file writes it. Raises ConfigError naming the version and the prefix."""
    made = {}
    for prefix, price in prices.items():
        digits = "" if prefix == "other" else prefix.removeprefix("+")
        if digits and not (digits.isascii() and digits.isdigit() and len(digits) <= PREFIX_MOST):
            raise ConfigError(f"{place}: {version}: {prefix!r} is no prefix of numbers: digits as in 46, or `other`")
        made[digits] = milli(price, f"{place}: {version}: {prefix}")
    return PriceTable(version, since, made)


def milli(amount: str | float, place: str) -> int:
    """Credits as thousandths. Raises ConfigError for what is finer, below zero, or no number."""
    try:
        exact = Decimal(str(amount)) * MILLI
        if exact != int(exact) or not 0 <= exact <= PRICE_MOST:
            raise ValueError
    except (InvalidOperation, ValueError, OverflowError):
        raise ConfigError(f"{place}: {amount!r} is no number of credits: from 0, three decimals at most") from None
    return int(exact)


def in_force(tables: Sequence[PriceTable], today: date) -> PriceTable:
    """The version of the latest date that is not to come. Raises NotFound."""
    held = [each for each in tables if each.since <= today]
    if not held:
        raise NotFound("no price table is in force", "config/prices.toml, or the file that `prices_file` names, needs one")
    return max(held, key=lambda each: (each.since, each.version))


def version(tables: Sequence[PriceTable], name: str) -> PriceTable:
    """That of a send that was created before. Raises NotFound."""
    for each in tables:
        if each.version == name:
            return each
    raise NotFound(f"no price table {name!r}", "keep the versions of sends that are still being loaded in the price file")


def shown(amount: int) -> str:
    """Thousandths as credits: 1234500 -> "1234.5"."""
    whole, rest = divmod(abs(amount), MILLI)
    return ("-" if amount < 0 else "") + (f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole))
