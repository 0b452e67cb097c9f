"""What runs the verifiers: reads their reports, and leaves none behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.model.spin import Result, Run, group, output_of, read_report

COMPLETE = "State-vector 92 byte, depth reached 336, errors: 0\n   599418 states, stored\n"
VIOLATED = """pan:1: assertion violated (delivered[k]<=1) (at depth 88)
Warning: Search not completed
State-vector 92 byte, depth reached 336, errors: 1
     5295 states, stored
"""
SHALLOW = "error: max search depth too small\n" + COMPLETE
FULL = "pan: out of memory\nWarning: Search not completed\n" + COMPLETE


@pytest.mark.parametrize(
    ("name", "errors", "is_complete", "is_good", "verdict"),
    [
        ("ok_x", 0, True, True, "complete"),
        ("ok_x", 0, False, False, "INCOMPLETE"),
        ("ok_x", 1, False, False, "ERROR"),
        ("no_x", 1, False, True, "counter-example"),
        ("no_x", 0, True, False, "NO COUNTER-EXAMPLE, complete"),
        ("no_x", 0, False, False, "NO COUNTER-EXAMPLE, incomplete"),
    ],
)
def test_what_counts_as_expected(name: str, errors: int, is_complete: bool, is_good: bool, verdict: str) -> None:
    result = Result(Run(name, ""), errors, 10, 0.1, is_complete, "")
    assert (result.is_as_expected, result.verdict) == (is_good, verdict)


@pytest.mark.parametrize(
    ("output", "errors", "states", "is_complete", "reason"),
    [
        (COMPLETE, 0, 599_418, True, ""),
        (VIOLATED, 1, 5_295, False, "assertion violated (delivered[k]<=1)"),
        (SHALLOW, 0, 599_418, False, "max search depth too small"),
        (FULL, 0, 599_418, False, "out of memory"),
        ("", 0, 0, False, "no report"),
    ],
)
def test_reports(output: str, errors: int, states: int, is_complete: bool, reason: str) -> None:
    result = read_report(Run("ok_x", ""), output, 1.0)
    assert (result.errors, result.states, result.is_complete, result.reason) == (errors, states, is_complete, reason)


def test_a_search_out_of_time_is_asked_how_far_it_came(tmp_path: Path) -> None:
    script = "trap 'echo Interrupted; exit 0' INT; echo begun; while :; do sleep 0.05; done"
    assert output_of(["sh", "-c", script], tmp_path, seconds=2) == "begun\nInterrupted\n"


def test_one_that_does_not_answer_then_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.model.spin.GRACE", 0.1)
    assert output_of(["sh", "-c", "trap '' INT; exec sleep 600"], tmp_path, seconds=0.5) == ""


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_none_is_left_behind(end: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(end), group(["sh", "-c", "sleep 600 & wait"], tmp_path) as process:
        raise end
    assert process.returncode == -signal.SIGKILL  # and its child: else its output would not have ended yet
