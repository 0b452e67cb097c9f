"""The Queue port in memory, the twin of queue/redis.py: for users' tests and ours. It ships, and one contract suite holds the two together.

A MemoryStore takes the place of a Redis: queues and desks on one store see each other's writes. The clock is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sendengine.errors import Fenced, SendEngineError, Unavailable
from sendengine.policy.durability import Persistence
from sendengine.policy.health import Health
from sendengine.policy.holds import Hold, encode, field, placed_line, suspended_line
from sendengine.policy.signing import KeyEntry, decode
from sendengine.ports import Appended, CampaignRecord, Late, Settlement, Standings, Taken, Visited
from sendengine.queue.keys import INFO_SECONDS
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_gate import change
from sendengine.queue.memory_granting import bind_to, deal, grant
from sendengine.queue.memory_health import look
from sendengine.queue.memory_purging import due, purge
from sendengine.queue.memory_receiving import receive
from sendengine.queue.memory_settling import settle
from sendengine.queue.memory_state import ENDED, IN_MEMORY, Account, MemoryStore, Tally
from sendengine.queue.memory_taking import Taking, look_at_schedules, turns
from sendengine.queue.memory_verbs import DONE, pause
from sendengine.records import REVOKED, TRANSACTIONAL
from sendengine.types import Receipt, SendState

__all__ = ["MemoryDesk", "MemoryQueue", "MemoryStore"]

TOKEN, BEAT, CONFIRMED = b"t", b"b", b"c"
NEWS = 1000
LATE = 500  # addresses that are named at most


class MemoryQueue:
    """Owner of nothing but its count of dropped connections: the state is the store's."""

    def __init__(self, store: MemoryStore, now_us: Callable[[], float], cut_delay_us: float = 200_000) -> None:
        self._all = store
        self._now_us = now_us
        self._cut_delay = cut_delay_us
        self._dropped = 0

    @property
    def _store(self) -> MemoryStore:
        if self._all.is_away:
            raise Unavailable("the store is away", "the same call may go through later")
        return self._all

    def _now(self) -> float:
        return float(round(self._now_us()))

    @property
    def generation(self) -> int:
        return self._all.generation + self._dropped

    def drop(self) -> None:
        """As if it had connected anew."""
        self._dropped += 1

    async def persistence(self) -> Sequence[Persistence]:
        return (IN_MEMORY,)

    async def close(self) -> None: ...

    # the journal

    async def register(self, worker: str, token: bytes) -> None:
        store = self._store
        if store.journals.setdefault(worker, {TOKEN: token, BEAT: b"0"})[TOKEN] != token:
            raise SendEngineError(f"worker id {worker} is taken")
        store.workers[worker] = None

    async def append(
        self, worker: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]
    ) -> Appended:
        store = self._store
        journal = store.journals.get(worker)
        if journal is None or journal[TOKEN] != token:
            raise Fenced("another worker took over")
        for name in gone:
            journal.pop(name, None)
        journal.update(zip(fields[::2], fields[1::2], strict=True))
        journal[BEAT] = b"%d" % (int(journal[BEAT]) + 1)
        inbox = store.inboxes.setdefault(worker, [])
        confirmed = int(journal.get(CONFIRMED, 0))
        if seen > confirmed:
            del inbox[: seen - confirmed]
            journal[CONFIRMED] = b"%d" % seen
            confirmed = seen
        return Appended(self._now(), confirmed, tuple(inbox[:NEWS]))

    async def workers(self) -> list[str]:
        return list(self._store.workers)

    async def beat(self, worker: str) -> tuple[bytes, bytes] | None:
        journal = self._store.journals.get(worker)
        return None if journal is None else (journal[TOKEN], journal[BEAT])

    async def revoke(self, worker: str, token: bytes, beat: bytes) -> Mapping[bytes, bytes]:
        journal = self._store.journals.get(worker)
        if journal is None or (journal[TOKEN] != REVOKED and (journal[TOKEN], journal[BEAT]) != (token, beat)):
            return {}
        journal[TOKEN] = REVOKED
        return dict(journal)

    async def bury(self, worker: str) -> None:
        store = self._store
        for shelf in (store.journals, store.inboxes, store.infos, store.workers):
            shelf.pop(worker, None)

    async def tell(self, worker: str, info: bytes) -> None:
        self._store.infos[worker] = (self._now() + INFO_SECONDS * 1e6, info)

    async def signing_keys(self, known: int) -> tuple[int, list[KeyEntry]] | None:
        store = self._store
        if store.key_changes == known:
            return None
        return store.key_changes, [decode(name, value) for name, value in sorted(store.signing_keys.items())]

    # the index

    async def find(self, limit: int) -> list[str]:
        index = self._store.index
        due = sorted((need, account) for account, need in index.items() if need <= self._now())[:limit]
        for _, account in due:
            del index[account]
        return [account for _, account in due]

    async def offer(self, account: str, need_us: float) -> None:
        self._store.offer(account, need_us)

    async def hasten(self, account: str, need_us: float) -> bool:
        if account not in self._store.index:
            return False
        self._store.offer(account, need_us)
        return True

    async def accounts(self) -> list[str]:
        return list(self._store.accounts)

    async def need(self, account: str) -> tuple[float, dict[bytes, str]]:
        state = self._store.accounts.get(account, Account())
        singles = state.campaigns.get(TRANSACTIONAL)
        if singles is not None and "retention" in singles.fields:
            singles.forget_old(self._now(), float(singles.fields["retention"]), 20)
        return state.next_need(self._now()), {token: lease.worker for token, lease in state.leases.items()}

    async def is_idle(self, account: str) -> bool:
        """Nothing of it is due now, waits for a retry, or is leased."""
        state = self._store.accounts.get(account, Account())
        sending = [state.campaigns[name] for name in (*state.run, TRANSACTIONAL) if name in state.campaigns]
        now = self._now()
        has_retries = state.shut_since(now) is None and any(campaign.retries for campaign in sending)
        return not (state.leases or has_retries or 0 <= state.next_need(now) <= now)

    async def claim_sweep(self, seconds: float) -> bool:
        store, now = self._store, self._now()
        if now < store.swept_until:
            return False
        store.swept_until = now + seconds * 1e6
        return True

    async def claim(self, what: str, seconds: float) -> bool:
        store, now = self._store, self._now()
        if now < store.claims.get(what, 0.0):
            return False
        store.claims[what] = now + seconds * 1e6
        return True

    async def health(self, account: str, hours: int) -> Health:
        state = self._store.accounts.get(account)
        return Health(0, 0, 0) if state is None else look(state, self._now(), hours)

    async def hold(self, account: str, hold: Hold) -> None:
        store, name = self._store, field(hold.reason)
        _, cuts = change(store, account, self._now(), self._cut_delay, {name: ""}, {name: encode(hold)}, None, placed_line(hold))
        for lane, cut in cuts.items():
            store.spread(account + lane, *cut)
        store.accounts[account].health = Tally()

    async def due_purges(self) -> list[str]:
        return due(self._store, self._now())

    async def purge(self, account: str, line: bytes) -> str:
        return purge(self._store, account, self._now(), line)

    async def ask_sweep(self) -> None:
        self._store.swept_until = 0.0

    # the account

    async def account(self, account: str) -> Mapping[str, str]:
        return dict(self._store.accounts.get(account, Account()).fields)

    async def campaign(self, account: str, campaign: str) -> CampaignRecord | None:
        found = self._store.accounts.get(account, Account()).campaigns.get(campaign)
        return None if found is None else CampaignRecord(dict(found.fields), found.message)

    async def share(self, provider: str, worker: str, seconds: float) -> int:
        now = self._now()
        counted = self._store.sharing.get(provider, {}) | {worker: now + seconds * 1e6}
        self._store.sharing[provider] = {each: until for each, until in counted.items() if until >= now}
        return len(self._store.sharing[provider])

    async def expect(self, provider: str, refs: Mapping[str, bytes]) -> None:
        self._store.expected.setdefault(provider, {}).update(refs)

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        return receive(self._store, self._now(), provider, receipts)

    async def window(self, account: str, campaign: str, is_open: bool, next_us: float | None) -> None:
        store, now = self._store, self._now()
        state = store.accounts.get(account, Account())
        found = state.campaigns.get(campaign)
        if found is None or found.state in ENDED:
            state.looks.pop(campaign, None)
            return
        if found.state == SendState.SCHEDULED:
            state.start(found, now)
        state.looks.pop(campaign, None)
        if next_us is not None:
            state.looks[campaign] = float(round(next_us))
        opened = "1" if is_open else "0"
        if found.fields.get("open") == opened:
            return
        found.fields["open"] = opened
        found.fields.forget("closed_at")
        if not is_open:
            found.fields.set_times(closed_at=now)
        state.rest(found, now)
        state.sync_run(found, now)
        store.spread(account, *state.cut(now, self._cut_delay))

    async def leave(self, account: str, above: int = 0) -> tuple[int, float]:
        store = self._store
        if account not in store.accounts:
            return 0, 0.0
        cut = store.accounts[account].cut(self._now(), self._cut_delay, above)
        store.spread(account, *cut)
        return cut

    async def suspend(self, account: str, campaign: str, why: str) -> None:
        store, now = self._store, self._now()
        state = store.accounts[account]
        if pause(state, state.campaigns[campaign], now, why) == DONE:
            store.note(account, now, suspended_line(campaign, why))
            store.spread(account, *state.cut(now, self._cut_delay))

    async def take(
        self, account: str, worker: str, rows: int, tokens: Sequence[bytes], has_first: Sequence[str], has_retries: Sequence[str]
    ) -> Taken:
        state, now = self._store.accounts.get(account, Account()), self._now()
        if state.shut_since(now) is not None:
            return Taken(-1.0, -1.0, (), ())
        look = look_at_schedules(state, now)
        taking = Taking(state, worker, rows, tokens, now)
        for campaign in turns(state, now, has_first, has_retries):
            if campaign.id not in has_retries:
                taking.take_retries(campaign)
            if campaign.id not in has_first:
                taking.take_first_tries(campaign)
        names = [name for name in (TRANSACTIONAL, *state.run) if name in state.campaigns and name not in has_retries]
        wakes = [*(state.campaigns[name].next_retry for name in names), *state.looks.values()]
        wake = float(round(min((at for at in wakes if at is not None), default=-1)))
        return Taken(state.next_need(now), wake, look, tuple(taking.leases))

    async def visit(
        self, account: str, want: int, horizon_us: float, bind: str, held: Sequence[str], settlements: Sequence[Settlement],
        lead_us: float = 0.0,
    ) -> Visited:  # fmt: skip
        state, now = self._store.accounts.get(account, Account()), self._now()
        state.has_begun = False
        money = self._store.money.get(account)
        before = money.charged if money is not None else 0
        acted = tuple(settle(state, now, settlement) for settlement in settlements)
        spent = money.charged - before if money is not None else 0
        fields = state.fields
        if "iv" not in fields:
            return Visited(now, 0, 0.0, 0, 0.0, 0.0, b"", b"", 0.0, acted, spent=spent)
        if bind != "=":
            bind_to(state, now, bind)
        is_shut = state.shut_since(now) is not None
        may_send = [not is_shut and (name in state.run or name == TRANSACTIONAL) for name in held]
        closes = 0.0 if is_shut else float(state.home.get("gate", 0))
        permits, delay, interval = grant(state, now, want if any(may_send) else 0, horizon_us, lead_us, closes)
        return Visited(
            now_us=now,
            cut=fields.number("cut"),
            cut_us=float(fields.get("cut_at", 0)),
            permits=permits,
            delay_us=delay,
            interval_us=round(interval, 3),
            deal=deal(state, permits, held),
            stopped=bytes(place for place, may in enumerate(may_send) if not may),
            idle_us=float(fields.get("idle", 0)),
            acted=acted,
            has_begun=state.has_begun,
            closes_us=closes,
            listed=state.listed,
            spent=spent,
        )

    async def standings(self, account: str, addresses: Sequence[bytes]) -> Standings:
        state = self._store.accounts.get(account, Account())
        barred = {at: state.suppressed[name] for at, name in enumerate(addresses) if name in state.suppressed}
        return Standings(barred, frozenset(at for at, name in enumerate(addresses) if name in state.soft))

    async def late(self, account: str, listed: int) -> Late:
        state = self._store.accounts.get(account, Account())
        changes = max(0, state.listed)
        is_nameable = listed <= changes <= listed + LATE
        return Late(changes, state.late[listed:] if is_nameable else None)

    async def payload(self, account: str, campaign: str, batch: int) -> bytes | None:
        found = self._store.accounts.get(account, Account()).campaigns.get(campaign)
        stored = found.batches.get(batch) if found else None
        return stored.payload if stored else None
