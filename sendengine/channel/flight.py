"""The parts of an SMTP session: what its peer offers, what it waits for, and a delivery under way."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from itertools import zip_longest

import msgspec

from sendengine.types import Envelope, Reply, Stage


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
    end: int = 0  # in a train: how many octets of trains are written when this one is


# Globals, as in session.py: looked up for every reply.
_MAIL, _RCPT, _DATA, _DOT, _QUIT = Command.MAIL, Command.RCPT, Command.DATA, Command.DOT, Command.QUIT


def misfit(due: Sequence[Command], replies: Sequence[Reply], is_refused: bool = False) -> Reply | None:
    """The first of these replies, all of one read, that cannot answer the command whose turn it is.

    Then one was left out, said twice or out of order; nobody knows which, so none of them may be believed.
    A 421 may come unasked (RFC 5321 3.8) and ends the count. `is_refused`: the message that they begin with was, by an
    earlier read.
    """
    for command, reply in zip_longest(due[: len(replies)], replies):
        kind = reply.code // 100
        if reply.code == 421:
            return None
        if command is None or (kind == 2 and command is _DATA):
            return reply
        if kind == 3 and command not in (_DATA, _QUIT):
            return reply
        if command is _MAIL:
            is_refused = kind != 2
        elif command is _RCPT or command is _DOT:
            if kind == 2 and is_refused:
                return reply
            is_refused = command is _RCPT and kind != 2
    return None


def unstuffed(wire: bytes) -> bytes:
    """The message as it is: BDAT counts octets and needs no dots doubled (RFC 3030 2)."""
    if wire[:1] == b".":
        wire = wire[1:]
    return wire.replace(b"\r\n.", b"\r\n") if b"\r\n." in wire else wire
