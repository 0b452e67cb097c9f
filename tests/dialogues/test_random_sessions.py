"""Sessions at random: peers that refuse at random, octets that lie in the transport, writes that are taken back, cuts at any octet.

An honest peer is never found out of turn, each delivery is reported once, and our verdict is the peer's or none.
"""

from __future__ import annotations

import random

from sendengine.channel.flight import Features, State
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.types import Envelope, Fault, Stage
from tests.dialogues.player import Delivery
from tests.dialogues.strict import Feed

SEED = 20_240_611
RUNS = 1_000
END = b"\r\n.\r\n"


class Pulls(Feed):
    """Remembers what was pulled."""

    def __init__(self) -> None:
        super().__init__([])
        self.pulled: list[int] = []

    def next(self, in_company: bool = False) -> Envelope | None:
        delivery = super().next(in_company)
        if delivery is not None:
            assert isinstance(delivery, Delivery)
            self.pulled.append(delivery.number)
        return delivery


class Peer:
    """Knows a message by its recipient, since those that were taken back come never or in another order. `verdicts` are of whole ones."""

    def __init__(self, dice: random.Random) -> None:
        self.verdicts: dict[int, int] = {}
        self._dice = dice
        self._buffer = b""
        self._has_mail = self._is_in_data = False
        self._recipient = 0  # 0: none

    def hear(self, octets: bytes) -> bytes:
        self._buffer += octets
        replies = []
        while (code := self._message() if self._is_in_data else self._command()) is not None:
            replies.append(b"%d said\r\n" % code)
        return b"".join(replies)

    def _message(self) -> int | None:
        if self._buffer.startswith(END[2:]):
            message, self._buffer = b"", self._buffer[3:]
        else:
            message, end, rest = self._buffer.partition(END)
            if not end:
                return None
            self._buffer = rest
        self._is_in_data = False
        return self._judge(message)

    def _command(self) -> int | None:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return None
        verb = line[:4]
        if verb == b"BDAT":
            size = int(line.split()[1])
            if len(rest) < size:
                return None
            self._buffer = rest[size:]
            return self._judge(rest[:size])
        self._buffer = rest
        return {b"MAIL": self._mail, b"RCPT": self._rcpt, b"DATA": self._data, b"RSET": self._reset, b"QUIT": lambda _: 221}[verb](line)

    def _mail(self, line: bytes) -> int:
        assert not self._has_mail, "nested MAIL"
        code = self._code(0.1, 451, 552)
        self._has_mail = code == 250
        return code

    def _rcpt(self, line: bytes) -> int:
        if not self._has_mail:
            return 503
        code = self._code(0.15, 450, 550)
        self._recipient = int(line.partition(b"<r")[2].partition(b"@")[0]) if code == 250 else 0
        return code

    def _data(self, line: bytes) -> int:
        self._is_in_data = bool(self._recipient) or (self._has_mail and self._dice.random() < 0.3)
        return 354 if self._is_in_data else 503

    def _reset(self, line: bytes) -> int:
        self._has_mail, self._recipient = False, 0
        return 250

    def _judge(self, message: bytes) -> int:
        number = self._recipient
        self._reset(b"")
        if not number:
            return self._dice.choice((451, 503, 554))
        assert number not in self.verdicts, "sent twice"
        assert message.startswith(b"N: %d\r\n" % number)
        self.verdicts[number] = self._code(0.15, 452, 550)
        return self.verdicts[number]

    def _code(self, chance: float, *refusals: int) -> int:
        return self._dice.choice(refusals) if self._dice.random() < chance else 250


