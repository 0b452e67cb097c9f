"""What a ledger of MAIL times proves about speed. Pure arithmetic; the rules are those of a pay-per-speed sender.

Times are seconds, ascending (`times` below); `r` is messages per second.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import floor

import msgspec

from sendengine.trial.mails import duration, rate_error


class Spread(msgspec.Struct, frozen=True):
    median: float
    low: float
    high: float
    count: int


def above_ceiling(times: Sequence[float], r: float, longest: float = 60.0) -> float:
    """How many messages the worst window of up to `longest` seconds holds above r·(w + max(0.5 s, 1 s - 1/r)) + 1; at most 0 is right.

    The worst windows begin and end at messages i <= j: their count j - i + 1 less r·(t_j - t_i) is greatest where i - r·t_i is
    least, which a queue of the candidates inside the window keeps at hand: one pass over all pairs.
    """
    allowance = r * max(0.5, 1.0 - 1.0 / r) + 1.0
    worst = -allowance
    candidates: deque[tuple[float, float]] = deque()  # (t_i, i - r·t_i), the second ascending
    for place, at in enumerate(times):
        level = place - r * (at - times[0])
        while candidates and candidates[-1][1] >= level:
            candidates.pop()
        candidates.append((at, level))
        while at - candidates[0][0] > longest:
            candidates.popleft()
        worst = max(worst, level - candidates[0][1] + 1.0 - allowance)
    return worst


def full_windows(times: Sequence[float], span: float) -> list[int]:
    """Messages in each window of `span` seconds; they tile the send from its first MAIL, and what is left at its end is none."""
    counts = [0] * floor(duration(times) / span)
    for at in times:
        place = int((at - times[0]) / span)
        if place < len(counts):
            counts[place] += 1
    return counts


def most_in(times: Sequence[float], span: float) -> int:
    """Messages in the fullest window of `span` seconds, wherever it lies."""
    most, first = 0, 0
    for place, at in enumerate(times):
        while at - times[first] >= span:
            first += 1
        most = max(most, place - first + 1)
    return most


def longest_gap(times: Sequence[float], since: float, until: float) -> float:
    """Seconds without a message between these moments, which count as edges; times ascending and within them."""
    return max(late - early for early, late in pairwise([since, *times, until]))


def window_errors(times: Sequence[float], r: float, span: float) -> list[float]:
    """The rate error of each full window of `span` seconds, over the messages in it; one with less than two has none."""
    parts: list[list[float]] = [[] for _ in range(floor(duration(times) / span))]
    for at in times:
        place = int((at - times[0]) / span)
        if place < len(parts):
            parts[place].append(at)
    return [rate_error(part, r) for part in parts if len(part) > 1]


def histogram(values: Iterable[float], width: float, most: float) -> list[tuple[float, float]]:
    """(left edge, how many) of columns so wide from -most to most; what lies beyond is counted in the outermost."""
    columns = round(2 * most / width)
    counts = Counter(min(columns - 1, max(0, floor((value + most) / width))) for value in values)
    return [(round(-most + place * width, 9), float(counts[place])) for place in range(columns)]


def floor_of(r: float, span: float) -> int:
    """What a full window must hold at least."""
    return floor(0.98 * span * r)


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Of the least-squares line through (x, y)."""
    xs, ys = zip(*points, strict=True)
    return statistics.linear_regression(xs, ys).slope


def turn(times: Sequence[float], change: float, before: float, after: float) -> float:
    """Where the line of the messages counted up to `change` meets that of those from `after` on: when the rate turned.

    `before` seconds ahead of the change and all later than `after` are fitted: what lies between belongs to neither line.
    """
    early = [(at, float(place)) for place, at in enumerate(times) if change - before <= at <= change]
    late = [(at, float(place)) for place, at in enumerate(times) if at >= after]
    one, two = (statistics.linear_regression(*zip(*[(at - change, n) for at, n in part], strict=True)) for part in (early, late))
    return change + (two.intercept - one.intercept) / (one.slope - two.slope)


def lost_and_twice(recipients: Iterable[str], wanted: Iterable[str]) -> tuple[int, int]:
    """(wanted ones that never came, messages beyond the first to anybody)."""
    came = Counter(recipients)
    return sum(1 for one in wanted if one not in came), sum(times - 1 for times in came.values())


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))
