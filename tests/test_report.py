"""The report says what was measured, what was promised, and what did not run; its plots are well-formed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest

from benchmarks import report
from benchmarks.bench import Chart, Figure, Result
from benchmarks.plots import steps, svg

ABOUT = {"machine": "m", "commit": "abc", "at": datetime(2026, 1, 1, tzinfo=UTC), "form": "short", "suites": "1 of 1"}
LINES = Chart("N", "T", {"a": [(0.0, 0.0), (10.0, 5.0)]})


def result(holds: bool = True, chart: Chart = LINES) -> Result:
    return Result("title", ["", "n"], [["a|b", "<1>"]], [Figure("what", ">= 1", "2", holds, "the wire: 3")], chart, {"n": 1}, [LINES])


def test_a_cell_is_text_whatever_is_in_it() -> None:
    assert report.table(["", "n"], [["a|b", "<1>"]]) == ["|  | n |", "| --- | ---: |", "| a\\|b | &lt;1&gt; |"]


def test_a_suite_that_breaks_is_a_line_and_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str) -> Result:
        if name == "broken":
            raise TimeoutError
        return result()

    assert not report.write(["broken", "good"], run, is_full=False, folder=tmp_path)

    text = (tmp_path / "report.md").read_text()
    assert "Did not finish after 0 s: TimeoutError" in text
    assert "| good | what | &gt;= 1 | 2 | holds |" in text
    assert "![title](good.svg)" in text
    assert {file.name for file in tmp_path.iterdir()} == {"report.md", "report.json", "good.svg", "good-2.svg"}
    broken, good = orjson.loads((tmp_path / "report.json").read_bytes())["suites"]
    assert (broken["why"], good["data"], good["holds"]) == ("TimeoutError", {"n": 1}, True)
    assert "did not finish" in capsys.readouterr().out


@pytest.mark.parametrize("holds", [True, False])
def test_a_missed_figure_is_seen_from_outside_and_its_floor(holds: bool, tmp_path: Path) -> None:
    assert report.write(["a"], lambda name: result(holds), is_full=False, folder=tmp_path) is holds
    text = (tmp_path / "report.md").read_text()
    assert ("MISSED" in text) is not holds
    assert ("| a | what | &gt;= 1 | 2 | the wire: 3 |" in text) is not holds


@pytest.mark.parametrize(
    "chart",
    [
        LINES,
        Chart("x", "y", {"one <point>": [(3.0, 0.0)]}),
        Chart("x", "y", {"below": [(0.0, -3.0), (1.0, -1.0)]}),
        Chart("x", "y", {}),
        Chart("speed", "", {"a & b": [(0.0, 3.0)], "c": [(0.0, 3000.0)], "none": [(0.0, 0.0)]}, "bars"),
        Chart("%", "windows", {"a": [(-0.1, 2.0), (0.0, 5.0)], "b": [(-0.1, 1.0), (0.0, 0.0)]}, "histogram"),
    ],
)
def test_a_chart_is_drawn_within_its_frame(chart: Chart) -> None:
    root = ElementTree.fromstring(svg(chart, "a <title> & more"))

    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root:
        for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.get(name, 0)) <= most
        assert float(element.get("width", 0)) >= 0
        assert float(element.get("height", 0)) >= 0


def test_steps_are_round_and_within() -> None:
    assert steps(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert steps(-1.0, 1.0) == [-1, -0.5, 0, 0.5, 1]
    assert steps(5.0, 5.0)
