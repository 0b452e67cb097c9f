"""Events from billing in memory, the twin of lua/eventing.lua and ordering.lua: whether it is an event's turn, and what it writes."""

from __future__ import annotations

from sendengine.lanes import sms_lane
from sendengine.ports import Booked, Booking
from sendengine.queue.memory_gate import change
from sendengine.queue.memory_state import Account, Books, MemoryStore

REMEMBERED, AHEAD, ORDERS = 1000, 1000, 100


def book(store: MemoryStore, account: str, now: float, cut_delay: float, booking: Booking) -> Booked:
    state = store.accounts.get(account)
    if state is None:
        return Booked("missing", 0)
    if "purging" in state.fields:
        return Booked("purging", 0)
    last, books, money = state.fields.number("seq"), state.books, store.money_of(sms_lane(account))
    if (refusal := _refusal(state, now, last, books, booking)) is not None:
        return Booked(refusal, last)
    assert money is not None
    if booking.is_speed:
        state.cut(now, cut_delay)
    books.ids[booking.id] = booking.sequence, booking.digest
    books.sequences[booking.sequence] = booking.id
    books.ids.pop(books.sequences.pop(booking.sequence - REMEMBERED, ""), None)
    books.early.pop(booking.sequence, None)
    if booking.order:
        books.orders.pop(booking.order, None)
    if booking.kept:
        books.orders[booking.order] = booking.kept
    for lot in booking.lots:
        money.buy(lot, now)
    fields = {"seq": str(booking.sequence), "stuck": "", **booking.fields}
    change(store, account, now, cut_delay, {}, fields, None, booking.line)
    return Booked("done", booking.sequence)


def _refusal(state: Account, now: float, last: int, books: Books, booking: Booking) -> str | None:
    if booking.id in books.ids:
        return "known" if books.ids[booking.id] == (booking.sequence, booking.digest) else "altered"
    if booking.sequence <= last:
        return "taken" if booking.sequence in books.sequences else "known"
    if booking.sequence > last + AHEAD:
        return "far"
    if booking.sequence > last + 1:
        return "early" if books.early.setdefault(booking.sequence, (now, booking.event))[1] == booking.event else "occupied"
    if any(state.fields.get(name, "") != value for name, value in booking.seen.items()):
        return "moved"
    if booking.before_us is not None and now >= booking.before_us:
        return "moved"
    return "full" if booking.kept and booking.order not in books.orders and len(books.orders) >= ORDERS else None
