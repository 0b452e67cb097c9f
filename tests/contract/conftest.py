"""One bench for the contract of the queue: the same tests run against Redis and against its in-memory twin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from queue_bench import Bench, memory_bench, redis_bench


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = memory_bench() if request.param == "memory" else redis_bench(request.getfixturevalue("redis_url"))
    yield bench
    await bench.close()
