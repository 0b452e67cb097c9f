"""Plays the peer's side of a dialogue over a loopback socket, word for word.

A `.dialogue` file has three parts between lines of `---`: settings, the talk, and what each delivery must have met.
In the talk `C: MAIL` demands a line that starts so, `S: 250 ok` says one; these stand for more:

    C: <message 1>     delivery 1's octets and the final dot          S: <close>       hangs up
    C: <chunk 1>       the same as one BDAT LAST                      S: <reset>       hangs up with RST
    C: <void>          a dot alone                                    S: <silence>     says nothing until the client leaves
    C: <nothing>       no octet more has come                         S: <drip 250 x>  says it an octet at a time, for ever
    C: <part>          some octets of a message                       S: <endless x>   says it again and again, fast
                                                                   S: <stall>       reads no more
                                                                   S: <raw 250 x>   these octets; Python's escapes hold
                                                                   S: <tls>         starts TLS as localhost.pem;
                                                                   S: <tls expired> as that one; <no tls> speaks garbage
    == 2               the talk on the second connection

Of the settings, `together: yes` means that the peer's mistake shows only where its replies come in one read; `chunk: N` lets N
messages go in one write, but for those that `alone: 2 3` names.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
CERTIFICATE = HERE / "localhost.pem"
ENDLESS = 4_000_000  # octets: whoever would keep them all has kept enough to be found out


class Delivery(msgspec.Struct):
    number: int
    sender: bytes
    recipient: bytes
    wire: bytes
    eightbit: bool = False
    is_alone: bool = False


class Dialogue(msgspec.Struct):
    settings: dict[str, str]
    connections: list[list[tuple[str, str]]]
    expected: list[str]


def read(path: Path) -> Dialogue:
    head, talk, expected = (part.strip() for part in path.read_text().split("---\n"))
    settings = dict(line.split(": ", 1) for line in head.splitlines() if not line.startswith("#"))
    connections: list[list[tuple[str, str]]] = [[]]
    for line in talk.splitlines():
        if line.startswith("=="):
            connections.append([])
        else:
            who, what = line.split(": ", 1)
            connections[-1].append((who, what))
    return Dialogue(settings, connections, expected.splitlines())


class Player:
    """The peer. `failure` is what it missed; `port` where it listens. With `octets_apart` it says one octet at a time."""

    def __init__(self, dialogue: Dialogue, deliveries: list[Delivery], octets_apart: bool = False) -> None:
        self.failure: BaseException | None = None
        self.played = 0
        self._octets_apart = octets_apart
        self._dialogue = dialogue
        self._deliveries = deliveries
        self._started = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Player:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # inherited: a stalled reader fills soon
        self._server = await asyncio.start_server(self._serve, sock=listener)
        self.port = listener.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.end()

    async def end(self) -> None:
        """The client has gone: every talk comes to its end."""
        for writer in self._writers:
            with contextlib.suppress(AttributeError):  # Python before 3.11.5 has no protocol left where a TLS transport was closed twice
                writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        talk = self._dialogue.connections[self._started] if self._started < len(self._dialogue.connections) else None
        self._started += 1
        if talk is None:
            writer.transport.abort()
            return
        try:
            if self._dialogue.settings.get("handshake") != "no":
                await self._shake_hands(reader, writer)
            for who, what in talk:
                await (self._hear(what, reader) if who == "C" else self._say(what, reader, writer))
            self.played += 1
            if ("C", "<part>") in talk:
                await reader.read()  # of a message cut off there is more to come, or not
            elif ("S", "<stall>") not in talk:
                await self._part(reader, writer)
        except (AssertionError, asyncio.IncompleteReadError) as failure:
            self.failure = failure
            writer.transport.abort()
        except ConnectionError:
            pass

    async def _shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._write(b"220 peer.example ESMTP\r\n", writer)
        assert (await reader.readline()).startswith(b"EHLO ")
        offers = ["peer.example", *self._dialogue.settings.get("offers", "").split()]
        lines = [f"250-{offer.replace('=', ' ')}\r\n" for offer in offers]
        lines[-1] = lines[-1].replace("250-", "250 ")
        await self._write("".join(lines).encode(), writer)

    async def _hear(self, what: str, reader: asyncio.StreamReader) -> None:
        number = what.strip("<>").partition(" ")[2]
        if what == "<nothing>":
            assert not reader._buffer, f"more than was due: {bytes(reader._buffer)!r}"  # type: ignore[attr-defined]
        elif what == "<void>":
            assert await reader.readline() == b".\r\n"
        elif what == "<part>":
            assert await reader.readexactly(100)
        elif what.startswith("<message"):
            assert await reader.readuntil(b"\r\n.\r\n") == self._deliveries[int(number) - 1].wire + b".\r\n"
        elif what.startswith("<chunk"):
            command = await reader.readline()
            assert command.startswith(b"BDAT "), command
            assert command.endswith(b" LAST\r\n"), command
            chunk = await reader.readexactly(int(command.split()[1]))
            assert chunk == unstuffed(self._deliveries[int(number) - 1].wire)
        else:
            line = await reader.readline()
            assert line.startswith(what.encode()), f"{line!r} instead of {what!r}"

    async def _say(self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = what.strip("<>").partition(" ")[2]
        if what == "<close>":
            writer.close()
        elif what == "<reset>":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif what == "<stall>":
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        elif what == "<silence>":
            await reader.read()
        elif what.startswith("<drip"):
            for octet in text.encode() * 100:
                writer.write(bytes([octet]))
                await asyncio.sleep(0.01)  # the peer's pace, not the test's
                if reader.at_eof() or writer.transport.is_closing():
                    break
        elif what.startswith("<endless"):
            await self._say_endlessly(octets(text), writer)
        elif what.startswith("<raw"):
            await self._write(octets(text), writer)
        elif what.startswith("<tls"):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(HERE / f"{text}.pem" if text else CERTIFICATE)
            try:
                await writer.start_tls(context)
            except (ssl.SSLError, ConnectionError):
                pass  # what the client makes of it is the test's matter
        elif what == "<no tls>":
            await reader.read(65536)
            writer.write(b"this is no TLS record\r\n")
        else:
            await self._write(what.encode() + b"\r\n", writer)

    async def _write(self, said: bytes, writer: asyncio.StreamWriter) -> None:
        if not self._octets_apart:
            writer.write(said)
            return
        for octet in said:
            writer.write(bytes([octet]))
            await asyncio.sleep(0)  # one turn of the loop: the client reads it

    async def _say_endlessly(self, said: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(ENDLESS // 4000):
                writer.write(said * (4000 // len(said)))
                await writer.drain()
        except ConnectionError:
            pass  # the client has heard enough

    async def _part(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """After its talk the peer only answers QUIT; anything else was one command too many."""
        rest = await reader.readline()
        if rest == b"QUIT\r\n":
            writer.write(b"221 2.0.0 bye\r\n")
        else:
            assert rest == b"" or writer.transport.is_closing(), f"more than was due: {rest!r}"
        writer.close()


def octets(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")


def unstuffed(wire: bytes) -> bytes:
    return b"".join(line.removeprefix(b".") for line in wire.splitlines(keepends=True))
