"""Trains of messages at the session's own seams: when one may go, what of it is out, and whom a refusal concerns."""

from __future__ import annotations

import pytest

from sendengine.channel.flight import Features, State
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.channel.train import wagon
from sendengine.types import Fault, Stage
from tests.dialogues.player import Delivery
from tests.dialogues.strict import Feed

FEATURES = Features(pipelining=True, chunking=True)
TAKEN = b"250 ok\r\n" * 4


def deliveries(count: int) -> list[Delivery]:
    return [Delivery(n, b"a@example.com", b"r%d@example.net" % n, b"A: %d\r\n\r\nhi\r\n" % n) for n in range(1, count + 1)]


def proven(count: int, together: int = 3) -> tuple[Feed, Session]:
    """A session whose first chunk was accepted at 1.0; `count` messages wait."""
    feed = Feed(deliveries(1))
    session = Session(feed, FEATURES, StageTimeouts(body=10.0, dot=50.0), together=together)
    session.next_write(0.5)
    session.receive(b"250 ok\r\n250 ok\r\n", 0.5)
    session.next_write(0.5)
    session.receive(b"250 ok\r\n", 1.0)
    feed.attempts.clear()
    feed.waiting = deliveries(count)
    return feed, session


def met(feed: Feed) -> list[tuple[int, Stage, Fault | int]]:
    return [(number, attempt.stage, attempt.reply.code if attempt.reply else attempt.fault or 0) for number, attempt in feed.attempts]


def test_a_train_takes_what_is_there_and_waits_for_nobody() -> None:
    feed, session = proven(2)
    assert session.next_write(1.0) == b"".join(wagon(one, False) for one in deliveries(2))
    assert not session.has_more
    session.receive(TAKEN * 2, 2.0)
    assert met(feed) == [(1, Stage.DOT, 250), (2, Stage.DOT, 250)]
    assert session.is_idle


def test_two_trains_are_under_way_and_no_third() -> None:
    feed, session = proven(9)
    session.next_write(1.0)
    assert session.has_more
    session.next_write(1.0)
    assert not session.has_more
    assert session.next_write(1.0) == b""
    assert len(feed.waiting) == 3
    session.receive(TAKEN * 2, 2.0)
    assert session.next_write(2.0) == b"", "four are unanswered still"
    session.receive(TAKEN, 2.0)
    assert session.next_write(2.0) == b"".join(wagon(one, False) for one in deliveries(9)[6:])


def test_after_a_pause_a_peer_that_left_unseen_leaves_nobody_in_doubt() -> None:
    feed, session = proven(3)
    assert session.next_write(1.5).endswith(b"RCPT TO:<r1@example.net>\r\n")
    session.lost(2.0, "closed")
    assert met(feed) == [(1, Stage.MAIL, Fault.STALE)]
    assert len(feed.waiting) == 2


def test_behind_a_pause_the_train_goes_with_the_first_message() -> None:
    feed, session = proven(4)
    session.next_write(1.5)
    session.receive(b"250 ok\r\n250 ok\r\n", 2.0)
    octets = session.next_write(2.0)
    assert octets.startswith(b"BDAT ")
    assert octets.endswith(b"".join(wagon(one, False) for one in deliveries(4)[1:]))
    session.receive(b"250 ok\r\n" + TAKEN * 3, 3.0)
    assert [number for number, _, code in met(feed) if code == 250] == [1, 2, 3, 4]


def test_of_a_train_that_lies_in_the_transport_only_what_may_have_left_is_in_doubt() -> None:
    feed, session = proven(3)
    octets = session.next_write(1.0)
    lying = len(wagon(deliveries(3)[2], False)) + 1
    session.tick(2.0, len(octets))
    session.lost(3.0, "closed by us", unflushed=lying)
    assert met(feed) == [(1, Stage.DOT, Fault.DISCONNECTED), (2, Stage.BODY, Fault.DISCONNECTED), (3, Stage.BODY, Fault.DISCONNECTED)]


def test_a_train_of_which_nothing_has_left_whole_has_the_patience_of_a_body() -> None:
    feed, session = proven(3)
    octets = session.next_write(1.0)
    session.tick(1.0, len(octets))
    session.tick(10.9, len(octets))
    assert feed.attempts == []
    session.tick(11.0, len(octets))
    assert met(feed) == [(number, Stage.BODY, Fault.TIMEOUT) for number in (1, 2, 3)]


def test_an_answer_to_a_chunk_that_lies_here_is_none() -> None:
    feed, session = proven(2)
    octets = session.next_write(1.0)
    session.note_unflushed(len(octets) - len(wagon(deliveries(1)[0], False)))
    session.receive(TAKEN * 2, 1.0)
    assert met(feed) == [(1, Stage.DOT, 250), (2, Stage.BODY, Fault.PROTOCOL)]


