"""Accounts that are held by themselves: once a minute some worker of the fleet looks how each one's mail fared (policy/health.py)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import structlog

from sendengine.engine.settings import EngineSettings
from sendengine.errors import Unavailable
from sendengine.policy.health import judge
from sendengine.policy.holds import placed
from sendengine.ports import Queue

log = structlog.get_logger("sendengine.health")

WHO = "sendengine"


class HealthWatch:
    """Owner of nothing but whether it is at it: the counts are in the accounts. `wall`: the time by Redis' clock, UNIX seconds."""

    def __init__(
        self, queue: Queue, settings: EngineSettings, wall: Callable[[], float], spawn: Callable[[Coroutine[object, object, None]], None]
    ) -> None:
        self._queue, self._settings, self._thresholds = queue, settings, settings.health
        self._wall, self._spawn = wall, spawn
        self._is_at_it = False

    async def look(self) -> None:
        """Beside the other looks: ten thousand accounts take seconds."""
        if self._thresholds.is_on and not self._is_at_it and await self._queue.claim("health", self._settings.health_every):
            self._is_at_it = True
            self._spawn(self._judge_all())

    async def _judge_all(self) -> None:
        try:
            for account in await self._queue.accounts():
                if "/" in account:  # a lane beside e-mail has no complaints, and its numbers that do not exist are no bounces
                    continue
                try:
                    await self._judge(account)
                except Unavailable as error:  # its part of a Cluster alone may be away
                    log.warning("health_not_looked_at", account=account, error=str(error))
        finally:
            self._is_at_it = False

    async def _judge(self, account: str) -> None:
        found = judge(self._thresholds, await self._queue.health(account, self._thresholds.window_h))
        for reason, why in found:
            log.warning("account_held", account=account, reason=reason, why=why)
            await self._queue.hold(account, placed(self._thresholds.reason(reason), self._wall(), why, WHO))
