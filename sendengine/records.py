"""The octets that travel between worker, journal and account: masks, outcome records, journal entries. Pure.

The scripts read the same layouts (queue/lua/settling.lua names them); a change here is a change there.
All integers little-endian. A row is a recipient's place in its batch, 0 … 99; a mask has one bit a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import log2
from struct import Struct
from struct import error as StructError

import msgspec

from sendengine.errors import SendEngineError
from sendengine.types import Outcome

MASK_OCTETS = 13  # 100 bits
ROWS = 100  # of a batch
TRANSACTIONAL = "transactional"  # the campaign that holds an account's single messages
SENDER = "_sender"  # column of a single message's batch: its envelope sender
NO_ROWS = bytes(MASK_OCTETS)
FIRST_TRY = 8  # flag beside the outcome
NO_REPLY = 65535
RESCUER_REPLY = 65534  # a rescuer's text on what a dead worker left in doubt: workers number their replies below it
REVOKED = b"revoked"  # stands in a journal in its worker's token's place, from a takeover's first step to its last

# row, outcome | FIRST_TRY, tries, reply number, MAIL at ms mod 2^32 (0: none was written), paced s, transmit s (half floats), connect (log)
OUTCOME = Struct("<BBBHIeeB")
DEFERRED = Struct("<BBBIII")  # row, FIRST_TRY or 0, tries, first MAIL (active s), delay ms, MAIL at ms mod 2^32 (0: none was written)
DOUBT = Struct("<BBBHIeeBI")  # an outcome record, first MAIL (active s)
PAST = Struct("<BBI")  # row, tries, first MAIL (active s): what a lease knows of rows that were tried before
NUMS = Struct("<HHHHHHHHddd")  # six outcomes, tried, mails; first MAIL, last first try's MAIL, last MAIL (wall µs)

# journal entries: kind, lease number, then by kind: intent and withdrawn: row; outcome, deferred, doubt: their record
INTENT = Struct("<BIB")
ENTRY = Struct("<BI")
KIND_INTENT, KIND_WITHDRAWN, KIND_OUTCOME, KIND_DEFERRED, KIND_DOUBT = 0, 1, 2, 3, 4
_SIZES = {KIND_INTENT: 1, KIND_WITHDRAWN: 1, KIND_OUTCOME: OUTCOME.size, KIND_DEFERRED: DEFERRED.size, KIND_DOUBT: DOUBT.size}


class CorruptRecord(SendEngineError):
    """Octets that nobody here wrote, or damaged ones."""


def mask_of(rows: Iterable[int]) -> bytes:
    """The mask with these rows' bits set."""
    bits = 0
    for row in rows:
        bits |= 1 << row
    return bits.to_bytes(MASK_OCTETS, "little")


def rows_of(mask: bytes) -> list[int]:
    """The rows whose bits are set, ascending."""
    bits = int.from_bytes(mask, "little")
    return [row for row in range(MASK_OCTETS * 8) if bits >> row & 1]


def count(mask: bytes) -> int:
    return int.from_bytes(mask, "little").bit_count()


def connect_code(seconds: float) -> int:
    """Seconds as one octet, 4 % steps up to 65 s."""
    return min(255, round(16 * log2(1 + max(0.0, seconds) * 1000)))


def connect_seconds(code: int) -> float:
    return (2 ** (code / 16) - 1) / 1000.0


class OutcomeRecord(msgspec.Struct, frozen=True):
    """One decoded outcome. mail_ms is modulo 2^32: `unwrap_ms` puts it near a known time. Delays in seconds."""

    row: int
    outcome: Outcome
    was_first_try: bool
    tries: int
    reply: int
    mail_ms: int
    paced: float
    transmit: float
    connect: float


def decode_outcomes(records: bytes) -> Iterator[OutcomeRecord]:
    """Raises CorruptRecord."""
    if len(records) % OUTCOME.size:
        raise CorruptRecord(f"outcome records of {len(records)} octets")
    for row, what, tries, reply, at, paced, transmit, connect in OUTCOME.iter_unpack(records):
        if not 1 <= what % FIRST_TRY <= len(Outcome):
            raise CorruptRecord(f"an outcome record says {what}")
        yield OutcomeRecord(
            row, Outcome(what % FIRST_TRY), what >= FIRST_TRY, tries, reply, at, paced, transmit, connect_seconds(connect)
        )