def test_a_message_is_out_though_the_train_behind_it_is_not() -> None:
    """The second write lies in the transport: that says nothing of the first."""
    feed, session = proven(6)
    session.next_write(1.5)
    session.receive(b"250 ok\r\n250 ok\r\n", 2.0)
    session.next_write(2.0)  # the first message, and three behind it
    session.receive(b"2", 2.0)
    session.tick(2.5, 400)
    session.lost(3.0, "closed by us", unflushed=400)
    assert met(feed)[0] == (1, Stage.BODY, Fault.DISCONNECTED)

    feed, session = proven(6)
    session.next_write(1.5)
    session.receive(b"250 ok\r\n250 ok\r\n", 2.0)
    behind = len(session.next_write(2.0)) - len(b"BDAT 12 LAST\r\n" + deliveries(1)[0].wire)
    session.lost(3.0, "closed by us", unflushed=behind)
    assert met(feed)[0] == (1, Stage.DOT, Fault.DISCONNECTED)


def test_a_message_is_out_though_a_later_write_is_not() -> None:
    """One message at a time, too: MAIL of the next, written while half an answer was here, lay in the transport."""
    feed = Feed(deliveries(1))
    session = Session(feed, Features(pipelining=True), StageTimeouts())
    session.next_write(0.0)
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", 0.0)
    session.next_write(0.0)
    feed.waiting = deliveries(2)[1:]
    session.receive(b"25", 0.0)
    session.lost(1.0, "closed by us", unflushed=len(session.next_write(0.0)))
    assert met(feed)[0] == (1, Stage.DOT, Fault.DISCONNECTED)


def test_the_end_of_a_large_message_is_held_and_its_train_ends_there() -> None:
    feed, session = proven(3)
    feed.waiting[1] = Delivery(2, b"", b"r2@example.net", b"A: 2\r\n\r\n" + b"y" * 40000 + b"\r\n")
    octets = session.next_write(1.0)
    assert octets.endswith(b"y")
    assert session.has_more
    assert session.next_write(1.0) == b"\r\n"
    assert len(feed.waiting) == 1
    session.receive(TAKEN * 2, 2.0)
    assert [code for _, _, code in met(feed)] == [250, 250]


@pytest.mark.parametrize(("short_of_it", "stage"), [(0, Stage.DOT), (1, Stage.BODY)])
def test_a_message_is_out_though_the_train_behind_it_and_its_held_end_are_not(short_of_it: int, stage: Stage) -> None:
    feed, session = proven(2)
    feed.waiting[1] = Delivery(2, b"", b"r2@example.net", b"A: 2\r\n\r\n" + b"y" * 40000 + b"\r\n")
    session.next_write(1.5)
    session.receive(b"250 ok\r\n250 ok\r\n", 2.0)
    octets = session.next_write(2.0)
    assert session.has_more
    octets += session.next_write(2.0)
    behind = len(octets) - len(b"BDAT 12 LAST\r\n" + deliveries(1)[0].wire)
    session.note_unflushed(behind + short_of_it)
    session.lost(3.0, "closed by us", unflushed=behind + short_of_it)
    assert met(feed)[0] == (1, stage, Fault.DISCONNECTED)


@pytest.mark.parametrize("reply", [b"503 5.5.1 RCPT first\r\n", b"554 5.5.1 no valid recipients\r\n", b"451 4.3.0 later\r\n"])
@pytest.mark.parametrize("is_split", [False, True])
def test_the_answer_to_an_unwanted_chunk_is_no_verdict_and_no_word_on_chunking(reply: bytes, is_split: bool) -> None:
    feed, session = proven(2)
    session.next_write(1.0)
    said = [b"250 ok\r\n250 ok\r\n550 5.1.1 unknown\r\n", reply + TAKEN]
    for piece in said if is_split else [b"".join(said)]:
        session.receive(piece, 2.0)
    assert met(feed) == [(1, Stage.RCPT, 550), (2, Stage.DOT, 250)]
    assert not session.is_chunking_refused
    assert session.state is State.OPEN


@pytest.mark.parametrize(
    "said", [[b"250 ok\r\n250 ok\r\n550 5.1.1 unknown\r\n", b"250 taken\r\n"], [b"250 ok\r\n550 no\r\n", b"250 ok\r\n"]]
)
def test_who_accepts_what_it_refused_has_lost_count(said: list[bytes]) -> None:
    feed, session = proven(2)
    session.next_write(1.0)
    for piece in said:
        session.receive(piece, 2.0)
    assert met(feed)[1:] == [(2, Stage.DOT, Fault.PROTOCOL)]
    assert session.state is State.ENDED


def test_a_throttled_session_writes_no_train() -> None:
    _, session = proven(3)
    session.may_pull = False
    assert session.next_write(1.0) == b""


def test_without_pipelining_or_chunking_there_is_no_train() -> None:
    for features in (Features(pipelining=True), Features(chunking=True)):
        assert Session(Feed([]), features, StageTimeouts(), together=10).together == 1
