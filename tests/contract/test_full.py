"""Memory is full (maxmemory, noeviction): every script is refused whole or done whole, and what frees memory goes on.

A server refuses a script at its first write, if that is one that may grow, and never after it: so the first write of a script decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from queue_bench import SETTINGS, Bench, addresses, batches, deferred, doubts, outcomes, redis_bench, rows, settlement

from sendengine.errors import Unavailable
from sendengine.policy.grants import Words, encode
from sendengine.ports import Leased, Repair, Run
from sendengine.records import NO_ROWS, seen
from sendengine.types import Outcome
from tests.forms import Server, server

Step = Callable[["Scene"], Awaitable[Any]]


class Scene:
    """A bench with a campaign under way: leases held, a retry, a doubt, rows given back; and a worker's journal with a tick in it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.leases: list[Leased] = []

    async def set(self) -> None:
        bench = self.bench
        await bench.account(per_hour=3600)
        await bench.campaign("c", 450)
        await bench.campaign("line", 5, sequential="1")
        await bench.campaign("open", 0, sealed=False)
        await bench.desk.begin_list("m1", "open", Run("a" * 16))
        await bench.campaign("paused", 5)
        await bench.desk.pause("m1", "paused")
        await bench.desk.create("m1", "transactional", b"t", None, b"", SETTINGS)
        await bench.queue.register("w1", b"token")
        await bench.queue.append("w1", b"token", 0, [], [b"1", b"tick", b"2", b"tick"])
        self.leases = list((await bench.take(1000, tokens=4)).leases)
        back, retried, *_ = self.leases
        held = rows(back)
        await bench.settle(settlement(back.token, deferred=deferred(held[:5], 0), doubts=doubts(held[5:8]), back=held[8:20]))
        await bench.settle(settlement(retried.token, outcomes(rows(retried)[:10])))

    @property
    def lease(self) -> Leased:
        return self.leases[-1]


async def _settle(scene: Scene, **what: Any) -> Any:
    return await scene.bench.settle(settlement(scene.lease.token, **what))


async def _restore(scene: Scene) -> Any:
    last = (await scene.bench.desk.outcomes("m1", "c", "", 1000))[-1].entry
    batch, held = scene.lease.batch, scene.lease.mask
    repair = Repair(last, seen(await scene.bench.fields("c")), {}, {batch: NO_ROWS}, {batch: held}, {batch: held})
    return await scene.bench.desk.restore("m1", "c", repair)


REFUSED: dict[str, Step] = {
    "create": lambda s: s.bench.desk.create("m1", "new", b"d", None, b"message", SETTINGS),
    "submit": lambda s: s.bench.desk.submit("m1", "open", batches(addresses(50))[0]),
    "submit the last": lambda s: s.bench.desk.submit("m1", "open", batches(addresses(50))[0], is_last=True),
    "begin a list": lambda s: s.bench.desk.begin_list("m1", "open", Run("b" * 16)),
    "transact": lambda s: s.bench.desk.transact("m1", b"payload", b"message", "key", bytes(8)),
    "append": lambda s: s.bench.queue.append("w1", b"token", 0, [], [b"3", b"tick"]),
    "append that deletes, too": lambda s: s.bench.queue.append("w1", b"token", 0, [b"1"], [b"3", b"tick"]),
    "register": lambda s: s.bench.queue.register("w2", b"token"),
    "visit": lambda s: s.bench.visit(1, ["c"]),
    "rate": lambda s: s.bench.desk.set_rate("m1", "t", 7200.0),
    "settle an outcome": lambda s: _settle(s, finals=outcomes(rows(s.lease)[:3])),
    "settle a retry": lambda s: _settle(s, deferred=deferred(rows(s.lease)[:3], 1000)),
    "settle a doubt": lambda s: _settle(s, doubts=doubts(rows(s.lease)[:3])),
    "give back": lambda s: _settle(s, back=rows(s.lease)),
    "all at once": lambda s: _settle(
        s, finals=outcomes(rows(s.lease)[:3], Outcome.BOUNCED), deferred=deferred(rows(s.lease)[3:5], 0),
        doubts=doubts(rows(s.lease)[5:6]), back=rows(s.lease)[6:],
    ),
}  # fmt: skip
EITHER: dict[str, Step] = {
    "take": lambda s: s.bench.take(1000),
    "find": lambda s: s.bench.queue.find(10),
    "seal": lambda s: s.bench.desk.seal("m1", "open", 0),
    "end a list": lambda s: s.bench.desk.end_list("m1", "open", Run("a" * 16), 0),
    "pause": lambda s: s.bench.desk.pause("m1", "c"),
    "resume": lambda s: s.bench.desk.resume("m1", "paused"),
    "reverse": lambda s: s.bench.desk.reverse("m1", "c"),
    "window": lambda s: s.bench.queue.window("m1", "c", False, 1e15),
    "leave": lambda s: s.bench.queue.leave("m1"),
    "move": lambda s: s.bench.desk.move("m1", "line", "up"),
    "restore": _restore,
    "boost": lambda s: s.bench.desk.boost("m1", encode(0.0, 4e9, Words(9.0, "", "", 0.0))),
    "change": lambda s: s.bench.desk.set_account("m1", {"relay": "r"}),
    "replay": lambda s: s.bench.desk.replay("m1", "c"),
}
DONE: dict[str, Step] = {
    "append that only deletes": lambda s: s.bench.queue.append("w1", b"token", 0, [b"1"], []),
    "a bare beat": lambda s: s.bench.queue.append("w1", b"token", 0, [], []),
    "cancel": lambda s: s.bench.desk.cancel("m1", "c"),
}
READING: dict[str, Step] = {
    "campaign": lambda s: s.bench.desk.campaign("m1", "c"),
    "account": lambda s: s.bench.desk.account("m1"),
    "standing": lambda s: s.bench.desk.standing("m1", "c"),
    "outcomes": lambda s: s.bench.desk.outcomes("m1", "c", "", 100),
    "need": lambda s: s.bench.queue.need("m1"),
    "workers": lambda s: s.bench.desk.workers(),
    "beat": lambda s: s.bench.queue.beat("w1"),
    "persistence": lambda s: s.bench.desk.persistence(),
}


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    with server(enable_debug_command="yes") as made:
        yield made