def unwrap_ms(short: int, near_ms: int) -> int:
    """The full time, in ms, of a time kept modulo 2^32 (49 days) that is within 24 days of `near_ms`."""
    return near_ms + (short - near_ms + 2**31) % 2**32 - 2**31


def mail_ms(kind: int, body: bytes) -> int:
    """When MAIL was written for what a journal entry tells (ms modulo 2^32); 0 where none was, or it does not say."""
    at = {KIND_OUTCOME: 5, KIND_DOUBT: 5, KIND_DEFERRED: 11}.get(kind)
    return 0 if at is None else int.from_bytes(body[at : at + 4], "little")


def journal_entries(blob: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, lease number, body) of each entry of one tick's blob. Raises CorruptRecord."""
    at, end = 0, len(blob)
    while at < end:
        size = _SIZES.get(blob[at])
        if size is None or at + ENTRY.size + size > end:
            raise CorruptRecord(f"a journal entry at octet {at} of {end} is of no known kind, or cut off")
        kind, lease = ENTRY.unpack_from(blob, at)
        body = blob[at + ENTRY.size : at + ENTRY.size + size]
        if not _may_be(kind, body):
            raise CorruptRecord(f"a journal entry at octet {at} of {end} says what no worker writes")
        yield kind, lease, body
        at += ENTRY.size + size


def entries(kind: int, lease: int, bodies: bytes | bytearray) -> bytes:
    """The journal entries, of one kind, of records that lie one behind the other."""
    head, size = ENTRY.pack(kind, lease), _SIZES[kind]
    return b"".join([head + bodies[at : at + size] for at in range(0, len(bodies), size)])


def _may_be(kind: int, body: bytes) -> bool:
    if body[0] >= ROWS:
        return False
    if kind in (KIND_OUTCOME, KIND_DOUBT):
        return body[1] < 2 * FIRST_TRY and 1 <= body[1] % FIRST_TRY <= len(Outcome)
    return kind != KIND_DEFERRED or body[1] in (0, FIRST_TRY)


class LeaseRecord(msgspec.Struct, frozen=True):
    """A field of the account's lease hash (lua/lib.lua, lease_pack)."""

    mask: bytes
    batch: int
    level: int
    taken_us: float
    campaign: str
    worker: str
    past: bytes


_LEASE = Struct("<13sIBd")


def decode_lease(value: bytes) -> LeaseRecord:
    """Raises CorruptRecord."""
    try:
        mask, batch, level, taken = _LEASE.unpack_from(value)
        campaign, at = _named(value, _LEASE.size)
        worker, at = _named(value, at)
    except (StructError, IndexError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"a lease of {len(value)} octets: {error}") from None
    if (len(value) - at) % PAST.size:
        raise CorruptRecord(f"a lease of {len(value)} octets: a history is cut off")
    return LeaseRecord(mask, batch, level, taken, campaign, worker, value[at:])


def _named(value: bytes, at: int) -> tuple[str, int]:
    """A name after one octet of length, and what follows it."""
    end = at + 1 + value[at]
    if end > len(value):
        raise IndexError("a name is cut off")
    return value[at + 1 : end].decode(), end


def seen(fields: Mapping[str, str]) -> str:
    """What a repair rests upon beside the outcomes: submits, verbs and what a cancel books without a record all change it."""
    names = ("state", "batches", "rows", "accepted", "cancelled", *(("leased",) if fields.get("state") == "cancelled" else ()))
    return " ".join(fields.get(name, "") for name in names)


class Note(msgspec.Struct, frozen=True, array_like=True):
    """A lease note in the journal: which lease a number stands for. Written no later than the first intent under it; before its batch is
    opened (is_opening), where workers have died of that batch."""

    account: str
    token: bytes
    campaign: str
    batch: int
    is_opening: bool = False


encode_note = msgspec.msgpack.Encoder().encode
_decode_note = msgspec.msgpack.Decoder(Note).decode


def decode_note(value: bytes) -> Note:
    """Raises CorruptRecord."""
    try:
        return _decode_note(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRecord(f"a lease note: {error}") from None


class Ref(msgspec.Struct, frozen=True, array_like=True):
    """The recipient that a provider's message id stands for."""

    lane: str
    campaign: str
    batch: int
    row: int


_encode_ref = msgspec.msgpack.Encoder().encode
decode_ref = msgspec.msgpack.Decoder(Ref).decode


def pack_ref(lane: str, campaign: str, batch: int, row: int) -> bytes:
    return _encode_ref(Ref(lane, campaign, batch, row))
