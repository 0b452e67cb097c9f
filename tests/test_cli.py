"""The command line as scripts use it: exit status, JSON on standard output, words on standard error."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from redis import Redis

from sendengine import cli
from sendengine.commands import common
from sendengine.engine.takeover import give_back
from sendengine.errors import Unavailable
from sendengine.intake import PackedBatch
from sendengine.ports import Blame, Stored
from sendengine.queue import embedded
from sendengine.queue.desk import RedisDesk
from sendengine.queue.embedded import Status
from sendengine.queue.redis import RedisQueue
from sendengine.types import Relay, TlsPolicy

ROOT = Path(cli.__file__).parent.parent
EML = b"From: Shop <news@shop.example>\r\nSubject: Hi {{ name }}\r\n\r\nHello {{ name }}\r\n"
STATUS = [
    "campaign", "account", "state", "sealed", "rows", "accepted", "rejected", "duplicates", "sent", "bounced", "expired",
    "suppressed", "cancelled", "unknown", "pending", "deferred", "quarantined", "rate_contracted", "rate_achieved", "started_at",
    "through_at",
    "finished_at", "finish_estimate", "passes_term", "binding",
]  # fmt: skip
OUTCOME = [
    "campaign", "account", "recipient", "index", "outcome", "status", "reply", "relay", "attempts", "queued_at", "finished_at",
    "delays", "message_id", "worker", "possible_duplicate",
]  # fmt: skip


class Done:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]


class Shell:
    """Runs commands in this process, in a folder of their own."""

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._capture, self._monkeypatch, self.folder = capture, monkeypatch, folder

    def __call__(self, *args: str) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["sendengine", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = self._capture.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    def list(self, text: str) -> str:
        path = self.folder / "list.csv"
        path.write_text(text)
        return str(path)

    def submit(self, text: str, *more: str) -> Done:
        return self("submit", "--account", "m1", "--message", "m.eml", "--recipients", self.list(text), "--campaign", "c", "--json", *more)


@pytest.fixture
def run(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    for name in [name for name in os.environ if name.startswith("SENDENGINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SENDENGINE_REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.eml").write_bytes(EML)
    shell = Shell(capsys, monkeypatch, tmp_path)
    assert shell("account", "create", "m1", "--tier", "60k").code == 0
    return shell


GOOD = "email,name\na@x.org,A\nb@x.org,B\n"


def test_submit_prints_the_send(run: Shell) -> None:
    done = run.submit(GOOD)
    assert done.code == 0
    assert set(done.json) == {*STATUS, "id", "created", "added"}
    assert (done.json["id"], done.json["accepted"], done.json["created"]) == ("m1:c", 2, True)


def test_submit_again_changes_nothing(run: Shell) -> None:
    run.submit(GOOD)
    again = run.submit(GOOD)
    assert (again.code, again.json["created"], again.json["rows"]) == (0, False, 2)


def test_submit_of_other_rows_names_the_first_and_exits_2(run: Shell) -> None:
    run.submit(GOOD)
    done = run.submit(GOOD.replace("b@x.org", "c@x.org"))
    assert (done.code, done.out) == (2, "")
    assert "row 1 (line 3)" in done.err


def test_rejects_go_to_the_file_with_line_and_reason(run: Shell) -> None:
    done = run.submit(GOOD + "bad,C\nd@x.org,\n", "--rejects", "rejects.ndjson")
    assert (done.json["rows"], done.json["accepted"], done.json["rejected"]) == (4, 2, 2)
    rejects = [orjson.loads(line) for line in Path("rejects.ndjson").read_bytes().splitlines()]
    assert [(row["line"], row["text"]) for row in rejects] == [(4, "bad,C"), (5, "d@x.org,")]


def test_rejects_hold_the_octets_that_are_no_text(run: Shell) -> None:
    run.submit(GOOD, "--rejects", "none.ndjson")
    (run.folder / "latin.csv").write_bytes(GOOD.encode() + b"c@x.org,h\xe9l\nbad,C\n")
    run("submit", "--account", "m1", "--message", "m.eml", "--recipients", "latin.csv", "--rejects", "rejects.ndjson")
    first, second = map(orjson.loads, Path("rejects.ndjson").read_bytes().splitlines())
    assert (first["text"], b64decode(first["octets"])) == ("c@x.org,h\\xe9l", b"c@x.org,h\xe9l")
    assert second == {"line": 5, "row": 3, "reason": "an address needs an @", "text": "bad,C"}


def test_a_broken_line_of_json_is_one_rejected_row_of_the_file(run: Shell) -> None:
    done = run.submit('{"email":"a@x.org","name":"A"}\n{"email":\n{"email":"b@x.org","name":"B"}\n', "--rejects", "rejects.ndjson")
    assert (done.code, done.json["accepted"], done.json["rejected"]) == (0, 2, 1)
    [row] = [orjson.loads(line) for line in Path("rejects.ndjson").read_bytes().splitlines()]
    assert (row["line"], row["text"]) == (2, '{"email":')


def test_refused_rows_are_told_once_and_the_repeat_says_that_the_send_stands(run: Shell) -> None:
    bad = GOOD + "".join(f"bad{n},x\n" for n in range(8))
    first, again = run.submit(bad), run.submit(bad)
    assert first.err.count("rejected: line") == 5
    assert "rejected: line 4: an address needs an @" in first.err
    assert "3 more" in first.err
    assert (again.code, again.err) == (0, "m1:c stands already, its 8 rows refused as before\n")


def test_repeat_of_a_submit_that_broke_off_says_how_it_went_on(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "email,name\n" + "".join(f"u{n}@x.org,N\n" for n in range(350)) + "bad,x\n"
    take = RedisDesk.submit

    async def break_off(self: RedisDesk, account: str, campaign: str, batch: PackedBatch, **more: Any) -> Stored:
        if batch.number == 2:
            raise Unavailable("away")
        return await take(self, account, campaign, batch, **more)

    with monkeypatch.context() as patch:
        patch.setattr(RedisDesk, "submit", break_off)
        assert run.submit(whole).code == 75
    command = ("submit", "--account", "m1", "--message", "m.eml", "--recipients", run.list(whole), "--campaign", "c")
    onward, again = run(*command), run(*command)
    assert onward.out.splitlines()[0].rstrip() == "m1:c stood already, and went on: 151 rows were added"
    assert "rejected: line 352" in onward.err
    assert again.out.splitlines()[0].rstrip() == "m1:c stands already; no row was added"
    told = run.submit(whole).json
    assert (told["created"], told["added"], told["rows"]) == (False, 0, 351)


def test_rejects_file_is_named_with_the_number_of_its_rows(run: Shell) -> None:
    assert run.submit(GOOD + "bad,x\n", "--rejects", "rejects.ndjson").err == "1 row refused, see rejects.ndjson\n"


@pytest.mark.parametrize("more", [(), ("--rejects", "rejects.ndjson")])
def test_a_list_of_which_nothing_can_be_sent_says_so_and_why(run: Shell, more: tuple[str, ...]) -> None:
    done = run.submit("email,name\nbad,x\nworse,y\n", *more)
    assert (done.code, done.out) == (2, "")
    assert "nothing can be sent" in done.err
    assert "line 3: an address needs an @" in done.err
    assert ("2 rows refused, see rejects.ndjson" in done.err) == bool(more)
    assert run("list", "--json").out == ""
    assert run.submit(GOOD).json["created"] is True


def test_a_field_that_the_list_lacks_is_named_with_its_places_and_a_default(run: Shell) -> None:
    done = run.submit("email,town\na@x.org,Brno\n")
    assert (done.code, done.out) == (2, "")
    assert "no column 'name', which the message uses (Subject, " in done.err
    assert '{{ name | default("…") }}' in done.err
    assert "nearest" not in done.err


def test_strict_refuses_the_whole_list(run: Shell) -> None:
    done = run.submit(GOOD + "bad,C\n", "--strict")
    assert (done.code, "line 4" in done.err) == (2, True)
    assert run("list", "--json").out == ""


@pytest.mark.parametrize("text", [GOOD, '{"email":"a@x.org","name":"A"}\n{"email":"b@x.org","name":"B"}\n'])
def test_submit_reads_standard_input(run: Shell, text: str) -> None:
    command = [sys.executable, "-m", "sendengine", "submit", "--account", "m1", "--message", "m.eml", "--recipients", "-", "--json"]
    root = str(Path(cli.__file__).parent.parent)
    done = subprocess.run(command, input=text, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, check=True)
    assert orjson.loads(done.stdout)["accepted"] == 2


def test_status_has_exactly_its_fields(run: Shell) -> None:
    run.submit(GOOD)
    done = run("status", "c", "--json")
    assert list(done.json) == STATUS
    assert (done.json["campaign"], done.json["rate_contracted"]) == ("m1:c", 60_000.0)
    assert list(done.json["binding"]) == ["limit", "since", "lift"]


def test_outcomes_have_exactly_their_fields(run: Shell) -> None:
    run.submit(GOOD)
    assert run("cancel", "c", "--json").json["state"] == "cancelled"
    lines = run("outcomes", "c", "--outcome", "cancelled").lines
    assert [list(line) for line in lines] == [OUTCOME, OUTCOME]
    assert list(lines[0]["delays"]) == ["queued", "paced", "connect", "transmit"]


def test_pause_and_resume_are_the_state(run: Shell) -> None:
    run.submit(GOOD)
    assert run("pause", "m1:c", "--json").json["state"] == "paused"
    assert run("resume", "m1:c", "--json").json["state"] == "sending"


def test_resend_before_the_end_exits_2(run: Shell) -> None:
    run.submit(GOOD)
    assert run("resend", "--missing", "c").code == 2
    run("cancel", "c")
    assert run("resend", "--missing", "c", "--json").json["id"] == "m1:c-r1"


def test_move_of_a_send_that_waits_in_no_line_exits_2(run: Shell) -> None:
    run.submit(GOOD)
    assert run("move", "c", "up").code == 2
    assert run("move", "c", "sideways").code == 2


def test_why_and_fsck_answer(run: Shell) -> None:
    run.submit(GOOD)
    assert run("why", "c", "--json").json["binding"]["limit"] == "no_worker"
    done = run("fsck")
    assert (done.code, done.out) == (0, "1 send checked, 2 recipients accepted: all adds up\n")
    assert run("fsck", "--json").lines == [{"campaign": "m1:c", "accepted": 2, "findings": []}]


def test_durability_says_what_may_be_lost(run: Shell) -> None:
    done = run("durability", "--json")
    assert (done.code, done.json["durability"], done.json["durable"], done.json["dangers"]) == (0, "always", True, [])
    assert "nothing that was acknowledged" in run("durability").out


def test_estimate_names_the_slowest_tier_that_makes_it(run: Shell) -> None:
    done = run("estimate", "--account", "m1", "--recipients", "100000", "--finish-by", "+40m", "--json")
    assert (done.json["makes_it"], done.json["tier"]) == (False, "200k")
    assert abs(done.json["seconds"] - 6000) < 1


def test_nobody_knows_whether_an_unmetered_tier_makes_it(run: Shell) -> None:
    command = ("estimate", "--account", "m1", "--recipients", "100000", "--finish-by", "+40m")
    makes_it = {row["tier"]: row["makes_it"] for row in run(*command, "--json").json["tiers"]}
    assert (makes_it["100k"], makes_it["200k"], makes_it["unmetered"]) == (False, True, None)
    assert [line for line in run(*command).out.splitlines() if "unmetered" in line and "unknown" in line] != []


def test_estimate_counts_a_file(run: Shell) -> None:
    done = run("estimate", "--account", "m1", "--recipients", run.list(GOOD + "bad,x\n"), "--json")
    assert done.json["recipients"] == 2


def test_estimate_counts_a_duplicate_once_as_submit_does(run: Shell) -> None:
    rows = GOOD + " a@X.org,other\n" + "b@x.org,B\n" * 250
    assert run("estimate", "--account", "m1", "--recipients", run.list(rows), "--json").json["recipients"] == 2
    assert run.submit(rows).json["accepted"] == 2


def test_send_prints_its_message_id(run: Shell) -> None:
    Path("t.eml").write_bytes(b"From: a@shop.example\r\nSubject: x\r\n\r\nx\r\n")
    done = run("send", "--account", "m1", "--from", "a@shop.example", "--to", "u@x.org", "--message", "t.eml", "--json")
    assert (done.json["campaign"], done.json["recipient"]) == ("m1:transactional", "u@x.org")


def test_send_with_the_key_of_another_message_is_refused(run: Shell) -> None:
    command = ["send", "--account", "m1", "--from", "a@x.org", "--message", "m.eml", "--field", "name=A", "--key", "reset-7"]
    assert [run(*command, "--to", "u@x.org").code for _ in range(2)] == [0, 0]
    refused = run(*command, "--to", "other@x.org")
    assert (refused.code, "another message of m1 has the key 'reset-7'" in refused.err, "key of its own" in refused.err) == (2, True, True)


def test_sms_send_is_priced_and_reserved(run: Shell) -> None:
    command = ["sms", "send", "--account", "m1", "--sender", "Shop", "--text", "Code {{ code }}", "--to", "+46700000001"]
    command += ["--field", "code=1"]
    refused = run(*command)
    assert (refused.code, "credits grant --account m1" in refused.err) == (2, True)
    run("credits", "grant", "--account", "m1", "10")
    done = run(*command, "--key", "login-1", "--json")
    assert (done.code, done.json["campaign"], done.json["recipient"]) == (0, "m1/sms:transactional", "+46700000001")
    assert run(*command, "--key", "login-1", "--json").json == done.json
    assert run("credits", "show", "--account", "m1", "--json").json["reserved"] == 2


def test_send_takes_the_values_of_merge_fields(run: Shell) -> None:
    command = ["send", "--account", "m1", "--from", "a@x.org", "--to", "u@x.org", "--message", "m.eml"]
    refused = run(*command)
    assert (refused.code, "--field name=VALUE" in refused.err) == (2, True)
    assert run(*command, "--field", "name=Ana = Bob", "--json").json["recipient"] == "u@x.org"
    assert run(*command, "--field", "name").code == 2


@pytest.mark.parametrize(("at", "is_past"), [("2001-01-01T00:00:00Z", True), ("now", False), ("+1h", False)])
def test_time_that_is_past_means_now_and_is_noted(run: Shell, at: str, is_past: bool) -> None:
    done = run.submit(GOOD, "--at", at)
    assert (done.code, "is past: that means now" in done.err) == (0, is_past)


def test_submit_takes_retries_and_lifetime(run: Shell) -> None:
    more = ("--retry", "1m, 5m*2", "--lifetime", "12h")
    assert run.submit(GOOD, *more).json["created"] is True
    assert run.submit(GOOD, *more).json["created"] is False
    done = run.submit(GOOD, "--retry", "1m", "--lifetime", "12h")
    assert (done.code, "another retry" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("account create m2 --tier 6k0", "nearest is '60k'"),
        ("account create x2 --tier 60k", "no account id"),
        ("account show m11", "nearest is 'm1'"),
        ("account create m2 --tier 60k --tls maybe", "--tls"),
        ("status nothing", "no campaign nothing"),
        ("estimate --account m1 --recipients 10 --finish-by soon", "no time"),
        ("estimate --account m1 --recipients 10 --finish-by 10m", "+10m"),
        ("estimate --account m1 --recipients 10 --finish-by 2001-01-01T00:00:00Z", "is past"),
        ("submit --account m1 --recipients none.csv --message m.eml --window 09:00-17:00", "names no time zone"),
        ("submit --account m1 --recipients none.csv --message m.eml --window Mon-99:00", "no time zone"),
        ("submit --account m1 --from a@x.org --subject Hi --recipients none.csv --text Hello", "--text names a file"),
        ("sms submit --account m1 --sender Shop --recipients none.csv --text m.eml", "--text @m.eml sends what is in it"),
        ("credits estimate --account m1 --recipients none.csv --text m.eml", "--text @m.eml sends what is in it"),
        ("sms submit --account m1 --sender Shop --recipients none.csv --text @none.txt", "@FILE reads it from a file"),
        ("submit --account m1 --recipients none.csv --message m.eml", "cannot read none.csv"),
        ("submit --account m1 --recipients none.csv --message none.eml", "cannot read none.eml"),
        ("submit --account m1 --recipients none.csv", "--message"),
        ("submit --account m1 --from a@x.org --text m.eml --recipients none.csv", "--subject"),
        ("send --account m1 --from a@x.org --text m.eml --to a@x.org", "--subject"),
        ("submit --account m1 --subject Hi --text m.eml --recipients none.csv", "--from"),
        ("submit --account m1 --from a@x.org --subject Hi --html /dev/null --recipients none.csv", "html is empty"),
        ("account set-relay m1 --relay http://x", "smtp"),
        ("submit --account m1 --from nobody --recipients none.csv --message m.eml", "--from"),
        ("submit --account m1 --recipients /dev/null --message m.eml", "the list is empty"),
        ("send --account m1 --from a@x.org --to a@x.org --message m.eml", "default("),
        ("list m11", "no account m11"),
        ("pause", "Missing argument"),
        ("outcomes c --outcome lost", "no outcome"),
        ("nosuchverb", "nosuchverb"),
    ],
)
def test_refused_input_exits_2_and_says_why(run: Shell, command: str, word: str) -> None:
    done = run(*command.split())
    assert (done.code, done.out) == (2, "")
    assert word in done.err


def test_away_redis_exits_75(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_REDIS_URL", "unix:///nonexistent/redis.sock")
    done = run("list")
    assert (done.code, done.out) == (75, "")


def test_flag_comes_from_the_environment_and_the_line_wins(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_ACCOUNT_CREATE_TIER", "30k")
    assert run("account", "create", "m2", "--json").json["tier"] == "30k"
    assert run("account", "create", "m3", "--tier", "15k", "--json").json["tier"] == "15k"


def test_every_flag_has_its_variable_and_every_verb_json() -> None:
    command: Any = typer.main.get_command(cli.app)
    cli.name_variables(command, "SENDENGINE")
    assert {param.envvar for param in command.commands["submit"].params} >= {"SENDENGINE_SUBMIT_FROM", "SENDENGINE_SUBMIT_ON_DOUBT"}
    verbs = [verb for group in command.commands.values() for verb in getattr(group, "commands", {"": group}).values()]
    assert [verb.name for verb in verbs if not any("--json" in param.opts for param in verb.params)] == []


def test_relay_password_is_never_printed(run: Shell) -> None:
    Path("secret").write_text("hunter2\n")
    relay = ("--relay", "smtp://user@mx.example:587", "--password-file", "secret")
    done = run("account", "create", "m2", "--tier", "60k", *relay, "--json")
    assert done.json["relay"] == "mx.example:587"
    assert "hunter2" not in done.out + done.err + run("account", "show", "m2").out


def test_account_has_the_fields_of_the_account_side_too(run: Shell) -> None:
    found = run("account", "show", "m1", "--json").json
    assert (found["term"]["phase"], found["holds"], found["credits"]) == (None, [], None)


def test_several_holds_at_once(run: Shell) -> None:
    run("account", "create", "m71", "--tier", "60k")
    held = run("account", "hold", "m71", "--reason", "content", "--reason", "unpaid-fee", "--json").json
    assert [each["reason"] for each in held["holds"]] == ["content", "unpaid-fee"]


def test_retry_schedule_of_an_account(run: Shell) -> None:
    assert run("account", "create", "m2", "--tier", "60k", "--retry", "1m, 5m*2", "--json").json["retry"] == "1m, 5m*2"
    assert run("account", "set-relay", "m2", "--retry", "1h", "--json").json["retry"] == "1h"
    assert "1h" in run("account", "show", "m2").out
    assert run("account", "set-relay", "m2", "--retry", "", "--json").json["retry"] is None
    assert run("account", "set-relay", "m2").code == 2
    assert run("account", "set-relay", "m2", "--tls", "none", "--retry", "1h").code == 2  # it has no relay of its own


def test_boost_is_granted_shown_and_ended(run: Shell) -> None:
    done = run("account", "boost", "m1", "--rate", "200000/h", "--until", "+2h", "--why", "spring sale", "--who", "ops", "--json")
    [boost] = done.json["boosts"]
    assert (done.code, done.json["tier"], done.json["rate"]) == (0, "60k", 200_000.0)
    assert boost.keys() == {"boost", "rate", "from", "until", "who", "why"}
    assert (boost["boost"], boost["rate"], boost["who"], boost["why"]) == (1, 200_000.0, "ops", "spring sale")
    assert "spring sale" in run("account", "show", "m1").out
    assert run("account", "unboost", "m1", "1", "--json").json["rate"] == 60_000.0
    assert run("account", "unboost", "m1", "1").code == 2
    assert run("account", "boost", "m1", "--rate", "200000/h", "--until", "now").code == 2


@pytest.mark.parametrize(("tier", "rate", "has_effect"), [("60k", "60k", False), ("60k", "70k", True), ("unmetered", "70k", False)])
def test_boost_that_speeds_up_nothing_is_noted(run: Shell, tier: str, rate: str, has_effect: bool) -> None:
    run("account", "set-tier", "m1", tier)
    run("account", "boost", "m1", "--rate", "90k", "--until", "+1h")
    run("account", "unboost", "m1", "1")
    done = run("account", "boost", "m1", "--rate", rate, "--until", "+2h", "--json")
    assert (done.code, "no effect" in done.err) == (0, not has_effect)


def test_relay_of_an_account_is_changed(run: Shell) -> None:
    Path("secret").write_text("hunter2\n")
    done = run("account", "set-relay", "m1", "--relay", "smtp://u@mx.example:587", "--tls", "verify", "--password-file", "secret", "--json")
    assert (done.code, done.json["relay"], done.json["tier"]) == (0, "mx.example:587", "60k")


def test_a_relay_keeps_the_configurations_tls_policy_unless_another_is_named(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_RELAY_TLS", "verify")
    relay = ("--relay", "smtp://mx.example:2525", "--json")
    for args in (("create", "m7", "--tier", "60k"), ("set-relay", "m1")):
        assert run("account", *args, *relay).json["relay_tls"] == "verify"
    assert run("account", "create", "m8", "--tier", "60k", "--tls", "opportunistic", *relay).json["relay_tls"] == "opportunistic"


def test_a_new_relay_keeps_the_tls_policy_until_another_is_named(run: Shell) -> None:
    run("account", "set-relay", "m1", "--relay", "smtp://mx.example:2525", "--tls", "verify")
    assert run("account", "set-relay", "m1", "--relay", "smtp://other.example:2527", "--json").json["relay_tls"] == "verify"
    named = run("account", "set-relay", "m1", "--relay", "smtp://mx.example:2525", "--tls", "none", "--json")
    assert named.json["relay_tls"] == "none"


@pytest.mark.parametrize("text", ["EMAIL,Name\na@x.org,A\n", '{"EMAIL":"a@x.org","Name":"A"}\n'])
def test_columns_are_found_case_blindly(run: Shell, text: str) -> None:
    assert run.submit(text).json["accepted"] == 1


@pytest.mark.parametrize("text", ["email,NAME,Name\na@x.org,A,B\n"])
def test_two_columns_alike_but_for_case_are_neither(run: Shell, text: str) -> None:
    done = run.submit(text)
    assert (done.code, "no column 'name'" in done.err) == (2, True)


@pytest.mark.parametrize("text", ["email,nom\na@x.org,A\n", '{"email":"a@x.org","nom":"A"}\n'])
def test_field_with_a_default_and_without_a_column_is_warned_of(run: Shell, text: str) -> None:
    Path("m.eml").write_bytes(EML.replace(b"{{ name }}", b"{{ name | default('you') }}"))
    done = run.submit(text)
    assert (done.code, done.json["accepted"]) == (0, 1)
    assert "no column 'name'" in done.err
    assert "'nom'" in done.err


@pytest.mark.parametrize("command", ["list", "status", "status m1:transactional", "top", "account list", "why m1:transactional"])
def test_waiting_single_message_shows_that_no_worker_runs(run: Shell, command: str) -> None:
    Path("t.eml").write_bytes(b"From: a@shop.example\r\nSubject: x\r\n\r\nx\r\n")
    run("send", "--account", "m1", "--from", "a@shop.example", "--to", "u@x.org", "--message", "t.eml")
    done = run(*command.split())
    assert (done.code, "no_worker" in done.out) == (0, True)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("status c", "2 accepted"),
        ("status", "m1:c"),
        ("list", "m1:c"),
        ("tiers", "6m 0s"),
        ("account list", "no_worker"),
        ("account show m1", "60,000 messages per hour"),
        ("workers", "sessions"),
        ("top", "m1:c"),
        ("estimate --account m1 --recipients 5", "will be through"),
        ("status c", "if a worker runs"),
        ("list m1", "m1:c"),
        ("account show m1", "1: m1:c"),
        ("why m1", "what lifts it: sendengine worker"),
    ],
)
def test_tables_are_for_people(run: Shell, command: str, word: str) -> None:
    run.submit(GOOD)
    done = run(*command.split())
    assert (done.code, word in done.out) == (0, True)


def test_config_show_hides_the_password_of_the_url(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_REDIS_URL", "redis://user:hunter2@host/0")
    done = run("config", "show", "--json")
    assert (done.json["redis_url"], run("config", "check").code) == ("redis://user:***@host/0", 0)


def test_variable_that_nothing_reads_is_named_by_config_check(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_SUBMIT_ACCOUNT", "m1")
    assert run("config", "check").code == 0
    monkeypatch.setenv("SENDENGINE_RELAI", "smtp://mx.example")
    done = run("config", "check")
    assert (done.code, "SENDENGINE_RELAI; nearest is 'SENDENGINE_RELAY'" in done.err) == (2, True)


def test_variable_that_nothing_reads_is_logged_by_a_worker(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_RELAI", "smtp://mx.example")
    monkeypatch.setenv("SENDENGINE_WORKER_PROCESSES", "1")
    monkeypatch.setenv("SENDENGINE_LOG_FORMAT", "json")
    command = [sys.executable, "-m", "sendengine", "worker", "--burst"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60, check=True)
    warnings = [said for said in map(orjson.loads, done.stderr.splitlines()) if said["event"] == "unknown_variable"]
    assert [(said["level"], said["name"], said["nearest"]) for said in warnings] == [("warning", "SENDENGINE_RELAI", "SENDENGINE_RELAY")]


@pytest.mark.parametrize("flag", ["-h", "--help", "--version", "submit -h", "account set-tier -h"])
def test_help_and_version_exit_0(run: Shell, flag: str) -> None:
    done = run(*flag.split())
    assert (done.code, done.out != "") == (0, True)


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from sendengine import cli; sys.argv = ['sendengine', '--help']\ntry: cli.main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cli.__file__).parent.parent, check=True)
    loaded = set(done.stdout.split())
    assert "typer" in loaded
    assert loaded & {"redis", "rich", "minijinja", "aiosmtplib", "uvloop", "asyncio", "orjson", "sendengine.client"} == set()


async def die_of_everything(url: str, times: int) -> None:
    """As rescuers tell it: so many workers died with all of m1 in hand."""
    queue = RedisQueue(url)
    await queue.register("w1", b"t")
    await queue.tell("w1", b"{}")
    for _ in range(times):
        taken = await queue.take("m1", "w1", 100, [os.urandom(8)], [], [])
        await queue.visit("m1", 0, 0.0, "=", [], [give_back(lease.token, Blame.KILL) for lease in taken.leases])
    await queue.close()


def test_what_was_set_aside_is_listed_and_replayed(run: Shell, redis_url: str) -> None:
    run.submit(GOOD)
    asyncio.run(die_of_everything(redis_url, 3))
    [line] = run("quarantine", "list", "--json").lines
    assert line == {"campaign": "m1:c", "batch": 0, "rows": 2, "indexes": [0, 1]}
    status = run("status", "m1:c", "--json").json
    assert (status["pending"], status["quarantined"], status["binding"]["limit"]) == (2, 2, "quarantine")
    assert "quarantine replay m1:c" in run("why", "m1:c").out
    assert run("fsck").code == 0
    assert run("quarantine", "replay", "m1:c", "--json").json["quarantined"] == 0
    assert run("quarantine", "list", "--json").lines == []


def test_times_in_tables_carry_their_zone(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        assert common.shown(datetime(2026, 7, 1, 10, tzinfo=UTC)) == "2026-07-01 12:00:00 CEST"
        there.setenv("TZ", "UTC0")
        time.tzset()
        run.submit(GOOD)
        assert re.search(r"will be through.*\d\d:\d\d:\d\d UTC", run("status", "c").out)
        assert re.search(r"\d\d:\d\d:\d\d UTC; what lifts it", run("why", "c").out)
    time.tzset()


def test_embedded_status_shows_numbers_as_they_are_pasted(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Status(pid=3886123, url="unix:///x", version="8", uptime_s=4000, memory=1_234_567, aof=9_876_543, aof_ok=True, clients=1)
    monkeypatch.setattr("sendengine.queue.embedded.status", lambda state_dir: found)
    shown = run("embedded", "status").out
    for figure in ("3886123", "1234567", "9876543", "yes"):
        assert figure in shown


def test_pause_of_single_messages_says_why_not(run: Shell) -> None:
    run("send", "--account", "m1", "--from", "a@x.org", "--to", "u@x.org", "--message", "m.eml", "--field", "name=U")
    done = run("pause", "m1:transactional")
    assert done.code == 2
    assert "single messages" in done.err
    assert "sendengine outcomes m1:transactional" in done.err


def test_another_password_keeps_relay_user_and_tls_policy(run: Shell, redis_url: str) -> None:
    for name in ("old", "new"):
        (run.folder / name).write_text(f"{name} secret\n")
    assert run("account", "set-relay", "m1", "--password-file", "new").code == 2  # the configuration's relay
    given = ("--relay", "smtp://u@mx.example:587", "--tls", "verify", "--password-file", "old")
    assert run("account", "set-relay", "m1", *given).code == 0
    done = run("account", "set-relay", "m1", "--password-file", "new", "--json")
    assert (done.code, done.json["relay"], done.json["relay_user"], done.json["relay_tls"]) == (0, "mx.example:587", "u", "verify")
    assert stored_relay(redis_url) == Relay("mx.example", 587, "u", "new secret", TlsPolicy.VERIFY)
    (run.folder / "empty").write_text("\n")
    assert run("account", "set-relay", "m1", "--password-file", "empty").code == 2
    assert run("account", "set-relay", "m1", "--tls", "required", "--retry", "1h", "--json").json["retry"] == "1h"
    assert stored_relay(redis_url) == Relay("mx.example", 587, "u", "new secret", TlsPolicy.REQUIRED)
    shown = run("account", "show", "m1").out
    assert ("required" in shown, " u " in shown, "secret" in shown) == (True, True, False)
    assert run("account", "set-relay", "m1", "--relay", "smtps://mx.example").code == 0
    assert run("account", "set-relay", "m1", "--password-file", "new").code == 2  # no user
    assert run("account", "set-relay", "m1", "--tls", "none").code == 2  # TLS from the start
    assert run("account", "set-relay", "m1").code == 2


def stored_relay(redis_url: str) -> Relay:
    async def read() -> Relay:
        desk = RedisDesk(redis_url)
        fields = await desk.account("m1")
        await desk.close()
        return Relay.decode(fields["relay"])

    return asyncio.run(read())


def test_embedded_verbs_say_whom_they_leave_and_that_another_server_is_in_use(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_STATE_DIR", str(run.folder / "state"))
    monkeypatch.setenv("SENDENGINE_REDIS_URL", "redis://user:secret@host/0")
    url = embedded.ensure(run.folder / "state")
    try:
        done = run("embedded", "status", "--json")
        assert (done.json["clients"], done.err.count("\n"), "redis://user:***@host/0" in done.err) == (0, 1, True)
        monkeypatch.delenv("SENDENGINE_REDIS_URL")
        with Redis.from_url(url) as client:
            client.ping()
            done = run("embedded", "status", "--json")
            assert (done.json["clients"], done.err) == (1, "")
            done = run("embedded", "stop")
            assert (done.code, done.err.startswith("warning: 1 connected")) == (0, True)
    finally:
        embedded.stop(run.folder / "state")
    assert run("embedded", "stop").err == ""


def test_a_key_is_shown_once_listed_and_revoked(run: Shell) -> None:
    made = run("key", "create", "--account", "m1", "--scope", "read,send", "--seat", "Ann", "--json").json
    assert re.fullmatch(r"se_[\w-]{43}", made["key"])
    assert (made["account"], made["scopes"], made["seat"], made["last_used"]) == ("m1", ["read", "send"], "Ann", None)
    plain = run("key", "create", "--admin", "--scope", "admin", "--seat", "ops")
    assert re.fullmatch(r"se_[\w-]{43}\n", plain.out)
    listed = run("key", "list", "--json")
    assert made["key"] not in listed.out
    assert [(each["account"], each["seat"]) for each in listed.lines] == [("m1", "Ann"), (None, "ops")]
    assert [each["id"] for each in run("key", "list", "--account", "m1", "--json").lines] == [made["id"]]
    assert run("key", "revoke", made["id"], "--admin").code == 2
    assert run("key", "revoke", made["id"], "--account", "m1").code == 0
    again = run("key", "revoke", made["id"])
    assert (again.code, "no API key" in again.err) == (2, True)
    assert [each["seat"] for each in run("key", "list", "--json").lines] == ["ops"]


def test_seats_of_an_account_are_those_that_were_bought(run: Shell, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.hset("{m1}", "seats", "1")
    create = ("key", "create", "--account", "m1", "--scope", "read", "--seat")
    assert run(*create, "Ann").code == 0
    refused = run(*create, "Bob")
    assert (refused.code, "1 seat" in refused.err, "Ann" in refused.err) == (2, True, True)
    assert run(*create, "Ann").code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--scope", "read", "--seat", "x"), "whose key"),
        (("--admin", "--account", "m1", "--scope", "read", "--seat", "x"), "not both"),
        (("--admin", "--scope", "root", "--seat", "x"), "no scope"),
        (("--admin", "--scope", "read", "--seat", " "), "no name"),
        (("--account", "m12", "--scope", "read", "--seat", "x"), "no account"),
    ],
)
def test_a_key_that_cannot_be(run: Shell, args: tuple[str, ...], said: str) -> None:
    done = run("key", "create", *args)
    assert (done.code, said in done.err) == (2, True)
    assert run("key", "list", "--json").lines == []


def test_fsck_of_an_account_looks_at_all_its_sends(run: Shell) -> None:
    run.submit(GOOD)
    run("account", "create", "m2", "--tier", "60k")
    assert [each["campaign"] for each in run("fsck", "m1", "--json").lines] == ["m1:c"]
    assert run("fsck", "m2", "--json").lines == []
    assert run("fsck", "m3").code == 2


def test_account_show_has_its_credits_and_says_that_nothing_lifts_a_deletion(run: Shell) -> None:
    assert "none were bought" in run("account", "show", "m1").out
    run("credits", "grant", "--account", "m1", "1234.5")
    assert "1,234.5" in run("account", "show", "m1").out
    ended = f"{(time.time() - 11 * 86400) * 1e6:.0f}"
    with Redis.from_url(os.environ["SENDENGINE_REDIS_URL"]) as redis:
        redis.hset("{m1}", mapping={"term": "active", "term_ends": ended})
    for command in ("show", "term"):
        said = run("account", command, "m1").out
        assert ("nothing lifts that" in said, "--renew" in said) == (True, False), command
