"""Peers that send too much, or nonsense: what they send is not kept, and nothing they do escapes as an exception."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from itertools import chain, repeat

import msgspec
import pytest

from sendengine.channel.flight import Features, State
from sendengine.channel.opening import Opened, TlsContexts, open_session
from sendengine.channel.session import Session
from sendengine.channel.settings import SmtpSettings, StageTimeouts
from sendengine.reply import MAX_LINE, MAX_REPLY
from sendengine.types import Attempt, Relay, Stage, TlsPolicy
from tests.dialogues.strict import Feed, Plan
from tests.dialogues.test_cuts import ACCEPTED, deliveries_of, plan_of

READ = 65536  # octets that a transport hands over at once
ENDLESS = {
    "line": b"x",
    "reply": b"250-more\r\n",
    "empty_lines_of_a_reply": b"250-\r\n",
    "line_of_a_reply": b"250-xxxxxxxxx",
    "nul": b"\x00",
    "eightbit": b"\xff\xfe",
    "replies": b"250 more\r\n",
    "line_ends": b"\r\n",
}


def pipelined() -> tuple[Feed, Session]:
    plan: Plan = plan_of(Features(pipelining=True), ACCEPTED)
    feed = Feed(deliveries_of(plan))
    return feed, Session(feed, plan.features, StageTimeouts())


def kept(session: Session) -> int:
    parser = session._parser
    return len(parser._rest) + sum(map(len, parser._lines))


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("size", [3, 1500, READ])
def test_what_a_session_keeps_of_an_endless_peer_is_bounded(name: str, size: int) -> None:
    feed, session = pipelined()
    session.next_write(0.0)
    said = ENDLESS[name] * (2 * MAX_REPLY // len(ENDLESS[name]) + 1)
    for count, at in enumerate(range(0, len(said), size)):
        session.receive(said[at : at + size], 1.0)
        assert count % 256 or kept(session) <= MAX_REPLY + MAX_LINE + size
        if session.state is State.ENDED:
            break
    assert session.state is State.ENDED
    assert kept(session) <= MAX_REPLY + MAX_LINE + size
    assert len(feed.attempts) == 1


def test_a_session_without_bounds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sendengine.reply.MAX_LINE", 1 << 40)
    _, session = pipelined()
    session.next_write(0.0)
    for _ in range(3):
        session.receive(b"x" * READ, 1.0)
    assert kept(session) > MAX_REPLY + MAX_LINE + READ
    assert session.state is not State.ENDED


def test_a_thousand_hostile_sessions_leave_nothing_behind() -> None:
    """What outlives a session is the reply caches; 64 MB of long lines, each another one, must not stay in them."""
    tracemalloc.start()
    try:
        for number in range(1000):
            _, session = pipelined()
            session.next_write(0.0)
            session.receive(b"250 %d" % number + b"x" * READ, 1.0)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 2_000_000


def nonsense(dice: random.Random) -> bytes:
    words = [
        b"220 hi\r\n", b"250-x\r\n", b"250 PIPELINING\r\n", b"250-STARTTLS\r\n", b"250-AUTH PLAIN LOGIN CRAM-MD5\r\n", b"334 \r\n",
        b"334 !!\r\n", b"334 w6k=\r\n", b"235 ok\r\n", b"421 \xe9\r\n", b"-1 x\r\n", b"+25 x\r\n", b"2_0 x\r\n", b"250", b"\r", b"\n",
        b"999 x\r\n", b"\x00\xff\r\n", b"250-AUTH\r\n", b"250-SIZE x\r\n", b"250-AUTH=\xff\r\n", b"550 5.7.1 no\r\n", b"16\x03\x01\r\n",
    ]  # fmt: skip
    return b"".join(dice.choice(words) for _ in range(dice.randint(1, 4)))


async def serve_nonsense(dice: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Plausible up to a point, then anything, then the end."""
    try:
        talk = [b"220 hi\r\n", b"250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n", b"334 PDFAeD4=\r\n"]
        for said in chain(talk[: dice.randint(0, 3)], (nonsense(dice) for _ in repeat(None, 6))):
            writer.write(said)
            await asyncio.wait_for(reader.readline(), 0.02)
    except (TimeoutError, ConnectionError, ValueError):
        pass
    writer.close()


@pytest.mark.parametrize("tls", [TlsPolicy.NONE, TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED])
async def test_nonsense_before_mail_is_an_attempt(tls: TlsPolicy) -> None:
    dice = random.Random(20_240_517)
    timeouts = StageTimeouts(greeting=3.0, ehlo=3.0, starttls=3.0, auth=3.0)  # the peer leaves before that
    settings, contexts = SmtpSettings(hostname="client.example", timeouts=timeouts), TlsContexts()
    server = await asyncio.start_server(lambda r, w: serve_nonsense(dice, r, w), "127.0.0.1", 0)
    relay = Relay("127.0.0.1", server.sockets[0].getsockname()[1], "u", "p", tls)
    met: list[Attempt | Opened] = await asyncio.gather(
        *(open_session(relay, settings, contexts, "client.example", 0.0) for _ in range(150))
    )
    server.close()
    attempts = [result for result in met if isinstance(result, Attempt)]
    assert {attempt.stage for attempt in attempts} >= {Stage.CONNECT, Stage.EHLO}
    assert all(msgspec.json.encode(attempt) for attempt in attempts)
    for result in met:
        if isinstance(result, Opened):
            result.transport.abort()
