"""`submit`, `send`, `estimate`, `resend`: what brings recipients in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from sendengine.commands import common, views
from sendengine.commands.common import AccountFlag, Json

if TYPE_CHECKING:
    from sendengine.client import Client
    from sendengine.intake import Rejected
    from sendengine.render.message import Message
    from sendengine.scheduler.planning import Estimate
    from sendengine.scheduler.single import Single
    from sendengine.scheduler.status import Send
    from sendengine.scheduler.submitting import OnReject

SHOWN_REJECTS = 5
DIGITS_MOST = 12

From = Annotated[str, typer.Option("--from", metavar="ADDRESS", help="From, and the envelope's sender; an .eml keeps its own From.")]
MessageFile = Annotated[
    Path | None, typer.Option("--message", metavar="M.eml", help="The whole message; else --subject with --html or --text.")
]


def submit(
    account: AccountFlag,
    recipients: Annotated[str, typer.Option(metavar="FILE|-", help="CSV with a column email, or NDJSON; the others are merge fields.")],
    sender: From = "",
    message: MessageFile = None,
    subject: Annotated[str, typer.Option()] = "",
    html: Annotated[Path | None, typer.Option()] = None,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="A file with the plain text.")] = None,
    campaign: Annotated[str, typer.Option(metavar="ID", help="Its id: the same call with the same id changes nothing.")] = "",
    at: Annotated[str, typer.Option(metavar="TIME", help="When it starts: 2026-05-01T08:00:00Z, '2026-05-01 08:00', +2h30m.")] = "",
    sequential: Annotated[bool, typer.Option("--sequential", help="It waits for its turn among the sequential ones.")] = False,
    priority: Annotated[str, typer.Option(metavar="FIELD", help="A field with an integer 0-9; 9 goes first.")] = "",
    window: Annotated[str, typer.Option(metavar="'Mon-Fri 09:00-17:00 Europe/Prague'", help="It sends inside these hours only.")] = "",
    on_doubt: Annotated[str, typer.Option(metavar="resend|hold", help="What becomes of a message whose fate is unknown.")] = "resend",
    retry: Annotated[
        str, typer.Option(metavar="'1m, 5m*2, 1h'", help="When who could not be reached is tried again; the last step repeats.")
    ] = "",
    lifetime: Annotated[str, typer.Option(metavar="12h", help="How long, from a message's first try; then it has expired.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="One bad row refuses the whole list.")] = False,
    rejects: Annotated[Path | None, typer.Option(metavar="FILE", help="Refused rows, as NDJSON.")] = None,
    json: Json = False,
) -> None:
    """Accept a send; prints its id, counts and estimate."""
    content = _message(sender, message, subject, html, text)
    with ExitStack() as stack:
        made = submitted(
            stack, rejects,
            lambda client, refused: client.submit(
                account=account, message=content, recipients=Path(recipients), campaign=campaign or None, at=at or None,
                sequential=sequential, priority=priority or None, window=window or None, on_doubt=on_doubt, strict=strict,
                retry=retry or None, lifetime=lifetime or None, sender=_address(sender), on_reject=refused, on_absent=note_absent,
                who=common.user(),
            ),
        )  # fmt: skip
    show(made, at, json)


def submitted(stack: ExitStack, rejects: Path | None, ask: Callable[[Client, OnReject], Awaitable[Send]]) -> Send:
    """What a submit made, with what it refused told; `stack` closes the file of the refused rows."""
    from sendengine.errors import RefusedInput, Unavailable

    refused = Rejects(opened(stack, rejects), rejects)
    try:
        made = common.call(lambda client: ask(client, refused))
    except Unavailable:  # the repeat will find the send standing
        refused.show()
        raise
    except RefusedInput:
        refused.name_file()
        raise
    refused.tell(made)
    return made


def show(made: Send, at: str, json: bool) -> None:
    if made.created and _is_past(at):
        common.note(f"--at {at} is past: that means now")
    _show(made, json)


def send(
    account: AccountFlag,
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS")],
    sender: From = "",
    message: MessageFile = None,
    subject: Annotated[str, typer.Option()] = "",
    html: Annotated[Path | None, typer.Option()] = None,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="A file with the plain text.")] = None,
    key: Annotated[str, typer.Option(metavar="TEXT", help="The same key again is the same message: to repeat a call safely.")] = "",
    field: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="The value of a merge field; repeatable.")] = None,
    json: Json = False,
) -> None:
    """One transactional message, ahead of bulk."""
    content, values, who = _message(sender, message, subject, html, text), values_of(field or []), _address(sender)
    made = common.call(lambda client: client.send(account=account, message=content, to=to, sender=who, fields=values, key=key or None))
    show_single(made, json)


def show_single(made: Single, json: bool) -> None:
    if json:
        common.emit(made)
    else:
        common.show_facts(made.campaign, [("to", made.recipient), ("message id", made.message_id or None), ("index", made.index)])


def resend(
    campaign: common.Campaign,
    missing: Annotated[bool, typer.Option("--missing", help="Those without the outcome sent.")] = False,
    json: Json = False,
) -> None:
    """A new send to those whom an ended one did not reach."""
    from sendengine.errors import RefusedInput

    if not missing:
        raise RefusedInput("resend to whom?", "--missing: to those without the outcome sent")
    _show(common.call(lambda client: client.resend(campaign, who=common.user())), json)


def estimate(
    account: AccountFlag,
    recipients: Annotated[str, typer.Option(metavar="FILE|N", help="A list, or how many.")],
    at: Annotated[str, typer.Option(metavar="TIME", help="When it would start.")] = "",
    finish_by: Annotated[str, typer.Option(metavar="TIME", help="Which tier would make it?")] = "",
    json: Json = False,
) -> None:
    """When a send would be through, and which tier would make a deadline."""

    async def ask(client: Client) -> Estimate:
        count = int(recipients) if _is_count(recipients) else await client.count(Path(recipients))
        return await client.estimate(account, count, at=at or None, finish_by=finish_by or None)

    found = common.call(ask)
    if json:
        common.emit(found)
        return
    facts: list[tuple[str, object]] = [
        ("recipients", found.recipients),
        ("will be through", found.finish_estimate or "at the rate that its relay allows"),
        ("beyond the end of the term", "yes: the rest is held until that is renewed" if found.passes_term else None),
        ("that takes", None if found.seconds is None else common.duration(found.seconds)),
    ]
    if found.finish_by is not None:
        facts += [("finish by", found.finish_by), ("this tier makes it", _known(found.makes_it))]
        facts.append(("slowest tier that does", found.tier or "none"))
    common.show_facts(found.account, facts)
    columns = ("tier", "through", "makes it") if finish_by else ("tier", "through")
    rows = [(row.tier, row.finish_estimate, _known(row.makes_it)) for row in found.tiers]
    common.show_table("", columns, [row[: len(columns)] for row in rows])


def _known(makes_it: bool | None) -> object:
    return "unknown" if makes_it is None else makes_it


def _is_count(text: str) -> bool:
    """A number of people, not a file's name."""
    from sendengine.errors import RefusedInput

    if not (text.isascii() and text.isdecimal()):
        return False
    if len(text) > DIGITS_MOST:
        raise RefusedInput(f"--recipients: {text[:DIGITS_MOST]}… is more than there are people")
    return True


