"""The trials can fail: each rule of the protocol left out on purpose shows in the account."""

from __future__ import annotations

import pytest

from tests.failures.account import Account, Dot, Doubt, Ended, Excuses, Line, Silence, reckon
from tests.failures.chaos import CONTROLS, TRIALS
from tests.failures.controls import MEANT, fails_as_meant
from tests.failures.rig import ENDED_EARLY, ROOT

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("name", CONTROLS)
async def test_a_rule_left_out_breaks_the_trial_by_what_it_is_for(name: str) -> None:
    """Without intents repeats are more than doubts; without a fence a zombie sends; `sent` before it is heard loses people; an append that
    stays fresh lets MAILs follow a cancel; answers before the write leave repeats that no journal tells of; a lost connection is no yes,
    nor is a yes a lost connection, be the repeats ever so few."""
    line = await CONTROLS[name](1)
    assert fails_as_meant(line), str(line)


def test_a_control_that_is_broken_by_something_else_shows_nothing() -> None:
    assert CONTROLS.keys() == MEANT.keys()
    found = Account(1, {"sent": 1}, 0, 0, 0, 0, 0, 0)
    line = Line("hopeful", 1, 1, found, 0, 0, 0.0, 0, expects=(ENDED_EARLY,))
    assert line.broken
    assert not fails_as_meant(line)


def test_every_scenario_is_told_of_where_operators_read() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert [name for name in (*TRIALS, *CONTROLS) if f"`{name}`" not in text] == []


def dot(token: str, at: float = 0.0, **facts: bool | str) -> Dot:
    return Dot(at, token, **{"is_taken": True, "is_answered": True, "is_crossed": False, **facts})


@pytest.mark.parametrize(("found", "name", "n"), [
    (reckon({"a": "c"}, [], [dot("a")], [], []), "lost", 1),  # no outcome
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [], [], []), "lost", 1),  # no dot
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [dot("a", is_taken=False, is_answered=False)], [], []), "lost", 1),  # refused
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [dot("a"), dot("a")], [], []), "duplicates", 1),
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [dot("a"), dot("b")], [], []), "phantom", 1),
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [dot("a")], [(5.0, "a")], [Silence("c", 4.0, 6.0)]), "phantom", 1),
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [dot("a")], [(3.0, "a")], [Silence("c", 4.0, 6.0)]), "phantom", 0),
    (reckon({"a": "c"}, [Ended("a", "sent", "")], [dot("a", is_crossed=True)], [], []), "cross", 1),
    (reckon({"a": "c"}, [Ended("a", "sent", ""), Ended("a", "bounced", "")], [dot("a")], [], []), "twice", 1),
    (reckon({"a": "c"}, [Ended("a", "unknown", "")], [dot("a")], [], []), "unreasoned", 1),
    (reckon({"a": "c"}, [Ended("a", "bounced", "5.1.1 x")], [dot("a", 2.0)], [(2.0, "a")], []), "denied", 1),
    (reckon({"a": "c"}, [Ended("a", "expired", "")], [dot("a", 2.0)], [(1.0, "a"), (2.0, "a")], []), "denied", 1),
    (reckon({"a": "c"}, [Ended("a", "cancelled", "")], [dot("a", 2.0)], [(2.0, "a")], []), "denied", 1),
    (reckon({"a": "c"}, [Ended("a", "unknown", "in doubt")], [dot("a", 2.0)], [(2.0, "a")], []), "denied", 0),
    (reckon({"a": "c"}, [Ended("a", "bounced", "5.1.1 x")], [dot("a", 2.0)], [(2.0, "a"), (5.0, "a")], []), "denied", 0),  # refused later
    (reckon({"a": "c"}, [Ended("a", "bounced", "5.1.1 x")], [dot("a", 2.0)], [(2.0, "a"), (5.0, "a")], []), "overturned", 1),
    (reckon({"a": "c"}, [Ended("a", "bounced", "x")], [dot("a", 2.0, is_answered=False)], [(2.0, "a")], []), "denied", 1),  # a doubt
    (reckon({"a": "c"}, [Ended("a", "bounced", "x")], [dot("a", 2.0, is_answered=False)], [(2.0, "a"), (5.0, "a")], []), "denied", 0),
    (reckon({"a": "c"}, [Ended("a", "bounced", "x")], [dot("a", 2.0, is_taken=False)], [(2.0, "a")], []), "denied", 0),  # refused
])  # fmt: skip
def test_the_account_finds(found: Account, name: str, n: int) -> None:
    assert getattr(found, name) == n


