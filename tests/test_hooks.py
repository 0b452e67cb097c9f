"""Webhooks out: what is told, once or again, to whom; twelve tries over 25 hours on a clock of our own; a real receiver on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

import orjson
import pytest
from aiohttp import web

from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Conflict, NotFound, RefusedInput, Unavailable
from sendengine.policy.hooks import EVENTS, WAITS
from sendengine.ports import Posted
from sendengine.posting import HttpPoster
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.scheduler import hooks
from sendengine.scheduler.hooks import NewHook, Teller
from sendengine.types import Outcome
from tests.test_client import MESSAGE, Bench, bench  # noqa: F401 - a fixture

URL = "https://hooks.example.com/x"


class Receiver:
    """The Poster port as a receiver that we are (the twin of posting.HttpPoster): answers what it is told to."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, Mapping[str, str], bytes]] = []
        self.heard = asyncio.Event()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        await asyncio.sleep(0)
        self.got.append((url, headers, body))
        self.heard.set()
        return Posted(self.answers.pop(0) if self.answers else 200)

    @property
    def events(self) -> list[Any]:
        return [orjson.loads(body) for _, _, body in self.got]

    def of(self, event: str) -> list[Any]:
        return [each["data"] for each in self.events if each["type"] == event]


class World:
    """A bench whose looks happen when we say."""

    def __init__(self, bench: Bench) -> None:  # noqa: F811
        self.bench, self.receiver, self.results = bench, Receiver(), list[str]()
        self.teller = Teller(bench.desk, self.receiver, self.results.append)

    async def subscribe(self, *events: str, account: str = "m1") -> NewHook:
        return await self.bench.client.create_hook(account, URL, events or EVENTS, seat="Ann")

    async def turn(self, account: str = "m1") -> None:
        """A look now, whatever its time; and what it finds is told."""
        for _ in range(2):
            await self.bench.desk.outbox.need(account, 0.0)
            await self.teller.turn()


@pytest.fixture
async def world(bench: Bench) -> World:  # noqa: F811
    return World(bench)


def people(count: int) -> list[dict[str, str]]:
    return [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in range(count)]


async def test_the_end_of_a_send_and_its_bounces_are_told_once(world: World) -> None:
    made = await world.subscribe()
    await world.bench.submit(people(250))
    await world.turn()
    assert world.receiver.got == []
    await world.bench.send_all(but=Outcome.BOUNCED)
    for _ in range(3):
        await world.turn()
    [finished] = world.receiver.of("send.finished")
    assert (finished["campaign"], finished["state"], finished["sent"], finished["bounced"]) == ("m1:summer", "finished", 247, 3)
    bounced = [each["recipient"] for data in world.receiver.of("bounce") for each in data["recipients"]]
    assert sorted(bounced) == ["p0@example.org", "p100@example.org", "p200@example.org"]
    assert world.receiver.of("bounce")[0]["recipients"][0]["reply"] == "250 2.0.0 taken"
    url, headers, body = world.receiver.got[0]
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    own = b64encode(hmac.new(b64decode(made.secret.removeprefix("whsec_")), said, hashlib.sha256).digest()).decode()
    assert (url, headers["webhook-signature"]) == (URL, "v1," + own)
    assert orjson.loads(body)["id"] == headers["webhook-id"]


async def test_a_send_that_begins_and_ends_between_two_looks_is_told(world: World) -> None:
    await world.subscribe("send.finished")
    for name in ("a", "b"):
        await world.bench.submit(people(3), campaign=name)
    await world.bench.send_all()
    await world.turn()
    await world.turn()
    assert sorted(each["campaign"] for each in world.receiver.of("send.finished")) == ["m1:a", "m1:b"]


async def test_what_ended_before_the_first_subscription_is_told_to_nobody(world: World) -> None:
    await world.bench.submit(people(100), campaign="old")
    await world.bench.send_all(but=Outcome.BOUNCED)
    await world.bench.submit(people(100), campaign="open")
    await world.subscribe()
    await world.turn()
    assert [each for each in world.receiver.of("send.finished") if each["campaign"] == "m1:open"] == []
    await world.bench.client.cancel("m1:open")
    await world.turn()
    assert [each["campaign"] for each in world.receiver.of("send.finished") if each["campaign"] == "m1:open"] == ["m1:open"]


