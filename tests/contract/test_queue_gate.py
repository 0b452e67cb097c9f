"""The gate: a hold, or a term that is over, stops every lane of an account, and nothing of it is lost or made up for (docs/design/016)."""

from __future__ import annotations

import pytest
from queue_bench import NOON, Bench, deferred, outcomes, rows, settlement

from sendengine.policy.health import Health
from sendengine.policy.holds import Reason, holds_of, placed
from sendengine.policy.suppression import Reason as Suppressed
from sendengine.policy.suppression import encode
from sendengine.ports import Taken, Visited
from sendengine.records import TRANSACTIONAL
from sendengine.types import Outcome

PER_HOUR, INTERVAL = 36_000, 100_000.0
SMS = "m1/sms"
SENDS = {"m1": "c", SMS: "s"}
CUT_DELAY = 200_000.0


async def hold(bench: Bench, reason: str = "content") -> str:
    return (await bench.desk.set_gate("m1", {}, {f"hold:{reason}": "{}"})).status


async def release(bench: Bench, reason: str = "content") -> str:
    return (await bench.desk.set_gate("m1", {}, {f"hold:{reason}": ""})).status


async def end_term(bench: Bench, in_s: float) -> float:
    """Its time, µs."""
    ends = float(round(await bench.desk.now_us() + in_s * 1e6))
    assert (await bench.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ends:.0f}"})).status == "done"
    return ends


async def take(bench: Bench, lane: str = "m1") -> Taken:
    return await bench.queue.take(lane, "w1", 10_000, bench.tokens(), [], [])


async def visit(bench: Bench, want: int = 100, lane: str = "m1", horizon: float = 5e6) -> Visited:
    return await bench.queue.visit(lane, want, horizon, "=", [SENDS[lane], TRANSACTIONAL], [])


async def idle(bench: Bench, lane: str = "m1") -> float:
    return float((await bench.desk.account(lane)).get("idle", 0))


async def news(bench: Bench) -> list[tuple[str, int]]:
    told = await bench.queue.append("w1", b"t", 0, [], [])
    return [(item.account, item.cut) for item in told.news]


def times(visited: Visited) -> list[float]:
    return [visited.now_us + visited.delay_us + at * visited.interval_us for at in range(visited.permits)]


@pytest.fixture
async def sending(bench: Bench) -> Bench:
    """m1 with a send in each of its two lanes, and a worker."""
    await bench.queue.register("w1", b"t")
    for lane in ("m1", SMS):
        await bench.account(lane, per_hour=PER_HOUR)
        await bench.campaign(SENDS[lane], 200, account=lane)
    return bench


async def test_hold_stops_every_lane(sending: Bench) -> None:
    assert await hold(sending) == "done"
    for lane in ("m1", SMS):
        taken = await take(sending, lane)
        assert (taken.leases, taken.need_us, taken.wake_us, taken.look) == ((), -1.0, -1.0, ())
        visited = await visit(sending, lane=lane)
        assert (visited.permits, visited.stopped, visited.cut) == (0, b"\0\1", 1)
        assert (await sending.queue.need(lane))[0] == -1.0


async def test_hold_voids_what_was_granted_and_tells_every_worker_of_every_lane(sending: Bench) -> None:
    before = len(await news(sending))
    granted = times(await visit(sending))
    await hold(sending)
    after = await visit(sending)
    assert (await news(sending))[before:] == [("m1", 1), (SMS, 1)]
    assert after.cut == 1
    assert granted[-1] > after.cut_us >= after.now_us + CUT_DELAY - 1e5


async def test_lifting_the_last_of_several_holds_opens(sending: Bench) -> None:
    assert [await hold(sending, reason) for reason in ("content", "unpaid-fee", "content")] == ["done", "done", "same"]
    assert await release(sending, "content") == "done"
    assert (await take(sending)).leases == ()
    assert await release(sending, "unpaid-fee") == "done"
    assert [sum(len(rows(lease)) for lease in (await take(sending, lane)).leases) for lane in ("m1", SMS)] == [200, 200]
    assert await release(sending, "unpaid-fee") == "same"


async def test_account_that_opens_is_found_again(sending: Bench) -> None:
    await hold(sending)
    await sending.queue.find(10)
    assert await sending.queue.find(10) == []
    await release(sending)
    assert sorted(await sending.queue.find(10)) == ["m1", SMS]


async def test_nothing_has_saved_up_when_it_opens(sending: Bench) -> None:
    """GCRA goes on from the cut: no more permits than the rate gives from then on, none sooner than an interval after the last."""
    granted = times(await visit(sending, want=10, horizon=1e6))
    await hold(sending)
    await visit(sending)
    await release(sending)
    opened = await visit(sending, horizon=1e6)
    kept = [at for at in granted if at <= opened.cut_us]
    assert times(opened)[0] >= kept[-1] + INTERVAL - 1
    assert opened.permits <= 10


