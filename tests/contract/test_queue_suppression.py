"""The list of those who get nothing any more: what the desk writes, what a worker is told, and what an outcome says of its address."""

from __future__ import annotations

import pytest
from queue_bench import NOON, Bench, outcomes, settlement

from sendengine.policy.suppression import Limits, Listed, Mark, Reason, encode, pack_mark, reason_of
from sendengine.ports import Late
from sendengine.types import Outcome

AT = NOON / 1e6
LIMITS = Limits(soft=3, full=5)


def entries(*names: str, reason: Reason = Reason.MANUAL, at: float = AT) -> dict[bytes, bytes]:
    return {name.encode(): encode(reason, at) for name in names}


async def reason(bench: Bench, name: str) -> Reason | None:
    [entry] = await bench.desk.suppressed("m1", [name.encode()])
    return None if entry is None else reason_of(entry)


async def listed(bench: Bench) -> int:
    return (await bench.visit(0, [])).listed


async def everybody(bench: Bench, limit: int = 100) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    cursor = 0
    while True:
        cursor, some = await bench.desk.suppressions("m1", cursor, limit)
        found.update(some)
        if not cursor:
            return found


@pytest.fixture
async def sending(bench: Bench) -> Bench:
    await bench.account()
    return bench


async def test_without_a_list_a_visit_says_so(sending: Bench) -> None:
    assert await listed(sending) == -1
    assert (await sending.queue.standings("m1", [b"a@x.cz"])).barred == {}
    assert await everybody(sending) == {}
    assert await sending.desk.count_suppressed("m1") == 0


async def test_no_account_gets_no_list(bench: Bench) -> None:
    assert await bench.desk.suppress("m1", entries("a@x.cz")) is None
    assert await bench.desk.account("m1") == {}
    assert await bench.desk.count_suppressed("m1") == 0


async def test_an_address_is_added_found_and_removed(sending: Bench) -> None:
    assert await sending.desk.suppress("m1", entries("a@x.cz", "b@x.cz")) == Listed(2)
    found = await sending.queue.standings("m1", [b"c@x.cz", b"b@x.cz", b"a@x.cz"])
    assert (sorted(found.barred), found.soft) == ([1, 2], frozenset())
    assert await listed(sending) == 2
    assert await sending.desk.unsuppress("m1", [b"a@x.cz", b"z@x.cz"]) == 1
    assert await everybody(sending) == entries("b@x.cz")
    assert await sending.desk.suppressed("m1", [b"a@x.cz", b"b@x.cz"]) == [None, encode(Reason.MANUAL, AT)]


async def test_a_repeat_changes_nothing_and_is_told_again(sending: Bench) -> None:
    await sending.queue.register("w1", b"token")
    for new in (1, 0):
        assert await sending.desk.suppress("m1", entries("a@x.cz", at=AT + new)) == Listed(new)
    assert await everybody(sending) == entries("a@x.cz", at=AT + 1)
    told = (await sending.queue.append("w1", b"token", 0, [], [])).news
    assert [(news.account, news.cut, news.listed) for news in told] == [("m1", 0, 1)] * 2


async def test_a_part_that_does_not_tell_tells_nobody(sending: Bench) -> None:
    await sending.queue.register("w1", b"token")
    assert await sending.desk.suppress("m1", entries("a@x.cz"), tells=False) == Listed(1)
    assert (await sending.queue.append("w1", b"token", 0, [], [])).news == ()
    assert await listed(sending) == 1


@pytest.mark.parametrize("first", Reason)
@pytest.mark.parametrize("second", Reason)
async def test_the_graver_reason_stands(sending: Bench, first: Reason, second: Reason) -> None:
    await sending.desk.suppress("m1", entries("a@x.cz", reason=first, at=AT))
    order = list(Reason)
    is_graver = order.index(second) > order.index(first)
    assert await sending.desk.suppress("m1", entries("a@x.cz", reason=second, at=AT + 9)) == Listed(0, is_graver)
    assert await everybody(sending) == entries("a@x.cz", reason=second if is_graver else first, at=AT + 9 * is_graver)
    assert await listed(sending) == 1 + is_graver
    assert await sending.desk.count_suppressed("m1") == 1


async def test_who_came_late_is_named_in_order(sending: Bench) -> None:
    for name in "abc":
        await sending.desk.suppress("m1", entries(f"{name}@x.cz"))
    assert await sending.queue.late("m1", 0) == Late(3, [b"a@x.cz", b"b@x.cz", b"c@x.cz"])
    assert await sending.queue.late("m1", 2) == Late(3, [b"c@x.cz"])
    assert await sending.queue.late("m1", 3) == Late(3, [])
    assert await sending.queue.late("m1", 4) == Late(3, None), "a number that is not reached yet: the list went back"


async def test_too_many_are_not_named(sending: Bench) -> None:
    for part in range(0, 1200, 400):
        await sending.desk.suppress("m1", entries(*(f"u{at}@x.cz" for at in range(part, part + 400))))
    late = await sending.queue.late("m1", 700)
    assert late.addresses is not None
    assert (late.listed, sorted(late.addresses)) == (1200, sorted(f"u{at}@x.cz".encode() for at in range(700, 1200)))
    assert await sending.queue.late("m1", 699) == Late(1200, None)
    assert len(await everybody(sending, limit=100)) == await sending.desk.count_suppressed("m1") == 1200


async def test_a_thousand_at_once(sending: Bench) -> None:
    assert await sending.desk.suppress("m1", entries(*(f"u{at}@x.cz" for at in range(1000)))) == Listed(1000)
    assert await sending.queue.late("m1", 0) == Late(1000, None)
    assert len((await sending.queue.standings("m1", [b"u%d@x.cz" % at for at in range(500, 1500)])).barred) == 500


