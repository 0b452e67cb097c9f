"""A connection cut in the handshake, before any MAIL: at every octet said in clear, at a sample of those of TLS; both ways, in every way.

Whatever was cut: no delivery was touched, so no try is spent; the site is in trouble and backs off; and nobody waits for longer than the
stage's timeout and a second.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache

import msgspec
import pytest
import uvloop

from sendengine.channel.opening import TlsContexts
from sendengine.channel.settings import SmtpSettings, StageTimeouts
from sendengine.channel.site import SmtpSite
from sendengine.policy.verdict import Action, SendPolicy, judge
from sendengine.types import Attempt, Relay, Stage, TlsPolicy
from tests.dialogues.cutting import RULES, UNCUT, Cut, Way
from tests.dialogues.strict import Feed
from tests.dialogues.test_cuts import ACCEPTED, SESSIONS, deliveries_of, plan_of
from tests.dialogues.test_dialogues import LoopClock
from tests.dialogues.test_site import server_context

HANDSHAKE = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
PATIENCE = 0.5  # seconds, of each stage
AT_ONCE = 32
TLS_STEP = 23  # octets between two cuts in what is encrypted
UNSURE = 8  # octets by which one TLS handshake differs from the next: cuts end so much before the end


context = cache(server_context)


class Crossing(msgspec.Struct):
    """What crossed the line."""

    written: int = 0
    said: int = 0
    clear: tuple[int, int] = (0, 0)  # written and said when TLS began
    cut_at: float = 0.0  # seconds of the monotonic clock; 0.0: not yet
    has_mail: bool = False


class Peer:
    """It says what leads to MAIL."""

    def __init__(self, crossing: Crossing) -> None:
        self._crossing = crossing

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        is_private = False
        while line := await reader.readline():
            if line.startswith(b"EHLO"):
                offer = b"AUTH PLAIN" if is_private or not self.has_tls else b"STARTTLS"
                writer.write(b"250-peer.example\r\n250 %b\r\n" % offer)
            elif line == b"STARTTLS\r\n":
                writer.write(b"220 go\r\n")
                await writer.drain()
                await writer.start_tls(context())
                is_private = True
            elif line.startswith(b"AUTH"):
                writer.write(b"235 ok\r\n")
            else:
                self._crossing.has_mail |= line.startswith(b"MAIL")
                return

    has_tls = False


class TlsPeer(Peer):
    has_tls = True


class Line:
    """Carries octets both ways, and breaks where it is told to."""

    def __init__(self, port: int, cut: Cut, crossing: Crossing) -> None:
        self._port, self._cut, self._crossing = port, cut, crossing
        self._is_cut = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut.is_set():
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [asyncio.create_task(self._carry(reader, back, "written")), asyncio.create_task(self._carry(there, writer, "said"))]
        broken = asyncio.create_task(self._is_cut.wait())
        await asyncio.wait([*ways, broken], return_when=asyncio.FIRST_COMPLETED)
        for task in (*ways, broken):
            task.cancel()
        try:
            await self._break_off(reader, writer)
        except OSError:
            pass
        back.transport.abort()
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        limit: int = getattr(self._cut, name)
        while True:
            passed: int = getattr(self._crossing, name)
            if passed >= limit:
                self._crossing.cut_at = time.monotonic()
                self._is_cut.set()
                return
            octets = await reader.read(min(65536, limit - passed))
            if not octets:
                return
            setattr(self._crossing, name, passed + len(octets))
            writer.write(octets)
            if b"220 go\r\n" in octets:
                self._crossing.clear = (self._crossing.written, self._crossing.said)

    async def _break_off(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut.way is Way.RST:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif self._cut.way is Way.SILENCE and self._is_cut.is_set():
            while await reader.read(65536):
                pass


SETTINGS = SmtpSettings(hostname="x.example", timeouts=StageTimeouts(**dict.fromkeys(StageTimeouts.__struct_fields__, PATIENCE)))
CONTEXTS = TlsContexts()  # dear to make


async def cross(tls: TlsPolicy, cut: Cut) -> tuple[Crossing, Attempt | None, list[str]]:
    """One opening over such a line: what crossed, the site's trouble, and what must not be."""
    crossing, plan = Crossing(), plan_of(SESSIONS["unpipelined"], ACCEPTED)
    deliveries = [] if cut is UNCUT else deliveries_of(plan)  # nothing that follows the handshake is counted
    feed = Feed(list(deliveries))
    peer = (Peer if tls is TlsPolicy.NONE else TlsPeer)(crossing)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    line = await asyncio.start_server(Line(port_of(server), cut, crossing).serve, "127.0.0.1", 0)
    changed = asyncio.Event()
    relay = Relay("127.0.0.1", port_of(line), "user", "secret", tls)
    site = SmtpSite(relay, feed, changed.set, SETTINGS, CONTEXTS, lambda: "x.example", LoopClock(), random=lambda: 0.5)
    site.warm()
    with suppress(TimeoutError):  # then the site is not throttled, and that is found
        await asyncio.wait_for(changed.wait(), 20 * PATIENCE)
    crossed = msgspec.structs.replace(crossing)  # before QUIT
    waited = time.monotonic() - (crossing.cut_at or time.monotonic())
    trouble = site.trouble
    is_backing_off = trouble is not None and trouble.retry_at > time.monotonic() and not site.is_open
    found = []
    if cut is not UNCUT:
        found += ["the site is not throttled"] * (not is_backing_off)
        found += ["a delivery was touched"] * (bool(feed.attempts) or feed.waiting != deliveries or crossing.has_mail)
        found += [f"waited {waited:.1f} s"] * (waited > PATIENCE + 1.0)
    await site.close(0.0)
    for one in (line, server):
        one.close()
    return crossed, trouble.attempt if trouble else None, found


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


