"""Errors that people meet, each with the exit status its command answers (0 done, 1 failed, 2 refused input, 75 try later)."""

from __future__ import annotations


class SendEngineError(Exception):
    """Base of every error this package raises on purpose. `remedy` says what to do about it, or is empty."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class RefusedInput(SendEngineError):
    """The caller's words or data are off: nothing was changed."""

    exit_code = 2


class ConfigError(RefusedInput):
    """A configuration file or variable is off; the message names the file, line and key."""


class NotFound(RefusedInput):
    """No such account, campaign or tier; the message names the nearest that exists."""


class Conflict(RefusedInput):
    """It exists with another content, or its state forbids this."""


class Unavailable(SendEngineError):
    """Redis (or the disk under it) is away or full: the same call may go through later."""

    exit_code = 75


class Fenced(SendEngineError):
    """A rescuer holds this worker's journal: whatever the worker still holds is not its own any more."""
