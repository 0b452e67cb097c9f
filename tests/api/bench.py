"""The API as a client meets it: a real server on a free port of this loop, over a Desk; and keys for whoever asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
from prometheus_client import CollectorRegistry

from sendengine.api.call import Services
from sendengine.api.server import Server, address_of, bound, server_of
from sendengine.client import Client
from sendengine.config import ApiConfig, Config
from sendengine.ports import Desk
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.remedies import Tongue
from sendengine.sink.metrics_api import ApiMeter
from sendengine.types import Provider

MESSAGE = {"from": "Shop <news@shop.example>", "subject": "Hi {{ name }}", "text": "Hello {{ name }}"}
LIMITS = ApiConfig(requests_per_s=100_000.0)


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.body.splitlines()]

    @property
    def remedy(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        said = self.json
        assert set(said) == {"type", "title", "status", "detail", "remedy"}
        assert (said["status"], bool(said["detail"]), bool(said["title"])) == (self.status, True, True)
        return str(said["remedy"])


class Api:
    """Owner of the server. `calls` counts what was asked of the desk."""

    def __init__(self, client: Client, services: Services, server: Server, url: str, http: aiohttp.ClientSession) -> None:
        self.client, self.services, self.server, self.url, self.http = client, services, server, url, http

    async def key(self, account: str | None, *scopes: str, seat: str = "Ann") -> str:
        return (await self.client.create_key(account, scopes=scopes or ("read", "send", "admin"), seat=seat)).key

    async def __call__(self, method: str, path: str, key: str | None = None, *, json: Any = None, **more: Any) -> Answer:
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        async with self.http.request(method, self.url + path, json=json, headers=headers, **more) as response:
            if response.content_type == "text/event-stream":  # goes on until its send ends
                return Answer(response.status, response.headers, await response.content.readuntil(b"\n\n"))
            return Answer(response.status, response.headers, await response.read())


@asynccontextmanager
async def served(
    desk: Desk, limits: ApiConfig = LIMITS, config: Config | None = None, providers: Mapping[str, Provider] | None = None
) -> AsyncIterator[Api]:
    config = config or Config(api=limits)
    async with Client(desk=desk, config=config, tongue=Tongue.REQUESTS) as client:
        services = Services(client, limits, ApiMeter(CollectorRegistry()), providers=providers)
        server = server_of(services, config)
        with bound("127.0.0.1", 0) as own:
            task = asyncio.create_task(server.serve(sockets=[own]))
            async with aiohttp.ClientSession() as http:
                await until(lambda: server.started or task.done())
                yield Api(client, services, server, address_of(own), http)
            await _ended(server, task)


async def _ended(server: Server, task: asyncio.Task[None]) -> None:
    """At once: a stop that waits for its clients is the matter of test_process."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for each in server.servers:
        each.close()
    await server.lifespan.shutdown()


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


def memory_desk() -> MemoryDesk:
    return MemoryDesk(MemoryStore(), lambda: time.time() * 1e6)
