"""Receipts on their way home: a provider's message id stands in a slot of the provider's for a week, by the day of its acceptance. What
workers hear by their binds and the HTTP API by call-backs goes the same way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from sendengine import records
from sendengine.queue import keys, scripts
from sendengine.queue.link import Caller
from sendengine.types import Receipt

DAY = 86400
RECEIPT_DAYS = 7


async def receive(link: Caller, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Those that name nothing known."""
    unknown = list(receipts)
    today = int(time.time()) // DAY
    for day in range(today, today - RECEIPT_DAYS, -1):
        if not unknown:
            break
        found = await link.call("HMGET", keys.receipts(provider, day), *(receipt.message_id for receipt in unknown))
        known = [(receipt, ref) for receipt, ref in zip(unknown, found, strict=True) if ref is not None]
        unknown = [receipt for receipt, ref in zip(unknown, found, strict=True) if ref is None]
        await asyncio.gather(*(_deliver(link, receipt, records.decode_ref(ref)) for receipt, ref in known))
        if known:  # after that: one that is broken off in between is brought again, and says the same
            await link.call("HDEL", keys.receipts(provider, day), *(receipt.message_id for receipt, _ in known))
    return unknown


async def _deliver(link: Caller, receipt: Receipt, ref: records.Ref) -> None:
    await scripts.run(link, "receipt", (keys.account(ref.lane),), ref.campaign, ref.batch, ref.row, receipt.state, receipt.error)
