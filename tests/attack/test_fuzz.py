"""Whatever comes in: accepted, or refused by one of our own errors, and nothing else. What was accepted says the same again.

SENDENGINE_FUZZ_EXAMPLES=100000 makes a long run of it; a failing example is printed with what reproduces it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sendengine import config, records
from sendengine.address import all_plain, normalise
from sendengine.batch import MAX_CONTENT, VERSION, Batch, content, first_difference, pack, unpack
from sendengine.engine import remains
from sendengine.errors import SendEngineError
from sendengine.intake import Intake, PackedBatch
from sendengine.policy import replies, retry, tiers, times
from sendengine.policy.window import Window
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Attachment, Message, dump, load
from sendengine.render.values import RenderFailure
from sendengine.reply import MAX_LINE, MAX_REPLY, MAX_TEXT, ReplyParser, make_reply, strip_ids
from sendengine.types import Outcome
from tests.attack.corpus import FUZZ, Escaped, nasty, nasty_octets, ours
from tests.attack.sending import TO, made, render
from tests.attack.wire import read

NOW = 1_795_000_000.0


def woven(*pieces: str) -> st.SearchStrategy[str]:
    """Texts of a language's own words, with nasty ones among them."""
    return st.lists(st.one_of(st.sampled_from(pieces), nasty), max_size=12).map("".join)


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(octets[at : at + size])
        at += size
    return [*chunks, octets[at:]]


sizes = st.lists(st.integers(0, 40), max_size=6)

# Lists of recipients

CELLS = ["email", "a", "b", ",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "u@example.com", "v@example.com", "5", "9", "ž",
         "\ufeff", "\0"]
csv_texts = woven("email,a,b\n", "u@example.com,1,2\n", *CELLS)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), nasty),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(nasty, inner, max_size=3)),
    max_leaves=8,
)
json_texts = woven('{"email":"u@example.com","a":1}\n', '{"email":', '"u@example.com"', ',"a":', ',"b":', "1e400", "[", "]", "{",
"}", "\n", "null",
                   "1" * 400, "NaN", "-", '"\\ud800"', '"\\u0000"', '"', "\\", ":", "true")  # fmt: skip


def made_intake() -> Intake:
    return Intake(("a", "b"), required=frozenset("a"), in_headers=frozenset("b"), priority="p", salt=b"salt")


def keep_their_promises(batches: list[PackedBatch]) -> None:
    for number, packed in enumerate(batches):
        batch = unpack(packed.payload)
        assert packed.number == batch.number == number
        assert packed.rows == len(batch.positions) + len(packed.rejected) <= 100
        assert len(packed.fingerprints) == 8 * len(batch.recipients)
        assert bytes(batch.positions) == packed.positions
        assert sorted([*batch.positions, *(row.row % 100 for row in packed.rejected)]) == list(range(packed.rows))
        assert all(normalise(recipient) == recipient for recipient in batch.recipients)
        assert not any(type(value) is str and not value.isprintable() and "\n" in value for value in batch.columns[1])


@FUZZ
@given(st.one_of(csv_texts.map(lambda text: text.encode("utf-8", "surrogatepass")), nasty_octets), sizes, st.booleans())
def test_csv(octets: bytes, pieces: list[int], has_head: bool) -> None:
    data = b"email,a,b,p\nu@example.com,1,2,3\n" * has_head + octets
    found = ours(lambda: list(made_intake().from_csv(cut(data, pieces))))
    again = ours(lambda: list(made_intake().from_csv([data])))
    if isinstance(found, SendEngineError):
        assert str(found) == str(again)
    else:
        keep_their_promises(found)
        assert found == again  # wherever it is cut


@FUZZ
@given(st.one_of(json_texts.map(lambda text: text.encode("utf-8", "surrogatepass")), nasty_octets), sizes)
def test_ndjson(octets: bytes, pieces: list[int]) -> None:
    found = ours(lambda: list(made_intake().from_ndjson(cut(octets, pieces))))
    assert not isinstance(found, SendEngineError)  # a bad line is a refused row
    keep_their_promises(found)
    assert found == list(made_intake().from_ndjson([octets]))


@FUZZ
@given(st.lists(st.one_of(st.dictionaries(st.sampled_from(["email", "a", "b", "p", "A"]), json_values), json_values), max_size=5))
def test_a_program_s_rows(rows: list[Any]) -> None:
    good = {"email": "u@example.com", "a": 1, "b": "x", "p": 5}
    found = ours(lambda: list(made_intake().from_rows([*rows, good])))
    assert not isinstance(found, SendEngineError)
    keep_their_promises(found)
    assert len(found[0].positions) >= 1


