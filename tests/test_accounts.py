"""Terms, holds and the audit trail as a scheduler and an operator use them: on Redis, in memory, and by the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sendengine.client import Client
from sendengine.commands import common
from sendengine.config import AccountConfig, Config
from sendengine.errors import Conflict, NotFound, RefusedInput
from sendengine.policy.suppression import Listed
from sendengine.policy.term import DAY
from sendengine.ports import Desk
from sendengine.queue.desk import RedisDesk
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from sendengine.render.message import Message
from sendengine.scheduler import audit
from sendengine.types import Relay, TlsPolicy
from tests.test_cli import GOOD, Shell, run  # noqa: F401

MESSAGE = Message(sender="news@shop.example", subject="Hi", text="Hello")
ROWS = [{"email": f"u{at}@example.com"} for at in range(100)]


class Bench:
    """A client whose clock the test turns: in memory by hand; on Redis terms are moved into the past instead."""

    def __init__(self, desk: Desk, store: MemoryStore | None) -> None:
        self.desk, self.store = desk, store
        self.client = Client(desk=desk, config=Config())

    async def end_term(self, days_ago: float) -> None:
        """It ended so many days ago, and has the days that it had."""
        ends = await self.desk.now_us() - days_ago * DAY * 1e6
        assert (await self.desk.set_gate("m1", {}, {"term": "active", "term_ends": f"{ends:.0f}"})).status == "done"


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        store = MemoryStore()
        clock = iter(range(1_800_000_000_000_000, 2_000_000_000_000_000))
        made = Bench(MemoryDesk(store, lambda: float(next(clock))), store)
    else:
        made = Bench(RedisDesk(request.getfixturevalue("redis_url")), None)
    async with made.client as client:
        await client.create_account("m1", "60k")
        yield made
    await made.desk.close()


async def told(bench: Bench) -> list[audit.Entry]:
    """Its trail, behind the line of the account's own making."""
    first, *rest = [each async for each in bench.client.audit("m1")]
    assert first.what == "account.create"
    return rest


async def submit(bench: Bench, campaign: str = "c") -> object:
    return await bench.client.submit(account="m1", message=MESSAGE, recipients=ROWS, campaign=campaign)


async def test_held_account_takes_no_sends_and_says_what_to_do(bench: Bench) -> None:
    await submit(bench, "before")
    await bench.client.hold("m1", "unpaid-fee", text="invoice 7", who="anna")
    for attempt in (submit(bench), bench.client.send(account="m1", message=MESSAGE, to="a@example.com")):
        with pytest.raises(Conflict, match=r"m1 takes no sends now: it is held: unpaid fee \(invoice 7\)") as refused:
            await attempt
        assert "pay the open invoice" in refused.value.remedy
        assert "billing" in refused.value.remedy
    status = await bench.client.status("m1:before")
    assert status.state == "sending"
    assert status.binding is not None
    assert (status.binding.limit, status.finish_estimate) == ("hold", None)
    assert "billing" in status.binding.lift


async def test_why_of_a_held_account_tells_even_without_sends(bench: Bench) -> None:
    assert await bench.client.why("m1") is None
    await bench.client.hold("m1", "content")
    found = await bench.client.why("m1")
    assert found is not None
    assert (found.limit, found.since is not None) == ("hold", True)
    assert "sendengine account release m1 --reason content" in found.lift


async def test_several_holds_stand_at_once_and_reading_goes_on(bench: Bench) -> None:
    await submit(bench)
    await bench.client.hold("m1", "content", text="one", who="anna")
    account = await bench.client.hold("m1", "spam_complaints", text="two")
    assert [(each.reason, each.text, each.who) for each in account.holds] == [("content", "one", "anna"), ("spam-complaints", "two", "")]
    again = await bench.client.hold("m1", "content", text="three", who="ben")
    assert [(each.reason, each.text, each.who) for each in again.holds] == [("content", "three", "anna"), ("spam-complaints", "two", "")]
    assert again.holds[0].since == account.holds[0].since
    assert [each async for each in bench.client.outcomes("m1:c")] == []
    for reason in ("content", "spam-complaints"):
        account = await bench.client.release("m1", reason, why="mended")
    assert account.holds == []
    assert await submit(bench, "after")


