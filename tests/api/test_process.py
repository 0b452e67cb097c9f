"""The process: it says where it listens, ends by signals with status 0, and leaves nobody waiting."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import aiohttp
import pytest

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
