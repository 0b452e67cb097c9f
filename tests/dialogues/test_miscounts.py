"""Ten thousand pipelined sessions with random verdicts, and peers that lose count: our verdict is the peer's, or none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain, product

import pytest

from sendengine.channel.flight import Features, State
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.policy.verdict import Action
from sendengine.types import Stage
from tests.dialogues.cutting import Talk, action_of, faults, talk
from tests.dialogues.strict import Feed, Plan, StrictPeer
from tests.dialogues.test_cuts import SESSIONS, deliveries_of

VECTORS = 10_000
SEED = 20_240_517

MAIL, RCPT, DATA, DOT = (250, 250, 250, 451, 550), (250, 250, 251, 450, 550), (354, 354, 354, 451, 554), (250, 250, 451, 554)


def random_plan(dice: random.Random) -> Plan:
    vectors = [(dice.choice(MAIL), dice.choice(RCPT), dice.choice(DATA), dice.choice(DOT)) for _ in range(dice.randint(2, 5))]
    features = Features(pipelining=True, chunking=dice.random() < 0.3, size=dice.random() < 0.5)
    return Plan(vectors, features, dice.random() < 0.5, [dice.randint(1, 60) for _ in range(3)] + [1000], -1)


def random_trains(dice: random.Random) -> Plan:
    vectors = [(dice.choice(MAIL), dice.choice(RCPT), 354, dice.choice(DOT)) for _ in range(dice.randint(2, 18))]
    features = Features(pipelining=True, chunking=True, size=dice.random() < 0.5)
    return Plan(vectors, features, dice.random() < 0.5, [dice.randint(1, 200) for _ in range(3)] + [1000], -1, 5)


def decided(plan: Plan, number: int) -> Action:
    """What the peer's replies to one message mean, said once more and without the table."""
    mail, rcpt, data, dot = plan.vectors[number - 1]
    if mail != 250:
        return Action.DEFERRED
    if rcpt >= 400:
        return Action.BOUNCED if rcpt >= 500 else Action.DEFERRED
    if data != 354 and not plan.features.chunking:
        return Action.DEFERRED
    return {2: Action.SENT, 4: Action.DEFERRED, 5: Action.BOUNCED}[dot // 100]


def mismatches(seed: int, make: type[Session] = Session, draw: Callable[[random.Random], Plan] = random_plan) -> list[str]:
    plan = draw(random.Random(seed))
    met = talk(plan, deliveries_of(plan), make=make)
    return faults(met) + [
        f"{number}: {action_of(attempt)}, the peer meant {decided(plan, number)}"
        for number, attempt in met.attempts
        if action_of(attempt) is not decided(plan, number)
    ]


def test_every_verdict_is_the_peers() -> None:
    for seed in range(SEED, SEED + VECTORS):
        found = mismatches(seed)
        assert not found, f"seed {seed}: {found}"


def test_every_verdict_in_a_train_is_the_peers() -> None:
    for seed in range(SEED, SEED + VECTORS // 4):
        found = mismatches(seed, draw=random_trains)
        assert not found, f"seed {seed}: {found}"


class Miscounting(StrictPeer):
    """Loses count once: in its burst number `burst`, at reply `at`, `say` comes in (a reply) or, if None, one is left out."""

    def __init__(self, plan: Plan, burst: int, at: int, say: bytes | None) -> None:
        super().__init__(plan, deliveries_of(plan))
        self.has_lost_count = False
        self._burst, self._at, self._say = burst, at, say

    def burst_to(self, octets: bytes) -> bytes:
        """All its replies to one write, in one piece: what it lost is to be seen in it."""
        replies = self.replies_to(octets)
        if replies:
            self._burst -= 1
            if self._burst == 0 and self._at <= len(replies):
                self.has_lost_count = True
                replies[self._at : self._at + (self._say is None)] = [self._say] if self._say else []
        return b"".join(replies)


def misled(plan: Plan, peer: Miscounting, make: type[Session] = Session) -> list[str]:
    feed = Feed(deliveries_of(plan))
    session = make(feed, plan.features, StageTimeouts())
    while session.state is not State.ENDED:
        said = peer.burst_to(session.next_write(1.0))
        session.receive(said, 1.0)
        if not said:
            session.tick(1000.0, 0)  # a reply that is missing is waited for until its time is up
            session.lost(1001.0, "it was idle")
    number = len(plan.vectors) - len(feed.waiting)
    # Nothing that was said is known to have arrived as said: only what is claimed counts here.
    met = Talk(plan, feed.attempts, number, peer.verdicts, set(), set(peer.verdicts))
    return [fault for fault in faults(met) if "reported" in fault] + [
        f"{n}: {action_of(attempt)}, the peer said {peer.verdicts.get(n)}"
        for n, attempt in feed.attempts
        if claims_too_much(plan, peer, n, action_of(attempt), attempt.stage)
    ]


def claims_too_much(plan: Plan, peer: StrictPeer, number: int, action: Action, stage: Stage) -> bool:
    verdict = peer.verdicts.get(number, 0)
    if action is Action.SENT:
        return verdict // 100 != 2
    if action is Action.BOUNCED:
        return verdict < 500 if stage is Stage.DOT else plan.vectors[number - 1][1] < 500
    return action in (Action.DEFERRED, Action.RETURNED) and verdict // 100 == 2


def plans_to_mislead(name: str) -> Iterator[Plan]:
    """The last message is refused, so a reply taken for its answer shows."""
    for dot in (250, 451, 554):
        vectors = [(250, 250, 354, dot), (250, 250, 354, 250), (250, 250, 354, 554)]
        yield Plan(vectors, SESSIONS[name], True, [10000], -1)


def strays() -> Iterator[tuple[int, int, bytes]]:
    return product(range(1, 5), range(5), (b"250 stray\r\n", b"354 stray\r\n", b"451 stray\r\n", b"550 5.1.1 stray\r\n"))


def all_misled(name: str, make: type[Session] = Session) -> tuple[int, list[str]]:
    """With a reply too many at each place, and with one missing at each place. With CHUNKING nothing like 354 comes last:
    there a missing 2xx before another one cannot be told."""
    count, found = 0, []
    missing = product(range(1, 5), range(0 if SESSIONS[name].chunking else 4), [None])
    for plan, (burst, at, say) in product(plans_to_mislead(name), chain(strays(), missing)):
        peer = Miscounting(plan, burst, at, say)
        found += [f"{burst} {at} {say!r}: {fault}" for fault in misled(plan, peer, make)]
        count += peer.has_lost_count
    return count, found


@pytest.mark.parametrize("name", SESSIONS)
def test_a_peer_that_loses_count_is_not_believed(name: str) -> None:
    count, found = all_misled(name)
    assert found == []
    assert count > 90