LATER = URL + "/later"


def told_to(world: World, url: str, event: str) -> list[Any]:
    return [orjson.loads(body)["data"] for to, _, body in world.receiver.got if to == url and orjson.loads(body)["type"] == event]


async def test_who_subscribes_between_two_looks_is_told_of_nothing_from_before(world: World) -> None:
    client = world.bench.client
    await client.grant_credits("m1", 500, key="k")
    await world.subscribe()
    await world.turn()
    await spend(world, 450)
    await client.set_tier("m1", "100k")
    await client.hold("m1", "content")
    await client.hold("m1", "unpaid-fee")
    await client.release("m1", "content")
    await client.create_hook("m1", LATER, EVENTS)
    await client.set_tier("m1", "60k")
    await client.release("m1", "unpaid-fee")
    for _ in range(2):
        await world.turn()
    assert [(each["before"], each["tier"]) for each in told_to(world, URL, "tier.changed")] == [("60k", "100k"), ("100k", "60k")]
    assert [(each["before"], each["tier"]) for each in told_to(world, LATER, "tier.changed")] == [("100k", "60k")]
    assert [each["holds"] for each in told_to(world, URL, "hold")] == [["content"], ["content", "unpaid-fee"], ["unpaid-fee"], []]
    assert [each["holds"] for each in told_to(world, LATER, "hold")] == [[]]
    assert [len(told_to(world, url, "credit.low")) for url in (URL, LATER)] == [1, 0]


async def spend(world: World, amount: int) -> None:
    """Of the 500 credits that there are; what is left expires last."""
    each = (await world.bench.client.sms_cost("m1", "Hi", [{"phone": "+420601123456"}])).credits
    phones = [{"phone": f"+4206011{n:05}"} for n in range(int(amount / each))]
    await world.bench.client.submit_sms(account="m1", sender="Shop", text="Hi", recipients=phones)


async def another_millisecond(world: World) -> None:
    """Settlements are dated by it."""
    began = await world.bench.desk.now_us()
    while await world.bench.desk.now_us() < began + 1000:  # noqa: ASYNC110 - what passes is a clock
        await asyncio.sleep(0)


async def test_bounces_and_ends_from_before_a_subscription_are_not_told_to_it(world: World) -> None:
    await world.subscribe()
    await world.turn()
    await world.bench.submit(people(100), campaign="early")
    await world.bench.send_all(but=Outcome.BOUNCED)
    await another_millisecond(world)
    await world.bench.client.create_hook("m1", LATER, EVENTS)
    await world.bench.submit(people(100), campaign="late")
    await world.bench.send_all(but=Outcome.BOUNCED)
    for _ in range(3):
        await world.turn()
    for url, names in ((URL, ["m1:early", "m1:late"]), (LATER, ["m1:late"])):
        assert sorted(each["campaign"] for each in told_to(world, url, "send.finished")) == names
        assert sorted(each["campaign"] for each in told_to(world, url, "bounce")) == names


async def test_a_subscription_made_just_behind_the_reading_of_them_misses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, outbox = world.bench.client, world.bench.desk.outbox
    await world.subscribe()
    await world.turn()
    read = outbox.hooks

    async def hooks_of(name: str) -> list[bytes]:
        monkeypatch.setattr(outbox, "hooks", read)
        found = await read(name)
        await client.create_hook("m1", LATER, ["tier.changed"])
        await client.set_tier("m1", "100k")
        return found

    monkeypatch.setattr(outbox, "hooks", hooks_of)
    await hooks.look(world.bench.desk, "m1")
    for _ in range(2):
        await world.turn()
    assert [len(told_to(world, url, "tier.changed")) for url in (URL, LATER)] == [1, 1]


