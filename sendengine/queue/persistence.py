"""What a server says of its persistence. Managed ones often forbid CONFIG; INFO tells a part of it."""

from __future__ import annotations

from collections.abc import Mapping

from redis.exceptions import ResponseError

from sendengine.policy.durability import Persistence
from sendengine.queue.link import Caller, Link

ASKED = ("appendonly", "appendfsync", "save", "maxmemory-policy", "min-replicas-to-write")
SECTIONS = ("persistence", "replication", "memory")


async def persistence(link: Caller) -> tuple[Persistence, ...]:
    """Of each master. Raises Unavailable."""
    return tuple([as_told(await _config(master), await _info(master)) for master in await link.masters()])


async def _config(master: Link) -> dict[str, str]:
    try:
        flat = [each.decode() for each in await master.call("CONFIG", "GET", *ASKED)]
    except ResponseError:  # forbidden, renamed, or not there
        return {}
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def _info(master: Link) -> dict[str, str]:
    found: dict[str, str] = {}
    for section in SECTIONS:
        try:
            text = (await master.call("INFO", section)).decode()
        except ResponseError:
            continue
        found |= dict(line.partition(":")[::2] for line in text.splitlines() if ":" in line)
    return found


def as_told(config: Mapping[str, str], info: Mapping[str, str]) -> Persistence:
    """Pure: of CONFIG GET where it answered, else of INFO."""
    appendonly = config.get("appendonly") or {"1": "yes", "0": "no"}.get(info.get("aof_enabled", ""))
    replicas, least = info.get("connected_slaves"), config.get("min-replicas-to-write")
    return Persistence(
        appendonly=None if appendonly is None else appendonly == "yes",
        appendfsync=config.get("appendfsync"),
        save=config.get("save"),
        policy=config.get("maxmemory-policy") or info.get("maxmemory_policy"),
        replicas=None if replicas is None else int(replicas),
        min_replicas=None if least is None else int(least),
    )
