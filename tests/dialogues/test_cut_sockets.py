"""A sample of the cuts over real sockets, and Postfix's sink, which takes a message and hangs up without a word."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
import struct
from collections.abc import Iterator

import pytest

from sendengine.channel.flight import Features
from sendengine.channel.settings import SmtpSettings, StageTimeouts
from sendengine.channel.smtp import SmtpChannel
from sendengine.policy.verdict import Action
from sendengine.types import Relay, TlsPolicy
from tests.dialogues.cutting import Cut, Talk, Way, action_of, faults, talk
from tests.dialogues.strict import Feed, Plan, StrictPeer
from tests.dialogues.test_cuts import ACCEPTED, MIXED, SESSIONS, deliveries_of, plan_of
from tests.dialogues.test_dialogues import LoopClock
from tests.dialogues.test_miscounts import claims_too_much

SINK = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin")
OFFERS = {
    "pipelined": b"250-peer\r\n250 PIPELINING\r\n",
    "unpipelined": b"250-peer\r\n250 SIZE\r\n",
    "chunked": b"250-peer\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
}
AT_ONCE = 48


class CuttingPeer:
    """The strict peer on a socket. It breaks the first connection where it is told to, and takes no second one."""

    def __init__(self, plan: Plan, offers: bytes, cut: Cut) -> None:
        self.peer = StrictPeer(plan, deliveries_of(plan))
        self.is_asked = False
        self._offers, self._cut = offers, cut
        self._taken = self._said = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_asked:
            writer.transport.abort()
            return
        self.is_asked = True
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(self._offers)
        try:
            while not self._is_cut() and (octets := await reader.read(min(65536, self._cut.written - self._taken))):
                self._taken += len(octets)
                self._say(self.peer.hear(octets), writer)
            await self._break_off(reader, writer)
        except ConnectionError:
            pass

    def _say(self, said: bytes, writer: asyncio.StreamWriter) -> None:
        said = said[: self._cut.said - self._said]
        self._said += len(said)
        writer.write(said)

    def _is_cut(self) -> bool:
        return self._taken >= self._cut.written or self._said >= self._cut.said

    async def _break_off(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut.way is Way.RST:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif self._cut.way is Way.SILENCE:
            while await reader.read(65536):
                pass
        writer.close()


async def met_over_sockets(plan: Plan, offers: bytes, cut: Cut) -> list[str]:
    cutting, feed = CuttingPeer(plan, offers, cut), Feed(deliveries_of(plan))
    server = await asyncio.start_server(cutting.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await until_the_session_is_over(feed, port, patience=0.3 if cut.way is Way.SILENCE else 5.0)
    server.close()
    met = Talk(plan, feed.attempts, len(plan.vectors) - len(feed.waiting), cutting.peer.verdicts, set(), set())
    return [fault for fault in faults(met) if "reported" in fault] + [
        f"{number}: {action_of(attempt)}, the peer said {met.verdicts.get(number)}"
        for number, attempt in feed.attempts
        if claims_too_much(plan, cutting.peer, number, action_of(attempt), attempt.stage)
    ]


async def until_the_session_is_over(feed: Feed, port: int, patience: float) -> None:
    timeouts = StageTimeouts(**dict.fromkeys(StageTimeouts.__struct_fields__, patience))
    settings = SmtpSettings(hostname="x.example", sessions=1, tick=0.02, idle_timeout=0.05, timeouts=timeouts)
    over = asyncio.Event()

    def changed() -> None:
        if has_opened and not site.sessions:
            over.set()
        has_opened.append(True)

    has_opened: list[bool] = []
    channel = SmtpChannel(settings, LoopClock(), random=lambda: 0.5)
    site = channel.site(Relay("127.0.0.1", port, tls=TlsPolicy.NONE), feed, changed)
    site.wake()
    async with asyncio.timeout(20):
        await over.wait()
    await channel.close(1.0)


def sample(plan: Plan, step: int, ways: tuple[Way, ...]) -> Iterator[Cut]:
    whole = talk(plan, deliveries_of(plan))
    for way in ways:
        yield from (Cut(way, written=at) for at in range(0, whole.written, step))
        yield from (Cut(way, said=at) for at in range(0, whole.said, step))


@pytest.mark.parametrize("name", OFFERS)
async def test_cuts_over_sockets(name: str) -> None:
    for vectors in (ACCEPTED, MIXED):
        plan = plan_of(SESSIONS[name], vectors)
        cuts = [*sample(plan, 13, (Way.FIN, Way.RST)), *sample(plan, 41, (Way.SILENCE,))]
        for at in range(0, len(cuts), AT_ONCE):
            batch = cuts[at : at + AT_ONCE]
            met = await asyncio.gather(*(met_over_sockets(plan, OFFERS[name], cut) for cut in batch))
            assert [(cut, found) for cut, found in zip(batch, met, strict=True) if found] == []


@pytest.mark.skipif(SINK is None, reason="smtp-sink is not installed (Debian: postfix)")
@pytest.mark.parametrize("options", [[], ["-p"]], ids=["pipelined", "unpipelined"])
@pytest.mark.parametrize("messages", [1, 3])
async def test_postfix_sink_hangs_up_after_the_dot(options: list[str], messages: int) -> None:
    """smtp-sink -q . : the message that was ended is in doubt, the one behind it was never attempted."""
    assert SINK is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = ["-u", getpass.getuser()] if os.geteuid() == 0 else []  # which it wants to be told
    sink = await asyncio.create_subprocess_exec(SINK, *user, *options, "-q", ".", f"127.0.0.1:{port}", "10")
    try:
        await until_listening(port)
        plan = Plan(ACCEPTED[:messages], Features(), False, [1], -1)
        feed = Feed(deliveries_of(plan))
        await until_the_session_is_over(feed, port, patience=10.0)
    finally:
        sink.kill()
        await sink.wait()
    actions = [action_of(attempt) for _, attempt in feed.attempts]
    assert actions[0] is Action.DOUBTFUL
    assert set(actions[1:]) <= {Action.RETURNED}


async def until_listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
