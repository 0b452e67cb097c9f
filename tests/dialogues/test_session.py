"""The session against a peer of our own that is as strict as RFC 5321 allows, without any socket.

Whatever the peer decides about each message, in whatever pieces its replies arrive and wherever the connection breaks:
every delivery is reported once, and never otherwise than the peer decided.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.channel.flight import Features, State
from sendengine.channel.protocol import Connection
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.types import Fault, Stage
from tests.dialogues.player import Delivery
from tests.dialogues.strict import Feed, Plan, StrictPeer, deliveries_for

# What a peer may say to one message: a code at MAIL, RCPT, DATA and to the message itself.
VECTORS = st.tuples(
    st.sampled_from([250, 250, 250, 451, 550]),
    st.sampled_from([250, 250, 251, 450, 550]),
    st.sampled_from([354, 354, 354, 451, 554]),
    st.sampled_from([250, 250, 250, 451, 554]),
)


PLANS = st.builds(
    Plan,
    st.lists(VECTORS, min_size=1, max_size=12),
    st.builds(Features, st.booleans(), st.booleans(), st.just(True), st.booleans()),
    st.booleans(),
    st.lists(st.integers(1, 200), min_size=1, max_size=5),
    st.one_of(st.just(-1), st.integers(0, 400)),
    st.sampled_from([1, 1, 2, 5]),
)


def converse(plan: Plan, deliveries: list[Delivery]) -> tuple[Feed, StrictPeer, Session]:
    feed, peer = Feed(deliveries), StrictPeer(plan, deliveries)
    session = Session(feed, plan.features, StageTimeouts(), together=plan.together)
    said, heard, turn = b"", 0, 0
    while session.state is not State.ENDED:
        out = session.next_write(1.0)
        while session.has_more:
            out += session.next_write(1.0)
        said += peer.hear(out)
        piece = said[heard : heard + plan.pieces[turn % len(plan.pieces)]]
        turn += 1
        if plan.cut_at >= 0 and heard + len(piece) >= plan.cut_at:
            session.receive(piece[: max(0, plan.cut_at - heard)], 1.0)
            session.lost(1.0, "cut")
            break
        if not piece and not out:
            assert session.is_idle, "a client and a peer that wait for each other"
            session.retire()
        session.receive(piece, 1.0)
        heard += len(piece)
    return feed, peer, session


def expected(vector: tuple[int, int, int, int], has_data: bool) -> tuple[Stage, int]:
    mail, rcpt, data, message = vector
    if mail != 250:
        return Stage.MAIL, mail
    if rcpt >= 400:
        return Stage.RCPT, rcpt
    if has_data and data != 354:
        return Stage.DATA, data
    return Stage.DOT, message


@settings(max_examples=400, deadline=None)
@given(PLANS)
def test_every_delivery_meets_what_the_peer_decided(plan: Plan) -> None:
    deliveries = deliveries_for(plan)
    feed, peer, session = converse(plan, deliveries)
    assert session.state is State.ENDED
    numbers = [number for number, _ in feed.attempts]
    assert sorted(numbers) == list(range(1, len(deliveries) - len(feed.waiting) + 1))
    for number, attempt in feed.attempts:
        if attempt.reply is not None:
            met = (attempt.stage, attempt.reply.code)
            assert met == expected(plan.vectors[number - 1], not plan.features.chunking)
        else:
            assert attempt.fault in (Fault.DISCONNECTED, Fault.STALE)
            assert attempt.stage is Stage.DOT or number not in peer.verdicts, "taken by the peer, and not in doubt"
    if plan.cut_at < 0:
        assert all(attempt.reply for _, attempt in feed.attempts)
        assert not feed.waiting


@settings(max_examples=60, deadline=None)
@given(PLANS)
def test_replies_split_at_every_octet_mean_the_same(plan: Plan) -> None:
    whole = msgspec.structs.replace(plan, pieces=[10000], cut_at=-1)
    split = msgspec.structs.replace(plan, pieces=[1], cut_at=-1)
    assert converse(whole, deliveries_for(plan))[0].attempts == converse(split, deliveries_for(plan))[0].attempts


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_a_peer_that_talks_nonsense_ends_every_delivery_once(pieces: list[bytes]) -> None:
    plan = Plan([(250, 250, 354, 250)] * 3, Features(pipelining=True), False, [1], -1)
    feed = Feed(deliveries_for(plan))
    session = Session(feed, plan.features, StageTimeouts())
    for piece in pieces:
        if session.state is State.ENDED:
            break
        session.next_write(1.0)
        session.receive(piece, 1.0)
    session.lost(2.0, "cut")
    numbers = [number for number, _ in feed.attempts]
    assert sorted(numbers) == list(range(1, 4 - len(feed.waiting)))


def test_a_dot_that_lies_in_the_transport_is_not_out() -> None:
    plan = Plan([(250, 250, 354, 250)], Features(pipelining=True), False, [1], -1)
    feed = Feed(deliveries_for(plan))
    session = Session(feed, plan.features, StageTimeouts(body=10))
    session.next_write(0.0)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", 0.0)
    octets = session.next_write(0.0)
    session.tick(5.0, len(octets))
    session.tick(14.0, len(octets) - 1)  # one octet went: that is progress
    session.tick(23.0, len(octets) - 1)
    assert feed.attempts == []
    session.tick(24.0, len(octets) - 1)
    [(_, attempt)] = feed.attempts
    assert (attempt.stage, attempt.fault) == (Stage.BODY, Fault.TIMEOUT)


def test_an_answer_to_a_dot_that_has_not_left_is_none() -> None:
    plan = Plan([(250, 250, 354, 250)], Features(pipelining=True), False, [1], -1)
    feed = Feed(deliveries_for(plan))
    session = Session(feed, plan.features, StageTimeouts())
    session.next_write(0.0)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", 0.0)
    session.note_unflushed(len(session.next_write(0.0)))
    session.receive(b"250 2.0.0 queued\r\n", 0.0)
    [(_, attempt)] = feed.attempts
    assert (attempt.stage, attempt.fault) == (Stage.BODY, Fault.PROTOCOL)


def session_with_message_out(features: Features) -> tuple[Feed, Session, bytes]:
    """A session whose first message was just written, the second one's commands behind it; and those octets."""
    plan = Plan([(250, 250, 354, 250)] * 2, features, False, [1], -1)
    feed = Feed(deliveries_for(plan)[:2])
    session = Session(feed, plan.features, StageTimeouts())
    session.next_write(0.0)
    session.receive(b"250 ok\r\n250 ok\r\n" + (b"" if features.chunking else b"354 go\r\n"), 0.0)
    return feed, session, session.next_write(0.0)


