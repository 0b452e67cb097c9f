"""Pause, resume, cancel, the line, schedules and windows: each acts at once whatever the number of recipients (domain 2)."""

from __future__ import annotations

import msgspec
from queue_bench import NOON, Bench, addresses, deferred, doubts, ended, outcomes, rows, settlement

from sendengine.ports import Stored
from sendengine.types import Outcome


async def test_cancel_ends_all_that_is_not_on_its_way(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 250)
    [lease] = (await bench.take(1)).leases
    assert await bench.desk.cancel("m1", "c") == "done"
    assert await bench.desk.cancel("m1", "c") == "same"
    fields = await bench.fields("c")
    assert (ended(fields), fields["state"]) == ({"cancelled": 150}, "cancelled")
    assert "finished" not in fields
    assert (await bench.take()).leases == ()
    await bench.settle(settlement(lease.token, outcomes(range(3)), deferred(range(3, 6), 0), doubts([6, 7]), range(100)))
    fields = await bench.fields("c")
    assert ended(fields) == {"sent": 3, "cancelled": 245, "unknown": 2}
    assert await bench.where("c") == {"ready": 0, "leased": 0, "retry": 0}
    assert float(fields["finished"]) >= float(fields["cancelled_at"])
    assert await bench.desk.resume("m1", "c") == "cancelled"


async def test_cancel_of_rows_once_in_doubt_is_unknown(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 200)
    first, second = (await bench.take()).leases
    await bench.settle(settlement(first.token, doubts=doubts([0, 1, 2]), back=range(3, 100)))
    await bench.settle(settlement(second.token, deferred=deferred([50], 3_600_000), doubts=doubts([51])))
    held = next(lease for lease in (await bench.take(1000)).leases if rows(lease) == [0, 1, 2])
    await bench.settle(settlement(held.token, deferred=deferred([0], 3_600_000, tries=2), back=[1]))
    await bench.desk.cancel("m1", "c")
    assert ended(await bench.fields("c"))["unknown"] == 2
    await bench.settle(settlement(held.token, back=[2]))
    assert ended(await bench.fields("c"))["unknown"] == 3
    unknown = [chunk for chunk in await bench.desk.outcomes("m1", "c", "", 10) if chunk.worker == ""]
    assert [chunk.records[:2] for chunk in unknown] == [bytes((row, Outcome.UNKNOWN)) for row in (1, 0, 2)]


async def test_pause_stops_and_resume_goes_on_with_the_rest(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 200)
    [lease] = (await bench.take(1)).leases
    assert await bench.desk.pause("m1", "c") == "done"
    assert await bench.desk.pause("m1", "c") == "same"
    visited = await bench.visit(5, ["c"])
    assert (visited.permits, visited.stopped) == (0, b"\0")
    assert (await bench.take()).leases == ()
    await bench.settle(settlement(lease.token, outcomes(range(10)), back=range(100)))
    assert await bench.where("c") == {"ready": 190, "leased": 0, "retry": 0}
    assert await bench.desk.resume("m1", "c") == "done"
    assert await bench.desk.resume("m1", "c") == "same"
    fields = await bench.fields("c")
    assert (fields["state"], int(fields["idle"]) > 0) == ("sending", True)
    assert not {"paused_at", "before", "resting"} & fields.keys()
    assert [rows(one)[0] for one in (await bench.take()).leases] == [10, 0]


async def test_verbs_name_the_state_that_forbids_them(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 0)
    for verb in (bench.desk.pause, bench.desk.resume, bench.desk.cancel, bench.desk.reverse):
        assert await verb("m1", "c") == "finished"
        assert await verb("m1", "none") == "missing"
    assert await bench.desk.move("m1", "c", "up") == "finished"


async def test_scheduled_campaign_starts_when_it_is_due(bench: Bench) -> None:
    await bench.account()
    due = await bench.desk.now_us() + 200_000
    await bench.campaign("c", 10, at_us=due)
    assert (await bench.fields("c"))["state"] == "scheduled"
    assert (await bench.queue.need("m1"))[0] == round(due)
    await pass_time(bench, due)
    assert len((await bench.take()).leases) == 1
    assert (await bench.fields("c"))["state"] == "sending"


async def test_past_schedule_means_now(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, at_us=NOON / 2)
    assert (await bench.fields("c"))["state"] == "sending"


