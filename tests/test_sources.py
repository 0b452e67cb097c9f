"""Sources of recipients: what is known of a list before it is read."""

from __future__ import annotations

import os
from pathlib import Path

from sendengine.scheduler.sources import STDIN, expected_rows


def test_rows_of_a_file_are_expected_by_its_size_and_first_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("email,city\n" + "".join(f"u{at:06}@example.com,Oslo\n" for at in range(100_000)))
    assert abs(expected_rows(path) - 100_000) < 100


def test_rows_at_hand_are_counted_and_others_not_touched(tmp_path: Path) -> None:
    rows = [{"email": "a@example.com"}] * 3
    assert expected_rows(rows) == 3
    left = iter(rows)
    assert expected_rows(left) == 0
    assert len(list(left)) == 3


def test_nothing_is_expected_of_a_pipe_or_an_empty_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    assert [expected_rows(path) for path in (STDIN, tmp_path / "pipe", tmp_path / "empty", tmp_path / "none")] == [0, 0, 0, 0]