async def test_a_look_that_began_before_a_subscription_takes_nothing_from_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, desk = world.bench.client, world.bench.desk
    await world.subscribe()
    await world.turn()
    read = desk.account

    async def account(name: str) -> Mapping[str, str]:
        monkeypatch.setattr(desk, "account", read)
        await client.create_hook("m1", LATER, ["tier.changed"])
        await client.set_tier("m1", "100k")
        return await read(name)

    monkeypatch.setattr(desk, "account", account)
    await hooks.look(desk, "m1")
    for _ in range(2):
        await world.turn()
    assert [len(told_to(world, url, "tier.changed")) for url in (URL, LATER)] == [1, 1]


async def lines() -> AsyncIterator[bytes]:
    yield b"email,name\na@example.org,A\n"


async def test_a_send_whose_last_outcome_is_older_than_a_subscription_and_whose_end_is_not_is_told(world: World) -> None:
    client = world.bench.client
    await world.subscribe()
    made = await client.open(account="m1", message=MESSAGE, campaign="open")
    await client.load(made.id, lines())
    await world.bench.send_all()
    await world.turn()
    await client.create_hook("m1", LATER, ["send.finished"])
    await client.seal(made.id)
    await world.turn()
    assert [each["campaign"] for each in told_to(world, LATER, "send.finished")] == ["m1:open"]


async def test_a_send_that_has_just_ended_is_not_told_to_the_first_subscription(world: World) -> None:
    await world.bench.submit(people(100))
    await world.bench.send_all(but=Outcome.BOUNCED)
    await another_millisecond(world)
    await world.subscribe()
    for _ in range(2):
        await world.turn()
    assert world.receiver.got == []


async def test_only_what_is_wanted_is_told_and_only_to_its_account(world: World) -> None:
    await world.bench.client.create_account("m2", "60k")
    mine = await world.subscribe("tier.changed")
    await world.subscribe("send.finished", account="m2")
    await world.turn()
    await world.bench.client.set_tier("m1", "100k")
    await world.turn("m2")
    await world.turn()
    assert [(each["type"], each["account"]) for each in world.receiver.events] == [("tier.changed", "m1")]
    assert world.receiver.of("tier.changed") == [{"tier": "100k", "before": "60k", "rate": 100_000.0}]
    await world.bench.client.remove_hook("m1", mine.id)
    await world.bench.client.set_tier("m1", "60k")
    await world.turn()
    assert len(world.receiver.got) == 1


async def test_a_hold_and_its_end_are_told(world: World) -> None:
    await world.subscribe("hold")
    await world.turn()
    hold, release = world.bench.client.hold, world.bench.client.release
    for verb, reason in ((hold, "content"), (hold, "unpaid-fee"), (release, "content")):
        await verb("m1", reason)
        await world.turn()
    told = [(each["placed"], each["released"], each["holds"]) for each in world.receiver.of("hold")]
    assert told == [
        (["content"], [], ["content"]), (["unpaid-fee"], [], ["content", "unpaid-fee"]), ([], ["content"], ["unpaid-fee"]),
    ]  # fmt: skip


async def test_a_hold_that_ends_before_anybody_looks_is_told_with_its_times(world: World) -> None:
    client, desk = world.bench.client, world.bench.desk
    await client.hold("m1", "unpaid-fee")
    await world.subscribe("hold")
    await world.turn()
    times = []
    for verb in (client.hold, client.release):
        before = await desk.now_us()
        await verb("m1", "content")
        times.append((before, await desk.now_us()))
    for _ in range(2):
        await world.turn()
    told = [(each["placed"], each["released"], each["holds"]) for each in world.receiver.of("hold")]
    assert told == [(["content"], [], ["content", "unpaid-fee"]), ([], ["content"], ["unpaid-fee"])]
    at = [datetime.fromisoformat(each["at"]).timestamp() * 1e6 for each in world.receiver.events]
    assert all(first - 1 <= each <= last + 1 for each, (first, last) in zip(at, times, strict=True))