def _message(sender: str, eml: Path | None, subject: str, html: Path | None, text: Path | None) -> Message:
    from sendengine.scheduler.messages import message_of

    whole = None if eml is None else common.text_of(eml)
    return message_of(sender, whole, subject, _part("html", html), _part("text", text))


def _is_past(at: str) -> bool:
    import time

    from sendengine.policy.times import parse_time

    now = time.time()
    return bool(at) and parse_time(at, now) < now


def values_of(fields: Sequence[str]) -> dict[str, str]:
    from sendengine.errors import RefusedInput

    for each in fields:
        if not each.partition("=")[0] or "=" not in each:
            raise RefusedInput(f"--field {each}: no value is named", "write --field NAME=VALUE")
    return {name: value for name, _, value in (each.partition("=") for each in fields)}


def _part(flag: str, path: Path | None) -> str | None:
    return None if path is None else common.decoded(path, f"--{flag} names a file: write the {flag} into one, and name that")


def _address(sender: str) -> str:
    from sendengine.scheduler.messages import address_in

    return address_in(sender)


class Rejects:
    """Refused rows: every one goes to the file, and people are told of them when it is known what became of the send."""

    def __init__(self, stream: IO[bytes] | None, path: Path | None) -> None:
        self._stream, self._path = stream, path
        self._some: list[Rejected] = []
        self._count = 0

    def __call__(self, rows: Sequence[Rejected]) -> None:
        import msgspec
        import orjson

        self._count += len(rows)
        self._some += rows[: SHOWN_REJECTS - len(self._some)]
        if self._stream is not None:
            self._stream.writelines(orjson.dumps(msgspec.to_builtins(row)) + b"\n" for row in rows)

    def tell(self, made: Send) -> None:
        if not made.created and not made.added:
            common.note(f"{made.id} stands already" + (f", its {self._rows} refused as before" if self._count else ""))
            return
        if self._path is None:
            self.show()
        self.name_file()

    def name_file(self) -> None:
        if self._path is not None and self._count:
            common.note(f"{self._rows} refused, see {self._path}")

    def show(self) -> None:
        for row in self._some:
            common.note(f"rejected: line {row.line}: {row.reason}")
        if self._path is None and self._count > len(self._some):
            common.note(f"and {self._count - len(self._some):,} more; --rejects FILE keeps them all")

    @property
    def _rows(self) -> str:
        return f"{self._count:,} row{'s' * (self._count != 1)}"


def opened(stack: ExitStack, path: Path | None) -> IO[bytes] | None:
    from sendengine.errors import RefusedInput

    try:
        return stack.enter_context(path.open("wb")) if path else None
    except OSError as error:
        raise RefusedInput(f"cannot write {path}: {error.strerror}") from error


def note_absent(field: str, nearest: str) -> None:
    near = f" (the nearest is {nearest!r})" if nearest else ""
    common.note(f"warning: no column {field!r}{near}: everybody gets the default of that field")


def _show(made: Send, json: bool) -> None:
    if made.passes_term:
        renewing = f"sendengine account term {made.account} --renew TIME"
        common.note(f"warning: {made.id} will not be through before the term of {made.account} ends; the rest is held then ({renewing})")
    if json:
        common.emit(made)
        return
    common.show_facts(_title(made), views.facts(made))


def _title(made: Send) -> str:
    if made.created:
        return made.id
    if made.added:
        return f"{made.id} stood already, and went on: {made.added:,} row{'s were' if made.added > 1 else ' was'} added"
    return f"{made.id} stands already; no row was added"