def by(token: str, at: float, client: str = "w1", session: str = "s1") -> Dot:
    return dot(token, at, client=client, session=session, peer=f"at {session}")


LEFT = Doubt("w1", frozenset({"a"}))


@pytest.mark.parametrize(("dots", "excuses", "unexcused"), [
    ([by("a", 1), by("a", 5, "w2")], Excuses(), {"a"}),
    ([by("a", 1), by("a", 5, "w2")], Excuses(doubts=[LEFT]), set()),
    ([by("a", 5, "w2"), by("a", 1)], Excuses(doubts=[LEFT]), set()),  # the lost worker's came late, from a socket
    ([by("a", 1, "w2"), by("a", 5)], Excuses(doubts=[LEFT]), {"a"}),  # the lost worker sent what another had sent
    ([by("a", 1), by("a", 5, "w2")], Excuses(doubts=[Doubt("", frozenset({"a"}))]), set()),  # nobody knows who is who
    ([by("b", 1), by("b", 5, "w2")], Excuses(doubts=[LEFT]), {"b"}),  # the total would do; it is another
    ([by("a", 1), by("a", 5, "w2"), by("a", 9, "w3")], Excuses(doubts=[LEFT]), {"a"}),  # one doubt, two repeats
    ([by("a", 1), by("a", 5, "w2"), by("a", 9, "w3")], Excuses(doubts=[LEFT, Doubt("w2", frozenset({"a"}))]), set()),
    ([by("a", 1), by("a", 5, session="s2")], Excuses(cut={"at s1"}), set()),
    ([by("a", 1), by("a", 5, session="s2")], Excuses(cut={"at s2"}), {"a"}),
    ([by("a", 1), by("b", 2), by("a", 5, session="s2")], Excuses(cut={"at s1"}), {"a"}),  # the reply to it came: another followed
    ([by("a", 1), by("b", 2), by("a", 5, session="s2")], Excuses(cut={"at s1"}, within=2), set()),
    ([by("a", 1), by("a", 5, session="s2")], Excuses(forgotten=frozenset({"a"})), set()),
    ([by("a", 1), dot("a", 5.0, is_taken=False)], Excuses(), set()),  # refused the other time
])  # fmt: skip
def test_whoever_came_twice_was_in_doubt(dots: list[Dot], excuses: Excuses, unexcused: set[str]) -> None:
    assert reckon({}, [], dots, [], [], excuses).unexcused == unexcused


def line_of(outcome: str, tries: int = 1, bound: int = 0, w: int = 0, recovery: float = 0.0) -> Line:
    """One recipient, whose first dot was answered 2xx."""
    begun = [(2.0 + 3 * n, "a") for n in range(tries)]
    return Line("x", 1, 1, reckon({"a": "c"}, [Ended("a", outcome, "x")], [dot("a", 2.0)], begun, []), bound, w, recovery, 0)


@pytest.mark.parametrize(("line", "broken"), [
    (line_of("sent"), []),
    (line_of("bounced", bound=1), ["denied"]),  # a doubt that led to no second try excuses nothing
    (line_of("bounced", tries=2, bound=1), []),
    (line_of("bounced", tries=2), ["more tries after a dot that was taken than doubts"]),
    (line_of("sent", w=512, recovery=30.0), []),
    (line_of("sent", w=513), ["more in doubt at one worker than max_doubtful"]),
    (line_of("sent", recovery=30.1), ["recovery took more than 30 s"]),
])  # fmt: skip
def test_a_line_says_what_is_broken(line: Line, broken: list[str]) -> None:
    assert line.broken == broken
