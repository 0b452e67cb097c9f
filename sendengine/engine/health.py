"""Accounts that are held by themselves: once a minute some worker of the fleet looks how each one's mail fared (policy/health.py)."""

from __future__ import annotations

import structlog

from sendengine.engine.settings import EngineSettings
from sendengine.errors import Unavailable
from sendengine.policy.health import judge
from sendengine.policy.holds import placed
from sendengine.ports import Queue

log = structlog.get_logger("sendengine.health")

WHO = "sendengine"


class HealthWatch:
    """Owner of nothing: the counts are in the accounts."""

    def __init__(self, queue: Queue, settings: EngineSettings) -> None:
        self._queue, self._settings, self._thresholds = queue, settings, settings.health

    async def look(self, wall: float) -> None:
        """`wall`: the time by Redis' clock, UNIX seconds."""
        if not self._thresholds.is_on or not await self._queue.claim("health", self._settings.health_every):
            return
        for account in await self._queue.accounts():
            if "/" in account:  # a lane beside e-mail has no complaints, and its numbers that do not exist are no bounces
                continue
            try:
                await self._judge(account, wall)
            except Unavailable as error:  # its part of a Cluster alone may be away
                log.warning("health_not_looked_at", account=account, error=str(error))

    async def _judge(self, account: str, wall: float) -> None:
        found = judge(self._thresholds, await self._queue.health(account, self._thresholds.window_h))
        for reason, why in found:
            log.warning("account_held", account=account, reason=reason, why=why)
            await self._queue.hold(account, placed(self._thresholds.reason(reason), wall, why, WHO))
