"""What the API does not take: too much, too deep, too fast, too slow, and what is no HTTP. It answers, and goes on."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack

import aiohttp
import msgspec
import pytest

from sendengine import errors, remedies
from sendengine.api import problems, reading, server
from sendengine.api.app import OPERATIONS
from sendengine.api.limits import Bucket, Quota
from sendengine.api.problems import Problem, problem_of
from sendengine.config import ApiConfig
from sendengine.errors import SendEngineError
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.remedies import field, resume, said
from tests.api.bench import LIMITS, MESSAGE, Api, memory_desk, served, until

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def small() -> AsyncIterator[Api]:
    async with served(memory_desk(), msgspec.structs.replace(LIMITS, max_body_mib=1, uploads=4, streams=4, idle_s=0.2)) as made:
        await made.client.create_account("m1", "60k")
        yield made


async def test_a_body_over_the_limit_is_refused_however_it_comes(small: Api) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    key = await small.key("m1")
    announced = await small("POST", "/v1/sends", key, data=b" " * (1 << 21), headers=JSON)
    streamed = await small("POST", "/v1/sends", key, data=chunked(), headers=JSON)
    assert (announced.status, streamed.status) == (413, 413)
    assert announced.remedy == streamed.remedy
    assert (await small("GET", "/v1/accounts/m1", key)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"recipients":[{"email":"a@x.org","name":' + b"[" * 20 + b"]" * 20 + b"}]}", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"recipients":[{"email":"a@x.org","name":' + b'{"a":' * 5000 + b"1" + b"}" * 5001 + b"]}",
    ],
)  # fmt: skip
async def test_values_deep_within_each_other_are_refused(small: Api, body: bytes) -> None:
    answer = await small("POST", "/v1/sends", await small.key("m1"), data=body, headers=JSON)
    assert answer.status == 400
    assert answer.remedy


def test_depth_is_counted_without_recursion() -> None:
    value: object = 1
    for _ in range(100_000):
        value = [value]
    assert not reading.is_flat(value, 16)
    assert reading.is_flat([[[1]]], 3)
    assert not reading.is_flat([[[1]]], 2)
    assert reading.is_flat({"a": [1] * 1000}, 2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/html"}, 415), (JSON | {"Content-Encoding": "gzip"}, 415), (JSON, 400),
        ({"Content-Type": "application/json; charset=utf-8"}, 400),
    ],
)  # fmt: skip
async def test_bodies_of_other_kinds(small: Api, headers: dict[str, str], status: int) -> None:
    assert (await small("POST", "/v1/sends", await small.key("m1"), data=b"\x1f\x8b\xff", headers=headers)).status == status


async def test_a_key_asks_so_often_and_others_are_not_held_up() -> None:
    async with served(memory_desk(), ApiConfig(requests_per_s=5.0)) as api:
        await api.client.create_account("m1", "60k")
        eager, calm = await api.key("m1"), await api.key("m1", seat="Bob")
        answers = [await api("GET", "/v1/accounts/m1", eager) for _ in range(20)]
        refused = [answer for answer in answers if answer.status == 429]
        assert len(refused) >= 8
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].remedy
        assert (await api("GET", "/v1/accounts/m1", calm)).status == 200


def test_a_bucket_fills_at_its_rate_and_holds_two_seconds_of_it() -> None:
    bucket = Bucket(10.0, 100.0)
    assert [bucket.take(100.0) for _ in range(21)] == [0.0] * 20 + [pytest.approx(0.1)]
    assert [bucket.take(100.55) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert not bucket.is_full(101.0)
    assert bucket.is_full(103.0)
    assert [bucket.take(1000.0) > 0 for _ in range(21)] == [False] * 20 + [True]
    slow = Bucket(0.1, 0.0)
    assert (slow.take(0.0), slow.take(0.0)) == (0.0, pytest.approx(10.0))


def test_one_holder_gets_a_quarter_and_all_get_what_there_is() -> None:
    quota = Quota("uploads", 8)
    with quota.one("a"), quota.one("a"):
        with pytest.raises(Problem) as own, quota.one("a"):
            pass
        with ExitStack() as others:
            for holder in "bbccdd":
                others.enter_context(quota.one(holder))
            with pytest.raises(Problem) as all_, quota.one("e"):
                pass
    assert (own.value.kind.status, all_.value.kind.status, quota.held) == (429, 503, 0)


async def test_an_upload_that_stands_still_is_broken_off_and_leaves_its_place(small: Api) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"email,name\na@x.org,A\n"
        await asyncio.sleep(30)

    key = await small.key("m1")
    await small("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c"})
    first = asyncio.create_task(small("POST", "/v1/sends/c/recipients", key, data=stuck()))
    await until(lambda: small.services.door.uploads.held)
    assert (await small("POST", "/v1/sends/c/recipients", key, data=b"email,name\na@x.org,A\n")).status == 429
    answer = await asyncio.gather(first, return_exceptions=True)
    assert isinstance(answer[0], Exception) or answer[0].status == 408
    assert small.services.door.uploads.held == 0
    assert (await small("POST", "/v1/sends/c/recipients", key, data=b"email,name\na@x.org,A\n")).status == 200


async def test_a_reader_that_goes_away_leaves_its_place(small: Api) -> None:
    key = await small.key("m1")
    await small("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c"})
    for _ in range(6):  # a key has one stream here
        async with small.http.get(f"{small.url}/v1/sends/c/events", headers={"Authorization": f"Bearer {key}"}) as response:
            assert response.status == 200
            await response.content.readuntil(b"\n\n")
        await until(lambda: small.services.door.streams.held == 0)


async def raw(api: Api, octets: bytes) -> bytes:
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(octets)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"POST /v1/sends HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/sends HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /v1/sends HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_is_answered_and_the_connection_closed(small: Api, octets: bytes, status: int) -> None:
    said = await raw(small, octets)
    assert int(said.split(b" ")[1]) in (status, 400)
    if status == 431:
        assert b"431" in said.split(b"\r\n")[0]
    assert b"application/problem+json" in said
    assert b'"remedy"' in said
    assert (await small("GET", "/healthz")).status == 200


async def test_who_asks_before_it_sends_is_refused_before_it_has_sent(small: Api) -> None:
    head = b"POST /v1/sends/c/recipients HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n"
    said = await raw(small, head + b"\r\n")
    assert said.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in said.lower()
    key = await small.key("m1")
    await small("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c"})
    body = b"email,name\na@x.org,A\n"
    asked = head.replace(b"1000000000", str(len(body)).encode()) + f"Authorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()
    said = await raw(small, asked + body)
    assert said.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in said


async def test_a_head_that_does_not_come_is_not_waited_for(small: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.05)
    assert await raw(small, b"GET /healthz HTTP/1.1\r\nHo") == b""
    assert await raw(small, b"") == b""
    answered = await raw(small, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HT")
    assert answered.startswith(b"HTTP/1.1 200")
    assert answered.count(b"HTTP/1.1") == 1


async def test_paths_that_are_none(small: Api) -> None:
    key = await small.key("m1")
    for path in ("/", "/v1", "/v1/", "/v1/sends/", "/v1/sends/a/b/c", "/v1/accounts/m1/%2e%2e/m2", "/%00", "/v1/sends/%2F"):
        answer = await small("GET", path, key)
        assert answer.status in (400, 404), path
        assert answer.remedy
    wrong = await small("PATCH", "/v1/sends", key)
    assert (wrong.status, set(wrong.headers["Allow"].split(", "))) == (405, {"GET", "POST"})
    assert (await small("HEAD", "/v1/sends/c/events", key)).status == 405


def classes(of: type[SendEngineError]) -> list[type[SendEngineError]]:
    return [of, *(each for child in of.__subclasses__() for each in classes(child))]


@pytest.mark.parametrize("error", classes(SendEngineError), ids=lambda each: each.__name__)
def test_every_error_has_a_problem_with_a_remedy(error: type[SendEngineError]) -> None:
    made = error.__new__(error)
    Exception.__init__(made, "what happened")
    made.way = said("")
    problem = problem_of(made)
    assert problem.remedy
    exit_codes = {2: (400, 401, 402, 404, 409, 500), 75: (503,), 1: (500,)}
    assert problem.kind.status in exit_codes[error.exit_code]


def test_what_a_body_names_and_is_not_there_names_its_own_field_or_none() -> None:
    found = [problem_of(each, in_path=False) for each in (errors.NoAccount("no account m9"), errors.NotFound("no price table 'x'"))]
    assert [(each.kind.status, each.detail) for each in found] == [(400, "account: no account m9"), (400, "no price table 'x'")]
    in_path = problem_of(errors.NoAccount("no account m9"))
    assert (in_path.kind.status, in_path.detail) == (404, "no account m9")


def test_a_remedy_is_said_in_the_words_of_whoever_asks() -> None:
    refused = errors.RefusedInput("which one?", said(field("finish_by", "TIME"), " names it, or ", resume("m1:c")))
    assert refused.remedy == "--finish-by TIME names it, or sendengine resume m1:c"
    assert problem_of(refused).remedy == "`finish_by` names it, or POST /v1/sends/m1:c/resume"


def test_each_request_that_a_remedy_names_can_be_made() -> None:
    """Every function of the table with plain words for what it asks."""
    known = {(each.method, re.sub(r"\{\w+\}", "*", each.path)) for each in OPERATIONS}
    for name, make in inspect.getmembers(remedies, inspect.isfunction):
        if make.__module__ != remedies.__name__ or name == "said":
            continue
        words = {"account": "m1", "lane": "m1", "send": "m1:c", "reason": "content"}
        asked = [param.name for param in inspect.signature(make).parameters.values() if param.default is param.empty]
        http = make(*(words.get(each, "x") for each in asked)).http
        for method, path in re.findall(r"(GET|POST|PUT|DELETE) (/v1/\S+)", http):
            path = re.sub(r"/(accounts|sends|holds)/[^/]+", r"/\1/*", path)
            assert (method, path) in known, http
        assert "sendengine " not in http
        assert "--" not in http


def test_a_bug_tells_nothing_of_itself() -> None:
    assert b"secret" not in problems.octets(problem_of(ValueError("secret")))
    assert b"secret" not in problems.octets(problem_of(errors.ConfigError("/secret/place")))
    assert b"secret" not in problems.octets(problem_of(errors.Unavailable("Redis is away: no /secret/socket")))


async def test_redis_away_is_503_and_not_ready(small: Api) -> None:
    key = await small.key("m1")
    desk = small.client.desk
    assert isinstance(desk, MemoryDesk)
    desk._all.is_away = True
    answer = await small("GET", "/v1/accounts/m1", key)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert (await small("GET", "/readyz")).status == 503
    assert (await small("GET", "/healthz")).status == 200
    desk._all.is_away = False
    assert (await small("GET", "/readyz")).status == 200


async def test_metrics_are_the_operators_or_opened(small: Api) -> None:
    await small("GET", "/v1/accounts/m1", await small.key("m1"))
    assert (await small("GET", "/metrics")).status == 401
    assert (await small("GET", "/metrics", await small.key("m1"))).status == 403
    text = (await small("GET", "/metrics", await small.key(None, "read"))).body.decode()
    assert 'sendengine_api_requests_total{operation="showAccount",status="200"} 1.0' in text
    assert "m1" not in text
    async with served(memory_desk(), ApiConfig(open_metrics=True)) as open_:
        assert (await open_("GET", "/metrics")).status == 200


async def test_redis_that_goes_away_ends_events_with_a_problem_and_breaks_lines_off(small: Api) -> None:
    key, desk = await small.key("m1"), small.client.desk
    assert isinstance(desk, MemoryDesk)
    await small("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c"})
    head = {"Authorization": f"Bearer {key}"}
    async with small.http.get(f"{small.url}/v1/sends/c/events", headers=head) as response:
        await response.content.readuntil(b"\n\n")
        desk._all.is_away = True
        rest = await response.read()
    assert b"event: problem" in rest
    assert b'"status":503' in rest
    desk._all.is_away = False
    async with small.http.get(f"{small.url}/v1/sends/c/outcomes?follow=true", headers=head) as response:
        assert response.status == 200
        desk._all.is_away = True
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    answer = await small("GET", "/v1/sends", key)
    assert answer.status == 503


async def test_a_stream_that_fails_before_its_first_line_is_a_problem_document(small: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(campaign: str, follow: bool = False) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        raise errors.Conflict("kept no longer", "its counts are")
        yield

    key = await small.key("m1")
    await small("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c"})
    monkeypatch.setattr(small.client, "outcomes", failing)
    answer = await small("GET", "/v1/sends/c/outcomes", key)
    assert (answer.status, answer.remedy) == (409, "its counts are")
    assert small.services.door.streams.held == 0
