"""The schedule of retries."""

from __future__ import annotations

import pytest

from sendengine.errors import ConfigError
from sendengine.policy.retry import Schedule, delay, parse, suspension


def test_a_schedule_is_read() -> None:
    assert parse("30s, 1m, 5m*2, 1h * 2, 1d") == Schedule((30.0, 60.0, 300.0, 300.0, 3600.0, 3600.0, 86400.0))


@pytest.mark.parametrize("text", ["", "1m,", "5", "5x", "0m", "1m*0", "-1m", "1m**2", "1m 2m"])
def test_a_step_that_is_off_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="retry schedule"):
        parse(text)


def test_the_last_step_repeats() -> None:
    schedule = parse("1m, 5m*2, 1h")
    assert [delay(schedule, tries, 0.0) for tries in range(1, 7)] == [60.0, 300.0, 300.0, 3600.0, 3600.0, 3600.0]


def test_jitter_spreads_by_a_fifth_at_least_and_never_hurries() -> None:
    schedule = parse("10m")
    assert delay(schedule, 1, 0.0) == 600.0
    assert delay(schedule, 1, 0.999) - delay(schedule, 1, 0.0) >= 0.2 * 600.0


def test_a_suspension_doubles_up_to_an_hour() -> None:
    assert [suspension(60.0, n) for n in (0, 1, 2, 5, 6, 1000)] == [60.0, 120.0, 240.0, 1920.0, 3600.0, 3600.0]
    assert suspension(7200.0, 3) == 7200.0
