"""One bind: what is asked of the peer and not answered yet, and what its answers mean. Sans-IO: octets and time come in, octets go out.

Answers are matched by their sequence number, so one that never comes spoils nothing but its own delivery: that is in doubt, and the bind
goes on. A message of several parts is submitted part by part, the next one when the last was accepted: refused at its first part, nothing
of it was taken; lost on the way, all of it is in doubt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum

from sendengine.channel.smpp import pdu
from sendengine.channel.smpp.pdu import Command, Pdu
from sendengine.policy.parts import split
from sendengine.policy.receipts import THROTTLED, answer
from sendengine.policy.senders import sender_id
from sendengine.policy.slowing import Slowing
from sendengine.ports import Feed
from sendengine.types import Attempt, Envelope, Fault, Provider, Receipt, Reply, Stage

TAKEN = Reply(250, "2.0.0", "accepted")
ESME_ROK, ESME_RINVCMDID = 0, 3
BIND_WITHIN = 15.0  # seconds, or what an answer is given if that is less: nothing is lost by it, and until then nobody knows the reason
CLOSE_AFTER = 5.0  # an unbind that is not answered
SILENT_FOR = 2.0  # times enquire_link_s without a PDU: the peer is gone


class State(IntEnum):
    BINDING = 0
    BOUND = 1
    UNBINDING = 2
    ENDED = 3


class Submitting:
    """A delivery on this bind: its parts, how many were accepted, and since when the present one waits for its answer."""

    __slots__ = ("accepted", "asked_at", "coding", "delivery", "ids", "mail_at", "number", "parts", "sender")

    def __init__(self, delivery: Envelope, reference: int) -> None:
        self.delivery = delivery
        self.coding, self.parts = split(delivery.wire.decode(), reference)
        self.sender = sender_id(delivery.sender.decode())
        self.number = delivery.recipient.decode().removeprefix("+")
        self.accepted = 0
        self.ids: list[str] = []
        self.mail_at = self.asked_at = 0.0


class Session:
    """Owner of the deliveries that it pulled: each is done once, whatever happens."""

    def __init__(
        self, provider: Provider, feed: Feed, pace: Slowing, now: float, took: float, on_receipt: Callable[[Receipt], None],
        is_on_trial: bool = False,
    ) -> None:  # fmt: skip
        self._provider, self._feed, self._pace, self._on_receipt = provider, feed, pace, on_receipt
        self.state = State.BINDING
        self.may_pull = True
        self._is_on_trial = is_on_trial  # one at a time until one was answered: the last bind that broke left its window in doubt
        self.ended_by: Attempt | None = None
        self.has_carried = False  # a submit was answered
        self.is_throttled = False  # since it was last asked
        self._reader = pdu.Reader()
        self._sequence = 0
        self._reference = 0
        self._waiting: dict[int, Submitting] = {}  # by sequence number, oldest first
        self._more: deque[Submitting] = deque()  # whose next part is due
        self._alone = 0  # of all these, deliveries that go alone
        self._heard_at = self._asked_at = now
        self._took = took
        self._out = bytearray(pdu.bind(self._next(), provider.system_id, provider.password, provider.system_type))
        self._unbinds_at = 0.0

    @property
    def open(self) -> int:
        return len(self._waiting) + len(self._more)

    @property
    def has_room(self) -> bool:
        most = 1 if self._is_on_trial else self._provider.window
        return self.state is State.BOUND and self.may_pull and self.open < most

    def take_output(self) -> bytes:
        out, self._out = bytes(self._out), bytearray()
        return out

    # out

    def pull(self, now: float) -> float:
        """Submits what may go. Seconds after which to be asked again, because the pace forbids it now; 0: when something changes."""
        if self.state is not State.BOUND:
            return 0.0
        while self._more or self.has_room:
            wait = self._pace.wait(now)
            if wait > 0.0:
                return wait
            if self._more:
                self._submit(self._more.popleft(), now)
                continue
            if self._alone:
                return 0.0
            delivery = self._feed.next(self.open > 0)
            if delivery is None:
                return 0.0
            self._reference = (self._reference + 1) & 0xFF
            self._alone += delivery.is_alone
            self._submit(Submitting(delivery, self._reference), now)
        return 0.0

    def _submit(self, one: Submitting, now: float) -> None:
        sequence = self._next()
        one.asked_at = now
        one.mail_at = one.mail_at or now
        self._waiting[sequence] = one
        self._out += pdu.submit(sequence, one.sender, one.number, one.coding, one.parts[one.accepted], len(one.parts) > 1)
        self._pace.sent(now)

    def unbind(self, now: float) -> None:
        """Nothing more is pulled; what waits for its answer is waited for first (`tick`)."""
        self.may_pull = False
        self._unbinds_at = now
        if self.state is State.BINDING:
            self._end(now, None)
        elif self.state is State.BOUND and not self.open:
            self._say_unbind(now)

    def _say_unbind(self, now: float) -> None:
        self.state = State.UNBINDING
        self._asked_at = now
        self._out += pdu.pdu(Command.UNBIND, self._next())

    def _next(self) -> int:
        self._sequence = self._sequence % pdu.SEQUENCE_MOST + 1
        return self._sequence

    # in

    def receive(self, data: bytes, now: float) -> None:
        self._heard_at = now
        try:
            for each in self._reader.feed(data):
                if self.state is State.ENDED:
                    return
                self._take(each, now)
        except pdu.BadPdu as error:
            self.break_off(now, Fault.PROTOCOL, str(error))

    def _take(self, one: Pdu, now: float) -> None:
        if one.command == Command.SUBMIT_SM | Command.GENERIC_NACK or one.command == Command.GENERIC_NACK:
            self._answered(one, now)
        elif one.command == Command.DELIVER_SM:
            found = pdu.receipt_of(one)
            self._out += pdu.answer_to(one, body=b"\0")
            if found is not None:
                self._on_receipt(found)
        elif one.command == Command.BIND_TRANSCEIVER | Command.GENERIC_NACK:
            self._bound(one, now)
        elif one.command == Command.ENQUIRE_LINK:
            self._out += pdu.answer_to(one)
        elif one.command == Command.UNBIND:
            self._out += pdu.answer_to(one)
            self.break_off(now, Fault.DISCONNECTED, "the provider ended the session")
        elif one.command == Command.UNBIND | Command.GENERIC_NACK:
            self._end(now, None)
        elif not one.is_answer:
            self._out += pdu.pdu(Command.GENERIC_NACK, one.sequence, status=ESME_RINVCMDID)

    def _bound(self, one: Pdu, now: float) -> None:
        if self.state is not State.BINDING:
            return
        if one.status == ESME_ROK:
            self.state = State.BOUND
            return
        reply = Reply(535, "5.7.8", f"the bind is refused (command_status {one.status:#04x})")
        self._end(now, Attempt(Stage.AUTH, reply, None, 0.0, now))

    def _answered(self, one: Pdu, now: float) -> None:
        if self.state is State.BINDING:  # a peer that does not know the bind
            self.break_off(now, Fault.PROTOCOL, f"the bind is not understood (command_status {one.status:#04x})")
            return
        found = self._waiting.pop(one.sequence, None)
        if found is None:  # an answer that was given up, or to no question of ours
            return
        self.has_carried, self._is_on_trial = True, False
        if one.status == ESME_ROK and one.command != Command.GENERIC_NACK:
            found.accepted += 1
            found.ids.append(pdu.message_id_of(one))
            if found.accepted < len(found.parts):
                self._more.append(found)
            else:
                self._done(found, Attempt(Stage.DOT, TAKEN, None, found.mail_at, now, self._connect(), message_ids=tuple(found.ids)))
        elif one.status in THROTTLED:
            self._throttled(found, now)
        else:
            stage, reply = answer(one.status)
            self._done(found, Attempt(stage, reply, None, found.mail_at, now, self._connect(), message_ids=tuple(found.ids)))

    def _throttled(self, found: Submitting, now: float) -> None:
        """Nothing of it was taken; of a message that was taken in part, the next part is tried again at the slower pace."""
        self.is_throttled = True
        self._pace.throttled(now)
        if found.accepted:
            self._more.appendleft(found)
        else:
            self._done(found, Attempt(Stage.MAIL, None, Fault.THROTTLED, found.mail_at, now, detail="the provider asks us to go slower"))

    def _connect(self) -> float:
        took, self._took = self._took, 0.0
        return took

    def _done(self, one: Submitting, attempt: Attempt) -> None:
        self._alone -= one.delivery.is_alone
        self._feed.done(one.delivery, attempt)

    # time, and the end

    def tick(self, now: float) -> None:
        """Answers that are overdue, a peer that has gone silent, an unbind that may be said now."""
        provider = self._provider
        if self.state is State.BINDING and now - self._asked_at >= min(provider.answer_s, BIND_WITHIN):
            self.break_off(now, Fault.TIMEOUT, "the bind is not answered")
        if self.state in (State.BOUND, State.UNBINDING):
            self._give_up_overdue(now)
        if self.state is State.UNBINDING and now - self._asked_at >= CLOSE_AFTER:
            self._end(now, None)
        if self.state is not State.BOUND:
            return
        if now - self._heard_at >= SILENT_FOR * provider.enquire_link_s:
            self.break_off(now, Fault.TIMEOUT, "the provider says nothing any more")
        elif self._unbinds_at and not self.open:
            self._say_unbind(now)
        elif now - max(self._heard_at, self._asked_at) >= provider.enquire_link_s:
            self._asked_at = now
            self._out += pdu.pdu(Command.ENQUIRE_LINK, self._next())

    def _give_up_overdue(self, now: float) -> None:
        while self._waiting:
            sequence = next(iter(self._waiting))
            one = self._waiting[sequence]
            if now - one.asked_at < self._provider.answer_s:
                return
            del self._waiting[sequence]
            self._done(one, Attempt(Stage.DOT, None, Fault.TIMEOUT, one.mail_at, now, detail="the submit is not answered"))

    def break_off(self, now: float, fault: Fault, detail: str) -> None:
        """The connection is lost, or not worth keeping. What was submitted and not answered may have been taken."""
        if self.state is State.ENDED:
            return
        stage = Stage.EHLO if self.state is State.BINDING else Stage.DOT
        self._end(now, Attempt(stage, None, fault, 0.0, now, detail=detail))

    def _end(self, now: float, why: Attempt | None) -> None:
        self.state, self.ended_by = State.ENDED, why
        lost = [*self._waiting.values(), *self._more]
        self._waiting.clear()
        self._more.clear()
        fault, detail = (why.fault or Fault.DISCONNECTED, why.detail) if why else (Fault.DISCONNECTED, "closed by us before the answer")
        for one in lost:
            self._done(one, Attempt(Stage.DOT, None, fault, one.mail_at, now, detail=detail))
