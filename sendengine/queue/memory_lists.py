"""Marks of lists that were begun and have not ended, in memory: the twin of lua/unended.lua and lua/list.lua."""

from __future__ import annotations

import re

from sendengine.ports import Run

MOST = 4096  # octets
_MARK = re.compile(r"([0-9a-f]+):(\d+):(\d+):(\d) ")


def marks_in(value: str) -> str:
    return "1:0:0:1 " if value == "1" else value


def marked(marks: str, run: Run, stood: int, stored: bool) -> tuple[str, bool]:
    """The marks with that of a run, and whether it has stored a batch just now for the first time."""
    found = re.search(rf"{run.name}:\d+:\d+:(\d) ", marks)
    if found is None:
        if len(marks) > MOST:
            marks = marks.split(" ", 1)[1]
        return f"{marks}{run.name}:{run.first}:{stood}:{stored:d} ", stored
    if found[1] == "1" or not stored:
        return marks, False
    return marks[: found.start(1)] + "1" + marks[found.end(1) :], True


def after_end(marks: str, run: Run, batches: int, stands: int) -> str:
    is_all, is_earlier, kept = batches == stands, f"{run.name}:" in marks, ""
    for mark in _MARK.finditer(marks):
        name, first, stood, stored = mark.groups()
        is_earlier = is_earlier and name != run.name
        is_covered = is_all and (int(first) == run.first or (is_earlier and int(stood) < stands))
        kept += "" if is_covered or (int(first) == run.first and stored == "0") else mark[0]
    return kept


def after_leaving(marks: str, run: Run) -> str:
    """One that has stored nothing."""
    return "".join(mark[0] for mark in _MARK.finditer(marks) if not (mark[1] == run.name and mark[4] == "0"))
