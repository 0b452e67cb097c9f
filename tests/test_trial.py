"""What trials are made of: the list that does not change, the stage that leaves nothing behind, the identities that can break."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sendengine.intake import Intake, Rejected
from sendengine.render.compile import compile as compile_message
from sendengine.scheduler.status import Send, Status, as_send
from sendengine.trial.letter import letter
from sendengine.trial.mails import Mail
from sendengine.trial.people import people, write_csv
from sendengine.trial.report import Run, checks, report, save_picture
from sendengine.trial.stage import Stage

COUNTS = dict.fromkeys(("bounced", "expired", "suppressed", "cancelled", "unknown", "pending", "deferred"), 0)


def intake_of(path: Path) -> tuple[int, int, Counter[str]]:
    """Accepted rows, distinct addresses among them, and the reasons for the others."""
    skeleton = compile_message(letter("Books <books@shop.example>"), "uid")
    intake = Intake(skeleton.fields, skeleton.required, skeleton.in_headers, salt=b"test")
    prints: list[bytes] = []
    reasons: Counter[str] = Counter()
    for batch in intake.from_csv(iter([path.read_bytes()])):
        prints += [batch.fingerprints[at : at + 8] for at in range(0, len(batch.fingerprints), 8)]
        reasons.update(row.reason for row in batch.rejected)
    return len(prints), len(set(prints)), reasons


def test_longer_list_begins_with_the_shorter_one() -> None:
    assert list(people(900))[:600] == list(people(600))


def test_list_twice_as_long_holds_twice_of_everything(tmp_path: Path) -> None:
    write_csv(tmp_path / "short", 1000)
    write_csv(tmp_path / "long", 2000)

    accepted, distinct, reasons = intake_of(tmp_path / "short")

    assert (accepted, distinct, len(reasons), set(reasons.values())) == (992, 986, 4, {2})
    assert intake_of(tmp_path / "long") == (2 * accepted, 2 * distinct, reasons + reasons)


def test_stage_ends_its_relay_and_removes_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENGINE_SINK_HOST", "host.invalid")  # the user's own settings stay outside

    with Stage() as stage:
        relay = stage.relay()
        assert stage.ended() is None
        assert relay.ledger.exists()

    assert relay.process.poll() == 0
    assert not stage.folder.exists()


def test_stage_tells_what_a_process_said_that_ended() -> None:
    with Stage() as stage:
        process = stage.start(sys.executable, "-c", "import sys; sys.exit('out of paper')")
        process.wait(20)

        assert stage.ended() == f"process {process.pid} ended with 1: out of paper"


def test_terminated_program_leaves_no_stage_behind() -> None:
    code = (
        "import time\n"
        "from sendengine.trial.stage import Stage\n"
        "with Stage() as stage:\n"
        "    print(stage.folder, stage.relay().process.pid, flush=True)\n"
        "    while True:\n"  # not one call that waits: Python's handler does not run in one that the signal just precedes
        "        time.sleep(0.05)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        folder, pid = program.stdout.readline().split()
        program.terminate()
        program.wait(30)

    assert not Path(os.fsdecode(folder)).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def status(**changed: int) -> Status:
    fields = {"rows": 4, "accepted": 3, "rejected": 1, "duplicates": 0, "sent": 3, "quarantined": 0} | COUNTS | changed
    return msgspec.convert(
        {
            **fields, "campaign": "m1:c", "account": "m1", "state": "finished", "sealed": True, "rate_contracted": 3600.0,
            "rate_achieved": None, "started_at": None, "through_at": None, "finished_at": None, "finish_estimate": None, "binding": None,
            "passes_term": False,
        },
        Status,
    )  # fmt: skip


def run(end: Status, seen: Iterator[str] | list[str], sent: list[str]) -> Run:
    submitted: Send = as_send(end, True)
    mails = [Mail(1000.0 + place, "a@x.example", "r@y.example", one) for place, one in enumerate(seen)]
    return Run(send=submitted, final=end, promised=None, rejected=[Rejected(2, 0, "no address", "")], sent=sent, mails=mails)


def broken(found: Run, strangers: int = 0) -> list[str]:
    return [check.what for check in checks([found], strangers) if not check.holds]


def test_identities_hold_for_a_send_that_adds_up() -> None:
    assert broken(run(status(), ["<1>", "<2>", "<3>"], ["<3>", "<2>", "<1>"])) == []


@pytest.mark.parametrize(
    ("found", "strangers", "named"),
    [
        (run(status(duplicates=1), ["<1>", "<2>", "<3>"], ["<1>", "<2>", "<3>"]), 0, "rows = "),
        (run(status(sent=2), ["<1>", "<2>"], ["<1>", "<2>"]), 0, "accepted = "),
        (run(status(), ["<1>", "<2>"], ["<1>", "<2>", "<3>"]), 0, "sent = lines"),
        (run(status(), ["<1>", "<2>", "<2>"], ["<1>", "<2>", "<3>"]), 0, "sent = Message-IDs"),
        (run(status(rejected=0, duplicates=1), ["<1>", "<2>", "<3>"], ["<1>", "<2>", "<3>"]), 0, "rejected = "),
        (run(status(), ["<1>", "<2>", "<3>"], ["<1>", "<2>", "<3>"]), 1, "of nobody"),
    ],
)
def test_identity_that_is_off_by_one_is_named(found: Run, strangers: int, named: str) -> None:
    assert any(what.startswith(named) for what in broken(found, strangers))


def test_picture_of_a_report_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    found = [run(status(), ["<1>", "<2>", "<3>"], ["<1>", "<2>", "<3>"])]

    save_picture(report(found, checks(found, 0)), tmp_path / "report.svg")

    svg = (tmp_path / "report.svg").read_text(encoding="utf-8")
    assert "m1:c" in svg
    assert "url(http" not in svg
