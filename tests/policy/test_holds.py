"""Why an account is held, what lifts it, and what its gate answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sendengine import config
from sendengine.errors import ConfigError, Conflict, NotFound
from sendengine.policy.gate import admit, shut
from sendengine.policy.holds import KNOWN, encode, field, holds_of, placed, reason_named
from sendengine.policy.term import DAY, Phase, Term, fields_of

REASONS = config.reasons()
NOW = 1_800_000_000.0


def held(*names: str, since: float = NOW - 60) -> dict[str, str]:
    return {field(name): encode(placed(REASONS[name], since + at, "see ticket 7", "anna")) for at, name in enumerate(names)}


def ended(ago: float) -> dict[str, str]:
    return fields_of(Term(Phase.ACTIVE, NOW - ago))


def test_every_known_reason_has_a_remedy_and_a_department() -> None:
    assert set(KNOWN) <= REASONS.keys()
    assert all(reason.remedy and reason.department and reason.title for reason in REASONS.values())


def edited(folder: Path, old: str, new: str) -> str:
    text = config.data_file("holds.toml").read_text()
    assert old in text
    path = folder / "holds.toml"
    path.write_text(text.replace(old, new, 1))
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('[unpaid-fee]\ntitle = "unpaid fee"\n', "", "overwrite"),  # its lines fall to the table above
        ("[unpaid-fee]", "[unpaid]", "'unpaid-fee' has no table"),
        ('department = "billing"', 'department = " "', "unpaid-fee"),
        ('department = "billing"\n', "", "department"),
        ('remedy = "verify the sender\'s address or domain"', 'remedy = ""', "sender-not-verified"),
        ('remedy = "verify the sender\'s address or domain"\n', "", "remedy"),
        ("[content]", '["con tent"]', "no name of a reason"),
        ("[content]", "[content]\nremedys = 1", "remedys"),
    ],
)
def test_table_that_says_too_little_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.reasons(edited(tmp_path, old, new))


def test_operator_adds_reasons_of_his_own(tmp_path: Path) -> None:
    path = edited(tmp_path, "[content]", '[Own-1]\ntitle = "t"\nremedy = "r"\ndepartment = "d"\n[content]')
    assert config.reasons(path)["own-1"].department == "d"


@pytest.mark.parametrize("written", ["unpaid-fee", "unpaid_fee", " Unpaid-Fee "])
def test_reason_is_found_however_it_is_written(written: str) -> None:
    assert reason_named(written, REASONS).name == "unpaid-fee"


def test_unknown_reason_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="'unpaid-fee'"):
        reason_named("unpaid-fees", REASONS)


def test_holds_are_read_oldest_first() -> None:
    fields = held("content", "unpaid-fee") | {"tier": "60k"}
    assert [(each.reason, each.text, each.who) for each in holds_of(fields)] == [
        ("content", "see ticket 7", "anna"), ("unpaid-fee", "see ticket 7", "anna")]  # fmt: skip


def test_hold_that_nobody_can_read_holds() -> None:
    assert [each.reason for each in holds_of({"hold:x": "{"})] == ["x"]
    assert shut("m1", {"hold:x": "{"}, NOW) is not None


def test_open_gate() -> None:
    assert shut("m1", {}, NOW) is None
    assert shut("m1", fields_of(Term(Phase.CANCELLED_ACTIVE, NOW + 1)), NOW) is None
    admit("m1", {}, NOW)


def test_held_account_learns_of_every_reason_and_of_every_way_out() -> None:
    found = shut("m1", held("content", "unpaid-fee"), NOW)
    assert found is not None
    assert (found.limit, found.since) == ("hold", NOW - 60)
    assert "content that may not be sent (see ticket 7) and it is held: unpaid fee" in found.what
    for said in ("pay the open invoice", "billing", "--reason unpaid-fee", "change or withdraw", "abuse desk"):
        assert said in found.lift.cli


def test_term_hides_holds() -> None:
    found = shut("m1", held("content") | ended(DAY), NOW)
    assert found is not None
    assert (found.limit, found.since) == ("term", NOW - DAY)
    assert "account term m1 --renew" in found.lift.cli


def test_no_way_leads_out_of_a_deleted_account() -> None:
    found = shut("m1", ended(10 * DAY), NOW)
    assert found is not None
    assert "never used again" in found.lift.cli


def test_what_is_shut_admits_no_send_and_says_how_it_will() -> None:
    with pytest.raises(Conflict, match="takes no sends now: the term ended") as refused:
        admit("m1", ended(DAY), NOW)
    assert "--renew" in refused.value.remedy