async def test_paused_campaign_is_not_started_by_its_schedule(bench: Bench) -> None:
    await bench.account()
    due = await bench.desk.now_us() + 200_000
    await bench.campaign("c", 10, at_us=due)
    await bench.desk.pause("m1", "c")
    await pass_time(bench, due)
    assert (await bench.take()).leases == ()
    assert (await bench.fields("c"))["state"] == "paused"
    await bench.desk.resume("m1", "c")
    assert (await bench.fields("c"))["state"] == "sending"


async def test_resumed_before_its_time_it_waits_for_it(bench: Bench) -> None:
    await bench.account()
    due = await bench.desk.now_us() + 3_600e6
    await bench.campaign("c", 10, at_us=due)
    await bench.desk.pause("m1", "c")
    await bench.desk.resume("m1", "c")
    assert (await bench.fields("c"))["state"] == "scheduled"
    assert (await bench.queue.need("m1"))[0] == round(due)


async def pass_time(bench: Bench, until: float) -> None:
    """The manual clock is turned; Redis' own passes while it is read."""
    if bench.clock is not None:
        bench.clock.now = until
    while await bench.desk.now_us() <= until:
        pass


async def test_line_starts_one_at_a_time_and_moves_when_it_is_through(bench: Bench) -> None:
    await bench.account()
    for name in "abc":
        await bench.campaign(name, 10, sequential="1")
    assert [(await bench.fields(name))["state"] for name in "abc"] == ["sending", "sequential", "sequential"]
    assert await bench.desk.move("m1", "c", "up") == "done"
    assert await bench.desk.move("m1", "c", "up") == "same"
    assert await bench.desk.move("m1", "a", "down") == "sending"
    assert await bench.desk.line("m1") == ["a", "c", "b"]
    [lease] = (await bench.take()).leases
    await bench.settle(settlement(lease.token, outcomes(range(9)), deferred([9], 3_600_000)))
    assert [(await bench.fields(name))["state"] for name in "abc"] == ["sending", "sequential", "sending"]
    assert await bench.desk.line("m1") == ["c", "b"]
    await bench.desk.pause("m1", "c")
    assert (await bench.fields("b"))["state"] == "sending"
    await bench.desk.resume("m1", "c")
    assert (await bench.fields("c"))["state"] == "sequential"
    await bench.desk.cancel("m1", "b")
    assert (await bench.fields("c"))["state"] == "sending"


