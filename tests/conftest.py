"""What every test may ask for: a short-lived state directory, and a real server that is empty for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from sendengine.compiled import form
from sendengine.queue import embedded
from tests import chance, forms

chance.load_profile()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Machine code lets nobody replace its methods: those tests run in a session of their own (scripts/test)."""
    if form() == "compiled":
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(pytest.mark.skip("replaces what is compiled here: SENDENGINE_COMPILED=0 pytest -m interpreted"))


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty directory with a path short enough for a socket; a server left in it is stopped."""
    yield from _state_dir()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One ephemeral server for the whole run."""
    for path in _state_dir():
        yield embedded.ensure(path, ephemeral=True)


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """That server, emptied."""
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()
        redis.script_flush()
        redis.function_flush()
    return valkey_url


@pytest.fixture(scope="session")
def _cluster() -> Iterator[forms.Cluster]:
    """One of three masters for the whole run."""
    with forms.cluster() as made:
        yield made


@pytest.fixture
def cluster(_cluster: forms.Cluster) -> forms.Cluster:
    """That one, emptied."""
    _cluster.empty()
    return _cluster


def _state_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="se-"))
    try:
        yield path
    finally:
        embedded.stop(path)
        shutil.rmtree(path)
