"""The trial server: each option does what it says, in dialogues over loopback."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from sendengine.errors import RefusedInput
from sendengine.trial.rules import Rules
from sendengine.trial.sink import Counts, Sink, SinkOptions, serve

_ENVELOPE = "MAIL FROM:<a@b.cz>|RCPT TO:<c@d.cz>|DATA|"
_MESSAGE = "Subject: hi|Message-ID: <1@b.cz>||text|.|"


CERTIFICATE = str(Path(__file__).parent / "dialogues" / "localhost.pem")  # with its key


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Sink]:
    sink = await serve(SinkOptions(port=0, **options))
    try:
        yield sink
    finally:
        await sink.close()


async def talk(sink: Sink, script: str | bytes, hello: str = "EHLO x|") -> list[str]:
    """Write it all at once (`|` ends a line), read until the server hangs up; the replies, those of EHLO left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    octets = script.replace("|", "\r\n").encode() if isinstance(script, str) else script
    writer.write(hello.replace("|", "\r\n").encode() + octets)
    try:
        said = (await reader.read()).decode()
    except ConnectionError:
        said = ""
    writer.close()
    return [line for line in said.split("\r\n")[1:] if line and not line.startswith("250-") and line[4:] != _last_extension(sink)]


def _last_extension(sink: Sink) -> str:
    return sink.extensions(False).rpartition(b"\r\n")[2].decode()[4:]


def codes(replies: list[str]) -> list[str]:
    return [reply[:3] for reply in replies]


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