async def test_unsealed_sequential_campaign_does_not_start(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("a", 10, sealed=False, sequential="1")
    await bench.campaign("b", 10, sequential="1")
    assert [(await bench.fields(name))["state"] for name in "ab"] == ["sequential", "sending"]


async def test_strict_campaign_waits_for_its_seal(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, sealed=False, need_seal="1")
    assert (await bench.take()).leases == ()
    await bench.desk.seal("m1", "c", 1)
    assert len((await bench.take()).leases) == 1


async def test_window_holds_a_campaign_and_lets_it_go(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, window="Mon-Fri 09:00-17:00 UTC", open="1", window_at="1000")
    taken = await bench.take()
    assert (taken.look, len(taken.leases)) == (("c",), 1)
    next_look = await bench.desk.now_us() + 3_600e6
    await bench.queue.window("m1", "c", False, next_look)
    assert (await bench.visit(1, ["c"])).stopped == b"\0"
    assert (await bench.queue.need("m1"))[0] == round(next_look)
    fields = await bench.fields("c")
    assert (fields["open"], fields["state"], "closed_at" in fields) == ("0", "sending", True)
    cut = (await bench.visit(1, ["c"])).cut
    await bench.queue.window("m1", "c", False, next_look)
    assert (await bench.visit(1, ["c"])).cut == cut
    await bench.queue.window("m1", "c", True, None)
    assert (await bench.visit(1, ["c"])).stopped == b""
    assert int((await bench.fields("c"))["idle"]) > 0
    assert (await bench.queue.need("m1"))[0] == -1


async def test_a_campaign_runs_since_nothing_keeps_it_any_more(bench: Bench) -> None:
    async def runs_since(name: str) -> float:
        return float((await bench.fields(name)).get("runs_since", 0))

    await bench.account()
    await bench.campaign("c", 10, sealed=False, need_seal="1")
    assert not await runs_since("c")
    await bench.desk.seal("m1", "c", 1)
    sealed = await runs_since("c")
    await bench.desk.pause("m1", "c")
    await bench.queue.window("m1", "c", False, None)
    await bench.desk.resume("m1", "c")
    assert await runs_since("c") == sealed > 0
    await bench.queue.window("m1", "c", True, None)
    assert await runs_since("c") > sealed
    for name in ("first", "second"):
        await bench.campaign(name, 10, sequential="1")
    assert (await runs_since("first") > 0, await runs_since("second")) == (True, 0)
    await bench.desk.cancel("m1", "first")
    assert await runs_since("second") > 0


async def test_pause_outside_the_window_rests_once(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, window="w")
    await bench.queue.window("m1", "c", False, None)
    await bench.desk.pause("m1", "c")
    await bench.queue.window("m1", "c", True, None)
    fields = await bench.fields("c")
    assert ("resting" in fields, "idle" in fields) == (True, False)
    await bench.desk.resume("m1", "c")
    fields = await bench.fields("c")
    assert ("resting" in fields, int(fields["idle"]) > 0) == (False, True)


async def test_window_of_an_ended_campaign_is_forgotten(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, window="w", window_at="1000")
    await bench.desk.cancel("m1", "c")
    await bench.queue.window("m1", "c", True, 2000.0)
    assert (await bench.queue.need("m1"))[0] == -1


async def test_campaign_without_lease_is_cancelled_and_finished_at_once(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 130, sealed=False)
    await bench.desk.cancel("m1", "c")
    fields = await bench.fields("c")
    assert (ended(fields), fields["state"], "finished" in fields, "through" in fields) == (
        {"cancelled": len(addresses(130))}, "cancelled", True, False,
    )  # fmt: skip


async def test_one_of_the_line_that_is_through_goes_on_after_a_pause(bench: Bench) -> None:
    """It has left the line, so no turn is to come: only its retries are."""
    await bench.account()
    await bench.campaign("c", 2, sequential="1", need_seal="1")
    [lease] = (await bench.take()).leases
    await bench.settle(settlement(lease.token, outcomes([0]), deferred([1], 0)))
    assert (await bench.fields("c"))["through"]
    assert await bench.desk.pause("m1", "c") == "done"
    assert await bench.desk.resume("m1", "c") == "done"
    assert (await bench.fields("c"))["state"] == "sending"
    assert (await bench.take()).leases


async def test_reversed_twice_is_as_before(bench: Bench) -> None:
    """Only a reversed list has to wait for its end."""
    await bench.account()
    await bench.campaign("c", 200, sealed=False)
    await bench.desk.reverse("m1", "c")
    assert not (await bench.take()).leases
    await bench.desk.reverse("m1", "c")
    assert (await bench.take()).leases


async def test_visit_that_begins_the_next_of_the_line_says_so(bench: Bench) -> None:
    await bench.account(per_hour=3600)
    await bench.campaign("first", 2, sequential="1", need_seal="1")
    await bench.campaign("second", 2, sequential="1", need_seal="1")
    [lease] = (await bench.take()).leases
    half = await bench.queue.visit("m1", 0, 0.0, "=", [], [settlement(lease.token, outcomes([0]))])
    whole = await bench.queue.visit("m1", 0, 0.0, "=", [], [settlement(lease.token, outcomes([1]))])
    assert (half.has_begun, whole.has_begun) == (False, True)
    assert not (await bench.visit(1, ["second"])).has_begun


async def test_single_messages_that_ended_long_ago_are_forgotten_by_whoever_looks(bench: Bench) -> None:
    await bench.account()
    await bench.desk.create("m1", "transactional", b"t", None, b"", {"uid": "u", "retention": "0"})
    for key in ("a", "b"):
        assert (await bench.desk.transact("m1", b"payload", b"message", key, bytes(8))).status == "stored"
    for lease in (await bench.take()).leases:
        await bench.settle(settlement(lease.token, outcomes([0])))
    await bench.queue.need("m1")
    assert await bench.desk.batches("m1", "transactional", [0, 1]) == [None, None]
    assert await bench.desk.outcomes("m1", "transactional", "", 10) == []
    again = await bench.desk.transact("m1", b"payload", b"other", "a", b"differs!")  # its key is free again
    assert again == Stored("stored", number=2)


async def test_a_pause_of_the_engines_own_is_in_the_trail_once(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10)
    for _ in range(2):
        await bench.queue.suspend("m1", "c", "20 messages in a row were refused: 554 spam")
    [told] = await bench.desk.audit("m1", "", 10)
    assert msgspec.json.decode(told.line) == {
        "what": "send.pause", "who": "engine", "why": "20 messages in a row were refused: 554 spam", "facts": {"send": "c"},
    }  # fmt: skip
    assert (await bench.fields("c"))["state"] == "paused"
