"""A provider by HTTP: what it is asked, what its answers mean, and that nothing from outside ends a line or a text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from sendengine.channel.http import message_id, request
from sendengine.config import provider
from sendengine.errors import ConfigError
from sendengine.queue.memory import MemoryQueue
from sendengine.types import Provider
from tests.api.bench import served
from tests.sms.shop import NUMBERS, Shop

JSON = (("Content-Type", "application/json"), ("Authorization", "Bearer {password}"))


def http(**options: Any) -> Provider:
    return Provider(name="web", kind="http", refused=(400, 404), throttled=(429,), password="s3 cret", **options)


def test_each_place_is_encoded_for_where_it_stands() -> None:
    asked = request(
        http(url="https://x.example/send?to={to}&t={text}", headers=JSON, body='{"to": "{to}", "text": "{text}", "n": {parts}}'),
        "ACME", "+4670", 'a "b" & c\n{to} €',
    )  # fmt: skip
    assert asked.url == "https://x.example/send?to=%2B4670&t=a%20%22b%22%20%26%20c%0A%7Bto%7D%20%E2%82%AC"
    assert orjson.loads(asked.body) == {"to": "+4670", "text": 'a "b" & c\n{to} €', "n": 1}
    assert asked.headers["Authorization"] == "Bearer s3 cret"


def test_form_is_percent_encoded_and_a_header_keeps_to_its_line() -> None:
    headers = (("content-type", "application/x-www-form-urlencoded"), ("X-Text", "{text}"))
    asked = request(http(url="http://x", headers=headers, body="to={to}&text={text}"), "A&B", "+4670", "a&b=c\r\nEvil: 1")
    assert asked.body == b"to=%2B4670&text=a%26b%3Dc%0D%0AEvil%3A+1"
    assert asked.headers["X-Text"] == "a&b=cEvil: 1"


@pytest.mark.parametrize(
    ("answer", "place", "found"),
    [
        (b'{"messages": [{"id": "abc"}]}', "messages.0.id", ("abc",)),
        (b'{"id": 17}', "id", ("17",)),
        (b'{"id": null}', "id", ()),
        (b'{"id": "a b"}', "id", ()),
        (b'{"id": ["x"]}', "id.zero", ()),
        (b"[]", "0", ()),
        (b"<html>", "id", ()),
        (b'{"id": "x"}', "", ()),
    ],
)
def test_id_is_found_at_its_place_or_nowhere(answer: bytes, place: str, found: tuple[str, ...]) -> None:
    assert message_id(answer, place) == found


Answer = Callable[[str, int], "web.StreamResponse | None"]


@asynccontextmanager
async def web_shop(answer: Answer, **options: Any) -> AsyncIterator[tuple[Shop, list[str]]]:
    """A provider that answers what `answer` says for a number and how often it was asked for it; None: it hangs up."""
    asked: list[str] = []

    async def handle(seen: web.Request) -> web.StreamResponse:
        number = orjson.loads(await seen.read())["to"]
        asked.append(number)
        found = answer(number, asked.count(number))
        if found is None:
            assert seen.transport is not None
            seen.transport.abort()
            await asyncio.sleep(0)
            return web.Response()
        return found

    app = web.Application()
    app.router.add_post("/send", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [address] = runner.addresses
    made = Shop(http(url=f"http://127.0.0.1:{address[1]}/send", headers=JSON, body='{"to": "{to}", "text": "{text}"}', **options))
    try:
        async with made.client:
            yield made, asked
            await made.rest()
    finally:
        await made.rest()
        await runner.cleanup()


def ok(number: str, times: int) -> web.StreamResponse:
    return web.json_response({"id": number[1:]})


async def test_sms_are_carried_and_rejected_ones_are_charged(tmp_path: Path) -> None:
    def answer(number: str, times: int) -> web.StreamResponse:
        return web.Response(status=404) if number in NUMBERS[:30] else ok(number, times)

    async with web_shop(answer, message_id="id") as (it, asked):
        await it.open(1000)
        await it.submit(100)
        it.work()
        status = await it.ended()
        assert (status.sent, status.bounced) == (70, 30)
        assert await it.sums() == {"reserved": 0, "spent": 200, "free": 800}
        assert sorted(asked) == NUMBERS[:100]
        await it.rest()
        assert len(it.store.expected["web"]) == 70


async def test_request_without_an_answer_is_a_doubt(tmp_path: Path) -> None:
    async with web_shop(lambda number, times: None if number == NUMBERS[3] else ok(number, times)) as (it, asked):
        await it.open(1000)
        await it.submit(6, on_doubt="hold")
        it.work()
        status = await it.ended()
        assert (status.sent, status.unknown) == (5, 1)
        assert sorted(asked) == NUMBERS[:6]


async def test_errors_of_the_provider_are_tried_again_and_throttling_costs_no_try(tmp_path: Path) -> None:
    def answer(number: str, times: int) -> web.StreamResponse:
        if times == 1 and number in NUMBERS[:3]:
            return web.Response(status=500 if number == NUMBERS[0] else 429)
        return ok(number, times)

    async with web_shop(answer) as (it, _):
        await it.open(1000)
        await it.submit(6)
        it.work()
        assert (await it.ended()).sent == 6
        assert {each.recipient: each.attempts for each in await it.outcomes()} == {NUMBERS[0]: 2, **dict.fromkeys(NUMBERS[1:6], 1)}


async def test_provider_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    it = Shop(http(url="http://127.0.0.1:1/send", body="x"))
    async with it.client:
        await it.open(1000)
        await it.submit(3)
        it.work()

        async def is_told() -> bool:
            bound = await it.client.why("a")
            return bound is not None and bound.limit == "site"

        await it.until(is_told)
        await it.rest()
        status = await it.client.status("a")
        assert (status.pending, status.bounced, status.unknown) == (3, 0, 0)


async def test_own_rate_of_a_provider_is_kept(tmp_path: Path) -> None:
    times: list[float] = []

    def answer(number: str, n: int) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        return ok(number, n)

    async with web_shop(answer, rate=40.0) as (it, _):
        await it.open(1000)
        await it.submit(100)
        it.work()
        assert (await it.ended()).sent == 100
        assert all(later - earlier >= 0.95 for earlier, later in zip(times, times[41:], strict=False))


@pytest.mark.parametrize("workers", [1, 2])
async def test_own_rate_of_a_provider_is_that_of_all_workers(workers: int, tmp_path: Path) -> None:
    times: list[float] = []

    def answer(number: str, n: int) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        return ok(number, n)

    async with web_shop(answer, rate=30.0) as (it, _):
        for other in range(1, workers):
            await MemoryQueue(it.store, it.now_us).share(it.provider.name, f"other{other}", 60.0)
        await it.open(1000)
        await it.submit(60 // workers)
        it.work()
        assert (await it.ended()).sent == 60 // workers
        assert times[-1] - times[0] >= 0.9  # a second's worth behind another


def test_provider_without_what_its_kind_needs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    smpp = "[a]\nkind='smpp'\nhost='x'\n"
    wrong = [
        ("[a]\nkind='http'\n", "needs `url`"), ("[a]\nkind='smpp'\n", "needs `host`"), ("[a]\nkind='fax'\n", "fax"),
        (smpp + "password_file='/nowhere'\n", "nowhere"), (smpp.replace("[a]", "[b]"), "no provider 'a'"), (smpp + "hots='y'\n", "hots"),
    ]  # fmt: skip
    wrong.append((smpp.replace("[a]", "['a|b']"), "no name of a provider"))
    for text, said in wrong:
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            provider(str(path), "a")
    path.write_text("[a]\nkind='smpp'\nhost='x'\nwindow=7\n")
    assert provider(str(path), "a") == Provider(name="a", kind="smpp", host="x", window=7, refused=(400, 404, 422), throttled=(429, 503))


async def sent(it: Shop, n: int) -> None:
    """So many were taken by the provider, whose receipts are still to come."""
    await it.open(1000)
    await it.submit(n)
    it.work()
    await it.ended()
    await it.rest()


CALLED_BACK = {
    "message_id": "id", "receipt_token": "s3cret", "receipt_list": "results", "receipt_id": "id", "receipt_state": "status.name",
    "receipt_error": "status.code", "receipt_states": (("Delivered", "DELIVRD"), ("Lost", "UNDELIV"), ("Pending", "ENROUTE")),
}  # fmt: skip


def report(number: str, name: str = "Delivered", code: int = 0) -> dict[str, Any]:
    return {"id": number[1:], "status": {"name": name, "code": code}}


async def test_receipts_come_by_call_back_and_find_their_recipients_once() -> None:
    async with web_shop(ok, **CALLED_BACK) as (it, _), served(it.desk, providers={"web": it.provider}) as api:
        await sent(it, 5)
        path, own = "/v1/sms/receipts/web", "s3cret"
        for token in (None, "", "wrong"):
            assert (await api("POST", path, token, json={"results": []})).status == 401
        assert (await api("POST", "/v1/sms/receipts/other", own, json={})).status == 401
        body = {"results": [report(NUMBERS[0]), report(NUMBERS[1], "Lost", 27), report(NUMBERS[2], "Pending"), report("+999"), {"x": 1}]}
        first = await api("POST", path, own, json=body)
        assert (first.status, first.json) == (200, {"taken": 2, "unknown": 1, "ignored": 2})
        again = await api("POST", path + "?token=s3cret", json=body)
        assert (again.status, again.json) == (200, {"taken": 0, "unknown": 3, "ignored": 2})
        status = await it.client.status("a")
        assert (status.delivered, status.undelivered) == (1, 1)
        found = {each.recipient: each.receipt for each in await it.outcomes() if each.receipt is not None}
        assert {name: (each.state, each.error) for name, each in found.items()} == {
            NUMBERS[0]: ("DELIVRD", "0"), NUMBERS[1]: ("UNDELIV", "27"),
        }  # fmt: skip
        assert (await api("POST", path, own, data=b"x" * 300_000, headers={"Content-Type": "application/json"})).status == 413
        assert (await api("POST", path, own, data=b"{", headers={"Content-Type": "application/json"})).status == 400
        text = (await api("GET", "/metrics", await api.key(None))).body.decode()
        assert 'sendengine_sms_receipts_total{provider="web",result="delivered"} 1.0' in text


async def test_a_receipt_that_comes_before_its_id_is_asked_about_again() -> None:
    async with web_shop(ok, **CALLED_BACK) as (it, _), served(it.desk, providers={"web": it.provider}) as api:
        early = await api("POST", "/v1/sms/receipts/web", "s3cret", json={"results": [report(NUMBERS[0])]})
        assert early.json == {"taken": 0, "unknown": 1, "ignored": 0}
        await sent(it, 1)
        found, given_up = await api.services.early.ask(it.desk, "web", 0.0)
        assert (len(found), given_up, len(api.services.early)) == (1, [], 0)
        assert (await it.client.status("a")).delivered == 1
        assert await api.services.early.ask(it.desk, "web", 0.0) == ([], [])


async def test_a_form_is_a_receipt_too() -> None:
    options = {"message_id": "id", "receipt_token": "s3cret", "receipt_id": "sid", "receipt_state": "state"}
    async with web_shop(ok, **options) as (it, _), served(it.desk, providers={"web": it.provider}) as api:
        await sent(it, 1)
        taken = await api("POST", "/v1/sms/receipts/web", "s3cret", data={"sid": NUMBERS[0][1:], "state": "delivered"})
        assert (taken.status, taken.json["taken"]) == (200, 1)
        assert (await it.client.status("a")).delivered == 1
