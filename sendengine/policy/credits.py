"""Prepaid credits: lots, when they expire, which of them pays, and a ledger whose fold is the balance. Pure; lua/money.lua is the twin.

Amounts are thousandths of a credit. A lot bought while the account was SMS-only is good for 24 months, and for longer where the account has
e-mail since and that term ends later; one bought with e-mail is good until that term ends, whenever that is moved to. The lot that expires
first pays first. A send reserves what its rows cost as they are stored, spends a row when it was submitted, and gets back what was not:
granted = reserved + spent + free + frozen + expired, and none of them is ever below zero. When the term is over (grace) nothing can be
reserved: what was free is frozen, and free again when the term is renewed.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

GOOD_MONTHS = 24
_words = re.compile(r"[a-z-]+").findall
MAIL = ("mail", "email", "e-mail")  # of the words in an account's field `channels`; without the field it has e-mail
Draw = dict[int, int]  # lot -> thousandths of it


class Home(msgspec.Struct, frozen=True):
    """What of an account decides how long its lots are good. `term_ends_us`: inf where it has no end."""

    has_mail: bool = True
    term_ends_us: float = math.inf

    @staticmethod
    def of(fields: Mapping[str, str]) -> Home:
        channels = _words(fields.get("channels", "").lower())
        return Home(not channels or any(word in MAIL for word in channels), float(fields.get("term_ends") or "inf"))

    def is_over(self, now_us: float) -> bool:
        return now_us >= self.term_ends_us


class Lot(msgspec.Struct):
    """Mutable; owner: the ledger that holds it. `fixed_us`: 24 months from the purchase, 0 for a lot bought with e-mail."""

    number: int
    granted: int
    bought_us: float
    fixed_us: float
    reserved: int = 0
    spent: int = 0

    @property
    def rest(self) -> int:
        return self.granted - self.reserved - self.spent

    def expires_us(self, home: Home) -> float:
        """inf: not as things stand."""
        if not self.fixed_us:
            return home.term_ends_us
        return max(self.fixed_us, home.term_ends_us) if home.has_mail else self.fixed_us

    def free(self, home: Home, now_us: float) -> int:
        return 0 if home.is_over(now_us) or now_us >= self.expires_us(home) else self.rest


class Balance(msgspec.Struct, frozen=True):
    granted: int
    reserved: int
    spent: int
    free: int
    frozen: int
    expired: int


class Purchase(msgspec.Struct, frozen=True):
    """Credits that were bought, a lot to be. `fixed_us` as a lot has it."""

    amount: int
    bought_us: float
    fixed_us: float
    who: str
    why: str


class Kind(StrEnum):
    GRANT = "grant"
    RESERVE = "reserve"
    SPEND = "spend"
    RELEASE = "release"


class Entry(msgspec.Struct, frozen=True):
    """One line of the ledger: what moved, of which lots. `campaign` and `batch` say for what (batch -1: of all of it)."""

    kind: Kind
    lots: Draw
    campaign: str = ""
    batch: int = -1
    bought_us: float = 0.0
    fixed_us: float = 0.0
    who: str = ""
    why: str = ""

    @property
    def amount(self) -> int:
        return sum(self.lots.values())


def purchase(home: Home, amount: int, at_us: float, who: str, why: str) -> Purchase:
    """At `at_us`, by an account that has what `home` says."""
    return Purchase(amount, at_us, 0.0 if home.has_mail else good_until(at_us), who, why)


def good_until(bought_us: float) -> float:
    """24 months later by the calendar in UTC; of the 31st, the last day of a shorter month."""
    at = datetime.fromtimestamp(bought_us / 1e6, UTC)
    years, month = divmod(at.month - 1 + GOOD_MONTHS, 12)
    year, month = at.year + years, month + 1
    day = min(at.day, calendar.monthrange(year, month)[1])
    return round(at.replace(year=year, month=month, day=day).timestamp() * 1e6)


def in_order(lots: Iterable[Lot], home: Home) -> list[Lot]:
    """The one that pays first, first."""
    return sorted(lots, key=lambda lot: (lot.expires_us(home), lot.bought_us, lot.number))


def balance(lots: Sequence[Lot], home: Home, now_us: float) -> Balance:
    free = sum(lot.free(home, now_us) for lot in lots)
    rest = sum(lot.rest for lot in lots)
    frozen = sum(lot.rest for lot in lots if not lot.fixed_us or home.has_mail) if home.is_over(now_us) else 0
    if home.is_over(now_us) and not home.has_mail:
        frozen += sum(lot.rest for lot in lots if lot.fixed_us > now_us)
    return Balance(
        granted=sum(lot.granted for lot in lots),
        reserved=sum(lot.reserved for lot in lots),
        spent=sum(lot.spent for lot in lots),
        free=free,
        frozen=frozen,
        expired=rest - free - frozen,
    )


def draw(lots: Iterable[Lot], home: Home, now_us: float, amount: int) -> Draw | None:
    """What each lot gives of it; None where all together have less, and nothing is taken then."""
    taken: Draw = {}
    for lot in in_order(lots, home):
        part = min(amount, lot.free(home, now_us))
        if part:
            taken[lot.number] = part
            amount -= part
    return None if amount else taken


def of_draws(draws: Mapping[int, int], order: Sequence[int], amount: int) -> Draw:
    """`amount` out of what a send has drawn, from the first lot of `order` on; never more than it has drawn."""
    taken: Draw = {}
    for number in order:
        part = min(amount, draws.get(number, 0))
        if part:
            taken[number] = part
            amount -= part
    return taken


def fold(entries: Iterable[Entry]) -> dict[int, Lot]:
    """The lots as the ledger says they are."""
    lots: dict[int, Lot] = {}
    for entry in entries:
        apply(lots, entry)
    return lots


def apply(lots: dict[int, Lot], entry: Entry) -> None:
    for number, amount in entry.lots.items():
        if entry.kind is Kind.GRANT:
            lots[number] = Lot(number, amount, entry.bought_us, entry.fixed_us)
            continue
        lot = lots[number]
        if entry.kind is Kind.RESERVE:
            lot.reserved += amount
        else:
            lot.reserved -= amount
            lot.spent += amount if entry.kind is Kind.SPEND else 0
