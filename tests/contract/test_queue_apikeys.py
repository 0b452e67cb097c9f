"""API keys in the shared state: kept once, counted by seats, changed by compare-and-set, gone for good."""

from __future__ import annotations

import asyncio

import msgspec
from queue_bench import Bench

from sendengine.policy.apikeys import OPERATOR, ApiKey, Scope, digest_of
from sendengine.queue.desk import RedisDesk
from sendengine.queue.keys import API_KEYS


def key(name: str, account: str = "m1", seat: str = "Ann", made_us: float = 1.8e15) -> ApiKey:
    return ApiKey(digest_of(name), account, (Scope.READ, Scope.SEND), seat, made_us)


async def test_a_key_is_found_by_its_hash_and_by_its_owner(bench: Bench) -> None:
    one, other, admin = key("one"), key("other", "m2", made_us=1.7e15), key("root", "")
    for each in (one, other, admin):
        assert await bench.desk.keep_api_key(each, None) == "done"
    assert await bench.desk.keep_api_key(one, 0) == "same"
    assert await bench.desk.api_key(one.digest) == one
    assert await bench.desk.api_key(digest_of("none")) is None
    assert await bench.desk.api_keys("m1") == [one]
    assert await bench.desk.api_keys(OPERATOR) == [admin]
    assert await bench.desk.api_keys("m3") == []
    assert {each.digest for each in await bench.desk.api_keys()} == {one.digest, other.digest, admin.digest}
    assert (await bench.desk.api_keys())[0] == other


async def test_an_owner_has_as_many_seats_as_it_may_and_each_any_number_of_keys(bench: Bench) -> None:
    assert await bench.desk.keep_api_key(key("a"), 2) == "done"
    assert await bench.desk.keep_api_key(key("b", seat="Bob"), 2) == "done"
    assert await bench.desk.keep_api_key(key("c", seat="Cid"), 2) == "seats"
    assert await bench.desk.keep_api_key(key("a2"), 2) == "done"
    assert await bench.desk.keep_api_key(key("x", "m2", seat="Cid"), 1) == "done"
    assert await bench.desk.drop_api_keys("m1", [digest_of("b")]) == 1
    assert await bench.desk.keep_api_key(key("c", seat="Cid"), 2) == "done"
    assert {each.seat for each in await bench.desk.api_keys("m1")} == {"Ann", "Cid"}


async def test_those_who_ask_for_the_last_seat_at_once_get_it_once(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.desk.keep_api_key(key(f"k{n}", seat=f"s{n}"), 3) for n in range(20)))
    assert sorted(answers) == ["done"] * 3 + ["seats"] * 17


async def test_a_dropped_key_does_not_come_back_with_its_last_use(bench: Bench) -> None:
    one = key("one")
    assert await bench.desk.keep_api_key(one, None) == "done"
    used = msgspec.structs.replace(one, used_us=1.9e15)
    assert await bench.desk.change_api_key(one, used)
    assert not await bench.desk.change_api_key(one, used)
    assert await bench.desk.api_key(one.digest) == used
    assert await bench.desk.drop_api_keys("m2", [one.digest]) == 0
    assert await bench.desk.drop_api_keys(OPERATOR, [one.digest]) == 0
    assert await bench.desk.drop_api_keys("m1", [one.digest, one.digest, digest_of("none")]) == 1
    assert not await bench.desk.change_api_key(used, one)
    assert await bench.desk.api_key(one.digest) is None
    assert await bench.desk.api_keys() == []


async def test_a_value_that_nobody_can_read_opens_nothing_and_hides_no_other(bench: Bench) -> None:
    one = key("one")
    assert await bench.desk.keep_api_key(one, None) == "done"
    if isinstance(bench.desk, RedisDesk):
        await bench.desk._link.call("HSET", API_KEYS, digest_of("bad"), b"{")
    assert await bench.desk.api_key(digest_of("bad")) is None
    assert await bench.desk.api_keys() == [one]
