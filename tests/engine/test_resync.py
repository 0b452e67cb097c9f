"""Redis came back without its last writes: what the worker knows is written, settled and looked at again (design 3.2)."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from sendengine.errors import Unavailable
from tests.engine.rig import Rig, number
from tests.engine.test_engine import virtual


@virtual
async def test_a_settlement_whose_answer_was_lost_is_settled_again_though_its_repeat_found_nothing() -> None:
    """tests/model: no_RETAIN_UNACTED. The lease would stand under a live worker that knows nothing of it, for ever."""
    rig = Rig()
    await rig.account()
    await rig.submit(20)
    worker = rig.start()
    visit, before, rolled_back = worker._queue.visit, [], []

    async def losing(account: str, *args: Any) -> Any:
        standing = copy.deepcopy(rig.store.accounts[account])
        visited = await visit(account, *args)
        if standing.leases and not rig.store.accounts[account].leases and not before:
            before.append(standing)
            raise Unavailable("the answer never came")
        if before and visited.acted == (0,) and not rolled_back:
            rolled_back.append(True)
            asyncio.get_running_loop().call_later(1.0, lose_the_last_writes)
        return visited

    def lose_the_last_writes() -> None:
        rig.store.accounts["m1"] = before[0]
        rig.store.generation += 1

    worker._queue.visit = losing  # type: ignore[method-assign]
    await asyncio.sleep(30.0)
    fields = await rig.status()
    assert rolled_back
    assert fields["state"] == "finished"
    assert (number(fields, "sent"), len(rig.accepted)) == (20, 20)
    await rig.stop()


@virtual
async def test_a_recovery_that_loses_its_connection_half_way_begins_again() -> None:
    rig = Rig()
    await rig.account()
    await rig.submit(300)
    worker = rig.start()
    await asyncio.sleep(3.0)
    append, lost = worker._queue.append, []

    async def losing(name: str, token: bytes, seen: int, gone: list[bytes], fields: list[bytes]) -> Any:
        appended = await append(name, token, seen, gone, fields)
        if worker.journal.is_away and fields and fields[0].startswith(b"L") and not lost:
            lost.append(True)  # answered, and then the server died: its last write is gone, the next call connects anew
            for field in fields[::2]:
                del rig.store.journals[name][field]
            rig.store.generation += 1
        return appended

    worker._queue.append = losing  # type: ignore[method-assign]
    rig.store.generation += 1
    await asyncio.sleep(1.0)
    assert lost
    noted = {b"L%d" % number for number in worker.journal._notes}
    assert noted
    assert noted <= rig.store.journals["w1"].keys()
    await rig.stop()


@virtual
async def test_a_pause_whose_news_redis_lost_is_known_after_the_reconnect() -> None:
    """A slow account asks for permits five seconds ahead: it must not go on until its next visit."""
    rig = Rig()
    await rig.account(per_hour=7200.0)
    await rig.submit(60)
    rig.start()
    await asyncio.sleep(10.0)
    assert await rig.desk.pause("m1", "c1") == "done"
    rig.store.inboxes["w1"].clear()
    rig.store.generation += 1
    sent = len(rig.times())
    await asyncio.sleep(60.0)
    assert len(rig.times()) - sent <= 1
    assert (await rig.status())["leased"] == "0"
    await rig.stop()


@virtual
async def test_a_take_that_redis_lost_is_given_up_before_anything_more_of_it_goes() -> None:
    """Its batch waits again, and somebody takes it anew: twice come only those whose message had begun by then."""
    rig = Rig()
    await rig.account(per_hour=36_000.0)
    await rig.submit(100)
    before = copy.deepcopy(rig.store.accounts["m1"])
    worker = rig.start()
    await asyncio.sleep(3.0)
    assert worker.journal._notes
    rig.store.accounts["m1"] = before
    rig.store.generation += 1
    begun = len(rig.log)
    await asyncio.sleep(30.0)
    assert (await rig.status())["state"] == "finished"
    assert len(set(rig.accepted)) == 100
    assert 0 < len(rig.accepted) - 100 <= begun
    await rig.stop()
