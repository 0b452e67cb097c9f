"""The quick part of the protocol's model check: `make model` runs all of it (runs.py)."""

from __future__ import annotations

import pytest

from tests.model.runs import RUNS
from tests.model.spin import Run, check, missing


@pytest.mark.skipif(bool(missing()), reason=f"{missing()} is not installed: the protocol is not model-checked here")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("run", [run for run in RUNS if run.is_quick], ids=lambda run: run.name)
def test_rules_hold_and_each_one_left_out_is_missed(run: Run) -> None:
    result = check(run)
    assert result.is_as_expected, str(result)


def test_names_of_runs_are_distinct() -> None:
    assert len({run.name for run in RUNS}) == len(RUNS)
