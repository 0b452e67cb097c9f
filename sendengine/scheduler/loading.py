"""A send whose list comes in pieces: opened without rows, loaded by any number of lists, sealed. What `submit` does in one call.

The rows of a list are numbered from the batch that it begins at, so that a list that was broken off is repeated with the same number: what
stands already is recognised, and another list there is refused by the first row that differs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from concurrent.futures import Executor

import msgspec

from sendengine import remedies
from sendengine import rows as reading
from sendengine.addressing import BY_MAIL, by_phone
from sendengine.config import Config
from sendengine.errors import Conflict, RefusedInput, Unavailable
from sendengine.policy.prices import PriceTable
from sendengine.ports import Desk
from sendengine.render.message import load as message_of
from sendengine.scheduler import sources
from sendengine.scheduler.flight import Flight, TooDear, going_on
from sendengine.scheduler.names import Ref, campaign_id
from sendengine.scheduler.submitting import OnReject, Order, compiled, create, intake_of, lacking, reporting
from sendengine.scheduler.view import number

ENDED = ("cancelled", "finished")


class Loaded(msgspec.Struct, frozen=True):
    """What a list came to. `next_batch` is where a further list of the send begins; `absent` are fields that no row had a column for, each
    with the nearest column or ""; `added` are rows that this call stored."""

    rows: int
    added: int
    rejected: int
    first_batch: int
    next_batch: int
    absent: dict[str, str]


async def open_send(desk: Desk, config: Config, order: Order, uid: str, strict: bool) -> bool:
    """True when it is new. `strict`: it is not sealed, and so never sent, while a row of it was refused."""
    order, skeleton = compiled(order, uid)
    return await create(desk, config, order, uid, skeleton, strict)


async def load(
    desk: Desk, ref: Ref, prices: PriceTable | None, chunks: AsyncIterable[bytes], first: int, pool: Executor | None,
    on_reject: OnReject | None = None, who: str = "",
) -> Loaded:  # fmt: skip
    """CSV or NDJSON, in chunks cut anywhere, in constant memory. `prices`: those of a send that costs something. What was stored when it
    breaks off stays; the same call goes on. Raises RefusedInput for a list that cannot be read, Conflict for another one than stands there,
    and for one ahead of its turn."""
    fields = await _open_fields(desk, ref)
    if (stands := number(fields, "batches")) < first:
        raise Conflict(f"{ref}: batch {first} is ahead of its turn, {stands} is the next", going_on(stands, fields.get("sealed") == "1"))
    message = message_of(await desk.message(ref.account, ref.id))
    region, priority = fields.get("region", ""), fields.get("priority", "")
    order = Order(ref=ref, message=message, sender=fields["sender"], priority=priority, region=region, prices=prices)
    order, skeleton = compiled(order, fields["uid"])
    before = await desk.digest(ref.account, ref.id, first - 1) if first else b""
    intake = intake_of(order, skeleton, first=first, before=before)
    flight = Flight(desk, ref, lambda row: None, who, is_piece=True, first=first)
    rows = rejected = batches = 0
    source = reporting(sources.uploaded(sources.Upload(chunks, pool), intake), on_reject)
    async with flight.under_way():
        try:
            await flight.begin()
            async for batch in source:
                await flight.send(batch)
                rows, rejected, batches = rows + batch.rows, rejected + len(batch.rejected), batches + 1
            await flight.end()
        except TooDear as stopped:
            raise await lacking(desk, ref, flight, stopped, source) from None
        except Unavailable as error:
            raise Unavailable(str(error), "repeat the upload: what stands already is recognised") from error
        except reading.MissingColumn as error:
            whom = by_phone(region) if prices else BY_MAIL
            raise reading.MissingColumn(error.column, error.nearest, skeleton.users(error.column), whom) from None
    return Loaded(rows, flight.added, rejected, first, first + batches, intake.absent)


async def seal(desk: Desk, ref: Ref, rows: int | None, line: bytes) -> bool:
    """The list is complete; False when it was already. `rows`: how many the caller has given, to be sure. Raises Conflict where there are
    others, or, without `rows`, where an upload or a submit has begun and not ended; RefusedInput where nothing can be sent, or, if it is
    strict, where a row was refused."""
    fields = await desk.campaign(ref.account, ref.id)
    stands, rejected = number(fields, "rows"), number(fields, "rejected")
    if rows is not None and rows != stands:
        raise Conflict(f"{ref} has {stands:,} rows, not {rows:,}", "upload what is missing; a list that was broken off is repeated whole")
    if not number(fields, "accepted"):
        said = f"every row of it was refused ({rejected:,})" if rejected else "its list is empty"
        raise RefusedInput(f"{ref}: nothing can be sent: {said}", "upload recipients, or cancel it")
    if fields.get("strict") == "1" and rejected:
        raise RefusedInput(f"{ref} is strict, and {rejected:,} of its rows were refused", "it is not sent: cancel it, submit a good list")
    stored = await desk.seal(ref.account, ref.id, number(fields, "batches"), must_have_ended=rows is None, line=line)
    if stored.status == "closed":
        raise Conflict(f"{ref} is {stored.state}: its list takes no end any more")
    if stored.status == "unended":
        raise Conflict(f"{ref}: its list was begun and has not ended: {stands:,} rows of it stand", remedies.end_list(str(ref), stands))
    if stored.status == "expected":
        raise Conflict(f"{ref}: rows came while it was sealed", "seal it when every upload has been answered")
    return stored.status == "sealed"


async def _open_fields(desk: Desk, ref: Ref) -> dict[str, str]:
    campaign_id(ref.id)
    fields = dict(await desk.campaign(ref.account, ref.id))
    if fields.get("state") in ENDED:
        raise Conflict(f"{ref} is {fields['state']}: it takes no more rows")
    return fields
