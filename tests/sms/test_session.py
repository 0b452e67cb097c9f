"""One bind, said and answered octet by octet: every delivery ends once, and never as something that the peer may not have meant."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpp34 import DeliverSm, Tlv

from sendengine.channel.smpp import pdu
from sendengine.channel.smpp.pdu import Command
from sendengine.channel.smpp.session import State
from sendengine.policy.replies import ReplyRules
from sendengine.policy.verdict import Action, SendPolicy, judge
from sendengine.types import Attempt, Fault, Receipt, Stage
from tests.sms.peer import PROVIDER, Peer, Sms, read

A, B = "+46700000001", "+46700000002"


def action(attempt: Attempt) -> Action:
    return judge(attempt, 0, 0.0, SendPolicy(), ReplyRules([])).action


def test_bind_says_who_we_are_and_nothing_goes_before_its_answer() -> None:
    peer = Peer(Sms(A))
    peer.session.pull(peer.now)
    assert peer.read() == []
    [bind] = peer.said
    assert (bind.command, bind.body) == (Command.BIND_TRANSCEIVER, b"me\0secret\0\0\x34\0\0\0")
    peer.bind()
    assert peer.session.state is State.BOUND
    assert len(peer.submits) == 1


def test_message_is_submitted_with_its_sender_number_and_text_and_accepted() -> None:
    peer = Peer(Sms(A, "Grüße €")).bind()
    sent = read(peer.submits[0])
    assert (sent.source_addr, sent.source_addr_ton, sent.destination_addr, sent.dest_addr_ton) == ("ACME", 5, A[1:], 1)
    assert (sent.data_coding, sent.short_message, sent.esm_class, sent.registered_delivery) == (0, b"Gr\x7e\x1ee \x1b\x65", 0, 1)
    peer.now += 2.0
    peer.accept(peer.submits[0], "4711")
    attempt = peer.feed.attempts[A]
    assert action(attempt) is Action.SENT
    assert (attempt.mail_at, attempt.ended_at, attempt.message_ids, attempt.connect) == (1000.0, 1002.0, ("4711",), 0.5)


def test_answers_are_matched_by_number_in_any_order() -> None:
    peer = Peer(Sms(A), Sms(B)).bind()
    one, two = peer.submits
    peer.refuse(two, 0x0B)
    peer.accept(one)
    assert {name: action(attempt) for name, attempt in peer.feed.attempts.items()} == {A: Action.SENT, B: Action.BOUNCED}


def test_window_is_filled_and_never_more() -> None:
    peer = Peer(*(Sms(f"+4670000{n:04}") for n in range(25))).bind()
    assert len(peer.submits) == 10
    for n in range(15):
        peer.accept(peer.submits[n])
        assert len(peer.submits) == 11 + n
    assert len(peer.feed.done_) == 15


def test_bind_on_trial_submits_one_at_a_time_until_one_was_answered() -> None:
    peer = Peer(*(Sms(f"+4670000{n:04}") for n in range(25)), is_on_trial=True).bind()
    assert len(peer.submits) == 1
    peer.refuse(peer.submits[0], 0x0B)
    assert len(peer.submits) == 11


def test_parts_go_one_behind_the_other_with_one_reference() -> None:
    peer = Peer(Sms(A, "x" * 400)).bind()
    for n in range(3):
        assert len(peer.submits) == n + 1
        part = read(peer.submits[n])
        assert (part.esm_class, part.short_message[:6]) == (0x40, bytes((5, 0, 3, 1, 3, n + 1)))
        assert peer.feed.done_ == []
        peer.accept(peer.submits[n], f"id{n}")
    assert peer.feed.attempts[A].message_ids == ("id0", "id1", "id2")
    assert b"".join(read(one).short_message[6:] for one in peer.submits) == b"x" * 400


def test_part_in_the_middle_that_is_refused_or_lost_ends_the_message() -> None:
    peer = Peer(Sms(A, "x" * 400), Sms(B, "x" * 400)).bind()
    one, two = peer.submits
    peer.accept(one)
    peer.accept(two)
    peer.refuse(peer.submits[2], 0x0B)
    peer.session.break_off(peer.now, Fault.DISCONNECTED, "gone")
    assert {name: action(attempt) for name, attempt in peer.feed.attempts.items()} == {A: Action.BOUNCED, B: Action.DOUBTFUL}


def test_throttled_message_is_returned_and_the_pace_slackens() -> None:
    peer = Peer(*(Sms(f"+4670000{n:04}") for n in range(30))).bind()
    for one in peer.submits[:10]:
        peer.refuse(one, 0x58)
    assert {action(attempt) for _, attempt in peer.feed.done_} == {Action.RETURNED}
    assert len(peer.submits) == 10
    assert peer.pass_time(0.4) == []
    assert len(peer.pass_time(0.2)) >= 1


def test_part_that_is_throttled_behind_one_that_was_taken_is_submitted_again() -> None:
    peer = Peer(Sms(A, "x" * 200)).bind()
    peer.accept(peer.submits[0])
    peer.refuse(peer.submits[1], 0x14)
    assert peer.feed.done_ == []
    peer.pass_time(1.0)
    assert read(peer.submits[2]).short_message == read(peer.submits[1]).short_message
    peer.accept(peer.submits[2])
    assert action(peer.feed.attempts[A]) is Action.SENT


def test_answer_that_never_comes_is_a_doubt_and_the_bind_goes_on() -> None:
    provider = msgspec.structs.replace(PROVIDER, enquire_link_s=1000.0)
    peer = Peer(Sms(A), Sms(B), provider=provider).bind()
    peer.accept(peer.submits[1])
    peer.pass_time(59.0)
    assert A not in peer.feed.attempts
    peer.pass_time(1.0)
    assert action(peer.feed.attempts[A]) is Action.DOUBTFUL
    assert peer.session.state is State.BOUND
    peer.accept(peer.submits[0])  # too late: it is done already
    peer.feed.waiting.append(Sms("+46700000003"))
    peer.session.pull(peer.now)
    assert len(peer.read()) == 1


def test_connection_that_is_lost_leaves_all_that_was_submitted_in_doubt() -> None:
    peer = Peer(*(Sms(f"+4670000{n:04}") for n in range(12))).bind()
    peer.session.break_off(peer.now, Fault.DISCONNECTED, "reset")
    assert [action(attempt) for _, attempt in peer.feed.done_] == [Action.DOUBTFUL] * 10
    assert len(peer.feed.waiting) == 2
    peer.session.break_off(peer.now, Fault.DISCONNECTED, "again")
    assert len(peer.feed.done_) == 10


def test_one_that_goes_alone_has_no_company() -> None:
    peer = Peer(Sms(A), Sms(B, is_alone=True), Sms("+46700000003")).bind()
    assert len(peer.submits) == 1
    peer.accept(peer.submits[0])
    assert len(peer.submits) == 2
    peer.session.break_off(peer.now, Fault.DISCONNECTED, "reset")
    assert [name for name, attempt in peer.feed.done_ if action(attempt) is Action.DOUBTFUL] == [B]


def test_silent_peer_is_asked_and_then_given_up() -> None:
    peer = Peer().bind()
    assert peer.pass_time(29.0) == []
    [asked] = peer.pass_time(1.0)
    assert asked.command == Command.ENQUIRE_LINK
    peer.receive(pdu.answer_to(asked))
    assert peer.pass_time(29.0) == []
    assert len(peer.pass_time(1.0)) == 1
    peer.pass_time(30.0)
    assert peer.session.state is State.ENDED
    assert peer.session.ended_by is not None
    assert peer.session.ended_by.fault is Fault.TIMEOUT


def test_enquiry_and_unbind_of_the_peer_are_answered() -> None:
    peer = Peer(Sms(A)).bind()
    [answer] = peer.receive(pdu.pdu(Command.ENQUIRE_LINK, 77))
    assert (answer.command, answer.sequence) == (0x80000015, 77)
    peer.receive(pdu.pdu(Command.UNBIND, 78))
    assert peer.said[-1].command == 0x80000006
    assert action(peer.feed.attempts[A]) is Action.DOUBTFUL
    assert peer.session.state is State.ENDED


def test_bind_that_is_not_answered_is_given_up_soon() -> None:
    peer = Peer(Sms(A))
    peer.pass_time(14.9)
    assert peer.session.state is State.BINDING
    peer.pass_time(0.1)
    assert peer.session.ended_by is not None
    assert (peer.session.ended_by.stage, peer.session.ended_by.fault) == (Stage.EHLO, Fault.TIMEOUT)
    assert peer.feed.done_ == []


def test_refused_bind_is_trouble_of_the_password() -> None:
    peer = Peer(Sms(A))
    peer.refuse(peer.said[0], 0x0E)
    assert peer.session.ended_by is not None
    assert peer.session.ended_by.stage is Stage.AUTH
    assert peer.feed.done_ == []


def test_unbind_waits_for_what_is_on_its_way() -> None:
    peer = Peer(Sms(A), Sms(B)).bind()
    peer.session.unbind(peer.now)
    peer.feed.waiting.append(Sms("+46700000003"))
    assert peer.pass_time(0.5) == []
    for one in peer.submits:
        peer.accept(one)
    [unbind] = peer.pass_time(0.5)
    assert unbind.command == Command.UNBIND
    peer.receive(pdu.answer_to(unbind))
    assert (peer.session.state, peer.session.ended_by) == (State.ENDED, None)
    assert len(peer.feed.waiting) == 1


def deliver(text: str = "", esm_class: int = 4, tlvs: list[Tlv] | None = None) -> bytes:
    octets: bytes = DeliverSm("46701", "ACME", text.encode(), esm_class=esm_class, sequence_number=9, tlvs=tlvs or []).encode()
    return octets


def test_receipts_are_answered_and_told_and_messages_of_people_are_only_answered() -> None:
    peer = Peer().bind()
    payload = deliver("", tlvs=[Tlv(0x424, b"id:2 stat:REJECTD err:7")])
    by_tlv = deliver("", tlvs=[Tlv(0x1E, b"abc\0"), Tlv(0x427, b"\x05")])
    said = (deliver("id:1 stat:DELIVRD err:000"), deliver("hello", esm_class=0), by_tlv, deliver("id:1 stat:ENROUTE"), payload)
    for octets in said:
        [answer] = peer.receive(octets)
        assert (answer.command, answer.sequence, answer.status) == (0x80000005, 9, 0)
    assert peer.feed.receipts == [Receipt("1", "DELIVRD", "000"), Receipt("abc", "UNDELIV", ""), Receipt("2", "REJECTD", "7")]


def test_unknown_command_is_told_so() -> None:
    [nack] = Peer().bind().receive(pdu.pdu(0x111, 5, b"xx"))
    assert (nack.command, nack.sequence, nack.status) == (Command.GENERIC_NACK, 5, 3)


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x0f" + bytes(12), b"\xff" * 40, deliver("x" * 99)[:-70].replace(b"\0\0\0", b"\0\0\1", 1)]
)
def test_what_is_no_smpp_ends_the_session_and_leaves_a_doubt(octets: bytes) -> None:
    peer = Peer(Sms(A)).bind()
    peer.receive(octets)
    if peer.session.state is not State.ENDED:  # it announced more than came
        peer.session.break_off(peer.now, Fault.DISCONNECTED, "gone")
    assert action(peer.feed.attempts[A]) is Action.DOUBTFUL


@given(st.lists(st.binary(max_size=200), max_size=6), st.booleans())
def test_whatever_the_peer_says_each_delivery_ends_at_most_once(said: list[bytes], is_bound: bool) -> None:
    peer = Peer(*(Sms(f"+4670000{n:04}") for n in range(12)))
    if is_bound:
        peer.bind()
    for octets in said:
        frame = (len(octets) + 4).to_bytes(4, "big") + octets if len(octets) >= 12 else octets
        peer.receive(frame)
    peer.session.break_off(peer.now, Fault.DISCONNECTED, "gone")
    assert len(peer.feed.attempts) + len(peer.feed.waiting) == 12
    assert not any(action(attempt) is Action.SENT and not attempt.mail_at for attempt in peer.feed.attempts.values())


@given(st.lists(st.integers(1, 7), max_size=60), st.lists(st.integers(0, 9), max_size=30))
def test_answers_in_pieces_are_the_same_answers(cuts: list[int], order: list[int]) -> None:
    peer = Peer(*(Sms(f"+4670000{n:04}") for n in range(10))).bind()
    stream = b"".join(pdu.answer_to(peer.submits[n], body=b"%d\0" % n) for n in dict.fromkeys(order))
    for size in [*cuts, len(stream)]:
        peer.receive(stream[:size])
        stream = stream[size:]
    assert [attempt.message_ids for _, attempt in peer.feed.done_] == [(str(n),) for n in dict.fromkeys(order)]
