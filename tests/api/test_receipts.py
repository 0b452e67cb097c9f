"""Receipts by call-back: what is let in, and what becomes of those that come before their ids."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from sendengine.api import early as early_module
from sendengine.api import receipts
from sendengine.api.early import EARLY_MOST, KNOWN_AFTER_S, TOGETHER, Early
from sendengine.errors import Unavailable
from sendengine.ports import Desk
from sendengine.records import pack_ref
from sendengine.types import Provider, Receipt
from tests.api.bench import Api, memory_desk, served, until

PATH = "/v1/sms/receipts/p"


class Ids:
    """Of a Desk what receives: it knows some ids, and may be away."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.away = 0
        self.asked: list[int] = []

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        self.asked.append(len(receipts))
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unavailable("Redis is away")
        return [each for each in receipts if each.message_id not in self.known]


def some(count: int, start: int = 0, state: str = "DELIVRD") -> list[Receipt]:
    return [Receipt(f"a{n}", state) for n in range(start, start + count)]


def desk_of(ids: Ids) -> Desk:
    return cast(Desk, ids)


async def test_an_early_receipt_is_found_later_once() -> None:
    early, ids = Early(), Ids()
    assert early.add(0.0, "p", some(3)) == []
    assert await early.ask(desk_of(ids), "p", 2.0) == ([], [])
    ids.known = {"a1"}
    assert await early.ask(desk_of(ids), "p", 4.0) == (some(1, 1), [])
    assert (await early.ask(desk_of(ids), "p", 6.0), len(early)) == (([], []), 2)


async def test_a_hiccup_of_redis_loses_no_early_receipt() -> None:
    early, ids = Early(), Ids()
    early.add(0.0, "p", some(5))
    ids.away, ids.known = 1, {each.message_id for each in some(6)}
    with pytest.raises(Unavailable):
        await early.ask(desk_of(ids), "p", 2.0)
    assert len(early) == 5
    asking = asyncio.create_task(early.ask(desk_of(ids), "p", 4.0))
    await asyncio.sleep(0)
    early.add(4.0, "p", some(1, 5))  # one that comes while the others are asked about
    assert await asking == (some(5), [])
    assert await early.ask(desk_of(ids), "p", 6.0) == (some(1, 5), [])


async def test_a_look_that_is_broken_off_loses_no_early_receipt() -> None:
    early, ids = Early(), Ids()
    early.add(0.0, "p", some(5))
    asking = asyncio.create_task(early.ask(desk_of(ids), "p", 2.0))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert len(early) == 5


async def test_an_early_receipt_is_given_up_after_a_minute_and_a_last_look() -> None:
    early, ids = Early(), Ids()
    early.add(0.0, "p", some(2))
    assert await early.ask(desk_of(ids), "p", KNOWN_AFTER_S - 1) == ([], [])
    ids.known = {"a0"}
    assert await early.ask(desk_of(ids), "p", KNOWN_AFTER_S) == (some(1), some(1, 1))
    assert len(early) == 0


async def test_early_receipts_are_bounded_and_asked_about_in_parts() -> None:
    early, ids = Early(), Ids()
    assert early.add(0.0, "p", some(EARLY_MOST - 10)) == []
    assert early.add(0.0, "q", some(15)) == some(5, 10)
    assert early.add(0.0, "p", some(1)) == some(1)
    looks = EARLY_MOST // TOGETHER
    for _ in range(looks):
        await early.ask(desk_of(ids), "p", 2.0)
    assert max(ids.asked) == TOGETHER
    assert (sum(ids.asked), len(early)) == (looks * TOGETHER, EARLY_MOST)
    assert looks * receipts.AGAIN_S < KNOWN_AFTER_S  # each has its turn


TOLD = Provider(name="p", kind="http", receipt_token="tok")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with served(memory_desk(), providers={"p": TOLD}) as made:
        yield made


async def counts(api: Api) -> dict[str, float]:
    text = (await api("GET", "/metrics", await api.key(None))).body.decode()
    return {name: float(count) for name, count in re.findall(r'sms_receipts_total{provider="p",result="(\w+)"} (\S+)', text)}


async def test_each_early_receipt_is_counted_once_when_it_ends(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "AGAIN_S", 0.0)
    desk = cast(Any, api.client.desk)
    said = [{"id": "a0", "status": "delivered"}, {"id": "a1", "status": "failed"}]
    assert (await api("POST", PATH, "tok", json=said)).json == {"taken": 0, "unknown": 2, "ignored": 0}
    monkeypatch.setattr(early_module, "KNOWN_AFTER_S", 0.0)
    await api("POST", PATH, "tok", json={"id": "none", "status": "delivered"})
    assert await counts(api) == {}
    desk._store.expected["p"] = {"a0": pack_ref("m1/sms", "c", 0, 0), "a1": pack_ref("m1/sms", "c", 0, 1)}
    heard, away = desk.receive, [1]

    async def receive(provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        if away:
            away.pop()
            raise Unavailable("Redis is away")
        return cast(list[Receipt], await heard(provider, receipts))

    monkeypatch.setattr(desk, "receive", receive)
    asking = asyncio.create_task(receipts.ask_again(api.services))
    await until(lambda: not len(api.services.early))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await counts(api) == {"delivered": 1.0, "undelivered": 1.0, "unknown": 1.0}


async def test_what_there_is_no_room_for_is_counted_as_unknown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_module, "EARLY_MOST", 2)
    said = [{"id": f"a{n}", "status": "delivered"} for n in range(5)]
    assert (await api("POST", PATH, "tok", json=said)).json["unknown"] == 5
    assert await counts(api) == {"unknown": 3.0}


async def test_more_than_a_thousand_receipts_are_all_taken(api: Api) -> None:
    store = cast(Any, api.client.desk)._store
    store.expected["p"] = {f"a{n}": pack_ref("m1/sms", "c", 0, n % 100) for n in range(1500)}
    said = [{"id": f"a{n}", "status": "delivered"} for n in range(2500)] + [{}]
    assert (await api("POST", PATH, "tok", json=said)).json == {"taken": 1500, "unknown": 1000, "ignored": 1}
    assert len(api.services.early) == 1000


async def test_a_form_of_too_many_fields_is_refused(api: Api) -> None:
    refused = await api("POST", PATH, "tok", data={f"k{n}": "v" for n in range(1001)})
    assert (refused.status, refused.json["detail"]) == (400, "the form has more than 1,000 fields")
    assert refused.remedy


async def test_parameters_of_the_providers_own_are_let_be(api: Api) -> None:
    taken = await api("POST", PATH + "?x=1&token=tok&x=2", json={})
    assert (taken.status, taken.json["ignored"]) == (200, 1)
    assert (await api("POST", PATH + "?x=1", "tok", json={})).status == 200


@pytest.mark.parametrize("query", ["?x=1", "?token=", "?token=wrong&x=1", ""])
async def test_without_the_token_nothing_else_is_looked_at(api: Api, query: str) -> None:
    for path in (PATH, "/v1/sms/receipts/q"):
        assert (await api("POST", path + query, data=b"{", headers={"Content-Type": "application/json"})).status == 401
