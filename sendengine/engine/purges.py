"""Purges that are due: once an hour some worker of the fleet looks for them, and does them one after the other (docs/design/016)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import structlog

from sendengine.engine.identity import Identity
from sendengine.engine.settings import EngineSettings
from sendengine.errors import Unavailable
from sendengine.policy.term import purge_line
from sendengine.ports import Queue

log = structlog.get_logger("sendengine.purges")


class Purges:
    """Owner of nothing but whether it is at it: a purge that is broken off goes on with the next look, here or anywhere."""

    def __init__(
        self, queue: Queue, identity: Identity, settings: EngineSettings, spawn: Callable[[Coroutine[object, object, None]], None]
    ) -> None:
        self._queue, self._identity, self._settings, self._spawn = queue, identity, settings, spawn
        self._is_at_it = False
        self.is_stopping = False

    async def look(self) -> None:
        if not self._is_at_it and not self.is_stopping and await self._queue.claim("purges", self._settings.purges_every):
            self._is_at_it = True
            self._spawn(self._purge_all())

    async def _purge_all(self) -> None:
        try:
            for account in await self._queue.due_purges():
                if self.is_stopping:
                    return
                answer = await self._queue.purge(account, purge_line(f"worker {self._identity.id}"))
                log.info("account_purged", account=account, answer=answer)
        except Unavailable as error:
            log.warning("purges_broken_off", error=str(error))
        finally:
            self._is_at_it = False
