"""The checkers can fail: sessions that are broken on purpose, one per fault, and each is found out."""

from __future__ import annotations

import pytest

from sendengine.channel.flight import Features, Flight, State
from sendengine.channel.session import Session
from sendengine.channel.train import Train, wagon
from sendengine.types import Fault, Reply, Stage
from tests.dialogues.cutting import Cut, Way, faults, talk
from tests.dialogues.player import HERE, read
from tests.dialogues.strict import Plan
from tests.dialogues.test_cut_sockets import OFFERS, met_over_sockets
from tests.dialogues.test_cuts import ACCEPTED, MIXED, count_cuts, deliveries_of, plan_of, train_of
from tests.dialogues.test_dialogues import play
from tests.dialogues.test_miscounts import SEED, all_misled, mismatches
from tests.dialogues.test_splits import replay

pytestmark = pytest.mark.interpreted

PIPELINED = Features(pipelining=True)


class Believing(Session):
    """Takes replies as they come, whether or not they can answer what is due."""

    def receive(self, data: bytes, now: float) -> None:
        for reply in self.in_order(self._parser.feed(data)):
            if self._due and self.state is not State.ENDED:
                command, *rest = self._due
                self._due = tuple(rest)
                self._answer(command, reply, now)

    def in_order(self, replies: list[Reply]) -> list[Reply]:
        return replies


class OutOfOrder(Believing):
    def in_order(self, replies: list[Reply]) -> list[Reply]:
        return replies[::-1]


class CallsALostDotNotSent(Session):
    def _is_dot_out(self) -> bool:
        return False


class CallsALostBodyDoubtful(Session):
    def _is_dot_out(self) -> bool:
        return True


class TakesTheGoAheadForTheAnswer(Session):
    """Calls a message sent when the next one may go."""

    def _write_message(self, head: Flight, now: float) -> bytes:
        octets = super()._write_message(head, now)
        self._report(head, Stage.DOT, Reply(250, "", "hopefully"), now)
        self._body = None
        return octets


class RemembersWhatLayHere(Session):
    """Takes an earlier look at the transport for what has left since."""

    def lost(self, now: float, detail: str, unflushed: int = 0) -> None:
        super().lost(now, detail, self._unflushed)


class CallsALostTryNone(Session):
    """Nothing was attempted, whatever was: it would be sent again for ever, and no try spent."""

    def _give_up(self, flight: Flight, stage: Stage, fault: Fault, now: float, detail: str) -> None:
        if stage is not Stage.DOT:
            stage, fault = Stage.MAIL, Fault.STALE
        super()._give_up(flight, stage, fault, now, detail)


class CallsTheFirstStale(Session):
    """Takes a fresh connection that breaks for one that was left."""

    def _give_up(self, flight: Flight, stage: Stage, fault: Fault, now: float, detail: str) -> None:
        is_unanswered_first = flight.is_first and stage is Stage.MAIL
        super()._give_up(flight, stage, Fault.STALE if is_unanswered_first else fault, now, detail)


class ForgetsTheSecond(Session):
    def _end(self, fault: Fault, now: float, detail: str) -> None:
        self._head = None if self._body is not None else self._head
        super()._end(fault, now, detail)


class ReportsTwice(Session):
    def _give_up(self, flight: Flight, stage: Stage, fault: Fault, now: float, detail: str) -> None:
        super()._give_up(flight, stage, fault, now, detail)
        super()._give_up(flight, stage, fault, now, detail)


@pytest.mark.parametrize(
    "broken",
    [
        CallsALostDotNotSent,
        CallsALostBodyDoubtful,
        CallsALostTryNone,
        CallsTheFirstStale,
        RemembersWhatLayHere,
        TakesTheGoAheadForTheAnswer,
        ForgetsTheSecond,
        ReportsTwice,
    ],
)
def test_cuts_find_out(broken: type[Session]) -> None:
    _, found = count_cuts(plan_of(PIPELINED, ACCEPTED), broken)
    assert found


class CallsATrainNotSent(Session):
    def _give_up_trains(self, train: Train, fault: Fault, now: float, detail: str) -> None:
        for flight in train.flights:
            if flight.delivery is not None:
                self._give_up(flight, Stage.BODY, fault, now, detail)
        train.flights.clear()