@FUZZ
@given(st.lists(st.one_of(nasty, st.sampled_from(["a@example.com", "b@ex-ample.cz"])), max_size=4))
def test_addresses(texts: list[str]) -> None:
    found = [ours(lambda text=text: normalise(text)) for text in texts]  # type: ignore[misc]
    if texts and all_plain(texts):
        assert found == texts
    for address in found:
        if isinstance(address, str):
            assert normalise(address) == address
            assert address.isascii()
            assert len(address) <= 254


# Messages

TEMPLATE = ["{{", "}}", "{%", "%}", "{{ a }}", "{{ a | default('x') }}", "{% if a %}", "{% else %}", "{% endif %}",
            "{% for x in a %}", "{% endfor %}",
            "{% raw %}", "{% endraw %}", "{#", "#}", " a ", "x.y", "a[0]", " | upper", " | sort", "'", '"', "\\", "(", ")", "[",
            "]", "{", "}", "~", "+", "-", "*",
            " in ", " is defined", " not ", "1", "1e400", "9" * 30, ",", ".", ":", "\n", "loop.index", " if ", " else ", "|",
            "{%-", "-%}", "{{-", "-}}"]  # fmt: skip


@FUZZ
@given(woven(*TEMPLATE), st.sampled_from(["text", "html", "subject", "sender", "list_unsubscribe"]), json_values, st.booleans())
def test_templates(text: str, place: str, value: object, eightbit: bool) -> None:
    wire = ours(lambda: render(made(**{place: text}), {"a": value, "x": "y"}, eightbit=eightbit))
    if isinstance(wire, bytes):
        read(wire)


@FUZZ
@given(st.fixed_dictionaries({}, optional={
    "sender": nasty, "subject": nasty, "text": nasty, "html": nasty, "reply_to": nasty, "list_unsubscribe": nasty,
    "headers": st.dictionaries(nasty, nasty, max_size=2),
    "attachments": st.lists(st.builds(Attachment, nasty, st.binary(max_size=9), nasty, st.one_of(st.none(), nasty)),
    max_size=2).map(tuple),
}))  # fmt: skip
def test_messages(parts: dict[str, Any]) -> None:
    message = made(**parts)
    wire = ours(lambda: render(message, {"a": "x"}))
    if isinstance(wire, bytes):
        read(wire)
        assert load(dump(message)) == message


EML = ["From: a@example.org\n", "To: ", "Subject: ", "Content-Type: ", "text/plain", "text/html", "multipart/mixed",
       "message/rfc822", "; boundary=b", "; charset=",
       "; charset*=utf-8''x", "; charset*0=y", "; boundary*=utf-7''%2b2AA-", "utf-7", "undefined", "idna", "unicode_escape",
       "utf-16", "\n--b\n", "\n--b--\n",
       "\n\n", "\n ", "\r\n", "Content-Transfer-Encoding: ", "base64", "quoted-printable", "x-uuencode", "8bit", "=0A", "=",
       "begin 644 x\n", "+2AA-",
       "\\ud800", "{{ a }}", "MIME-Version: 1.0\n", "Content-Disposition: attachment\n", "ž", "."]  # fmt: skip


@FUZZ
@given(st.one_of(woven(*EML).map(lambda text: text.encode("utf-8", "surrogatepass")), nasty_octets), st.booleans())
def test_eml(octets: bytes, has_from: bool) -> None:
    wire = ours(lambda: render(Message.from_eml(b"From: a@example.org\n" * has_from + octets), {"a": "x"}))
    if isinstance(wire, bytes):
        assert "bcc" not in read(wire).names


