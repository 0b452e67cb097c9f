"""A tier before it is sold: one account on each tier given, all at once; what each of them gets, as the relay saw it.

`python -m benchmarks tiers [--tiers 60k,200k] [--recipients N]`. Without N each tier gets what it sends in the time of the form.
"""

from __future__ import annotations

import asyncio

import msgspec

from benchmarks.analysis import above_ceiling, floor_of, full_windows, histogram, window_errors
from benchmarks.bench import Bench, Chart, Figure, Result, bench, figure_of
from benchmarks.letter import sender
from sendengine.config import load, tiers
from sendengine.errors import RefusedInput
from sendengine.policy.tiers import parse_rate
from sendengine.trial.mails import by_sender, duration, rate_error

TITLE = "tiers: a send on each tier, all at once"
_FORMS_S = (25.0, 150.0)  # how long each tier sends when no N is given: short form, full form
_LEAST = 8  # messages: fewer have no rate to speak of
_SPANS = (60.0, 10.0)  # the longest window of which a send has two
_PROVEN_S = 60.0
_TOO_SHORT = (
    "Some of these are too short to sell a tier by: what is promised is a floor for each full minute, and two of them prove it, with N "
    "of 121 r or more (2,017 at 60,000 an hour)."
)
_ERROR_SPAN = 10.0  # of the histogram's windows
_LIMIT = 0.01  # of the rate error of a whole send


class Trial(msgspec.Struct, frozen=True):
    tier: str
    r: float  # messages a second
    size: int


class Seen(msgspec.Struct, frozen=True):
    times: list[float]  # of MAIL, ascending
    late: float  # seconds from the estimate at submit to the time when it was through


def plan(quick: bool, named: str | None, recipients: int | None) -> list[Trial]:
    """What is to be sent; names are looked up in the operator's own table. Raises RefusedInput or NotFound for one without a rate."""
    table = tiers(load().tiers_file)
    words = named.split(",") if named else [name for name, tier in table.items() if tier.per_hour is not None]
    trials = []
    for word in words:
        name, per_hour = parse_rate(word, table)
        if per_hour is None:
            raise RefusedInput(f"{name} has no rate to be held to", "the suite throughput measures unmetered sending")
        trials.append(Trial(name, per_hour / 3600, recipients or max(_LEAST, round(per_hour / 3600 * _FORMS_S[not quick]))))
    return trials


def bound(trials: list[Trial]) -> float:
    return max(trial.size / trial.r for trial in trials) * 1.5 + 90


async def run(quick: bool, trials: list[Trial]) -> Result:
    async with bench() as b:
        relay = b.stage.relay()
        b.stage.worker()
        await b.workers_ready()
        names = [f"m{1001 + place}" for place in range(len(trials))]
        late = await asyncio.gather(*(_send(b, name, trial, relay.port) for name, trial in zip(names, trials, strict=True)))
        mails = by_sender(b.seen_by(relay))
    return result(trials, [Seen([mail.at for mail in mails[sender(name)]], own) for name, own in zip(names, late, strict=True)])


async def _send(b: Bench, account: str, trial: Trial, port: int) -> float:
    await b.account(account, f"{trial.r * 3600:.6f}", port)
    send = await b.submit(account, trial.size)
    final = await b.finished(send.id, trial.size / trial.r * 1.5 + 60)
    assert send.finish_estimate is not None
    assert final.through_at is not None
    return (final.through_at - send.finish_estimate).total_seconds()


# what it comes to


_COLUMNS = [
    "tier", "N", "N/r, s", "T, s", "in each full window", "at least allowed", "above the ceiling", "rate error", "late, s", "verdict",
]  # fmt: skip
_NOTES = [
    (
        "`in each full window`: the fewest and the most messages in the windows that tile the send, and beside it the floor, 98 % of the "
        "rate. `messages missing` is the floor less what a window held: negative means so many more than the floor."
    ),
    (
        "`above the ceiling` is the worst window of up to 60 s less r·(w + max(0.5 s, 1 s - 1/r)) + 1 messages: negative means that so "
        "many more would have been allowed, 0 that the ceiling was reached."
    ),
    (
        "`verdict` has the largest share used of the two bounds that have one: rate error (1 %) and finish against the estimate at submit "
        "(1 s, 2 % of sends longer than a minute)."
    ),
]


