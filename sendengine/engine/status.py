"""What a worker says of itself: read by `workers`, `top` and the metrics. Pure reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import orjson

from sendengine.engine.feed import Feed
from sendengine.engine.journal import Journal
from sendengine.engine.lane import Lane


class Report(msgspec.Struct, frozen=True):
    accounts: int
    rows: int  # leased and not picked yet
    sessions: int
    doubtful: int  # W
    oldest: float  # seconds since the oldest lease was taken
    bound: Mapping[str, int]  # accounts by the limit that binds them
    sites: list[Mapping[str, object]]
    busy: list[str]  # accounts attached, the first ones

    def encode(self, facts: Mapping[str, object]) -> bytes:
        return orjson.dumps({**facts, **msgspec.structs.asdict(self)})


def report(lanes: Iterable[Lane], feeds: Iterable[Feed], journal: Journal, now: float) -> Report:
    lanes = list(lanes)
    feeds = list(feeds)
    bound: dict[str, int] = {}
    for lane in lanes:
        limit = lane.bind.partition("|")[0]
        if limit:
            bound[limit] = bound.get(limit, 0) + 1
    taken = [lease.taken_at for lane in lanes for lease in lane.leases()]
    return Report(
        accounts=len(lanes),
        rows=sum(lane.rows for lane in lanes),
        sessions=sum(feed.site.sessions for feed in feeds),
        doubtful=journal.doubtful,
        oldest=now - min(taken) if taken else 0.0,
        bound=bound,
        sites=[{"site": feed.relay.site, "sessions": feed.site.sessions, "on_wire": feed.on_wire} for feed in feeds],
        busy=[lane.account for lane in lanes[:20]],
    )