class CallsAWholeTrainDoubtful(Session):
    def _give_up_trains(self, train: Train, fault: Fault, now: float, detail: str) -> None:
        for flight in train.flights:
            if flight.delivery is not None:
                self._give_up(flight, Stage.DOT, fault, now, detail)
        train.flights.clear()


class ForgetsTheTrain(Session):
    def _give_up_trains(self, train: Train, fault: Fault, now: float, detail: str) -> None: ...


class TakesARefusalForTheVerdict(Session):
    """The answer to a chunk is its message's, whatever was said before."""

    def _refuse(self, head: Flight, stage: Stage, reply: Reply, now: float) -> None:
        head.stage = stage


@pytest.mark.parametrize("broken", [CallsATrainNotSent, CallsAWholeTrainDoubtful, ForgetsTheTrain, TakesARefusalForTheVerdict])
def test_cuts_of_trains_find_out(broken: type[Session]) -> None:
    plan = train_of(MIXED * 2)
    whole = talk(plan, deliveries_of(plan))
    cuts = [Cut(way, written=at) for way in (Way.FIN, Way.STALL) for at in range(0, whole.written + 1, 5)]
    assert any(faults(talk(plan, deliveries_of(plan), cut, broken)) for cut in cuts)


def test_a_train_that_resets_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.channel.train.wagon", lambda *told: b"NOOP\r\n" + wagon(*told).removeprefix(b"RSET\r\n"))
    plan = train_of(MIXED * 2)
    with pytest.raises(AssertionError, match="nested MAIL"):
        talk(plan, deliveries_of(plan))


class ReadsWholeLines(Session):
    """Takes every read for whole lines, as nearly all are."""

    def receive(self, data: bytes, now: float) -> None:
        super().receive(data if data.endswith(b"\n") else b"", now)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (CallsALostDotNotSent, "pipelined_dot_disconnected"),
        (CallsALostBodyDoubtful, "pipelined_body_disconnected"),
        (TakesTheGoAheadForTheAnswer, "pipelined_message_5xx"),
        (Believing, "pipelined_stray_refusal"),
        (ForgetsTheSecond, "pipelined_lost_with_two_in_flight"),
    ],
)
async def test_dialogues_find_out(broken: type[Session], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.channel.site.Session", broken)
    dialogue = read(HERE / f"{name}.dialogue")
    try:
        met, _ = await play(dialogue)
    except (AssertionError, TimeoutError):
        return  # it said what was not due, or never ended
    assert met != dialogue.expected


async def test_cuts_over_sockets_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.channel.site.Session", CallsALostDotNotSent)
    plan = plan_of(PIPELINED, ACCEPTED)
    whole = talk(plan, deliveries_of(plan))
    found = [await met_over_sockets(plan, OFFERS["pipelined"], Cut(Way.FIN, said=at)) for at in range(0, whole.said, 7)]
    assert any("the peer said 250" in fault for faults in found for fault in faults)


def test_splits_find_out() -> None:
    dialogue = read(HERE / "pipelined_two_sent.dialogue")
    assert replay(dialogue, {}, ReadsWholeLines) == dialogue.expected
    assert any(replay(dialogue, {number: [5]}, ReadsWholeLines) != dialogue.expected for number in range(3))


@pytest.mark.parametrize("broken", [OutOfOrder, TakesTheGoAheadForTheAnswer])
def test_random_verdicts_find_out(broken: type[Session]) -> None:
    assert any(mismatches(seed, broken) for seed in range(SEED, SEED + 200))


def test_a_peer_that_loses_count_finds_out_who_trusts_it() -> None:
    _, found = all_misled("pipelined", Believing)
    assert any("sent" in fault for fault in found)
    assert any("bounced" in fault for fault in found)


def test_an_honest_session_by_the_same_measure() -> None:
    plan: Plan = plan_of(PIPELINED, MIXED)
    assert talk(plan, deliveries_of(plan)).attempts == talk(plan, deliveries_of(plan), make=Believing).attempts
