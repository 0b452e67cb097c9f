"""Errors that people meet, each with the exit status its command answers (0 done, 1 failed, 2 refused input, 75 try later)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sendengine.remedies import Remedy, said


class SendEngineError(Exception):
    """Base of every error this package raises on purpose. `remedy` says what to do about it at the command line, or is empty; `way` says it
    in the words of HTTP, too (remedies.py)."""

    exit_code = 1

    def __init__(self, message: str, remedy: str | Remedy = "") -> None:
        super().__init__(message)
        self.way = said(remedy)

    @property
    def remedy(self) -> str:
        return self.way.cli


class RefusedInput(SendEngineError):
    """The caller's words or data are off: nothing was changed. `field` names which of them, where that is known."""

    exit_code = 2
    field = ""


@contextmanager
def about(field: str) -> Iterator[None]:
    """What is refused inside is refused for this field of the caller's."""
    try:
        yield
    except RefusedInput as error:
        error.field = error.field or field
        raise


class ConfigError(RefusedInput):
    """A configuration file or variable is off; the message names the file, line and key."""


class NotFound(RefusedInput):
    """No such account, campaign or tier; the message names the nearest that exists."""


class NoAccount(NotFound):
    """There is none of this name; or it has no such lane, or is gone."""

    field = "account"


class UnknownName(NotFound):
    """A value that the caller gave (a tier, a reason, a provider) is the name of none."""


class Conflict(RefusedInput):
    """It exists with another content, or its state forbids this."""


class LacksCredit(RefusedInput):
    """What is left of a list costs more than is free: nothing of it goes. What its rows before cost stays reserved; once the rest is bought
    the same call goes on there. `send` is its full name, or "" where nothing was made: a single message. Amounts are credits."""

    send = ""

    def __init__(self, message: str, remedy: Remedy, send: str, needed: float, free: float) -> None:
        super().__init__(message, remedy)
        self.send, self.needed, self.free, self.short = send, needed, free, needed - free


class Unavailable(SendEngineError):
    """Redis (or the disk under it) is away or full: the same call may go through later."""

    exit_code = 75


class Fenced(SendEngineError):
    """A rescuer holds this worker's journal: whatever the worker still holds is not its own any more."""
