"""Credits in memory, the twin of lua/reserving.lua, charging.lua and lots.lua: what a lane's lots pay for, and the ledger of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import TYPE_CHECKING

from sendengine.policy.credits import Draw, Entry, Home, Kind, Lot, Purchase, balance, draw, in_order, of_draws
from sendengine.ports import LedgerEntry
from sendengine.records import decode_outcomes, rows_of
from sendengine.types import Outcome

if TYPE_CHECKING:
    from sendengine.queue.memory_state import Fields

_PRICE = Struct("<I")


class Money:
    """Owner of a lane's lots and ledger. `home` are the fields of its account, read whenever a lot is asked whether it is good."""

    def __init__(self, home: Fields) -> None:
        self._home = home
        self.lots: dict[int, Lot] = {}
        self.purchases: dict[str, int] = {}  # key of a grant -> its lot
        self.entries: list[LedgerEntry] = []
        self.charged = 0  # by all settlements so far

    def home(self) -> Home:
        return Home.of(self._home)

    def order(self) -> list[int]:
        return [lot.number for lot in in_order(self.lots.values(), self.home())]

    def buy(self, bought: Purchase, now: float) -> int:
        """Its number."""
        number = len(self.lots) + 1
        self.lots[number] = Lot(number, bought.amount, bought.bought_us, bought.fixed_us)
        moved = {number: bought.amount}
        entry = Entry(Kind.GRANT, moved, bought_us=bought.bought_us, fixed_us=bought.fixed_us, who=bought.who, why=bought.why)
        self.enter(entry, now)
        return number

    def free(self, now: float) -> int:
        return balance(list(self.lots.values()), self.home(), now).free

    def draw(self, amount: int, now: float) -> Draw | None:
        return draw(self.lots.values(), self.home(), now, amount)

    def enter(self, entry: Entry, now: float) -> None:
        self.entries.append(LedgerEntry(f"{int(now // 1000)}-{len(self.entries)}", now / 1e6, entry))


class Bill:
    """What a campaign's rows cost, and what it has reserved for them."""

    def __init__(self, money: Money, campaign: str) -> None:
        self._money, self._campaign = money, campaign
        self.prices: dict[int, dict[int, int]] = {}  # batch -> row -> price
        self.draws: Draw = {}

    @property
    def outstanding(self) -> int:
        return sum(self.draws.values())

    def reserve(self, batch: int, prices: Mapping[int, int], now: float) -> tuple[int, int] | None:
        """Of fresh rows; (needed, free) where that is too little, and then nothing is reserved."""
        needed = sum(prices.values())
        drawn = self._money.draw(needed, now)
        if drawn is None:
            return needed, self._money.free(now)
        self.prices[batch] = dict(prices)
        for number, part in drawn.items():
            self._money.lots[number].reserved += part
            self.draws[number] = self.draws.get(number, 0) + part
        if drawn:
            self._money.enter(Entry(Kind.RESERVE, drawn, self._campaign, batch), now)
        return None

    def pay(self, batch: int, records: bytes, now: float) -> None:
        """Of rows that end with a record: what was submitted is spent, else it is free."""
        spent = released = 0
        for record in decode_outcomes(records):
            price = self._price(batch, record.row)
            is_refused = record.outcome is Outcome.BOUNCED and record.mail_ms > 0
            if record.outcome in (Outcome.SENT, Outcome.UNKNOWN) or is_refused:
                spent += price
            else:
                released += price
        self._move(Kind.SPEND, batch, spent, now)
        self._move(Kind.RELEASE, batch, released, now)
        self._money.charged += spent

    def refund(self, batch: int, rows: Iterable[int], now: float) -> None:
        """Of rows that a cancel ends without a record."""
        self._move(Kind.RELEASE, batch, sum(self._price(batch, row) for row in rows), now)

    def refund_rest(self, leased: Iterable[tuple[int, int]], now: float) -> None:
        """All that is reserved, but for what is on its way: (batch, mask) each."""
        held = sum(self._price(batch, row) for batch, mask in leased for row in _rows(mask))
        self._move(Kind.RELEASE, -1, self.outstanding - held, now)

    def packed(self) -> dict[int, bytes]:
        """As A:c:ID:$ holds the prices."""
        return {batch: _packed(prices) for batch, prices in self.prices.items() if prices}

    def _price(self, batch: int, row: int) -> int:
        return self.prices.get(batch, {}).get(row, 0)

    def _move(self, kind: Kind, batch: int, amount: int, now: float) -> None:
        order = self._money.order()
        moved = of_draws(self.draws, order if kind is Kind.SPEND else order[::-1], amount)
        for number, part in moved.items():
            self.draws[number] -= part
            lot = self._money.lots[number]
            lot.reserved -= part
            lot.spent += part if kind is Kind.SPEND else 0
        if moved:
            self._money.enter(Entry(kind, moved, self._campaign, batch), now)


def prices_by_row(prices: bytes, positions: bytes, accepted: int) -> dict[int, int]:
    """Of the accepted rows; `prices` and `positions` are of the valid ones."""
    priced = zip(positions, (price for (price,) in _PRICE.iter_unpack(prices)), strict=True)
    return {row: price for row, price in priced if accepted >> row & 1}


def _packed(prices: Mapping[int, int]) -> bytes:
    if len(set(prices.values())) == 1:
        return _PRICE.pack(next(iter(prices.values())))
    return b"".join(_PRICE.pack(prices.get(row, 0)) for row in range(max(prices) + 1))


def _rows(mask: int) -> list[int]:
    return rows_of(mask.to_bytes((mask.bit_length() + 7) // 8, "little"))


