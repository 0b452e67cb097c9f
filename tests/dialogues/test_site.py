"""How many sessions there are, when, and what becomes of a relay in trouble. Real sockets, a clock turned by hand."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import termios
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from sendengine.channel.memory import MemoryChannel
from sendengine.channel.settings import SmtpSettings
from sendengine.channel.site import SmtpSite
from sendengine.channel.smtp import SmtpChannel
from sendengine.ports import Channel, Site
from sendengine.types import Attempt, Envelope, Fault, Relay, Reply, Stage, TlsPolicy
from tests.dialogues.player import CERTIFICATE, Delivery


class HandClock:
    """Time that the test turns; callbacks fall due in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self._due.append((when, len(self._due), callback))

    def turn(self, seconds: float) -> None:
        until = self.now + seconds
        while ready := [entry for entry in self._due if entry[0] <= until]:
            entry = min(ready, key=lambda entry: entry[:2])
            self._due.remove(entry)
            self.now = max(self.now, entry[0])
            entry[2]()
        self.now = until


class Feed:
    def __init__(self, count: int) -> None:
        self.waiting = [Delivery(n, b"a@example.com", b"b@example.net", b"A: b\r\n\r\nx\r\n") for n in range(count)]
        self.attempts: list[Attempt] = []
        self.changed = asyncio.Event()

    def next(self, in_company: bool = False) -> Envelope | None:
        self.changed.set()
        return self.waiting.pop(0) if self.waiting else None

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Relay25:
    """A peer without PIPELINING that answers everything except, until told, the dot; with TLS if wanted."""

    def __init__(self, answers_dot: bool = True, offers: str = "250 ok") -> None:
        self.dot = asyncio.Event()
        self._offers = offers
        if answers_dot:
            self.dot.set()
        self.open = self.most = self.quits = 0
        self.changed: Callable[[], None] = lambda: None
        self.writers: list[asyncio.StreamWriter] = []

    def hang_up(self) -> None:
        """As a process that dies: nobody listens any more, and every connection is reset."""
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def __aenter__(self) -> Relay25:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dot.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.writers.append(writer)
        self.most = max(self.most, self.open)
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            if line == b"STARTTLS\r\n":
                writer.write(b"220 go\r\n")
                await writer.start_tls(server_context())
                continue
            if line == b"DATA\r\n":
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                await self.dot.wait()
            self.quits += line == b"QUIT\r\n"
            writer.write(f"{self._offers}\r\n".encode() if line.startswith(b"EHLO") else b"250 ok\r\n")
        self.open -= 1
        self.changed()
        writer.close()


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


def made(
    port: int, feed: Feed, clock: HandClock, tls: TlsPolicy = TlsPolicy.NONE, **settings: Any
) -> tuple[SmtpChannel, SmtpSite]:
    channel = SmtpChannel(SmtpSettings(hostname="x.example", **settings), clock, random=lambda: 0.5)
    site = channel.site(Relay("127.0.0.1", port, tls=tls), feed, feed.changed.set)
    return channel, site


async def test_sessions_grow_while_all_are_busy_up_to_the_limit() -> None:
    feed, clock = Feed(20), HandClock()
    async with Relay25(answers_dot=False) as relay:
        channel, site = made(relay.port, feed, clock, sessions=3)
        for sessions in (1, 2, 3):
            site.wake()
            await feed.until(lambda sessions=sessions: len(feed.waiting) == 20 - sessions)  # type: ignore[misc]
        for _ in range(5):
            site.wake()
        relay.dot.set()
        await feed.until(lambda: len(feed.attempts) == 20)
        await channel.close(1.0)
    assert (relay.most, relay.quits) == (3, 3)
    assert {attempt.stage for attempt in feed.attempts} == {Stage.DOT}


async def test_an_idle_session_pulls_at_once_and_no_other_is_opened() -> None:
    feed, clock = Feed(1), HandClock()
    async with Relay25() as relay:
        channel, site = made(relay.port, feed, clock)
        site.wake()
        await feed.until(lambda: site.idle == 1)
        feed.waiting = Feed(1).waiting
        site.wake()
        assert (feed.waiting, site.idle) == ([], 0)
        await feed.until(lambda: len(feed.attempts) == 2)
        await channel.close(1.0)
        assert relay.most == 1