async def test_so_many_holds_that_not_all_are_noted_end_as_they_stand(world: World) -> None:
    client = world.bench.client
    await world.subscribe("hold")
    await world.turn()
    for _ in range(100):
        await client.hold("m1", "content")
        await client.release("m1", "content")
    await client.hold("m1", "unpaid-fee")
    for _ in range(5):
        await world.turn()
    told = world.receiver.of("hold")
    assert (len(told) > 100, told[-1]["holds"]) == (True, ["unpaid-fee"])


async def test_credits_that_are_frozen_are_not_low(world: World) -> None:
    client, desk = world.bench.client, world.bench.desk
    await client.grant_credits("m1", 500, key="k")
    await world.bench.client.create_hook("m1", URL, ["credit.low"], credit_below=100)
    await world.turn()
    await desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{await desk.now_us() - 1:.0f}", "grace": "10", "purge_after": "30"})
    await world.turn()
    assert ((await client.credits("m1")).free, (await client.credits("m1")).frozen) == (0, 500)
    assert world.receiver.of("credit.low") == []
    await client.set_term("m1", "renew", ends="+30d")
    await world.turn()
    assert world.receiver.got == []


async def test_two_processes_that_look_at_once_tell_once(world: World) -> None:
    await world.subscribe()
    await world.turn()
    await world.bench.client.set_tier("m1", "100k")
    await asyncio.gather(*(hooks.look(world.bench.desk, "m1") for _ in range(8)))
    assert await world.bench.desk.outbox.waiting("m1") == 1


async def test_something_that_no_state_tells_is_queued_before_its_caller_is_answered(world: World) -> None:
    one, _ = await world.subscribe("complaint"), await world.subscribe("bounce")
    counts = await asyncio.gather(*(hooks.emit(world.bench.desk, "m1", "complaint", {"n": n}) for n in range(5)))
    assert counts == [1] * 5
    await world.bench.client.try_hook("m1", one.id)
    await world.turn()
    assert sorted(each["n"] for each in world.receiver.of("complaint")) == list(range(5))
    assert world.receiver.of("test") == [{"hook": one.id}]


async def test_a_subscription_that_cannot_be(world: World) -> None:
    for url, events in (("http://hooks.example/x", ["bounce"]), (URL, ["all"]), (URL, []), ("https://10.0.0.1/", ["bounce"])):
        with pytest.raises(RefusedInput):
            await world.bench.client.create_hook("m1", url, events)
    with pytest.raises(NotFound):
        await world.bench.client.create_hook("m9", URL, ["bounce"])
    with pytest.raises(NotFound):
        await world.bench.client.remove_hook("m1", "none")
    for _ in range(hooks.HOOKS_MOST):
        await world.subscribe()
    with pytest.raises(Conflict):
        await world.subscribe()


async def test_who_changed_subscriptions_is_told_though_the_answer_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, outbox, away = world.bench.client, world.bench.desk.outbox, Unavailable("no replica has it")
    keep = outbox.keep_hook

    async def unheard(*args: Any, **rest: Any) -> bool:
        await keep(*args, **rest)
        raise away

    made = await client.create_hook("m1", URL, ["bounce"], seat="Ann", who="ann")
    for attempt in (
        lambda: client.create_hook("m1", URL + "2", ["bounce"], who="ben"),
        lambda: client.rotate_hook("m1", made.id, who="eve"),
        lambda: client.remove_hook("m1", made.id, who="joe"),
    ):
        with monkeypatch.context() as lost:
            lost.setattr(outbox, "keep_hook", unheard)
            with pytest.raises(Unavailable):
                await attempt()
    with pytest.raises(NotFound):
        await client.remove_hook("m1", made.id, who="joe")
    [other] = await client.hooks("m1")
    told = [(each.what, each.who, each.facts) async for each in client.audit("m1")][1:]
    assert told == [
        ("webhook.create", "ann", {"webhook": made.id, "url": URL}), ("webhook.create", "ben", {"webhook": other.id, "url": URL + "2"}),
        ("webhook.rotate", "eve", {"webhook": made.id}), ("webhook.remove", "joe", {"webhook": made.id}),
    ]  # fmt: skip