@pytest.mark.parametrize("chunking", [False, True])
def test_what_lay_in_the_transport_at_the_last_look_may_have_left_since(chunking: bool) -> None:
    """A lost connection no longer tells what it took: a dot seen in the transport before is in doubt all the same."""
    feed, session, octets = session_with_message_out(Features(pipelining=True, chunking=chunking))
    session.tick(1.0, len(octets))
    session.lost(2.0, "reset")
    assert [(attempt.stage, attempt.fault) for _, attempt in feed.attempts] == [
        (Stage.DOT, Fault.DISCONNECTED),
        (Stage.MAIL, Fault.STALE),
    ]


def test_what_is_known_to_lie_in_the_transport_has_not_left() -> None:
    feed, session, octets = session_with_message_out(Features(pipelining=True))
    session.lost(2.0, "closed by us", unflushed=len(octets))
    assert (feed.attempts[0][1].stage, feed.attempts[0][1].fault) == (Stage.BODY, Fault.DISCONNECTED)


@pytest.mark.parametrize(
    ("said", "met"),
    [
        # Which of these refusals is one too many? Then which recipient was refused?
        (b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n", (Stage.MAIL, Fault.PROTOCOL)),
        (b"550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n", (Stage.MAIL, Fault.PROTOCOL)),
        (b"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n", (Stage.MAIL, Fault.PROTOCOL)),
    ],
)
def test_more_replies_than_commands_say_nothing(said: bytes, met: tuple[Stage, Fault]) -> None:
    plan = Plan([(250, 250, 354, 250)], Features(pipelining=True), False, [1], -1)
    feed = Feed(deliveries_for(plan))
    session = Session(feed, plan.features, StageTimeouts())
    session.next_write(0.0)
    session.receive(said, 1.0)
    [(_, attempt)] = feed.attempts
    assert (attempt.stage, attempt.fault) == met
    assert session.state is State.ENDED


@pytest.mark.parametrize("said", [b"250 ok\r\n550 no\r\n", b"550 no\r\n250 ok\r\n"])
def test_two_answers_to_one_message_leave_it_in_doubt(said: bytes) -> None:
    feed = Feed(deliveries_for(Plan([(250, 250, 354, 250)], Features(), False, [1], -1)))
    session = Session(feed, Features(), StageTimeouts())
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", said):
        session.next_write(0.0)
        session.receive(reply, 0.0)
    [(_, attempt)] = feed.attempts
    assert (attempt.stage, attempt.fault) == (Stage.DOT, Fault.PROTOCOL)


def test_a_421_behind_the_last_answer_leaves_the_answer_standing() -> None:
    """RFC 5321 3.8: a peer that leaves says so unasked."""
    feed, session, _ = session_with_message_out(Features(pipelining=True))
    session.receive(b"250 ok\r\n550 no\r\n550 no\r\n550 no\r\n421 bye\r\n", 1.0)
    assert [(attempt.stage, attempt.reply and attempt.reply.code) for _, attempt in feed.attempts] == [
        (Stage.DOT, 250),
        (Stage.MAIL, 550),
    ]
    assert session.state is State.ENDED


@pytest.mark.parametrize("said", [[b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n"], [b"550 no\r\n", b"250 ok\r\n"]])
def test_commands_behind_a_refused_one_cannot_be_accepted(said: list[bytes]) -> None:
    """A peer that takes RCPT without MAIL, or DATA by 2xx, has lost count; and a dot alone might be a message to it."""
    plan = Plan([(250, 250, 354, 250)], Features(pipelining=True), False, [1], -1)
    feed = Feed(deliveries_for(plan))
    session = Session(feed, plan.features, StageTimeouts())
    session.next_write(0.0)
    for piece in said:
        session.receive(piece, 1.0)
    assert len(feed.attempts) == 1
    assert session.state is State.ENDED


TOOK_BACK = (
    (Features(pipelining=True, eightbit=True), [b"250 ok\r\n250 ok\r\n354 go\r\n"], b"250 2.0.0 taken\r\n"),
    (Features(pipelining=True, chunking=True, eightbit=True), [b"250 ok\r\n250 ok\r\n"], b"250 2.0.0 taken\r\n"),
    (Features(eightbit=True), [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"], b"250 2.0.0 taken\r\n"),
)


@pytest.mark.parametrize(("features", "answers", "taken"), TOOK_BACK)
def test_a_mail_that_is_late_is_taken_back_and_what_was_begun_goes_on(features: Features, answers: list[bytes], taken: bytes) -> None:
    """Before each write that has a MAIL in it: it was not attempted, and the next one is the first again, or the next, all the same."""
    feed = Feed([Delivery(n, b"a@x", b"b@y", b"A: b\r\n\r\nx\r\n") for n in range(4)])
    session = Session(feed, features, StageTimeouts())
    late = session.next_write(1.0)
    assert session.take_back(late, 3.0) == b""
    assert session.is_idle
    said = session.next_write(3.0)
    assert said == late
    for answer in answers:
        session.receive(answer, 3.0)
        said = session.next_write(3.0)
    left = session.take_back(said, 5.0)
    assert b"MAIL" not in left
    assert left in said
    session.receive(taken, 5.0)
    assert session.next_write(5.0) == late
    session.lost(5.0, "cut")
    stale = [number for number, attempt in feed.attempts if attempt.fault is Fault.STALE]
    sent = [number for number, attempt in feed.attempts if attempt.stage is Stage.DOT]
    assert (stale, sent) == (([0, 2, 3], [1]) if features.pipelining else ([0, 2], [1]))


def test_nothing_but_a_mail_is_taken_back() -> None:
    feed = Feed([Delivery(0, b"a@x", b"b@y", b"A: b\r\n\r\nx\r\n")])
    session = Session(feed, Features(pipelining=True), StageTimeouts())
    session.next_write(1.0)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", 1.0)
    message = session.next_write(1.0)
    assert session.take_back(message, 9.0) == message
    session.receive(b"250 taken\r\n", 9.0)
    session.retire()
    assert session.take_back(session.next_write(9.0), 20.0) == b"QUIT\r\n"


def test_a_train_that_is_late_is_taken_back_whole_and_the_one_before_it_goes_on() -> None:
    feed = Feed([Delivery(n, b"a@x", b"b@y", b"A: b\r\n\r\nx\r\n") for n in range(10)])
    session = Session(feed, Features(pipelining=True, chunking=True, eightbit=True), StageTimeouts(), together=3)
    session.next_write(1.0)
    session.receive(b"250 ok\r\n250 ok\r\n", 1.0)
    session.next_write(1.0)
    session.receive(b"250 2.0.0 taken\r\n", 1.0)  # it knows BDAT
    first = session.next_write(1.0)
    assert first.count(b"MAIL") == 3
    late = session.next_write(1.0)
    assert late.count(b"MAIL") == 3
    assert session.take_back(late, 5.0) == b""
    assert not session.has_more
    stale = [number for number, attempt in feed.attempts if attempt.fault is Fault.STALE]
    assert stale == [4, 5, 6]
    session.receive(b"250 reset\r\n250 ok\r\n250 ok\r\n250 2.0.0 taken\r\n" * 3, 5.0)
    assert [number for number, attempt in feed.attempts if attempt.stage is Stage.DOT] == [0, 1, 2, 3]
    assert session.next_write(5.0).count(b"MAIL") == 3


@pytest.mark.parametrize("features", [features for features, _, _ in TOOK_BACK])
def test_what_was_taken_back_was_not_carried(features: Features) -> None:
    """A session of one message carries one."""
    feed = Feed([Delivery(n, b"a@x", b"b@y", b"A: b\r\n\r\nx\r\n") for n in range(3)])
    session = Session(feed, features, StageTimeouts(), max_messages=1)
    late = session.next_write(1.0)
    assert session.take_back(late, 3.0) == b""
    assert (session.state, session.is_worn_out) == (State.OPEN, False)
    assert session.next_write(3.0) == late
    assert (session.state, session.is_worn_out) == (State.RETIRING, True)


def test_a_train_that_was_taken_back_was_not_carried() -> None:
    feed = Feed([Delivery(n, b"a@x", b"b@y", b"A: b\r\n\r\nx\r\n") for n in range(10)])
    session = Session(feed, Features(pipelining=True, chunking=True), StageTimeouts(), max_messages=3, together=5)
    session.next_write(1.0)
    session.receive(b"250 ok\r\n250 ok\r\n", 1.0)
    session.next_write(1.0)
    session.receive(b"250 2.0.0 taken\r\n", 1.0)
    late = session.next_write(1.0)
    assert late.count(b"MAIL") == 2
    assert session.take_back(late, 5.0) == b""
    assert (session.state, session.is_worn_out) == (State.OPEN, False)
    session.next_write(5.0)
    session.receive(b"250 ok\r\n250 ok\r\n", 5.0)
    assert session.next_write(5.0).count(b"MAIL") == 1
    assert session.is_worn_out


class Stops:
    """A pool and a transport, and a clock between whose looks the process may have stood still."""

    def __init__(self, looks: list[float]) -> None:
        self.looks, self.written, self.idle = looks, [], 0

    def time(self) -> float:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def write(self, octets: bytes) -> None:
        self.written.append(octets)

    def became_idle(self, connection: Connection) -> None:
        self.idle += 1

    def set_write_buffer_limits(self, **limits: int) -> None: ...
    def set_protocol(self, protocol: object) -> None: ...
    def get_extra_info(self, name: str) -> None: ...


@pytest.mark.parametrize(("looks", "mails", "idle"), [([1.0, 1.0, 1.05], 1, 0), ([1.0, 1.0, 1.2], 0, 1), ([1.0, 1.0, 6.0], 0, 1)])
def test_a_process_that_stands_still_before_the_write_begins_no_message(looks: list[float], mails: int, idle: int) -> None:
    feed = Feed([Delivery(0, b"a@x", b"b@y", b"A: b\r\n\r\nx\r\n")])
    stops = Stops(looks)
    connection = Connection(stops, Session(feed, Features(pipelining=True), StageTimeouts()), stops, stops.time)  # type: ignore[arg-type]
    assert connection.pull() is bool(mails)
    assert b"".join(stops.written).count(b"MAIL FROM") == mails
    assert stops.idle == idle
