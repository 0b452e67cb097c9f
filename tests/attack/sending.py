"""From a message and values to octets, and octets through the engine's own session to a receiver."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sendengine.channel.flight import Features, State
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.errors import RefusedInput
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message
from sendengine.render.values import RenderFailure
from sendengine.types import Attempt, Envelope
from tests.attack.wire import Receiver

DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"
TO = "jan@example.com"
PLAIN = {"sender": "News <news@example.org>", "subject": "s", "text": "t\n"}


class Mail(msgspec.Struct, frozen=True):
    """Satisfies types.Envelope."""

    wire: bytes
    sender: bytes = b"news@example.org"
    recipient: bytes = TO.encode()
    eightbit: bool = False
    is_alone: bool = False


def render(message: Message, row: dict[str, object], to: str = TO, eightbit: bool = True) -> bytes:
    """The wire form; a row that cannot be rendered raises RefusedInput, as a message does that cannot be compiled."""
    renderer = compile_message(message, "m1.c").renderer(eightbit)
    (values,) = renderer.prepare(list(row), [[value] for value in row.values()], [to])
    if isinstance(values, RenderFailure):
        raise RefusedInput(values.reason)
    return renderer.wire(values, 7, DATE)


def made(**parts: object) -> Message:
    return Message(**(PLAIN | parts))  # type: ignore[arg-type]


class _Feed:
    def __init__(self, mails: Sequence[Envelope]) -> None:
        self.waiting = list(mails)
        self.attempts: list[Attempt] = []

    def next(self, in_company: bool = False) -> Envelope | None:
        return self.waiting.pop(0) if self.waiting else None

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        self.attempts.append(attempt)


def deliver(mails: Sequence[Envelope], receiver: Receiver, chunking: bool = False) -> list[Attempt]:
    """Everything on one session, pipelined; ends when nobody has anything to say."""
    feed = _Feed(mails)
    session = Session(feed, Features(pipelining=True, chunking=chunking, eightbit=True, size=True), StageTimeouts())
    for _ in range(4 * len(mails) + 8):
        octets = session.next_write(0.0)
        answers = receiver.hear(octets)
        if answers:
            session.receive(answers, 0.0)
        elif not octets or session.state is State.ENDED:
            break
    return feed.attempts
