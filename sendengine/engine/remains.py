"""A dead worker's journal, read as far as it can be, as one settlement a lease (docs/design/011). Pure.

The last entry of a row is what became of it. Where fields cannot be read, what they may have said is in doubt: of a tick nothing is
believed, for a flipped bit may read as a `sent` that never was; a note takes with it which lease a number stood for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sendengine import records
from sendengine.policy.suppression import Mark, mark_of
from sendengine.ports import Blame, Settlement
from sendengine.types import Outcome

ALL_ROWS = b"\xff" * records.MASK_OCTETS
DIED = msgspec.json.encode(["4.3.0", "the worker died between its intent and an answer", ""])
DAMAGED = msgspec.json.encode(["4.3.0", "the worker died and its journal is damaged: this may have been sent", ""])
_OWN = (b"t", b"b", b"c")  # token, beat, news confirmed
_ReplyText = tuple[str, str, str]

Rows = dict[int, tuple[int, bytes]]  # row -> kind and body of its last entry


class Remains(msgspec.Struct):
    """What could be read. `damaged`: the names of the fields that could not, of whatever kind."""

    notes: dict[int, records.Note] = {}
    rows: dict[int, Rows] = {}  # by lease number, of notes that stand and of those that do not
    replies: dict[int, bytes] = {}
    damaged: list[bytes] = []
    lacks_notes: bool = False
    lacks_ticks: bool = False


def read(journal: Mapping[bytes, bytes]) -> Remains:
    """Never raises for what a field holds. A field of no known name may have been a note or a tick."""
    remains = Remains()
    ticks: list[tuple[int, bytes]] = []
    for name, value in journal.items():
        kind, number = name[:1], name[1:]
        if name.isdigit():
            ticks.append((int(name), value))
        elif kind == b"R" and number.isdigit():
            _read_reply(remains, name, value)
        elif kind == b"L" and number.isdigit():
            _read_note(remains, name, value)
        elif name not in _OWN:
            remains.damaged.append(name)
            remains.lacks_notes = remains.lacks_ticks = True
    for tick, blob in sorted(ticks):
        _read_tick(remains, b"%d" % tick, blob)
    return remains


def _read_note(remains: Remains, name: bytes, value: bytes) -> None:
    try:
        note = records.decode_note(value)
    except records.CorruptRecord:
        remains.damaged.append(name)
        remains.lacks_notes = True
    else:
        remains.notes[int(name[1:])] = note


def _read_reply(remains: Remains, name: bytes, value: bytes) -> None:
    """Without its text an outcome stands all the same; a text that is no JSON would spoil those beside it."""
    try:
        msgspec.json.decode(value, type=_ReplyText)
    except (msgspec.DecodeError, UnicodeDecodeError):
        remains.damaged.append(name)
    else:
        remains.replies[int(name[1:])] = value


def _read_tick(remains: Remains, name: bytes, blob: bytes) -> None:
    try:
        entries = list(records.journal_entries(blob))
    except records.CorruptRecord:
        remains.damaged.append(name)
        remains.lacks_ticks = True
        return
    for kind, lease, body in entries:
        remains.rows.setdefault(lease, {})[body[0]] = (kind, body)


def settlements_of(remains: Remains, now_ms: int) -> dict[str, list[Settlement]]:
    """Of the leases whose notes stand, by account."""
    by_account: dict[str, list[Settlement]] = {}
    blamed: set[tuple[str, str, int]] = set()
    for number, note in remains.notes.items():
        rows = remains.rows.get(number, {})
        batch = note.account, note.campaign, note.batch
        blame = Blame.NONE
        if batch not in blamed and _may_have_killed(note, rows):
            blame = Blame.KILL
            blamed.add(batch)  # a death counts once, however many leases of a batch it left
        why = DIED
        if remains.lacks_ticks:
            rows, why = {**_intents(range(records.ROWS)), **_without_withdrawn(rows)}, DAMAGED
        by_account.setdefault(note.account, []).append(_settlement(note.token, rows, remains.replies, now_ms, blame, why))
    return by_account


def settle_untold(remains: Remains, token: bytes) -> Settlement:
    """Of a lease that no readable note names, where notes are lacking: it may be any of those that entries speak of, and each row that
    one of them began may have been sent. None of their outcomes is this lease's for certain."""
    may_be_sent: set[int] = set()
    for number in remains.rows.keys() - remains.notes.keys():
        may_be_sent |= remains.rows[number].keys()
    rows = _intents(range(records.ROWS) if remains.lacks_ticks else sorted(may_be_sent))
    return _settlement(token, rows, {}, 0, Blame.SUSPECT, DAMAGED)


