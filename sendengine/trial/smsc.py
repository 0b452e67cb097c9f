"""A trial SMS centre: an SMPP 3.4 server that takes everything, misbehaves on request, sends receipts, and keeps a ledger.

    --reject STATUS[%PROBABILITY][@PATTERN]   answers with this command_status: 0x0b, 0x58%0.1, 0x0b@+4670
    --drop [PROBABILITY][@PATTERN]            accepts, and never answers
    --hang-up [PROBABILITY][@PATTERN]         accepts, and closes the connection instead of answering
    --rate N/s                                ESME_RTHROTTLED above it

PATTERN is sought in the number, with its plus. Probabilities come from one seeded generator, so that a run can be repeated.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
import time
from collections import Counter
from typing import IO, cast

import msgspec
import orjson

from sendengine.channel.smpp import pdu
from sendengine.channel.smpp.pdu import BadPdu, Command, DeliverSm, Pdu, SmppError, SubmitSm, decode
from sendengine.errors import RefusedInput, SendEngineError
from sendengine.trial.ledger import WallClock

ESME_RTHROTTLED, ESME_RINVPASWD, ESME_RINVBNDSTS, ESME_RINVMSGLEN = 0x58, 0x0E, 0x04, 0x01
BINDS = (0x1, 0x2, 0x9)
_RULE = re.compile(r"(?P<value>0[xX][0-9a-fA-F]{1,8}|\d{1,5})?(?:%(?P<chance>[\d.]+))?(?:@(?P<pattern>\S+))?")
_CHANCE = re.compile(r"(?P<value>)(?P<chance>[\d.]+)?(?:@(?P<pattern>\S+))?")
_RATE = re.compile(r"(\d+)/s")


class SmscOptions(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 2775
    ledger: str | None = None
    reject: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    hang_up: tuple[str, ...] = ()
    delay: float = 0.0  # seconds before each answer
    rate: str | None = None
    receipts: str = "DELIVRD"  # their state; "": none
    receipt_delay: float = 0.1
    password: str = ""


class _Rule(msgspec.Struct, frozen=True):
    status: int
    chance: float
    pattern: str

    def holds(self, number: str, chance: random.Random) -> bool:
        return self.pattern in number and (self.chance >= 1.0 or chance.random() < self.chance)


def _rules(name: str, texts: tuple[str, ...], form: re.Pattern[str]) -> list[_Rule]:
    rules = []
    for text in texts:
        found = form.fullmatch(text)
        try:
            if not found or (form is _RULE and not found["value"]):
                raise ValueError
            chance = float(found["chance"] or 1.0)
            if not 0 <= chance <= 1:
                raise ValueError
            rules.append(_Rule(int(found["value"] or "0", 0), chance, found["pattern"] or ""))
        except ValueError:
            raise RefusedInput(f"--{name} {text!r} is no rule", "sendengine smsc --help") from None
    return rules


class Smsc:
    """The server: `taken` numbers of the messages it accepted (their ids count up), and what its ledger says of each."""

    def __init__(self, options: SmscOptions) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self._reject = _rules("reject", options.reject, _RULE)
        self._drop = _rules("drop", options.drop, _CHANCE)
        self._hang_up = _rules("hang-up", options.hang_up, _CHANCE)
        rate = _RATE.fullmatch(options.rate) if options.rate else None
        if options.rate and (rate is None or int(rate[1]) < 1):
            raise RefusedInput(f"--rate {options.rate!r} is not N/s")
        self._rate = int(rate[1]) if rate else 0
        self._allowance, self._allowed_at = float(self._rate), 0.0
        self._random = random.Random(1)
        self._clock = WallClock()
        self._ids = int(time.time() * 1e3) << 20  # one that is started again makes other ids
        self._ledger: IO[bytes] | None = None
        self._server: asyncio.Server | None = None
        self.sessions: set[_Session] = set()

    async def start(self) -> int:
        """The port."""
        if self.options.ledger:
            try:
                self._ledger = open(self.options.ledger, "ab")  # noqa: ASYNC230, SIM115 - closed by stop
            except OSError as error:
                raise RefusedInput(f"cannot write {self.options.ledger}: {error.strerror}") from None
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _Session(self), self.options.host, self.options.port)
        except OSError as error:
            raise SendEngineError(f"cannot listen on {self.options.host}:{self.options.port}: {error.strerror}") from None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for session in list(self.sessions):
            session.close()
        if self._ledger is not None:
            self._ledger.close()

    def admit(self, now: float) -> bool:
        if not self._rate:
            return True
        self._allowance = min(float(self._rate), self._allowance + (now - self._allowed_at) * self._rate)
        self._allowed_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def judge(self, asked: SubmitSm) -> tuple[str, int, str]:
        """What becomes of a message: (accepted, rejected, throttled, dropped, hung_up), command_status, id. It goes into the ledger."""
        number = f"+{asked.destination_addr}" if asked.dest_addr_ton == 1 else asked.destination_addr
        what, status = "accepted", 0
        if not self.admit(time.monotonic()):
            what, status = "throttled", ESME_RTHROTTLED
        elif rule := next((rule for rule in self._reject if rule.holds(number, self._random)), None):
            what, status = ("throttled" if rule.status == ESME_RTHROTTLED else "rejected"), rule.status
        elif any(rule.holds(number, self._random) for rule in self._drop):
            what = "dropped"
        elif any(rule.holds(number, self._random) for rule in self._hang_up):
            what = "hung_up"
        self._ids += 1
        message_id = f"{self._ids:x}" if not status else ""
        self.counts[what] += 1
        self._write(asked, number, what, status, message_id)
        return what, status, message_id

    def _write(self, asked: SubmitSm, number: str, what: str, status: int, message_id: str) -> None:
        if self._ledger is None:
            return
        line = {
            "at": self._clock.now(), "from": asked.source_addr, "to": number, "esm_class": asked.esm_class,
            "data_coding": asked.data_coding, "octets": asked.short_message.hex(), "what": what, "status": status, "message_id": message_id,
        }  # fmt: skip
        self._ledger.write(orjson.dumps(line) + b"\n")
        self._ledger.flush()


class _Session(asyncio.Protocol):
    """One bind, as the centre sees it."""

    def __init__(self, centre: Smsc) -> None:
        self._centre = centre
        self._reader = pdu.Reader()
        self._is_bound = False
        self._sequence = 0
        self._out = bytearray()
        self._is_flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        self._centre.sessions.add(self)
        self._centre.counts["connections"] += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._centre.sessions.discard(self)

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for each in self._reader.feed(data):
                self._take(each)
        except (BadPdu, SmppError):
            self._centre.counts["garbage"] += 1
            self.close()

    def _take(self, one: Pdu) -> None:
        if one.is_answer:
            return
        if one.command in BINDS:
            self._bind(one)
        elif one.command == Command.SUBMIT_SM:
            self._submit(one)
        elif one.command == Command.ENQUIRE_LINK:
            self._say(pdu.answer_to(one))
        elif one.command == Command.UNBIND:
            self._say(pdu.answer_to(one))
            self._flush()
            self._transport.close()
        else:
            self._say(pdu.pdu(Command.GENERIC_NACK, one.sequence, status=3))

    def _bind(self, one: Pdu) -> None:
        password = one.body.split(b"\0", 2)[1].decode("latin-1") if one.body.count(b"\0") >= 2 else ""
        if self._centre.options.password and password != self._centre.options.password:
            self._say(pdu.answer_to(one, ESME_RINVPASWD))
            return
        self._is_bound = True
        self._centre.counts["binds"] += 1
        self._say(pdu.answer_to(one, body=b"sendengine\0"))

    def _submit(self, one: Pdu) -> None:
        if not self._is_bound:
            self._say(pdu.answer_to(one, ESME_RINVBNDSTS))
            return
        asked = decode(one.octets)
        assert isinstance(asked, SubmitSm)
        if len(asked.short_message) > 254:
            self._say(pdu.answer_to(one, ESME_RINVMSGLEN))
            return
        what, status, message_id = self._centre.judge(asked)
        if what == "hung_up":
            self.close()
            return
        if what != "dropped":
            answer = pdu.answer_to(one, status, message_id.encode() + b"\0" if not status else b"")
            if self._centre.options.delay:
                asyncio.get_running_loop().call_later(self._centre.options.delay, self._say, answer)
            else:
                self._say(answer)
        if message_id and asked.registered_delivery & 1 and self._centre.options.receipts:
            delay = self._centre.options.delay + self._centre.options.receipt_delay
            asyncio.get_running_loop().call_later(delay, self._report, asked, message_id)

    def _report(self, asked: SubmitSm, message_id: str) -> None:
        self._sequence = self._sequence % pdu.SEQUENCE_MOST + 1
        now = time.strftime("%y%m%d%H%M")
        state = self._centre.options.receipts
        error = "000" if state == "DELIVRD" else "001"
        text = f"id:{message_id} sub:001 dlvrd:001 submit date:{now} done date:{now} stat:{state} err:{error} text:"
        said: bytes = DeliverSm(
            asked.destination_addr, asked.source_addr, text.encode("latin-1"), source_addr_ton=asked.dest_addr_ton,
            source_addr_npi=asked.dest_addr_npi, dest_addr_ton=asked.source_addr_ton, dest_addr_npi=asked.source_addr_npi,
            esm_class=pdu.RECEIPT, sequence_number=self._sequence,
        ).encode()  # fmt: skip
        self._centre.counts["receipts"] += 1
        self._say(said)

    def _say(self, octets: bytes) -> None:
        """What is said in one turn of the loop leaves in one write."""
        self._out += octets
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._out and not self._transport.is_closing():
            self._transport.write(bytes(self._out))
        self._out.clear()


def run(options: SmscOptions) -> None:
    """Until INT or TERM; prints its address and, at the end, its counts, one JSON line each."""
    asyncio.run(_serve(options))


async def _serve(options: SmscOptions) -> None:
    centre = Smsc(options)
    port = await centre.start()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    print(orjson.dumps({"listening": f"{options.host}:{port}"}).decode(), flush=True)
    await ended.wait()
    await centre.stop()
    sys.stdout.write(orjson.dumps(dict(centre.counts)).decode() + "\n")