def cuts_of(whole: Crossing, way: Way) -> Iterator[Cut]:
    """Every octet in clear; of what is encrypted each 23rd."""
    written, said = whole.clear if any(whole.clear) else (whole.written, whole.said)
    unsure = UNSURE if any(whole.clear) else 0
    yield from (Cut(way, written=at) for at in (*range(written), *range(written, whole.written - unsure, TLS_STEP)))
    yield from (Cut(way, said=at) for at in (*range(said), *range(said, whole.said - unsure, TLS_STEP)))


def spends_nothing(attempt: Attempt | None) -> bool:
    if attempt is None or attempt.stage not in HANDSHAKE or attempt.mail_at:
        return False
    verdict = judge(attempt, 0, 0.0, SendPolicy(), RULES)
    return verdict.action is Action.DEFERRED and not verdict.spends_try


async def faults_of(way: Way, tls: TlsPolicy) -> tuple[int, list[str]]:
    whole, trouble, _ = await cross(tls, UNCUT)
    assert trouble is None
    cuts, found = list(cuts_of(whole, way)), []
    for at in range(0, len(cuts), AT_ONCE):
        batch = cuts[at : at + AT_ONCE]
        for cut, (_, attempt, wrong) in zip(batch, await asyncio.gather(*(cross(tls, cut) for cut in batch)), strict=True):
            found += [f"{cut}: {what}" for what in wrong]
            found += [f"{cut}: {attempt}"] * (not spends_nothing(attempt))
    return len(cuts), found


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])  # TLS is each one's own
@pytest.mark.parametrize("tls", [TlsPolicy.NONE, TlsPolicy.REQUIRED])
@pytest.mark.parametrize("way", [Way.FIN, Way.RST, Way.SILENCE])
def test_a_handshake_cut_at_any_octet_costs_nobody_a_try(way: Way, tls: TlsPolicy, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        cuts, found = runner.run(faults_of(way, tls))
    assert found == []
    assert cuts > 90
