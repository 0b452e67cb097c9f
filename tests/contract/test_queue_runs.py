"""What the list's changes leave in the audit trail: noted by the script that makes them, one line for all parts of a run, true wherever it
breaks off."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from queue_bench import NOON, Bench, redis_bench

from sendengine.errors import Unavailable
from sendengine.policy.suppression import Listed, Reason, encode
from sendengine.ports import Part
from sendengine.queue import trail

LINE = '{"what":"suppress","who":"Přibík/1","facts":{"reason":"manual"}}'.encode()
IMPORT = b'{"what":"suppress.import","who":"ben"}'


def entries(*names: str, reason: Reason = Reason.MANUAL) -> dict[bytes, bytes]:
    return {name.encode(): encode(reason, NOON / 1e6) for name in names}


async def told(bench: Bench) -> list[dict[str, Any]]:
    return [msgspec.json.decode(each.line) for each in await bench.desk.audit("m1", "", 100)]


async def facts(bench: Bench) -> list[dict[str, str]]:
    return [each.get("facts", {}) for each in await told(bench)]


@pytest.fixture
async def sending(bench: Bench) -> Bench:
    await bench.account()
    return bench


async def test_what_changed_is_told_with_its_counts_and_a_repeat_is_not(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz", "b@x.cz"), part=Part(LINE))
    await sending.desk.suppress("m1", entries("a@x.cz", "b@x.cz"), part=Part(LINE))
    graver = entries("b@x.cz", "c@x.cz", reason=Reason.COMPLAINED)
    await sending.desk.suppress("m1", graver, part=Part(LINE))
    assert await told(sending) == [
        {"what": "suppress", "who": "Přibík/1", "facts": {"reason": "manual", "added": "2"}},
        {"what": "suppress", "who": "Přibík/1", "facts": {"reason": "manual", "added": "1", "changed": "1"}},
    ]


async def test_a_removal_is_told_once(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz", "b@x.cz"))
    for left in (2, 0):
        assert await sending.desk.unsuppress("m1", [b"a@x.cz", b"b@x.cz", b"z@x.cz"], part=Part(b'{"what":"unsuppress"}')) == left
    assert await told(sending) == [{"what": "unsuppress", "facts": {"removed": "2"}}]
    assert await sending.desk.unsuppress("m1", []) == 0


async def test_a_change_that_brings_no_line_leaves_none(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz"))
    await sending.desk.unsuppress("m1", [b"a@x.cz"])
    assert await told(sending) == []


async def test_a_run_is_one_line(sending: Bench) -> None:
    names = [f"u{at}@x.cz" for at in range(6)]
    for at in range(0, 6, 2):
        line = b'{"what":"suppress.import","facts":{"reason":"%d"}}' % at
        await sending.desk.suppress("m1", entries(*names[at : at + 2]), part=Part(line, "r", is_last=at == 4))
    assert await facts(sending) == [{"reason": "4", "added": "6"}]


async def test_a_run_whose_last_part_changes_nothing_ends_all_the_same(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r", is_last=False))
    await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r"))
    await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r"))
    assert await facts(sending) == [{"added": "1"}]


async def test_a_run_that_changed_nothing_leaves_no_line(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz"))
    for is_last in (False, True):
        await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r", is_last))
    assert await told(sending) == []


async def test_who_reads_the_trail_sees_what_a_run_has_done_so_far(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz", "b@x.cz"), part=Part(IMPORT, "r", is_last=False))
    for _ in range(2):
        assert await facts(sending) == [{"added": "2"}]
    await sending.desk.suppress("m1", entries("c@x.cz"), part=Part(IMPORT, "r"))
    assert await facts(sending) == [{"added": "2"}, {"added": "1"}]


async def test_what_a_run_did_stands_before_what_is_noted_behind_it(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r", is_last=False))
    await sending.desk.suppress("m1", entries("b@x.cz"), part=Part(IMPORT, "s", is_last=False))
    at = await sending.desk.now_us()
    await sending.desk.note("m1", b'{"what":"other"}')
    await sending.desk.suppress("m1", entries("c@x.cz"), part=Part(IMPORT, "r"))
    lines = await sending.desk.audit("m1", "", 10)
    assert [msgspec.json.decode(each.line).get("facts") for each in lines] == [{"added": "1"}, {"added": "1"}, None, {"added": "1"}]
    assert lines[1].at_ms <= at / 1000


async def test_a_run_that_was_broken_off_is_told_before_the_purge(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r", is_last=False))
    ends = await sending.desk.now_us() - 11 * 86400e6
    await sending.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ends:.0f}"})
    assert await sending.desk.purge("m1", b'{"what":"purged"}') == "done"
    assert [each["what"] for each in await told(sending)] == ["suppress.import", "purged"]
    assert await sending.desk.account("m1") == {}


async def test_a_purge_that_begins_takes_the_last_of_a_run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is noted between the mark and the purge's look at the runs: the list takes nothing more."""
    bench = redis_bench(redis_url)
    await bench.account()
    ends = await bench.desk.now_us() - 11 * 86400e6
    await bench.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r", is_last=False))
    await bench.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ends:.0f}"})
    await bench.desk.suppress("m1", entries("b@x.cz"), part=Part(IMPORT, "r", is_last=False))
    fill = trail.fill

    async def late(*args: Any) -> None:
        assert await bench.desk.suppress("m1", entries("c@x.cz"), part=Part(IMPORT, "r")) is None
        assert await bench.desk.unsuppress("m1", [b"a@x.cz"], part=Part(IMPORT, "q")) == 0
        await fill(*args)

    monkeypatch.setattr(trail, "fill", late)
    assert await bench.desk.purge("m1", b'{"what":"purged"}') == "done"
    monkeypatch.undo()
    assert await facts(bench) == [{"added": "2"}, {}]
    await bench.close()