async def test_hold_that_does_not_stand_cannot_be_lifted(bench: Bench) -> None:
    with pytest.raises(NotFound, match="not held at all"):
        await bench.client.release("m1", "content")
    await bench.client.hold("m1", "content")
    with pytest.raises(NotFound, match="it is held for content"):
        await bench.client.release("m1", "unpaid-fee")
    with pytest.raises(NotFound, match="nearest is 'content'"):
        await bench.client.hold("m1", "contents")
    with pytest.raises(NotFound):
        await bench.client.hold("m2", "content")
    with pytest.raises(RefusedInput, match="longer than"):
        await bench.client.hold("m1", "content", text="x" * 1001)
    for text in ("\ud800", "two\nlines", "\x1b[31m", "a\u2028b"):
        with pytest.raises(RefusedInput, match="control characters, lines or no Unicode"):
            await bench.client.hold("m1", "content", text=text)
        with pytest.raises(RefusedInput):
            await bench.client.hold("m1", "content", who=text)
        with pytest.raises(RefusedInput):
            await bench.client.set_term("m1", "trial", ends="+1d", why=text)
        with pytest.raises(RefusedInput):
            await bench.client.release("m1", "content", why=text)


async def test_reason_that_left_the_table_can_still_be_lifted(bench: Bench) -> None:
    await bench.desk.set_gate("m1", {}, {"hold:retired": '{"title":"t","remedy":"r","department":"d","since":1}'})
    assert [each.title for each in (await bench.client.account("m1")).holds] == ["t"]
    assert (await bench.client.release("m1", "retired")).holds == []


async def test_account_without_a_term_sends_without_end(bench: Bench) -> None:
    found = await bench.client.term("m1")
    assert (found.phase, found.ends, found.may_send) == (None, None, True)


async def test_term_from_trial_to_grace_and_back(bench: Bench) -> None:
    client = bench.client
    assert (await client.set_term("m1", "trial", ends="+14d")).phase == "trial"
    assert (await client.set_term("m1", "renew", ends="+365d")).phase == "active"
    cancelled = await client.set_term("m1", "cancel")
    assert (cancelled.phase, cancelled.may_send) == ("cancelled_active", True)
    assert (await client.set_term("m1", "reactivate")).phase == "active"
    over = await client.set_term("m1", "expire", why="chargeback", who="billing")
    assert (over.phase, over.may_send) == ("grace", False)
    with pytest.raises(Conflict, match="the term ended at") as refused:
        await submit(bench)
    assert "account term m1 --renew TIME" in refused.value.remedy
    assert (await client.set_term("m1", "renew", ends="+30d")).phase == "active"
    assert await submit(bench)


async def test_renewing_just_before_and_just_after_the_end_of_grace(bench: Bench) -> None:
    """9 d 23 h 59 m 59 s after the end, and 10 d 1 s after it."""
    second = 1 / 86400
    await submit(bench)
    await bench.client.set_term("m1", "renew", ends="+1d")
    await bench.end_term(10 - second * 5)
    status = await bench.client.status("m1:c")
    assert status.binding is not None
    assert status.binding.limit == "term"
    assert (await bench.client.set_term("m1", "renew", ends="+30d")).may_send
    await bench.end_term(10 + second)
    with pytest.raises(Conflict, match=r"account m1: its grace ended .* and it is purged"):
        await bench.client.set_term("m1", "renew", ends="+30d")
    with pytest.raises(Conflict, match="the account is deleted") as refused:
        await submit(bench)
    assert "never used again" in refused.value.remedy
    assert (await bench.client.term("m1")).phase == "deleted"


async def test_settings_give_an_account_its_days_and_later_ones_leave_them(bench: Bench) -> None:
    config = Config(account=AccountConfig(grace_days=20.0, purge_after_days=40.0))
    async with Client(desk=bench.desk, config=config) as client:
        found = await client.set_term("m1", "trial", ends="+10d")
    assert found.ends is not None
    assert found.grace_ends is not None
    assert found.purge_at is not None
    assert ((found.grace_ends - found.ends).days, (found.purge_at - found.ends).days) == (20, 40)
    again = await bench.client.set_term("m1", "renew", ends="+30d")
    assert again.ends is not None
    assert again.grace_ends is not None
    assert (again.grace_ends - again.ends).days == 20


