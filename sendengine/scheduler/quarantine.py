"""Batches set aside: workers died with them in hand, three in a row (docs/design/010). Named without being opened."""

from __future__ import annotations

import msgspec

from sendengine.batch import BATCH_ROWS
from sendengine.ports import Desk
from sendengine.records import rows_of
from sendengine.scheduler.names import Ref


class SetAside(msgspec.Struct, frozen=True):
    """Rows of one batch in quarantine; `indexes` are input rows, from 0."""

    campaign: str
    batch: int
    rows: int
    indexes: list[int]


async def read(desk: Desk, ref: Ref) -> list[SetAside]:
    found = []
    for batch, masks in sorted((await desk.standing(ref.account, ref.id)).aside.items()):
        rows = sorted(row for mask in masks for row in rows_of(mask))
        found.append(SetAside(str(ref), batch, len(rows), [BATCH_ROWS * batch + row for row in rows]))
    return found