async def test_what_is_noted_in_mid_purge_takes_no_number_of_a_run(redis_url: str) -> None:
    bench = redis_bench(redis_url)
    await bench.account()
    await bench.desk.suppress("m1", entries("a@x.cz"), part=Part(IMPORT, "r", is_last=False))
    await bench.desk.set_account("m1", {"purging": "1"})
    await bench.desk.note("m1", b'{"what":"meanwhile"}')
    assert [each["what"] for each in await told(bench)] == ["suppress.import", "meanwhile"]
    await bench.close()


async def test_of_an_account_whose_purge_has_begun_the_list_stays_as_it_is(sending: Bench) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz"))
    assert await sending.desk.set_account("m1", {"purging": "1"})
    assert await sending.desk.suppress("m1", entries("b@x.cz"), part=Part(LINE)) is None
    assert await sending.desk.unsuppress("m1", [b"a@x.cz"], part=Part(LINE)) == 0
    assert await sending.desk.count_suppressed("m1") == 1


async def test_no_account_leaves_no_line(bench: Bench) -> None:
    assert await bench.desk.suppress("m1", entries("a@x.cz"), part=Part(LINE)) is None
    assert await bench.desk.unsuppress("m1", [b"a@x.cz"], part=Part(LINE)) == 0
    assert await told(bench) == []
    assert await bench.desk.account("m1") == {}


async def test_a_complaint_counts_with_the_change_it_makes(sending: Bench) -> None:
    await sending.queue.health("m1", 24)
    await sending.desk.suppress("m1", entries("a@x.cz"))
    complained = entries("a@x.cz", "b@x.cz", reason=Reason.COMPLAINED)
    for listed in (Listed(1, 1), Listed()):
        assert await sending.desk.suppress("m1", complained, are_complaints=True) == listed
    assert (await sending.queue.health("m1", 24)).complaints == 2


async def test_a_reading_ends_though_a_run_goes_on(sending: Bench) -> None:
    desk, after, read = sending.desk, "", 0
    await desk.suppress("m1", entries("first@x.cz"), part=Part(LINE))
    while lines := await desk.audit("m1", after, 1):
        after, read = lines[-1].entry, read + 1
        assert read < 20
        await desk.suppress("m1", entries(f"{read}@x.cz"), part=Part(IMPORT, "run", is_last=False))


async def test_a_trail_out_of_reach_does_not_undo_what_was_done(sending: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    move = trail.move

    async def away(*args: Any) -> None:
        raise Unavailable("its slot is away")

    monkeypatch.setattr(trail, "move", away)
    assert await sending.desk.suppress("m1", entries("a@x.cz"), part=Part(LINE)) == Listed(1, 0)
    assert await sending.desk.unsuppress("m1", [b"a@x.cz"], part=Part(LINE)) == 1
    assert await sending.desk.outbox.keep_hook("m1", "h", b"{}", line=LINE)
    monkeypatch.setattr(trail, "move", move)
    assert len(await told(sending)) == 3
