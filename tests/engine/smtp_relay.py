"""A relay in memory that speaks SMTP over transports in memory: the real sites and sessions run against it on virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from random import Random
from types import SimpleNamespace

import pytest
from asyncio_throttle import throttler

from sendengine import ports
from sendengine.channel import site as site_module
from sendengine.channel.flight import Features
from sendengine.channel.opening import Opened
from sendengine.channel.settings import SmtpSettings
from sendengine.channel.smtp import SmtpChannel
from sendengine.config import data_file
from sendengine.engine.settings import EngineSettings
from sendengine.engine.worker import Worker
from sendengine.keyring import Keyring
from sendengine.policy.replies import parse_rules
from sendengine.queue.memory import MemoryQueue
from sendengine.sink.silent import SilentMeter
from sendengine.types import Attempt, Fault, Relay, Stage
from tests.engine.rig import Rig
from tests.engine.virtual import VirtualClock

LATENCY = 0.002
END = b"\r\n.\r\n"


class _Transport(asyncio.Transport):
    """One connection: what is written is answered a little later, command by command."""

    def __init__(self, relay: SmtpRelay, is_silent: bool) -> None:
        super().__init__()
        self._relay = relay
        self._protocol: asyncio.BaseProtocol | None = None
        self._unread = b""
        self._recipient: str | None = None
        self._is_in_body = False
        self._has_mail = False
        self._carried = 0
        self._is_silent = is_silent
        self.is_over = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._unread += bytes(data)
        asyncio.get_running_loop().call_later(self._relay.latency, self._read)

    def abort(self) -> None:
        self.is_over = True

    def lose(self) -> None:
        if not self.is_over:
            self.is_over = True
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.connection_lost(None)

    def _read(self) -> None:
        replies = []
        while not self.is_over and not self._is_worn_out():
            head, end, rest = self._unread.partition(END if self._is_in_body else b"\r\n")
            if not end:
                break
            self._unread = rest
            replies.append(self._end_of_body(head + b"\r\n") if self._is_in_body else self._command(head))
        if replies and not self.is_over and not self._is_silent:
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.data_received(b"".join(replies))
        if self._is_worn_out():
            self.lose()

    def _is_worn_out(self) -> bool:
        return self._carried >= self._relay.most_messages > 0

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"MAIL":
            self._recipient = None
            self._relay.mails.append(asyncio.get_running_loop().time() - self._relay.latency)
            if self._relay.hangs_up_at == "MAIL":
                self.lose()
            answer = self._relay.at_mail()
            self._has_mail = answer.startswith("2")
            return answer.encode() + b"\r\n"
        if verb == b"RCPT" and not self._has_mail:
            return b"503 5.5.1 MAIL first\r\n"
        if verb == b"RCPT":
            name = line.partition(b"<")[2].partition(b">")[0].decode()
            answer = self._relay.at_rcpt(name)
            self._relay.tries.setdefault(name, []).append(self._relay.mails[-1])
            if not answer.startswith("2"):
                return answer.encode() + b"\r\n"
            self._recipient = name
        elif verb == b"DATA":
            if self._recipient is None:
                return b"554 5.5.1 no valid recipients\r\n"
            self._is_in_body = True
            return b"354 go on\r\n"
        return b"250 2.0.0 Ok\r\n"

    def _end_of_body(self, wire: bytes) -> bytes:
        self._is_in_body = False
        assert self._recipient is not None
        self._relay.taken.append(self._recipient)
        self._relay.taken_at.append(asyncio.get_running_loop().time())
        self._carried += 1
        self._relay.by_connection.setdefault(id(self), []).append(self._recipient)
        self._relay.messages.append(re.sub(rb"(?m)^\.", b"", wire))
        return b"250 2.0.0 Ok: queued\r\n"


class SmtpRelay:
    """`at_rcpt` answers each RCPT. `connects`: when a connection was asked for; `mails`: when each MAIL left; `tries`: by recipient;
    `messages` as they came, dots unstuffed. `latency`: seconds to each answer; `most_messages`: so many a session and it is gone, 0: no
    limit."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at_rcpt: Callable[[str], str] = lambda name: "250 2.1.5 Ok", latency: float = LATENCY,
        most_messages: int = 0,
    ) -> None:  # fmt: skip
        self.at_rcpt = at_rcpt
        self.at_mail: Callable[[], str] = lambda: "250 2.1.0 Ok"
        self.latency = latency
        self.most_messages = most_messages
        self.is_down = False
        self.hangs_up_at = ""  # MAIL: instead of an answer; EHLO: after the answer
        self.silent = 0  # so many of the next connections get no answer to any MAIL
        self.connects: list[float] = []
        self.mails: list[float] = []
        self.tries: dict[str, list[float]] = {}
        self.taken: list[str] = []
        self.taken_at: list[float] = []
        self.messages: list[bytes] = []
        self.by_connection: dict[int, list[str]] = {}  # of `taken`
        self._transports: list[_Transport] = []
        patch.setattr(site_module, "open_session", self._open)
        patch.setattr(throttler, "time", SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time()))

    async def _open(self, relay: Relay, *_: object) -> Opened | Attempt:
        now = asyncio.get_running_loop().time()
        self.connects.append(now)
        await asyncio.sleep(self.latency)
        if self.is_down:
            return Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, now, detail="refused")
        self._transports = [transport for transport in self._transports if not transport.is_over]
        self._transports.append(transport := _Transport(self, self.silent > 0))
        self.silent -= self.silent > 0
        if self.hangs_up_at == "EHLO":
            asyncio.get_running_loop().call_later(LATENCY, transport.lose)
        return Opened(transport, Features(pipelining=True, eightbit=True))

    @property
    def sessions(self) -> int:
        return sum(not transport.is_over for transport in self._transports)

    def cut(self) -> None:
        """Every connection is lost at once."""
        for transport in self._transports:
            transport.lose()

    async def cut_apart(self, seconds: float) -> None:
        """Every connection is lost, so long after one another."""
        for transport in list(self._transports):
            transport.lose()
            await asyncio.sleep(seconds)

    def go_down(self) -> None:
        self.is_down = True
        self.cut()

    def come_up(self) -> None:
        self.is_down = False


def start(rig: Rig, name: str = "w1", settings: EngineSettings | None = None, keyring: ports.Keyring | None = None) -> Worker:
    """A worker with the SMTP channel and the shipped reply rules. Chance is seeded."""
    chance = Random(name)
    channel = SmtpChannel(SmtpSettings(hostname="me.example"), VirtualClock(), chance.random)
    path = data_file("replies.toml")
    worker = Worker(
        MemoryQueue(rig.store, rig.now_us), channel, SilentMeter(), parse_rules(path.read_text(), str(path)), settings or EngineSettings(),
        name, lambda fields: Relay("relay.test"), rig.loop.time, keyring or Keyring(), jitter=chance.random,
    )  # fmt: skip
    rig.workers[name] = (worker, rig.loop.create_task(worker.run()), channel)  # type: ignore[assignment]
    return worker
