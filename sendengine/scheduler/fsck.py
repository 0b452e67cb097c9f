"""The proof that nobody is lost: every accepted row stands in exactly one place, and the counts say the same.

rows = accepted + rejected + duplicates; accepted = sum of outcomes + pending. While a send runs its rows move between the readings, so a
finding counts only when three readings in a row make it. Nothing is changed without `repair`: in one script that looks once more, rows
that stand nowhere become READY, rows that stand twice stand once, and the counts are written anew. Two outcomes of a row, a payload that
is gone and the lost outcome of a single message cannot be mended.

What a cancel ended has no record. So an outcome that is lost there shows in the counts; whose it was nobody can tell, but that it is one of
those without a record in batches of which others have one. A repair counts it as cancelled, as `outcomes` lists it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sendengine.batch import BATCH_ROWS, unpack
from sendengine.lanes import owner
from sendengine.ports import Desk, OutcomeChunk, Repair
from sendengine.records import MASK_OCTETS, TRANSACTIONAL, decode_outcomes, rows_of, seen
from sendengine.scheduler import audit
from sendengine.scheduler.names import Ref
from sendengine.scheduler.view import COUNTS, ENDED, may_send, number, pending

_AT_ONCE = 500
_READINGS = 3
_PAUSE_S = 0.3
_NOWHERE = "stands nowhere: neither waiting, nor on its way, nor ended"


class Finding(msgspec.Struct, frozen=True):
    """What does not add up. batch, row (an input row, from 0) and recipient are None where it concerns the whole send."""

    campaign: str
    what: str
    batch: int | None = None
    row: int | None = None
    recipient: str | None = None


class Checked(msgspec.Struct, frozen=True):
    campaign: str
    accepted: int
    findings: list[Finding]


class _Reading:
    """One campaign's rows as bit masks by batch number, read while it may run."""

    def __init__(self, before: Mapping[str, str], is_single: bool) -> None:
        self.is_single = is_single  # the account's single messages, each a batch of its own
        self.before = self.after = before
        self.accepted: dict[int, int] = {}
        self.missing: list[int] = []  # batches whose payload is gone
        self.ended: dict[int, int] = {}
        self.twice_ended: dict[int, int] = {}
        self.counted = dict.fromkeys(COUNTS, 0)
        self.standing: dict[int, int] = {}
        self.twice: dict[int, int] = {}
        self.unended: set[int] = set()  # single messages that stand nowhere, and whose text is kept for want of an outcome
        self.deferred = self.leased = self.aside = 0
        self.is_running = self.is_in_line = False
        self.last_entry = ""

    @property
    def is_kept(self) -> bool:
        """After the retention only the counts are left."""
        return not (self.missing and "finished" in self.after)

    def stand(self, places: Mapping[int, Iterable[bytes]]) -> int:
        total = 0
        for k, masks in places.items():
            for mask in masks:
                bits = int.from_bytes(mask, "little")
                self.twice[k] = self.twice.get(k, 0) | (self.standing.get(k, 0) & bits)
                self.standing[k] = self.standing.get(k, 0) | bits
                total += bits.bit_count()
        return total

    def end(self, chunk: OutcomeChunk) -> None:
        """Of two outcomes the first counts."""
        for record in decode_outcomes(chunk.records):
            bit, ended = 1 << record.row, self.ended.get(chunk.batch, 0)
            if ended & bit:
                self.twice_ended[chunk.batch] = self.twice_ended.get(chunk.batch, 0) | bit
            else:
                self.ended[chunk.batch] = ended | bit
                self.counted[record.outcome.name.lower()] += 1

    def strays(self, k: int) -> int:
        """Rows that stand somewhere and should nowhere: they have ended, or were never accepted."""
        return self.standing.get(k, 0) & (self.ended.get(k, 0) | ~self.accepted[k])

    def unrecorded(self, k: int) -> int:
        """Rows that stand nowhere and have no outcome."""
        return self.accepted[k] & ~self.standing.get(k, 0) & ~self.ended.get(k, 0)

    def nowhere(self, k: int) -> int:
        """Of a cancelled send such rows are just what was cancelled."""
        if self.after["state"] == "cancelled" and not self.is_single:
            return 0
        return self.unrecorded(k)

    def lost(self) -> int:
        """Outcomes of a cancelled send that no record tells: more rows have none than were counted as cancelled."""
        if self.after["state"] != "cancelled" or self.missing or not _is_still(self, grows=False):
            return 0
        unrecorded = sum(self.unrecorded(k).bit_count() for k in self.accepted)
        return max(0, unrecorded - (number(self.after, "cancelled") - self.counted["cancelled"]))


