"""The process: it says where it listens, ends by signals with status 0, and leaves nobody waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import aiohttp
import orjson
import pytest
from aiohttp import web

from sendengine.client import Client
from sendengine.queue.desk import RedisDesk
from sendengine.render.message import Message
from tests.api.process import ROOT, api_process

LETTER = Message(sender="news@shop.example", subject="x", text="{{ name }}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0_and_its_streams_with_it(redis_url: str, number: signal.Signals) -> None:
    desk = RedisDesk(redis_url)
    async with Client(desk=desk) as client:
        await client.create_account("m1", "60k")
        key = (await client.create_key("m1", scopes=["read", "send"], seat="Ann")).key
        await client.open(account="m1", message=LETTER, campaign="c")
        with api_process(redis_url) as process:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
                async with http.get(process.url + "/readyz") as ready:
                    assert ready.status == 200
                async with http.get(process.url + "/v1/sends/m1:c/events") as events:
                    await events.content.readuntil(b"\n\n")
                    process.popen.send_signal(number)
                    rest = await events.content.read()
            assert b"the process leaves" in rest
            process.popen.wait(30)
            assert process.popen.returncode == 0
    await desk.close()


def test_an_address_that_cannot_be_had_is_refused(redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "sendengine", "api", "--port", port], cwd=ROOT, capture_output=True, text=True, check=False,
            env={"SENDENGINE_REDIS_URL": redis_url, "PATH": ""},
        )  # fmt: skip
    assert (done.returncode, f"cannot listen on 127.0.0.1:{port}" in done.stderr) == (2, True)


async def test_a_worker_tells_webhooks_where_it_is_told_to(redis_url: str) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        got.put_nowait(await request.read())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    own = {name: value for name, value in os.environ.items() if not name.startswith("SENDENGINE_")}
    environ = own | {"SENDENGINE_REDIS_URL": redis_url, "SENDENGINE_WORKERS_TELL": "true", "SENDENGINE_API_PRIVATE_WEBHOOKS": "true"}
    worker = subprocess.Popen([sys.executable, "-m", "workers.send"], cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - it outlives no test
    desk = RedisDesk(redis_url)
    try:
        async with Client(desk=desk) as client:
            await client.create_account("m1", "60k")
            hook = await client.create_hook("m1", url, ["bounce"], may_be_private=True)
            await client.try_hook("m1", hook.id)
            assert orjson.loads(await asyncio.wait_for(got.get(), 30))["type"] == "test"
    finally:
        worker.terminate()
        worker.wait(30)
        await desk.close()
        await runner.cleanup()
    assert worker.returncode == 0
