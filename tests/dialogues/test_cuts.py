"""A connection cut at every octet of a session, both ways, in every way; each delivery still ends as the facts allow."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from sendengine.channel.flight import Features
from sendengine.channel.session import Session
from tests.dialogues.cutting import Cut, Talk, Way, faults, talk
from tests.dialogues.player import Delivery
from tests.dialogues.strict import Plan

SESSIONS = {
    "pipelined": Features(pipelining=True),
    "unpipelined": Features(size=True),
    "chunked": Features(pipelining=True, chunking=True),
    "chunked_unpipelined": Features(chunking=True),
}
TOGETHER = 5
TRAIN = Features(pipelining=True, chunking=True, size=True)
ACCEPTED = [(250, 250, 354, 250)] * 3
MIXED = [(250, 251, 354, 250), (250, 550, 354, 250), (250, 250, 354, 554), (451, 250, 354, 250), (250, 250, 354, 251)]


def plan_of(features: Features, vectors: list[tuple[int, int, int, int]]) -> Plan:
    return Plan(vectors, features, True, [10000], -1)


def deliveries_of(plan: Plan, size: int = 0) -> list[Delivery]:
    wires = [b"A: 1\r\n\r\nhi\r\n", b"..\r\n", b"A: 3\r\n\r\n..x\r\n"]
    return [
        Delivery(number, b"", b"r%d@example.net" % number, wires[number % 3] + b"y" * size + b"\r\n" * bool(size))
        for number in range(1, len(plan.vectors) + 1)
    ]


def cuts_of(whole: Talk) -> Iterator[Cut]:
    """Every octet of either direction. The peer's own stall cuts no replies off."""
    for way in (Way.FIN, Way.RST, Way.SILENCE):
        yield from (Cut(way, written=at) for at in range(whole.written + 1))
        yield from (Cut(way, said=at) for at in range(whole.said + 1))
    yield from (Cut(Way.STALL, written=at) for at in range(whole.written + 1))


def count_cuts(plan: Plan, make: type[Session] = Session) -> tuple[int, list[str]]:
    deliveries = deliveries_of(plan)
    found: list[str] = []
    cuts = list(cuts_of(talk(plan, deliveries)))
    for cut in cuts:
        found += [f"{cut}: {fault}" for fault in faults(talk(plan, deliveries, cut, make))]
    return len(cuts), found


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize("vectors", [ACCEPTED, MIXED], ids=["accepted", "mixed"])
def test_a_cut_at_every_octet_loses_nobody_and_claims_nothing(name: str, vectors: list[tuple[int, int, int, int]]) -> None:
    cuts, found = count_cuts(plan_of(SESSIONS[name], vectors))
    assert found == []
    assert cuts > 800


def train_of(vectors: list[tuple[int, int, int, int]]) -> Plan:
    """Messages that go five at a time, behind a first one that goes by itself."""
    return Plan([(250, 250, 354, 250), *vectors], TRAIN, True, [10000], -1, TOGETHER)


@pytest.mark.parametrize("vectors", [ACCEPTED * 4, MIXED * 2], ids=["accepted", "mixed"])
def test_a_cut_at_every_octet_of_trains_loses_nobody_and_claims_nothing(vectors: list[tuple[int, int, int, int]]) -> None:
    cuts, found = count_cuts(train_of(vectors))
    assert found == []
    assert cuts > 4500


@pytest.mark.parametrize("vectors", [ACCEPTED * 4, MIXED * 2], ids=["accepted", "mixed"])
def test_an_uncut_train_does_all_in_few_turns(vectors: list[tuple[int, int, int, int]]) -> None:
    plan = train_of(vectors)
    met = talk(plan, deliveries_of(plan))
    assert faults(met) == []
    assert met.pulled == len(plan.vectors)
    assert met.writes <= 6  # MAIL and RCPT, the first chunk, trains of 5, 5 and 2, QUIT


@pytest.mark.parametrize("place", [2, 4, 6])
def test_a_large_message_in_a_train_is_in_doubt_only_when_its_end_has_left(place: int) -> None:
    """It ends its train, and its own end is held back until the rest of that is out."""
    plan = train_of(ACCEPTED[:2] * 3)
    deliveries = deliveries_of(plan)
    deliveries[place - 1] = deliveries_of(plan, size=40000)[place - 1]
    whole = talk(plan, deliveries)
    for at in chain(range(0, whole.written, 1000), range(40000, whole.written)):
        for way in Way:
            assert faults(talk(plan, deliveries, Cut(way, written=at))) == [], (at, way)


@pytest.mark.parametrize("name", SESSIONS)
def test_an_uncut_session_does_all(name: str) -> None:
    plan = plan_of(SESSIONS[name], MIXED)
    met = talk(plan, deliveries_of(plan))
    assert faults(met) == []
    assert (met.pulled, met.heard) == (5, {1, 3, 5})


@pytest.mark.parametrize("name", SESSIONS)
def test_a_large_message_is_in_doubt_only_when_its_end_has_left(name: str) -> None:
    """Above 32 KB the end is held back until the rest is out: cuts around it, and every thousandth octet of the rest."""
    plan = plan_of(SESSIONS[name], ACCEPTED[:2])
    deliveries = deliveries_of(plan, size=40000)
    whole = talk(plan, deliveries)
    ends = [whole.written // 2, whole.written]
    for at in chain(range(0, whole.written, 1000), *(range(max(0, end - 150), end + 1) for end in ends)):
        for way in Way:
            assert faults(talk(plan, deliveries, Cut(way, written=at))) == [], (at, way)