async def test_permits_end_with_the_term(sending: Bench) -> None:
    ends = await end_term(sending, 1.0)
    visited = await visit(sending)
    assert visited.closes_us == ends
    assert 8 <= visited.permits <= 11
    assert times(visited)[-1] < ends
    assert (await visit(sending)).permits == 0


async def test_unmetered_account_learns_when_its_licence_ends(sending: Bench) -> None:
    await sending.desk.set_rate("m1", "unmetered", None)
    assert (await visit(sending)).closes_us == 0.0
    ends = await end_term(sending, 1.0)
    visited = await visit(sending, want=7)
    assert (visited.permits, visited.closes_us) == (7, ends)


async def test_term_that_is_over_is_a_gate_that_is_shut(sending: Bench) -> None:
    ends = await end_term(sending, -60.0)
    visited = await visit(sending)
    assert (visited.permits, visited.stopped, visited.closes_us) == (0, b"\0\1", 0.0)
    assert (await take(sending)).need_us == -1.0
    assert float((await sending.desk.account("m1"))["closed_at"]) >= ends
    await end_term(sending, 3600.0)
    assert (await visit(sending)).permits > 0
    assert "closed_at" not in await sending.desk.account("m1")


async def test_earlier_end_voids_permits_beyond_it(sending: Bench) -> None:
    await end_term(sending, 3600.0)
    await visit(sending)
    before = (await visit(sending, want=0)).cut
    ends = await end_term(sending, 1.0)
    visited = await visit(sending)
    assert visited.cut == before + 1
    assert all(at < ends for at in times(visited))


async def test_time_shut_is_idle_time_of_every_lane(sending: Bench) -> None:
    await hold(sending)
    shut = float((await sending.desk.account("m1"))["closed_at"])
    await hold(sending, "unpaid-fee")
    await release(sending, "content")
    assert await idle(sending) == 0.0
    await release(sending, "unpaid-fee")
    now = await sending.desk.now_us()
    for lane in ("m1", SMS):
        assert 0 < await idle(sending, lane) <= now - shut
    assert (await visit(sending)).idle_us == await idle(sending)


async def test_time_shut_begins_with_the_end_of_the_term_that_nobody_saw(sending: Bench) -> None:
    """The term ends by itself; a hold that comes later changes nothing of since when nothing goes."""
    ends = await end_term(sending, 0.02)
    while await sending.desk.now_us() < ends:
        pass
    await hold(sending)
    assert float((await sending.desk.account("m1"))["closed_at"]) == ends
    await end_term(sending, 3600.0)
    assert float((await sending.desk.account("m1"))["closed_at"]) == ends
    await release(sending)
    assert await idle(sending) >= 1
    assert await idle(sending) <= await sending.desk.now_us() - ends


async def test_relay_that_refuses_while_the_gate_is_shut_counts_once(sending: Bench) -> None:
    """From the earlier of both until the later of both ends, whichever ends first."""
    for first, last in ((release, ""), (None, "")):
        started = await sending.desk.now_us()
        before = await idle(sending)
        await sending.queue.visit("m1", 0, 0.0, "relay|x", [], [])
        await hold(sending)
        if first is not None:
            await release(sending)
            await sending.queue.visit("m1", 0, 0.0, last, [], [])
        else:
            await sending.queue.visit("m1", 0, 0.0, last, [], [])
            await release(sending)
        span = await sending.desk.now_us() - started
        assert 0 < await idle(sending) - before <= span


async def test_pause_within_a_hold_counts_once(sending: Bench) -> None:
    await hold(sending)
    started = await sending.desk.now_us()
    assert await sending.desk.pause("m1", "c") == "done"
    assert await sending.desk.resume("m1", "c") == "done"
    await release(sending)
    both = await idle(sending) + float((await sending.fields("c")).get("idle", 0))
    shut = await sending.desk.now_us() - started + 1e6
    assert 0 < both < shut
    assert float((await sending.fields("c")).get("idle", 0)) == 0.0


async def test_leases_of_a_held_account_settle_and_what_comes_back_waits(sending: Bench) -> None:
    lease = (await take(sending)).leases[0]
    await hold(sending)
    done = settlement(lease.token, back=rows(lease))
    assert (await sending.queue.visit("m1", 0, 0.0, "=", ["c"], [done])).acted == (1,)
    assert (await sending.where("c"))["ready"] + (await sending.where("c"))["leased"] == 200


async def test_held_account_is_idle_even_where_retries_wait(sending: Bench) -> None:
    for lease in (await take(sending)).leases:
        await sending.settle(settlement(lease.token, deferred=deferred(rows(lease), 60_000)))
    assert not await sending.queue.is_idle("m1")
    await hold(sending)
    assert await sending.queue.is_idle("m1")


