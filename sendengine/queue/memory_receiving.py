"""Receipts in memory: the twin of receiving.py and lua/receipt.lua."""

from __future__ import annotations

from collections.abc import Sequence

from sendengine.policy.receipts import DELIVERED
from sendengine.queue.memory_state import Account, MemoryStore
from sendengine.records import Ref, decode_ref
from sendengine.types import Receipt


def receive(store: MemoryStore, now: float, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
    expected = store.expected.get(provider, {})
    unknown = []
    for receipt in receipts:
        ref = expected.get(receipt.message_id)
        if ref is None:
            unknown.append(receipt)
        else:
            _deliver(store, now, receipt, decode_ref(ref))
    for receipt in receipts:  # behind them all: one that came twice in a call is known both times
        expected.pop(receipt.message_id, None)
    return unknown


def _deliver(store: MemoryStore, now: float, receipt: Receipt, ref: Ref) -> None:
    found = store.accounts.get(ref.lane, Account()).campaigns.get(ref.campaign)
    if found is None:
        return
    row = (ref.batch, ref.row)
    before = found.receipts[row][0] if row in found.receipts else ""
    if before == receipt.state or before not in ("", DELIVERED):
        return
    found.receipts[row] = (receipt.state, receipt.error, int(now / 1000))
    if before:
        found.fields.add("delivered", -1)
    found.fields.add("delivered" if receipt.state == DELIVERED else "undelivered", 1)
