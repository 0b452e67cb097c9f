"""The relay of the fault tests, a process: the trial sink, which also looks for tokens in what it is given.

    python -m tests.failures.sink OPTIONS TOKENS      (SinkOptions as JSON; a file for NDJSON lines, of each final dot and of each MAIL)

A line names its session, who was at the other end (host:port) and what that greeted as. A dot's line has the number of messages that
had been read whole or in part behind it by then, though its reply had not left: a client that waits for replies has none.

Each recipient of the tests has a token that is in its address, in the header and in the body of its message and nowhere else. A dot's
line says which tokens stood where, so that a message that went to another's address is found on the message itself.

SIGUSR1: from now on it answers at once, whatever the options say.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import msgspec
import orjson
import uvloop

from sendengine.trial.ledger import Ledger
from sendengine.trial.rules import Rules
from sendengine.trial.session import Session, Transaction
from sendengine.trial.sink import Sink, SinkOptions

TOKEN = re.compile(rb"tk[0-9a-f]{12}")
CHUNK = re.compile(rb"\r\nBDAT \d+ LAST\r\n")


class NamedSession(Session):
    """It knows who is at the other end."""

    peer = client = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = "{}:{}".format(*transport.get_extra_info("peername"))
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.client and data[:5].upper() == b"EHLO ":
            self.client = data[5:].partition(b"\r\n")[0].decode()
        super().data_received(data)

    @property
    def behind(self) -> int:
        return len(CHUNK.findall(self._buffer))


class Fickle(Rules):
    """Rules that can be dropped in mid-session: sessions keep the object that they were made with."""

    def drop(self) -> None:
        self._by_stage.clear()


class TokenSink(Sink):
    def __init__(self, options: SinkOptions, tokens: str) -> None:
        super().__init__(options)
        self.rules = self._fickle = Fickle(options.reject, options.delay, options.drop)
        self._tokens = Ledger(tokens)
        self._met: dict[int, NamedSession] = {}

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: NamedSession(self), self.options.host, self.options.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def hurry(self) -> None:
        self._fickle.drop()

    def entered(self, session: Session) -> int:
        assert isinstance(session, NamedSession)
        number = super().entered(session)
        self._met[number] = session
        return number

    def took(self, session: int, at: float, transaction: Transaction, message: bytes, *, is_stuffed: bool) -> None:
        super().took(session, at, transaction, message, is_stuffed=is_stuffed)
        head, _, body = message.partition(b"\r\n\r\n")
        self._tokens.add(
            {
                **self._whose(session, transaction),
                "behind": self._met[session].behind,
                "at": at,
                "to": b",".join(transaction.recipients).decode(),
                "head": _tokens(head),
                "body": _tokens(body),
                "reply": transaction.reply.decode(),
            }
        )

    def ended(self, session: int, transaction: Transaction) -> None:
        super().ended(session, transaction)
        self._tokens.add({**self._whose(session, transaction), "to": b",".join(transaction.asked).decode()})

    def _whose(self, session: int, transaction: Transaction) -> dict[str, str | float]:
        """A relay that is started again is another process, and counts its sessions anew."""
        met = self._met[session]
        return {"mail_at": transaction.mail_at, "session": f"{os.getpid()}-{session}", "peer": met.peer, "client": met.client}

    def write_down(self) -> None:
        super().write_down()
        self._tokens.flush()


def _tokens(text: bytes) -> list[str]:
    return sorted({token.decode() for token in TOKEN.findall(text)})


async def main(options: SinkOptions, tokens: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sink = TokenSink(options, tokens)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, sink.hurry)
    await sink.start()
    print(orjson.dumps({"port": sink.port}).decode(), flush=True)
    await stop.wait()
    await sink.close()
    sink.write_down()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(msgspec.json.decode(sys.argv[1], type=SinkOptions), sys.argv[2]))