async def test_an_idle_session_over_tls_pulls_at_once_and_says_quit() -> None:
    """asyncio's TLS transport, unlike its TCP one, calls an empty buffer full where the high-water mark is zero."""
    feed, clock = Feed(1), HandClock()
    async with Relay25(offers="250-ok\r\n250 STARTTLS") as relay:
        channel, site = made(relay.port, feed, clock, tls=TlsPolicy.REQUIRED)
        site.wake()
        for count in range(1, 5):
            await feed.until(lambda count=count: len(feed.attempts) == count and site.idle == 1)  # type: ignore[misc]
            for _ in range(10):  # until the transport has looked at its buffer
                await asyncio.sleep(0)
            feed.waiting = Feed(1).waiting
            site.wake()
            assert (feed.waiting, site.idle) == ([], 0)
        await feed.until(lambda: site.idle == 1)
        relay.changed = feed.changed.set
        await channel.close(1.0)
        await feed.until(lambda: relay.quits == 1)
        assert relay.most == 1


@pytest.mark.parametrize("tls", [TlsPolicy.NONE, TlsPolicy.REQUIRED])
def test_a_mail_has_left_when_the_clock_was_looked_at(tls: TlsPolicy) -> None:
    """Under the loop that workers run: it does not wait for the others of its turn, in which the process may be stopped."""

    async def look() -> None:
        feed, clock = Feed(0), HandClock()
        async with Relay25(offers="250-ok\r\n250 STARTTLS") as relay:
            channel, site = made(relay.port, feed, clock, tls=tls)
            site.wake()
            await feed.until(lambda: site.idle == 1)
            [writer] = relay.writers
            at_peer = bytearray(4)
            fcntl.ioctl(writer.get_extra_info("socket"), termios.FIONREAD, at_peer)
            assert not any(at_peer)
            feed.waiting = Feed(1).waiting
            site.wake()
            fcntl.ioctl(writer.get_extra_info("socket"), termios.FIONREAD, at_peer)
            assert any(at_peer)
            await feed.until(lambda: len(feed.attempts) == 1)
            await channel.close(1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(look())


async def test_a_relay_that_refuses_is_tried_again_ever_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    feed, clock = Feed(1), HandClock()
    channel, site = made(port, feed, clock)
    site.wake()
    delays = []
    for failure in range(1, 9):
        await feed.until(lambda failure=failure: site._failures == failure)  # type: ignore[misc]
        assert site.trouble is not None
        delays.append(site.trouble.retry_at - clock.now)
        site.wake()  # does not hurry it
        clock.turn(delays[-1])
    assert delays == pytest.approx([1.15 * seconds for seconds in (1, 2, 4, 8, 16, 20, 20, 20)])  # 0 to 30 % later, by chance
    assert site.trouble is not None
    assert (site.trouble.attempt.stage, site.trouble.attempt.fault) == (Stage.CONNECT, Fault.REFUSED)
    assert site.trouble.since == 1000.0
    assert len(feed.waiting) == 1
    await channel.close(1.0)


@pytest.mark.parametrize("throttled", [False, True])
async def test_a_relay_at_rest_is_not_tried_again_until_it_is_needed(throttled: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    feed, clock = Feed(1), HandClock()
    channel, site = made(port, feed, clock)
    site.warm()
    await feed.until(lambda: site.trouble is not None)
    if throttled:
        site.throttle(30.0, "slower")
    site.rest()
    clock.turn(600.0)
    assert not site._opening
    assert site.trouble is not None or throttled, "who comes to it is told what it was last"
    site.warm()
    assert site._opening
    await channel.close(1.0)


async def test_sessions_that_end_together_are_one_failure() -> None:
    """A relay that restarts cuts all of them at once: that is no reason to leave it alone for a minute."""
    feed, clock = Feed(20), HandClock()
    async with Relay25(answers_dot=False) as relay:
        _, site = made(relay.port, feed, clock, sessions=8)
        for sessions in range(1, 9):
            site.wake()
            await feed.until(lambda sessions=sessions: len(feed.waiting) == 20 - sessions)  # type: ignore[misc]
        relay.hang_up()
        await feed.until(lambda: not site.sessions)
        assert site.trouble is not None
        assert 1.0 - 1e-6 <= site.trouble.retry_at - clock.now <= 1.3 + 1e-6


async def test_a_relay_that_comes_back_gets_its_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    feed, clock = Feed(1), HandClock()
    channel, site = made(port, feed, clock)
    site.warm()
    await feed.until(lambda: site.trouble is not None)
    relay = Relay25()
    server = await asyncio.start_server(relay._serve, "127.0.0.1", port)
    clock.turn(1.3)
    await feed.until(lambda: len(feed.attempts) == 1)
    assert (site.is_open, site.trouble) == (True, None)
    await channel.close(1.0)
    server.close()


async def test_a_throttled_site_pulls_nothing_until_its_time() -> None:
    feed, clock = Feed(1), HandClock()
    async with Relay25() as relay:
        channel, site = made(relay.port, feed, clock)
        site.wake()
        await feed.until(lambda: site.idle == 1)
        feed.waiting = Feed(1).waiting
        site.throttle(30.0, "they said so")
        site.wake()
        clock.turn(29.0)
        assert len(feed.waiting) == 1
        assert site.trouble is not None
        assert (site.is_open, site.trouble.attempt.detail) == (False, "they said so")
        clock.turn(1.0)
        await feed.until(lambda: len(feed.attempts) == 2)
        assert site.is_open
        await channel.close(1.0)


async def test_close_reports_what_is_unanswered_as_doubtful() -> None:
    feed, clock = Feed(2), HandClock()
    async with Relay25(answers_dot=False) as relay:
        channel, site = made(relay.port, feed, clock, sessions=1)
        site.wake()
        await feed.until(lambda: len(feed.waiting) == 1)
        for _ in range(1000):  # until the dot is out
            await asyncio.sleep(0)
        await channel.close(0.05)
    [attempt] = feed.attempts
    assert (attempt.stage, attempt.fault) == (Stage.DOT, Fault.DISCONNECTED)
    assert len(feed.waiting) == 1


@pytest.mark.parametrize("latency", [0.0, 0.01])
async def test_the_memory_twin_answers_by_its_script(latency: float) -> None:
    feed, clock = Feed(3), HandClock()
    refused = Attempt(Stage.RCPT, Reply(550, "5.1.1", "unknown"), None, 0.0, 0.0)
    channel = MemoryChannel(clock, lambda _: refused, sessions=2, latency=latency)
    site = channel.site(Relay("memory"), feed, lambda: None)
    site.wake()
    assert len(feed.waiting) == 1
    site.throttle(5.0, "later")
    clock.turn(4.0)
    assert (len(feed.attempts), len(feed.waiting), site.is_open) == (2, 1, False)
    clock.turn(2.0)
    assert [attempt.stage for attempt in feed.attempts] == [Stage.RCPT] * 3
    assert feed.attempts[2].mail_at == 1005.0
    await channel.close(1.0)


async def test_the_memory_twins_trouble_ends_though_its_timer_rings_early() -> None:
    class EarlyClock(HandClock):
        def call_at(self, when: float, callback: Callable[[], None]) -> None:
            super().call_at(when - 1e-9, callback)  # a loop's timers ring by the resolution of its clock too soon

    feed, clock = Feed(1), EarlyClock()
    site = MemoryChannel(clock).site(Relay("memory"), feed, lambda: None)
    site.throttle(5.0, "later")
    clock.turn(6.0)
    assert (site.trouble, site.is_open, feed.waiting) == (None, True, [])


def test_both_channels_are_channels() -> None:
    """Checked by mypy; here only that nothing is missing."""
    channels: list[type[Channel]] = [SmtpChannel, MemoryChannel]
    sites: list[type[Site]] = [SmtpSite]
    closes: list[Callable[..., Coroutine[Any, Any, None]]] = [channel.close for channel in channels]
    assert all(closes)
    assert all(hasattr(site, "wake") for site in sites)
