"""What all verbs share: opening a client, printing JSON or tables, and the annotations of common flags."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.errors import SendEngineError

T = TypeVar("T")

_NAME_MOST = 256
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output: one object, or one a line for lists.")]
Campaign = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="m1234:ID, or the ID where that is unambiguous.")]
AccountFlag = Annotated[str, typer.Option("--account", metavar="m1234", help="The account.")]


def group(help: str) -> typer.Typer:  # noqa: A002
    return typer.Typer(
        help=help, no_args_is_help=True, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip


def call(work: Callable[[Client], Awaitable[T]]) -> T:
    """Run something with an open client."""
    import asyncio

    from sendengine.client import Client

    async def run() -> T:
        async with Client() as client:
            return await work(client)

    return asyncio.run(run())


def user() -> str:
    """Who sits at this machine, "" where it does not say."""
    from sendengine.scheduler import audit

    return audit.user()


async def emit_all(items: AsyncIterator[Any], at_once: bool = False) -> int:
    """NDJSON; the number of lines."""
    lines = 0
    async for item in items:
        emit(item)
        lines += 1
        if at_once:
            sys.stdout.flush()
    return lines


def emit(value: object) -> None:
    """One line of JSON."""
    import msgspec
    import orjson

    sys.stdout.buffer.write(orjson.dumps(msgspec.to_builtins(value)) + b"\n")


def error_said(error: SendEngineError) -> str:
    return f"error: {error}" + (f" ({error.remedy})" if error.remedy else "")


def note(text: str) -> None:
    """For people, beside the output."""
    print(text, file=sys.stderr)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    _print(table(title, columns, rows))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Figures stand to the right."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left")
    cells = [list(row) for row in rows]
    for at, name in enumerate(columns):
        is_figure = all(isinstance(row[at], int | float) for row in cells) and bool(cells)
        made.add_column(name, justify="right" if is_figure else "left")
    for row in cells:
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made


def show_facts(title: str, facts: Iterable[tuple[str, object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", show_header=False)
    for name, value in facts:
        if value is not None:
            made.add_row(name, Text(shown(value)))
    _print(made)


def _print(made: Any) -> None:
    """Into a file or a pipe nothing is cut to the width of a screen."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(made)


def shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}"
    return str(value)


def duration(seconds: float) -> str:
    """1d 4h, 2h 30m, 12m 5s, 3.2s."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    for unit, size, part, small in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            whole, rest = divmod(round(seconds / small) * small, size)
            return f"{whole:.0f}{unit} {rest // small:.0f}{part}"
    raise AssertionError(seconds)


def text_of(path: Path, remedy: str = "") -> bytes:
    from sendengine.errors import RefusedInput

    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a text that was taken for a name may hold what no name can
        raise RefusedInput(f"cannot read {str(path)[:80]}: {getattr(error, 'strerror', None) or error}", remedy) from error


def decoded(path: Path, remedy: str = "") -> str:
    from sendengine.errors import RefusedInput

    try:
        return text_of(path, remedy).decode()
    except UnicodeDecodeError as error:
        raise RefusedInput(f"{path} is not UTF-8: {error}") from None


def sms_text(given: str) -> str:
    """The text itself, or what is in a file @FILE. Raises RefusedInput for the bare name of a file: nobody wants to send that."""
    from sendengine.errors import RefusedInput

    if given.startswith("@"):
        return decoded(Path(given[1:]), "--text is the text of the SMS; @FILE reads it from a file").removesuffix("\n")
    if len(given) < _NAME_MOST and given.isprintable() and Path(given).is_file():
        raise RefusedInput(f"--text {given} would send the name of a file", f"--text @{given} sends what is in it")
    return given
