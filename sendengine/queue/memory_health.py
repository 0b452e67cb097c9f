"""How an account's mail fares, in memory: the twin of lua/health.lua and lua/complaining.lua."""

from __future__ import annotations

from collections.abc import Iterable

from sendengine.policy.health import Health
from sendengine.queue.memory_state import Account

HOUR_US = 3600e6


def look(state: Account, now: float, hours: int) -> Health:
    """The first look only notes where the counts stand."""
    tally, hour = state.health, int(now // HOUR_US)
    for by_hour in (tally.hours, tally.complaints):
        for old in [each for each in by_hour if each <= hour - hours]:
            del by_hour[old]
    counts = {name: (each.fields.number("sent"), each.fields.number("bounced")) for name, each in state.campaigns.items()}
    if tally.at is not None:
        rises = [_sum(counts.values(), which) - _sum(tally.seen.values(), which) for which in (0, 1)]
        sent, bounced = tally.hours.get(hour, (0, 0))
        tally.hours[hour] = (sent + rises[0], bounced + rises[1])
    tally.at, tally.seen = now, counts
    return Health(_sum(tally.hours.values(), 0), _sum(tally.hours.values(), 1), sum(tally.complaints.values()))


def _sum(pairs: Iterable[tuple[int, int]], which: int) -> int:
    return sum(pair[which] for pair in pairs)


def complain(state: Account, now: float, n: int) -> None:
    hour = int(now // HOUR_US)
    state.health.complaints[hour] = state.health.complaints.get(hour, 0) + n
