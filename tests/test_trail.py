"""What the audit trail tells of: each act once, by whom, and nothing of a call that changed nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sendengine.client import Client
from sendengine.commands import common
from sendengine.config import Config
from sendengine.errors import Conflict, LacksCredit, Unavailable
from tests.test_accounts import MESSAGE, ROWS, Bench, bench, told
from tests.test_cli import GOOD, Shell, run
from tests.test_unended import Dying

__all__ = ["bench", "run"]  # fixtures of theirs
PEOPLE = [{"phone": f"+42060112{n:04}"} for n in range(3)]


async def test_the_making_of_an_account_is_told_once(bench: Bench) -> None:
    for _ in range(2):
        await bench.client.create_account("m7", "60k", relay="smtp://mx.example", who="anna")
    with pytest.raises(Conflict):
        await bench.client.create_account("m7", "100k", who="anna")
    [line] = [each async for each in bench.client.audit("m7")]
    assert (line.what, line.who) == ("account.create", "anna")
    assert line.facts == {"tier": "60k", "relay": "mx.example:25", "tls": "opportunistic"}


async def test_a_purchase_of_credits_is_told_once(bench: Bench) -> None:
    for _ in range(2):
        await bench.client.grant_credits("m1", "70.5", key="order 5", who="anna", why="paid")
    with pytest.raises(Conflict):
        await bench.client.grant_credits("m1", 90, key="order 5", who="anna")
    await bench.client.grant_credits("m1", 1, who="ben")
    assert [(each.what, each.who, each.facts) for each in await told(bench)] == [
        ("credits.grant", "anna", {"amount": "70.5", "key": "order 5"}), ("credits.grant", "ben", {"amount": "1"}),
    ]  # fmt: skip


async def test_each_verb_is_told_where_it_changed_anything(bench: Bench) -> None:
    client, by = bench.client, {"who": "anna"}
    for name in ("a", "b", "c", "d"):
        for _ in range(2):
            await client.submit(account="m1", message=MESSAGE, recipients=ROWS, campaign=name, sequential=name != "a", **by)
    for _ in range(2):
        await client.pause("a", **by)
    for _ in range(2):
        await client.resume("a", **by)
    await client.reverse("a", **by)
    await client.move("d", "up", **by)
    with pytest.raises(Conflict):
        await client.move("d", "up", **by)
    await client.replay("a", **by)  # nothing was set aside
    for _ in range(2):
        await client.cancel("a", **by)
    with pytest.raises(Conflict):
        await client.pause("a", **by)
    for _ in range(2):
        await client.resend("a", **by)
    found = await told(bench)
    assert {each.who for each in found} == {"anna"}
    assert [(each.what, each.facts) for each in found] == [
        *(("send.create", {"send": name}) for name in ("a", "b", "c", "d")),
        ("send.pause", {"send": "a"}), ("send.resume", {"send": "a"}), ("send.reverse", {"send": "a"}),
        ("send.move", {"send": "d", "direction": "up"}), ("send.cancel", {"send": "a"}), ("send.resend", {"send": "a-r1", "of": "a"}),
    ]  # fmt: skip


async def test_a_list_in_pieces_is_told_where_rows_came(bench: Bench) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"email\na@x.org\nb@x.org\n"

    for _ in range(2):
        await bench.client.open(account="m1", message=MESSAGE, campaign="c", who="anna")
    added = [(await bench.client.load("c", chunks(), who="anna")).added for _ in range(2)]
    assert added == [2, 0]
    for _ in range(2):
        await bench.client.seal("c", who="anna")
    assert [each.what for each in await told(bench)] == ["send.create", "send.load.begin", "send.load", "send.seal"]


async def test_sms_that_lack_credit_are_told_once(bench: Bench) -> None:
    asked: dict[str, Any] = {"account": "m1", "sender": "Shop", "text": "Hi", "recipients": PEOPLE, "campaign": "c", "who": "anna"}
    for _ in range(2):
        with pytest.raises(LacksCredit):
            await bench.client.submit_sms(**asked)
    await bench.client.grant_credits("m1", 100)
    assert (await bench.client.submit_sms(**asked)).sealed
    assert [each.what for each in await told(bench)] == ["sms.create", "credits.grant", "send.load.begin", "send.load"]


async def test_rows_that_came_before_an_upload_failed_are_told(bench: Bench) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"email\n" + b"".join(b"p%d@x.org\n" % n for n in range(1000))
        raise OSError("the line broke")

    await bench.client.open(account="m1", message=MESSAGE, campaign="c", who="anna")
    with pytest.raises(OSError, match="the line broke"):
        await bench.client.load("c", broken(), who="ben")
    stands = (await bench.client.status("c")).rows
    assert stands
    assert [(each.what, each.who, each.facts) for each in await told(bench)][1:] == [
        ("send.load.begin", "ben", {"send": "c", "batch": "0"}), ("send.load", "ben", {"send": "c", "added": str(stands)}),
    ]  # fmt: skip


async def test_rows_that_come_to_a_standing_send_are_told_and_a_repeat_is_not(bench: Bench) -> None:
    people = [{"email": f"p{n}@x.org", "name": "A"} for n in range(250)]

    def broken() -> Iterator[dict[str, Any]]:
        yield from people
        raise OSError("the line broke")

    asked: dict[str, Any] = {"account": "m1", "message": MESSAGE, "campaign": "c"}
    with pytest.raises(OSError, match="the line broke"):
        await bench.client.submit(**asked, recipients=broken(), who="anna")
    stood = (await bench.client.status("c")).rows
    for _ in range(2):
        await bench.client.submit(**asked, recipients=people, who="ben")
    assert [(each.what, each.who, each.facts) for each in await told(bench)] == [
        ("send.create", "anna", {"send": "c"}), ("send.load.begin", "ben", {"send": "c", "batch": "2"}),
        ("send.load", "ben", {"send": "c", "added": str(250 - stood)}),
    ]  # fmt: skip


async def test_who_loaded_is_told_even_where_nothing_more_is_heard_of_the_call(bench: Bench) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"email\n" + b"".join(b"p%d@x.org\n" % n for n in range(1200))

    await bench.client.open(account="m1", message=MESSAGE, campaign="c", who="anna")
    for at, who in ((0, "nobody"), (3, "ben"), (7, "cid")):
        desk: Any = Dying(bench.desk, at)
        async with Client(desk=desk, config=Config()) as client:
            with pytest.raises(Unavailable):
                await client.load("m1:c", chunks(), who=who)
    for _ in range(2):
        await bench.client.load("m1:c", chunks(), who="dora")
    assert [(each.what, each.who, each.facts) for each in await told(bench)][1:] == [
        ("send.load.begin", "ben", {"send": "c", "batch": "0"}), ("send.load.begin", "cid", {"send": "c", "batch": "3"}),
        ("send.load.begin", "dora", {"send": "c", "batch": "7"}), ("send.load", "dora", {"send": "c", "added": "500"}),
    ]  # fmt: skip


def test_the_command_line_leaves_the_lines_that_http_does(run: Shell) -> None:
    run("credits", "grant", "--account", "m1", "100", "--key", "k", "--why", "paid")
    run("credits", "grant", "--account", "m1", "100", "--key", "k", "--why", "paid")
    for _ in range(2):
        run.submit(GOOD)
    for verb in ("pause", "pause", "resume", "reverse", "cancel"):
        run(verb, "m1:c")
    run("resend", "--missing", "m1:c")
    assert run("fsck", "m1:c", "--repair").code == 0
    lines = run("account", "audit", "m1", "--json").lines
    assert {line["who"] for line in lines} == {common.user()}
    assert [line["what"] for line in lines] == [
        "account.create", "credits.grant", "send.create", "send.pause", "send.resume", "send.reverse", "send.cancel", "send.resend",
    ]  # fmt: skip


async def test_a_program_that_names_nobody_is_the_user_of_this_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "nora")
    await bench.client.submit(account="m1", message=MESSAGE, recipients=ROWS, campaign="a")
    await bench.client.pause("a", who="anna")
    await bench.client.hold("m1", "content")
    assert [(each.what, each.who) for each in await told(bench)] == [("send.create", "nora"), ("send.pause", "anna"), ("hold", "nora")]
