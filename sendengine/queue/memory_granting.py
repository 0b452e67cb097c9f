"""Permits in memory, the twin of lua/visit.lua: the account's clock, the deal between campaigns, and what binds."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from sendengine.queue.memory_state import Account

LATE_US = 10_000.0  # of an account whose clock fell behind, so much is made up for
LATEST_US = 6.5e6  # nobody asks for permits further ahead


def bind_to(state: Account, now: float, bind: str) -> None:
    """What binds now, since when; the time in which the relay refused us is no lifetime's."""
    fields = state.fields
    limit, _, lift = bind.partition("|")
    before, since, *_ = (*fields.get("bind", "").split("|", 2), "")
    if limit != before and before in ("relay", "site"):
        fields.set_times(idle=state.idle_until(now), idle_at=now)
    if limit:
        fields["bind"] = f"{limit}|{since if limit == before else f'{now:.0f}'}|{lift}"
    else:
        fields.forget("bind")


def grant(state: Account, now: float, want: int, horizon: float, lead: float, closes: float = 0.0) -> tuple[int, float, float]:
    """Permits, µs until the first, and between them: GCRA, one clock an account. A clock that fell behind saves up no credit (design 3.2);
    permits end before the rate changes, and those beyond are spaced at the rate that holds there (docs/design/009). None at `closes` (0:
    never) or later."""
    last, (interval, turn) = float(state.fields.get("last", 0)), state.speed(now)
    if interval and turn is None:
        state.fields.forget("grants")  # all are over
    if want <= 0 or not interval:
        return max(0, want), 0.0, interval
    if last > now + max(horizon, LATEST_US) + interval:  # the clock stepped back
        last = now + max(horizon, LATEST_US) + interval
        state.fields["last"] = f"{last:.3f}"
    first = max(last + interval, now + lead - min(LATE_US, interval))
    while turn is not None and first >= turn:
        begins = turn
        interval, turn = state.speed(begins)
        first = max(last + interval, begins, now + lead - min(LATE_US, interval))
    upto = min([now + horizon, *(end - 1 for end in (turn, closes or None) if end is not None)])
    permits = max(0, min(want, floor((upto - first) / interval) + 1))
    if permits:
        state.fields["last"] = f"{first + (permits - 1) * interval:.3f}"
    return permits, round(first - now, 1), interval


def deal(state: Account, permits: int, held: Sequence[str]) -> bytes:
    """Whose turn each permit is: always the least served one's. Who had no work saves up no more than a little."""
    sharers = {place: state.run[name] for place, name in enumerate(held) if name in state.run}
    if not permits or not sharers or len(state.run) == 1:
        return b""
    if len(sharers) > 1:
        most = max(sharers.values())
        sharers = {place: max(served, most - 2 * permits) for place, served in sharers.items()}
    turns = bytearray()
    for _ in range(permits):
        place = min(sharers, key=sharers.__getitem__)
        sharers[place] += 1
        turns.append(place)
    state.run.update({held[place]: served for place, served in sharers.items()})
    return bytes(turns) if len(sharers) > 1 else b""
