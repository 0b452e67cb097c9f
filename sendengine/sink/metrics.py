"""Every metric of the engine, declared once (port Meter), and their sum over the processes of one supervisor.

An event is counted in plain Python, since a cached Prometheus child costs 1 to 4 µs of a message's 15; the sums move into
Prometheus' files with each `state`. In several processes the library wants PROMETHEUS_MULTIPROC_DIR in the environment
before it is imported: each process writes files of its own there, and `exposition` reads all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from sendengine.policy.prices import MILLI
from sendengine.types import Outcome

__all__ = ["CONTENT_TYPE_LATEST", "PrometheusMeter", "exposition", "mark_dead"]

LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2, 1.0)
PROVIDERS_MOST = 50
RATE_ERRORS = (-0.1, -0.02, -0.005, -0.001, 0.0, 0.001, 0.005, 0.02)


class _Distribution(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: list[int], total: float) -> None:
        for bucket, n in zip(self._buckets, counts, strict=True):
            if n:
                bucket.inc(n)
        self._sum.inc(total)


class _Observed:
    """Observations not yet in their histogram. Owner: the meter."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], registry: CollectorRegistry) -> None:
        self._histogram = _Distribution(name, text, registry=registry, buckets=bounds)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def flush(self) -> None:
        counts, self._counts = self._counts, [0] * len(self._counts)
        total, self._total = self._total, 0.0
        if any(counts):
            self._histogram.add(counts, total)


class PrometheusMeter:
    """Owner of one process' sums. Labels are bounded: channels, outcomes, scopes and limits are words of ours, and of providers
    there are fifty, and `other`."""

    def __init__(self, channel: str = "smtp", registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._registry, self._channel = registry, channel
        self._outcomes = [0] * (max(Outcome) + 1)
        self._scopes: dict[str, int] = {}
        self._doubts = 0
        self._sums: dict[tuple[Counter, tuple[str, ...]], float] = {}
        self._providers: set[str] = set()
        self._w = 0
        self._limits: set[str] = set()
        self._declare(registry)

    def _declare(self, registry: CollectorRegistry) -> None:
        outcomes = Counter(
            "sendengine_outcomes", "Recipients that ended, by channel and outcome.", ("channel", "outcome"), registry=registry
        )
        self._outcome_counters = {o: outcomes.labels(self._channel, o.name.lower()) for o in Outcome}
        self._deferrals = Counter(
            "sendengine_deferred", "Attempts that will be tried again, by whom the trouble concerns.", ("channel", "scope"),
            registry=registry,
        )  # fmt: skip
        self._doubtful = Counter(
            "sendengine_doubtful", "Attempts of which nobody knows whether the peer took them.", ("channel",), registry=registry
        ).labels(self._channel)
        self._submitted = Counter("sendengine_sms_submitted", "SMS that reached a provider.", ("provider",), registry=registry)
        self._throttled = Counter(
            "sendengine_sms_throttled", "Answers of a provider that ask us to go slower.", ("provider",), registry=registry
        )
        self._receipts = Counter(
            "sendengine_sms_receipts", "Receipts of SMS, by what they say.", ("provider", "result"), registry=registry
        )
        self._credits = Counter("sendengine_sms_credits_spent", "Credits spent.", registry=registry)
        self._appends = _Observed("sendengine_append_seconds", "Round trip of a journal append.", LATENCIES, registry)
        self._visits = _Observed("sendengine_visit_seconds", "Round trip of an account's visit.", LATENCIES, registry)
        self._rate_errors = _Observed(
            "sendengine_rate_error", "Achieved by contracted rate, less one, of an account's full window.", RATE_ERRORS, registry
        )
        self._intents = self._gauge("sendengine_doubtful_now", "W: intents in journals without an outcome.")
        self._sessions = self._gauge("sendengine_sessions", "Open sessions.")
        self._accounts = self._gauge("sendengine_accounts", "Accounts attached to a worker.")
        self._rows = self._gauge("sendengine_rows", "Recipients in hand: leased and not on their way yet.")
        self._oldest = self._gauge("sendengine_oldest_seconds", "Age of the oldest lease in hand.", "livemax")
        self._bound = Gauge(
            "sendengine_suspended_accounts", "Attached accounts that a limit other than their rate binds.", ("limit",),
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip

    def _gauge(self, name: str, text: str, mode: str = "livesum") -> Gauge:
        return Gauge(name, text, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    # events

    def outcome(self, outcome: Outcome) -> None:
        self._outcomes[outcome] += 1

    def deferred(self, scope: str) -> None:
        self._scopes[scope] = self._scopes.get(scope, 0) + 1

    def doubtful(self) -> None:
        self._doubts += 1

    def submitted(self, provider: str) -> None:
        self._add(self._submitted, (self._named(provider),), 1)

    def throttled(self, provider: str) -> None:
        self._add(self._throttled, (self._named(provider),), 1)

    def receipt(self, provider: str, result: str) -> None:
        self._add(self._receipts, (self._named(provider), result), 1)

    def spent(self, amount: int) -> None:
        self._add(self._credits, (), amount / MILLI)

    def _add(self, counter: Counter, labels: tuple[str, ...], n: float) -> None:
        self._sums[counter, labels] = self._sums.get((counter, labels), 0.0) + n

    def _named(self, provider: str) -> str:
        """A table has some; one that is changed all day shall not fill the label."""
        if len(self._providers) < PROVIDERS_MOST:
            self._providers.add(provider)
        return provider if provider in self._providers else "other"

    def appended(self, seconds: float, doubtful: int) -> None:
        self._appends.add(seconds)
        self._w = doubtful

    def visited(self, seconds: float) -> None:
        self._visits.add(seconds)

    def rate_error(self, error: float) -> None:
        self._rate_errors.add(error)

    def state(self, accounts: int, rows: int, sessions: int, oldest: float, bound: Mapping[str, int]) -> None:
        self._accounts.set(accounts)
        self._rows.set(rows)
        self._sessions.set(sessions)
        self._oldest.set(oldest)
        self._limits.update(bound)
        for limit in self._limits:
            self._bound.labels(limit).set(bound.get(limit, 0))
        self.flush()

    def flush(self) -> None:
        """What was counted since the last time becomes visible."""
        counts, self._outcomes = self._outcomes, [0] * len(self._outcomes)
        for outcome, counter in self._outcome_counters.items():
            if counts[outcome]:
                counter.inc(counts[outcome])
        scopes, self._scopes = self._scopes, {}
        for scope, n in scopes.items():
            self._deferrals.labels(self._channel, scope).inc(n)
        sums, self._sums = self._sums, {}
        for (counter, labels), amount in sums.items():
            (counter.labels(*labels) if labels else counter).inc(amount)
        doubts, self._doubts = self._doubts, 0
        if doubts:
            self._doubtful.inc(doubts)
        self._intents.set(self._w)
        for observed in (self._appends, self._visits, self._rate_errors):
            observed.flush()


def exposition(folder: str) -> bytes:
    """The text for /metrics: all processes that wrote into `folder`; what only a living one has (gauges) of the living."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def mark_dead(pid: int, folder: str) -> None:
    """The process has ended: its gauges go, its counts stay."""
    mark_process_dead(pid, path=folder)  # type: ignore[no-untyped-call]