# what outcomes say


async def leased(bench: Bench, n: int = 10) -> bytes:
    """The token of a lease of n rows."""
    await bench.campaign("c", n)
    [lease] = (await bench.take()).leases
    return lease.token


def mark(row: int, kind: Mark, address: bytes = b"a@x.cz") -> bytes:
    return pack_mark(row, kind, address, LIMITS)


async def test_a_hard_bounce_is_on_the_list_with_its_outcome(sending: Bench) -> None:
    token = await leased(sending)
    acted = await sending.settle(settlement(token, outcomes([3], Outcome.BOUNCED), marks=mark(3, Mark.HARD)))
    assert acted == (1,)
    assert await reason(sending, "a@x.cz") is Reason.HARD_BOUNCED
    assert (await sending.queue.late("m1", 0)).addresses == [b"a@x.cz"]
    since = (await sending.desk.suppressed("m1", [b"a@x.cz"]))[0]
    assert abs(int.from_bytes(since[1:], "little") - await sending.desk.now_us() / 1e6) < 60  # type: ignore[index]


async def test_a_mark_counts_once_however_often_it_is_settled(sending: Bench) -> None:
    token = await leased(sending)
    for _ in range(5):
        await sending.settle(settlement(token, outcomes([3], Outcome.BOUNCED), marks=mark(3, Mark.SOFT)))
    assert await reason(sending, "a@x.cz") is None
    await sending.settle(settlement(token, outcomes([4, 5], Outcome.BOUNCED), marks=mark(4, Mark.SOFT)))
    await sending.settle(settlement(token, outcomes([6], Outcome.BOUNCED), marks=mark(6, Mark.SOFT)))
    assert await reason(sending, "a@x.cz") is Reason.SOFT_BOUNCED


async def test_no_lease_no_mark(sending: Bench) -> None:
    await leased(sending)
    assert await sending.settle(settlement(b"othertok", outcomes([3], Outcome.BOUNCED), marks=mark(3, Mark.HARD))) == (0,)
    assert await reason(sending, "a@x.cz") is None
    assert await listed(sending) == -1


@pytest.mark.parametrize(("kind", "enough"), [(Mark.SOFT, LIMITS.soft), (Mark.FULL, LIMITS.full)])
async def test_so_many_in_a_row_are_enough(sending: Bench, kind: Mark, enough: int) -> None:
    token = await leased(sending)
    for row in range(enough):
        assert await reason(sending, "a@x.cz") is None
        assert (await sending.queue.standings("m1", [b"a@x.cz"])).soft == (frozenset([0]) if row else frozenset())
        await sending.settle(settlement(token, outcomes([row], Outcome.BOUNCED), marks=mark(row, kind)))
        assert await listed(sending) == (row == enough - 1), "0: there is something to ask for, and nobody on the list"
    assert await reason(sending, "a@x.cz") is Reason.SOFT_BOUNCED
    assert (await sending.queue.standings("m1", [b"a@x.cz"])).soft == frozenset(), "who comes off the list begins anew"


async def test_soft_and_full_are_counted_apart(sending: Bench) -> None:
    token = await leased(sending)
    kinds = [Mark.SOFT, Mark.FULL] * 2 + [Mark.FULL] * 2
    for row, kind in enumerate(kinds):
        await sending.settle(settlement(token, outcomes([row], Outcome.BOUNCED), marks=mark(row, kind)))
    assert await reason(sending, "a@x.cz") is None
    await sending.settle(settlement(token, outcomes([8], Outcome.BOUNCED), marks=mark(8, Mark.FULL)))
    assert await reason(sending, "a@x.cz") is Reason.SOFT_BOUNCED


async def test_a_success_begins_the_count_anew(sending: Bench) -> None:
    token = await leased(sending)
    kinds = [Mark.SOFT, Mark.SOFT, Mark.GOOD, Mark.SOFT, Mark.SOFT]
    for row, kind in enumerate(kinds):
        await sending.settle(settlement(token, outcomes([row]), marks=mark(row, kind)))
    assert await reason(sending, "a@x.cz") is None
    await sending.settle(settlement(token, outcomes([7]), marks=mark(7, Mark.SOFT)))
    assert await reason(sending, "a@x.cz") is Reason.SOFT_BOUNCED


async def test_without_a_limit_none_is_enough(sending: Bench) -> None:
    token = await leased(sending, 100)
    for row in range(0, 100, 10):
        marks = b"".join(pack_mark(row, Mark.SOFT, b"a@x.cz", Limits(soft=0)) for row in range(row, row + 10))
        await sending.settle(settlement(token, outcomes(range(row, row + 10)), marks=marks))
    assert await reason(sending, "a@x.cz") is None


async def test_of_several_marks_on_one_address_in_a_settlement_the_first_counts(sending: Bench) -> None:
    token = await leased(sending)
    marks = mark(9, Mark.HARD, b"b@x.cz") + mark(1, Mark.SOFT) + mark(2, Mark.HARD)
    await sending.settle(settlement(token, outcomes([1, 2, 9]), marks=marks))
    assert (await reason(sending, "a@x.cz"), await reason(sending, "b@x.cz")) == (None, Reason.HARD_BOUNCED)


async def test_the_payload_of_a_batch(sending: Bench) -> None:
    token = await leased(sending)
    del token
    [(_, payload)] = [each for each in await sending.desk.batches("m1", "c", [0]) if each]
    assert await sending.queue.payload("m1", "c", 0) == payload
    assert await sending.queue.payload("m1", "c", 1) is None
    assert await sending.queue.payload("m1", "other", 0) is None
    assert await sending.queue.payload("m2", "c", 0) is None