TYPES = [
    "text/plain; charset*=utf-8''x; charset*0=y", "multipart/mixed; boundary*=utf-8''x; boundary*0=y", "text/plain; charset=undefined",
    "text/plain; charset=utf-7", "text/plain; charset=idna", "text/plain; charset=punycode", "text/plain; charset=unicode_escape",
    "text/plain; charset=rot13", "text/plain; charset=utf-16", "multipart/mixed; boundary*=utf-7''+2AA-", "text/plain; charset*0*=a'b'c",
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_eml_of_an_odd_type(kind: str) -> None:
    """What the email package and odd charsets make of these are exceptions of many kinds."""
    for body in ("+2AA-", "\\ud800 \\x0d", "xn--a", "x-", "--+2AA-\n\nx\n"):
        wire = ours(lambda body=body: render(Message.from_eml(f"From: a@example.org\nContent-Type: {kind}\n\n{body}\n".encode()), {}))  # type: ignore[misc]
        if isinstance(wire, bytes):
            read(wire)


@FUZZ
@given(st.lists(nasty, min_size=1, max_size=3), st.booleans())
def test_values_come_back_from_a_rendered_message(values: list[str], eightbit: bool) -> None:
    """Render, then parse: each row of a batch says its own value, whatever the others say."""
    from email import message_from_bytes

    renderer = compile_message(made(text="<{{ a }}>\n"), "u").renderer(eightbit)
    for value, row in zip(values, renderer.prepare(["a"], [values], [TO] * len(values)), strict=True):
        if isinstance(row, RenderFailure):
            assert not value.isprintable()
            continue
        body = message_from_bytes(renderer.wire(row, 1, b"d").replace(b"\n..", b"\n.")).get_payload(decode=True)
        assert isinstance(body, bytes)
        lines = value.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
        assert body.decode() == f"<{lines}>\r\n"


@FUZZ
@given(st.integers(0, 200), st.binary(max_size=60))
def test_stored_messages(at: int, noise: bytes) -> None:
    stored = dump(made())
    for octets in (noise, stored[:at], stored[:at] + noise[:3] + stored[at + 1 :]):
        found = ours(lambda octets=octets: load(octets))  # type: ignore[misc]
        assert isinstance(found, Message | SendEngineError)


# Payloads and records

cells = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
batches = st.builds(
    lambda number, column: Batch(number, list(range(len(column))), ["u@example.com"] * len(column), ("a",), [column], [], ""),
    st.integers(0, 2**40),
    st.lists(cells, max_size=6),
)
flips = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)


def flipped(octets: bytes, changes: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(octets)
    for at, octet in changes:
        if damaged:
            damaged[at % len(damaged)] = octet
    return bytes(damaged)


def framed(octets: bytes) -> bytes:
    return bytes((VERSION,)) + zstandard.compress(octets)


@FUZZ
@given(batches, flips, st.integers(0, 400), st.binary(max_size=40))
def test_batch_payloads(batch: Batch, changes: list[tuple[int, int]], end: int, noise: bytes) -> None:
    payload = pack(batch)
    assert unpack(payload) == batch
    for damaged in (flipped(payload, changes), payload[:end], noise, framed(flipped(content(batch), changes)), framed(noise)):
        found = ours(lambda damaged=damaged: unpack(damaged))  # type: ignore[misc]
        assert isinstance(found, Batch | SendEngineError)
        if isinstance(found, Batch):
            assert isinstance(ours(lambda found=found: first_difference(pack(found), payload)), int | None)  # type: ignore[misc]


@pytest.mark.parametrize(
    "octets",
    [b'[0,[],null,[],[' + b"[" * 100_000 + b"]" * 100_000 + b'],[],""]', b'[0,["a"],null,["\xff"],[["x"]],[],""]', b"[" * 100_000, b"",
     b'[' + b"9" * 5000 + b',[],null,[],[],[],""]', b'[0,[],[' + b"9" * 30 + b'],["a"],[],[],""]', b'[0,[],null,["\\ud800"],[],[],""]'],
)  # fmt: skip
def test_odd_payloads_are_corrupt(octets: bytes) -> None:
    found = ours(lambda: unpack(framed(octets)))
    assert isinstance(found, SendEngineError | Batch)


def test_a_payload_that_promises_too_much_is_not_unpacked() -> None:
    bomb = framed(b" " * (MAX_CONTENT + 1))
    assert len(bomb) < 10_000
    assert isinstance(ours(lambda: unpack(bomb)), SendEngineError)


journal_octets = st.lists(st.one_of(st.binary(max_size=25), st.builds(
    lambda kind, lease, body: records.ENTRY.pack(kind, lease) + body, st.integers(0, 5), st.integers(0, 3), st.binary(max_size=25)
)), max_size=5).map(b"".join)  # fmt: skip


@FUZZ
@given(journal_octets, st.binary(max_size=60))
def test_records(octets: bytes, more: bytes) -> None:
    for decode in (records.decode_outcomes, records.journal_entries):
        found = ours(lambda decode=decode: list(decode(octets)))  # type: ignore[misc,operator]
        assert isinstance(found, list | SendEngineError)
    for data in (octets, more, bytes(26) + more):
        lease = ours(lambda data=data: records.decode_lease(data))  # type: ignore[misc]
        assert isinstance(lease, records.LeaseRecord | SendEngineError)
        note = ours(lambda data=data: records.decode_note(data))  # type: ignore[misc]
        assert isinstance(note, records.Note | SendEngineError)
    whole = {b"L0": records.encode_note(records.Note("m1", b"t", "c", 0)), b"0": octets}
    damaged = {**whole, b"1": more, b"L1": more, b"R0": more, more: octets}
    assert isinstance(remains.settlements_of(remains.read(damaged), 1), dict)  # a dead worker's journal stops no rescuer, whatever is in it


@given(st.integers(0, 99), st.sampled_from(Outcome), st.booleans(), st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1))
def test_an_outcome_comes_back(row: int, outcome: Outcome, is_first: bool, tries: int, reply: int, at: int) -> None:
    packed = records.OUTCOME.pack(row, outcome | records.FIRST_TRY * is_first, tries, reply, at, 0.5, 0.25, records.connect_code(1.0))
    (found,) = records.decode_outcomes(packed)
    assert (found.row, found.outcome, found.was_first_try) == (row, outcome, is_first)
    assert (found.tries, found.reply, found.mail_ms) == (tries, reply, at)
    entry = records.ENTRY.pack(records.KIND_OUTCOME, 7) + packed
    assert list(records.journal_entries(entry * 3)) == [(records.KIND_OUTCOME, 7, packed)] * 3


