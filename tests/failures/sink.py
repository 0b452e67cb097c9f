"""The relay of the fault tests, a process: the trial sink, which also looks for tokens in what it is given.

    python -m tests.failures.sink OPTIONS TOKENS      (SinkOptions as JSON; a file for NDJSON lines, of each final dot and of each MAIL)

Each recipient of the tests has a token that is in its address, in the header and in the body of its message and nowhere else. A dot's
line says which tokens stood where, so that a message that went to another's address is found on the message itself.

SIGUSR1: from now on it answers at once, whatever the options say.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys

import msgspec
import orjson
import uvloop

from sendengine.trial.ledger import Ledger
from sendengine.trial.rules import Rules
from sendengine.trial.session import Transaction
from sendengine.trial.sink import Sink, SinkOptions

TOKEN = re.compile(rb"tk[0-9a-f]{12}")


class Fickle(Rules):
    """Rules that can be dropped in mid-session: sessions keep the object that they were made with."""

    def drop(self) -> None:
        self._by_stage.clear()


class TokenSink(Sink):
    def __init__(self, options: SinkOptions, tokens: str) -> None:
        super().__init__(options)
        self.rules = self._fickle = Fickle(options.reject, options.delay, options.drop)
        self._tokens = Ledger(tokens)

    def hurry(self) -> None:
        self._fickle.drop()

    def took(self, session: int, at: float, transaction: Transaction, message: bytes, *, is_stuffed: bool) -> None:
        super().took(session, at, transaction, message, is_stuffed=is_stuffed)
        head, _, body = message.partition(b"\r\n\r\n")
        self._tokens.add(
            {
                "mail_at": transaction.mail_at,
                "at": at,
                "to": b",".join(transaction.recipients).decode(),
                "head": _tokens(head),
                "body": _tokens(body),
                "reply": transaction.reply.decode(),
            }
        )

    def ended(self, session: int, transaction: Transaction) -> None:
        super().ended(session, transaction)
        self._tokens.add({"mail_at": transaction.mail_at, "to": b",".join(transaction.asked).decode()})

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
