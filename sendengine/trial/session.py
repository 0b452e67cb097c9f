"""One SMTP session of the trial server: strict about the order of commands (RFC 5321), fast, never surprised.

It looks for line ends and for the end of data with `find`; no line of a body is ever looked at. The replies of one read
leave in one write. A rule's delay holds the session: what follows it in the buffer waits, as behind a slow server.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from sendengine.trial.auth import Login

if TYPE_CHECKING:
    from sendengine.trial.sink import Sink

_MAX_LINE = 8192  # RFC 5321 4.5.3.1.4 asks for 512, AUTH (RFC 4954 4) for 12288 at most
_MAIL = re.compile(rb"(?i)MAIL FROM:[ \t]*<([^<>\r\n]*)>[ \t]*([^\r\n]*)").fullmatch
_RCPT = re.compile(rb"(?i)RCPT TO:[ \t]*<([^<>\r\n]+)>[ \t]*[^\r\n]*").fullmatch
_ENVELOPE = re.compile(rb"MAIL FROM:<([^<>\r\n]*)>([^\r\n]*)\r\nRCPT TO:<([^<>\r\n]+)>[^\r\n]*\r\nDATA\r\n").match
_ENVELOPE_REPLY = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on"
_SIZE = re.compile(rb"(?i)\bSIZE=(\d{1,20})\b").search
_BDAT = re.compile(rb"(?i)BDAT (\d{1,12})( LAST)?[ \t]*").fullmatch
_OUT_OF_TURN = b"503 5.5.1 out of turn"
_BAD_SYNTAX = b"501 5.5.4 syntax"
_TOO_LARGE = b"552 5.3.4 larger than SIZE"


class Transaction(msgspec.Struct):
    """One MAIL and how far it came. Owned by its session."""

    mail_from: bytes
    mail_at: float
    stage: str = "mail"
    reply: bytes = b""
    asked: list[bytes] = []  # every RCPT
    recipients: list[bytes] = []  # those that were accepted
    chunks: bytearray | None = None  # what BDAT has brought so far


class Session(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink, self._rules = sink, sink.rules
        self._transport: Any = None
        self._number = 0
        self._read_at = 0.0
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._step: Callable[[], bool] = self._read_command
        self._transaction: Transaction | None = None
        self._login: Login | None = None
        self._is_greeted = self._is_secure = self._is_known = False
        self._is_held = self._is_choked = self._is_closing = False
        self._scanned = self._skipped = 0  # octets of a body: searched for its end, thrown away as too many
        self._left, self._is_last = 0, False  # of the BDAT chunk under way

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._number = self._sink.entered(self)
        if not self._answer("connect", self._sink.greeting).startswith(b"2"):
            self._is_closing = True
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self._read_at = self._sink.clock.now()
        self._buffer += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._end_transaction()
        self._sink.left(self)

    def pause_writing(self) -> None:
        """The peer does not read its replies: neither do we read its commands."""
        self._is_choked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_choked = False
        self._read_again()

    def close(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    # The loop over what has been read.

    def _go_on(self) -> None:
        while not (self._is_held or self._is_closing) and self._step():
            pass
        if self._is_held:
            return
        self._flush()
        if self._is_closing:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._sink.write_down()
            out.append(b"")
            self._transport.write(b"\r\n".join(out))

    def _answer(self, stage: str, reply: bytes, address: bytes = b"") -> bytes:
        """Give this reply, or what the rules put in its place; returns what is given, b"" when dropping instead."""
        ruling = self._rules.at(stage, address)
        if ruling is None:
            self._emit(reply)
            return reply
        given = b"" if ruling.drop else ruling.reply or reply
        self._emit_after(ruling.delay, given)
        return given

    def _emit(self, reply: bytes) -> None:
        """RFC 5321 3.8: 421 closes the channel. No reply at all is a dropped connection."""
        if reply:
            self._out.append(reply)
        if not reply or reply.startswith(b"421"):
            self._is_closing = True

    def _emit_after(self, delay: float, reply: bytes) -> None:
        if delay:
            self._hold(delay, lambda: self._emit(reply))
        else:
            self._emit(reply)

    def _hold(self, delay: float, then: Callable[[], None]) -> None:
        self._flush()
        self._is_held = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(delay, self._release, then)

    def _release(self, then: Callable[[], None]) -> None:
        self._is_held = False
        then()
        self._read_again()
        self._go_on()

    def _read_again(self) -> None:
        if not (self._is_held or self._is_choked or self._is_closing):
            self._transport.resume_reading()

    # Commands.

    def _take_line(self) -> bytes | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n", 0, _MAX_LINE)
        if end >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            return line
        if len(buffer) >= _MAX_LINE:
            self._emit(b"421 5.5.2 line too long")
        return None

    def _take_envelope(self) -> bool:
        """What pipelining clients write (RFC 2920), in one look: half of the time of three commands."""
        found = _ENVELOPE(self._buffer)
        if found is None or not self._is_greeted or self._transaction is not None or self._is_too_large(found[2]):
            return False
        to = [found[3]]
        self._transaction = Transaction(found[1], self._read_at, "data", b"354 go on", to, to)
        self._sink.counts.mails += 1
        del self._buffer[: found.end()]
        self._out.append(_ENVELOPE_REPLY)
        self._step = self._await_body
        return True

    def _is_too_large(self, parameters: bytes) -> bool:
        """RFC 1870 6.1."""
        size = _SIZE(parameters) if parameters else None
        return size is not None and int(size[1]) > self._sink.options.max_size

    def _read_command(self) -> bool:
        if self._sink.is_plain and self._take_envelope():
            return True
        line = self._take_line()
        if line is None:
            return False
        command = _COMMANDS.get(line[:4].upper())
        if command is None:
            self._emit(b"500 5.5.2 no such command")
        else:
            command(self, line)
        return True

    def _ehlo(self, line: bytes) -> None:
        self._end_transaction()
        extended = line[:4].upper() == b"EHLO"
        reply = self._sink.extensions(self._is_secure) if extended else b"250 " + self._sink.name
        self._is_greeted = self._answer("ehlo", reply).startswith(b"2")

    def _mail(self, line: bytes) -> None:
        found = _MAIL(line)
        if not self._is_greeted or self._transaction is not None:
            return self._emit(_OUT_OF_TURN)
        if self._sink.options.user and not self._is_known:
            return self._emit(b"530 5.7.0 authentication required")
        if found is None:
            return self._emit(_BAD_SYNTAX)
        self._transaction = Transaction(found[1], self._read_at)
        self._sink.counts.mails += 1
        reply = b"250 2.1.0 ok"
        if self._is_too_large(found[2]):
            reply = _TOO_LARGE
        elif not self._sink.admits(self._read_at):
            reply = b"451 4.7.1 rate exceeded"
        self._reach("mail", self._answer("mail", reply, found[1]))
        return None

    def _rcpt(self, line: bytes) -> None:
        found, transaction = _RCPT(line), self._transaction
        if transaction is None:
            return self._emit(_OUT_OF_TURN)
        if found is None:
            return self._emit(_BAD_SYNTAX)
        transaction.asked.append(found[1])
        transaction.stage, transaction.reply = "rcpt", self._answer("rcpt", b"250 2.1.5 ok", found[1])
        if transaction.reply.startswith(b"2"):
            transaction.recipients.append(found[1])
        return None

    def _data(self, _line: bytes) -> None:
        transaction = self._transaction
        if transaction is None or transaction.chunks is not None:
            return self._emit(_OUT_OF_TURN)
        if not transaction.recipients:
            return self._emit(b"554 5.5.1 no valid recipients")
        if self._reach("data", self._answer("data", b"354 go on", transaction.recipients[-1]), b"354"):
            self._step = self._await_body
        return None

    def _bdat(self, line: bytes) -> None:
        """RFC 3030 2: the chunk follows in any case, and is read even when it cannot be taken."""
        found, transaction = _BDAT(line), self._transaction
        if found is None:
            return self._emit(b"421 5.5.4 syntax: the chunk cannot be found")  # nothing after this can be read
        self._left, self._is_last = int(found[1]), found[2] is not None
        self._step = self._read_chunk
        if transaction is not None and transaction.recipients and transaction.chunks is None:
            transaction.chunks = bytearray()
            self._judge_body(transaction)
        return None

    def _rset(self, _line: bytes) -> None:
        self._end_transaction()
        self._emit(b"250 2.0.0 ok")

    def _noop(self, _line: bytes) -> None:
        self._emit(b"250 2.0.0 ok")

    def _vrfy(self, _line: bytes) -> None:
        self._emit(b"252 2.0.0 send and see")

    def _quit(self, _line: bytes) -> None:
        self._end_transaction()
        self._answer("quit", b"221 2.0.0 bye")
        self._step = self._hang_up

    def _hang_up(self) -> bool:
        self._is_closing = True
        return False

    # The message.

    def _await_body(self) -> bool:
        if not self._buffer or self._transaction is None:
            return False
        self._scanned = self._skipped = 0
        self._step = self._read_body
        self._judge_body(self._transaction)
        return True

    def _judge_body(self, transaction: Transaction) -> None:
        """A rule at `body` ends the session while the message is on its way, or lets it wait there."""
        ruling = self._rules.at("body", transaction.recipients[-1])
        transaction.stage, transaction.reply = "body", b""
        if ruling is None:
            return
        if ruling.reply or ruling.drop:
            transaction.reply = b"" if ruling.drop else ruling.reply
            self._step = self._hang_up
            self._emit_after(ruling.delay, transaction.reply)
        elif ruling.delay:
            self._hold(ruling.delay, lambda: None)

    def _read_body(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(b".\r\n") and not self._skipped:  # the CRLF before this dot was that of DATA
            end, after = 0, 3
        else:
            found = buffer.find(b"\r\n.\r\n", self._scanned)
            if found < 0:
                self._keep_little()
                return False
            end, after = found + 2, found + 5
        message = bytes(buffer[:end])
        del buffer[:after]
        self._step = self._read_command
        self._finish(message, is_stuffed=True, is_whole=self._skipped == 0 and end <= self._sink.options.max_size)
        return True

    def _keep_little(self) -> None:
        """Of a message over SIZE only its end is looked for."""
        size = len(self._buffer)
        if self._skipped or size > self._sink.options.max_size:
            self._skipped += max(0, size - 4)
            del self._buffer[:-4]
        self._scanned = max(0, len(self._buffer) - 4)

    def _read_chunk(self) -> bool:
        taken = self._buffer[: self._left]
        del self._buffer[: len(taken)]
        self._left -= len(taken)
        transaction = self._transaction
        chunks = transaction.chunks if transaction is not None else None
        if chunks is not None and len(chunks) <= self._sink.options.max_size:
            chunks += taken
        if self._left:
            return False
        self._step = self._read_command
        if transaction is None or chunks is None:
            self._emit(_OUT_OF_TURN)
        elif self._is_last:
            self._finish(bytes(chunks), is_stuffed=False, is_whole=len(chunks) <= self._sink.options.max_size)
        else:
            reply = self._answer("data", b"250 2.0.0 chunk taken", transaction.recipients[-1])
            self._reach("data", reply)
        return True

    def _finish(self, message: bytes, *, is_stuffed: bool, is_whole: bool) -> None:
        transaction = self._transaction
        assert transaction is not None  # only DATA and BDAT lead here
        reply = b"250 2.0.0 taken as %x" % self._sink.next_id() if is_whole else _TOO_LARGE
        transaction.stage = "dot"
        transaction.reply = self._answer("dot", reply, transaction.recipients[-1])
        self._sink.took(self._number, self._read_at, transaction, message, is_stuffed=is_stuffed)
        self._end_transaction()

    def _reach(self, stage: str, reply: bytes, good: bytes = b"2") -> bool:
        """Note how far the transaction came; a refusal ends it (a dropped connection ends it when it is lost)."""
        assert self._transaction is not None
        self._transaction.stage, self._transaction.reply = stage, reply
        is_on = reply.startswith(good)
        if not is_on:
            self._end_transaction()
        return is_on

    def _end_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._sink.ended(self._number, transaction)

    # STARTTLS and AUTH.

    def _starttls(self, line: bytes) -> None:
        if line.strip().upper() != b"STARTTLS" or self._sink.tls is None or self._is_secure:
            return self._emit(b"502 5.5.1 not offered")
        self._end_transaction()
        if self._answer("starttls", b"220 2.0.0 go on").startswith(b"2"):
            self._step = self._upgrade
        return None

    def _upgrade(self) -> bool:
        """RFC 3207 4.2: what came in clear after the command is thrown away, and so is its EHLO."""
        self._buffer.clear()
        self._flush()
        self._is_held, self._is_greeted = True, False
        self._step = self._read_command
        self._sink.spawn(self._shake_hands())
        return False

    async def _shake_hands(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._sink.tls is not None
        try:
            secure = await loop.start_tls(self._transport, self, self._sink.tls, server_side=True)
        except (OSError, ConnectionError):
            secure = None  # a client that cannot or will not: it is gone, which is no trouble of ours
        if secure is None or self._is_closing:
            self._transport.abort()
            self.connection_lost(None)  # asyncio does not tell when a handshake fails
            return
        self._transport = secure
        self._is_secure, self._is_held = True, False
        self._go_on()

    def _auth(self, line: bytes) -> None:
        if not self._sink.options.user or not self._is_greeted:
            return self._emit(b"502 5.5.1 not offered")
        if self._is_known or self._transaction is not None:
            return self._emit(_OUT_OF_TURN)
        self._login = Login(line)
        return self._ask_or_judge(self._login)

    def _read_login(self) -> bool:
        line = self._take_line()
        if line is None or self._login is None:
            return False
        self._step = self._read_command
        self._login.hear(line)
        self._ask_or_judge(self._login)
        return True

    def _ask_or_judge(self, login: Login) -> None:
        if login.prompt is not None:
            self._emit(b"334 " + login.prompt)
            self._step = self._read_login
            return
        good = login.is_by(self._sink.options.user, self._sink.options.password)
        reply = login.error or (b"235 2.7.0 welcome" if good else b"535 5.7.8 wrong user or password")
        self._is_known = self._answer("auth", reply).startswith(b"2")


_COMMANDS: dict[bytes, Callable[[Session, bytes], None]] = {
    b"EHLO": Session._ehlo,
    b"HELO": Session._ehlo,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"BDAT": Session._bdat,
    b"RSET": Session._rset,
    b"NOOP": Session._noop,
    b"VRFY": Session._vrfy,
    b"QUIT": Session._quit,
    b"STAR": Session._starttls,
    b"AUTH": Session._auth,
}
