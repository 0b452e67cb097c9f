"""Webhooks out in the shared state: kept, looked for once, on their way, claimed."""

from __future__ import annotations

import asyncio

from queue_bench import Bench

from sendengine.policy.holds import Reason, placed
from sendengine.ports import Queued


async def test_a_subscription_needs_an_account(bench: Bench) -> None:
    outbox = bench.desk.outbox
    assert not await outbox.keep_hook("m1", "h1", b"one")
    assert await outbox.claim(10, 60.0) == []
    await bench.account()
    assert await outbox.keep_hook("m1", "h1", b"one")
    assert await outbox.keep_hook("m1", "h2", b"two")
    assert await outbox.keep_hook("m1", "h1", b"changed")
    assert sorted(await outbox.hooks("m1")) == [b"changed", b"two"]
    assert await outbox.hooks("m2") == []


async def test_what_is_found_is_queued_with_what_was_looked_at_or_not_at_all(bench: Bench) -> None:
    outbox = bench.desk.outbox
    await bench.account()
    assert not await outbox.look("m1", "0", {"tier": "60k"}, [Queued("e.h", 5.0, b"x")])  # nobody is to be told
    await outbox.keep_hook("m1", "h", b"one")
    assert await outbox.look("m1", "0", {"tier": "60k", "c:a": "1-0"}, [])
    looks = await asyncio.gather(*(outbox.look("m1", "1", {"c:a": ""}, [Queued(f"e{n}.h", 7.4, b"x")]) for n in range(5)))
    assert sorted(looks) == [False] * 4 + [True]
    assert await outbox.seen("m1") == {"v": "2", "tier": "60k"}
    assert await outbox.waiting("m1") == 1
    assert await outbox.next_due("m1") == 7.0


async def test_a_look_that_knows_nothing_of_a_new_subscription_is_refused(bench: Bench) -> None:
    outbox = bench.desk.outbox
    await bench.account()
    await outbox.keep_hook("m1", "h1", b"one")
    assert await outbox.seen("m1") == {}
    assert await outbox.look("m1", "0", {"tier": "60k"}, [])
    await outbox.keep_hook("m1", "h2", b"two")
    assert not await outbox.look("m1", "1", {"tier": "100k"}, [Queued("e.h1", 5.0, b"x")])
    assert await outbox.look("m1", "2", {"tier": "100k"}, [])
    await outbox.keep_hook("m1", "h2", b"")
    assert await outbox.seen("m1") == {"v": "3", "tier": "100k"}


async def test_each_hold_that_comes_and_goes_is_noted_until_it_is_looked_at(bench: Bench) -> None:
    outbox, desk = bench.desk.outbox, bench.desk
    await bench.account()
    await outbox.keep_hook("m1", "h", b"one")
    await desk.set_gate("m1", {}, {"hold:a": "{}"})
    assert await outbox.seen("m1") == {}  # nobody looks yet
    await outbox.look("m1", "0", {"since": "1"}, [])
    await desk.set_gate("m1", {}, {"hold:a": "", "hold:b": "{}"})
    await desk.set_gate("m1", {}, {"hold:b": '{"text":"other"}'})
    await bench.queue.hold("m1", placed(Reason("c", "C", "r", "d"), 1.0))
    await desk.set_gate("m1", {}, {"hold:c": "", "term": "active"})
    await desk.set_gate("m1", {}, {"term": ""})
    seen = await outbox.seen("m1")
    moves = [line.split()[1:] for line in seen["held"].splitlines()]
    assert (seen["v"], sorted(moves[0]), moves[1:]) == ("4", ["+b", "-a"], [["+c"], ["-c"]])
    times = [float(line.split()[0]) for line in seen["held"].splitlines()]
    assert times == sorted(times)
    assert not await outbox.look("m1", "3", {"held": ""}, [])
    assert await outbox.look("m1", "4", {"held": ""}, [])
    assert await outbox.seen("m1") == {"v": "5", "since": "1"}


async def test_holds_that_nobody_looks_at_are_noted_up_to_a_bound(bench: Bench) -> None:
    outbox = bench.desk.outbox
    await bench.account()
    await outbox.keep_hook("m1", "h", b"one")
    await outbox.look("m1", "0", {"since": "1"}, [])
    for _ in range(150):
        for value in ("{}", ""):
            await bench.desk.set_gate("m1", {}, {"hold:content": value})
    seen = await outbox.seen("m1")
    assert seen["v"] == "301"
    assert 100 < len(seen["held"].splitlines()) < 200


