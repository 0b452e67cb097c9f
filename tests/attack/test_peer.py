"""The same against a real server, end to end over a socket: aiosmtpd takes what was meant, of whom it was meant, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from sendengine.channel.smtp import SmtpChannel, SmtpSettings
from sendengine.errors import SendEngineError
from sendengine.types import Attempt, Relay, TlsPolicy
from sendengine.types import Envelope as Outgoing
from sendengine.wiring import LoopClock
from tests.attack.corpus import PAYLOADS, ours
from tests.attack.sending import TO, Mail, made, render
from tests.attack.wire import read, unstuffed


class Taker:
    """aiosmtpd's handler: everything it is given, and everything it was told at EHLO."""

    def __init__(self) -> None:
        self.taken: list[tuple[str | None, list[str], bytes]] = []
        self.hosts: list[str] = []

    async def handle_EHLO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> list[str]:
        session.host_name = hostname
        self.hosts.append(hostname)
        return responses

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.original_content, bytes)
        self.taken.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.original_content))
        return "250 taken"


class Feed:
    def __init__(self, mails: list[Mail]) -> None:
        self.waiting = list(mails)
        self.left = len(mails)
        self.attempts: list[Attempt] = []
        self.is_over = asyncio.Event()

    def next(self, in_company: bool = False) -> Outgoing | None:
        return self.waiting.pop(0) if self.waiting else None

    def done(self, delivery: Outgoing, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        if len(self.attempts) == self.left:
            self.is_over.set()


@asynccontextmanager
async def peer(taker: Taker) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(taker, hostname="peer.example", enable_SMTPUTF8=False), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def send(mails: list[Mail], hostname: str = "sender.example") -> tuple[Taker, list[Attempt]]:
    taker, feed = Taker(), Feed(mails)
    async with peer(taker) as port:
        channel = SmtpChannel(SmtpSettings(hostname=hostname, sessions=1), LoopClock())
        site = channel.site(Relay("127.0.0.1", port, tls=TlsPolicy.NONE), feed, lambda: None)
        site.wake()
        async with asyncio.timeout(30):
            await feed.is_over.wait()
        await channel.close(5.0)
    return taker, feed.attempts


def rendered(value: str) -> list[bytes]:
    """The value in a header, in a name and in both bodies; those that are not refused."""
    messages = [
        made(subject="Hi {{ a }}"),
        made(sender="{{ a }} <news@example.org>"),
        made(text="{{ a }}\n.{{ a }}", html="{{ a }}"),
        made(list_unsubscribe="https://example.org/{{ a }}"),
    ]
    wires = (ours(lambda message=message: render(message, {"a": value})) for message in messages)  # type: ignore[misc]
    return [wire for wire in wires if not isinstance(wire, SendEngineError)]


async def test_every_payload_arrives_as_one_message_with_one_recipient() -> None:
    wires = [wire for payload in PAYLOADS for wire in rendered(payload)]
    assert len(wires) > len(PAYLOADS)
    taker, attempts = await send([Mail(wire, eightbit=not wire.isascii()) for wire in wires])
    assert {attempt.reply.code if attempt.reply else attempt.fault for attempt in attempts} == {250}
    assert [(sender, recipients) for sender, recipients, _ in taker.taken] == [("news@example.org", [TO])] * len(wires)
    assert [content for _, _, content in taker.taken] == [unstuffed(wire) for wire in wires]
    assert all("bcc" not in read(wire).names for wire in wires)


async def test_what_is_said_at_ehlo_is_what_was_configured() -> None:
    mail = Mail(render(made(), {}))
    for hostname in ("sender.example", "[127.0.0.1]", "[IPv6:::1]"):
        taker, _ = await send([mail], hostname)
        assert taker.hosts == [hostname]
        assert len(taker.taken) == 1


async def test_a_smuggled_second_message_is_found_out() -> None:
    """The control: octets that were not rendered by us, and this peer does take two messages of them."""
    naive = b"Subject: x\r\n\r\nx\r\n.\r\nMAIL FROM:<e@a.example>\r\nRCPT TO:<v@a.example>\r\nDATA\r\nx\r\n"
    taker, _ = await send([Mail(naive)])
    assert [sender for sender, _, _ in taker.taken][:2] == ["news@example.org", "e@a.example"]


@pytest.mark.parametrize("hostname", ["x\r\nMAIL FROM:<e@a.example>", "x\ny", "x y\r", "\0"])
async def test_a_host_name_that_was_not_judged_still_says_nothing_else(hostname: str) -> None:
    """Behind config.py's back: the site is in trouble, says so, and nothing was said."""
    taker = Taker()
    async with peer(taker) as port:
        channel = SmtpChannel(SmtpSettings(hostname=hostname, sessions=1), LoopClock())
        changed = asyncio.Event()
        site = channel.site(Relay("127.0.0.1", port, tls=TlsPolicy.NONE), Feed([]), changed.set)
        site.warm()
        async with asyncio.timeout(10):
            await changed.wait()
        assert site.trouble is not None
        await channel.close(1.0)
    assert taker.hosts == taker.taken == []
