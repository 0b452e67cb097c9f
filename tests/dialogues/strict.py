"""A peer of our own that is as strict as RFC 5321 allows, without any socket: it answers by a plan and knows what it took."""

from __future__ import annotations

import msgspec

from sendengine.channel.flight import Features
from sendengine.types import Attempt, Envelope
from tests.dialogues.player import Delivery, unstuffed


class Plan(msgspec.Struct, frozen=True):
    vectors: list[tuple[int, int, int, int]]
    features: Features
    is_lenient: bool  # answers 354 to a DATA without recipients (RFC 2920 3.1 allows it)
    pieces: list[int]  # octets of reply delivered at a time, in turn
    cut_at: int  # octets of replies after which the connection breaks; -1: never
    together: int = 1  # messages that the client may write at once


class StrictPeer:
    """Reads the client's octets, answers by the plan; `verdicts` is what it decided about whole messages, `answered_at`
    how many octets it had said when it had answered each, `mail_answered_at` the same of each MAIL, `refused_at` of each MAIL or
    RCPT that it refused. `arrived` are the messages that came whole, wanted or not."""

    def __init__(self, plan: Plan, deliveries: list[Delivery]) -> None:
        self.verdicts: dict[int, int] = {}
        self.answered_at: dict[int, int] = {}
        self.mail_answered_at: dict[int, int] = {}
        self.refused_at: dict[int, int] = {}
        self.arrived: set[int] = set()
        self._is_refused = False  # the command that is being answered
        self._said = 0
        self._plan = plan
        self._messages = {delivery.number: delivery for delivery in deliveries}
        self._buffer = b""
        self._number = 0
        self._mail = self._rcpt = self._in_data = False

    def hear(self, octets: bytes) -> bytes:
        return b"".join(self.replies_to(octets))

    def replies_to(self, octets: bytes) -> list[bytes]:
        self._buffer += octets
        replies: list[bytes] = []
        while (code := self._step()) is not None:
            replies.append(b"%d-first\r\n%d 2.0.0 second\r\n" % (code, code) if code == 251 else b"%d said\r\n" % code)
            self._said += len(replies[-1])
            for number in self.verdicts:
                self.answered_at.setdefault(number, self._said)
            if self._number:
                self.mail_answered_at.setdefault(self._number, self._said)
            if self._is_refused:
                self.refused_at.setdefault(self._number, self._said)
        return replies

    def _step(self) -> int | None:
        if self._in_data:
            end = 0 if self._buffer.startswith(b".\r\n") else self._buffer.find(b"\r\n.\r\n") + 2
            if end == 1:
                return None
            message, self._buffer = self._buffer[:end], self._buffer[end + 3 :]
            self._in_data = False
            return self._judge(message) if message else self._clear(554)
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return None
        if line.startswith(b"BDAT "):
            size = int(line.split()[1])
            if len(rest) < size:
                return None
            self._buffer = rest[size:]
            self.arrived.add(self._number)
            self._is_refused = False
            if self._rcpt:
                return self._judge(rest[:size], is_chunk=True)
            return 503 if self._plan.is_lenient else 554
        self._buffer = rest
        return self._command(line)

    def _command(self, line: bytes) -> int:
        code = self._code(line)
        self._is_refused = line[:4] in (b"MAIL", b"RCPT") and code >= 400
        return code

    def _code(self, line: bytes) -> int:
        verb = line[:4]
        if verb == b"MAIL":
            assert not self._mail, "nested MAIL"
        if verb == b"RSET":
            return self._clear(250)
        if verb == b"QUIT":
            return 221
        if verb == b"NOOP":
            return 250
        if verb == b"MAIL":
            self._number += 1
            self._rcpt = False
            code = self._plan.vectors[self._number - 1][0]
            self._mail = code == 250
            return code
        if not self._mail:
            return 503
        if verb == b"RCPT":
            assert line == b"RCPT TO:<r%d@example.net>" % self._number
            code = self._plan.vectors[self._number - 1][1]
            self._rcpt = code < 300
            return code
        assert line == b"DATA"
        code = self._plan.vectors[self._number - 1][2] if self._rcpt else 354 if self._plan.is_lenient else 554
        self._in_data = code == 354
        return code

    def _judge(self, message: bytes, is_chunk: bool = False) -> int:
        wire = self._messages[self._number].wire
        assert message == (unstuffed(wire) if is_chunk else wire)
        self.verdicts[self._number] = self._plan.vectors[self._number - 1][3]
        return self._clear(self.verdicts[self._number])

    def _clear(self, code: int) -> int:
        self._mail = self._rcpt = False
        return code


class Feed:
    def __init__(self, deliveries: list[Delivery]) -> None:
        self.waiting = list(deliveries)
        self.attempts: list[tuple[int, Attempt]] = []

    def next(self, in_company: bool = False) -> Envelope | None:
        is_kept = not self.waiting or (in_company and self.waiting[0].is_alone)
        return None if is_kept else self.waiting.pop(0)

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        assert isinstance(delivery, Delivery)
        self.attempts.append((delivery.number, attempt))


def deliveries_for(plan: Plan) -> list[Delivery]:
    wires = [b"A: 1\r\n\r\nhi\r\n", b"..\r\n", b"A: 2\r\n\r\n..x\r\n" + b"y" * 40000 + b"\r\n", b"A: 3\r\n\r\n...\r\n"]
    return [
        Delivery(number, b"", b"r%d@example.net" % number, wires[number % len(wires)], number % 3 == 0)
        for number in range(1, len(plan.vectors) + 1)
    ]
