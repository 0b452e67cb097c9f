"""Counting a list's recipients as submit does, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from sendengine.scheduler import distinct
from sendengine.scheduler.distinct import Distinct
from tests import chance


def prints(count: int, random: Random) -> Iterator[bytes]:
    for _ in range(count):
        yield random.randrange(count // 2).to_bytes(8, "little")


@pytest.mark.parametrize("most", [1, 8, 8192])
def test_each_is_counted_once_wherever_it_stands(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "TOGETHER", most)
    given = list(prints(20_000, Random(chance.seed(10**6))))
    with Distinct() as counted:
        for at in range(0, len(given), 100):
            counted.add(b"".join(given[at : at + 100]))
        assert counted.count() == len(set(given))


def test_nothing_is_nobody() -> None:
    with Distinct() as counted:
        counted.add(b"")
        assert counted.count() == 0


@pytest.mark.parametrize("most", [1, 8, 8192])
def test_what_came_first_is_kept(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "TOGETHER", most)
    given = list(prints(5_000, Random(chance.seed(10**6))))
    first: dict[bytes, bytes] = {}
    with Distinct(beside=4) as kept:
        for number, each in enumerate(given):
            beside = number.to_bytes(4, "big")
            first.setdefault(each, beside)
            kept.add(each + beside)
        assert sorted(kept.firsts()) == sorted(first.values())