async def test_deliveries_are_due_in_their_order_and_end(bench: Bench) -> None:
    outbox = bench.desk.outbox
    await bench.account()
    await outbox.keep_hook("m1", "h", b"one")
    await outbox.look("m1", "0", {}, [Queued("b", 20.0, b"B"), Queued("a", 10.0, b"A"), Queued("c", 30.0, b"C")])
    assert [each.id for each in await outbox.due("m1", 25.0, 10)] == ["a", "b"]
    assert await outbox.due("m1", 25.0, 1) == [Queued("a", 10.0, b"A")]
    assert await outbox.told("m1", Queued("a", 90.0, b"A2"))
    assert await outbox.told("m1", "b")
    assert not await outbox.told("m1", "b")
    assert not await outbox.told("m1", Queued("b", 1.0, b"back"))
    assert await outbox.due("m1", 100.0, 10) == [Queued("c", 30.0, b"C"), Queued("a", 90.0, b"A2")]


async def test_with_the_last_subscription_all_goes(bench: Bench) -> None:
    outbox = bench.desk.outbox
    await bench.account()
    await outbox.keep_hook("m1", "h", b"one")
    await outbox.keep_hook("m1", "i", b"two")
    await outbox.look("m1", "0", {"tier": "t"}, [Queued("a", 10.0, b"A")])
    assert await outbox.keep_hook("m1", "h", b"")
    assert await outbox.waiting("m1") == 1
    assert await outbox.keep_hook("m1", "i", b"")
    assert (await outbox.hooks("m1"), await outbox.seen("m1"), await outbox.waiting("m1")) == ([], {}, 0)
    assert await outbox.next_due("m1") is None


async def test_an_account_is_claimed_by_one_and_comes_back(bench: Bench) -> None:
    outbox = bench.desk.outbox
    for account in ("m1", "m2"):
        await bench.account(account)
        await outbox.keep_hook(account, "h", b"one")
    claims = await asyncio.gather(*(outbox.claim(10, 3600.0) for _ in range(4)))
    assert sorted(account for claim in claims for account in claim) == ["m1", "m2"]
    await outbox.need("m1", 0.0)
    await outbox.need("m2", None)
    assert await outbox.claim(10, 0.0) == ["m1"]
    assert await outbox.claim(10, 3600.0) == ["m1"]  # whoever had it did not live
    assert await outbox.claim(10, 3600.0) == []


async def test_sends_since(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("a", 1)
    created = float((await bench.fields("a"))["created"])
    await bench.campaign("b", 1)
    assert await bench.desk.outbox.begun("m1", created) == ["a", "b"]
    assert await bench.desk.outbox.begun("m1", created + 1) == ["b"]
    assert await bench.desk.outbox.begun("m9", 0.0) == []


async def test_of_an_account_whose_purge_has_begun_nothing_is_written(bench: Bench) -> None:
    outbox = bench.desk.outbox
    await bench.account()
    await outbox.keep_hook("m1", "h", b"one")
    await outbox.look("m1", "0", {}, [Queued("a", 10.0, b"A")])
    assert await bench.desk.set_account("m1", {"purging": "1"})
    assert not await outbox.look("m1", "1", {"tier": "t"}, [Queued("b", 10.0, b"B")])
    assert not await outbox.keep_hook("m1", "i", b"two")
    assert not await outbox.told("m1", Queued("a", 90.0, b"A2"))


async def test_a_subscription_that_changes_is_told_and_a_repeat_is_not(bench: Bench) -> None:
    outbox = bench.desk.outbox
    assert not await outbox.keep_hook("m1", "h", b"one", line=b'{"what":"none"}')
    await bench.account()
    for what, value in (("create", b"one"), ("rotate", b"two"), ("remove", b"")):
        for _ in range(2):
            assert await outbox.keep_hook("m1", "h", value, line=b'{"what":"%s"}' % what.encode())
    await outbox.keep_hook("m1", "i", b"one")
    told = [each.line for each in await bench.desk.audit("m1", "", 10)]
    assert told == [b'{"what":"create"}', b'{"what":"rotate"}', b'{"what":"remove"}']
    assert await bench.desk.set_account("m1", {"purging": "1"})
    assert not await outbox.keep_hook("m1", "i", b"", line=b'{"what":"late"}')
    assert len(await bench.desk.audit("m1", "", 10)) == 3