async def test_another_secret_signs_beside_the_old_one(world: World) -> None:
    made = await world.subscribe()
    again = await world.bench.client.rotate_hook("m1", made.id)
    assert again.secret != made.secret
    await world.bench.client.try_hook("m1", made.id)
    await world.turn()
    assert len(world.receiver.got[0][1]["webhook-signature"].split()) == 2


async def test_while_too_many_are_on_their_way_nothing_is_looked_for_and_nothing_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "WAITING_MOST", 1)
    await world.subscribe()
    await world.turn()
    world.receiver.answers = [500]
    await world.bench.client.set_tier("m1", "100k")
    await world.turn()
    assert await world.bench.desk.outbox.waiting("m1") == 1
    await world.bench.submit(people(3))
    await world.bench.send_all()
    await world.turn()
    assert world.receiver.of("send.finished") == []
    [stuck] = await world.bench.desk.outbox.due("m1", 1e18, 10)
    await world.bench.desk.outbox.told("m1", stuck.id)
    await world.turn()
    assert len(world.receiver.of("send.finished")) == 1


# on a clock of our own


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def timed() -> AsyncIterator[tuple[Client, Clock, Receiver, Teller, list[str]]]:
    clock, receiver, results = Clock(), Receiver(), list[str]()
    desk = MemoryDesk(MemoryStore(), clock)
    async with Client(desk=desk, config=Config()) as client:
        await client.create_account("m1", "60k")
        await client.create_hook("m1", URL, ["tier.changed"])
        teller = Teller(desk, receiver, results.append)
        await teller.turn()
        yield client, clock, receiver, teller, results


async def test_twelve_tries_over_25_hours_then_it_is_given_up(timed: Any) -> None:
    client, clock, receiver, teller, results = timed
    receiver.answers = [500, 0, 404, 301, 503] + [500] * 20
    await client.set_tier("m1", "100k")
    started, tried = clock.now + hooks.IDLE_S * 1e6, []
    while clock.now < started + 30 * 3600e6:
        due = min(client.desk._all.hook_index.values())
        clock.now = max(clock.now, due)
        before = len(receiver.got)
        await teller.turn()
        tried += [(clock.now - started) / 1e6] * (len(receiver.got) - before)
    expected = [sum(WAITS[:n]) for n in range(12)]
    assert tried == pytest.approx(expected)
    assert (expected[-1], results) == (25 * 3600, ["again"] * 11 + ["given up"])
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in receiver.got}) == 12
    assert len({body for _, _, body in receiver.got}) == 1
    assert await client.desk.outbox.waiting("m1") == 0


async def test_a_receiver_that_comes_back_is_told_at_the_next_try(timed: Any) -> None:
    client, clock, receiver, teller, results = timed
    receiver.answers = [500, 500]
    await client.set_tier("m1", "100k")
    for seconds in (30, 60, 240, 3600, 3600):
        clock.now += seconds * 1e6
        await teller.turn()
    assert results == ["again", "again", "taken"]


async def test_a_teller_that_dies_between_the_answer_and_the_note_tells_again(timed: Any) -> None:
    """At least once: the receiver tells the two apart by the id."""
    client, clock, receiver, teller, results = timed

    class Dying:
        async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
            await receiver.post(url, headers, body)
            raise RuntimeError

    await client.set_tier("m1", "100k")
    clock.now += 30e6
    with pytest.raises(RuntimeError):
        await Teller(client.desk, Dying(), results.append)._serve((await client.desk.outbox.claim(1, 120.0))[0])
    clock.now += 60e6
    assert await teller.turn() == 0  # it is another one's for a while
    clock.now += 61e6
    assert await teller.turn() == 1
    assert results == ["taken"]
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert (len(ids), len(set(ids))) == (2, 1)


