"""The table: what a server's settings promise, what they may lose, and what is demanded."""

from __future__ import annotations

import pytest

from sendengine.policy import durability as policy
from sendengine.policy.durability import Level, Persistence, durability, weakest

FULL = {"policy": "noeviction", "save": "", "replicas": 0, "min_replicas": 0}


@pytest.mark.parametrize(
    ("settings", "waits", "level", "loses", "is_durable"),
    [
        ({"appendonly": True, "appendfsync": "always"}, False, Level.ALWAYS, "nothing that was acknowledged", True),
        ({"appendonly": True, "appendfsync": "everysec"}, False, Level.EVERYSEC, "last second", False),
        ({"appendonly": True, "appendfsync": "no"}, False, Level.NONE, "half a minute", False),
        ({"appendonly": False, "appendfsync": "always"}, False, Level.NONE, "loses everything", False),
        ({"appendonly": False, "save": "3600 1"}, False, Level.NONE, "last snapshot", False),
        ({"appendonly": False, "save": None}, False, Level.NONE, "last snapshot", False),
        ({"appendonly": True, "appendfsync": None}, False, Level.UNKNOWN, "does not tell", False),
        ({"appendonly": None}, False, Level.UNKNOWN, "does not tell", False),
        ({"appendonly": True, "appendfsync": "everysec", "replicas": 1}, True, Level.REPLICATED, "unless the master and the replica", True),
        ({"appendonly": False, "replicas": 2}, True, Level.REPLICATED, "unless the master and the replica", True),
        ({"appendonly": True, "appendfsync": "always", "replicas": 1}, True, Level.REPLICATED, "unless", True),
    ],
)
def test_settings_promise(settings: dict[str, object], waits: bool, level: Level, loses: str, is_durable: bool) -> None:
    found = durability(Persistence(**{**FULL, **settings}), waits)  # type: ignore[arg-type]
    assert found.level is level
    assert loses in found.loses
    assert found.is_durable is is_durable
    assert bool(found.remedy) is not is_durable


@pytest.mark.parametrize(
    ("settings", "waits", "danger", "is_durable"),
    [
        ({"policy": "allkeys-lru"}, False, "maxmemory-policy allkeys-lru throws", False),
        ({"policy": "volatile-ttl"}, False, "maxmemory-policy volatile-ttl throws", False),
        ({"policy": None}, False, "maxmemory-policy is unknown", False),
        ({"replicas": 1}, False, "failover may lose", True),
        ({"replicas": 0}, True, "nothing is accepted", True),
        ({"replicas": None}, True, "nothing is accepted", True),
        ({"replicas": 1, "min_replicas": 2}, True, "1 of the 2 replicas", True),
    ],
)
def test_dangers_are_named(settings: dict[str, object], waits: bool, danger: str, is_durable: bool) -> None:
    found = durability(Persistence(**{**FULL, "appendonly": True, "appendfsync": "always", **settings}), waits)  # type: ignore[arg-type]
    assert [danger in each for each in found.dangers] == [True]
    assert found.is_durable is is_durable


def test_no_danger_is_named_where_there_is_none() -> None:
    assert durability(Persistence(True, "always", "", "noeviction", 0, 0), False).dangers == ()


def test_a_cluster_is_as_durable_as_its_weakest_master() -> None:
    good, weak = Persistence(True, "always", "", "noeviction", 0, 0), Persistence(True, "everysec", "", "allkeys-lru", 0, 0)
    found = weakest([good, weak, good], False)
    assert (found.level, len(found.dangers)) == (Level.EVERYSEC, 1)
    assert found.remedy == f"{policy.MORE_DURABLE}; {policy.NO_EVICTION}"
    assert weakest([good, good], False).is_durable
    assert weakest([], False).level is Level.UNKNOWN
