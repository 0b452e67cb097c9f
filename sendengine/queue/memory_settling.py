"""Settling in memory, the twin of lua/settling.lua: a settlement acts only on rows LEASED under its token and ignores all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from struct import Struct

from sendengine.policy.suppression import Mark, Reason, encode, unpack_marks
from sendengine.ports import Blame, Settlement
from sendengine.queue.memory_state import OUTCOME_FIELDS, Account, Campaign, History, Lease, Portion, Retry
from sendengine.records import DEFERRED, DOUBT, FIRST_TRY, NO_REPLY, NUMS, OUTCOME, TRANSACTIONAL
from sendengine.types import OnDoubt, Outcome, SendState

_SAMPLE = Struct("<dd")  # MAIL at µs, messages so far
_SAMPLES = 12
_SAMPLE_EVERY = 1e6  # µs
_PROGRESS = ("sent", "bounced", "expired", "suppressed", "deferred")
KILLS_MOST = 3
_KEPT_WHATEVER_DOUBT = (Outcome.SENT, Outcome.BOUNCED)


def mask_of(rows: Iterable[int]) -> int:
    return sum(1 << row for row in rows)


def rows_of(mask: int) -> list[int]:
    return [row for row in range(mask.bit_length()) if mask >> row & 1]


def settle(account: Account, now: float, settlement: Settlement) -> int:
    """1, or 0 when the lease does not stand: then nothing was written."""
    lease = account.leases.get(settlement.token)
    if lease is None:
        return 0
    acting = _Settling(account, account.campaigns[lease.campaign], lease, settlement.dictionary.decode(), now)
    acting.marks(settlement.marks)
    acting.outcomes(settlement.records)
    acting.deferred(settlement.deferred)
    acting.charge(settlement.blame)
    acting.doubts(settlement.doubts)
    acting.back(int.from_bytes(settlement.back, "little"))
    acting.end(settlement)
    return 1


def drop(campaign: Campaign, batch: int, mask: int, now: float) -> Counter[str]:
    """Rows of a cancelled campaign that will not be sent: cancelled, or unknown where one was ever in doubt."""
    doubtful = [row for row in rows_of(mask) if (batch, row) in campaign.doubts]
    if doubtful:
        records = b"".join(OUTCOME.pack(row, Outcome.UNKNOWN, 1, NO_REPLY, 0, 0.0, 0.0, 0) for row in doubtful)
        campaign.write_outcomes(now, batch, records, "{}", "")
    if campaign.bill is not None:
        campaign.bill.refund(batch, [row for row in rows_of(mask) if row not in doubtful], now)
    return Counter(unknown=len(doubtful), cancelled=mask.bit_count() - len(doubtful))


class _Settling:
    """One settlement at work on its lease: each step takes rows out of `left`."""

    def __init__(self, account: Account, campaign: Campaign, lease: Lease, dictionary: str, now: float) -> None:
        self._account, self._campaign, self._lease, self._dictionary, self._now = account, campaign, lease, dictionary, now
        self._left = lease.mask
        self._is_cancelled = campaign.state == SendState.CANCELLED
        self._tally: Counter[str] = Counter()
        self._is_aside = False

    def _acts_on(self, row: int) -> bool:
        return bool(self._left >> row & 1)

    def _write(self, records: bytes) -> None:
        if records:
            self._campaign.write_outcomes(self._now, self._lease.batch, records, self._dictionary, self._lease.worker)

    def marks(self, marks: bytes) -> None:
        """What its outcomes say of their addresses, while their rows are leased: so each counts once."""
        soft, bad = self._account.soft, {}
        first: dict[bytes, tuple[Mark, int]] = {}
        for row, mark, enough, address in unpack_marks(marks):
            if self._acts_on(row):
                first.setdefault(address, (mark, enough))
        for address, (mark, enough) in first.items():
            reason = Reason.HARD_BOUNCED if mark is Mark.HARD else None
            if mark in (Mark.SOFT, Mark.FULL):
                counts = soft.setdefault(address, [0, 0])
                kind = mark is Mark.FULL
                counts[kind] = min(255, counts[kind] + 1)
                self._account.home.setdefault("sup", "0")
                if 0 < enough <= counts[kind]:
                    reason = Reason.SOFT_BOUNCED
            if reason is not None:
                bad[address] = encode(reason, self._now / 1e6)
            if reason is not None or mark is Mark.GOOD:
                soft.pop(address, None)
        self._account.suppress(bad)

    def outcomes(self, records: bytes) -> None:
        """A row once in doubt never ends as expired, suppressed or cancelled."""
        kept, rows = b"", 0
        for at in range(0, len(records), OUTCOME.size):
            row, what = records[at], records[at + 1]
            if not self._acts_on(row):
                continue
            outcome, flags = Outcome(what % FIRST_TRY), what - what % FIRST_TRY
            if outcome not in _KEPT_WHATEVER_DOUBT and (self._lease.batch, row) in self._campaign.doubts:
                outcome = Outcome.UNKNOWN
            kept += bytes((row, outcome | flags)) + records[at + 2 : at + OUTCOME.size]
            rows |= 1 << row
            self._tally[OUTCOME_FIELDS[outcome - 1]] += 1
            self._tally["tried"] += flags >= FIRST_TRY
        self._write(kept)
        self._left &= ~rows
        if rows and self._campaign.id == TRANSACTIONAL:
            self._campaign.messages.pop(self._lease.batch, None)

    def deferred(self, records: bytes) -> None:
        waiting: dict[int, Retry] = {}
        for row, flags, tries, first, delay_ms, _ in DEFERRED.iter_unpack(records):
            if self._acts_on(row):
                self._tally["tried"] += flags >= FIRST_TRY
                waiting[row] = Retry(tries, first, self._now + delay_ms * 1000)
        self._left &= ~mask_of(waiting)
        if self._is_cancelled:
            self._tally += drop(self._campaign, self._lease.batch, mask_of(waiting), self._now)
        elif waiting:
            self._campaign.retries.setdefault(self._lease.batch, {}).update(waiting)
            self._tally["deferred"] += len(waiting)

    def charge(self, blame: Blame) -> None:
        """A kill counts against the batch; where something of it moved on, the count begins anew (docs/design/010)."""
        kills, batch = self._campaign.kills, self._lease.batch
        if any(self._tally[name] for name in _PROGRESS):
            kills.pop(batch, None)
        if blame is not Blame.NONE:
            self._campaign.fields["killed"] = "1"
        if blame is Blame.SUSPECT:
            kills.setdefault(batch, 1)
        elif blame is Blame.KILL:
            kills[batch] = kills.get(batch, 0) + 1
            self._is_aside = kills[batch] >= KILLS_MOST

    def doubts(self, records: bytes) -> None:
        """Sent again at most max_doubt times, and never under `hold` or after cancel; else unknown (design 3.2)."""
        campaign, batch = self._campaign, self._lease.batch
        allowed = campaign.fields.number("max_doubt") if "max_doubt" in campaign.fields else 1
        may_resend = campaign.fields.get("on_doubt") != OnDoubt.HOLD and not self._is_cancelled
        again: History = {}
        rows, unknown = 0, b""
        for at in range(0, len(records), DOUBT.size):
            row, what, tries, *_, first = DOUBT.unpack_from(records, at)
            if not self._acts_on(row):
                continue
            rows |= 1 << row
            self._tally["tried"] += what >= FIRST_TRY and row not in self._lease.past
            times = campaign.doubts[batch, row] = campaign.doubts.get((batch, row), 0) + 1
            campaign.fields["doubts"] = "1"
            if may_resend and times <= allowed:
                again[row] = (tries, first) if first else self._told_by_lease(row, tries)
            else:
                unknown += records[at : at + OUTCOME.size]
                self._tally["unknown"] += 1
        self._write(unknown)
        self._left &= ~rows
        self._give_back(mask_of(again), again)

    def _told_by_lease(self, row: int, tries: int) -> tuple[int, int]:
        """A rescuer knows neither tries nor first MAIL of a row whose intent alone stands: the lease's history does."""
        if row in self._lease.past:
            before, first = self._lease.past[row]
            return min(255, before + 1), first
        idle = self._account.fields.number("idle") + self._campaign.fields.number("idle")
        return tries, int((self._now - idle) / 1e6)

    def back(self, mask: int) -> None:
        mask &= self._left
        self._left &= ~mask
        if self._is_cancelled:
            self._tally += drop(self._campaign, self._lease.batch, mask, self._now)
        else:
            self._give_back(mask, self._lease.past)

    def _give_back(self, mask: int, past: History) -> None:
        if not mask:
            return
        kept = {row: history for row, history in past.items() if mask >> row & 1}
        portion = Portion(self._lease.batch, self._lease.level, mask, kept)
        if self._is_aside:
            self._campaign.aside.append(portion)
            self._tally["quarantined"] += mask.bit_count()
        else:
            self._campaign.given_back.append(portion)

    def end(self, settlement: Settlement) -> None:
        """Counts and times follow; a lease without rows is gone."""
        campaign, lease = self._campaign, self._lease
        acted = (lease.mask & ~self._left).bit_count()
        campaign.count(self._tally + Counter())
        if acted:
            campaign.fields.add("leased", -acted)
            self._note_times(settlement)
        lease.mask = self._left
        lease.past = {row: history for row, history in lease.past.items() if self._left >> row & 1}
        if not lease.mask:
            del self._account.leases[settlement.token]
            self._account.finish_if_done(campaign, self._now)

    def _note_times(self, settlement: Settlement) -> None:
        fields = self._campaign.fields
        *_, mails, first, last_first, last = NUMS.unpack(settlement.nums)
        if not last:
            return
        fields.set_times(last_mail=max(fields.number("last_mail"), last))
        if first and ("first_mail" not in fields or first < fields.number("first_mail")):
            fields.set_times(first_mail=first)
        if last_first > fields.number("first_mail_last"):
            fields.set_times(first_mail_last=last_first)
        if mails:
            fields.set_octets("recent", sample(fields.octets("recent"), mails, last))


def sample(octets: bytes, mails: int, last: float) -> bytes:
    """The last messages' times, 1 s apart but for the last: what the achieved rate is read from."""
    samples = list(_SAMPLE.iter_unpack(octets))
    at, total = samples[-1] if samples else (0.0, 0.0)
    if len(samples) >= 2 and at - samples[-2][0] < _SAMPLE_EVERY:
        samples.pop()
    samples.append((max(last, at), total + mails))
    return b"".join(_SAMPLE.pack(*pair) for pair in samples[-_SAMPLES:])
