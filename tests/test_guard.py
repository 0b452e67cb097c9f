"""The guard calls dear what is dear, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from benchmarks import guard, stages
from benchmarks.guard import LIMIT, WHOLE, Accepted, Range, Ratios, judged, ranges, too_dear


def accepted(**ratios: float) -> Accepted:
    of = {name: Range(value, value, value) for name, value in ratios.items()}
    return Accepted("machine", "abc", datetime(2026, 1, 1, tzinfo=UTC), "3.11", "smtp-sink", of)


def measurements(*each: Ratios) -> Callable[[], tuple[str, Ratios]]:
    left = iter(each)
    return lambda: ("smtp-sink", next(left))


def test_half_as_dear_again_is_still_right_and_more_is_not() -> None:
    before = accepted(render=0.4)

    assert too_dear(before, "smtp-sink", {"render": 0.4 * LIMIT}) == {}
    assert "1.60 times" in too_dear(before, "smtp-sink", {"render": 0.64})["render"]


def test_noise_in_one_measurement_is_forgiven() -> None:
    assert judged(accepted(render=0.4), measurements({"render": 2.0}, {"render": 0.41})) == {}


def test_what_is_dear_twice_is_said() -> None:
    found = judged(accepted(render=0.4, settle=0.5), measurements({"render": 0.9, "settle": 0.5}, {"render": 0.8, "settle": 2.0}))

    assert list(found) == ["render"]
    assert "0.800" in found["render"]


def test_a_good_measurement_is_not_repeated() -> None:
    assert judged(accepted(render=0.4), measurements({"render": 0.4})) == {}


def test_a_ratio_that_is_gone_is_a_miss() -> None:
    assert list(too_dear(accepted(render=0.4), "smtp-sink", {"settle": 0.5})) == ["render"]


def test_whole_workers_are_compared_on_the_same_sink_only() -> None:
    before = accepted(**{WHOLE: 0.2})

    assert too_dear(before, "sendengine sink", {WHOLE: 9.0}) == {}
    assert list(too_dear(before, "smtp-sink", {WHOLE: 9.0})) == [WHOLE]


def test_ranges_are_of_all_runs() -> None:
    assert ranges([{"a": 3.0}, {"a": 1.0}, {"a": 2.0}]) == {"a": Range(2.0, 1.0, 3.0)}


def test_every_stage_has_a_ratio_each_round() -> None:
    taken = stages.measure(2)

    over = stages.ratios(taken)

    assert set(over) == set(taken) - {stages.REFERENCE}
    assert all(len(values) == 2 and min(values) > 0 for values in over.values())


def test_what_was_accepted_covers_every_stage() -> None:
    kept = msgspec.json.decode(guard.ACCEPTED.read_bytes(), type=Accepted)

    assert set(kept.ratios) == {*stages.stages(), WHOLE} - {stages.REFERENCE}


def test_a_stage_that_does_its_work_thrice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: on real stages, in their own process' time, with no limit but the real one; both renderings in the same rounds."""
    real = stages.stages()
    render = real["render"]

    def thrice() -> None:
        for _ in range(3):
            render()

    monkeypatch.setattr(stages, "stages", lambda: real | {"thrice": thrice})
    once = {name: min(values) for name, values in stages.ratios(stages.measure(5)).items()}
    slow = once | {"render": once.pop("thrice")}

    assert list(too_dear(accepted(**once), "smtp-sink", slow)) == ["render"]
