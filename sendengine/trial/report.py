"""What a demonstration proves, as tables and as identities that either hold or do not. Pure: runs in, tables out."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console, Group
from rich.table import Table

from sendengine.intake import Rejected
from sendengine.scheduler.status import Send, Status
from sendengine.trial.mails import Mail, duration, rate_error

_IN_FORCE = 1.0  # seconds that a change of rate may take
_WIDTH = 84


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One send with all that is known of it: what the client said, and what the relay saw."""

    send: Send  # as submit answered
    final: Status
    promised: datetime | None  # when it would be through: the estimate at submit, or right after its account's rate was raised
    raised: tuple[float, float] | None = None  # when (UNIX seconds), and to how many messages per hour
    rejected: Sequence[Rejected]
    sent: Sequence[str]  # Message-IDs of the outcomes that say so
    mails: Sequence[Mail]  # the relay's, by MAIL time

    @property
    def times(self) -> list[float]:
        return [mail.at for mail in self.mails]


class Check(msgspec.Struct, frozen=True):
    """One identity: both sides of it for every send."""

    what: str
    sides: Sequence[tuple[int, int]]

    @property
    def holds(self) -> bool:
        return all(left == right for left, right in self.sides)


def checks(runs: Sequence[Run], strangers: int) -> list[Check]:
    """`strangers`: messages of the relay's ledger that belong to no run."""
    ends = [run.final for run in runs]
    return [
        Check("rows = accepted + rejected + twice", [(end.rows, end.accepted + end.rejected + end.duplicates) for end in ends]),
        Check("accepted = sum of outcomes", [(end.accepted, _ended(end)) for end in ends]),
        Check("sent = lines of the relay's ledger", [(run.final.sent, len(run.mails)) for run in runs]),
        Check("sent = Message-IDs on both sides", [(run.final.sent, _seen_on_both_sides(run)) for run in runs]),
        Check("rejected = given back with a reason", [(run.final.rejected, len(run.rejected)) for run in runs]),
        Check("of nobody at the relay = 0", [(strangers, 0)]),
    ]


def _ended(send: Status) -> int:
    return send.sent + send.bounced + send.expired + send.suppressed + send.cancelled + send.unknown


def _seen_on_both_sides(run: Run) -> int:
    return (Counter(mail.message_id for mail in run.mails) & Counter(run.sent)).total()


def report(runs: Sequence[Run], checked: Sequence[Check]) -> Group:
    return Group(_speed(runs), _doubling(runs), _counts(runs), _rejects(runs[0]), _identities(checked))


def save_picture(picture: Group, path: Path) -> None:
    """An SVG that needs nothing from elsewhere: the reader's own fixed-width font will do."""
    console = Console(record=True, file=io.StringIO(), width=_WIDTH, force_terminal=True)
    console.print(picture)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="make run"), flags=re.DOTALL)
    path.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")


def _speed(runs: Sequence[Run]) -> Table:
    table = _table("Speed, as the relay saw it", "send", "N", "contracted", "achieved", "N/r, s", "T, s", "late, s")
    table.caption = (
        "N: messages that the relay took. contracted: r, messages an hour. achieved: the rate that the relay saw, over r. "
        "N/r: what N messages take at that rate. T: from the first MAIL to the last. late: its end, after the time that was "
        "foretold when it was submitted, or when its tier was raised.\n"
    )
    for run in runs:
        (rate, times), *later = _parts(run)
        table.add_row(run.final.campaign, f"{len(run.mails):,}", f"{rate:,.0f}", _ratio(times, rate), *_times(run, rate))
        for rate, times in later:
            table.add_row("  after the raise", "", f"{rate:,.0f}", _ratio(times, rate))
    return table


def _times(run: Run, rate: float) -> tuple[str, str, str]:
    """What the rate promises, what it took, and how much later than estimated it was through."""
    promised = "" if run.raised else f"{len(run.mails) * 3600 / rate:.2f}"
    return promised, f"{duration(run.times):.2f}" if run.mails else "-", _lateness(run)


def _parts(run: Run) -> list[tuple[float, list[float]]]:
    """The MAIL times under each rate, without the second in which the rate was changing."""
    contracted = run.send.rate_contracted or 0.0
    if run.raised is None:
        return [(contracted, run.times)]
    at, rate = run.raised
    return [(contracted, [t for t in run.times if t < at]), (rate, [t for t in run.times if t > at + _IN_FORCE])]


def _ratio(times: Sequence[float], per_hour: float) -> str:
    return f"{1 + rate_error(times, per_hour / 3600):.4f}" if len(times) > 1 else "-"


def _lateness(run: Run) -> str:
    if run.promised is None or run.final.through_at is None:
        return "-"
    return f"{(run.final.through_at - run.promised).total_seconds():+.2f}"


def _doubling(runs: Sequence[Run]) -> Table:
    """Of each account, its two sends, when both ran at one rate throughout."""
    table = _table("Twice the list, twice the time", "account", "N", "T(N), s", "2N", "T(2N), s", "T(2N)/T(N)")
    for account in dict.fromkeys(run.final.account for run in runs):
        own = [run for run in runs if run.final.account == account]
        if len(own) == 2 and all(run.raised is None and len(run.mails) > 1 for run in own):
            short, long = own
            ratio = duration(long.times) / duration(short.times)
            table.add_row(
                account, f"{len(short.mails):,}", f"{duration(short.times):.2f}",
                f"{len(long.mails):,}", f"{duration(long.times):.2f}", f"{ratio:.3f}",
            )  # fmt: skip
    return table


def _counts(runs: Sequence[Run]) -> Table:
    table = _table("Every row is somewhere", "send", "rows", "rejected", "twice", "accepted", "sent", "else", "relay")
    table.caption = "twice: the same recipient again. else: other outcomes than sent. relay: lines of its ledger.\n"
    for run in runs:
        end = run.final
        numbers = (end.rows, end.rejected, end.duplicates, end.accepted, end.sent, _ended(end) - end.sent, len(run.mails))
        table.add_row(end.campaign, *(f"{number:,}" for number in numbers))
    return table


def _rejects(run: Run) -> Table:
    table = _table(f"Rejected rows of {run.final.campaign}", "reason", "lines of the file")
    for reason in dict.fromkeys(row.reason for row in run.rejected):
        table.add_row(reason, ", ".join(str(row.line) for row in run.rejected if row.reason == reason))
    return table


def _identities(checked: Sequence[Check]) -> Table:
    table = _table("Identities, for each send in this order", "", *[""] * max(len(check.sides) for check in checked), "")
    for check in checked:
        cells = [f"{left:,}" if left == right else f"{left:,} ≠ {right:,}" for left, right in check.sides]
        blanks = [""] * (len(table.columns) - 2 - len(cells))
        table.add_row(check.what, *cells, *blanks, "[green]holds[/]" if check.holds else "[bold red]BROKEN[/]")
    return table


def _table(title: str, *columns: str) -> Table:
    """The first column holds words, the others figures."""
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table