async def test_change_is_made_only_of_what_was_seen(sending: Bench) -> None:
    gate = sending.desk.set_gate
    assert (await gate("m1", {"term": ""}, {"term": "trial"})).status == "done"
    assert (await gate("m1", {"term": ""}, {"term": "active"})).status == "moved"
    assert (await gate("m1", {"term": "trial", "hold:content": ""}, {"term": "active"})).status == "done"
    assert (await sending.desk.account("m1"))["term"] == "active"
    assert (await gate("m9", {}, {"term": "active"})).status == "missing"


async def test_change_that_comes_too_late_changes_nothing(sending: Bench) -> None:
    now = await sending.desk.now_us()
    late = await sending.desk.set_gate("m1", {}, {"term": "active"}, before_us=now)
    assert late.status == "late"
    assert "term" not in await sending.desk.account("m1")
    assert (await sending.desk.set_gate("m1", {}, {"term": "active"}, before_us=now + 60e6)).status == "done"


async def test_schedule_that_falls_due_under_a_hold_begins_when_it_is_lifted(sending: Bench) -> None:
    await sending.campaign("later", 10, at_us=await sending.desk.now_us() + 5e4)
    await hold(sending)
    while await sending.desk.now_us() < float((await sending.fields("later"))["at"]):
        pass
    await take(sending)
    assert (await sending.fields("later"))["state"] == "scheduled"
    await release(sending)
    await take(sending)
    assert (await sending.fields("later"))["state"] == "sending"


async def test_rate_and_boosts_of_a_held_account_may_change(sending: Bench) -> None:
    await hold(sending)
    assert await sending.desk.set_rate("m1", "t", 2 * PER_HOUR)
    await release(sending)
    assert (await visit(sending)).interval_us == INTERVAL / 2


# how an account fares


async def end(bench: Bench, name: str, sent: int, bounced: int) -> None:
    """A send of so many, all of them with these outcomes."""
    await bench.campaign(name, sent + bounced, account="m1")
    left = bounced
    for lease in (await take(bench)).leases:
        held = rows(lease)
        bad, good = held[:left], held[left:]
        left -= len(bad)
        await bench.settle(settlement(lease.token, outcomes(bad, Outcome.BOUNCED) + outcomes(good)))


async def complain(bench: Bench, *names: str) -> None:
    entries = {name.encode(): encode(Suppressed.COMPLAINED, NOON / 1e6) for name in names}
    await bench.desk.suppress("m1", entries, are_complaints=True)


async def test_first_look_counts_nothing_and_the_next_one_what_came_since(bench: Bench) -> None:
    await bench.account()
    await end(bench, "before", 150, 10)
    assert await bench.queue.health("m1", 24) == Health(0, 0, 0)
    await end(bench, "a", 120, 20)
    await end(bench, "b", 7, 3)  # begun and ended between two looks
    await complain(bench, "a", "b")
    assert await bench.queue.health("m1", 24) == Health(127, 23, 2)
    assert await bench.queue.health("m1", 24) == Health(127, 23, 2)
    await end(bench, "c", 5, 0)
    await complain(bench, "a", "b", "c")
    assert await bench.queue.health("m1", 24) == Health(132, 23, 3)


async def test_send_that_goes_on_counts_what_it_adds(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 300)
    leases = (await take(bench)).leases
    await bench.settle(settlement(leases[0].token, outcomes(rows(leases[0]))))
    await bench.queue.health("m1", 24)
    await bench.settle(settlement(leases[1].token, outcomes(rows(leases[1]))))
    assert await bench.queue.health("m1", 24) == Health(100, 0, 0)
    await bench.settle(settlement(leases[2].token, outcomes(rows(leases[2]))))
    assert await bench.queue.health("m1", 24) == Health(200, 0, 0)


async def test_nobody_is_counted_of_an_account_that_is_not_there(bench: Bench) -> None:
    assert await bench.queue.health("m9", 24) == Health(0, 0, 0)
    assert await bench.desk.account("m9") == {}


async def test_engine_holds_once_and_counts_anew(sending: Bench) -> None:
    await sending.queue.health("m1", 24)
    await complain(sending, *"abcdefg")
    reason = Reason("spam-complaints", "too many complaints", "write less", "abuse desk")
    before = len(await news(sending))
    for text in ("first", "second"):
        await sending.queue.hold("m1", placed(reason, 1.0, text, "sendengine"))
    assert [hold.text for hold in holds_of(await sending.desk.account("m1"))] == ["first"]
    assert (await news(sending))[before:] == [("m1", 1), (SMS, 1)]
    assert await sending.queue.health("m1", 24) == Health(0, 0, 0)
    assert [each.line for each in await sending.desk.audit("m1", "", 10)] == [
        b'{"what":"hold","who":"sendengine","why":"first","facts":{"reason":"spam-complaints"}}'
    ]


async def test_one_worker_at_a_time_looks_after_each_thing(bench: Bench) -> None:
    assert [await bench.queue.claim(what, 60.0) for what in ("health", "purges", "health")] == [True, True, False]
