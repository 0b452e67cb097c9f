"""The client and the commands: what cannot be sent, shown or stored is refused before anything is changed."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sendengine import cli
from sendengine.client import RECIPIENTS_MOST, Client
from sendengine.config import Config
from sendengine.errors import RefusedInput, SendEngineError
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.render.message import Message
from sendengine.types import Relay
from tests.attack.corpus import LINE_ENDS, PAYLOADS

MESSAGE = Message(sender="Shop <news@shop.example>", subject="Hi {{ name }}", text="Hello {{ name }}\n")
ROWS = [{"email": "ana@example.com", "name": "Ana"}]
SURROGATE = "\ud800"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    desk = MemoryDesk(MemoryStore(), lambda: time.time() * 1e6)
    async with Client(desk=desk, config=Config()) as made:
        await made.create_account("m1", "60k", relay=Relay("relay.example"))
        yield made


async def sends(client: Client) -> list[str]:
    return [each.campaign async for each in client.list("m1")]


@pytest.mark.parametrize(
    "more",
    [
        {"priority": SURROGATE}, {"priority": "a\r\nb"}, {"created_by": SURROGATE}, {"created_by": "a\0"},
        {"campaign": "a\r\nb"}, {"campaign": SURROGATE},
        {"sender": "a@example.com>\r\nRCPT TO:<evil@attacker.example"}, {"at": "+" + "9" * 400 + "w"},
        {"at": float("inf")}, {"at": float("nan")},
        {"at": 1e18}, {"at": "9999-12-31T23:59:59-12:00"}, {"window": "Mon 09:00-17:00 ../../etc/passwd"},
        {"window": SURROGATE}, {"on_doubt": "x\n"},
        {"account": "m1\n"}, {"account": "m1}{m2"},
    ],
    ids=repr,
)  # fmt: skip
async def test_submit_refuses_and_changes_nothing(client: Client, more: dict[str, Any]) -> None:
    with pytest.raises(SendEngineError):
        await client.submit(**({"account": "m1", "message": MESSAGE, "recipients": ROWS, "campaign": "c1"} | more))
    assert await sends(client) == []
    assert (await client.submit(account="m1", message=MESSAGE, recipients=ROWS, campaign="c1")).accepted == 1


@pytest.mark.parametrize(
    "fields",
    [*({"name": f"x{end}Bcc: evil@attacker.example"} for end in LINE_ENDS), {"name": SURROGATE}, {"name": object()}, {"name": b"x"},
     {"name": ["x"]}, {"name": 10**5000}, {"name": "x" * (65 << 20)}, {"name": None}, {}],
    ids=range(len(LINE_ENDS) + 8),
)  # fmt: skip
async def test_a_single_message_that_would_bounce_is_refused(client: Client, fields: dict[str, Any]) -> None:
    with pytest.raises(RefusedInput):
        await client.send(account="m1", message=MESSAGE, to="ana@example.com", fields=fields)
    assert await sends(client) == []


async def test_a_single_message_goes_to_one_address(client: Client) -> None:
    for payload in PAYLOADS:
        try:
            sent = await client.send(account="m1", message=MESSAGE, to=f"ana@example.com{payload}", fields={"name": "Ana"})
        except SendEngineError:
            continue
        assert sent.recipient.startswith("ana@example.com")
        assert sent.recipient.count("@") == 1


RELAYS = [Relay("a b"), Relay("a\r\nb"), Relay("a", user="x\ny", password="p"), Relay("a", user="x", password="p\0"), Relay("")]


@pytest.mark.parametrize("relay", RELAYS)
async def test_a_relay_that_cannot_be_named_is_refused(client: Client, relay: Relay) -> None:
    with pytest.raises(RefusedInput):
        await client.create_account("m2", "60k", relay=relay)
    with pytest.raises(RefusedInput):
        await client.set_relay("m1", relay)
    assert (await client.account("m1")).relay == "relay.example:25"


async def test_estimates_stay_inside_the_calendar(client: Client) -> None:
    await client.create_account("m2", "1")
    found = await client.estimate("m2", RECIPIENTS_MOST)
    assert found.finish_estimate is not None
    assert found.finish_estimate.year == 9999
    for count in (-1, RECIPIENTS_MOST + 1, 10**400):
        with pytest.raises(RefusedInput):
            await client.estimate("m2", count)
    for moment in (float("inf"), float("nan"), -1.0, "+9999999999w"):
        with pytest.raises(RefusedInput):
            await client.estimate("m2", 1, finish_by=moment)


@pytest.mark.parametrize("recipients", ["9" * 5000, "9" * 13, "٣" * 10])
def test_a_number_that_no_list_has_is_refused_by_the_command(
    recipients: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str], redis_url: str
) -> None:
    """Digits of another script are a file's name, as ever."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENDENGINE_REDIS_URL", redis_url)
    for args in (["account", "create", "m1", "--tier", "60k"], ["estimate", "--account", "m1", "--recipients", recipients]):
        monkeypatch.setattr(sys, "argv", ["sendengine", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
