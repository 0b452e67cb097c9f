"""A suite's results are kept, and told from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from benchmarks import bench
from benchmarks.bench import Chart, Figure, Result, record
from benchmarks.punctual import observed


@pytest.mark.parametrize("holds", [True, False])
def test_a_suite_writes_its_figures_and_its_picture(
    holds: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    chart = Chart(x="x", y="y", series={"a": [(0.0, 1.0)]})
    result = Result(title="t", columns=["n"], rows=[["1"]], figures=[Figure("what", "1", "1", holds)], chart=chart, data={"n": 1})
    assert record("suite", result, quick=False) is holds
    assert orjson.loads((tmp_path / "suite.json").read_bytes())["data"] == {"n": 1}
    said = capsys.readouterr().out
    assert (tmp_path / "suite.svg").read_text().startswith("<svg")
    assert "what" in said


async def test_the_machines_own_lateness_is_watched_while_something_runs() -> None:
    async with observed() as lateness:
        assert lateness.count == 0
        await asyncio.to_thread(sum, range(3_000_000))

    assert lateness.count > 0
    assert 0.0 <= lateness.p50 <= lateness.p99 <= lateness.most
    assert "woke late by p50" in str(lateness)
