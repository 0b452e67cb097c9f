"""What a scheduler can rely on: the Client against a real server and against the in-memory twin."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sendengine.client import Client
from sendengine.commands import views
from sendengine.config import Config
from sendengine.errors import Conflict, NotFound, RefusedInput, Unavailable
from sendengine.intake import PackedBatch, Rejected
from sendengine.policy.times import format_time, parse_time
from sendengine.ports import Desk, Settlement, Stored
from sendengine.queue import keys
from sendengine.queue.desk import RedisDesk
from sendengine.queue.memory import MemoryQueue
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.queue.redis import RedisQueue
from sendengine.records import DEFERRED, FIRST_TRY, NUMS, OUTCOME, rows_of
from sendengine.render.message import Message
from sendengine.scheduler.status import status
from sendengine.scheduler.view import look, wall
from sendengine.types import Outcome, Relay, TlsPolicy

MESSAGE = Message(sender="Shop <news@shop.example>", subject="Hi {{ name }}", text="Hello {{ name }}")


class Bench:
    """A client and, beside it, the queue as a worker sees it."""

    def __init__(self, desk: Desk, queue: MemoryQueue | RedisQueue) -> None:
        self.desk, self.queue = desk, queue
        self.client = Client(desk=desk, config=Config())

    async def submit(self, rows: list[dict[str, Any]], campaign: str = "summer", **more: Any) -> Any:
        return await self.client.submit(account="m1", message=MESSAGE, recipients=rows, campaign=campaign, **more)

    async def fall_silent(self, worker: str, seconds: float) -> None:
        """Its last word becomes so old."""
        if isinstance(self.queue, MemoryQueue):
            infos = self.queue._store.infos
            infos[worker] = (infos[worker][0] - seconds * 1e6, infos[worker][1])
        else:
            await self.queue._link.call("PEXPIRE", keys.info(worker), int((keys.INFO_SECONDS - seconds) * 1000))

    async def send_all(self, outcome: Outcome = Outcome.SENT, but: Outcome = Outcome.SENT) -> None:
        """As a worker would: take everything of m1 and settle it, row 0 of each batch with `but`."""
        worker = os.urandom(4).hex()
        await self.queue.register(worker, b"worker-t")
        while leases := (await self.queue.take("m1", worker, 10_000, [os.urandom(8) for _ in range(50)], [], [])).leases:
            now = time.time()
            settlements = []
            for lease in leases:
                rows = rows_of(lease.mask)
                results = [but if row == 0 else outcome for row in rows]
                records = b"".join(
                    OUTCOME.pack(row, result | 8, 1, 1, int(now * 1000) % 2**32, 0.25, 0.5, 0)
                    for row, result in zip(rows, results, strict=True)
                )
                counts = [results.count(each) for each in Outcome]
                nums = NUMS.pack(*counts, len(rows), len(rows), now * 1e6, now * 1e6, now * 1e6)
                dictionary = b'{"1":["2.0.0","250 2.0.0 taken","mx.example:25"]}'
                settlements.append(Settlement(lease.token, lease.mask, records, dictionary, nums))
            await self.queue.visit("m1", 0, 1e6, "=", [], settlements)


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        store = MemoryStore()
        desk: Desk = MemoryDesk(store, lambda: time.time() * 1e6)
        queue: MemoryQueue | RedisQueue = MemoryQueue(store, lambda: time.time() * 1e6)
    else:
        url = request.getfixturevalue("redis_url")
        desk, queue = RedisDesk(url), RedisQueue(url)
    made = Bench(desk, queue)
    async with made.client:
        await made.client.create_account("m1", "60k")
        yield made
    await queue.close()
    await desk.close()


def people(count: int) -> list[dict[str, Any]]:
    return [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in range(count)]


async def found(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


# accounts


async def test_account_created_twice_stands_once(bench: Bench) -> None:
    again = await bench.client.create_account("m1", "60k")
    assert (again.tier, again.rate) == ("60k", 60_000.0)


async def test_account_with_another_tier_is_a_conflict(bench: Bench) -> None:
    with pytest.raises(Conflict, match="another tier"):
        await bench.client.create_account("m1", "100k")


@pytest.mark.parametrize("account", ["m0", "m01", "1234", "m", "m1234567890123456789", "m1 "])
async def test_malformed_account_is_refused(bench: Bench, account: str) -> None:
    with pytest.raises(RefusedInput, match="no account id"):
        await bench.client.create_account(account, "60k")


async def test_set_tier_writes_rate_and_interval_together(bench: Bench) -> None:
    await bench.client.set_tier("m1", "7200")
    fields = await bench.desk.account("m1")
    assert (fields["tier"], float(fields["rate"]), float(fields["iv"])) == ("7200", 7200.0, 500_000.0)


async def test_boost_is_in_force_and_hastens_the_estimate(bench: Bench) -> None:
    await bench.client.set_tier("m1", "3600")
    await bench.submit([{"email": f"u{i}@example.com", "name": "N"} for i in range(300)])
    slow = (await bench.client.status("summer")).finish_estimate
    account = await bench.client.boost("m1", "36000/h", until="+100s", who="ops", why="sale")
    quick = (await bench.client.status("summer")).finish_estimate
    assert (account.tier, account.rate) == ("3600", 36_000.0)
    assert [(each.boost, each.rate, each.who, each.why) for each in account.boosts] == [(1, 36_000.0, "ops", "sale")]
    assert slow is not None
    assert quick is not None
    assert (slow - quick).total_seconds() == pytest.approx(270, abs=3)
    assert (await bench.client.status("summer")).rate_contracted == 36_000.0


async def test_boost_to_come_is_part_of_the_estimate_and_can_be_withdrawn(bench: Bench) -> None:
    await bench.client.set_tier("m1", "3600")
    plain = await bench.client.estimate("m1", 300)
    account = await bench.client.boost("m1", "36000/h", start="+100s", until="+1h")
    planned = await bench.client.estimate("m1", 300)
    assert account.rate == 3600.0
    assert plain.seconds == pytest.approx(299, abs=1)
    assert planned.seconds == pytest.approx(120, abs=1)
    account = await bench.client.end_boost("m1", 1)
    assert account.boosts == []
    assert (await bench.client.estimate("m1", 300)).seconds == pytest.approx(299, abs=1)
    with pytest.raises(NotFound, match="no boost 1"):
        await bench.client.end_boost("m1", 1)


@pytest.mark.parametrize(
    ("rate", "until", "error"),
    [
        ("unmetered", "+1h", RefusedInput), ("36000/h", "now", RefusedInput), ("36000/h", "2001-01-01 00:00", RefusedInput),
        ("60q", "+1h", RefusedInput),
    ],
)
async def test_boost_that_cannot_be(bench: Bench, rate: str, until: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await bench.client.boost("m1", rate, until=until)
    assert (await bench.client.account("m1")).boosts == []


async def test_created_interval_is_that_of_set_tier(bench: Bench) -> None:
    await bench.client.create_account("m2", "2300")
    created = await bench.desk.account("m2")
    await bench.client.set_tier("m2", "2300")
    assert (await bench.desk.account("m2"))["iv"] == created["iv"]


async def test_unmetered_account_has_no_contracted_rate(bench: Bench) -> None:
    account = await bench.client.create_account("m2", "unmetered")
    assert account.rate is None
    assert (await bench.desk.account("m2"))["iv"] in ("0", "0.000")


async def test_set_relay_changes_only_the_relay(bench: Bench) -> None:
    account = await bench.client.set_relay("m1", Relay("mx.example", 587))
    assert (account.relay, account.tier, account.rate) == ("mx.example:587", "60k", 60_000.0)
    with pytest.raises(NotFound):
        await bench.client.set_relay("m9", Relay("mx.example", 587))


@pytest.mark.parametrize("other", ["smtp://other.example:2527", Relay("other.example", 2527)])
async def test_another_relay_keeps_the_tls_policy_of_the_one_before(bench: Bench, other: Relay | str) -> None:
    await bench.client.set_relay("m1", Relay("mx.example", 587, tls=TlsPolicy.VERIFY))
    moved = await bench.client.set_relay("m1", other)
    assert (moved.relay, moved.relay_tls) == ("other.example:2527", "verify")
    named = await bench.client.set_relay("m1", Relay("other.example", 2527, tls=TlsPolicy.NONE))
    assert named.relay_tls == "none"


@pytest.mark.parametrize(("tier", "verb"), [("60k", "set-relay"), ("100k", "set-tier")])
async def test_account_created_otherwise_names_the_verb_that_changes_it(bench: Bench, tier: str, verb: str) -> None:
    relay = Relay("mx.example", 587, "u", "secret") if verb == "set-relay" else None
    with pytest.raises(Conflict) as raised:
        await bench.client.create_account("m1", tier, relay=relay)
    assert f"account {verb} m1 " in raised.value.remedy
    assert "secret" not in raised.value.remedy


async def test_relay_is_shown_without_its_password(bench: Bench) -> None:
    account = await bench.client.create_account("m2", "60k", relay=Relay("mx.example", 587, "u", "secret"))
    assert account.relay == "mx.example:587"
    assert "secret" not in repr(account)


async def test_relay_may_be_given_by_its_url(bench: Bench) -> None:
    assert (await bench.client.create_account("m2", "60k", relay="smtp://mx.example:2525")).relay == "mx.example:2525"
    assert (await bench.client.set_relay("m2", "smtps://mx.example")).relay == "mx.example:465"


@pytest.mark.parametrize("relay", ["mx.example:25", 25, {"host": "mx.example"}, Relay("mx.example", "25"), Relay("", 25), Relay("mx", 0)])  # type: ignore[arg-type]
async def test_what_is_no_relay_is_refused_before_it_is_stored(bench: Bench, relay: Any) -> None:
    with pytest.raises(RefusedInput, match="relay"):
        await bench.client.create_account("m2", "60k", relay=relay)
    with pytest.raises(RefusedInput, match="relay"):
        await bench.client.set_relay("m1", relay)
    assert await bench.desk.accounts() == ["m1"]
    assert (await bench.client.account("m1")).relay is None


async def test_account_whose_relay_cannot_be_read_hides_no_other(bench: Bench) -> None:
    await bench.desk.set_account("m1", {"relay": '"smtp://mx.example"'})
    await bench.client.create_account("m2", "60k", relay="smtp://mx.example")
    assert {each.account: each.relay for each in await found(bench.client.accounts())} == {"m1": "unreadable", "m2": "mx.example:25"}


async def test_retry_schedule_of_an_account_is_kept_and_taken_back(bench: Bench) -> None:
    await bench.client.create_account("m2", "60k", retry="1m,5m * 2")
    with pytest.raises(Conflict, match="retry"):
        await bench.client.create_account("m2", "60k", retry="1m")
    assert (await bench.client.account("m2")).retry == "1m, 5m*2"
    assert (await bench.client.set_relay("m2", retry="2h")).retry == "2h"
    assert (await bench.client.set_relay("m2", retry="")).retry is None
    await bench.client.create_account("m2", "60k")
    with pytest.raises(RefusedInput, match="no step"):
        await bench.client.set_relay("m2", retry="soon")


async def test_unknown_account_names_the_nearest(bench: Bench) -> None:
    with pytest.raises(NotFound, match="'m1'"):
        await bench.client.account("m11")


# submitting


async def test_submit_counts_rows_rejects_and_duplicates(bench: Bench) -> None:
    rows = [*people(250), {"email": "nobody", "name": "x"}, {"email": "p0@EXAMPLE.org ", "name": "again"}, {"email": "q@example.org"}]
    rejected: list[Rejected] = []
    send = await bench.submit(rows, on_reject=rejected.extend)
    assert (send.id, send.created, send.sealed) == ("m1:summer", True, True)
    assert (send.rows, send.accepted, send.rejected, send.duplicates) == (253, 250, 2, 1)
    assert [(row.row, row.line) for row in rejected] == [(250, 251), (252, 253)]


async def test_submit_estimates_its_end_from_the_rate(bench: Bench) -> None:
    before = time.time()
    send = await bench.submit(people(1000))
    assert 59.0 < send.finish_estimate.timestamp() - before < 62.0


async def test_submit_from_an_async_iterable(bench: Bench) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for row in people(150):
            yield row

    send = await bench.client.submit(account="m1", message=MESSAGE, recipients=rows())
    assert send.accepted == 150


async def test_field_is_found_case_blindly_where_that_is_one_column(bench: Bench) -> None:
    rows = [{"Email": "a@x.org", "Name": "A"}, {"email": "b@x.org", "NAME": "B"}, {"email": "c@x.org", "NAME": "C", "Name": "D"}]
    send = await bench.submit(rows)
    assert (send.accepted, send.rejected) == (2, 1)


async def test_field_in_no_column_is_reported_with_the_nearest(bench: Bench) -> None:
    message = Message(sender="a@x.org", subject="x", text="{{ name | default('you') }} {{ town | default('there') }}")
    told: list[tuple[str, str]] = []
    rows = [*people(150), {"email": "z@x.org", "towns": "Brno"}]
    await bench.client.submit(account="m1", message=message, recipients=rows, on_absent=lambda *said: told.append(said))
    assert told == [("town", "towns")]


async def test_submit_repeated_changes_nothing(bench: Bench) -> None:
    first = await bench.submit(people(250))
    second = await bench.submit(people(250))
    assert (second.created, second.rows, second.accepted) == (False, 250, 250)
    assert second.id == first.id
    assert len(await bench.desk.campaigns("m1")) == 1


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ([*people(120), {"email": "other@example.org", "name": "N120"}, *people(250)[121:]], 120),
        ([*people(249), {"email": "p249@example.org", "name": "another"}], 249),
        (people(249), 249),
        (people(200), 200),
        (people(251), 250),
        (people(400), 250),
    ],
)
async def test_same_id_with_other_rows_names_the_first_that_differs(bench: Bench, rows: list[dict[str, Any]], row: int) -> None:
    await bench.submit(people(250))
    with pytest.raises(Conflict, match=rf"row {row}\b"):
        await bench.submit(rows)
    assert (await bench.client.status("summer")).rows == 250


async def test_conflict_with_a_file_names_the_line(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('email,name\na@x.org,"A\nA"\nb@x.org,B\n')
    message = Message(sender="a@shop.example", subject="x", text="{{ name }}")
    await bench.client.submit(account="m1", message=message, recipients=path, campaign="c")
    path.write_text('email,name\na@x.org,"A\nA"\nc@x.org,B\n')
    with pytest.raises(Conflict, match=r"row 1 \(line 4\)"):
        await bench.client.submit(account="m1", message=message, recipients=path, campaign="c")


async def test_same_id_with_another_message_names_what_differs(bench: Bench) -> None:
    await bench.submit(people(1))
    other = Message(sender="Shop <news@shop.example>", subject="other", text="Hello {{ name }}")
    with pytest.raises(Conflict, match="another message"):
        await bench.client.submit(account="m1", message=other, recipients=people(1), campaign="summer")


async def test_interrupted_submit_goes_on_where_it_stopped(bench: Bench) -> None:
    class Breaking:
        """Away at the third batch, once."""

        def __init__(self, desk: Desk) -> None:
            self._desk = desk

        def __getattr__(self, name: str) -> Any:
            return getattr(self._desk, name)

        async def submit(self, account: str, campaign: str, batch: PackedBatch, **more: Any) -> Stored:
            if batch.number >= 2:
                raise Unavailable("away")
            return await self._desk.submit(account, campaign, batch, **more)

    broken: Any = Breaking(bench.desk)
    async with Client(desk=broken, config=Config()) as client:
        with pytest.raises(Unavailable, match="away") as raised:
            await client.submit(account="m1", message=MESSAGE, recipients=people(1000), campaign="summer")
    assert "--campaign summer" in raised.value.remedy
    send = await bench.submit(people(1000))
    assert (send.created, send.added, send.rows, send.accepted, send.duplicates, send.sealed) == (False, 800, 1000, 1000, 0, True)
    assert (await bench.submit(people(1000))).added == 0


async def test_list_that_broke_off_before_its_last_rows_may_have_become_longer(bench: Bench) -> None:
    """Only the seal ends a list: rows of a batch that is not full are stored with it, or not at all."""

    class Breaking:
        """Away for the last batch: before it is stored, or just behind."""

        def __init__(self, desk: Desk, behind: bool) -> None:
            self._desk, self._behind = desk, behind

        def __getattr__(self, name: str) -> Any:
            return getattr(self._desk, name)

        async def submit(self, account: str, campaign: str, batch: PackedBatch, is_last: bool = False, **more: Any) -> Stored:
            stored = await self._desk.submit(account, campaign, batch, is_last, **more) if self._behind or not is_last else None
            if is_last or stored is None:
                raise Unavailable("away")
            return stored

    for campaign, behind in (("before", False), ("behind", True)):
        broken: Any = Breaking(bench.desk, behind)
        async with Client(desk=broken, config=Config()) as client:
            with pytest.raises(Unavailable):
                await client.submit(account="m1", message=MESSAGE, recipients=people(250), campaign=campaign)
    stood = [await bench.client.status(campaign) for campaign in ("m1:before", "m1:behind")]
    assert [(each.rows, each.sealed) for each in stood] == [(200, False), (250, True)]
    longer = await bench.submit(people(370), campaign="before")
    assert (longer.rows, longer.added, longer.sealed) == (370, 170, True)
    with pytest.raises(Conflict, match=r"ended before this row; the first that differs is row 250\b"):
        await bench.submit(people(370), campaign="behind")
    with pytest.raises(Conflict, match=r"rows beyond the 240 of this list; the first that differs is row 240\b"):
        await bench.submit(people(240), campaign="behind")
    assert (await bench.submit(people(250), campaign="behind")).added == 0


async def test_strict_creates_nothing_when_a_row_is_bad(bench: Bench) -> None:
    with pytest.raises(RefusedInput, match="line 251: "):
        await bench.submit([*people(250), {"email": "bad", "name": "x"}], strict=True)
    assert await bench.desk.campaigns("m1") == []


async def test_strict_sends_a_good_list(bench: Bench) -> None:
    send = await bench.submit(people(250), strict=True)
    assert (send.accepted, send.state) == (250, "sending")


@pytest.mark.parametrize("campaign", ["transactional", "-x", "a:b", "a" * 65, "a b"])
async def test_campaign_id_that_cannot_be_is_refused(bench: Bench, campaign: str) -> None:
    with pytest.raises(RefusedInput):
        await bench.submit(people(1), campaign=campaign)


async def test_empty_list_is_refused(bench: Bench) -> None:
    with pytest.raises(RefusedInput, match="is empty"):
        await bench.submit([])
    assert await bench.desk.campaigns("m1") == []


async def test_list_of_which_nothing_can_be_sent_leaves_its_id_free(bench: Bench) -> None:
    bad = [{"email": "bad", "name": str(n)} for n in range(250)]
    with pytest.raises(RefusedInput, match=r"nothing can be sent.*250 rows.*line 1: an address needs an @; line 2"):
        await bench.submit(bad, campaign="c")
    assert await bench.desk.campaigns("m1") == []
    send = await bench.submit([*bad, *people(1)], campaign="c")
    assert (send.created, send.rows, send.accepted, send.rejected) == (True, 251, 1, 250)


async def test_list_without_a_column_email_is_refused(bench: Bench) -> None:
    with pytest.raises(RefusedInput, match="no column 'email'; the nearest is 'mail'"):
        await bench.submit([{"mail": "a@x.org", "name": "A"}, {"name": "B"}])
    assert await found(bench.client.list()) == []


async def test_second_account_makes_the_bare_id_ambiguous(bench: Bench) -> None:
    await bench.client.create_account("m2", "60k")
    await bench.submit(people(1))
    await bench.client.submit(account="m2", message=MESSAGE, recipients=people(2), campaign="summer")
    with pytest.raises(RefusedInput, match="2 accounts"):
        await bench.client.status("summer")
    assert (await bench.client.status("m2:summer")).accepted == 2


async def test_unknown_campaign_names_the_nearest(bench: Bench) -> None:
    await bench.submit(people(1))
    with pytest.raises(NotFound, match="'summer'"):
        await bench.client.status("sumer")


# steering and looking


async def test_state_binds_before_anything_else(bench: Bench) -> None:
    await bench.submit(people(10))
    paused = await bench.client.pause("summer")
    assert (paused.state, paused.finish_estimate) == ("paused", None)
    assert paused.binding is not None
    assert paused.binding.limit == "paused"
    assert (await bench.client.resume("summer")).state == "sending"


async def test_without_a_worker_no_worker_binds(bench: Bench) -> None:
    await bench.submit(people(10))
    binding = await bench.client.why("m1")
    assert binding is not None
    assert binding.limit == "no_worker"


async def _dead_worker_with_leases(bench: Bench) -> None:
    """Of m1; it last spoke eight seconds ago."""
    await bench.submit(people(10))
    await bench.queue.register("dead", b"worker-1")
    await bench.queue.tell("dead", b'{"host":"h","pid":41}')
    await bench.queue.take("m1", "dead", 100, [b"12345678"], [], [])
    await bench.fall_silent("dead", 8)


async def test_silence_of_the_only_worker_binds(bench: Bench) -> None:
    await _dead_worker_with_leases(bench)
    binding = await bench.client.why("summer")
    assert binding is not None
    assert binding.since is not None
    assert binding.limit == "no_worker"
    assert binding.since == await _since(bench, "runs_since"), "the send came after the worker's last word"
    silent = re.fullmatch(r"worker dead has been silent since (\S+): sendengine worker", binding.lift)
    assert silent is not None
    assert parse_time(silent[1], 0.0) == pytest.approx(time.time() - 8, abs=4)
    said = (await bench.client.workers())["dead"]
    assert (said["pid"], said["silent_s"], said["last_seen"].timestamp()) == (
        41, pytest.approx(8, abs=4), pytest.approx(time.time() - 8, abs=4),
    )  # fmt: skip


async def test_silence_of_who_holds_the_leases_binds_until_another_takes_over(bench: Bench) -> None:
    await _dead_worker_with_leases(bench)
    await bench.queue.register("alive", b"worker-2")
    await bench.queue.tell("alive", b"{}")
    binding = await bench.client.why("m1")
    assert binding is not None
    assert binding.limit == "no_worker"
    assert "worker dead has been silent since" in binding.lift
    assert "another takes over when that has lasted dead_after_s" in binding.lift
    await bench.submit(people(20), campaign="more")
    await bench.queue.take("m1", "alive", 100, [b"abcdefgh"], [], [])
    binding = await bench.client.why("m1")
    assert binding is not None
    assert binding.limit == "share", "somebody of those who hold the leases lives"


@pytest.mark.parametrize(("sends", "limit"), [(1, "rate"), (2, "share")])
async def test_running_send_is_bound_by_rate_or_share(bench: Bench, sends: int, limit: str) -> None:
    for number in range(sends):
        await bench.submit(people(10), campaign=f"c{number}")
    await bench.queue.register("w1", b"worker-1")
    await bench.queue.tell("w1", b"{}")
    binding = await bench.client.why("c0")
    assert binding is not None
    assert binding.limit == limit


async def _since(bench: Bench, *names: str, campaign: str = "summer") -> datetime:
    """The latest of these times of a send."""
    fields = await bench.desk.campaign("m1", campaign)
    return wall(max(int(fields[name]) for name in names) / 1e6)


async def _bound_since(bench: Bench, limit: str, campaign: str = "summer") -> datetime:
    binding = await bench.client.why(campaign)
    assert binding is not None
    assert (binding.limit, binding.since is not None) == (limit, True)
    assert binding.since is not None
    return binding.since


async def _worker(bench: Bench) -> None:
    await bench.queue.register("w1", b"worker-1")
    await bench.queue.tell("w1", b"{}")


@pytest.mark.parametrize("verb", ["pause", "hold", "boost"])
async def test_rate_binds_since_nothing_else_does(bench: Bench, verb: str) -> None:
    await _worker(bench)
    await bench.submit(people(10))
    first = await _bound_since(bench, "rate")
    assert first == await _since(bench, "created", "runs_since")
    if verb == "pause":
        await bench.client.pause("summer")
        await bench.client.resume("summer")
        assert await _bound_since(bench, "rate") == await _since(bench, "resumed_at", "runs_since") > first
    elif verb == "hold":
        await bench.client.hold("m1", "content")
        await bench.client.release("m1", "content")
        idle_at = int((await bench.desk.account("m1"))["idle_at"])
        assert await _bound_since(bench, "rate") == wall(idle_at / 1e6) > first
    else:
        await bench.client.boost("m1", "120000/h", until="+100s", who="ops", why="sale")
        assert await _bound_since(bench, "rate") == first


async def test_a_relay_in_trouble_binds_no_send_before_it_was_there(bench: Bench) -> None:
    await _worker(bench)
    await bench.desk.set_account("m1", {"bind": "site|1000000|the relay answers"})
    await bench.submit(people(10))
    assert await _bound_since(bench, "site") == await _since(bench, "created", "runs_since")


async def test_share_binds_both_since_the_second_came(bench: Bench) -> None:
    await _worker(bench)
    await bench.submit(people(10), campaign="a")
    await bench.submit(people(10), campaign="b")
    assert await _bound_since(bench, "share", "a") == await _since(bench, "created", "runs_since", campaign="b")
    assert await _bound_since(bench, "share", "b") == await _since(bench, "created", "runs_since", campaign="b")


async def test_a_window_binds_since_it_closed_or_the_send_came_to_it(bench: Bench) -> None:
    await bench.submit(people(10), at="2099-01-01T00:00:00Z")
    assert await _bound_since(bench, "window") == await _since(bench, "created")
    await bench.client.pause("summer")
    await bench.client.resume("summer")
    assert await _bound_since(bench, "window") == await _since(bench, "resumed_at")
    today = datetime.now(UTC)
    elsewhere = (today + timedelta(days=3)).strftime("%a")
    await bench.submit(people(10), campaign="b", window=f"{elsewhere} 09:00-17:00 UTC")
    await bench.client.pause("b")
    await bench.client.resume("b")
    assert await _bound_since(bench, "window", "b") == await _since(bench, "resumed_at", campaign="b")


async def test_a_boost_in_force_is_named_where_the_rate_binds(bench: Bench) -> None:
    await _worker(bench)
    await bench.submit(people(10))
    await bench.client.boost("m1", "30000/h", until="+300s", who="ops", why="slower than the tier")
    assert "boost 1" not in (await bench.client.why("summer")).lift
    await bench.client.boost("m1", "120000/h", until="+200s", who="ops", why="sale")
    (_, boost) = (await bench.client.account("m1")).boosts
    assert (await bench.client.why("summer")).lift.startswith(
        f"boost 2 gives 120,000 messages per hour until {format_time(boost.end.timestamp())}; a faster tier: "
    )


async def test_a_list_without_an_end_has_no_finish_time_and_is_told_how_to_go_on(bench: Bench) -> None:
    await _worker(bench)
    for strict in (True, False):
        name = f"c{strict:d}"
        await bench.client.open(account="m1", message=MESSAGE, campaign=name, strict=strict)
        found = await bench.client.status(name)
        assert found.binding is not None
        assert (found.binding.limit, found.finish_estimate) == ("unsealed", None)
        assert found.binding.lift == f"its list is submitted again with --campaign {name}: it goes on where it stopped"
    assert dict(views.facts(found))["will be through"] == "–"


async def test_half_a_list_has_no_finish_time_while_it_is_sent(bench: Bench) -> None:
    await _worker(bench)
    await bench.client.open(account="m1", message=MESSAGE, campaign="half")
    await bench.client.load("half", _chunks(b"email,name\na@x.org,A\nb@x.org,B\n"))
    found = await bench.client.status("half")
    assert (found.sealed, found.pending, found.finish_estimate) == (False, 2, None)
    assert dict(views.facts(found))["will be through"] == "–"
    assert [each[-2] for each in views.rows([found])] == [None]


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_sequential_send_waits_for_its_turn(bench: Bench) -> None:
    await bench.submit(people(10), campaign="first", sequential=True)
    second = await bench.submit(people(10), campaign="second", sequential=True)
    assert (second.state, second.binding.limit) == ("sequential", "turn")
    assert "m1:first" in second.binding.lift


async def test_first_behind_the_one_that_sends_is_not_told_to_move_up(bench: Bench) -> None:
    for campaign in ("first", "second", "third"):
        await bench.submit(people(10), campaign=campaign, sequential=True)
    second, third = await bench.client.why("second"), await bench.client.why("third")
    assert second is not None
    assert third is not None
    assert (" up" in second.lift, "move m1:third up" in third.lift) == (False, True)


async def test_resumed_sequential_send_waits_for_the_one_that_began_meanwhile(bench: Bench) -> None:
    for campaign in ("first", "second", "third"):
        await bench.submit(people(10), campaign=campaign, sequential=True)
    await bench.client.pause("first")
    assert (await bench.client.status("second")).state == "sending"
    third = await bench.client.why("third")
    assert third is not None
    assert third.lift == "m1:second is through first, or sendengine move m1:third up"
    resumed = await bench.client.resume("first")
    assert (resumed.state, await bench.desk.line("m1")) == ("sequential", ["second", "first", "third"])
    assert resumed.binding is not None
    assert (resumed.binding.limit, resumed.binding.lift) == ("turn", "m1:second is through first")
    assert resumed.binding.since is not None
    assert resumed.binding.since.timestamp() * 1e6 == pytest.approx(float((await bench.desk.campaign("m1", "first"))["resumed_at"]), abs=1)
    third = await bench.client.why("third")
    assert third is not None
    assert third.lift == "m1:second and 1 more are through first, or sendengine move m1:third up"
    await bench.client.move("third", "up")
    assert await bench.desk.line("m1") == ["second", "third", "first"]


async def test_why_of_an_account_names_the_send_and_counts_the_others(bench: Bench) -> None:
    for campaign in ("a", "b", "c"):
        await bench.submit(people(10), campaign=campaign)
    await bench.client.pause("a")
    await _worker(bench)
    await bench.submit(people(10), campaign="later", at="2099-01-01T00:00:00Z")
    elsewhere = (datetime.now(UTC) + timedelta(days=3)).strftime("%a")
    await bench.submit(people(10), campaign="shut", window=f"{elsewhere} 09:00-17:00 UTC")
    found = await bench.client.explain("m1")
    assert (found.campaign, found.others, found.idle) == ("m1:b", 1, None)
    assert found.binding == await bench.client.why("m1:b")


@pytest.mark.parametrize("stop", ["hold", "term", "no worker", "relay"])
async def test_while_the_account_stands_still_no_other_send_goes_on(bench: Bench, stop: str) -> None:
    for campaign in ("a", "b"):
        await bench.submit(people(10), campaign=campaign)
    if stop != "no worker":
        await _worker(bench)
        assert (await bench.client.explain("a")).others == 1
    if stop == "hold":
        await bench.client.hold("m1", "content")
    elif stop == "term":
        await bench.client.set_term("m1", "renew", ends="+1h")
        await bench.client.set_term("m1", "expire")
    elif stop == "relay":
        await bench.desk.set_account("m1", {"bind": "relay|1000000|the relay answers"})
    for name in ("m1", "a"):
        assert (await bench.client.explain(name)).others == 0


async def test_why_of_who_waits_for_retries_says_when_the_next_is_due(bench: Bench) -> None:
    await bench.submit(people(2))
    await bench.queue.register("w1", b"worker-1")
    await bench.queue.tell("w1", b"{}")
    (lease,) = (await bench.queue.take("m1", "w1", 100, [b"12345678"], [], [])).leases
    now, due = time.time(), time.time() + 3600
    deferred = b"".join(DEFERRED.pack(row, FIRST_TRY, 1, 0, 3_600_000 + row, 0) for row in rows_of(lease.mask))
    nums = NUMS.pack(*(0 for _ in Outcome), 2, 2, now * 1e6, now * 1e6, now * 1e6)
    await bench.queue.visit("m1", 0, 1e6, "=", [], [Settlement(lease.token, bytes(13), b"", b"{}", nums, deferred)])
    for found in (await bench.client.explain("summer"), await bench.client.explain("m1")):
        assert (found.campaign, found.others, found.binding) == ("m1:summer", 0, None)
        assert found.next_retry is not None
        assert found.next_retry.timestamp() == pytest.approx(due, abs=5)
        assert found.idle == f"nothing binds: 2 wait for a retry, the next one at {format_time(found.next_retry.timestamp())}"


async def test_why_of_an_ended_send_says_so(bench: Bench) -> None:
    await bench.submit(people(2))
    await bench.send_all()
    ended = await bench.client.explain("summer")
    assert (ended.binding, ended.next_retry) == (None, None)
    assert ended.idle is not None
    assert ended.idle.startswith("it has ended: finished at ")
    nothing = await bench.client.explain("m1")
    assert (nothing.campaign, nothing.idle) == (None, "the account has nothing to send")


@pytest.mark.parametrize(
    ("campaign", "direction", "words"),
    [
        ("second", "up", "m1:second is the next in the line"), ("third", "down", "m1:third is the last in the line"),
        ("first", "up", "m1:first is sending and waits in no line"), ("beside", "up", "m1:beside is sending and waits in no line"),
    ],
)  # fmt: skip
async def test_move_that_moves_nothing_says_so(bench: Bench, campaign: str, direction: str, words: str) -> None:
    for name in ("first", "second", "third"):
        await bench.submit(people(10), campaign=name, sequential=True)
    await bench.submit(people(10), campaign="beside")
    with pytest.raises(Conflict, match=words):
        await bench.client.move(campaign, direction)


async def test_why_of_an_unknown_account_says_account(bench: Bench) -> None:
    with pytest.raises(NotFound, match="no account m11; nearest is 'm1'"):
        await bench.client.why("m11")


async def test_ended_send_shows_its_average_and_no_contract(bench: Bench) -> None:
    await bench.submit(people(250))
    await bench.send_all()
    fields = {**await bench.desk.campaign("m1", "summer"), "first_mail": "1e6", "last_mail": "250e6"}
    spread = msgspec.structs.replace(await look(bench.desk, "m1"), sends={"summer": fields})
    ended = status(spread, "summer")
    assert (ended.state, ended.rate_achieved, ended.rate_contracted) == ("finished", 3600.0, None)


async def test_the_average_of_an_ended_send_counts_what_was_refused(bench: Bench) -> None:
    """Each message on the wire used a permit, whatever the answer."""
    await bench.submit(people(250))
    await bench.send_all(Outcome.BOUNCED, but=Outcome.SENT)
    fields = {**await bench.desk.campaign("m1", "summer"), "first_mail": "1e6", "last_mail": "250e6"}
    spread = msgspec.structs.replace(await look(bench.desk, "m1"), sends={"summer": fields})
    assert status(spread, "summer").rate_achieved == 3600.0


@pytest.mark.parametrize("limit", ["site", "relay"])
async def test_relay_that_binds_leaves_no_estimate(bench: Bench, limit: str) -> None:
    await bench.submit(people(10))
    await bench.queue.register("w1", b"worker-1")
    await bench.queue.tell("w1", b"{}")
    await bench.desk.set_account("m1", {"bind": f"{limit}|1000000|the relay answers"})
    found = await bench.client.status("summer")
    assert found.binding is not None
    assert (found.binding.limit, found.finish_estimate) == (limit, None)


async def test_scheduled_send_says_when_it_starts(bench: Bench) -> None:
    send = await bench.submit(people(600), at="2099-01-01T00:00:00Z")
    assert send.state == "scheduled"
    assert "2099-01-01T00:00:00" in send.binding.lift
    assert send.finish_estimate.isoformat().startswith("2099-01-01T00:00:3")


async def test_cancelled_send_forbids_resume(bench: Bench) -> None:
    await bench.submit(people(10))
    assert (await bench.client.cancel("summer")).cancelled == 10
    with pytest.raises(Conflict, match="cancelled"):
        await bench.client.resume("summer")


async def test_watch_ends_with_the_send(bench: Bench) -> None:
    await bench.submit(people(10))
    await bench.send_all()
    assert [status.state for status in await found(bench.client.watch("summer"))] == ["finished"]


# outcomes


async def test_outcomes_name_each_recipient_once(bench: Bench) -> None:
    await bench.submit([*people(150), {"email": "bad"}, {"email": "last@example.org", "name": "L"}])
    await bench.send_all(but=Outcome.BOUNCED)
    outcomes = await found(bench.client.outcomes("summer"))
    assert sorted(outcome.index for outcome in outcomes) == [*range(150), 151]
    by_index = {outcome.index: outcome for outcome in outcomes}
    assert by_index[151].recipient == "last@example.org"
    assert (by_index[0].outcome, by_index[100].outcome, by_index[101].outcome) == ("bounced", "bounced", "sent")
    one = by_index[101]
    assert (one.status, one.reply, one.relay, one.attempts) == ("2.0.0", "250 2.0.0 taken", "mx.example:25", 1)
    assert one.message_id.endswith(".101@shop.example>")
    delays = one.delays
    total = (one.finished_at - one.queued_at).total_seconds()
    assert delays.queued >= 0
    assert delays.queued == 0 or abs(delays.queued + delays.paced + delays.connect + delays.transmit - total) < 0.002


async def test_cancelled_rows_have_outcomes_without_records(bench: Bench) -> None:
    await bench.submit(people(130))
    await bench.client.cancel("summer")
    outcomes = await found(bench.client.outcomes("summer"))
    assert [(outcome.index, outcome.outcome, outcome.attempts) for outcome in outcomes] == [(n, "cancelled", 0) for n in range(130)]


async def test_resend_reaches_only_those_not_sent(bench: Bench) -> None:
    await bench.submit(people(250))
    with pytest.raises(Conflict, match="sending"):
        await bench.client.resend("summer")
    await bench.send_all(but=Outcome.BOUNCED)
    again = await bench.client.resend("summer")
    assert (again.id, again.accepted) == ("m1:summer-r1", 3)
    assert (await bench.client.resend("summer")).created is False
    await bench.send_all()
    with pytest.raises(Conflict, match="every recipient was sent to"):
        await bench.client.resend("summer-r1")
    reached = {outcome.recipient for outcome in await found(bench.client.outcomes("summer-r1"))}
    assert reached == {"p0@example.org", "p100@example.org", "p200@example.org"}


async def test_retries_and_lifetime_are_the_sends_own_the_accounts_or_the_configurations(bench: Bench) -> None:
    async def fields(campaign: str, **more: Any) -> tuple[str, str]:
        await bench.submit(people(1), campaign, **more)
        found = await bench.desk.campaign("m1", campaign)
        return found["retry"], found["lifetime"]

    assert await fields("c1") == (Config().retry, "86400")
    await bench.client.set_relay("m1", retry="2m, 10m")
    assert await fields("c2") == ("2m, 10m", "86400")
    assert await fields("c3", retry="1m,5m*2", lifetime="12h") == ("1m, 5m*2", "43200")


async def test_retries_are_part_of_what_makes_a_send_the_same_when_they_are_given(bench: Bench) -> None:
    await bench.submit(people(1), "c1")
    await bench.client.set_relay("m1", retry="2m")
    assert (await bench.submit(people(1), "c1")).created is False
    await bench.submit(people(1), "c2", retry="1m,5m", lifetime=3600)
    assert (await bench.submit(people(1), "c2", retry="1m, 5m", lifetime="1h")).created is False
    with pytest.raises(Conflict, match=r"another retry$"):
        await bench.submit(people(1), "c2", retry="1m", lifetime="1h")
    with pytest.raises(Conflict, match="another retry, lifetime"):
        await bench.submit(people(1), "c2")


@pytest.mark.parametrize("more", [{"retry": "soon"}, {"retry": "60d"}, {"lifetime": "0s"}, {"lifetime": "long"}, {"lifetime": 4e8}])
async def test_retries_that_cannot_be_are_refused(bench: Bench, more: dict[str, Any]) -> None:
    with pytest.raises(RefusedInput):
        await bench.submit(people(1), **more)
    assert await found(bench.client.list()) == []


async def test_resend_is_as_the_send_was(bench: Bench) -> None:
    rows = [person | {"prio": 3} for person in people(2)]
    how = {"window": "00:00-24:00 UTC", "on_doubt": "hold", "priority": "prio", "retry": "7m", "lifetime": "3h"}
    await bench.submit(rows, **how)
    await bench.client.cancel("summer")
    await bench.client.resend("summer")
    first, again = [await bench.desk.campaign("m1", name) for name in ("summer", "summer-r1")]
    for name in ("window", "on_doubt", "priority", "retry", "lifetime"):
        assert again[name] == first[name] != "", name
    assert (await bench.client.resend("summer")).created is False


class Bare(MemoryDesk):
    """A desk on which an account goes away under its callers."""

    gone = False

    async def create(self, account: str, campaign: str, *rest: Any) -> str:
        return "account" if self.gone else "same"


@pytest.mark.parametrize(("gone", "error"), [(True, Conflict), (False, Unavailable)])
async def test_single_message_that_could_not_be_queued_is_no_message(gone: bool, error: type[Exception]) -> None:
    desk = Bare(MemoryStore(), lambda: time.time() * 1e6)
    desk.gone = gone
    async with Client(desk=desk, config=Config()) as client:
        await client.create_account("m1", "60k")
        with pytest.raises(error, match="gone"):
            await client.send(account="m1", message=Message(sender="a@x.org", subject="x", text="x"), to="a@x.org")


async def test_single_message_has_its_own_outcome(bench: Bench) -> None:
    message = Message(sender="pw@other.example", subject="reset", text="x")
    first = await bench.client.send(account="m1", message=message, to="a@x.org")
    second = await bench.client.send(account="m1", message=message, to="b@x.org")
    assert (first.index, second.index) == (0, 100)
    await bench.send_all()
    outcomes = await found(bench.client.outcomes("m1:transactional"))
    assert {(one.recipient, one.message_id) for one in outcomes} == {("a@x.org", first.message_id), ("b@x.org", second.message_id)}


async def test_waiting_single_message_is_seen_everywhere(bench: Bench) -> None:
    await bench.client.send(account="m1", message=Message(sender="a@x.org", subject="x", text="x"), to="a@x.org")
    (listed,) = await found(bench.client.list(ended=False))
    assert (listed.campaign, listed.pending, listed.finish_estimate) == ("m1:transactional", 1, None)
    for binding in (listed.binding, await bench.client.why("m1"), await bench.client.why("m1:transactional")):
        assert binding is not None
        assert binding.limit == "no_worker"


@pytest.mark.parametrize("verb", ["pause", "cancel", "resume", "reverse"])
async def test_single_messages_cannot_be_steered_and_the_refusal_says_why(bench: Bench, verb: str) -> None:
    await bench.client.send(account="m1", message=Message(sender="a@x.org", subject="x", text="x"), to="a@x.org")
    with pytest.raises(Conflict, match="m1:transactional holds the account's single messages") as refused:
        await getattr(bench.client, verb)("m1:transactional")
    assert "sendengine outcomes m1:transactional" in str(refused.value.remedy)
    with pytest.raises(Conflict, match="single messages"):
        await bench.client.move("m1:transactional", "up")


async def test_sent_single_message_binds_nothing(bench: Bench) -> None:
    await bench.client.send(account="m1", message=Message(sender="a@x.org", subject="x", text="x"), to="a@x.org")
    await bench.send_all()
    assert (await bench.client.status("m1:transactional")).binding is None
    assert await found(bench.client.list(ended=False)) == []
    assert await bench.client.why("m1") is None


# fsck


async def test_fsck_finds_nothing_at_any_stage(bench: Bench) -> None:
    await bench.submit([*people(250), {"email": "bad"}, *people(3)])
    assert await found(bench.client.fsck()) == []
    await bench.queue.register("w1", b"worker-1")
    await bench.queue.take("m1", "w1", 100, [os.urandom(8)], [], [])
    assert await found(bench.client.fsck()) == []
    await bench.client.cancel("summer")
    assert await found(bench.client.fsck()) == []


async def test_fsck_names_and_repairs_rows_that_stand_nowhere(redis_url: str) -> None:
    desk = RedisDesk(redis_url)
    bench = Bench(desk, RedisQueue(redis_url))
    async with bench.client:
        await bench.client.create_account("m1", "60k")
        await bench.submit(people(130))
        await desk._link.call("XDEL", "{m1}:c:summer:q0", "2-0")
        lost = await found(bench.client.fsck("summer"))
        assert [(one.batch, one.row, one.recipient) for one in lost] == [(1, 100 + n, f"p{100 + n}@example.org") for n in range(30)]
        await found(bench.client.fsck("summer", repair=True, who="ann"))
        assert await found(bench.client.fsck("summer", repair=True, who="ann")) == []
        [line] = [each async for each in bench.client.audit("m1") if each.what == "send.repair"]
        assert (line.who, line.facts) == ("ann", {"send": "summer"})
        await bench.send_all()
        assert (await bench.client.status("summer")).sent == 130
    await bench.queue.close()
    await desk.close()


async def test_fsck_finds_and_repairs_a_wrong_count(redis_url: str) -> None:
    desk = RedisDesk(redis_url)
    bench = Bench(desk, RedisQueue(redis_url))
    async with bench.client:
        await bench.client.create_account("m1", "60k")
        await bench.submit(people(130))
        await bench.send_all()
        await desk._link.call("HINCRBY", "{m1}:c:summer", "sent", 1)
        wrong = [one.what for one in await found(bench.client.fsck("summer", repair=True))]
        assert any("'sent'" in what for what in wrong)
        assert await found(bench.client.fsck("summer")) == []
    await bench.queue.close()
    await desk.close()


async def test_an_envelope_sender_that_would_end_its_command_is_refused(bench: Bench) -> None:
    await bench.client.create_account("m1", "60k")
    rows = [{"email": "a@example.com", "name": "A"}]
    forged = "a@example.com>\r\nRSET\r\nMAIL FROM:<b@example.com"
    with pytest.raises(RefusedInput, match="envelope sender"):
        await bench.client.submit(account="m1", message=MESSAGE, recipients=rows, sender=forged)
    with pytest.raises(RefusedInput, match="envelope sender"):
        await bench.client.send(account="m1", message=MESSAGE, to="c@example.com", sender=forged, fields={"name": "C"})


async def test_the_same_key_is_the_same_single_message(bench: Bench) -> None:
    await bench.client.create_account("m1", "60k")
    message = Message(sender="a@x.org", subject="x", text="x")
    first = await bench.client.send(account="m1", message=message, to="a@x.org", key="reset-7")
    again = await bench.client.send(account="m1", message=message, to="a@x.org", key="reset-7")
    other = await bench.client.send(account="m1", message=message, to="a@x.org")
    assert first == again
    assert other.index != first.index
    assert (await bench.client.status("m1:transactional")).accepted == 2


async def test_status_reads_no_send_that_has_ended_but_the_asked_one(bench: Bench) -> None:
    await bench.client.create_account("m1", "60k")
    for name in ("old", "older"):
        await bench.submit(people(3), campaign=name)
    await bench.send_all()
    await bench.submit(people(3), campaign="new")
    assert list((await look(bench.desk, "m1")).sends) == ["new"]
    assert set((await look(bench.desk, "m1", "old")).sends) == {"new", "old"}
    assert (await bench.client.status("m1:older")).state == "finished"
    assert [each.campaign async for each in bench.client.list("m1")] == ["m1:old", "m1:older", "m1:new"]
    assert [each.campaign async for each in bench.client.list("m1", ended=False)] == ["m1:new"]


async def test_key_of_a_single_message_with_another_message_is_refused(bench: Bench) -> None:
    """Taken for a repeat, it would never be sent, and nobody would hear of it."""
    message = Message(sender="a@x.org", subject="Hi {{ name }}", text="{{ code }}")
    said: dict[str, Any] = {"message": message, "to": "a@x.org", "sender": "b@x.org", "fields": {"name": "A", "code": 12}}
    first = await bench.client.send(account="m1", key="reset-7", **said)
    others: dict[str, Any] = {
        "message": msgspec.structs.replace(message, text="{{ code }}!"), "to": "c@x.org", "sender": "c@x.org",
        "fields": {"name": "B", "code": 1},
    }  # fmt: skip
    for name, other in others.items():
        with pytest.raises(Conflict, match="another message of m1 has the key 'reset-7'") as refused:
            await bench.client.send(account="m1", key="reset-7", **said | {name: other})
        assert "key of its own" in refused.value.remedy
    again = {"fields": {"code": 12, "name": "A", "unused": 3}, "to": " a@X.org"}  # the same message, said otherwise
    assert await bench.client.send(account="m1", key="reset-7", **said | again) == first
    assert (await bench.client.status("m1:transactional")).accepted == 1
