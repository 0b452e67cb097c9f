"""What the log says while Redis is away: that it went is told where it is met, that it stays away each half minute."""

from __future__ import annotations

import structlog

log = structlog.get_logger("sendengine.engine")

SAY_EVERY = 30.0


class AwayLog:
    """Owner: the worker. Times are of its clock."""

    def __init__(self) -> None:
        self._since = self._said_at = 0.0
        self._was_away = False

    def look(self, is_away: bool, now: float) -> None:
        if is_away and not self._was_away:
            self._since = self._said_at = now
        elif is_away and now - self._said_at >= SAY_EVERY:
            self._said_at = now
            log.warning("redis_still_away", seconds=round(now - self._since))
        self._was_away = is_away
