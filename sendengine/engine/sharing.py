"""What a provider of SMS takes in a second is the fleet's: the workers that send by it have equal parts of it.

Each says so at every look, and is told how many they are; who is silent for three looks counts no more. So a worker that joins, leaves or
dies is felt within seconds, in which the fleet may ask for a little more or less than the provider's rate. Accounts need none of this:
their permits are dealt by their own clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from sendengine.engine.feed import Feed
from sendengine.engine.identity import Identity
from sendengine.ports import Queue
from sendengine.types import Provider

COUNTS_FOR = 6.0  # seconds after a say


class Sharing:
    """Owner of nothing: the parts stand at the sites."""

    def __init__(self, queue: Queue, identity: Identity) -> None:
        self._queue, self._identity = queue, identity

    async def look(self, feeds: Iterable[Feed]) -> None:
        """Of the feeds that accounts attached here use. Raises Unavailable: what was told last holds."""
        for feed in set(feeds):
            if isinstance(feed.relay, Provider) and feed.relay.rate:
                feed.site.share(await self._queue.share(feed.relay.name, self._identity.id, COUNTS_FOR))
