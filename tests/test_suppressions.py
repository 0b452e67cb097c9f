"""The list as users keep it: by the Client against a real server and its twin, by the command line, in files of any length."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sendengine.address import normalise
from sendengine.client import Client
from sendengine.commands import common
from sendengine.config import Config
from sendengine.errors import NotFound, RefusedInput, Unavailable
from sendengine.intake import Rejected
from sendengine.policy.suppression import Listed, Reason
from sendengine.queue.memory_desk import MemoryDesk
from sendengine.queue.memory_state import MemoryStore
from tests.test_cli import Shell, run
from tests.test_client import Bench, bench

__all__ = ["bench", "run"]  # fixtures of theirs


async def reasons(bench: Bench) -> dict[str, str]:
    return {each.address: each.reason.value async for each in bench.client.suppressed("m1")}


async def test_added_listed_and_removed(bench: Bench) -> None:
    assert await bench.client.suppress("m1", ["A@X.org", " b@x.org ", "A@x.org"]) == Listed(2)
    assert await bench.client.suppress("m1", ["b@x.org"], "complained") == Listed(0, 1)
    assert await reasons(bench) == {"A@x.org": "manual", "b@x.org": "complained"}
    assert [each.address async for each in bench.client.suppressed("m1", reason="complained")] == ["b@x.org"]
    assert [each.address async for each in bench.client.suppressed("m1", ["c@x.org", "b@X.ORG"])] == ["b@x.org"]
    assert await bench.client.unsuppress("m1", ["B@x.org", "b@X.org"]) == 1
    assert await reasons(bench) == {"A@x.org": "manual"}


async def test_an_internationalised_domain_is_the_one_that_is_sent_to(bench: Bench) -> None:
    await bench.client.suppress("m1", ["a@háčky.example"])
    assert await reasons(bench) == {normalise("a@háčky.example"): "manual"}


async def test_what_is_no_address_refuses_all(bench: Bench) -> None:
    with pytest.raises(RefusedInput, match="'nobody'"):
        await bench.client.suppress("m1", ["a@x.org", "nobody"])
    with pytest.raises(RefusedInput, match="nearest is 'complained'"):
        await bench.client.suppress("m1", ["a@x.org"], "complaind")
    with pytest.raises(NotFound, match="nearest is 'm1'"):
        await bench.client.suppress("m11", ["a@x.org"])
    with pytest.raises(RefusedInput, match="no reason"):
        _ = [each async for each in bench.client.suppressed("m1", reason="tired")]
    assert await reasons(bench) == {}


async def test_rows_of_any_source(bench: Bench) -> None:
    async def streamed() -> AsyncIterator[Mapping[str, Any] | str]:
        for at in range(250):
            yield {"email": f"s{at}@x.org", "reason": "unsubscribed"} if at % 2 else f"s{at}@x.org"

    found = await bench.client.import_suppressed("m1", streamed(), "complained")
    assert (found.rows, found.added, found.rejected) == (250, 250, 0)
    assert sorted((await reasons(bench)).values()) == ["complained"] * 125 + ["unsubscribed"] * 125
    found = await bench.client.import_suppressed("m1", (f"s{at}@x.org" for at in range(240, 3240)), "complained")
    assert (found.rows, found.added, found.changed) == (3000, 2990, 5)
    assert set((await reasons(bench)).values()) == {"complained", "unsubscribed"}
    assert sum(reason == "complained" for reason in (await reasons(bench)).values()) == 120 + 3000


FILES = {
    "csv": "email;reason;since\na@x.org;complained;2026-01-02T03:04:05Z\nb@x.org;;\n",
    "ndjson": '{"email":"a@x.org","reason":"complained","since":"2026-01-02T03:04:05Z"}\n{"email":"b@x.org"}\n',
}


@pytest.mark.parametrize("kind", FILES)
async def test_a_file_with_reasons_and_times(bench: Bench, tmp_path: Path, kind: str) -> None:
    (tmp_path / "list").write_text(FILES[kind])
    found = await bench.client.import_suppressed("m1", tmp_path / "list", "unsubscribed")
    assert (found.rows, found.added, found.rejected) == (2, 2, 0)
    by_name = {each.address: each async for each in bench.client.suppressed("m1")}
    assert (by_name["a@x.org"].reason, by_name["a@x.org"].since.isoformat()) == (Reason.COMPLAINED, "2026-01-02T03:04:05+00:00")
    assert by_name["b@x.org"].reason is Reason.UNSUBSCRIBED


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
async def test_a_file_of_bare_addresses(bench: Bench, tmp_path: Path, start: str, end: str) -> None:
    (tmp_path / "list").write_text(f"{start}a@x.org\nnobody\n\n c@X.org{end}")
    rejected: list[Rejected] = []
    found = await bench.client.import_suppressed("m1", tmp_path / "list", on_reject=rejected.extend)
    assert (found.rows, found.added, found.rejected) == (3, 2, 1)
    assert [(row.line, row.row, row.text) for row in rejected] == [(2, 1, "nobody")]
    assert set(await reasons(bench)) == {"a@x.org", "c@x.org"}


async def test_what_is_wrong_with_a_row_names_its_line(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("email,reason,since\na@x.org,tired,\nb@x.org,,yesterday\nnobody,,\nd@x.org,COMPLAINED,\n")
    rejected: list[Rejected] = []
    found = await bench.client.import_suppressed("m1", tmp_path / "list", on_reject=rejected.extend)
    assert (found.rows, found.added, found.rejected) == (4, 1, 3)
    assert [row.line for row in rejected] == [2, 3, 4]
    assert ["no reason 'tired'" in rejected[0].reason, "no time" in rejected[1].reason, "an @" in rejected[2].reason] == [True] * 3


async def test_of_an_address_twice_in_a_file_the_graver_reason_stands(bench: Bench, tmp_path: Path) -> None:
    rows = [f"u{at % 700}@x.org,{'complained' if at < 300 else 'unsubscribed'}" for at in range(2500)]
    (tmp_path / "list").write_text("email,reason\n" + "\n".join(rows))
    found = await bench.client.import_suppressed("m1", tmp_path / "list")
    assert (found.rows, found.added) == (2500, 700)
    assert sum(reason == "complained" for reason in (await reasons(bench)).values()) == 300


async def test_a_file_that_cannot_be_read(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="cannot read"):
        await bench.client.import_suppressed("m1", tmp_path / "none")
    (tmp_path / "list").write_text("name,city\nA,B\n")
    with pytest.raises(RefusedInput, match="no column 'email'"):
        await bench.client.import_suppressed("m1", tmp_path / "list")
    (tmp_path / "list").write_text("")
    with pytest.raises(RefusedInput, match="empty"):
        await bench.client.import_suppressed("m1", tmp_path / "list")


class Deaf(MemoryDesk):
    """Counts calls, and which of them told."""

    told: list[bool]

    async def suppress(self, account: str, entries: Mapping[bytes, bytes], tells: bool = True, **rest: Any) -> Listed | None:
        self.told.append(tells)
        return await super().suppress(account, entries, tells, **rest)


@pytest.mark.parametrize("n", [1, 400, 401, 500, 5000])
async def test_a_long_import_tells_at_its_end_at_least(n: int) -> None:
    desk = Deaf(MemoryStore(), lambda: 1.8e15)
    desk.told = []
    async with Client(desk=desk, config=Config()) as client:
        await client.create_account("m1", "60k")
        found = await client.import_suppressed("m1", (f"u{at}@x.org" for at in range(n)))
        assert found.added == n == await desk.count_suppressed("m1")
    assert desk.told[-1]
    assert len(desk.told) <= n // 400 + 2


async def test_an_account_that_goes_in_mid_import_is_not_made_again(bench: Bench) -> None:
    if not isinstance(bench.desk, MemoryDesk):
        pytest.skip("the twin can lose an account in between")
    store = bench.desk._store

    def rows() -> Iterator[str]:
        for at in range(3000):
            if at == 1500:
                store.accounts.clear()
            yield f"u{at}@x.org"

    with pytest.raises(NotFound):
        await bench.client.import_suppressed("m1", rows())
    assert store.accounts == {}


# a resend


async def test_resend_missing_leaves_out_who_is_suppressed_by_then(bench: Bench) -> None:
    from sendengine.types import Outcome

    await bench.submit([{"email": f"u{at}@x.org", "name": "N"} for at in range(4)])
    await bench.send_all(but=Outcome.BOUNCED)
    await bench.client.suppress("m1", ["u0@x.org"])
    again = await bench.client.resend("m1:summer")
    assert again.accepted == 1, "the row is in the new send: its dispatch asks the list"


# the command line


def test_the_verbs(run: Shell) -> None:
    done = run("suppress", "add", "a@x.org", "B@X.org", "--account", "m1", "--reason", "complained", "--json")
    assert done.json == {"account": "m1", "added": 2, "changed": 0}
    assert run("suppress", "add", "a@x.org", "--account", "m1").out == "0 added, 0 changed\n"
    done = run("suppress", "list", "--account", "m1", "--json")
    assert sorted((row["address"], row["reason"]) for row in done.lines) == [("B@x.org", "complained"), ("a@x.org", "complained")]
    assert run("suppress", "list", "--account", "m1", "B@x.org").out.startswith("B@x.org\tcomplained\t20")
    assert run("suppress", "list", "--account", "m1", "--reason", "manual").out == ""
    assert run("suppress", "remove", "a@x.org", "--account", "m1", "--json").json == {"account": "m1", "removed": 1}
    assert run("suppress", "remove", "a@x.org", "--account", "m1").out == "0 removed\n"


def test_an_export_is_an_import(run: Shell) -> None:
    rows = [f"u{at}@x.org,{list(Reason)[at % 5]},2026-01-{at % 28 + 1:02}T00:00:00Z\n" for at in range(2345)]
    text = "email,reason,since\n" + "".join(rows)
    done = run("suppress", "import", run.list(text), "--account", "m1", "--json")
    assert done.json == {"account": "m1", "rows": 2345, "added": 2345, "changed": 0, "rejected": 0}
    assert run("suppress", "export", "out.csv", "--account", "m1", "--json").json == {"account": "m1", "exported": 2345}
    exported = (run.folder / "out.csv").read_text()
    assert sorted(exported.splitlines()) == sorted(text.splitlines())
    printed = run("suppress", "export", "-", "--account", "m1", "--reason", "complained")
    assert (printed.code, len(printed.out.splitlines())) == (0, 469 + 1)
    assert run("account", "create", "m2", "--tier", "60k").code == 0
    assert run("suppress", "import", "out.csv", "--account", "m2").out == "2,345 rows: 2,345 added, 0 changed, 0 rejected\n"
    assert sorted(run("suppress", "export", "-", "--account", "m2").out.splitlines()) == sorted(exported.splitlines())


def test_refused_rows_are_shown_or_kept(run: Shell) -> None:
    done = run("suppress", "import", run.list("a@x.org\nnobody\n"), "--account", "m1")
    assert (done.code, done.out) == (0, "2 rows: 1 added, 0 changed, 1 rejected\n")
    assert "rejected: line 2: an address needs an @" in done.err
    done = run("suppress", "import", run.list("a@x.org\nnobody\n"), "--account", "m1", "--rejects", "bad.ndjson")
    assert "see bad.ndjson" in done.err
    assert '"line":2' in (run.folder / "bad.ndjson").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("add", "nobody", "--account", "m1"), "an address needs an @"),
        (("add", "a@x.org", "--account", "m1", "--reason", "x"), "no reason 'x'"),
        (("add", "a@x.org", "--account", "m2"), "no account m2"),
        (("import", "none.csv", "--account", "m1"), "cannot read none.csv"),
        (("export", "no/where.csv", "--account", "m1"), "cannot write no/where.csv"),
    ],
)
def test_what_is_refused(run: Shell, args: tuple[str, ...], said: str) -> None:
    done = run("suppress", *args)
    assert (done.code, said in done.err) == (2, True)


def test_the_trail_tells_who_changed_the_list_and_of_no_repeat(run: Shell) -> None:
    for _ in range(2):
        assert run("suppress", "import", run.list("a@x.org\nb@x.org\n"), "--account", "m1", "--reason", "unsubscribed").code == 0
        assert run("suppress", "add", "c@x.org", "--account", "m1").code == 0
    assert run("suppress", "add", "c@x.org", "b@x.org", "--account", "m1", "--reason", "complained").out == "0 added, 2 changed\n"
    for _ in range(2):
        assert run("suppress", "remove", "c@x.org", "--account", "m1").code == 0
    told = run("account", "audit", "m1", "--json").lines
    assert [(each["what"], each["who"], each["facts"]) for each in told[1:]] == [
        ("suppress.import", common.user(), {"reason": "unsubscribed", "added": "2"}),
        ("suppress", common.user(), {"reason": "manual", "added": "1"}),
        ("suppress", common.user(), {"reason": "complained", "changed": "2"}),
        ("unsuppress", common.user(), {"removed": "1"}),
    ]  # fmt: skip


async def test_an_import_that_breaks_off_is_told_by_what_it_did(bench: Bench) -> None:
    async def broken() -> AsyncIterator[Mapping[str, Any]]:
        for at in range(1000):
            yield {"email": f"s{at}@x.org", "reason": "complained" if at % 2 else "unsubscribed"}
        raise OSError("the line broke")

    await bench.client.create_account("m1", "60k")
    with pytest.raises(OSError, match="the line broke"):
        await bench.client.import_suppressed("m1", broken(), who="ben")
    await bench.client.suppress("m1", (f"s{at}@x.org" for at in range(12)), "hard-bounced", who="eve")
    told = [each async for each in bench.client.audit("m1")][1:]
    assert [(each.what, each.who, each.facts) for each in told] == [
        ("suppress.import", "ben", {"reason": "complained unsubscribed", "added": "1000"}),
        ("suppress", "eve", {"reason": "hard-bounced", "changed": "6"}),
    ]  # fmt: skip


class Unheard:
    """Changes of the list are made, and their answers, from the n-th on, are lost; or, `held`, wait."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, from_: int = 1, held: asyncio.Event | None = None) -> None:
        self._left, self._held, self.made = from_, held, asyncio.Event()
        for name in ("suppress", "unsuppress"):
            monkeypatch.setattr(bench.desk, name, partial(self._call, getattr(bench.desk, name)))
        monkeypatch.setattr(bench.desk, "note", self._away)

    async def _call(self, made: Callable[..., Any], *args: Any, **rest: Any) -> Any:
        answer, self._left = await made(*args, **rest), self._left - 1
        if self._left > 0:
            return answer
        self.made.set()
        if self._held is None:
            raise Unavailable("no replica has it")
        await self._held.wait()
        return answer

    async def _away(self, *_: Any) -> None:
        raise Unavailable("away")


