"""What an operator scrapes: counts of one process, and their sum over processes, living and dead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from sendengine.sink.metrics import PrometheusMeter, exposition, mark_dead
from sendengine.types import Outcome

ROOT = Path(__file__).parent.parent

METER = """
import os
from sendengine.sink.metrics import PrometheusMeter
from sendengine.types import Outcome
meter = PrometheusMeter()
meter.outcome(Outcome.SENT)
meter.outcome(Outcome.SENT)
meter.deferred("site")
meter.appended(0.004, 3)
meter.visited(0.3)
meter.state(accounts=2, rows=10, sessions=4, oldest=1.5, bound={"relay": 1})
print(os.getpid())
"""


def metered(folder: Path) -> int:
    """A process that counted and ended; its pid."""
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", METER], env=environ, capture_output=True, text=True, check=True)
    return int(done.stdout)


def lines(folder: Path) -> set[str]:
    return set(exposition(str(folder)).decode().splitlines())


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_events_are_counted_under_their_labels(registry: CollectorRegistry) -> None:
    meter = PrometheusMeter("smtp", registry)
    for outcome in (Outcome.SENT, Outcome.SENT, Outcome.UNKNOWN):
        meter.outcome(outcome)
    meter.deferred("account_relay")
    meter.doubtful()
    meter.flush()
    meter.flush()
    assert registry.get_sample_value("sendengine_outcomes_total", {"channel": "smtp", "outcome": "sent"}) == 2
    assert registry.get_sample_value("sendengine_outcomes_total", {"channel": "smtp", "outcome": "unknown"}) == 1
    assert registry.get_sample_value("sendengine_outcomes_total", {"channel": "smtp", "outcome": "bounced"}) == 0
    assert registry.get_sample_value("sendengine_deferred_total", {"channel": "smtp", "scope": "account_relay"}) == 1
    assert registry.get_sample_value("sendengine_doubtful_total", {"channel": "smtp"}) == 1


def test_latencies_fall_into_the_bucket_that_bounds_them(registry: CollectorRegistry) -> None:
    meter = PrometheusMeter("smtp", registry)
    for seconds in (0.001, 0.0011, 0.2, 7.0):
        meter.visited(seconds)
    meter.flush()
    buckets = [registry.get_sample_value("sendengine_visit_seconds_bucket", {"le": le}) for le in ("0.001", "0.002", "0.2", "1.0", "+Inf")]
    assert buckets == [1, 2, 3, 3, 4]
    assert registry.get_sample_value("sendengine_visit_seconds_sum") == pytest.approx(7.2021)
    assert registry.get_sample_value("sendengine_append_seconds_count") == 0


def test_rate_errors_have_both_signs(registry: CollectorRegistry) -> None:
    meter = PrometheusMeter("smtp", registry)
    for error in (-0.03, 0.0004):
        meter.rate_error(error)
    meter.flush()
    buckets = [registry.get_sample_value("sendengine_rate_error_bucket", {"le": le}) for le in ("-0.1", "-0.02", "0.0", "0.001")]
    assert buckets == [0, 1, 1, 2]


def test_a_limit_that_no_longer_binds_goes_to_zero(registry: CollectorRegistry) -> None:
    meter = PrometheusMeter("smtp", registry)
    meter.appended(0.001, 5)
    meter.state(accounts=3, rows=20, sessions=2, oldest=0.5, bound={"relay": 2})
    meter.state(accounts=3, rows=20, sessions=2, oldest=0.5, bound={"site": 1})
    assert registry.get_sample_value("sendengine_suspended_accounts", {"limit": "relay"}) == 0
    assert registry.get_sample_value("sendengine_suspended_accounts", {"limit": "site"}) == 1
    assert registry.get_sample_value("sendengine_doubtful_now") == 5
    assert registry.get_sample_value("sendengine_accounts") == 3


def test_processes_are_summed_and_a_dead_ones_gauges_go(tmp_path: Path) -> None:
    pids = [metered(tmp_path) for _ in range(2)]
    both = lines(tmp_path)
    mark_dead(pids[0], str(tmp_path))
    one = lines(tmp_path)
    assert {'sendengine_outcomes_total{channel="smtp",outcome="sent"} 4.0', "sendengine_rows 20.0"} <= both
    assert {"sendengine_oldest_seconds 1.5", 'sendengine_append_seconds_bucket{le="0.005"} 2.0'} <= both
    assert {'sendengine_outcomes_total{channel="smtp",outcome="sent"} 4.0', "sendengine_rows 10.0"} <= one
    assert "# HELP sendengine_sessions Open sessions." in both


def test_sms_and_credits_are_counted_by_provider_and_providers_are_bounded(registry: CollectorRegistry) -> None:
    meter = PrometheusMeter("smtp", registry)
    for at in range(60):
        meter.submitted(f"p{at}")
    meter.submitted("p1")
    meter.throttled("p1")
    meter.receipt("p1", "delivered")
    meter.spent(1500)
    meter.flush()
    meter.flush()
    value = registry.get_sample_value
    assert value("sendengine_sms_submitted_total", {"provider": "p1"}) == 2
    assert value("sendengine_sms_submitted_total", {"provider": "other"}) == 10
    assert value("sendengine_sms_throttled_total", {"provider": "p1"}) == 1
    assert value("sendengine_sms_receipts_total", {"provider": "p1", "result": "delivered"}) == 1
    assert value("sendengine_sms_credits_spent_total") == 1.5
