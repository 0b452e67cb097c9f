"""One SMTP session without I/O: which bytes to write next, and what every reply means for which delivery.

Bytes come in by `receive`, go out by `next_write`; time is passed in. Deliveries are pulled from the feed when their
MAIL is written and each is reported exactly once. No socket, no loop, no policy: what follows is decided elsewhere.

At most two deliveries are in flight: `_body`, whose message is being written or judged, and `_head`, whose MAIL, RCPT
and DATA travel in the same write behind that message's final dot (RFC 2920). With CHUNKING (RFC 3030) DATA falls away
and the message follows the replies to MAIL and RCPT as one BDAT chunk: as many round trips as DATA takes behind a dot,
a refused recipient costs no body, and a connection that breaks leaves one delivery in doubt, not two. Where several may
go in one write (`together`), whole messages follow behind that chunk as a train (train.py), once the peer has shown that
it knows BDAT, and only on the heels of an answer: a peer that left unseen has one MAIL to miss, and no message.

Replies answer commands in order. One too many, too early or of the wrong kind, and neither what came with it nor what
follows is believed; nor is anything behind a reply that cannot be read.
"""

from __future__ import annotations

from sendengine.channel.flight import Command, Features, Flight, State, misfit, unstuffed
from sendengine.channel.settings import StageTimeouts
from sendengine.channel.train import WAGON, Train
from sendengine.ports import Feed
from sendengine.reply import ReplyParser
from sendengine.types import Attempt, Envelope, Fault, Reply, Stage

# A larger message is written without its end; that follows once the transport has let go of the rest. So a peer that
# stops reading half-way leaves nobody in doubt. Below it, a second system call would cost more than it tells.
HOLD_END_ABOVE = 32768

# Globals, because a member of an Enum class costs two look-ups and these are compared for every reply.
_MAIL, _RCPT, _DATA, _DOT = Command.MAIL, Command.RCPT, Command.DATA, Command.DOT
_STAGE_MAIL, _STAGE_RCPT, _STAGE_DATA = Stage.MAIL, Stage.RCPT, Stage.DATA
_STAGE_BODY, _STAGE_DOT = Stage.BODY, Stage.DOT
_OPEN, _RETIRING, _ENDED = State.OPEN, State.RETIRING, State.ENDED


