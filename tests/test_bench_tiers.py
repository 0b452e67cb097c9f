"""What is said of a tier before it is sold: each has its verdict, beside the floor and the share of what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report, tiers
from benchmarks.tiers import Seen, Trial

TRIALS = [Trial("60k", 10.0, 1500), Trial("5k", 1.0, 40)]


def even(r: float, n: int, error: float = 0.0) -> list[float]:
    return [at / r / (1 + error) for at in range(n)]


def cells(trials: list[Trial], seen: list[Seen]) -> list[dict[str, str]]:
    found = tiers.result(trials, seen)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_each_tier_has_its_verdict_beside_the_floor() -> None:
    first, second = cells(TRIALS, [Seen(even(10.0, 1500), 0.1), Seen(even(1.0, 40), -0.5)])
    assert (first["in each full window"], first["at least allowed"]) == ("2 x 60 s: 600", "588")
    assert (second["in each full window"], second["at least allowed"]) == ("3 x 10 s: 10", "9")
    assert (first["verdict"], second["verdict"]) == ("holds, at 3.3 %", "holds, at 50.0 %")


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Seen(even(10.0, 1500, -0.00947), 0.0), "holds, at 94.7 %"),
        (Seen(even(10.0, 1500, -0.015), 0.0), "MISSED: rate error"),
        (Seen(even(10.0, 1500), 60.0), "MISSED: finish"),
        (Seen(even(10.0, 1500, 0.1), 0.0), "MISSED: ceiling, rate error"),
        (Seen(even(10.0, 1500, -0.1), 0.0), "MISSED: floor, rate error"),
        (Seen(even(10.0, 100), 0.0), "holds, at 0.0 %; too short for a floor"),
    ],
)
def test_a_verdict_says_what_is_missed_or_how_much_was_used(seen: Seen, verdict: str) -> None:
    assert cells(TRIALS[:1], [seen])[0]["verdict"] == verdict


def test_the_report_says_what_negative_figures_mean_and_how_near_the_bound_is(tmp_path: Path) -> None:
    found = tiers.result(TRIALS[:1], [Seen(even(10.0, 1500, -0.00947), 0.0)])
    assert report.write(["tiers"], lambda name: found, is_full=False, folder=tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| within 1 | -0.947 | holds, at 94.7 % of what is allowed |" in text
    assert "negative means that so many more would have been allowed" in text
    assert "negative means so many more than the floor" in text
