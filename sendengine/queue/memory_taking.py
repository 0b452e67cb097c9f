"""Taking in memory, the twin of lua/take.lua: rows READY or due again become LEASED."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sendengine.ports import Leased
from sendengine.queue.keys import LEVELS
from sendengine.queue.memory_settling import mask_of
from sendengine.queue.memory_state import Account, Campaign, History, Lease, Portion
from sendengine.records import MASK_OCTETS, PAST, TRANSACTIONAL
from sendengine.types import SendState

RETRY_EARLY_US = 5e4  # a retry due so soon is taken along
RETRY_BATCHES = 20
LOOKS = 100
CAMPAIGNS = 100


def look_at_schedules(state: Account, now: float) -> tuple[str, ...]:
    """Schedules that are due start; campaigns with a window are looked at by who knows time zones."""
    due = sorted((at, name) for name, at in state.looks.items() if at <= now)[:LOOKS]
    look = []
    for _, name in due:
        campaign = state.campaigns[name]
        if campaign.fields.get("window"):
            look.append(name)
        elif campaign.state == SendState.SCHEDULED:
            state.start(campaign, now)
        else:
            del state.looks[name]
    return tuple(look)


def turns(state: Account, now: float, has_first: Collection[str], has_retries: Collection[str]) -> list[Campaign]:
    """Those with something to take, the least served first: so many with rows READY, and as many with retries that are due."""
    by_share = [state.campaigns[name] for name in sorted(state.run, key=lambda name: (state.run[name], name))]
    ready = [campaign.id for campaign in by_share if campaign.id not in has_first and campaign.has_ready]
    retries = sorted((at, one.id) for one in by_share if one.id not in has_retries and (at := one.next_retry) is not None and at <= now)
    chosen = {*ready[:CAMPAIGNS], *(name for _, name in retries[:CAMPAIGNS])}
    singles = [state.campaigns[TRANSACTIONAL]] if TRANSACTIONAL in state.campaigns else []
    return singles + [campaign for campaign in by_share if campaign.id in chosen]


class Taking:
    """Rows READY or due again become LEASED, as far as tokens go."""

    def __init__(self, state: Account, worker: str, want: int, tokens: Sequence[bytes], now: float) -> None:
        self._state, self._worker, self._want, self._tokens, self._now = state, worker, want, list(tokens), now
        self.leases: list[Leased] = []

    def take_retries(self, campaign: Campaign) -> None:
        got = 0
        for batch in self._due(campaign):
            if not self._tokens or got >= self._want:
                break
            got += self._retries(campaign, batch)

    def take_first_tries(self, campaign: Campaign) -> None:
        """What was given back, then the levels from 9 down: at least `want` rows if there are."""
        got = 0
        while campaign.given_back and self._tokens and got < self._want:
            got += self._lease(campaign, campaign.given_back.popleft())
        for level in LEVELS:
            waiting = campaign.levels[level]
            while waiting and self._tokens and got < self._want:
                batch = max(waiting) if campaign.fields.get("reversed") == "1" else min(waiting)
                got += self._lease(campaign, Portion(batch, level, waiting.pop(batch), {}))

    def _due(self, campaign: Campaign) -> list[int]:
        earliest = {batch: min(retry.due for retry in rows.values()) for batch, rows in campaign.retries.items()}
        due = [batch for batch, at in earliest.items() if at <= self._now]
        return sorted(due, key=lambda batch: (earliest[batch], str(batch)))[:RETRY_BATCHES]

    def _retries(self, campaign: Campaign, batch: int) -> int:
        waiting = campaign.retries[batch]
        due = {row: retry for row, retry in waiting.items() if retry.due <= self._now + RETRY_EARLY_US}
        for row in due:
            del waiting[row]
        if not waiting:
            del campaign.retries[batch]
        campaign.fields.add("deferred", -len(due))
        past = {row: (retry.tries, retry.first) for row, retry in due.items()}
        return self._lease(campaign, Portion(batch, 0, mask_of(due), past))

    def _lease(self, campaign: Campaign, portion: Portion) -> int:
        token, batch = self._tokens.pop(), portion.batch
        self._state.leases[token] = Lease(portion, campaign.id, self._worker)
        n = portion.mask.bit_count()
        campaign.fields.add("leased", n)
        mask, past = portion.mask.to_bytes(MASK_OCTETS, "little"), _past(portion.past)
        stored = campaign.batches.get(batch)
        payload = stored.payload if stored else b""
        message, idle = campaign.messages.get(batch, b""), float(campaign.fields.get("idle", 0))
        self.leases.append(Leased(token, campaign.id, batch, mask, past, payload, message, idle, campaign.kills.get(batch, 0)))
        return n


def _past(past: History) -> bytes:
    return b"".join(PAST.pack(row, tries, first) for row, (tries, first) in past.items())