async def test_smtplib_delivers_and_the_ledger_has_the_message(tmp_path: Path) -> None:
    body = "Subject: =?utf-8?q?P=C5=99=C3=ADklad?=\r\nMessage-ID: <1@b.cz>\r\n\r\n.dot\r\n..dots\r\n.\r\nend\r\n"

    def deliver(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("a@b.cz", ["c@d.cz"], body)

    async with running(ledger=str(tmp_path / "ledger")) as sink:
        await asyncio.to_thread(deliver, sink.port)
    (line,) = lines(tmp_path / "ledger")
    assert list(line) == [*("at", "mail_at", "session", "mail_from", "rcpt_to", "size", "message_id", "subject", "sha256", "reply")]
    assert line["mail_at"] <= line["at"]
    assert (line["mail_from"], line["rcpt_to"], line["size"]) == ("a@b.cz", "c@d.cz", len(body))
    assert (line["subject"], line["message_id"]) == ("Příklad", "<1@b.cz>")
    assert line["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    assert line["reply"].startswith("250 2.0.0")


async def test_pipelined_messages_are_answered_in_order() -> None:
    async with running() as sink:
        said = await talk(sink, (_ENVELOPE + _MESSAGE) * 3 + "QUIT|")
        assert codes(said) == ["250", "250", "354", "250"] * 3 + ["221"]
        assert sink.counts == Counts(sessions=1, mails=3, taken=3, octets=3 * 43)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_pieces_of_any_size_make_the_same_dialogue(size: int, tmp_path: Path) -> None:
    script = ("EHLO x|" + _ENVELOPE + "..|.x||.|" + _ENVELOPE + ".|QUIT|").replace("|", "\r\n").encode()
    async with running(ledger=str(tmp_path / "l")) as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        for at in range(0, len(script), size):
            writer.write(script[at : at + size])
            await asyncio.sleep(0)
        said = (await reader.read()).decode().splitlines()
        writer.close()
    assert codes(said)[-9:] == ["250", "250", "354", "250"] * 2 + ["221"]
    assert [line["size"] for line in lines(tmp_path / "l")] == [len(".\r\nx\r\n\r\n"), 0]


@pytest.mark.parametrize(
    ("script", "replies"),
    [
        ("RCPT TO:<a@b.cz>|DATA|BDAT 3|abcQUIT|", ["503", "503", "503", "221"]),
        ("MAIL FROM:<a@b.cz>|MAIL FROM:<a@b.cz>|RSET|MAIL FROM:<>|QUIT|", ["250", "503", "250", "250", "221"]),
        ("MAIL FROM:<a@b.cz>|DATA|QUIT|", ["250", "554", "221"]),
        ("MAIL FROM:a@b.cz|NOOP|VRFY x|HELP|QUIT|", ["501", "250", "252", "500", "221"]),
        ("STARTTLS|AUTH PLAIN|BDAT x|", ["502", "502", "421"]),
    ],
)
async def test_commands_out_of_turn_are_refused(script: str, replies: list[str]) -> None:
    async with running() as sink:
        assert codes(await talk(sink, script)) == replies


async def test_mail_before_ehlo_is_refused() -> None:
    async with running() as sink:
        assert codes(await talk(sink, _ENVELOPE + "QUIT|", hello="")) == ["503", "503", "503", "221"]


async def test_chunks_make_a_message(tmp_path: Path) -> None:
    script = "MAIL FROM:<a@b.cz>|RCPT TO:<c@d.cz>|BDAT 5|..a|\nBDAT 0|BDAT 3 LAST|b|QUIT|"
    async with running(ledger=str(tmp_path / "l")) as sink:
        said = await talk(sink, script.replace("|\n", "|"))
    assert codes(said) == ["250", "250", "250", "250", "250", "221"]
    (line,) = lines(tmp_path / "l")
    assert line["sha256"] == hashlib.sha256(b"..a\r\nb\r\n").hexdigest()


@pytest.mark.parametrize(
    ("stage", "replies"),
    [
        ("ehlo", ["550", "503", "503", "503", "500", "500", "500", "500", "500", "221"]),
        ("mail", ["550", "503", "503", "500", "500", "500", "500", "500", "221"]),
        ("rcpt", ["250", "550", "554", "500", "500", "500", "500", "500", "221"]),
        ("data", ["250", "250", "550", "500", "500", "500", "500", "500", "221"]),
        ("body", ["250", "250", "354", "550"]),
        ("dot", ["250", "250", "354", "550", "221"]),
        ("quit", ["250", "250", "354", "250", "550"]),
    ],
)
async def test_reject_answers_at_its_stage(stage: str, replies: list[str]) -> None:
    async with running(reject=(f"{stage}=550",)) as sink:
        assert codes(await talk(sink, _ENVELOPE + _MESSAGE + "QUIT|")) == replies


async def test_a_rejected_greeting_closes() -> None:
    async with running(reject=("connect=554 5.7.1 not you",)) as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        assert await reader.read() == b"554 5.7.1 not you\r\n"
        writer.close()


async def test_421_closes_at_any_stage() -> None:
    async with running(reject=("rcpt=421 4.3.2 shutting down",)) as sink:
        assert (await talk(sink, _ENVELOPE + "QUIT|"))[-1] == "421 4.3.2 shutting down"


async def test_reject_may_be_for_some_addresses() -> None:
    async with running(reject=("rcpt=451@example.net", "mail=550 5.1.8 bad sender@evil")) as sink:
        said = await talk(sink, "MAIL FROM:<x@evil.cz>|MAIL FROM:<a@b.cz>|RCPT TO:<x@example.net>|RCPT TO:<x@example.com>|QUIT|")
        assert said[:4] == ["550 5.1.8 bad sender", "250 2.1.0 ok", "451 4.0.0 as requested", "250 2.1.5 ok"]


async def test_reject_may_be_at_a_probability() -> None:
    async with running(reject=("dot=452%0.25",)) as sink:
        await talk(sink, (_ENVELOPE + _MESSAGE) * 400 + "QUIT|")
        assert 70 <= sink.counts.refused <= 130
        assert sink.counts.refused + sink.counts.taken == 400


async def test_refusals_count_at_whatever_stage_they_are() -> None:
    rules = ("mail=451@a.org", "rcpt=550@b.org", "data=451@c.org", "dot=550@d.org")
    async with running(reject=rules, drop=("dot@e.org",)) as sink:
        for domain in "abcdef":
            address = f"<u@{domain}.org>"
            await talk(sink, f"MAIL FROM:{address}|RCPT TO:{address}|DATA|x|.|QUIT|")
        assert (sink.counts.mails, sink.counts.refused, sink.counts.dropped, sink.counts.taken) == (6, 4, 1, 1)


@pytest.mark.parametrize("chunks", [False, True])
async def test_messages_are_kept_as_they_came_by_their_line_in_the_ledger(tmp_path: Path, chunks: bool) -> None:
    folder, ledger = tmp_path / "kept", tmp_path / "l"
    bodies = [b"Subject: a\r\n\r\n.dot\r\n..\r\n", b"Subject: b\r\n\r\nsecond \xff\r\n"]
    for body in bodies:  # each by a server of its own: the ledger goes on, and so do the numbers
        async with running(keep=str(folder), ledger=str(ledger)) as sink:
            stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
            content = b"BDAT %d LAST\r\n%b" % (len(body), body) if chunks else b"DATA\r\n%b.\r\n" % stuffed
            await talk(sink, b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n" + content + b"QUIT\r\n")
    assert [(folder / name).read_bytes() for name in ("000001.eml", "000002.eml")] == bodies
    assert [line["sha256"] for line in lines(ledger)] == [hashlib.sha256(body).hexdigest() for body in bodies]
    with pytest.raises(RefusedInput, match="another ledger"):
        Sink(SinkOptions(keep=str(folder), ledger=str(tmp_path / "new")))


@pytest.mark.parametrize(
    ("stage", "replies"),
    [("ehlo", []), ("mail", []), ("rcpt", ["250"]), ("data", ["250", "250"]), ("body", ["250", "250", "354"])],
)
async def test_drop_closes_in_place_of_the_reply(stage: str, replies: list[str]) -> None:
    async with running(drop=(stage,)) as sink:
        assert codes(await talk(sink, _ENVELOPE + _MESSAGE + "QUIT|")) == replies


async def test_a_dropped_dot_leaves_a_message_without_reply(tmp_path: Path) -> None:
    async with running(drop=("dot",), ledger=str(tmp_path / "l"), transactions=str(tmp_path / "t")) as sink:
        said = await talk(sink, _ENVELOPE + _MESSAGE)
        assert (codes(said), sink.counts.dropped) == (["250", "250", "354"], 1)
    assert [line["reply"] for line in lines(tmp_path / "l")] == [""]
    assert [(line["stage"], line["reply"]) for line in lines(tmp_path / "t")] == [("dot", "")]


async def test_transactions_tell_how_far_each_mail_came(tmp_path: Path) -> None:
    script = _ENVELOPE + _MESSAGE + "MAIL FROM:<a@bad.cz>|MAIL FROM:<a@b.cz>|RCPT TO:<x@bad.cz>|RSET|" + _ENVELOPE + "cut"
    async with running(reject=("mail=550@bad", "rcpt=550@bad"), transactions=str(tmp_path / "t")) as sink:
        _reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(("EHLO x|" + script).replace("|", "\r\n").encode())
        writer.write_eof()
        await _reader.read()
        writer.close()
    assert [(line["stage"], line["reply"][:3], line["rcpt_to"]) for line in lines(tmp_path / "t")] == [
        ("dot", "250", "c@d.cz"),
        ("mail", "550", ""),
        ("rcpt", "550", "x@bad.cz"),
        ("body", "", "c@d.cz"),
    ]


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "body", "dot", "quit"])
async def test_delay_holds_what_follows_and_changes_no_reply(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def at_once(delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        held.append(delay)
        return call_later(0, callback, *args)

    async with running(delay=(f"{stage}=3600",)) as sink:
        monkeypatch.setattr(loop, "call_later", at_once)
        said = await talk(sink, _ENVELOPE + _MESSAGE + "QUIT|")
    assert codes(said) == ["250", "250", "354", "250", "221"]
    assert held == [3600.0]


async def test_rate_answers_451_above_it() -> None:
    async with running(rate="3/h") as sink:
        said = await talk(sink, "MAIL FROM:<a@b.cz>|RSET|" * 5 + "QUIT|")
        assert codes(said) == ["250", "250"] * 3 + ["451", "250"] * 2 + ["221"]


def test_the_rate_holds_in_every_window() -> None:
    async def admitted() -> list[bool]:
        sink = Sink(SinkOptions(rate="2/s"))
        return [sink.admits(at) for at in (0.0, 0.5, 0.75, 1.0, 1.25, 1.5)]

    assert asyncio.run(admitted()) == [True, True, False, True, False, True]


async def test_extensions_are_offered_as_asked() -> None:
    async with running() as both, running(chunking=False, pipelining=False, user="u") as neither:
        assert both.extensions(False).splitlines()[1:] == [
            b"250-PIPELINING", b"250-SIZE 67108864", b"250-8BITMIME", b"250-ENHANCEDSTATUSCODES", b"250 CHUNKING",
        ]  # fmt: skip
        assert neither.extensions(False).splitlines()[1:] == [
            b"250-SIZE 67108864", b"250-8BITMIME", b"250-ENHANCEDSTATUSCODES", b"250 AUTH PLAIN LOGIN",
        ]  # fmt: skip


@pytest.mark.parametrize("rule", [{"delay": ("data=1",)}, {"reject": ("data=451",)}, {"drop": ("data",)}])
async def test_a_rule_at_data_leaves_no_way_around_it(rule: dict[str, Any]) -> None:
    async with running(**rule) as ruled, running(delay=("dot=1",)) as other:
        assert [b"CHUNKING" in sink.extensions(False) for sink in (ruled, other)] == [False, True]


@pytest.mark.parametrize(
    ("script", "replies"),
    [
        ("AUTH PLAIN AHUAcA==|MAIL FROM:<>|QUIT|", ["235", "250", "221"]),
        ("AUTH PLAIN|AHUAcA==|QUIT|", ["334", "235", "221"]),
        ("AUTH LOGIN|dQ==|cA==|AUTH LOGIN|QUIT|", ["334", "334", "235", "503", "221"]),
        ("AUTH LOGIN dQ==|cA==|QUIT|", ["334", "235", "221"]),
        ("AUTH PLAIN AHUAeA==|MAIL FROM:<>|QUIT|", ["535", "530", "221"]),
        ("AUTH PLAIN|*|AUTH LOGIN ?|AUTH GSSAPI|AUTH|QUIT|", ["334", "501", "501", "504", "504", "221"]),
    ],
)
async def test_a_user_must_authenticate(script: str, replies: list[str]) -> None:
    async with running(user="u", password="p") as sink:
        assert codes(await talk(sink, script)) == replies


async def test_starttls_forgets_what_came_in_clear() -> None:
    def deliver(port: int) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=CERTIFICATE)
        context.check_hostname = False
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.ehlo()
            assert client.sock is not None
            client.sock.sendall(b"STARTTLS\r\nRSET\r\nRSET\r\n")
            assert client.getreply()[0] == 220
            client.sock = context.wrap_socket(client.sock)
            client.file = client.sock.makefile("rb")
            early = client.docmd("MAIL FROM:<a@b.cz>")[0]
            client.ehlo()
            assert not client.has_extn("starttls")
            client.sendmail("a@b.cz", ["c@d.cz"], "Subject: x\r\n\r\n")
            return early, client.noop()[1]

    async with running(cert=CERTIFICATE) as sink:
        assert await asyncio.to_thread(deliver, sink.port) == (503, b"2.0.0 ok")
        assert sink.counts.taken == 1


async def test_a_failed_handshake_harms_nobody() -> None:
    async with running(cert=CERTIFICATE) as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"EHLO x\r\nSTARTTLS\r\n")
        await reader.readuntil(b"220 2.0.0 go on\r\n")
        writer.write(b"this is no handshake, and long enough to be seen as none\r\n")
        await reader.read()
        writer.close()
        assert codes(await talk(sink, "QUIT|"))[-1] == "221"


async def test_a_message_over_the_size_is_read_and_refused(tmp_path: Path) -> None:
    big = "x" * 70 + "|"
    script = "MAIL FROM:<a@b.cz> SIZE=5000|" + _ENVELOPE + big * 50 + ".|" + _ENVELOPE + "ok|.|QUIT|"
    async with running(max_size=1000, ledger=str(tmp_path / "l")) as sink:
        assert codes(await talk(sink, script)) == ["552", *["250", "250", "354", "552"], *["250", "250", "354", "250"], "221"]
    assert [line["reply"][:3] for line in lines(tmp_path / "l")] == ["552", "250"]


async def test_a_line_without_end_is_cut_off() -> None:
    async with running() as sink:
        assert (await talk(sink, b"x" * 9000))[-1:] in (["421 5.5.2 line too long"], [])


async def test_noise_never_breaks_the_server() -> None:
    pick = random.Random(3)
    words = [
        b"MAIL FROM:<a@b>\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"DATA\r\n",
        b"BDAT 9 LAST\r\n",
        b".\r\n",
        b"\r\n",
        b"\xff\x00",
        b"AUTH LOGIN\r\n",
    ]
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    async with running(user="", reject=("dot=552%0.5",)) as sink:
        for _ in range(60):
            await talk(sink, b"".join(pick.choices(words, k=30)) + b"\r\n.\r\nQUIT\r\n" * 3)
        assert sink.counts.sessions == 60
    assert errors == []


async def test_closing_hangs_up_and_writes_the_ledger(tmp_path: Path) -> None:
    sink = await serve(SinkOptions(port=0, ledger=str(tmp_path / "l")))
    reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
    writer.write(("EHLO x|" + _ENVELOPE + _MESSAGE).replace("|", "\r\n").encode())
    await reader.readuntil(b"taken")
    await sink.close()
    writer.close()
    assert len(lines(tmp_path / "l")) == 1


def test_the_process_ends_on_term_with_its_counts(tmp_path: Path) -> None:
    code = "import sys; from sendengine.trial.sink import *; run(SinkOptions(port=0, ledger=sys.argv[1]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "l")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        port = orjson.loads(process.stdout.readline())["port"]
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("a@b.cz", ["c@d.cz"], "Subject: x\r\n\r\n")
        os.kill(process.pid, signal.SIGTERM)
        counts = orjson.loads(process.stdout.readline())
    assert process.returncode == 0
    assert (counts["taken"], len(lines(tmp_path / "l"))) == (1, 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"reject": ["rcpt=50"]}, "not understood"),
        ({"reject": ["helo=550"]}, "no stage 'helo'"),
        ({"delay": ["dot=soon"]}, "not understood"),
        ({"drop": ["dot%1.2.3"]}, "no probability"),
        ({"drop": ["dot%1.5"]}, "0 to 1, not 1.5"),
        ({"reject": ["foo=3"]}, "no stage 'foo'"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(flags: dict[str, list[str]], words: str) -> None:
    with pytest.raises(RefusedInput, match=words):
        Rules(**flags)


@pytest.mark.parametrize("options", [{"rate": "fast"}, {"ledger": "/nowhere/x"}, {"cert": "/nowhere"}])
async def test_options_that_cannot_be_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(RefusedInput):
        await serve(SinkOptions(port=0, **options))  # type: ignore[arg-type]


async def test_a_port_in_use_is_refused() -> None:
    async with running() as sink:
        with pytest.raises(RefusedInput, match="cannot listen"):
            await serve(SinkOptions(port=sink.port))
