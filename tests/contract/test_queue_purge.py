"""The purge of an account: not before its time, everything of it and nothing else, and broken off anywhere it goes on (domain rule 3)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from queue_bench import SETTINGS, Bench, addresses, batches, deferred, doubts, outcomes, rows, settlement
from redis import Redis

from sendengine.errors import Unavailable
from sendengine.policy.apikeys import ApiKey, Scope
from sendengine.policy.term import DAY, purge_line
from sendengine.ports import Part, Queued
from sendengine.queue import keys, purging, scripts
from sendengine.queue.desk import RedisDesk
from sendengine.queue.link import Link
from sendengine.records import TRANSACTIONAL

LINE, OTHERS = purge_line("anna"), purge_line("worker 7")
SMS = "m1/sms"


def named(lane: str, name: str) -> str:
    """An id is unique among the lanes of its account."""
    return "sms-" + name if lane.endswith("/sms") else name


async def full_life(bench: Bench, account: str) -> None:
    """An account with something of everything: sends in each state, rows in each place, single messages, two lanes, holds and notes."""
    for lane in (account, account + "/sms"):
        await bench.account(lane, per_hour=36_000)
        if lane.endswith("/sms"):
            await bench.desk.grant_credits(lane, "order", 1000, 1e15, 4e15, "", "")
        for name in ("sent", "cancelled", "open", "line"):
            extra = {"sequential": "1"} if name == "line" else {}
            await bench.campaign(named(lane, name), 0, sealed=False, account=lane, **extra)
            levels = [at % 3 for at in range(230)]
            await bench.load(named(lane, name), batches(addresses(230), levels), sealed=name != "open", account=lane)
        await bench.desk.create(lane, TRANSACTIONAL, b"d", None, b"", SETTINGS)
        price = (100).to_bytes(4, "little") if lane.endswith("/sms") else b""
        assert (await bench.desk.transact(lane, b"payload", b"message", "key", bytes(8), price)).status == "stored"
        taken = await bench.queue.take(lane, "w1", 400, bench.tokens(), [], [])
        for at, lease in enumerate(taken.leases[:-1]):
            some = rows(lease)
            what = [
                settlement(lease.token, outcomes(some)),
                settlement(lease.token, deferred=deferred(some[:2], 60_000), back=some[2:]),
                settlement(lease.token, doubts=doubts(some)),
            ][at % 3]
            await bench.queue.visit(lane, 0, 0.0, "=", [], [what])
        await bench.desk.cancel(lane, named(lane, "cancelled"))
        await bench.queue.visit(lane, 10, 1e6, "relay|x", [named(lane, "open")], [])
    await bench.desk.note(account, b'{"what":"made"}')
    await bench.desk.set_gate(account, {}, {"hold:content": "{}"}, line=b'{"what":"hold"}')


async def end_term(bench: Bench, account: str = "m1", days_ago: float = 10.001) -> None:
    ends = await bench.desk.now_us() - days_ago * DAY * 1e6
    assert (await bench.desk.set_gate(account, {}, {"term": "active", "term_ends": f"{ends:.0f}"})).status == "done"


@pytest.fixture
async def over(bench: Bench) -> Bench:
    """m1, whose time has come; and m11, its neighbour in name, with the same in it."""
    await bench.queue.register("w1", b"t")
    for account in ("m1", "m11"):
        await full_life(bench, account)
    await end_term(bench)
    return bench


def digest(redis: Redis, account: str) -> str:
    """Of every key of an account, and of its names elsewhere."""
    whole = hashlib.sha256()
    for key in sorted(redis.scan_iter(f"{{{account}}}*")):
        whole.update(key + (redis.dump(key) or b""))
    for lane in (account, account + "/sms"):
        whole.update(str([redis.sismember(keys.ACCOUNTS, lane), redis.zscore(keys.INDEX, lane)]).encode())
        whole.update(str([redis.sismember(keys.holders(named(lane, name)), lane) for name in ("sent", "open")]).encode())
    return whole.hexdigest()


def left(redis: Redis, account: str) -> list[bytes]:
    """Keys that are its own, and those elsewhere that name it."""
    found = list(redis.scan_iter(f"{{{account}}}*"))
    found += [key for key in (keys.ACCOUNTS, keys.PURGING) for lane in (account, account + "/sms") if redis.sismember(key, lane)]
    found += [keys.INDEX for lane in (account, account + "/sms") if redis.zscore(keys.INDEX, lane) is not None]
    return found + [key for key in redis.scan_iter("{x}:id:*") for lane in (account, account + "/sms") if redis.sismember(key, lane)]


async def test_purge_leaves_the_tombstone_and_the_trail(over: Bench) -> None:
    assert await over.desk.purge("m1", LINE) == "done"
    assert await over.desk.account("m1") == {}
    assert await over.desk.account(SMS) == {}
    assert "m1" not in await over.desk.accounts()
    assert await over.desk.holders("sent") == ["m11"]
    assert await over.desk.holders("sms-sent") == ["m11/sms"]
    assert await over.desk.lots(SMS) == await over.desk.ledger(SMS, "", 10) == []
    assert [lot.granted for lot in await over.desk.lots("m11/sms")] == [1000]
    assert await over.desk.gone("m1") is not None
    told = [each.line for each in await over.desk.audit("m1", "", 100)]
    assert told == [b'{"what":"made"}', b'{"what":"hold"}', LINE]
    assert "m1" not in await over.queue.find(100)


async def test_neighbour_keeps_everything(over: Bench) -> None:
    before = [dict(await over.desk.campaign("m11", name)) for name in ("sent", "cancelled", "open", "line")]
    await over.desk.purge("m1", LINE)
    assert [dict(await over.desk.campaign("m11", name)) for name in ("sent", "cancelled", "open", "line")] == before
    assert await over.desk.gone("m11") is None
    assert await over.desk.purge("m11", LINE) == "early"


@pytest.mark.parametrize(
    ("fields", "days_ago"),
    [
        ({}, 9.999), ({"grace": "20"}, 19.999), ({"purge_after": "30"}, 29.999), ({"grace": "0", "purge_after": "0"}, 9.999),
    ],
)  # fmt: skip
async def test_purge_never_starts_early(bench: Bench, fields: dict[str, str], days_ago: float) -> None:
    await bench.account()
    await bench.desk.set_gate("m1", {}, fields | {"x": "y"})
    await end_term(bench, days_ago=days_ago)
    assert await bench.desk.purge("m1", LINE) == "early"
    assert await bench.queue.due_purges() == []
    assert await bench.desk.account("m1")
    await end_term(bench, days_ago=days_ago + 0.002)
    assert await bench.queue.due_purges() == ["m1"]
    assert await bench.desk.purge("m1", LINE) == "done"


async def test_account_without_an_end_is_never_purged(bench: Bench) -> None:
    await bench.account()
    assert await bench.desk.purge("m1", LINE) == "early"
    await bench.desk.set_gate("m1", {}, {"term": "active"})
    assert await bench.desk.purge("m1", LINE) == "early"
    assert await bench.queue.due_purges() == []


async def test_term_that_nobody_can_read_keeps_no_other_purge_waiting(bench: Bench) -> None:
    for account in ("m1", "m2"):
        await bench.account(account)
        await end_term(bench, account)
    await bench.desk.set_gate("m1", {}, {"term": "of a later release"})
    assert await bench.queue.due_purges() == ["m2"]


async def test_purge_again_and_of_nobody(over: Bench) -> None:
    assert await over.desk.purge("m9", LINE) == "missing"
    assert await over.desk.purge("m1", LINE) == "done"
    at = await over.desk.gone("m1")
    assert await over.queue.purge("m1", LINE) == "gone"
    assert await over.desk.gone("m1") == at
    assert len(await over.desk.audit("m1", "", 100)) == 3


async def test_id_of_a_purged_account_is_never_used_again(over: Bench) -> None:
    await over.desk.purge("m1", LINE)
    assert not await over.desk.create_account("m1", {"tier": "t", "rate": "", "iv": "0"})
    assert await over.desk.account("m1") == {}
    assert "m1" not in await over.desk.accounts()


async def test_late_settlement_of_a_purged_account_brings_nothing_back(bench: Bench) -> None:
    await bench.queue.register("w1", b"t")
    await full_life(bench, "m1")
    lease = (await bench.queue.take(SMS, "w1", 100, bench.tokens(), [], [])).leases
    await end_term(bench)
    await bench.desk.purge("m1", LINE)
    for lane in ("m1", SMS):
        late = settlement(b"12345678", back=range(100))
        acted = await bench.queue.visit(lane, 5, 1e6, "relay|x", [named(lane, "open")], [late])
        assert (acted.acted, acted.permits) == ((0,), 0)
        await bench.queue.leave(lane)
        await bench.queue.take(lane, "w1", 100, bench.tokens(), [], [])
        await bench.queue.window(lane, named(lane, "open"), True, None)
        await bench.desk.resume(lane, named(lane, "open"))
        await bench.desk.pause(lane, named(lane, "open"))
        await bench.desk.cancel(lane, named(lane, "open"))
        assert await bench.desk.grant_credits(lane, "more", 1000, 1e15, 4e15, "", "") is None
    assert lease == ()
    assert await bench.desk.account("m1") == {}
    assert await bench.desk.campaign("m1", "open") == {}


async def test_one_worker_at_a_time_looks_for_purges(bench: Bench) -> None:
    assert [await bench.queue.claim("purges", 60.0) for _ in range(2)] == [True, False]


# on Redis, to the key


async def test_no_key_is_left_and_none_of_the_neighbour_is_touched(over: Bench, redis_url: str) -> None:
    if over.clock is not None:
        pytest.skip("the twin has no keys")
    with Redis.from_url(redis_url) as redis:
        if not redis.exists("{m11}"):
            pytest.skip("keys are looked at on one server")
        before = digest(redis, "m11")
        assert left(redis, "m1")
        redis.hset("{m1}:made:by:others", mapping={str(at): "x" for at in range(100)})
        redis.hset(keys.api_keys("m1"), "abc", "seat")
        redis.hset(keys.API_KEYS, mapping={"abc": "{}", "def": "{}"})
        assert await over.desk.purge("m1", LINE) == "done"
        assert left(redis, "m1") == []
        assert redis.hkeys(keys.API_KEYS) == [b"def"]
        assert digest(redis, "m11") == before


class _Stopped(Exception):
    """The process that purges is killed."""


async def test_purge_killed_at_each_step_and_run_again_completes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each command that it sends, and after each one of which it gets no answer; the next run goes on, and completes."""
    from queue_bench import redis_bench

    monkeypatch.setattr(purging, "PAUSE", 0.0)
    bench, link = redis_bench(redis_url), Link(redis_url)
    await bench.queue.register("w1", b"t")
    await full_life(bench, "m11")
    left_to_do = {"calls": 0, "after": False}
    call, commit = link.call, link.commit

    async def counted(real: Any, *args: Any, **named: Any) -> Any:
        left_to_do["calls"] -= 1
        if left_to_do["calls"] < 0 and not left_to_do["after"]:
            raise _Stopped
        answer = await real(*args, **named)
        if left_to_do["calls"] < 0:
            raise _Stopped
        return answer

    monkeypatch.setattr(link, "call", lambda *args: counted(call, *args))
    monkeypatch.setattr(link, "commit", lambda *args, mark=None: counted(commit, *args, mark=mark))
    redis = Redis.from_url(redis_url)
    before, steps, account = digest(redis, "m11"), 0, 100
    for after in (False, True):
        step = 0
        while True:
            account += 1
            name = f"m{account}"
            await bench.account(name)
            await bench.campaign("c", 150, account=name)
            await end_term(bench, name)
            left_to_do.update(calls=step, after=after)
            try:
                await purging.purge(link, name, LINE)
                break
            except _Stopped:
                step += 1
            left_to_do["calls"] = 10**9
            await bench.desk.note(name, b'{"what":"meanwhile"}')
            assert name in await purging.due(link) or await purging.purge(link, name, OTHERS) == "gone"
            assert await purging.purge(link, name, OTHERS) in ("done", "gone")
            assert left(redis, name) == []
            assert redis.hexists(keys.GONE, name)
            lines = [each.line for each in await bench.desk.audit(name, "", 10)]
            assert len([line for line in lines if line in (LINE, OTHERS)]) == 1
        steps += step
    assert steps > 40
    assert digest(redis, "m11") == before
    redis.close()
    await link.close()
    await bench.close()