@given(st.sets(st.integers(0, 99)))
def test_a_mask_comes_back(rows: set[int]) -> None:
    assert records.rows_of(records.mask_of(rows)) == sorted(rows)
    assert records.count(records.mask_of(rows)) == len(rows)


# Replies

REPLY = [b"250 ok\r\n", b"250-x\r\n", b"250\r\n", b"354 go\n", b"550 5.1.1 no\r\n", b"2", b"250", b"-", b" ", b"\r", b"\n",
         b"\0", b"421 ", b"999 x\r\n",
         b"200 2.0.0\r\n", b"250 2.0.0 \xff\r\n", b"x" * 600, b"y" * 5000, b"250-" + b"z" * 4000 + b"\r\n"]  # fmt: skip
reply_octets = st.lists(st.one_of(st.sampled_from(REPLY), st.binary(max_size=8)), max_size=12).map(b"".join)


@FUZZ
@given(reply_octets, st.lists(st.integers(0, 3000), max_size=8))
def test_replies(octets: bytes, pieces: list[int]) -> None:
    """The same replies wherever the octets are cut, until the first fault; never more in hand than a reply."""
    whole, parser = ReplyParser(), ReplyParser()
    expected = whole.feed(octets)
    found = []
    for piece in cut(octets, pieces):
        found += parser.feed(piece)
        assert len(parser._rest) <= MAX_LINE or parser.fault
        assert sum(map(len, parser._lines)) <= MAX_REPLY
    assert found == expected
    assert bool(parser.fault) == bool(whole.fault)
    for reply in found:
        assert 200 <= reply.code <= 599
        assert len(reply.text) <= MAX_TEXT
        assert not any(letter < " " or letter == "\x7f" for letter in reply.text)
        strip_ids(reply.text)


@FUZZ
@given(st.integers(200, 599), st.lists(nasty, max_size=4))
def test_replies_that_a_library_read(code: int, lines: list[str]) -> None:
    assert len(make_reply(code, lines).text) <= MAX_TEXT


# Words of operators and schedulers

WINDOW = ["Mon", "Fri", "-", " ", "09:00", "24:00", "17:00", "25:61", ",", "Europe/Prague", "UTC", "/", "..", "\0", "٠٩:٠٠",
          "zone.tab", "x" * 300]
TIME = ["now", "+", "1", "h", "w", "9" * 400, ".", "2026-05-01", "T", "08:00:00", "Z", "+02:00", "-24:00", "9999-12-31",
        "0001-01-01", " ", "1e5", "٣", "s"]
STEPS = ["1m", "5m*2", ",", " ", "0s", "9" * 400, "d", "*", "999", "1.5h", "s", "inf", "٣"]
RATES = ["60k", "1m", "unmetered", "/h", "7500", ".", "0", "9" * 400, " ", "K", "٣k"]
TIERS = config.tiers()


