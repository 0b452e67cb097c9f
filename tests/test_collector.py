"""A worker's collections of garbage are short, and those of everything rare: one of them takes as long as the worker holds much."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from sendengine.process import collect_seldom


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_as_it_was")
def test_many_objects_that_stay_are_not_looked_through_again_and_again() -> None:
    looked = {0: 0, 1: 0, 2: 0}

    def count(phase: str, info: dict[str, int]) -> None:
        looked[info["generation"]] += phase == "start"

    collect_seldom()
    gc.callbacks.append(count)
    try:
        held = [[number] for number in range(400_000)]
    finally:
        gc.callbacks.remove(count)

    assert len(held) == 400_000
    assert looked[1] > 0  # what was lately made and is garbage goes
    assert looked[2] == 0
