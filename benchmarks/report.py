"""One report of the suites: build/bench/report.md with tables and plots, report.json beside it with every measured value."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bench import ROOT, Chart, Figure, Result, commit, machine, record
from benchmarks.plots import svg

FOLDER = ROOT / "build" / "bench"
_SHORT = "Short form: it shows that everything runs and where the figures lie. What is promised is proven by `make bench FULL=1`."
_SO_FAR = "; the others are still to come, or were interrupted"
_WORDS = (
    "*N* recipients, *r* messages a second of the account's rate, *T* seconds from the first MAIL to the last: N/r less one interval. "
    "MAIL is the SMTP command; its time at the sink, the relay of the trial, counts. A *window* is any stretch of so many seconds; the "
    "*floor* is the least that a window may hold, the *ceiling* the most, r (w + max(0.5 s, 1 s - 1/r)) + 1 in w seconds: what is missing "
    "below the one, or above the other, is right while it is not above 0. The *bare writer* writes prepared messages and does nothing else."
)
_HEADS = "Let nothing else run: on a busy machine the speeds and costs are those of the neighbours; ratios within a round hold."


class Ran(msgspec.Struct, frozen=True):
    """A suite that was run: its result, or why there is none."""

    name: str
    result: Result | None
    seconds: float
    why: str = ""

    @property
    def holds(self) -> bool:
        return self.result is not None and all(figure.holds for figure in self.result.figures)


def write(names: Sequence[str], run: Callable[[str], Result], is_full: bool, folder: Path = FOLDER) -> bool:
    """Runs the suites one after the other and writes the report after each, so that an interrupt leaves what there is. True when
    every figure of every suite holds."""
    at, came = datetime.now(UTC), list[Ran]()
    for name in names:
        came.append(_ran(name, run))
        result = came[-1].result
        if result is None:
            print(f"\n{name}: did not finish: {came[-1].why}")
        else:
            record(name, result, quick=not is_full)
        put(came, at, is_full, folder, len(names))
    print(f"\n{folder / 'report.md'}")
    return all(own.holds for own in came)


def _ran(name: str, run: Callable[[str], Result]) -> Ran:
    """A suite that breaks is a line of the report: the others are still worth having."""
    begun = datetime.now(UTC)

    def took() -> float:
        return (datetime.now(UTC) - begun).total_seconds()

    try:
        return Ran(name, run(name), took())
    except Exception as error:
        return Ran(name, None, took(), f"{type(error).__name__}: {error}".strip(": "))


def put(came: Sequence[Ran], at: datetime, is_full: bool, folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "commit": commit(), "at": at, "form": "full" if is_full else "short"}
    about["suites"] = f"{len(came)} of {count}" + (_SO_FAR if len(came) < count else "")
    for own in came:
        for name, chart, title in _charts(own):
            (folder / name).write_text(svg(chart, title))
    (folder / "report.md").write_text(markdown(came, about))
    document = msgspec.json.encode({**about, "suites": [_plain(own) for own in came]})
    (folder / "report.json").write_bytes(msgspec.json.format(document) + b"\n")


def markdown(came: Sequence[Ran], about: dict[str, Any]) -> str:
    lines = ["# What was measured", ""]
    lines += [f"- machine: {about['machine']}", f"- commit: {about['commit']}", f"- begun: {about['at']:%Y-%m-%d %H:%M} UTC"]
    lines += [f"- suites: {about['suites']}", f"- form: {about['form']}", ""]
    lines += [_HEADS if about["form"] == "full" else f"{_SHORT} {_HEADS}", "", _WORDS, "", "## Promises", ""]
    promises = [_promise(own.name, figure) for own in came if own.result for figure in own.result.figures]
    lines += table(["suite", "figure", "wanted", "measured", ""], promises)
    lines += _missed(came)
    for own in came:
        lines += ["", f"## {own.name}", ""]
        if own.result is None:
            lines += [f"Did not finish after {own.seconds:.0f} s: {own.why}"]
            continue
        lines += [f"{own.result.title}. {own.seconds:.0f} s.", "", *table(own.result.columns, own.result.rows), ""]
        lines += [line for note in own.result.notes for line in (note, "")]
        lines += [f"![{title}]({name})" for name, _, title in _charts(own)]
    return "\n".join(lines) + "\n"


def _missed(came: Sequence[Ran]) -> list[str]:
    """What stands in the way of each figure that is missed, as far as the same run has measured it."""
    missed = [(own.name, figure) for own in came if own.result for figure in own.result.figures if not figure.holds]
    if not missed:
        return []
    rows = [[suite, figure.what, figure.wanted, figure.got, figure.floor or "not measured by itself"] for suite, figure in missed]
    return ["", "## Missed, and the floor of each", "", *table(["suite", "figure", "wanted", "measured", "floor, in the same run"], rows)]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; a bar or an angle in a cell stays text."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(html.escape(cell, quote=False).replace("|", "\\|") for cell in cells) + " |"

    return [line(columns), "|" + "|".join(" --- " if not place else " ---: " for place in range(len(columns))) + "|", *map(line, rows)]


def _promise(suite: str, figure: Figure) -> list[str]:
    return [suite, figure.what, figure.wanted, figure.got, figure.verdict]


def _charts(own: Ran) -> list[tuple[str, Chart, str]]:
    """File name, chart and title."""
    if own.result is None:
        return []
    charts = [own.result.chart, *own.result.plots]
    names = [f"{own.name}.svg", *(f"{own.name}-{number}.svg" for number in range(2, len(charts) + 1))]
    return [(name, chart, own.result.title) for name, chart in zip(names, charts, strict=True)]


def _plain(own: Ran) -> dict[str, Any]:
    plain: dict[str, Any] = {"suite": own.name, "seconds": own.seconds, "why": own.why, "holds": own.holds}
    if own.result is not None:
        plain |= msgspec.to_builtins(own.result)
        del plain["chart"], plain["plots"]  # `data` holds what they are made of
    return plain
