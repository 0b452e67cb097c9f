"""A feed with SMS in it, a clock that is turned by hand, and the other end of a session."""

from __future__ import annotations

from collections.abc import Callable

from smpp34 import SubmitSm, decode

from sendengine.channel.smpp import pdu
from sendengine.channel.smpp.pdu import Command, Pdu
from sendengine.channel.smpp.session import Session
from sendengine.policy.slowing import Slowing
from sendengine.types import Attempt, Provider, Receipt

PROVIDER = Provider(name="p", kind="smpp", host="127.0.0.1", system_id="me", password="secret", window=10, answer_s=60.0)


class Sms:
    """Satisfies types.Envelope."""

    eightbit = False

    def __init__(self, number: str, text: str = "hello", sender: str = "ACME", is_alone: bool = False) -> None:
        self.sender, self.recipient, self.wire, self.is_alone = sender.encode(), number.encode(), text.encode(), is_alone


class SmsFeed:
    def __init__(self, waiting: list[Sms]) -> None:
        self.waiting = waiting
        self.done_: list[tuple[str, Attempt]] = []
        self.receipts: list[Receipt] = []
        self.on_done: Callable[[], None] = lambda: None

    def next(self, in_company: bool = False) -> Sms | None:
        if not self.waiting or (in_company and self.waiting[0].is_alone):
            return None
        return self.waiting.pop(0)

    def done(self, delivery: Sms, attempt: Attempt) -> None:
        self.done_.append((delivery.recipient.decode(), attempt))
        self.on_done()

    def receipt(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    @property
    def attempts(self) -> dict[str, Attempt]:
        assert len({name for name, _ in self.done_}) == len(self.done_), "each delivery is done once"
        return dict(self.done_)


class Peer:
    """Drives a session and reads what it says."""

    def __init__(self, *waiting: Sms, provider: Provider = PROVIDER, is_on_trial: bool = False) -> None:
        self.now = 1000.0
        self.feed = SmsFeed(list(waiting))
        self.session = Session(provider, self.feed, Slowing(provider.rate), self.now, 0.5, self.feed.receipt, is_on_trial)  # type: ignore[arg-type]
        self._reader = pdu.Reader()
        self.said: list[Pdu] = []
        self.read()

    def read(self) -> list[Pdu]:
        some = list(self._reader.feed(self.session.take_output()))
        self.said += some
        return some

    def bind(self) -> Peer:
        self.receive(pdu.answer_to(self.said[0], body=b"centre\0"))
        return self

    def receive(self, *octets: bytes) -> list[Pdu]:
        for each in octets:
            self.session.receive(each, self.now)
        self.session.pull(self.now)
        return self.read()

    def pass_time(self, seconds: float) -> list[Pdu]:
        self.now += seconds
        self.session.tick(self.now)
        self.session.pull(self.now)
        return self.read()

    @property
    def submits(self) -> list[Pdu]:
        return [one for one in self.said if one.command == Command.SUBMIT_SM]

    def accept(self, one: Pdu, message_id: str = "id") -> list[Pdu]:
        return self.receive(pdu.answer_to(one, body=message_id.encode() + b"\0"))

    def refuse(self, one: Pdu, status: int) -> list[Pdu]:
        return self.receive(pdu.answer_to(one, status))


def read(one: Pdu) -> SubmitSm:
    found = decode(one.octets)
    assert isinstance(found, SubmitSm)
    return found