class Session:
    """See the module. After each call look at `state`; at ENDED close the connection and write nothing more."""

    # More than thirty attributes without slots are looked up a fifth slower (CPython 3.11 to 3.13 share no more keys).
    __slots__ = (
        "_after_dot", "_body", "_body_patience", "_chunking", "_connect", "_done", "_due", "_eightbit", "_end_held", "_feed", "_go_ahead",
        "_head", "_is_fresh", "_is_transaction_open", "_left", "_mail", "_owes_void", "_parser", "_patience", "_pipelining", "_since",
        "_size", "_swing", "_train", "_unflushed", "ended_by", "has_carried", "has_more", "is_chunking_refused", "may_pull", "state",
    )  # fmt: skip

    def __init__(
        self, feed: Feed, features: Features, timeouts: StageTimeouts, connect: float = 0.0, max_messages: int = 0, together: int = 1
    ) -> None:
        self.state: State = _OPEN
        self.may_pull = True  # False while the site is throttled
        self.has_more = False  # `next_write` has more to say as soon as the transport is empty
        self.has_carried = False  # a delivery was answered, whatever the answer
        self.is_chunking_refused = False  # though it was offered
        self.ended_by: Attempt | None = None  # what broke the session while deliveries were in flight
        self._feed = feed
        self._done = feed.done
        self._parser = ReplyParser()
        self._pipelining = features.pipelining
        self._chunking = features.chunking
        self._eightbit = features.eightbit
        self._size = features.size
        self._connect = connect
        self._left = max_messages or -1
        self._is_fresh = True  # no MAIL was written yet
        self._due: tuple[Command, ...] = ()
        # What is unanswered after each write of a session in full swing, and the code that makes the next message due.
        self._swing = (_DOT, _MAIL, _RCPT) if features.chunking else (_DOT, _MAIL, _RCPT, _DATA)
        self._go_ahead = 250 if features.chunking else 354
        self._head: Flight | None = None
        self._body: Flight | None = None
        is_coupled = together > 1 and features.pipelining and features.chunking
        self._train = Train(together, HOLD_END_ABOVE, features.size) if is_coupled else None
        self._end_held = b""  # the end of a large message whose rest is being written
        self._after_dot = 0  # octets written behind the last dot
        self._mail = 0  # octets of the last write from its MAIL on
        self._unflushed = 0  # octets still in the transport, as far as known
        self._owes_void = False
        self._is_transaction_open = False  # RFC 5321 4.1.4: no MAIL before RSET then
        self._since = 0.0  # when the oldest unanswered command began to be waited for
        self._patience = {
            _MAIL: timeouts.mail,
            _RCPT: timeouts.rcpt,
            _DATA: timeouts.data,
            _DOT: timeouts.dot,
            Command.VOID: timeouts.dot,
            Command.RSET: timeouts.mail,
            Command.QUIT: timeouts.quit,
        }
        self._body_patience = timeouts.body

    @property
    def together(self) -> int:
        """Most messages that go in one write."""
        return self._train.most if self._train is not None else 1

    @property
    def is_worn_out(self) -> bool:
        """It has carried as many messages as one session may."""
        return self._left == 0

    @property
    def is_idle(self) -> bool:
        """Nothing is in flight and nothing unanswered."""
        return not self._due and self._head is None and self._body is None

    def receive(self, data: bytes, now: float) -> None:
        """Octets of the peer."""
        replies = self._parser.feed(data)
        if self._due is self._swing and self._is_in_swing(replies, now):
            return
        body = self._body
        if self._chunking and body is not None and replies and self._due[:1] == (_DOT,) and 500 <= replies[0].code <= 504:
            self._body = None
            self._refuse_chunking(body, replies[0], now)
            return
        is_refused = self._train is not None and body is None and self._train.is_front_refused
        stray = misfit(self._due, replies, is_refused)
        if stray is not None:
            self._end(Fault.PROTOCOL, now, f"out of turn: {stray}")
            return
        for reply in replies:
            self._since = now
            if not self._due:
                self._out_of_turn(reply, now)
            else:
                command, *rest = self._due
                self._due = tuple(rest)
                self._answer(command, reply, now)
            if self.state is _ENDED:
                return
        if self._parser.fault:
            self._end(Fault.PROTOCOL, now, self._parser.fault)

    def next_write(self, now: float) -> bytes:
        """What to write now, or b"". Only to be called while the transport's buffer is empty."""
        self._unflushed = self._mail = 0
        head = self._head
        if head is not None:
            if head.stage is _STAGE_BODY:
                return self._write_message(head, now)
            return b"" if self._pipelining else self._one_command(head, now)
        if self._end_held:
            return self._write_end(now)
        if self._train is not None:
            return self._write_company(self._train, now)
        if self._due and not self._pipelining:
            return b""
        commands = self._void(now) + self._write_envelope(now)
        self._after_dot += len(commands)
        return commands

    def take_back(self, octets: bytes, now: float) -> bytes:
        """Nothing of this write has left, and it is too late for a MAIL: what is to be written instead. Its deliveries were not attempted;
        a message that others wait for goes, since its MAIL was in time."""
        size, self._mail = self._mail, 0
        if not size:
            return octets
        self._after_dot = max(0, self._after_dot - size)
        flights = self._flights_taken_back(size)
        if self._left == 0 and self.state is _RETIRING:
            self.state = _OPEN  # the last of these was to be the session's last
        self._left += len(flights)
        for flight in flights:
            assert flight.delivery is not None
            self._done(flight.delivery, Attempt(_STAGE_MAIL, None, Fault.STALE, 0.0, now, 0.0, "we stood still before it was written"))
        return octets[:-size]

    def _flights_taken_back(self, size: int) -> list[Flight]:
        """Those of the last write, whose commands are no more waited for."""
        head, self._head = self._head, None
        if head is not None:
            self._is_fresh = head.is_first
            self._due = self._due[: 1 - len(self._swing)] if self._pipelining else self._due[:-1]
            return [head]
        assert self._train is not None
        self.has_more = False
        flights = self._train.take_back(size)
        self._due = self._due[: -len(WAGON) * len(flights)]
        return flights

    def note_unflushed(self, octets: int) -> None:
        """So many octets of what was written lie in the transport's buffer still. Known for certain, or not said."""
        self._unflushed = octets

    def tick(self, now: float, unflushed: int) -> None:
        """Looks at the clock. Octets that went out since the last look are progress; octets dripping in are not."""
        if unflushed < self._unflushed:
            self._since = now
        self._unflushed = unflushed
        patience = self._waits()
        if patience and now - self._since >= patience:
            self._end(Fault.TIMEOUT, now, f"no answer for {patience:g} s")

    def retire(self) -> None:
        """Takes nothing more; `next_write` says QUIT when all is answered."""
        if self.state is _OPEN:
            self.state = _RETIRING

    def lost(self, now: float, detail: str, unflushed: int = 0) -> None:
        """The connection is gone. `unflushed` octets never left, for certain: an earlier look tells nothing any more."""
        self._unflushed = unflushed
        if self.state is not _ENDED:
            self._end(Fault.DISCONNECTED, now, detail)

    # Writing

    def _write_message(self, head: Flight, now: float) -> bytes:
        self._since = now
        self._head, self._body = None, head
        self._is_transaction_open = False  # RFC 5321 4.1.1.4: the dot's reply closes it, whatever it says
        assert head.delivery is not None
        wire = head.delivery.wire
        end = b".\r\n"
        if self._chunking:
            wire, end = unstuffed(wire), b""
            wire = b"BDAT %d LAST\r\n%b" % (len(wire), wire)
        if len(wire) > HOLD_END_ABOVE:
            self.has_more, self._end_held = True, end or wire[-2:]
            return wire if end else wire[:-2]
        commands = self._write_after_end(now)
        return b"".join((wire, end, commands))

    def _write_end(self, now: float) -> bytes:
        end, self._end_held = self._end_held, b""
        self.has_more = False
        self._since = now
        return end + self._write_after_end(now)

    def _write_after_end(self, now: float) -> bytes:
        self._due += (_DOT,)
        self._after_dot = 0
        if self._train is not None:
            return self._write_company(self._train, now)
        commands = self._write_envelope(now) if self._pipelining else b""
        self._after_dot = len(commands)
        return commands

    def _write_company(self, train: Train, now: float) -> bytes:
        """Where several may go together: what follows behind all that is unanswered."""
        self.has_more = False
        if train.end_held:
            self._after_dot += len(end := train.finish())
            return end
        body = self._body
        if body is not None and not train.is_proven:
            return b""
        if body is not None and self._is_alone(body):
            self._after_dot += len(commands := self._write_envelope(now))
            return commands
        if train.is_proven and (self._due or train.answered_at == now):
            octets = self._write_train(train, now)
            if octets or self._due:
                return octets
        return self._write_envelope(now)

    def _write_train(self, train: Train, now: float) -> bytes:
        under_way = len(train.flights)
        octets = train.load(lambda: self._pull(now, True), now, int(self._body is not None))
        if not self._due:
            self._since = now
        self._due += WAGON * (len(train.flights) - under_way)
        self._mail = len(octets)
        self._after_dot += len(octets)
        self.has_more = train.is_to_go_on or bool(train.end_held)
        return octets

    def _is_alone(self, flight: Flight) -> bool:
        assert flight.delivery is not None
        return flight.delivery.is_alone

    def _void(self, now: float) -> bytes:
        """RFC 2920 3.1: a DATA accepted although its recipient was refused is ended by a single dot."""
        if not self._owes_void:
            return b""
        self._owes_void = self._is_transaction_open = False
        self._since = now
        self._due += (Command.VOID,)
        return b".\r\n"

    def _write_envelope(self, now: float) -> bytes:
        """The next delivery's commands, or QUIT when it is time, or nothing."""
        if self._due and not self._pipelining:
            return b""
        delivery = self._pull(now)
        if delivery is None:
            return self._quit(now) if self.state is _RETIRING and self.is_idle else b""
        if not self._due:
            self._since = now
        reset = self._reset() if self._is_transaction_open else b""
        self._head = Flight(delivery, now, self._is_fresh, _STAGE_MAIL)
        self._is_fresh = False
        size = b" SIZE=%d" % len(delivery.wire) if self._size else b""
        body = b" BODY=8BITMIME" if delivery.eightbit else b""
        if not self._pipelining:
            self._due += (_MAIL,)
            commands = b"MAIL FROM:<%b>%b%b\r\n" % (delivery.sender, size, body)
        else:
            self._due = self._swing if self._due == (_DOT,) else self._due + self._swing[1:]
            data = b"" if self._chunking else b"DATA\r\n"
            commands = b"MAIL FROM:<%b>%b%b\r\nRCPT TO:<%b>\r\n%b" % (delivery.sender, size, body, delivery.recipient, data)
        self._mail = len(commands)
        return reset + commands if reset else commands

    def _reset(self) -> bytes:
        self._is_transaction_open = False
        self._due += (Command.RSET,)
        return b"RSET\r\n"

    def _pull(self, now: float, in_company: bool = False) -> Envelope | None:
        while self.may_pull and self.state is _OPEN:
            delivery = self._feed.next(in_company)
            if delivery is None:
                return None
            if delivery.eightbit and not self._eightbit:
                # RFC 6152: 8-bit content goes to a peer that offers it, or not at all.
                unsuitable = Attempt(_STAGE_MAIL, None, Fault.UNSUITABLE, 0.0, now, 0.0, "the relay lacks 8BITMIME")
                self._done(delivery, unsuitable)
                continue
            self._left -= 1
            if self._left == 0:
                self.state = _RETIRING
            return delivery
        return None

    def _one_command(self, head: Flight, now: float) -> bytes:
        """Without PIPELINING: the command that the last reply has made due."""
        if self._due:
            return b""
        self._since = now
        assert head.delivery is not None
        if head.stage is _STAGE_RCPT:
            self._due = (_RCPT,)
            return b"RCPT TO:<%b>\r\n" % head.delivery.recipient
        self._due = (_DATA,)
        return b"DATA\r\n"

    def _quit(self, now: float) -> bytes:
        self.state = State.QUITTING
        self._since = now
        self._due = (Command.QUIT,)
        return b"QUIT\r\n"

    # Reading

    def _is_in_swing(self, replies: list[Reply], now: float) -> bool:
        """The replies that a session in full swing gets, taken at one look: the message accepted, the next one wanted.
        The same as `_answer` would do for each; it saves a third of the session's time."""
        body, head = self._body, self._head
        if len(replies) != len(self._swing) or self._unflushed or body is None or head is None:
            return False
        if not replies[0].code == replies[1].code == replies[2].code == 250 or replies[-1].code != self._go_ahead:
            return False
        self._since = now
        self._due = ()
        self._body = None
        self._is_transaction_open = True
        head.stage = _STAGE_BODY
        self._report(body, _STAGE_DOT, replies[0], now)
        return True

    def _answer(self, command: Command, reply: Reply, now: float) -> None:
        kind = reply.code // 100
        head = self._head
        if head is None and self._train is not None:
            head = self._train.front
        if command is _DOT:
            self._judge_message(reply, now)
        elif head is None or command is Command.RSET or command is Command.VOID:
            self._answer_ours(command, reply, kind, now)
        elif head.delivery is None:
            self._answer_ghost(command, reply, kind, now)
        elif command is _MAIL and kind == 2:
            head.stage = _STAGE_RCPT
            self._is_transaction_open = True
        elif command is _RCPT and kind == 2:
            head.stage = _STAGE_BODY if self._chunking else _STAGE_DATA
        elif command is _DATA and kind == 3:
            head.stage = _STAGE_BODY
        else:
            self._refuse(head, Stage(command.value), reply, now)

    def _judge_message(self, reply: Reply, now: float) -> None:
        body = self._body
        if body is None and self._train is not None:
            self._judge_in_train(self._train, reply, now)
            return
        if body is None or self._unflushed > self._after_dot:
            # The answer to a message whose end is still here tells nothing about it.
            self._out_of_turn(reply, now)
            return
        self._body = None
        if self._train is not None:
            self._train.answered_at = now
            self._train.is_proven |= reply.code < 300
        self._report(body, _STAGE_DOT, reply, now)
        if reply.code == 421:
            self._left_by_peer(_STAGE_DOT, reply, now)

    def _judge_in_train(self, train: Train, reply: Reply, now: float) -> None:
        flight = train.front
        if flight is None or not train.is_out(flight, self._unflushed):
            self._out_of_turn(reply, now)
            return
        train.answered_at = now
        if flight.delivery is None:
            # RFC 3030 2: the chunk of a message refused before is read and answered, too. That says nothing more of it.
            if reply.code == 421 or reply.code < 400:
                self._out_of_turn(reply, now)
            else:
                train.flights.popleft()
            return
        train.flights.popleft()
        if 500 <= reply.code <= 504:
            self._refuse_chunking(flight, reply, now)
            return
        self._is_transaction_open = False
        self._report(flight, _STAGE_DOT, reply, now)
        if reply.code == 421:
            self._left_by_peer(_STAGE_DOT, reply, now)

    def _refuse_chunking(self, flight: Flight, reply: Reply, now: float) -> None:
        """RFC 5321 4.2.2: BDAT is no command to this peer. That says nothing of the message, and it may read the chunk as
        commands: whatever else it answers is past belief."""
        self.is_chunking_refused = True
        self._report(flight, _STAGE_DATA, reply, now)
        self._left_by_peer(_STAGE_DATA, reply, now)

    def _refuse(self, head: Flight, stage: Stage, reply: Reply, now: float) -> None:
        self._report(head, stage, reply, now)
        head.delivery = None
        if not self._due:
            self._head = None
        if reply.code == 421:
            self._left_by_peer(stage, reply, now)

    def _answer_ghost(self, command: Command, reply: Reply, kind: int, now: float) -> None:
        """Commands written behind the one that was refused: their replies keep the count, no more."""
        if reply.code == 421 or kind == 2:
            # Nobody accepts RCPT without MAIL, or DATA by 2xx: this peer has lost count, or we have.
            self._out_of_turn(reply, now)
            return
        self._owes_void = kind == 3
        if not self._due:
            self._head = None

    def _answer_ours(self, command: Command, reply: Reply, kind: int, now: float) -> None:
        """Commands that belong to no delivery: RSET, QUIT and the end of an empty message."""
        if command is Command.QUIT:
            self.state = _ENDED
        elif reply.code == 421 or (kind != 2 and command is not Command.VOID):
            self._out_of_turn(reply, now)

    def _out_of_turn(self, reply: Reply, now: float) -> None:
        """A reply that answers nothing. 421 may come at any time (RFC 5321 3.8); all others are past belief."""
        if reply.code != 421:
            self._end(Fault.PROTOCOL, now, f"out of turn: {reply}")
            return
        body, head = self._body, self._head
        stage = _STAGE_MAIL
        if body is not None and not self._is_dot_out():
            self._body, stage = None, _STAGE_BODY
            self._report(body, stage, reply, now)
        elif head is not None and head.delivery is not None and head.stage is _STAGE_BODY:
            self._head, stage = None, _STAGE_BODY
            self._report(head, stage, reply, now)
        if body is None and head is None and (self._train is None or self._train.front is None):
            self._end(Fault.DISCONNECTED, now, str(reply))
        else:
            self._left_by_peer(stage, reply, now)

    def _report(self, flight: Flight, stage: Stage, reply: Reply, now: float) -> None:
        delivery = flight.delivery
        assert delivery is not None
        connect, self._connect = self._connect, 0.0
        self.has_carried |= reply.code != 421
        self._done(delivery, Attempt(stage, reply, None, flight.mail_at, now, connect))

    # Ending

    def _left_by_peer(self, stage: Stage, reply: Reply, now: float) -> None:
        self._end(Fault.DISCONNECTED, now, str(reply))
        self.ended_by = Attempt(stage, reply, None, 0.0, now)

    def _end(self, fault: Fault, now: float, detail: str) -> None:
        """Reports whatever is in flight."""
        self.state = _ENDED
        body, self._body = self._body, None
        head, self._head = self._head, None
        if body is not None:
            self._give_up(body, _STAGE_DOT if self._is_dot_out() else _STAGE_BODY, fault, now, detail)
        if self._train is not None:
            self._give_up_trains(self._train, fault, now, detail)
        if head is not None and head.delivery is not None:
            # The peer left, or was left, before it said a word about this MAIL: nothing was attempted.
            is_bystander = fault is Fault.DISCONNECTED or (fault is Fault.TIMEOUT and body is not None)
            is_stale = is_bystander and head.stage is _STAGE_MAIL and not head.is_first
            self._give_up(head, head.stage, Fault.STALE if is_stale else fault, now, detail)

    def _give_up_trains(self, train: Train, fault: Fault, now: float, detail: str) -> None:
        """Whatever may have left whole is in doubt. Of replies that came apart nothing is inferred: not that a MAIL which has
        no answer was not taken."""
        while train.flights:
            flight = train.flights.popleft()
            if flight.delivery is not None:
                is_out = train.is_out(flight, self._unflushed)
                self._give_up(flight, _STAGE_DOT if is_out else _STAGE_BODY, fault, now, detail)

    def _give_up(self, flight: Flight, stage: Stage, fault: Fault, now: float, detail: str) -> None:
        assert flight.delivery is not None
        connect, self._connect = self._connect, 0.0
        attempt = Attempt(stage, None, fault, flight.mail_at, now, connect, detail)
        self.ended_by = self.ended_by or attempt
        self._done(flight.delivery, attempt)

    def _is_dot_out(self) -> bool:
        """The end of the message may have left: doubt begins. Only what is known to lie here still is not out."""
        return not self._end_held and self._unflushed <= self._after_dot

    def _waits(self) -> float:
        """How long the oldest thing waited for may take; 0.0 when nothing is waited for."""
        if self._body is not None and not self._is_dot_out():
            return self._body_patience
        if self._body is None and self._train is not None and self._train.is_stuck(self._unflushed):
            return self._body_patience
        if self._due:
            return self._patience[self._due[0]]
        return 0.0 if self._head is None else self._body_patience

