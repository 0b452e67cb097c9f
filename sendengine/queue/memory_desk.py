"""The Desk port in memory, the twin of queue/desk.py: a scheduler's side of a MemoryStore."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sendengine.errors import Unavailable
from sendengine.intake import DIGEST_OCTETS, PackedBatch
from sendengine.lanes import others, owner
from sendengine.policy.apikeys import ApiKey
from sendengine.policy.credits import Lot, Purchase
from sendengine.policy.durability import Persistence
from sendengine.policy.grants import BOOSTED, FIELD, SPAN, granted_under
from sendengine.policy.signing import KeyEntry, decode, encode, field
from sendengine.policy.suppression import Listed
from sendengine.policy.tiers import interval_us
from sendengine.ports import (
    WHOLE,
    AuditLine,
    Bill,
    Booked,
    Booking,
    Gated,
    Heard,
    LedgerEntry,
    OutcomeChunk,
    Part,
    Repair,
    Run,
    Standing,
    Stored,
)  # fmt: skip
from sendengine.queue.keys import INFO_SECONDS
from sendengine.queue.memory_events import book
from sendengine.queue.memory_gate import change
from sendengine.queue.memory_health import complain
from sendengine.queue.memory_lists import after_end, after_leaving, marked, marks_in
from sendengine.queue.memory_money import Bill as OwnBill
from sendengine.queue.memory_money import prices_by_row
from sendengine.queue.memory_outbox import MemoryOutbox
from sendengine.queue.memory_purging import purge
from sendengine.queue.memory_receiving import receive
from sendengine.queue.memory_repair import restore
from sendengine.queue.memory_settling import mask_of
from sendengine.queue.memory_state import IN_MEMORY, Account, Campaign, MemoryStore, StoredBatch
from sendengine.queue.memory_verbs import DONE, SAME, Verb, cancel, move, pause, replay, resume, reverse
from sendengine.records import MASK_OCTETS, TRANSACTIONAL, seen
from sendengine.types import Receipt, SendState

PRINT_OCTETS = 8
UNKNOWN_DIGEST = bytes(8)  # of a single message that the release before queued


class MemoryDesk:
    """Owner of nothing: the state is the store's. `retention`: seconds that transactional outcomes are kept; `audit_days`: audit trails."""

    def __init__(
        self, store: MemoryStore, now_us: Callable[[], float], cut_delay_us: float = 200_000, retention: int = 7 * 86400,
        audit_days: float = 3650.0,
    ) -> None:  # fmt: skip
        self._all = store
        self._now_us = now_us
        self._cut_delay = cut_delay_us
        self._retention = retention
        self._audit_days = audit_days
        self.outbox = MemoryOutbox(store, now_us, self._noted)

    @property
    def _store(self) -> MemoryStore:
        if self._all.is_away:
            raise Unavailable("the store is away", "the same call may go through later")
        return self._all

    def _now(self) -> float:
        return float(round(self._now_us()))

    def _tell(self, account: str, cut: int = 0, cut_us: float = 0.0) -> None:
        """Workers hear of it; an account that none is attached to goes into the index for its next need."""
        self._store.spread(account, cut, cut_us)
        state = self._store.accounts.get(account)
        if state is not None and not state.leases:
            self._store.offer(account, state.next_need(self._now()))

    async def now_us(self) -> float:
        return self._now()

    async def persistence(self) -> Sequence[Persistence]:
        return (IN_MEMORY,)

    async def close(self) -> None: ...

    # accounts

    async def create_account(self, account: str, fields: Mapping[str, str], *, line: bytes = b"") -> bool:
        store = self._store
        home = account.partition("/")[0]
        if account in store.accounts or home in store.gone or (home != account and home not in store.accounts):
            return False
        made = store.make(account)
        made.fields.update(fields, last="0", cut="0")
        made.fields.set_times(created=self._now())
        self._noted(account, line)
        return True

    async def set_account(
        self, account: str, fields: Mapping[str, str], *, line: bytes = b"", seen: Mapping[str, str] | None = None
    ) -> bool:
        state = self._store.accounts.get(account)
        if state is None or any(state.fields.get(name, "") != value for name, value in (seen or {}).items()):
            return False
        cut = state.cut(self._now(), self._cut_delay)
        if any(state.fields.get(name, "") != value for name, value in fields.items()):
            self._note(account, line)
        state.fields.update(fields)
        self._told(account, cut)
        return True

    async def set_rate(self, account: str, tier: str, per_hour: float | None, *, line: bytes = b"") -> bool:
        speed = {"tier": tier, "rate": "" if per_hour is None else str(per_hour), "iv": interval_us(per_hour)}
        return await self.set_account(account, speed, line=line)

    async def boost(self, account: str, grant: bytes, *, line: bytes = b"", key: str = "", digest: str = "") -> int | None:
        state, now = self._store.accounts.get(account), self._now()
        if state is None:
            return None
        if key and (known := granted_under(state.fields, key)) is not None:
            if known[1] == digest:
                self._told(account, (state.fields.number("cut"), float(state.fields.get("cut_at", 0))))
            return known[0] if known[1] == digest else 0
        cut = state.cut(now, self._cut_delay)
        state.fields.add("boosts", 1)
        made = state.fields.number("boosts")
        if key:
            state.fields[BOOSTED + key] = f"{made} {SPAN.unpack_from(grant)[1]:.0f} {digest}"
        state.hold_grant(made, grant, now)
        self._note(account, line)
        self._told(account, cut)
        return made

    def _told(self, account: str, cut: tuple[int, float]) -> None:
        self._store.spread(account, *cut)
        self._fill_trail(owner(account))

    def _noted(self, lane: str, line: bytes) -> None:
        self._note(lane, line)
        self._fill_trail(owner(lane))

    def _note(self, lane: str, line: bytes) -> None:
        self._store.note(lane, self._now(), line)

    async def end_boost(self, account: str, number: int, *, line: bytes = b"") -> bool:
        state, now = self._store.accounts.get(account, Account()), self._now()
        value = state.fields.octets(f"{FIELD}{number}")
        start, end, interval = SPAN.unpack_from(value) if value else (0.0, 0.0, 0.0)
        if end <= now:
            return False
        cut = state.cut(now, self._cut_delay)
        state.hold_grant(number, SPAN.pack(min(start, now), now, interval) + value[SPAN.size :], now)
        self._note(account, line)
        self._told(account, cut)
        return True

    async def account(self, account: str) -> Mapping[str, str]:
        return dict(self._store.accounts.get(account, Account()).fields)

    async def accounts(self) -> list[str]:
        return sorted(self._store.accounts)

    async def set_gate(
        self, account: str, seen: Mapping[str, str], fields: Mapping[str, str], *, before_us: float | None = None, line: bytes = b""
    ) -> Gated:
        gated, cuts = change(self._store, account, self._now(), self._cut_delay, seen, fields, before_us, line)
        for lane, cut in cuts.items():
            self._tell(account + lane, *cut)
        self._fill_trail(account)
        if gated.status == "same":  # who asked before may have died before it told anybody
            for lane in self._store.lanes(account):
                self._tell(account + lane)
        return gated

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        return receive(self._store, self._now(), provider, receipts)

    async def lacks(self, lane: str, campaign: str, needed: int) -> bool:
        found = self._campaign(lane, campaign)
        if found is None or "lacks" not in found.fields:
            return False
        found.fields["lacks"] = str(needed)
        return True

    async def book(self, account: str, booking: Booking) -> Booked:
        booked = book(self._store, account, self._now(), self._cut_delay, booking)
        if booked.status in ("done", "known"):  # a repeat, too: who brought it before may have died before it told anybody
            for name, lane in self._store.lanes(account).items():
                self._tell(account + name, lane.fields.number("cut"), float(lane.fields.get("cut_at", 0)))
            self._fill_trail(account)
        return booked

    async def early_event(self, account: str, sequence: int) -> bytes | None:
        return self._store.accounts.get(account, Account()).books.early.get(sequence, (0.0, None))[1]

    async def early(self, account: str) -> Mapping[int, float]:
        return {at: came for at, (came, _) in self._store.accounts.get(account, Account()).books.early.items()}

    async def forget_early(self, account: str, sequence: int) -> None:
        self._store.accounts.get(account, Account()).books.early.pop(sequence, None)

    async def order(self, account: str, order: str) -> bytes:
        return self._store.accounts.get(account, Account()).books.orders.get(order, b"")

    async def orders(self, account: str) -> Mapping[str, bytes]:
        return dict(self._store.accounts.get(account, Account()).books.orders)

    async def note(self, account: str, line: bytes) -> None:
        if account not in self._store.accounts:
            self._store.write_trail(account, {0: b"%.0f %b" % (self._now(), line)}, self._kept_from())
            return
        self._noted(account, line)

    async def audit(self, account: str, after: str, limit: int) -> list[AuditLine]:
        if not after:
            self._store.accounts.get(account, Account()).fold()
            self._fill_trail(account)
        return [line for line in self._store.trails.get(account, ()) if not after or _place(line.entry) > _place(after)][:limit]

    async def purge(self, account: str, line: bytes) -> str:
        return purge(self._store, account, self._now(), line)

    async def gone(self, account: str) -> float | None:
        return self._store.gone.get(account)

    def _fill_trail(self, account: str) -> None:
        if (state := self._store.accounts.get(account)) is not None and state.audit:
            self._store.write_trail(account, state.audit, self._kept_from())
            state.audit.clear()

    def _kept_from(self) -> float:
        return (self._now() / 1e6 - self._audit_days * 86400) * 1000

    # who gets nothing any more

    async def suppress(
        self, account: str, entries: Mapping[bytes, bytes], tells: bool = True, *, part: Part = WHOLE, are_complaints: bool = False
    ) -> Listed | None:
        if not entries:
            return Listed()
        state, now = self._store.accounts.get(account), self._now()
        if state is None or "purging" in state.fields:
            return None
        listed = state.suppress(entries)
        if are_complaints:
            complain(state, now, listed.added + listed.changed)
        state.tally(part, now, added=listed.added, changed=listed.changed)
        if tells:
            for lane in self._store.lanes(account):
                self._store.spread(account + lane, listed=state.listed)
        self._fill_trail(account)
        return listed

    async def unsuppress(self, account: str, addresses: Sequence[bytes], *, part: Part = WHOLE) -> int:
        state = self._store.accounts.get(account)
        if state is None or "purging" in state.fields:
            return 0
        for address in addresses:
            state.soft.pop(address, None)
        removed = sum(state.suppressed.pop(address, None) is not None for address in addresses)
        state.tally(part, self._now(), removed=removed)
        self._fill_trail(account)
        return removed

    async def suppressed(self, account: str, addresses: Sequence[bytes]) -> list[bytes | None]:
        return [self._store.accounts.get(account, Account()).suppressed.get(address) for address in addresses]

    async def suppressions(self, account: str, cursor: int, limit: int) -> tuple[int, list[tuple[bytes, bytes]]]:
        """By address; the twin's cursor is a place in that order."""
        listed = sorted(self._store.accounts.get(account, Account()).suppressed.items())
        return (cursor + limit if cursor + limit < len(listed) else 0), listed[cursor : cursor + limit]

    async def count_suppressed(self, account: str) -> int:
        return len(self._store.accounts.get(account, Account()).suppressed)

    # signing keys

    async def keep_key(self, entry: KeyEntry, moves: bool = False) -> str:
        name, value = field(entry.domain, entry.selector), encode(entry)
        stands = self._store.signing_keys.get(name)
        text = "" if stands is None else decode(name, stands).text
        if text and text != entry.text:
            return "other"
        if text and not moves:
            return "same"
        return "done" if self._set_key(name, value) else "same"

    async def remove_key(self, domain: str, selector: str) -> bool:
        return self._set_key(field(domain, selector), b"")

    async def signing_keys(self) -> list[KeyEntry]:
        return [decode(name, value) for name, value in sorted(self._store.signing_keys.items())]

    def _set_key(self, name: str, value: bytes) -> bool:
        stored = self._store.signing_keys
        if stored.get(name, b"") == value:
            return False
        self._store.key_changes += 1
        stored.pop(name, None)
        if value:
            stored[name] = value
        return True

    # API keys

    async def keep_api_key(self, key: ApiKey, seats: int | None) -> str:
        stored = self._store.api_keys
        if key.owner in self._store.gone:
            return "gone"
        if key.digest in stored:
            return "same"
        others = {other.seat for other in stored.values() if other.owner == key.owner} - {key.seat}
        if seats is not None and len(others) >= seats:
            return "seats"
        stored[key.digest] = key
        return "done"

    async def api_key(self, digest: str) -> ApiKey | None:
        return self._store.api_keys.get(digest)

    async def api_keys(self, owner: str | None = None) -> list[ApiKey]:
        found = [key for key in self._store.api_keys.values() if owner in (None, key.owner)]
        return sorted(found, key=lambda key: (key.made_us, key.digest))

    async def change_api_key(self, key: ApiKey, changed: ApiKey) -> bool:
        stored = self._store.api_keys
        if stored.get(key.digest) != key:
            return False
        stored[key.digest] = changed
        return True

    async def drop_api_keys(self, owner: str, digests: Sequence[str]) -> int:
        stored = self._store.api_keys
        gone = [digest for digest in dict.fromkeys(digests) if digest in stored and stored[digest].owner == owner]
        for digest in gone:
            del stored[digest]
        return len(gone)

    # submitting

    async def create(
        self, account: str, campaign: str, definition: bytes, at_us: float | None, message: bytes, fields: Mapping[str, str], *,
        line: bytes = b"",
    ) -> str:  # fmt: skip
        state, now = self._store.accounts.get(account), self._now()
        if state is None:
            return "account"
        shown = definition.decode("utf-8", "surrogateescape")
        if campaign in state.campaigns:
            if state.campaigns[campaign].fields["definition"] != shown:
                return "differs"
            self._tell(account)
            return "same"
        if campaign != TRANSACTIONAL and any(self._campaign(lane, campaign) for lane in others(account)):
            return "taken"
        made = state.campaigns[campaign] = Campaign(campaign, message)
        if money := self._store.money_of(account):
            made.bill = OwnBill(money, campaign)
        made.fields.update({"definition": shown, "state": SendState.SCHEDULED.value, "batches": "0"})
        made.fields.set_times(created=now)
        made.fields.update(fields)
        self._store.holders.setdefault(campaign, set()).add(account)
        if made.fields.get("sequential") == "1":
            state.line.append(campaign)
        self._begin(state, made, None if at_us is None else float(round(at_us)), now)
        self._tell(account)
        self._noted(account, line)
        return "new"

    def _begin(self, state: Account, made: Campaign, at_us: float | None, now: float) -> None:
        if made.id == TRANSACTIONAL:
            made.fields["state"] = SendState.SENDING.value
        elif at_us is not None and at_us > now:
            made.fields.set_times(at=at_us)
            state.looks[made.id] = at_us
        else:
            state.start(made, now)
            if "window_at" in made.fields:
                state.looks[made.id] = float(made.fields["window_at"])

    async def submit(
        self, account: str, campaign: str, batch: PackedBatch, is_last: bool = False, *, run: Run | None = None, line: bytes = b""
    ) -> Stored:
        found = self._campaign(account, campaign)
        if found is None:
            return Stored("closed", state="missing")
        refused = _refusal(found, batch)
        if refused is not None:
            if refused.status == "same":
                self._index(account, found, batch.number)
            return refused
        accepted = _fresh_rows(found, batch)
        if found.bill is not None:
            short = found.bill.reserve(batch.number, prices_by_row(batch.prices, batch.positions, accepted), self._now())
            if short is not None:
                found.fields |= {"lacks": str(short[0]), "lacks_at": f"{self._now():.0f}"}
                _mark(found, run, batch.number, stored=False)
                return Stored("credit", needed=short[0], free=short[1])
            for name in ("lacks", "lacks_at"):
                found.fields.pop(name, None)
        _remember(found, batch)
        n, duplicates = accepted.bit_count(), len(batch.positions) - accepted.bit_count()
        found.batches[batch.number] = StoredBatch(batch.digests[:DIGEST_OCTETS], accepted, batch.payload)
        for level, octets in batch.levels.items():
            if mask := int.from_bytes(octets, "little") & accepted:
                found.levels[level][batch.number] = mask
        for name, by in (("batches", 1), ("prints", n), ("rows", batch.rows), ("accepted", n)):
            found.fields.add(name, by)
        if _mark(found, run, batch.number, stored=True):
            self._noted(account, line)
        found.count({"duplicates": duplicates, "rejected": len(batch.rejected)})
        if is_last:
            self._conclude(account, found)
        self._index(account, found, batch.number)
        return Stored("stored", accepted=n, duplicates=duplicates)

    def _index(self, account: str, campaign: Campaign, number: int) -> None:
        """A worker must come to know of the rows: by news of the first batch, by the index when none is attached."""
        state = self._store.accounts[account]
        if state.leases and number == 0:
            self._store.spread(account)
        elif campaign.id in state.run and not state.leases:
            self._store.offer(account, 0)

    async def begin_list(self, account: str, campaign: str, run: Run) -> bool:
        return self._change_marks(account, campaign, lambda marks, stands: marked(marks, run, stands, stored=False)[0])

    async def end_list(self, account: str, campaign: str, run: Run, batches: int) -> bool:
        return self._change_marks(account, campaign, lambda marks, stands: after_end(marks, run, batches, stands))

    async def leave_list(self, account: str, campaign: str, run: Run) -> bool:
        return self._change_marks(account, campaign, lambda marks, _: after_leaving(marks, run))

    def _change_marks(self, account: str, campaign: str, change: Callable[[str, int], str]) -> bool:
        found = self._campaign(account, campaign)
        if found is None or found.fields.get("sealed") == "1":
            return False
        before = marks_in(found.fields.get("unended", ""))
        if (after := change(before, len(found.batches))) == before:
            return False
        found.fields["unended"] = after
        if not after:
            del found.fields["unended"]
        return True

    async def seal(
        self, account: str, campaign: str, batches: int, digests: bytes = b"", *, must_have_ended: bool = False, line: bytes = b""
    ) -> Stored:
        found = self._campaign(account, campaign)
        if found is None:
            return Stored("closed", state="missing")
        if len(found.batches) != batches:
            return Stored("expected", number=len(found.batches))
        if digests and not _stands_as(found.batches.get(batches - 1), digests):
            return Stored("apart")
        if found.fields.get("sealed") == "1":
            self._tell(account)
            return Stored("same")
        if found.state == SendState.CANCELLED:
            return Stored("closed", state=found.state)
        if must_have_ended and "unended" in found.fields:
            return Stored("unended")
        self._conclude(account, found)
        self._tell(account)
        self._noted(account, line)
        return Stored("sealed")

    def _conclude(self, account: str, campaign: Campaign) -> None:
        state, now = self._store.accounts[account], self._now()
        campaign.fields["sealed"] = "1"
        campaign.fields.set_times(sealed_at=now)
        campaign.fields.forget("prints", "unended")
        campaign.fingerprints.clear()
        state.sync_run(campaign, now)
        state.advance(now)
        state.finish_if_done(campaign, now)

    async def transact(self, account: str, payload: bytes, message: bytes, key: str, digest: bytes, price: bytes = b"") -> Stored:
        found = self._campaign(account, TRANSACTIONAL)
        if found is None:
            return Stored("missing")
        if key in found.message_keys:
            number = found.message_keys[key]
            if found.batches[number].digest not in (digest, UNKNOWN_DIGEST):
                return Stored("differs", number=number)
            self._tell(account)
            return Stored("same", number=number)
        number = found.fields.number("batches")
        if found.bill is not None and (short := found.bill.reserve(number, prices_by_row(price, b"\0", 1), self._now())) is not None:
            return Stored("credit", needed=short[0], free=short[1])
        found.batches[number] = StoredBatch(digest, 1, payload)
        found.messages[number] = message
        found.message_keys[key] = number
        found.levels[0][number] = 1
        for name in ("batches", "rows", "accepted"):
            found.fields.add(name, 1)
        found.forget_old(self._now(), self._retention, 2)
        self._tell(account)
        return Stored("stored", number=number)

    # credits

    async def grant_credits(
        self, lane: str, key: str, amount: int, bought_us: float, good_us: float, who: str, why: str, *, line: bytes = b""
    ) -> int | None:
        money = self._store.money_of(lane)
        if money is None:
            return None
        if key not in money.purchases:
            fixed_us = 0.0 if money.home().has_mail else good_us
            money.purchases[key] = money.buy(Purchase(amount, bought_us, fixed_us, who, why), self._now())
            self._noted(lane, line)
        return money.purchases[key]

    async def lots(self, lane: str) -> list[Lot]:
        money = self._store.money_of(lane)
        return [msgspec.structs.replace(lot) for lot in money.lots.values()] if money else []

    async def ledger(self, lane: str, after: str, limit: int) -> list[LedgerEntry]:
        money = self._store.money_of(lane)
        return [entry for entry in money.entries if not after or _place(entry.entry) > _place(after)][:limit] if money else []

    async def bill(self, lane: str, campaign: str) -> Bill:
        found = self._campaign(lane, campaign)
        own = found.bill if found else None
        return Bill({n: part for n, part in own.draws.items() if part}, own.packed()) if own else Bill({}, {})

    async def receipts(self, lane: str, campaign: str, rows: Sequence[tuple[int, int]]) -> list[tuple[str, str, int] | None]:
        found = self._campaign(lane, campaign)
        return [found.receipts.get(row) if found else None for row in rows]

    # verbs

    async def _verb(self, verb: Verb, account: str, campaign: str, line: bytes) -> str:
        """Done, it is told with its cut; a repeat is told again: who asked before may have died before it told anybody."""
        found = self._campaign(account, campaign)
        if found is None:
            return "missing"
        state, now = self._store.accounts[account], self._now()
        answer = verb(state, found, now)
        if answer == DONE:
            self._tell(account, *state.cut(now, self._cut_delay))
            self._noted(account, line)
        elif answer == SAME:
            self._tell(account)
        return answer

    async def pause(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._verb(pause, account, campaign, line)

    async def resume(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._verb(resume, account, campaign, line)

    async def cancel(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._verb(cancel, account, campaign, line)

    async def reverse(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        found = self._campaign(account, campaign)
        if found is None:
            return "missing"
        answer = reverse(self._store.accounts[account], found, self._now())
        if answer == DONE:
            self._tell(account)
            self._noted(account, line)
        return answer

    async def replay(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        found = self._campaign(account, campaign)
        if found is None:
            return "missing"
        has_any, answer = bool(found.aside), replay(found)
        if answer == DONE:
            self._tell(account)
            self._noted(account, line if has_any else b"")
        return answer

    async def move(self, account: str, campaign: str, direction: str, *, line: bytes = b"") -> str:
        found = self._campaign(account, campaign)
        answer = "missing" if found is None else move(self._store.accounts[account], found, direction)
        self._noted(account, line if answer == DONE else b"")
        return answer

    # reading

    def _campaign(self, account: str, campaign: str) -> Campaign | None:
        return self._store.accounts.get(account, Account()).campaigns.get(campaign)

    async def campaign(self, account: str, campaign: str) -> Mapping[str, str]:
        found = self._campaign(account, campaign)
        return dict(found.fields) if found else {}

    async def message(self, account: str, campaign: str) -> bytes:
        found = self._campaign(account, campaign)
        return found.message if found else b""

    async def campaigns(self, account: str) -> list[str]:
        return list(self._store.accounts.get(account, Account()).campaigns)

    async def open_campaigns(self, account: str) -> list[str]:
        campaigns = self._store.accounts.get(account, Account()).campaigns
        return [name for name, campaign in campaigns.items() if "finished" not in campaign.fields]

    async def next_retry(self, account: str, campaign: str) -> float | None:
        found = self._campaign(account, campaign)
        return found.next_retry if found else None

    async def holders(self, campaign: str) -> list[str]:
        return sorted(self._store.holders.get(campaign, ()))

    async def line(self, account: str) -> list[str]:
        return list(self._store.accounts.get(account, Account()).line)

    async def outcomes(self, account: str, campaign: str, after: str, limit: int) -> list[OutcomeChunk]:
        found = self._campaign(account, campaign)
        if found is None:
            return []
        return [chunk for chunk in found.outcomes if not after or _place(chunk.entry) > _place(after)][:limit]

    async def batches(self, account: str, campaign: str, numbers: Sequence[int]) -> list[tuple[bytes, bytes] | None]:
        found = self._campaign(account, campaign)
        stored = [found.batches.get(number) if found else None for number in numbers]
        return [None if one is None else (_octets(one.accepted), one.payload) for one in stored]

    async def digest(self, account: str, campaign: str, number: int) -> bytes:
        found = self._campaign(account, campaign)
        return found.batches[number].digest if found and number in found.batches else b""

    async def has_message(self, account: str, number: int) -> bool:
        found = self._campaign(account, TRANSACTIONAL)
        return found is not None and number in found.messages

    async def standing(self, account: str, campaign: str) -> Standing:
        standing = Standing({}, {}, {}, {})
        found = self._campaign(account, campaign)
        if found is None:
            return standing
        ready: dict[int, list[bytes]] = {}
        leased: dict[int, list[bytes]] = {}
        for waiting in found.levels.values():
            for batch, mask in waiting.items():
                ready.setdefault(batch, []).append(_octets(mask))
        for portion in found.given_back:
            ready.setdefault(portion.batch, []).append(_octets(portion.mask))
        for lease in self._store.accounts[account].leases.values():
            if lease.campaign == campaign:
                leased.setdefault(lease.batch, []).append(_octets(lease.mask))
        retry = {batch: [_octets(mask_of(rows))] for batch, rows in found.retries.items()}
        aside: dict[int, list[bytes]] = {}
        for portion in found.aside:
            aside.setdefault(portion.batch, []).append(_octets(portion.mask))
        state = self._store.accounts[account]
        return Standing(ready, leased, retry, dict(found.doubts), aside, campaign in state.run, campaign in state.line)

    async def restore(self, account: str, campaign: str, repair: Repair) -> int:
        found = self._campaign(account, campaign)
        if found is None or (found.outcomes[-1].entry if found.outcomes else "") != repair.last_entry or seen(found.fields) != repair.seen:
            return -1
        back = restore(self._store.accounts[account], found, repair, self._now())
        self._tell(account)
        return back

    async def workers(self) -> Mapping[str, Heard]:
        return {name: self._heard(name) for name in self._store.workers}

    def _heard(self, worker: str) -> Heard:
        until, said = self._store.infos.get(worker, (0.0, b""))
        left = (until - self._now()) / 1e6
        return Heard(said, max(0.0, INFO_SECONDS - left)) if left > 0 else Heard()

    async def lessees(self, account: str) -> set[str]:
        return {lease.worker for lease in self._store.accounts.get(account, Account()).leases.values()}


def _octets(mask: int) -> bytes:
    return mask.to_bytes(MASK_OCTETS, "little")


def _place(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


def _refusal(campaign: Campaign, batch: PackedBatch) -> Stored | None:
    """Why a batch is not stored: it stands already, it is ahead of its turn, or nothing is taken any more."""
    due = campaign.fields.number("batches")
    if batch.number < due:
        stored = campaign.batches.get(batch.number)
        if stored is None or _stands_as(stored, batch.digests):
            return Stored("same")
        return Stored("differs", payload=stored.payload)
    if batch.number > due:
        return Stored("expected", number=due)
    if campaign.fields.get("sealed") == "1":
        return Stored("closed", state="sealed")
    if campaign.state == SendState.CANCELLED:
        return Stored("closed", state=campaign.state)
    if batch.number and not _stands_as(campaign.batches.get(batch.number - 1), batch.before):
        return Stored("apart")
    return None


def _stands_as(stored: StoredBatch | None, digests: bytes) -> bool:
    """Whether a batch is the caller's, and so are all before it; by its own digest alone where the release before kept that."""
    return stored is not None and stored.digest in (digests[:DIGEST_OCTETS], digests[DIGEST_OCTETS:])


def _mark(campaign: Campaign, run: Run | None, number: int, stored: bool) -> bool:
    """Whether it has stored a batch just now for the first time."""
    if run is None:
        return False
    before = marks_in(campaign.fields.get("unended", ""))
    after, is_first = marked(before, run, number, stored)
    if after != before:
        campaign.fields["unended"] = after
    return is_first


def _prints(batch: PackedBatch) -> list[bytes]:
    return [batch.fingerprints[at : at + PRINT_OCTETS] for at in range(0, len(batch.fingerprints), PRINT_OCTETS)]


def _fresh_rows(campaign: Campaign, batch: PackedBatch) -> int:
    """The mask of rows that were not in the list before."""
    mask, seen_here = 0, set[bytes]()
    for row, print_ in zip(batch.positions, _prints(batch), strict=True):
        if print_ not in campaign.fingerprints and print_ not in seen_here:
            seen_here.add(print_)
            mask |= 1 << row
    return mask


def _remember(campaign: Campaign, batch: PackedBatch) -> None:
    campaign.fingerprints.update(_prints(batch))
