"""The trials can fail: each rule of the protocol left out on purpose shows in the account."""

from __future__ import annotations

import pytest

from tests.failures.account import Account, Dot, Ended, Silence, reckon
from tests.failures.controls import ack_first, fence_off, journal_off

pytestmark = pytest.mark.timeout(240)


async def test_without_intents_repeats_are_more_than_doubts() -> None:
    line = await journal_off(seed=1)
    assert "more duplicates than doubts" in line.broken, str(line)


async def test_without_a_fence_a_zombie_sends() -> None:
    line = await fence_off(seed=1)
    assert {"a zombie began a message", "more duplicates than doubts"} <= set(line.broken), str(line)


async def test_sent_before_it_is_heard_loses_people() -> None:
    line = await ack_first(seed=1)
    assert "lost" in line.broken, str(line)


def dot(token: str, at: float = 0.0, **facts: bool) -> Dot:
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
])  # fmt: skip
def test_the_account_finds(found: Account, name: str, n: int) -> None:
    assert getattr(found, name) == n