async def check(desk: Desk, ref: Ref, repair: bool = False, line: bytes = b"") -> Checked:
    """What does not add up; with `repair`, what it was. `line`: for the audit trail, where anything was mended."""
    reading = await _read(desk, ref)
    found = _findings(ref, reading)
    for _ in range(_READINGS - 1):
        if not found:
            break
        await asyncio.sleep(_PAUSE_S)
        reading = await _read(desk, ref)
        again = set(_findings(ref, reading))
        found = [finding for finding in found if finding in again]
    for _ in range(_READINGS if repair and found else 0):
        if await desk.restore(ref.account, ref.id, _repair(reading)) >= 0:
            await _prove(desk, ref, found, line)
            break
        reading = await _read(desk, ref)  # it moved on meanwhile
    return Checked(str(ref), number(reading.after, "accepted"), [await _named(desk, ref, finding) for finding in found])


async def _prove(desk: Desk, ref: Ref, found: Sequence[Finding], line: bytes) -> None:
    """The trail has a repair that mended anything, and one of which nobody could see what it did."""
    is_told = True
    async with audit.told(desk, owner(ref.account), lambda: line if is_told else b""):
        is_told = not set(found) <= set(_findings(ref, await _read(desk, ref)))


async def _read(desk: Desk, ref: Ref) -> _Reading:
    """Rows go from waiting to leased to ended: read in that order, one that moves on is met twice and not missed."""
    reading = _Reading(await desk.campaign(ref.account, ref.id), ref.id == TRANSACTIONAL)
    standing = await desk.standing(ref.account, ref.id)
    reading.stand(standing.ready)
    reading.aside = reading.stand(standing.aside)
    reading.leased = reading.stand(standing.leased)
    reading.deferred = reading.stand(standing.retry)
    reading.is_running, reading.is_in_line = standing.is_running, standing.is_in_line
    while chunks := await desk.outcomes(ref.account, ref.id, reading.last_entry, _AT_ONCE):
        reading.last_entry = chunks[-1].entry
        for chunk in chunks:
            reading.end(chunk)
    batches = number(reading.before, "batches")
    for start in range(0, batches, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, batches))
        for k, stored in zip(numbers, await desk.batches(ref.account, ref.id, numbers), strict=True):
            if stored is not None:
                reading.accepted[k] = int.from_bytes(stored[0], "little")
            elif not reading.is_single or k in reading.standing:  # single messages are forgotten one by one
                reading.missing.append(k)
    if reading.is_single:
        nowhere = [k for k in reading.accepted if reading.nowhere(k)]
        reading.unended = {k for k in nowhere if await desk.has_message(ref.account, k)}
    reading.after = await desk.campaign(ref.account, ref.id)
    return reading


def _findings(ref: Ref, reading: _Reading) -> list[Finding]:
    name, now = str(ref), reading.after
    found = []
    if number(now, "rows") != number(now, "accepted") + number(now, "rejected") + number(now, "duplicates"):
        found.append(Finding(name, "rows is not accepted + rejected + duplicates"))
    if pending(now) < 0 or ("finished" in now and pending(now)):
        found.append(Finding(name, "accepted is not the sum of outcomes + pending"))
    if reading.is_kept:
        found += _singles(name, reading) if reading.is_single else _send(name, reading)
        found += [finding for k in reading.accepted for finding in _batch(name, reading, k)]
    return found


def _send(name: str, reading: _Reading) -> list[Finding]:
    """What concerns the whole of it."""
    now, found = reading.after, []
    if reading.is_running != may_send(now):
        found.append(Finding(name, "may send, and is not let" if may_send(now) else "may not send, and is let"))
    if reading.is_in_line != _belongs_in_line(now):
        found.append(Finding(name, "stands in the line and does not belong there" if reading.is_in_line else "does not stand in the line"))
    found += [Finding(name, "its recipients are gone", k) for k in reading.missing]
    if not reading.missing:
        found += [Finding(name, f"the count {count!r} is not what the records say") for count in _wrong_counts(reading)]
    if lost := reading.lost():
        found.append(Finding(name, f"outcomes are lost, and no record says of whom: {lost}"))
        for k in reading.ended.keys() & reading.accepted.keys():
            found += _rows(name, k, reading.unrecorded(k), "has no record, and may be whose outcome is lost")
    return found