def _window(text: str) -> None:
    window = Window.parse(text)
    assert window.next_open(NOW) >= NOW
    assert (window.next_close(NOW) or NOW) >= NOW
    assert Window.parse(window.text) == window


def _time(text: str) -> None:
    wall = times.parse_time(text, NOW)
    assert abs(times.parse_time(times.format_time(wall), NOW) - wall) < 0.001


def _duration(text: str) -> None:
    assert 0 <= times.parse_duration(text) <= times.LONGEST


def _schedule(text: str) -> None:
    schedule = retry.parse(text)
    assert all(0 < retry.delay(schedule, tries, 0.999) * 1000 < 2**32 for tries in range(1, len(schedule.steps) + 2))
    struct.pack("<I", int(retry.delay(schedule, 999, 0.999) * 1000))


def _rate(text: str) -> None:
    name, per_hour = tiers.parse_rate(text, TIERS)
    assert per_hour is None or tiers.SLOWEST <= per_hour <= tiers.FASTEST
    assert tiers.parse_rate(name, TIERS)[0] == name
    float(tiers.interval_us(per_hour))


WORDS: dict[str, tuple[list[str], Callable[[str], None]]] = {
    "window": (WINDOW, _window),
    "time": (TIME, _time),
    "duration": (TIME, _duration),
    "schedule": (STEPS, _schedule),
    "rate": (RATES, _rate),
}


@FUZZ
@given(st.data(), st.sampled_from(sorted(WORDS)))
def test_words(data: st.DataObject, kind: str) -> None:
    pieces, claim = WORDS[kind]
    text = data.draw(st.one_of(st.lists(st.sampled_from(pieces), max_size=7).map("".join), woven(*pieces)))
    ours(lambda: claim(text))


TOML = ["relay", "hostname", "sessions", "retention_days", "lifetime_h", "retry", "[engine]\n", "[timeouts]\n", "tick_ms",
        "dot_s", "lead_ms", " = ", "=", "\n", "1", "0",
        "-1", "inf", "nan", "1e400", "9" * 5000, '"x"', "'x'", '"""', "[", "]", "{", "}", ",", "true", "2026-99-99",
        "2026-05-01", "#", ".", "per_hour",
        "title", '"unmetered"', "[[rule]]\n", "name", "pattern", "suspend_s", '"("', "'(a|a)*'", "'a{99999999999}'", '"\\ud800"',
        '"mail.example.org"']  # fmt: skip


@FUZZ
@given(woven(*TOML).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_configuration(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(octets)
    found = ours(lambda: config.load(str(path), {}))
    if not isinstance(found, SendEngineError):
        keep_sane(found)
    ours(lambda: config.tiers(str(path)))
    ours(lambda: replies.parse_rules(octets.decode("utf-8", "replace")))


def keep_sane(found: config.Config) -> None:
    for value in (*msgspec.structs.astuple(found), *msgspec.structs.astuple(found.engine), *msgspec.structs.astuple(found.timeouts)):
        assert not isinstance(value, float) or isfinite(value)
    int(found.retention_days * 86400)


@FUZZ
@given(st.sampled_from([keys for keys, _ in config.settings(config.Config)]), st.one_of(st.sampled_from(TOML), nasty))
def test_environment(keys: tuple[str, ...], text: str) -> None:
    found = ours(lambda: config.load(None, {"SENDENGINE_" + "_".join(keys).upper(): text}))
    if not isinstance(found, SendEngineError):
        keep_sane(found)


@pytest.mark.parametrize("text", ["x = " + "[" * 10_000 + "]" * 10_000, "sessions = " + "9" * 5000, "lifetime_h = inf",
"retention_days = nan",
                                  "x = 2026-99-99", 'hostname = "a b"', 'hostname = "x\\r\\nMAIL"'])  # fmt: skip
def test_odd_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    for load_ in (lambda: config.load(str(path), {}), lambda: config.tiers(str(path)), lambda: replies.parse_rules(text)):
        assert isinstance(ours(load_), SendEngineError)  # type: ignore[arg-type]


# The control


def test_a_decoder_that_lets_foreign_errors_out_is_found_out() -> None:
    for naive in (lambda: struct.unpack("<I", b"x"), lambda: b"\xff".decode(), lambda: {}["x"], lambda: int("9" * 5000), lambda: [][0]):
        with pytest.raises(Escaped):
            ours(naive)
