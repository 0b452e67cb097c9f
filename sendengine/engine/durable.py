"""What the worker says of its Redis: how durable it is, read at the start and again over every new connection, which may lead elsewhere."""

from __future__ import annotations

import structlog

from sendengine.engine.identity import Identity
from sendengine.engine.settings import EngineSettings
from sendengine.errors import RefusedInput
from sendengine.policy.durability import Durability, weakest
from sendengine.ports import Queue

log = structlog.get_logger("sendengine.durability")


class Durable:
    """Owner of what was said last."""

    def __init__(self, queue: Queue, identity: Identity, settings: EngineSettings) -> None:
        self._queue, self._identity, self._settings = queue, identity, settings
        self._generation = -1
        self.said: Durability | None = None

    def fact(self) -> dict[str, str]:
        return {} if self.said is None else {"durability": str(self.said.level)}

    async def demand(self) -> None:
        """Read it before anything is written. Raises RefusedInput when more is required, Unavailable when nobody answers."""
        await self.look()
        if self._settings.require_durable and self.said is not None and not self.said.is_durable:
            why = "; ".join((f"durability={self.said.level}: {self.said.loses}", *self.said.dangers))
            raise RefusedInput(f"Redis is not as durable as is required: {why}", self.said.remedy)

    async def look(self) -> None:
        """Say it when it is new. In mid-send a weaker one is said, not refused: what is under way must end."""
        if self._generation == self._queue.generation:
            return
        found = weakest(await self._queue.persistence(), self._settings.waits_for_replica)
        self._generation = self._queue.generation
        if found != self.said:
            self.said = found
            tell = log.info if found.is_durable and not found.dangers else log.warning
            tell("durability", worker=self._identity.id, durability=str(found.level), loses=found.loses, dangers=list(found.dangers))