class Slow(Receiver):
    """Never answers `slow`."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        if "slow" in url:
            await asyncio.Event().wait()
        return await super().post(url, headers, body)


async def test_a_receiver_that_does_not_answer_holds_up_no_other_account(timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, clock, *_ = timed
    await client.create_account("m2", "60k")
    await client.create_hook("m2", "https://slow.example/", ["tier.changed"])
    receiver, results = Slow(), list[str]()
    monkeypatch.setattr(hooks, "TURN_S", 0.01)
    running = asyncio.create_task(Teller(client.desk, receiver, results.append).run())
    for tier in ("100k", "60k"):
        for account in ("m1", "m2"):
            await client.set_tier(account, tier)
        clock.now += 31e6
        await asyncio.wait_for(receiver.heard.wait(), 5)
        receiver.heard.clear()
    assert len(receiver.got) == 2
    assert {url for url, _, _ in receiver.got} == {URL}
    running.cancel()


async def test_redis_away_is_waited_out(timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, clock, receiver, teller, _ = timed
    monkeypatch.setattr(hooks, "TURN_S", 0.01)
    await client.set_tier("m1", "100k")
    clock.now += 31e6
    client.desk._all.is_away, asked, claim = True, asyncio.Event(), client.desk.outbox.claim

    async def asking(limit: int, seconds: float) -> list[str]:
        asked.set()
        return list(await claim(limit, seconds))

    monkeypatch.setattr(client.desk.outbox, "claim", asking)
    running = asyncio.create_task(teller.run())
    for _ in range(2):
        await asyncio.wait_for(asked.wait(), 5)
        asked.clear()
    client.desk._all.is_away = False
    await asyncio.wait_for(receiver.heard.wait(), 5)
    running.cancel()


# over real sockets


@pytest.fixture
async def loopback() -> AsyncIterator[tuple[str, list[tuple[Mapping[str, str], bytes]], list[int]]]:
    got: list[tuple[Mapping[str, str], bytes]] = []
    answers: list[int] = []

    async def take(request: web.Request) -> web.Response:
        got.append((request.headers, await request.read()))
        status = answers.pop(0) if answers else 204
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status, text="no" * 1000, headers={"Location": "/elsewhere"} if status == 302 else None)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}/x", got, answers
    await runner.cleanup()


async def test_posts_reach_a_receiver_and_whatever_it_does_is_a_value(loopback: Any) -> None:
    url, got, answers = loopback
    answers += [204, 302, 500, 0]
    async with HttpPoster(may_be_private=True) as poster:
        posted = [await poster.post(url, {"webhook-id": str(n)}, b'{"n":1}') for n in range(4)]
        nowhere = await poster.post("http://127.0.0.1:1/", {}, b"")
    assert [(each.status, each.is_taken) for each in posted[:3]] == [(204, True), (302, False), (500, False)]
    assert len(posted[2].detail) <= 200
    assert (posted[3].status, bool(posted[3].detail), nowhere.status) == (0, True, 0)
    assert [headers["webhook-id"] for headers, _ in got][:3] == ["0", "1", "2"]  # the redirect was not followed
    assert got[0][1] == b'{"n":1}'


async def test_a_receiver_that_never_answers_is_given_up(loopback: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with HttpPoster(may_be_private=True, seconds=0.2) as poster:
        posted = await poster.post(f"http://127.0.0.1:{port}/", {}, b"x")
    server.close()
    assert (posted.status, "no answer" in posted.detail) == (0, True)


async def test_what_is_not_public_is_not_connected_to(loopback: Any) -> None:
    url, got, _ = loopback
    port = url.split(":")[2].split("/")[0]
    async with HttpPoster() as poster:
        for private in (url, f"https://127.0.0.1:{port}/", f"https://localhost:{port}/"):
            posted = await poster.post(private, {}, b"x")
            assert posted.status == 0
            assert "public" in posted.detail or "https" in posted.detail
    assert got == []


async def test_an_event_goes_all_the_way(world: World, loopback: Any) -> None:
    url, got, answers = loopback
    answers.append(500)
    await world.bench.client.create_hook("m1", url, ["send.finished"], may_be_private=True)
    await world.bench.submit(people(3))
    await world.bench.send_all()
    async with HttpPoster(may_be_private=True) as poster:
        teller = Teller(world.bench.desk, poster, world.results.append)
        for _ in range(2):
            await world.bench.desk.outbox.need("m1", 0.0)
            await teller.turn()
    assert world.results == ["again"]
    assert orjson.loads(got[0][1])["data"]["sent"] == 3
    [waiting] = await world.bench.desk.outbox.due("m1", 1e18, 10)
    assert waiting.due_us == pytest.approx(time.time() * 1e6 + 60e6, abs=10e6)


async def test_no_test_is_told_where_too_much_is_on_its_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that is not there keeps each for 25 hours, and a key may ask a hundred times a second."""
    monkeypatch.setattr(hooks, "WAITING_MOST", 3)
    one = await world.subscribe("hold")
    for _ in range(3):
        await world.bench.client.try_hook("m1", one.id)
    with pytest.raises(Conflict, match="on their way"):
        await world.bench.client.try_hook("m1", one.id)
    assert await world.bench.desk.outbox.waiting("m1") == 3


