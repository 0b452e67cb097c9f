"""One bench for the contract of the queue: the same tests run against Redis, against a Cluster and against the in-memory twin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from queue_bench import Bench, memory_bench, redis_bench


@pytest.fixture(params=["memory", "redis", "cluster"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        bench = memory_bench()
    elif request.param == "redis":
        bench = redis_bench(request.getfixturevalue("redis_url"))
    else:
        bench = redis_bench(request.getfixturevalue("cluster").url)
    yield bench
    await bench.close()