async def test_impossible_verbs_name_the_account_and_change_nothing(bench: Bench) -> None:
    await bench.client.set_term("m1", "trial", ends="+10d")
    with pytest.raises(Conflict, match="account m1: a trial is not renewed"):
        await bench.client.set_term("m1", "cancel")
    with pytest.raises(RefusedInput, match="over before it begins"):
        await bench.client.set_term("m1", "renew", ends="2020-01-01T00:00:00Z")
    with pytest.raises(RefusedInput, match="does not 'sleep'"):
        await bench.client.set_term("m1", "sleep")
    assert (await bench.client.term("m1")).phase == "trial"


async def test_send_that_outlasts_the_term_is_flagged(bench: Bench) -> None:
    await bench.client.set_tier("m1", "600")
    await bench.client.set_term("m1", "renew", ends="+2m")
    sent = await bench.client.submit(account="m1", message=MESSAGE, recipients=ROWS, campaign="c")  # 100 at 600 an hour take 10 minutes
    assert sent.passes_term
    assert (await bench.client.estimate("m1", 100)).passes_term
    await bench.client.set_term("m1", "renew", ends="+1d")
    assert not (await bench.client.status("m1:c")).passes_term
    assert not (await bench.client.estimate("m1", 100)).passes_term


async def test_trail_tells_who_did_what_and_why_in_order(bench: Bench) -> None:
    await bench.client.hold("m1", "content", text="see ticket", who="anna")
    await bench.client.hold("m1", "content", text="see ticket", who="anna")  # nothing changes: nothing to tell
    await bench.client.release("m1", "content", why="mended", who="ben")
    await bench.client.set_term("m1", "trial", ends="2040-01-01T00:00:00Z", who="billing", why="order 1")
    await bench.desk.note("m1", b'{"what":"tier","who":"shop"}')
    assert [(each.what, each.who, each.why, each.facts) for each in await told(bench)] == [
        ("hold", "anna", "see ticket", {"reason": "content"}),
        ("release", "ben", "mended", {"reason": "content"}),
        ("term.trial", "billing", "order 1", {"ends": "2040-01-01T00:00:00.000Z"}),
        ("tier", "shop", "", {}),
    ]


async def test_trail_tells_of_speed_and_relay_and_of_no_repeat(bench: Bench) -> None:
    client, by = bench.client, {"who": "anna", "why": "order 1"}
    for _ in range(2):
        await client.set_tier("m1", "100k", **by)
        await client.set_relay("m1", Relay("mx.example", 587, user="u", password="secret", tls=TlsPolicy.REQUIRED), retry="1m, 5m", **by)
        await client.set_login("m1", password="other", **by)
        await client.set_relay("m1", Relay("mx.example", 587, user="u", password="other", tls=TlsPolicy.REQUIRED), **by)
        await client.set_sms("m1", rate="9k", provider="", **by)
    await client.set_relay("m1", retry="", **by)
    await client.boost("m1", "300k", start="2040-01-01T00:00:00Z", until="2040-01-02T00:00:00Z", **by)
    await client.end_boost("m1", 1, **by)
    with pytest.raises(NotFound):
        await client.end_boost("m1", 1, **by)
    lines = await told(bench)
    assert {(each.who, each.why) for each in lines} == {("anna", "order 1")}
    relay = {"relay": "mx.example:587", "user": "u", "tls": "required"}
    assert [(each.what, each.facts) for each in lines] == [
        ("tier", {"tier": "100k", "rate": "100000/h", "before": "60k"}), ("relay", {**relay, "retry": "1m, 5m"}),
        ("relay", {**relay, "password": "changed"}), ("tier", {"channel": "sms", "tier": "9000", "rate": "9000/h", "before": "36000"}),
        ("relay", {**relay, "password": "changed"}), ("relay", {**relay, "password": "changed"}),
        ("relay", {"retry": "the configuration's"}),
        ("boost", {"rate": "300000/h", "from": "2040-01-01T00:00:00.000Z", "until": "2040-01-02T00:00:00.000Z"}),
        ("boost.end", {"boost": "1"}),
    ]  # fmt: skip
    assert "secret" not in str(lines)


