"""One API over Redis and over the in-memory twin, with the accounts m1 and m2."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sendengine.ports import Desk
from sendengine.queue.desk import RedisDesk
from tests.api.bench import Api, memory_desk, served


@pytest.fixture(params=["memory", "redis"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    made: Desk = memory_desk() if request.param == "memory" else RedisDesk(request.getfixturevalue("redis_url"))
    yield made
    await made.close()


@pytest.fixture
async def api(desk: Desk) -> AsyncIterator[Api]:
    async with served(desk) as made:
        for account in ("m1", "m2"):
            await made.client.create_account(account, "60k")
        yield made