async def test_purge_that_meets_a_redis_that_goes_away_says_so(over: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    if over.clock is not None:
        pytest.skip("the twin purges at once")
    real = purging._purge_names

    async def away(*_: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(purging, "_purge_names", away)
    with pytest.raises(Unavailable):
        await over.desk.purge("m1", LINE)
    monkeypatch.setattr(purging, "_purge_names", real)
    assert await over.queue.due_purges() == ["m1"]
    assert await over.desk.purge("m1", LINE) == "done"


async def test_keys_and_webhooks_go_with_their_account(bench: Bench) -> None:
    desk = bench.desk
    for account in ("m1", "m11"):
        await bench.account(account)
        assert await desk.keep_api_key(ApiKey(account * 8, account, (Scope.READ,), "Ann", 1.0), None) == "done"
        assert await desk.outbox.keep_hook(account, "h", b"hook")
        assert await desk.outbox.look(account, "0", {"tier": "t"}, [Queued("e.h", 1.0, b"event")])
    await end_term(bench)
    assert await desk.purge("m1", LINE) == "done"
    assert [key.account for key in await desk.api_keys()] == ["m11"]
    assert await desk.api_key("m1" * 8) is None
    assert (await desk.outbox.hooks("m1"), await desk.outbox.seen("m1"), await desk.outbox.waiting("m1")) == ([], {}, 0)
    assert await desk.outbox.claim(10, 60.0) == ["m11"]
    assert not await desk.outbox.keep_hook("m1", "h", b"again")
    assert not await desk.outbox.look("m1", "0", {}, [Queued("e.h", 1.0, b"late")])


@pytest.mark.parametrize("late", ["suppress", "unsuppress", "health", "lane"])
async def test_what_comes_behind_the_scan_of_a_purge_leaves_nothing(redis_url: str, monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    """Between the last key that was found and the account's own hash: it still exists."""
    desk, other = RedisDesk(redis_url), RedisDesk(redis_url)
    await desk.create_account("m1", {"tier": "60k", "rate": "60000", "iv": "60000"})
    ends = await desk.now_us() - 11 * DAY * 1e6
    await desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ends:.0f}"})
    call = desk._link.call

    async def slow(*command: Any) -> Any:
        if command == ("UNLINK", "{m1}"):
            match late:
                case "suppress":
                    assert await other.suppress("m1", {b"a@b.example": b"4\0\0\0\0"}) is None
                case "unsuppress":
                    assert not await other.unsuppress("m1", [b"a@b.example"], part=Part(LINE))
                case "health":
                    await scripts.run(other._link, "health", ("{m1}",), 24)
                case "lane":
                    assert not await other.create_account("m1/sms", {"tier": "60k", "rate": "60000", "iv": "60000"})
        return await call(*command)

    monkeypatch.setattr(desk._link, "call", slow)
    assert await desk.purge("m1", LINE) == "done"
    with Redis.from_url(redis_url) as redis:
        assert [name for name in redis.keys("{m1}*") if not name.endswith(b":mark")] == []
        assert redis.smembers("{x}:accounts") == set()
    await desk.close()
    await other.close()


async def test_no_lane_is_made_of_a_purged_account(over: Bench) -> None:
    assert await over.desk.purge("m1", LINE) == "done"
    assert not await over.desk.create_account("m1/sms", {"tier": "60k", "rate": "60000", "iv": "60000"})
    assert not [name for name in await over.desk.accounts() if name.partition("/")[0] == "m1"]


async def test_line_of_a_purge_that_goes_on_takes_no_number_of_one_that_waits(redis_url: str) -> None:
    """Noted, and its process died before the trail had it; then a purge begins, is broken off, and somebody else notes."""
    desk, link = RedisDesk(redis_url), Link(redis_url)
    await desk.create_account("m1", {"tier": "60k", "rate": "60000", "iv": "60000"})
    ends = await desk.now_us() - 11 * DAY * 1e6
    await desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ends:.0f}"})
    await scripts.run(link, "note", ("{m1}",), b'{"what":"waits"}')
    await link.call("HSET", "{m1}", "purging", "1")
    await link.call("SADD", keys.PURGING, "m1")
    await desk.note("m1", b'{"what":"meanwhile"}')
    assert await desk.purge("m1", LINE) == "done"
    assert [each.line for each in await desk.audit("m1", "", 10)] == [b'{"what":"waits"}', b'{"what":"meanwhile"}', LINE]
    await link.close()
    await desk.close()


async def test_no_key_is_made_of_a_purged_account(over: Bench) -> None:
    """Who makes it looked at the account before the purge."""
    assert await over.desk.purge("m1", LINE) == "done"
    assert await over.desk.keep_api_key(ApiKey("digest", "m1", (Scope.READ,), "Ann", 1.0), None) == "gone"
    assert await over.desk.api_key("digest") is None