@pytest.fixture
async def scene(alone: Server) -> Any:
    alone.client.config_set("maxmemory", 0)
    alone.client.flushall()
    bench = redis_bench(alone.url)
    made = Scene(bench)
    await made.set()
    yield made
    alone.client.config_set("maxmemory", 0)
    await bench.close()


def data(server: Server) -> dict[str, str]:
    """Each key with the digest of its value."""
    keys = sorted(server.client.keys("*"))
    return {key: server.client.execute_command("DEBUG", "DIGEST-VALUE", key)[0] for key in keys}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_grows_is_refused_whole_and_goes_through_later(alone: Server, scene: Scene, name: str) -> None:
    before = data(alone)
    alone.client.config_set("maxmemory", 1)
    with pytest.raises(Unavailable, match="OOM"):
        await REFUSED[name](scene)
    assert data(alone) == before
    alone.client.config_set("maxmemory", 0)
    await REFUSED[name](scene)
    assert data(alone) != before


@pytest.mark.parametrize("name", EITHER)
async def test_what_may_go_either_way_is_never_halved(alone: Server, scene: Scene, name: str) -> None:
    """Refused with nothing changed; or done, and then the whole adds up as without the fault: counts against where rows stand."""
    before = data(alone)
    alone.client.config_set("maxmemory", 1)
    try:
        await EITHER[name](scene)
    except Unavailable:
        changed = {key for key, digest in data(alone).items() if before.get(key) != digest} | (before.keys() - data(alone).keys())
        assert changed <= {"{x}"} or await _adds_up(scene)
    else:
        assert await _adds_up(scene)


@pytest.mark.parametrize("name", DONE)
async def test_what_frees_memory_goes_on(alone: Server, scene: Scene, name: str) -> None:
    before = data(alone)
    alone.client.config_set("maxmemory", 1)
    try:
        await DONE[name](scene)
    except Unavailable:
        assert name == "cancel"  # it is done; only the news of it may find no room yet
    assert data(alone) != before
    assert await _adds_up(scene)


@pytest.mark.parametrize("name", READING)
async def test_reading_goes_on(alone: Server, scene: Scene, name: str) -> None:
    alone.client.config_set("maxmemory", 1)
    await READING[name](scene)


async def test_cancel_at_full_memory_has_cancelled(alone: Server, scene: Scene) -> None:
    alone.client.config_set("maxmemory", 1)
    try:
        await scene.bench.desk.cancel("m1", "c")
    except Unavailable:
        pass
    assert (await scene.bench.fields("c"))["state"] == "cancelled"


async def _adds_up(scene: Scene) -> bool:
    """accepted = outcomes + where the rows stand, and the counts of leased and deferred are theirs."""
    fields, where = await scene.bench.fields("c"), await scene.bench.where("c")
    ended = sum(int(fields.get(outcome.name.lower(), 0)) for outcome in Outcome)
    counts = (int(fields.get("leased", 0)), int(fields.get("deferred", 0)))
    assert int(fields["accepted"]) == ended + sum(where.values()), (ended, where)
    assert counts == (where["leased"], where["retry"])
    return True