class Judged(msgspec.Struct, frozen=True):
    """One tier against its bounds. Shares are of what is allowed: above 1 is missed."""

    span: float
    windows: list[int]
    floor: int
    above: float
    error: float
    of_error: float
    of_finish: float

    @property
    def missing(self) -> list[int]:
        return [self.floor - count for count in self.windows]

    @property
    def missed(self) -> list[str]:
        found = {"floor": max(self.missing, default=0) > 0, "ceiling": self.above > 0, "rate error": self.of_error > 1,
                 "finish": self.of_finish > 1}  # fmt: skip
        return [name for name, is_missed in found.items() if is_missed]

    @property
    def verdict(self) -> str:
        if self.missed:
            return f"MISSED: {', '.join(self.missed)}"
        return f"holds, at {max(self.of_error, self.of_finish) * 100:.1f} %" + ("" if self.windows else "; too short for a floor")


def judged(trial: Trial, own: Seen) -> Judged:
    span = _span(own.times)
    error = rate_error(own.times, trial.r)
    windows = full_windows(own.times, span) if span else []
    floor = floor_of(trial.r, span)
    return Judged(span, windows, floor, above_ceiling(own.times, trial.r), error, abs(error) / _LIMIT, _share(trial, own))


def result(trials: list[Trial], seen: list[Seen]) -> Result:
    verdicts = [judged(trial, own) for trial, own in zip(trials, seen, strict=True)]
    rows = [
        [trial.tier, f"{trial.size:,}", f"{trial.size / trial.r:.1f}", f"{duration(own.times):.1f}", _said(each.windows, each.span),
         f"{each.floor:,}" if each.windows else "", f"{each.above:+.1f}", f"{each.error * 100:+.3f} %", f"{own.late:+.2f}", each.verdict]
        for trial, own, each in zip(trials, seen, verdicts, strict=True)
    ]  # fmt: skip
    series = {trial.tier: [(at - own.times[0], (place + 1) / trial.size) for place, at in _some(own.times)]
              for trial, own in zip(trials, seen, strict=True)}  # fmt: skip
    data = {trial.tier: {"r": trial.r, "late": own.late, "mail_times": [round(at - own.times[0], 6) for at in own.times]}
            for trial, own in zip(trials, seen, strict=True)}  # fmt: skip
    chart = Chart("seconds", "share that is through", series, "-")
    notes = _NOTES if all(each.span >= _PROVEN_S for each in verdicts) else [*_NOTES, _TOO_SHORT]
    return Result(TITLE, _COLUMNS, rows, _figures(verdicts), chart, data, [_errors(trials, seen)], notes)


def _figures(verdicts: list[Judged]) -> list[Figure]:
    missing = [lack for each in verdicts for lack in each.missing] or [0]
    excess, errors = [each.above for each in verdicts], [100 * each.error for each in verdicts]
    of_error, of_finish = max(each.of_error for each in verdicts), max(each.of_finish for each in verdicts)
    return [
        figure_of("messages missing in any full window", "<= 0", missing, max(missing) <= 0, 0),
        figure_of("above the ceiling in any window up to 60 s", "<= 0", excess, max(excess) <= 0, 1),
        figure_of("rate error of a send, %", "within 1", errors, of_error <= 1, used=of_error),
        Figure("finish time against the estimate at submit", "1 s, or 2 % of sends longer than a minute",
               f"{of_finish:.2f} of what is allowed", of_finish <= 1, used=of_finish),
    ]  # fmt: skip


def _errors(trials: list[Trial], seen: list[Seen]) -> Chart:
    """Tiers whose windows hold too few messages for an error to mean anything are left out."""
    errors = [100 * error for trial, own in zip(trials, seen, strict=True) if trial.r * _ERROR_SPAN >= _LEAST
              for error in window_errors(own.times, trial.r, _ERROR_SPAN)]  # fmt: skip
    columns = {"all tiers": histogram(errors, 0.1, 1.0)}
    return Chart(f"rate error of each full {_ERROR_SPAN:.0f} s, %", "windows", columns, "histogram")


def _span(times: list[float]) -> float:
    """Seconds of a window; 0.0 when the send is too short to have two."""
    return next((span for span in _SPANS if duration(times) >= 2 * span), 0.0)


def _share(trial: Trial, own: Seen) -> float:
    """Of the lateness that is allowed."""
    promised = trial.size / trial.r
    return abs(own.late) / (max(1.0, 0.02 * promised) if promised > 60 else 1.0)


def _said(windows: list[int], span: float) -> str:
    if not windows:
        return "too short"
    low, high = min(windows), max(windows)
    return f"{len(windows)} x {span:.0f} s: {low:,}" + (f" to {high:,}" if high > low else "")


def _some(times: list[float]) -> list[tuple[int, float]]:
    """At most two hundred of them, the last included."""
    step = max(1, len(times) // 200)
    places = [*range(0, len(times) - 1, step), len(times) - 1]
    return [(place, times[place]) for place in places]