def test_the_command_line_names_its_user_or_who_is_named(run: Shell) -> None:  # noqa: F811
    for _ in range(2):
        run("account", "set-tier", "m1", "100k", "--why", "order 1")
        run("account", "set-relay", "m1", "--relay", "smtp://mx.example", "--who", "anna")
    run("account", "boost", "m1", "--rate", "300k", "--until", "+1h")
    run("account", "unboost", "m1", "1", "--who", "ben")
    run("sms", "set", "--account", "m1", "--rate", "9k")
    run("sms", "set", "--account", "m1", "--rate", "10k", "--who", "ben", "--why", "order 2")
    lines = run("account", "audit", "m1", "--json").lines
    me = common.user()
    assert [(each["what"], each["who"], each["why"]) for each in lines] == [
        ("account.create", me, ""),
        ("tier", me, "order 1"), ("relay", "anna", ""), ("boost", me, ""), ("boost.end", "ben", ""), ("tier", me, ""),
        ("tier", "ben", "order 2"),
    ]  # fmt: skip


async def test_a_boost_under_a_key_is_granted_once(bench: Bench) -> None:
    asked = {"rate": "300k", "until": "+1h", "who": "anna"}
    for _ in range(3):
        found = await bench.client.boost("m1", key="order 7", **asked)
    assert [each.boost for each in found.boosts] == [1]
    with pytest.raises(Conflict, match="another boost of account m1 was asked for under the key 'order 7'"):
        await bench.client.boost("m1", key="order 7", **{**asked, "rate": "400k"})
    done = await asyncio.gather(*(bench.client.boost("m1", key="order 8", **asked) for _ in range(8)))
    assert {len(each.boosts) for each in done} == {2}
    assert [each.what for each in await told(bench)] == ["boost", "boost"]


async def test_trail_of_an_account_that_is_not_there_is_kept_all_the_same(bench: Bench) -> None:
    await bench.desk.note("m9", b'{"what":"purged"}')
    await bench.desk.note("m9", b"no json")
    assert [each.what async for each in bench.client.audit("m9")] == ["purged", "unreadable"]


async def test_trail_of_an_account_that_never_was_is_not_found(bench: Bench) -> None:
    assert await told(bench) == []
    with pytest.raises(NotFound, match="no account m8"):
        _ = [each async for each in bench.client.audit("m8")]


async def test_trail_is_read_in_parts(bench: Bench) -> None:
    for at in range(5):
        await bench.desk.note("m1", b'{"what":"%d"}' % at)
    first = await bench.desk.audit("m1", "", 2)
    rest = await bench.desk.audit("m1", first[-1].entry, 10)
    assert [len(first), len(rest)] == [2, 4]


# the command line


def test_hold_and_release_by_command(run: Shell) -> None:  # noqa: F811
    assert run.submit(GOOD).code == 0
    held = run("account", "hold", "m1", "--reason", "unpaid-fee", "--text", "invoice 7", "--who", "anna", "--json")
    assert [(each["reason"], each["text"], each["who"]) for each in held.json["holds"]] == [("unpaid-fee", "invoice 7", "anna")]
    refused = run("submit", "--account", "m1", "--message", "m.eml", "--recipients", run.list(GOOD))
    assert (refused.code, "unpaid fee (invoice 7)" in refused.err, "pay the open invoice" in refused.err) == (2, True, True)
    shown = run("account", "show", "m1").out
    assert all(said in shown for said in ("held: unpaid-fee", "Who lifts it: billing", "invoice 7"))
    assert "unpaid-fee" in run("account", "list").out
    assert run("why", "m1", "--json").json["binding"]["limit"] == "hold"
    assert run("status", "m1:c", "--json").json["binding"]["limit"] == "hold"
    assert run("account", "release", "m1", "--reason", "unpaid-fee", "--text", "paid", "--json").json["holds"] == []
    lines = run("account", "audit", "m1", "--json").lines
    assert [(each["what"], each["why"]) for each in lines[-2:]] == [("hold", "invoice 7"), ("release", "paid")]
    assert "anna" in run("account", "audit", "m1").out


