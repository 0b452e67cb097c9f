"""The trial SMTP server behind `sendengine sink`: takes everything, writes down what it took, misbehaves on request.

`rate` refuses at MAIL with 451 4.7.1, as relays do that meter their clients: no more MAILs are taken in any window of
its length. The ledger has a line for each message whose end arrived, with the reply it got ("" when the connection was
dropped instead); `rcpt_to` is one address, several are joined by commas. The transactions file has one for each MAIL.
A line is in its file before the reply leaves: whoever knows that a message was taken finds it there. With `keep` each message
of the ledger is a file as well, as it came.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import orjson

from sendengine.errors import RefusedInput
from sendengine.trial.ledger import Kept, Ledger, WallClock, facts, unstuffed
from sendengine.trial.rules import Rules, parse_rate
from sendengine.trial.session import Session, Transaction


class SinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`reject`, `delay`, `drop` and `rate` as rules.py reads them; port 0 takes a free one; `user` demands AUTH."""

    host: str = "127.0.0.1"
    port: int = 2525
    ledger: str | None = None
    transactions: str | None = None
    keep: str | None = None
    reject: tuple[str, ...] = ()
    delay: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rate: str | None = None
    chunking: bool = True
    pipelining: bool = True
    cert: str | None = None
    key: str | None = None
    user: str = ""
    password: str = ""
    max_size: int = 64 << 20


class Counts(msgspec.Struct):
    """Since the start. Of each MAIL: taken, or refused at whatever stage its last reply came, or dropped in place of the answer to its
    end; or its client gave it up."""

    sessions: int = 0
    mails: int = 0
    taken: int = 0
    refused: int = 0
    dropped: int = 0
    octets: int = 0


class Sink:
    """A running server; made by `serve`."""

    def __init__(self, options: SinkOptions) -> None:
        self.options = options
        self.name = b"sink.localhost"
        self.greeting = b"220 " + self.name + b" ESMTP trial sink"
        self.clock = WallClock()
        self.counts = Counts()
        self.rules = Rules(options.reject, options.delay, options.drop)
        self.is_plain = not (self.rules or options.rate or options.user)
        self.tls = _tls(options)
        self.port = options.port
        self._limit, self._window = parse_rate(options.rate) if options.rate else (0, 0.0)
        self._admitted: deque[float] = deque(maxlen=self._limit)
        self._ledger = _open(options.ledger)
        self._transactions = _open(options.transactions)
        self._kept = Kept(options.keep, options.ledger) if options.keep else None
        self._last_id = 0
        self._sessions: set[Session] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Session(self), self.options.host, self.options.port, backlog=1024)
        except OSError as error:
            raise RefusedInput(f"cannot listen on {self.options.host}:{self.options.port}: {error.strerror}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Hang up on everybody and write down what is left."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for session in list(self._sessions):
            session.close()
        await self._is_empty.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ledger in filter(None, (self._ledger, self._transactions)):
            ledger.close()

    # What sessions ask and tell.

    def extensions(self, is_secure: bool) -> bytes:
        options = self.options
        words = [
            self.name,
            b"PIPELINING" if options.pipelining else b"",
            b"SIZE %d" % options.max_size,
            b"8BITMIME",
            b"ENHANCEDSTATUSCODES",
            b"CHUNKING" if options.chunking and not self.rules.has("data") else b"",
            b"STARTTLS" if self.tls and not is_secure else b"",
            b"AUTH PLAIN LOGIN" if options.user else b"",
        ]
        *head, last = filter(None, words)
        return b"".join(b"250-%s\r\n" % word for word in head) + b"250 " + last

    def admits(self, at: float) -> bool:
        """Whether the rate allows one more MAIL: the one `limit` before must be a window away."""
        if not self._limit:
            return True
        if len(self._admitted) == self._limit and at - self._admitted[0] < self._window:
            return False
        self._admitted.append(at)
        return True

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def took(self, session: int, at: float, transaction: Transaction, message: bytes, *, is_stuffed: bool) -> None:
        counts, reply = self.counts, transaction.reply
        counts.octets += len(message)
        if reply.startswith(b"2"):
            counts.taken += 1
        elif not reply:
            counts.dropped += 1
        if self._kept is None and self._ledger is None:
            return
        plain = unstuffed(message) if is_stuffed else message
        if self._kept is not None:
            self._kept.add(plain)
        if self._ledger is not None:
            self._ledger.add(
                {
                    "at": at,
                    "mail_at": transaction.mail_at,
                    "session": session,
                    **_envelope(transaction.mail_from, transaction.recipients),
                    **facts(plain),
                    "reply": _text(reply),
                }
            )

    def ended(self, session: int, transaction: Transaction) -> None:
        if transaction.reply.startswith((b"4", b"5")):
            self.counts.refused += 1
        if self._transactions is not None:
            self._transactions.add(
                {
                    "at": transaction.mail_at,
                    "session": session,
                    **_envelope(transaction.mail_from, transaction.asked),
                    "stage": transaction.stage,
                    "reply": _text(transaction.reply),
                }
            )

    def write_down(self) -> None:
        """Called before replies leave."""
        if self._ledger is not None:
            self._ledger.flush()
        if self._transactions is not None:
            self._transactions.flush()

    def entered(self, session: Session) -> int:
        self._sessions.add(session)
        self._is_empty.clear()
        self.counts.sessions += 1
        return self.counts.sessions

    def left(self, session: Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._is_empty.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve(options: SinkOptions) -> Sink:
    """Listening when it returns. Raises RefusedInput for rules, files or ports that cannot be."""
    sink = Sink(options)
    await sink.start()
    return sink


def run(options: SinkOptions, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Until TERM or INT; prints one JSON line when it listens and one with the counts at the end."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_run(options))


async def _run(options: SinkOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sink = await serve(options)
    _say({"host": options.host, "port": sink.port})
    await stop.wait()
    await sink.close()
    _say(msgspec.to_builtins(sink.counts))


def _say(line: dict[str, Any]) -> None:
    print(orjson.dumps(line).decode(), flush=True)


def _envelope(sender: bytes, recipients: list[bytes]) -> dict[str, str]:
    return {"mail_from": _text(sender), "rcpt_to": ",".join(map(_text, recipients))}


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")


def _open(path: str | None) -> Ledger | None:
    try:
        return Ledger(path) if path else None
    except OSError as error:
        raise RefusedInput(f"cannot write {path}: {error.strerror}") from error


def _tls(options: SinkOptions) -> ssl.SSLContext | None:
    if not options.cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.cert, options.key)
    except OSError as error:  # ssl.SSLError is one
        raise RefusedInput(f"cannot use {options.cert} and {options.key}: {error}") from error
    return context