class Talk:
    """A session, its peer, and the octets between them: written and not gone, said and not read."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.feed = Pulls()
        self.peer = Peer(dice)
        self.most = dice.choice((1, 2, 3, 5))
        features = Features(pipelining=dice.random() < 0.85, chunking=dice.random() < 0.8, size=dice.random() < 0.5)
        self.session = Session(self.feed, features, StageTimeouts(), max_messages=dice.choice((0, 0, 7, 3)), together=self.most)
        self.is_cut = False
        self._now = 1.0
        self._number = 0
        self._written = self._said = b""

    def go(self) -> None:
        for _ in range(self.dice.randrange(10, 120)):
            self._now += self.dice.choice((0.0, 0.0, 0.001, 1.0))
            for _ in range(self.dice.choice((0, 0, 1, 3, 8))):
                self.feed.waiting.append(self._delivery())
            self._write()
            self._leave(self.dice.choice((0, self._some(len(self._written)), self._first_message())))
            if self.dice.random() < 0.8:
                self._read(self._some(len(self._said)))
            assert len(self.feed.pulled) - len(self.feed.attempts) <= 2 * self.most
            if self.session.state is State.ENDED:
                return
        self.dice.choice((self._abort, self._lose, self._drain))()

    def _delivery(self) -> Delivery:
        self._number += 1
        wire = b"N: %d\r\n\r\n" % self._number
        if self.dice.random() < 0.3:
            wire += b"..y\r\n"
        if self.dice.random() < 0.15:
            wire += b"z" * 33_000 + b"\r\n"
        return Delivery(self._number, b"", b"r%d@x" % self._number, wire, False, self.dice.random() < 0.15)

    def _some(self, octets: int) -> int:
        return self.dice.choice((octets, octets, self.dice.randrange(octets + 1)))

    def _first_message(self) -> int:
        """So many octets that it has left, and nothing of what follows in the same write."""
        return max(0, self._written.find(b"RSET\r\n"))

    def _write(self) -> None:
        """What is to go on does so at once, most times, though the transport may have kept of it what it had no room for."""
        if not self._written:
            self._write_once()
            while self.session.has_more and (not self._written or self.dice.random() < 0.7):
                self._write_once()

    def _write_once(self) -> None:
        octets = self.session.next_write(self._now)
        self._written += self.session.take_back(octets, self._now) if self.dice.random() < 0.12 else octets

    def _leave(self, octets: int) -> None:
        self._said += self.peer.hear(self._written[:octets])
        self._written = self._written[octets:]
        self.session.note_unflushed(len(self._written))

    def _read(self, octets: int) -> None:
        if octets:
            self.session.receive(self._said[:octets], self._now)
            self._said = self._said[octets:]

    def _abort(self) -> None:
        self.is_cut = True
        self.session.lost(self._now, "closed by us", len(self._written))

    def _lose(self) -> None:
        self.is_cut = True
        self.peer.hear(self._written[: self.dice.randrange(len(self._written) + 1)])
        self.session.lost(self._now, "lost")

    def _drain(self) -> None:
        self.session.retire()
        for _ in range(400):
            self._write()
            self._leave(len(self._written))
            self._read(len(self._said))
            if self.session.state is State.ENDED:
                return
        raise AssertionError("it never ends")


def faults(talk: Talk) -> list[str]:
    attempts, verdicts = talk.feed.attempts, talk.peer.verdicts
    found = [] if sorted(number for number, _ in attempts) == sorted(talk.feed.pulled) else ["not each is reported once"]
    for number, attempt in attempts:
        verdict = verdicts.get(number)
        is_sent = attempt.stage is Stage.DOT and attempt.reply is not None and attempt.reply.code == 250
        is_doubtful = attempt.stage is Stage.DOT and attempt.fault is not None
        if attempt.fault is Fault.PROTOCOL:
            found.append(f"{number}: the peer kept count")
        if is_sent and verdict != 250:
            found.append(f"{number}: sent, the peer said {verdict}")
        if verdict == 250 and not is_sent and not is_doubtful:
            found.append(f"{number}: {attempt.stage} {attempt.fault}, the peer took it")
        if is_doubtful and not talk.is_cut:
            found.append(f"{number}: doubt without a cut")
    return found


def test_sessions_at_random() -> None:
    for seed in range(SEED, SEED + RUNS):
        talk = Talk(seed)
        talk.go()
        found = faults(talk)
        assert not found, f"seed {seed}: {found}"