def test_wrong_reason_by_command_names_them_all(run: Shell) -> None:  # noqa: F811
    wrong = run("account", "hold", "m1", "--reason", "unpaid")
    assert (wrong.code, "nearest is 'unpaid-fee'" in wrong.err, "sender-not-verified" in wrong.err) == (2, True, True)


def test_term_by_command(run: Shell) -> None:  # noqa: F811
    assert "sends without end" in run("account", "term", "m1").out
    assert run("account", "term", "m1", "--trial", "+14d", "--json").json["phase"] == "trial"
    assert run("account", "term", "m1", "--renew", "never", "--json").json["ends"] is None
    assert run("account", "term", "m1", "--cancel").code == 2
    assert run("account", "term", "m1", "--cancel", "--ends", "+30d", "--json").json["phase"] == "cancelled_active"
    assert run("account", "term", "m1", "--reactivate", "--json").json["phase"] == "active"
    assert run("account", "term", "m1", "--expire", "--json").json["phase"] == "grace"
    shown = run("account", "term", "m1")
    assert all(said in shown.out for said in ("grace", "may be renewed until", "--renew TIME"))
    assert run("why", "m1", "--json").json["binding"]["limit"] == "term"
    assert run("account", "term", "m1", "--renew", "+1d", "--expire").code == 2
    assert run("account", "term", "m1", "--ends", "+1d").code == 2
    assert run("account", "term", "m9").code == 2


def test_send_that_outlasts_the_term_is_said(run: Shell) -> None:  # noqa: F811
    assert run("account", "set-tier", "m1", "60").code == 0
    run("account", "term", "m1", "--renew", "+30s")
    done = run.submit(GOOD)
    assert (done.code, done.json["passes_term"], "before the term of m1 ends" in done.err) == (0, True, True)
    assert "beyond the end of the term" in run("status", "m1:c").out


def test_account_in_json_has_term_and_holds(run: Shell) -> None:  # noqa: F811
    found = run("account", "show", "m1", "--json").json
    assert (found["holds"], found["term"]["phase"], found["term"]["may_send"]) == ([], None, True)


async def test_complaints_that_are_told_count_against_the_account(bench: Bench) -> None:
    assert await bench.client.suppress("m1", ["a@example.com", "b@example.com"], "complained") == Listed(2)
    assert await bench.client.suppress("m1", ["b@example.com", "c@example.com"], "complained") == Listed(1)
    await bench.client.suppress("m1", ["d@example.com"], "unsubscribed")
    await bench.client.import_suppressed("m1", ["e@example.com"], "complained")  # of years before: it is no news
    if bench.store is not None:
        assert sum(bench.store.accounts["m1"].health.complaints.values()) == 3


async def test_purge_is_refused_before_its_time_and_names_it(bench: Bench) -> None:
    with pytest.raises(Conflict, match="without an end"):
        await bench.client.purge("m1")
    with pytest.raises(NotFound):
        await bench.client.purge("m9")
    await bench.end_term(9.99)
    with pytest.raises(Conflict, match="may be purged from 2"):
        await bench.client.purge("m1")


async def test_purged_account_is_gone_for_good_and_its_trail_stays(bench: Bench) -> None:
    await submit(bench)
    await bench.client.hold("m1", "content", who="anna")
    await bench.end_term(10.01)
    await bench.client.purge("m1", who="ops")
    for attempt in (bench.client.account("m1"), submit(bench), bench.client.term("m1"), bench.client.purge("m1")):
        with pytest.raises(NotFound, match="account m1 was deleted at"):
            await attempt
    with pytest.raises(Conflict, match="was deleted"):
        await bench.client.create_account("m1", "60k")
    assert [each async for each in bench.client.accounts()] == []
    assert [(each.what, each.who) for each in await told(bench)] == [("send.create", audit.user()), ("hold", "anna"), ("purged", "ops")]


def test_purge_by_command(run: Shell) -> None:  # noqa: F811
    refused = run("account", "purge", "m1")
    assert (refused.code, "without an end" in refused.err) == (2, True)
    assert run("account", "term", "m1", "--expire").code == 0
    refused = run("account", "purge", "m1")
    assert (refused.code, "and not before" in refused.err) == (2, True)
