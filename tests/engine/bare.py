"""A lane, and a lease in it, without a worker: real ones, as machine code wants them (docs/design/026)."""

from __future__ import annotations

from sendengine.engine.campaigns import Campaign
from sendengine.engine.feed import Feed
from sendengine.engine.lane import Lane
from sendengine.engine.settings import EngineSettings
from sendengine.engine.work import Lease, Share
from sendengine.ports import CampaignRecord
from sendengine.types import Relay

RELAY = Relay("relay.test")


def lane_of(account: str) -> Lane:
    feed = Feed(RELAY, 1.0, lambda: 0.0, lambda *_: None, lambda _: None, lambda _: None, lambda *_: None)
    return Lane(account, RELAY, feed, EngineSettings())


def lease_of(lane: Lane) -> Lease:
    campaign = Campaign("c", CampaignRecord({"uid": "1", "sender": "shop@example.com", "retry": "1m"}, b""))
    return Lease(1, b"token", Share(lane, campaign), 0, [], 0.0)
