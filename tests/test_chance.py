"""Under CI the same examples are drawn in each run; elsewhere, others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DRAWN = """
from hypothesis import given, settings, strategies as st
from tests import chance
chance.load_profile()
drawn = []
@settings(max_examples=20, database=None)
@given(st.integers(), st.text())
def draw(number, text): drawn.append((number, text))
draw()
print(ascii(drawn), chance.seed(10**9))
"""
UNTOLD = {name: value for name, value in os.environ.items() if name not in ("CI", "SENDENGINE_HYPOTHESIS", "SENDENGINE_SEED")}


def drawn(**told: str) -> str:
    return subprocess.run([sys.executable, "-c", DRAWN], cwd=ROOT, env=UNTOLD | told, capture_output=True, text=True, check=True).stdout


def test_ci_draws_the_same_examples_in_each_run() -> None:
    assert drawn(CI="true") == drawn(CI="1") == drawn(SENDENGINE_HYPOTHESIS="fixed")


@pytest.mark.parametrize("told", [{}, {"CI": "true", "SENDENGINE_HYPOTHESIS": "random"}])
def test_else_each_run_draws_others(told: dict[str, str]) -> None:
    assert drawn(**told) != drawn(**told)
