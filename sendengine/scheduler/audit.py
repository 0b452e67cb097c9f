"""The audit trail of an account: who did what, when and why. Lines are only ever added, with the change that they tell of; the trail
outlives the account."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import msgspec

from sendengine.errors import Unavailable
from sendengine.ports import AuditLine, Desk
from sendengine.scheduler.view import wall

READ_AT_ONCE = 500


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """As the trail keeps it; what is said beside it is in `facts`."""

    what: str
    who: str = ""
    why: str = ""
    facts: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    account: str
    at: datetime
    who: str
    what: str
    why: str
    facts: dict[str, str]


def user() -> str:
    """Who sits at this machine, "" where it does not say."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def line(what: str, who: str, why: str = "", **facts: str) -> bytes:
    """`who` "" is the user of this machine."""
    return msgspec.json.encode(Line(what, who or user(), why, {name: value for name, value in facts.items() if value}))


@asynccontextmanager
async def told(desk: Desk, account: str, done: Callable[[], bytes]) -> AsyncIterator[None]:
    """A change made in parts leaves its line however it ends, by an error or a cancellation too. `done`: the line of what was changed by
    then, b"" where nothing was."""
    try:
        yield
    except BaseException:
        with suppress(Unavailable):  # the caller hears what broke it off
            await _note(desk, account, done())
        raise
    await _note(desk, account, done())


async def _note(desk: Desk, account: str, said: bytes) -> None:
    if said:
        await desk.note(account, said)


async def read(desk: Desk, account: str) -> AsyncIterator[Entry]:
    """The oldest first; what is noted while they are read, maybe."""
    after = ""
    while lines := await desk.audit(account, after, READ_AT_ONCE):
        for each in lines:
            yield _entry(account, each)
        after = lines[-1].entry


def _entry(account: str, kept: AuditLine) -> Entry:
    """A line of a later release, or a damaged one, hides no other."""
    try:
        said = msgspec.json.decode(kept.line, type=Line)
    except msgspec.MsgspecError:
        said = Line("unreadable", facts={"line": kept.line.decode(errors="replace")})
    return Entry(account, wall(kept.at_ms / 1000), said.who, said.what, said.why, said.facts)
