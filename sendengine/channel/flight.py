"""The parts of an SMTP session: what its peer offers, what it waits for, and a delivery under way."""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from sendengine.types import Envelope, Stage


class State(Enum):
    OPEN = auto()
    RETIRING = auto()  # pulls no more; says QUIT when the last reply is in
    QUITTING = auto()  # QUIT is written
    ENDED = auto()  # every delivery is reported; the connection is of no use


class Command(Enum):
    """What is written and unanswered."""

    MAIL = Stage.MAIL
    RCPT = Stage.RCPT
    DATA = Stage.DATA
    DOT = Stage.DOT
    QUIT = Stage.QUIT
    RSET = "RSET"
    VOID = "."  # the end of an empty message, for a DATA accepted without a recipient


class Features(msgspec.Struct, frozen=True):
    """What the peer's EHLO offers, as far as we use it."""

    pipelining: bool = False
    chunking: bool = False
    eightbit: bool = False
    size: bool = False


class Flight(msgspec.Struct, gc=False):
    """A delivery under way; owned by its session. Without a delivery it is a ghost: refused and reported, with commands
    still unanswered."""

    delivery: Envelope | None
    mail_at: float
    is_first: bool  # of its session
    stage: Stage  # what it waits for: MAIL, RCPT, DATA, then BODY: its message may be written


def unstuffed(wire: bytes) -> bytes:
    """The message as it is: BDAT counts octets and needs no dots doubled (RFC 3030 2)."""
    if wire[:1] == b".":
        wire = wire[1:]
    return wire.replace(b"\r\n.", b"\r\n") if b"\r\n." in wire else wire
