"""The quick part of the protocol's model check: `make model` runs all of it (runs.py)."""

from __future__ import annotations

import pytest

from tests.model.runs import RUNS, Result, Run, check, missing

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=f"{missing()} is not installed: the protocol is not model-checked here"),
    pytest.mark.timeout(300),
]


@pytest.mark.parametrize("run", [run for run in RUNS if run.is_quick], ids=lambda run: run.name)
def test_rules_hold_and_each_one_left_out_is_missed(run: Run) -> None:
    result = check(run)
    assert result.is_as_expected, str(result)


@pytest.mark.parametrize(
    ("name", "errors", "is_complete", "is_good", "verdict"),
    [
        ("ok_x", 0, True, True, "complete"),
        ("ok_x", 0, False, False, "FAILED (incomplete)"),
        ("ok_x", 1, False, False, "ERROR"),
        ("no_x", 1, False, True, "counter-example"),
        ("no_x", 0, True, False, "NO COUNTER-EXAMPLE (complete)"),
    ],
)
def test_what_counts_as_expected(name: str, errors: int, is_complete: bool, is_good: bool, verdict: str) -> None:
    result = Result(Run(name, ""), errors, 10, 0.1, is_complete, "")
    assert (result.is_as_expected, result.verdict) == (is_good, verdict)


def test_names_of_runs_are_distinct() -> None:
    assert len({run.name for run in RUNS}) == len(RUNS)