async def behind_its_making(bench: Bench) -> list[tuple[str, str, dict[str, str]]]:
    told = [each async for each in bench.client.audit("m1")]
    assert told[0].what == "account.create"
    return [(each.what, each.who, each.facts) for each in told[1:]]


async def test_a_change_whose_answer_is_lost_leaves_its_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"u{at}@x.org" for at in range(700)]
    asks = [
        lambda who: bench.client.suppress("m1", names, "complained", who=who),
        lambda who: bench.client.unsuppress("m1", names[:600], who=who),
        lambda who: bench.client.import_suppressed("m1", iter(names[:10]), who=who),
    ]
    for ask, parts in zip(asks, (2, 2, 1), strict=True):
        with monkeypatch.context() as lost:
            Unheard(bench, lost, parts)
            with pytest.raises(Unavailable):
                await ask("ann")
        await ask("ben")
    assert await behind_its_making(bench) == [
        ("suppress", "ann", {"reason": "complained", "added": "700"}),
        ("unsuppress", "ann", {"removed": "600"}),
        ("suppress.import", "ann", {"reason": "manual", "added": "10"}),
    ]  # fmt: skip
    assert (await bench.queue.health("m1", 24)).complaints == 700


async def test_a_change_that_loses_redis_between_its_parts_is_told_by_both_callers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"u{at}@x.org" for at in range(700)]
    with monkeypatch.context() as lost:
        Unheard(bench, lost)
        with pytest.raises(Unavailable):
            await bench.client.suppress("m1", names, who="ann")
    await bench.client.suppress("m1", names, who="ben")
    assert await behind_its_making(bench) == [
        ("suppress", "ann", {"reason": "manual", "added": "500"}), ("suppress", "ben", {"reason": "manual", "added": "200"}),
    ]  # fmt: skip


