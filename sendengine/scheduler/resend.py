"""Sending again to those whom a send did not reach: their rows, as they were submitted.

Suppression is checked again at dispatch, as for any send. Asking twice gives the same list, so a resend is as idempotent as a submit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from sendengine.addressing import EMAIL, PHONE
from sendengine.batch import unpack
from sendengine.errors import Conflict
from sendengine.lanes import SMS
from sendengine.ports import Desk
from sendengine.records import decode_outcomes
from sendengine.render.message import load
from sendengine.scheduler.names import Ref
from sendengine.scheduler.submitting import Order
from sendengine.scheduler.view import number, pending
from sendengine.types import OnDoubt, Outcome

_AT_ONCE = 200


async def order_again(desk: Desk, ref: Ref) -> Order:
    """The same message under the id ID-r1, with the send's window, priorities, on_doubt, retries and lifetime; it does not wait in the
    line of the sequential ones. Raises Conflict unless the send has ended and is still kept."""
    fields = await desk.campaign(ref.account, ref.id)
    if "finished" not in fields:
        what = f"still has {pending(fields)} on their way" if fields["state"] == "cancelled" else f"is {fields['state']}"
        raise Conflict(f"{ref} {what}", "wait until it is finished, or cancel it")
    message = await desk.message(ref.account, ref.id)
    if not message:
        raise Conflict(f"the message of {ref} is kept no longer")
    return Order(
        ref=Ref(ref.account, f"{ref.id}-r1"),
        message=load(message),
        sender=fields.get("sender", ""),
        priority=fields.get("priority", ""),
        window=fields.get("window", ""),
        retry=fields.get("retry", ""),
        lifetime=float(fields["lifetime"]) if "lifetime" in fields else None,
        on_doubt=OnDoubt(fields.get("on_doubt", "resend")),
        created_by=fields.get("created_by", ""),
    )


async def missing(desk: Desk, ref: Ref) -> AsyncIterator[dict[str, Any]]:
    """Rows without `sent`, in their order."""
    fields = await desk.campaign(ref.account, ref.id)
    sent = await _sent(desk, ref)
    batches = number(fields, "batches")
    for start in range(0, batches, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, batches))
        for k, stored in zip(numbers, await desk.batches(ref.account, ref.id, numbers), strict=True):
            if stored is None:
                raise Conflict(f"the recipients of {ref} are kept no longer")
            wanted = int.from_bytes(stored[0], "little") & ~sent.get(k, 0)
            for row in _rows(stored[1], wanted, fields):
                yield row


def _rows(payload: bytes, wanted: int, fields: Mapping[str, str]) -> list[dict[str, Any]]:
    batch, priority = unpack(payload), fields.get("priority", "")
    column = PHONE if fields.get("channel") == SMS else EMAIL
    rows = []
    for at, row in enumerate(batch.positions):
        if wanted >> row & 1:
            found = {column: batch.recipients[at]} | {name: column[at] for name, column in zip(batch.fields, batch.columns, strict=True)}
            rows.append(found | ({priority: batch.priorities[at]} if priority else {}))
    return rows


async def _sent(desk: Desk, ref: Ref) -> dict[int, int]:
    """Masks of the rows that were sent, by batch number."""
    sent: dict[int, int] = {}
    after = ""
    while chunks := await desk.outcomes(ref.account, ref.id, after, _AT_ONCE):
        after = chunks[-1].entry
        for chunk in chunks:
            mask = sum(1 << record.row for record in decode_outcomes(chunk.records) if record.outcome is Outcome.SENT)
            sent[chunk.batch] = sent.get(chunk.batch, 0) | mask
    return sent
