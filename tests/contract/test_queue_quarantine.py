"""Batches that workers die of: counted by their rescuers, set aside at the third, replayed on request (docs/design/010)."""

from __future__ import annotations

import pytest
from queue_bench import Bench, deferred, doubts, ended, outcomes, rows, settlement

from sendengine.ports import Blame, Leased

ALL = range(100)


@pytest.fixture
async def loaded(bench: Bench) -> Bench:
    await bench.account()
    await bench.campaign("c", 200)
    return bench


async def take_both(bench: Bench) -> dict[int, Leased]:
    return {lease.batch: lease for lease in (await bench.take()).leases}


async def die(bench: Bench, times: int) -> None:
    """So many workers die with batch 0 in hand and nothing come of it; the other batch is given back as it was."""
    for _ in range(times):
        leases = await take_both(bench)
        await bench.settle(settlement(leases[0].token, back=ALL, blame=Blame.KILL), settlement(leases[1].token, back=ALL))


async def test_third_kill_sets_a_batch_aside_and_no_other(loaded: Bench) -> None:
    await die(loaded, 2)
    assert await loaded.where("c") == {"ready": 200, "leased": 0, "retry": 0}
    await die(loaded, 1)
    assert await loaded.where("c") == {"ready": 100, "leased": 0, "retry": 0, "aside": 100}
    assert (await loaded.fields("c"))["quarantined"] == "100"
    assert list(await take_both(loaded)) == [1]


async def test_suspicion_alone_never_sets_a_batch_aside(loaded: Bench) -> None:
    for _ in range(4):
        leases = await take_both(loaded)
        await loaded.settle(settlement(leases[0].token, back=ALL, blame=Blame.SUSPECT), settlement(leases[1].token, back=ALL))
    assert {k: lease.kills for k, lease in (await take_both(loaded)).items()} == {0: 1, 1: 0}


async def test_kills_are_told_by_the_take(loaded: Bench) -> None:
    await die(loaded, 2)
    assert {k: lease.kills for k, lease in (await take_both(loaded)).items()} == {0: 2, 1: 0}


@pytest.mark.parametrize("progress", [{"finals": outcomes([7])}, {"deferred": deferred([7], 3_600_000)}])
async def test_progress_begins_the_count_anew(loaded: Bench, progress: dict[str, bytes]) -> None:
    await die(loaded, 2)
    leases = await take_both(loaded)
    rest = [row for row in ALL if row != 7]
    await loaded.settle(settlement(leases[0].token, **progress, back=rest), settlement(leases[1].token, back=ALL))  # type: ignore[arg-type]
    await die(loaded, 2)
    assert "aside" not in await loaded.where("c")
    await die(loaded, 1)
    assert (await loaded.where("c"))["aside"] == 99


async def test_progress_within_the_last_breath_counts(loaded: Bench) -> None:
    await die(loaded, 2)
    leases = await take_both(loaded)
    await loaded.settle(settlement(leases[0].token, outcomes([7]), back=ALL, blame=Blame.KILL), settlement(leases[1].token, back=ALL))
    assert "aside" not in await loaded.where("c")
    assert {k: lease.kills for k, lease in (await take_both(loaded)).items()} == {0: 1, 1: 0}


async def test_doubts_that_would_be_sent_again_are_set_aside_too(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, max_doubt="9")
    for _ in range(3):
        first, *others = (await bench.take()).leases
        await bench.settle(
            settlement(first.token, doubts=doubts([0, 1]), back=ALL, blame=Blame.KILL),
            *(settlement(other.token, back=ALL) for other in others),
        )
    assert (await bench.where("c"))["aside"] == len(rows(first))
    assert 0 < len(rows(first)) <= 10


async def test_unknown_is_no_progress(bench: Bench) -> None:
    await bench.account()
    await bench.campaign("c", 10, on_doubt="hold")
    for row in range(3):
        [lease] = (await bench.take()).leases
        await bench.settle(settlement(lease.token, doubts=doubts([row]), back=ALL, blame=Blame.KILL))
    assert ended(await bench.fields("c")) == {"unknown": 3}
    assert (await bench.where("c"))["aside"] == 7


async def test_replay_makes_it_ready_and_forgives(loaded: Bench) -> None:
    await die(loaded, 3)
    assert await loaded.desk.replay("m1", "c") == "done"
    assert await loaded.where("c") == {"ready": 200, "leased": 0, "retry": 0}
    assert "quarantined" not in await loaded.fields("c")
    assert {k: lease.kills for k, lease in (await take_both(loaded)).items()} == {0: 0, 1: 0}
    assert await loaded.desk.replay("m1", "other") == "missing"


async def test_cancel_ends_what_was_set_aside(loaded: Bench) -> None:
    await die(loaded, 3)
    assert await loaded.desk.cancel("m1", "c") == "done"
    fields = await loaded.fields("c")
    assert ended(fields) == {"cancelled": 200}
    assert "quarantined" not in fields
    assert await loaded.where("c") == {"ready": 0, "leased": 0, "retry": 0}
    assert await loaded.desk.replay("m1", "c") == "cancelled"


async def test_send_with_rows_set_aside_does_not_finish(loaded: Bench) -> None:
    await die(loaded, 3)
    [lease] = (await loaded.take()).leases
    await loaded.settle(settlement(lease.token, outcomes(ALL)))
    assert (await loaded.fields("c"))["state"] == "sending"
    need, _ = await loaded.queue.need("m1")
    assert need == -1