async def test_an_import_is_one_line(bench: Bench) -> None:
    await bench.client.import_suppressed("m1", (f"u{at}@x.org" for at in range(5000)), "manual", who="ann")
    assert await behind_its_making(bench) == [("suppress.import", "ann", {"reason": "manual", "added": "5000"})]


@pytest.mark.parametrize("times", [1, 2])
async def test_an_import_that_is_cancelled_leaves_a_true_line_and_nothing_running(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once: what was asked is heard, and the rest that was read is written. Twice: it ends now."""
    await bench.client.suppress("m1", ["z@x.org"])
    others, held = asyncio.all_tasks(), asyncio.Event()
    with monkeypatch.context() as slow:
        unheard = Unheard(bench, slow, 2, held)
        importing = asyncio.create_task(bench.client.import_suppressed("m1", (f"u{at}@x.org" for at in range(5000)), who="ann"))
        await unheard.made.wait()
        for _ in range(times):
            importing.cancel()
            await asyncio.sleep(0)
        if times == 1:
            held.set()
        with pytest.raises(asyncio.CancelledError):
            await importing
        assert {each for each in asyncio.all_tasks() - others if not each.done()} == set()
    stands = await bench.desk.count_suppressed("m1") - 1
    assert stands >= 1000
    assert (await behind_its_making(bench))[1:] == [("suppress.import", "ann", {"reason": "manual", "added": str(stands)})]


async def test_an_import_that_loses_redis_asks_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as lost:
        Unheard(bench, lost, 3)
        with pytest.raises(Unavailable, match="no replica has it"):
            await bench.client.import_suppressed("m1", (f"u{at}@x.org" for at in range(5000)), who="ann")
    stands = await bench.desk.count_suppressed("m1")
    assert stands == 1500
    assert await behind_its_making(bench) == [("suppress.import", "ann", {"reason": "manual", "added": str(stands)})]


async def test_a_complaint_of_somebody_listed_for_less_counts_once(bench: Bench) -> None:
    await bench.client.create_account("m1", "60k")
    await bench.client.suppress("m1", ["a@x.org"], "unsubscribed")
    for _ in range(2):
        await bench.client.suppress("m1", ["a@x.org"], "complained")
    assert (await bench.queue.health("m1", 24)).complaints == 1


async def test_an_import_takes_constant_memory(redis_url: str) -> None:
    """Ten times the rows, no more memory."""
    async with Client(redis_url, config=Config()) as client:
        await client.create_account("m1", "60k")

        async def peak(n: int, at: int) -> int:
            await client.import_suppressed("m1", (f"u{row}@x.org" for row in range(at, at + n)))
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        before = await peak(10_000, 0)
        assert await peak(100_000, 10_000) - before < 8 << 10  # KiB
