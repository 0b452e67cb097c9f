"""A session and a strict peer on a line that breaks where it is told to; and the checker of what came of it.

The checker knows three things from outside the session: what the peer decided about each message, which octets of its
replies arrived, which octets the session wrote. From these it says what a session may claim of each delivery.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec

from sendengine.channel.flight import State
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.policy.replies import parse_rules
from sendengine.policy.verdict import Action, SendPolicy, judge
from sendengine.types import Attempt, Stage
from tests.dialogues.player import Delivery
from tests.dialogues.strict import Feed, Plan, StrictPeer

RULES = parse_rules((Path(__file__).parents[2] / "config" / "replies.toml").read_text())
NEVER = 1 << 60


class Way(Enum):
    FIN = "what was said before arrives, then the end is seen"
    RST = "what is under way is gone, and the end is seen"
    SILENCE = "nothing passes any more, and nobody says so"
    STALL = "the peer reads no more; what it did not take lies in our transport"


class Cut(msgspec.Struct, frozen=True):
    """Where the line breaks: after so many octets written by the client, or by the peer."""

    way: Way
    written: int = NEVER
    said: int = NEVER


UNCUT = Cut(Way.FIN)


class Talk(msgspec.Struct):
    """What is known from outside after a session's end."""

    plan: Plan
    attempts: list[tuple[int, Attempt]]
    pulled: int
    verdicts: dict[int, int]  # the peer's, of whole messages
    heard: set[int]  # messages whose verdict arrived here
    ended: set[int]  # messages whose last octet has left us, or may have
    begun: set[int] = set()  # messages whose MAIL was answered, and the answer arrived here
    unwanted: set[int] = set()  # messages that left whole behind a refusal which did not arrive here
    written: int = 0  # octets
    said: int = 0  # octets
    writes: int = 0


def talk(plan: Plan, deliveries: list[Delivery], cut: Cut = UNCUT, make: type[Session] = Session) -> Talk:
    feed, peer, shadow = Feed(deliveries), StrictPeer(plan, deliveries), StrictPeer(plan, deliveries)
    session = make(feed, plan.features, StageTimeouts(), together=plan.together)
    line = Line(session, peer, plan, cut)
    while session.state is not State.ENDED and not line.is_broken:
        line.turn()
    if line.is_broken:
        line.break_off()
    shadow.hear(line.written)
    heard = {number for number, at in peer.answered_at.items() if at <= line.received}
    begun = {number for number, at in peer.mail_answered_at.items() if at <= line.received}
    ended = set(peer.verdicts if cut.way is Way.STALL else shadow.verdicts)
    left = peer.arrived if cut.way is Way.STALL else shadow.arrived
    unwanted = left - {number for number, at in peer.refused_at.items() if at <= line.received}
    pulled = len(deliveries) - len(feed.waiting)
    return Talk(plan, feed.attempts, pulled, peer.verdicts, heard, ended, begun, unwanted, len(line.written), len(line.said), line.writes)


class Line:
    """The octets between the two, both ways."""

    def __init__(self, session: Session, peer: StrictPeer, plan: Plan, cut: Cut) -> None:
        self.written = self.said = b""
        self.taken = self.received = self.writes = 0
        self.is_broken = False
        self._turns = self._last = 0
        self._session, self._peer, self._plan, self._cut = session, peer, plan, cut

    def turn(self) -> None:
        session, cut = self._session, self._cut
        out = session.next_write(1.0)
        self._write(out)
        while session.has_more and len(self.written) <= cut.written:
            self._write(session.next_write(1.0))
        passing = self.written[self.taken : cut.written]
        self.taken += len(passing)
        self.said += self._peer.hear(passing)
        self.is_broken = self.taken >= cut.written or len(self.said) >= cut.said
        if self.is_broken and cut.way is not Way.FIN and cut.said == NEVER:
            return
        came = self._receive()
        if not came and not out and not self.is_broken:
            assert session.is_idle, "a client and a peer that wait for each other"
            session.retire()

    def _write(self, octets: bytes) -> None:
        self.written += octets
        self.writes += bool(octets)
        self._last = len(octets)

    def _receive(self) -> bool:
        size = self._plan.pieces[self._turns % len(self._plan.pieces)]
        end = min(len(self.said), self._cut.said) if self.is_broken else self.received + size
        piece = self.said[self.received : end]
        self._turns += 1
        self.received += len(piece)
        self._session.receive(piece, 1.0)
        return bool(piece)

    def break_off(self) -> None:
        session, cut = self._session, self._cut
        if cut.way is Way.RST:
            session.tick(1.0, self._last)  # the clock was looked at when nothing of the last write had left yet
        if cut.way in (Way.FIN, Way.RST):
            session.lost(2.0, "cut")
            return
        unflushed = len(self.written) - self.taken if cut.way is Way.STALL else 0
        for now in (3.0, 700.0):
            if session.state is not State.ENDED:
                session.tick(now, unflushed)
        session.lost(701.0, "it was idle")  # what waits for nothing has no timeout


def action_of(attempt: Attempt) -> Action:
    return judge(attempt, 0, 0.0, SendPolicy(), RULES).action


def faults(met: Talk) -> list[str]:
    """What the session claimed and should not have; nothing of an honest one."""
    reported = [number for number, _ in met.attempts]
    found = [f"{n}: reported {reported.count(n)} times" for n in range(1, met.pulled + 1) if reported.count(n) != 1]
    found += [f"{n}: reported and never pulled" for n in reported if n > met.pulled]
    for number, attempt in met.attempts:
        action = action_of(attempt)
        if action not in allowed(met, number, attempt):
            found.append(f"{number}: {action} after {attempt.stage.name}, the peer said {met.verdicts.get(number)}")
    return found


def allowed(met: Talk, number: int, attempt: Attempt) -> set[Action]:
    verdict = met.verdicts.get(number)
    if number in met.heard:
        assert verdict is not None
        return {2: {Action.SENT}, 4: {Action.DEFERRED}, 5: {Action.BOUNCED}}[verdict // 100]
    if number in met.ended:
        return {Action.DOUBTFUL}
    if number in met.unwanted and attempt.reply is None:
        return {Action.DOUBTFUL}  # for all that is known here, it was taken
    _, rcpt, _, _ = met.plan.vectors[number - 1]
    if attempt.stage is Stage.RCPT and attempt.reply is not None and rcpt >= 500:
        return {Action.BOUNCED}
    if number == 1 or number in met.begun:  # a fresh connection, or the peer took it up: that was a try
        return {Action.DEFERRED}
    return {Action.DEFERRED, Action.RETURNED}