def _singles(name: str, reading: _Reading) -> list[Finding]:
    """The records of those that are forgotten are gone: what stands must be what the counts leave."""
    now = reading.after
    found = [Finding(name, "its recipient is gone", k) for k in reading.missing]
    if now["state"] != "sending":
        found.append(Finding(name, f"is {now['state']}, and single messages are always let"))
    if not _is_still(reading, grows=False):
        return found
    for count, n in (("leased", reading.leased), ("deferred", reading.deferred)):
        if number(now, count) != n:
            found.append(Finding(name, f"the count {count!r} is not what stands"))
    standing = sum((mask & ~reading.ended.get(k, 0)).bit_count() for k, mask in reading.standing.items() if k in reading.accepted)
    if pending(now) != standing + len(reading.unended):
        found.append(Finding(name, "accepted is not the sum of outcomes + what stands"))
    return found


def _batch(name: str, reading: _Reading, k: int) -> list[Finding]:
    standing, ended = reading.standing.get(k, 0), reading.ended.get(k, 0)
    found = _rows(name, k, reading.twice.get(k, 0) | (standing & ended), "stands in two places")
    found += _rows(name, k, reading.twice_ended.get(k, 0), "has two outcomes")
    found += _rows(name, k, (standing | ended) & ~reading.accepted[k], "was never accepted, and yet stands somewhere")
    has_ended = reading.is_single and k not in reading.unended
    return found + _rows(name, k, reading.nowhere(k), "has ended, and its outcome is lost" if has_ended else _NOWHERE)


def _belongs_in_line(send: Mapping[str, str]) -> bool:
    return send.get("sequential") == "1" and "through" not in send and send["state"] not in ENDED


def _rows(name: str, k: int, mask: int, what: str) -> list[Finding]:
    return [Finding(name, what, k, BATCH_ROWS * k + row) for row in rows_of(_octets(mask))]


def _octets(mask: int) -> bytes:
    return mask.to_bytes(MASK_OCTETS, "little")


def _repair(reading: _Reading) -> Repair:
    """Every batch in which something stands wrong. Where payloads or records are gone, counts cannot be told and stay."""
    ended = {k: reading.strays(k) for k in reading.accepted}
    twice = {k: reading.twice.get(k, 0) & ~ended[k] for k in reading.accepted}
    nowhere = {k: reading.nowhere(k) if not reading.is_single or k in reading.unended else 0 for k in reading.accepted}
    wanted = {k: nowhere[k] | twice[k] for k in reading.accepted}
    wrong = [k for k in reading.accepted if ended[k] or wanted[k]]
    counts = {} if reading.missing or reading.is_single else _true_counts(reading)
    rows = ({k: _octets(masks[k]) for k in wrong} for masks in (ended, twice, wanted))
    return Repair(reading.last_entry, seen(reading.before), counts, *rows)


def _true_counts(reading: _Reading) -> dict[str, int]:
    accepted = sum(mask.bit_count() for mask in reading.accepted.values())
    counts = {"accepted": accepted, "deferred": reading.deferred, "leased": reading.leased, **reading.counted}
    counts["quarantined"] = reading.aside
    if reading.after["state"] == "cancelled":  # most of these have no record
        counts["cancelled"] = accepted - reading.leased - sum(n for name, n in reading.counted.items() if name != "cancelled")
    return counts


def _wrong_counts(reading: _Reading) -> list[str]:
    """A count that only grows must lie between what it was before and after the reading; others are judged when nothing moved."""
    wrong = []
    for name, n in _true_counts(reading).items():
        low, high = number(reading.before, name), number(reading.after, name)
        grows = name in (*COUNTS, "accepted") and reading.after["state"] != "cancelled"
        if (low == high or grows) and not low <= n <= high and _is_still(reading, grows):
            wrong.append(name)
    return wrong


def _is_still(reading: _Reading, grows: bool) -> bool:
    names = (*COUNTS, "leased", "deferred", "accepted", "quarantined")
    return grows or all(reading.before.get(name) == reading.after.get(name) for name in names)


async def _named(desk: Desk, ref: Ref, finding: Finding) -> Finding:
    if finding.batch is None or finding.row is None:
        return finding
    (stored,) = await desk.batches(ref.account, ref.id, [finding.batch])
    if stored is None:
        return finding
    batch, row = unpack(stored[1]), finding.row % BATCH_ROWS
    recipient = batch.recipients[batch.positions.index(row)] if row in batch.positions else None
    return msgspec.structs.replace(finding, recipient=recipient)