def marks_in(settlement: Settlement) -> dict[int, Mark]:
    """By row, what its outcomes say of their addresses. An outcome whose text is lost says nothing of a bounce."""
    texts = msgspec.json.decode(settlement.dictionary, type=dict[str, _ReplyText])
    found = {}
    for record in records.decode_outcomes(settlement.records):
        status = texts.get(str(record.reply), ("", "", ""))[0]
        mark = mark_of(record.outcome, status)
        if mark is not None:
            found[record.row] = mark
    return found


def _intents(rows: Iterable[int]) -> Rows:
    return {row: (records.KIND_INTENT, bytes((row,))) for row in rows}


def _without_withdrawn(rows: Rows) -> Rows:
    """What was withdrawn may have been begun again where we cannot read."""
    return {row: (kind, body) for row, (kind, body) in rows.items() if kind != records.KIND_WITHDRAWN}


def _may_have_killed(note: records.Note, rows: Mapping[int, tuple[int, bytes]]) -> bool:
    """Its batch was being opened, or something of it was on its way (docs/design/010)."""
    return note.is_opening or any(kind == records.KIND_INTENT for kind, _ in rows.values())


def _settlement(
    token: bytes, rows: Mapping[int, tuple[int, bytes]], replies: Mapping[int, bytes], now_ms: int, blame: Blame, why: bytes
) -> Settlement:  # fmt: skip
    finals, deferred, doubts = bytearray(), bytearray(), bytearray()
    final_rows: list[int] = []
    used: dict[int, None] = {}
    counts, tried = [0] * 6, 0
    times: list[tuple[float, bool]] = []
    for row, (kind, body) in rows.items():
        if mail_ms := records.mail_ms(kind, body):
            times.append((records.unwrap_ms(mail_ms, now_ms) * 1000.0, body[1] >= records.FIRST_TRY))
        if kind == records.KIND_OUTCOME:
            finals += body
            final_rows.append(row)
            counts[body[1] % records.FIRST_TRY - 1] += 1
            tried += body[1] >= records.FIRST_TRY
            used[int.from_bytes(body[3:5], "little")] = None
        elif kind == records.KIND_DEFERRED:
            deferred += body
        elif kind == records.KIND_DOUBT:
            doubts += body
            used[int.from_bytes(body[3:5], "little")] = None
        elif kind == records.KIND_INTENT:
            what = Outcome.UNKNOWN | records.FIRST_TRY
            doubts += records.DOUBT.pack(row, what, 1, records.RESCUER_REPLY, 0, 0.0, 0.0, 0, 0)
            used[records.RESCUER_REPLY] = None
    texts = {**replies, records.RESCUER_REPLY: why}
    dictionary = b",".join(b'"%d":%b' % (n, texts[n]) for n in used if n in texts)
    return Settlement(
        token=token,
        final=records.mask_of(final_rows),
        records=bytes(finals),
        dictionary=b"{" + dictionary + b"}",
        nums=records.NUMS.pack(*counts, tried, len(times), *_span(times)),
        deferred=bytes(deferred),
        doubts=bytes(doubts),
        back=ALL_ROWS,
        blame=blame,
    )


def _span(times: list[tuple[float, bool]]) -> tuple[float, float, float]:
    """First first try's MAIL, last first try's, last of all; 0.0 where there is none."""
    first = [at for at, is_first in times if is_first]
    return min(first, default=0.0), max(first, default=0.0), max((at for at, _ in times), default=0.0)
