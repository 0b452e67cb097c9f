"""What may be lost of that which Redis acknowledged, from its settings: a table. The engine never claims more than its Redis gives."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """Weakest first."""

    NONE = "none"
    UNKNOWN = "unknown"
    EVERYSEC = "everysec"
    REPLICATED = "replicated"
    ALWAYS = "always"


class Persistence(msgspec.Struct, frozen=True):
    """A server's settings as far as it tells them: None is what it does not."""

    appendonly: bool | None = None
    appendfsync: str | None = None
    save: str | None = None
    policy: str | None = None  # what goes when memory is full
    replicas: int | None = None  # connected now
    min_replicas: int | None = None  # without so many it takes no writes


class Durability(msgspec.Struct, frozen=True):
    level: Level
    loses: str  # in an operator's words
    dangers: tuple[str, ...]
    remedy: str  # what makes it durable; empty where it is

    @property
    def is_durable(self) -> bool:
        """An acknowledged write stands: on the disk or at a replica, and nothing throws it away."""
        return not self.remedy


LOSES = {
    Level.ALWAYS: "nothing that was acknowledged, as long as the disk keeps what it said it has",
    Level.REPLICATED: "nothing that was acknowledged, unless the master and the replica that has it are lost at once",
    Level.EVERYSEC: "a crash of the server's machine may take its last second or two: recipients accepted then are gone, messages sent then"
    " may go again",
    Level.UNKNOWN: "the server does not tell how it persists: take it that a crash may lose what it acknowledged",
}
LEFT_TO_THE_SYSTEM = "a crash of the server's machine may take what was not written to disk yet, half a minute or so of it"
SNAPSHOTS = "a restart of the server goes back to its last snapshot: recipients accepted later are gone, messages sent later may go again"
NOTHING_KEPT = "a restart of the server loses everything: accounts, sends and outcomes"

MORE_DURABLE = 'set appendonly yes and appendfsync always at the server, or durability = "replicated" here where a replica follows it'
NO_EVICTION = "set maxmemory-policy noeviction at the server"


def durability(found: Persistence, waits: bool) -> Durability:
    """Of one server. `waits`: what is acknowledged was acknowledged by a replica before (the key `durability`)."""
    level = _level(found, waits)
    remedies = []
    if level not in (Level.ALWAYS, Level.REPLICATED):
        remedies.append(MORE_DURABLE)
    if found.policy != "noeviction":
        remedies.append(NO_EVICTION)
    return Durability(level, LOSES.get(level) or _none(found), tuple(_dangers(found, waits)), "; ".join(remedies))


def weakest(each: Sequence[Persistence], waits: bool) -> Durability:
    """Of several masters (a cluster): that of the weakest, with every danger. None at all is unknown."""
    all_ = [durability(found, waits) for found in each or (Persistence(),)]
    worst = min(all_, key=lambda one: list(Level).index(one.level))
    dangers = dict.fromkeys(danger for one in all_ for danger in one.dangers)
    remedies = dict.fromkeys(remedy for one in all_ for remedy in one.remedy.split("; ") if remedy)
    return Durability(worst.level, worst.loses, tuple(dangers), "; ".join(remedies))


def _level(found: Persistence, waits: bool) -> Level:
    if waits:
        return Level.REPLICATED
    if found.appendonly is None or (found.appendonly and found.appendfsync is None):
        return Level.UNKNOWN
    if found.appendonly and found.appendfsync in ("always", "everysec"):
        return Level(found.appendfsync)
    return Level.NONE


def _none(found: Persistence) -> str:
    if found.appendonly:
        return LEFT_TO_THE_SYSTEM
    return NOTHING_KEPT if found.save == "" else SNAPSHOTS


def _dangers(found: Persistence, waits: bool) -> list[str]:
    dangers = []
    if found.policy is None:
        dangers.append("maxmemory-policy is unknown: anything but noeviction throws queued recipients away when memory is full")
    elif found.policy != "noeviction":
        dangers.append(f"maxmemory-policy {found.policy} throws queued recipients away when memory is full")
    if waits and not found.replicas:
        dangers.append("no replica is connected: nothing is accepted and nothing is sent until one is")
    if not waits and found.replicas:
        dangers.append('a failover may lose what its replica had not received yet: durability = "replicated" waits for it')
    if found.min_replicas and found.replicas is not None and found.replicas < found.min_replicas:
        dangers.append(f"{found.replicas} of the {found.min_replicas} replicas are connected without which the server takes no writes")
    return dangers
