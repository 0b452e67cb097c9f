"""The purge of an account in memory, the twin of queue/purging.py: there in steps, here at once."""

from __future__ import annotations

from collections.abc import Mapping

from sendengine.policy.term import term_of
from sendengine.queue.keys import CHANNELS
from sendengine.queue.memory_state import MemoryStore


def purge(store: MemoryStore, account: str, now: float, line: bytes) -> str:
    if account not in store.accounts:
        return "gone" if account in store.gone else "missing"
    if account not in due(store, now):
        return "early"
    store.gone[account] = now
    store.accounts[account].fold()
    store.write_trail(account, store.accounts[account].audit, 0.0)
    for lane in (account + channel for channel in CHANNELS):
        store.accounts.pop(lane, None)
        store.money.pop(lane, None)
        store.index.pop(lane, None)
        for holders in store.holders.values():
            holders.discard(lane)
    store.hooks.pop(account, None)
    store.hook_index.pop(account, None)
    for digest in [digest for digest, key in store.api_keys.items() if key.account == account]:
        del store.api_keys[digest]
    store.write_trail(account, {0: b"%.0f %b" % (now, line)}, 0.0)
    return "done"


def due(store: MemoryStore, now: float) -> list[str]:
    times = {name: _purge_at(state.fields) for name, state in store.accounts.items() if "/" not in name}
    return [name for name, at in times.items() if at is not None and at * 1e6 <= now]


def _purge_at(fields: Mapping[str, str]) -> float | None:
    try:
        term = term_of(fields)
    except ValueError:  # nobody can read it, and it keeps no other waiting
        return None
    return None if term is None else term.purge_at
