"""Real workers that sign, a real Redis, a sink on loopback: what it took is verified by dkimpy."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.launch import EXIT_REFUSED
from sendengine.policy.signing import ED25519, RSA, KeyEntry
from sendengine.render.message import Message
from sendengine.trial.ledger import unstuffed
from sendengine.trial.session import Transaction
from sendengine.trial.sink import Sink, SinkOptions
from tests.verifying import SEED, published, rsa_pem, tags, verdicts

ROOT = Path(__file__).parent.parent.parent
DOMAIN = "example.com"
LETTER = Message(
    sender="Shop <news@example.com>", subject="Ahoj {{ name }}", text=".dots\n\n{{ name }}\n.\n", html="<p>{{ name }}  ž </p>\n\n",
    list_unsubscribe="https://example.com/u?{{ email }}",
)  # fmt: skip
KEYS = published(**{f"ed._domainkey.{DOMAIN}": SEED, f"rsa._domainkey.{DOMAIN}": rsa_pem("one")})


class Keeping(Sink):
    """Keeps the messages."""

    def __init__(self, options: SinkOptions) -> None:
        super().__init__(options)
        self.messages: list[bytes] = []

    def took(self, session: int, at: float, transaction: Transaction, message: bytes, *, is_stuffed: bool) -> None:
        super().took(session, at, transaction, message, is_stuffed=is_stuffed)
        self.messages.append(unstuffed(message) if is_stuffed else bytes(message))


async def burst(url: str, port: int, keys: str = "", processes: int = 1) -> int:
    """A worker until nothing is due; its exit status."""
    environ = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SENDENGINE_REDIS_URL": url, "SENDENGINE_RELAY": f"smtp://127.0.0.1:{port}",
        "SENDENGINE_DKIM_KEYS": keys,
    }  # fmt: skip
    command = (sys.executable, "-m", "sendengine", "worker", "--burst", "-p", str(processes))
    process = await asyncio.create_subprocess_exec(*command, env=environ, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


async def submit(client: Client, n: int, tier: str = "unmetered") -> None:
    await client.create_account("m1", tier)
    rows = [{"email": f"reader{i}@example.net", "name": f"Jiří  {i}. " if i % 3 else "Jan"} for i in range(n)]
    await client.submit(account="m1", message=LETTER, recipients=rows, campaign="c")


@pytest.mark.parametrize("is_chunking", [False, True])
async def test_unmetered_send_signed_by_keys_in_files(is_chunking: bool, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / DOMAIN).mkdir()
    (tmp_path / DOMAIN / "ed.key").write_text(SEED)
    (tmp_path / DOMAIN / "rsa.pem").write_text(rsa_pem("one"))
    sink = Keeping(SinkOptions(port=0, chunking=is_chunking))
    await sink.start()
    async with Client(redis_url, config=Config()) as client:
        await submit(client, 600)
        assert await burst(redis_url, sink.port, str(tmp_path)) == 0
        assert (await client.status("m1:c")).sent == 600
    assert len(sink.messages) == 600
    for message in sink.messages:
        assert [tags(message, at)["a"] for at in (0, 1)] == [ED25519, RSA]
        assert verdicts(message, KEYS) == [True, True]
    await sink.close()


async def test_metered_send_signed_from_its_first_message_by_a_key_in_redis(redis_url: str) -> None:
    sink = Keeping(SinkOptions(port=0))
    await sink.start()
    async with Client(redis_url, config=Config()) as client:
        await client.desk.keep_key(KeyEntry(DOMAIN, "rsa", RSA, rsa_pem("one"), ""))
        await submit(client, 200, "720000")
        assert await burst(redis_url, sink.port, processes=2) == 0
    assert [verdicts(message, KEYS) for message in sink.messages] == [[True]] * 200
    await sink.close()


async def test_worker_does_not_start_with_a_file_that_is_no_key(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / DOMAIN).mkdir()
    (tmp_path / DOMAIN / "ed.key").write_text("nothing")
    assert await burst(redis_url, 1, str(tmp_path)) == EXIT_REFUSED