def parts(names: list[str]) -> list[list[str]]:
    return [names[at : at + 100] for at in range(0, len(names), 100)]


def recipients(told: list[Any]) -> list[list[str]]:
    return sorted((each["recipients"] for each in told), key=lambda some: int(some[0][1:].partition("@")[0]) if some else 10**9)


async def test_all_complaints_of_one_call_are_told_by_name_in_parts(world: World) -> None:
    """A receiver that unsubscribes people by them needs each."""
    await world.subscribe("complaint")
    names = [f"p{n}@example.org" for n in range(1234)]
    await world.bench.client.suppress("m1", names, "complained")
    assert await world.bench.desk.outbox.waiting("m1") == 13
    await world.turn()
    told = world.receiver.of("complaint")
    assert (recipients(told), sum(each["count"] for each in told)) == (parts(names), 1234)
    await world.bench.client.suppress("m1", [], "complained")
    assert await world.bench.desk.outbox.waiting("m1") == 0


async def test_complaints_of_one_call_beyond_what_waits_are_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several subscriptions an event is several deliveries, and one script queues a part of them."""
    monkeypatch.setattr(hooks, "WAITING_MOST", 10)
    monkeypatch.setattr(hooks, "QUEUED_TOGETHER", 4)
    for _ in range(2):
        await world.subscribe("complaint")
    names = [f"p{n}@example.org" for n in range(1234)]
    await world.bench.client.suppress("m1", names, "complained")
    await world.bench.client.suppress("m1", names[:7], "complained")
    assert await world.bench.desk.outbox.waiting("m1") == 10
    await world.turn()
    told = world.receiver.of("complaint")
    assert recipients(told) == [*sorted(parts(names)[:5] * 2), [], []]
    assert [each["count"] for each in told if not each["recipients"]] == [734 + 7] * 2


async def test_large_calls_at_once_stay_within_what_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "WAITING_MOST", 10)
    monkeypatch.setattr(hooks, "QUEUED_TOGETHER", 3)
    await world.subscribe("complaint")
    names = [f"p{n}@example.org" for n in range(800)]
    await asyncio.gather(*(world.bench.client.suppress("m1", names, "complained") for _ in range(3)))
    assert await world.bench.desk.outbox.waiting("m1") == 10
    for _ in range(2):
        await world.turn()
    assert sum(each["count"] for each in world.receiver.of("complaint")) == 2400


async def test_an_import_of_complaints_is_no_complaint(world: World) -> None:
    await world.subscribe("complaint")
    await world.bench.client.import_suppressed("m1", [{"email": f"p{n}@example.org"} for n in range(200)], "complained")
    await world.turn()
    assert world.receiver.events == []


async def test_complaints_beyond_what_waits_are_counted_and_told_as_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "WAITING_MOST", 3)
    await world.subscribe("complaint")
    one_by_one = [world.bench.client.suppress("m1", [f"p{n}@example.org"], "complained") for n in range(12)]
    await asyncio.gather(*one_by_one)
    assert await world.bench.desk.outbox.waiting("m1") == 3
    await world.turn()
    told = world.receiver.of("complaint")
    assert [len(each["recipients"]) for each in told] == [1, 1, 1, 0]
    assert [each["count"] for each in told] == [1, 1, 1, 9]
    await world.turn()
    assert len(world.receiver.of("complaint")) == 4
