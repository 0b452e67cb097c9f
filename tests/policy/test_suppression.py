"""What a bounce says of an address, and who is barred: the tables."""

from __future__ import annotations

import pytest

from sendengine.policy.suppression import (
    LATEST,
    WEIGHTS,
    Limits,
    Mark,
    Reason,
    bars,
    decode,
    encode,
    mark_of,
    pack_mark,
    reason_of,
    unpack_marks,
)
from sendengine.types import Outcome

BOUNCED, EXPIRED = Outcome.BOUNCED, Outcome.EXPIRED


@pytest.mark.parametrize(
    ("outcome", "status", "mark"),
    [
        (Outcome.SENT, "2.0.0", Mark.GOOD),
        (BOUNCED, "5.1.1", Mark.HARD),
        (BOUNCED, "5.1.2", Mark.HARD),
        (BOUNCED, "5.1.3", Mark.HARD),
        (BOUNCED, "5.1.6", Mark.HARD),
        (BOUNCED, "5.1.10", Mark.HARD),
        (BOUNCED, "5.1.0", Mark.SOFT),
        (BOUNCED, "5.1.4", Mark.SOFT),
        (BOUNCED, "5.1.11", Mark.SOFT),
        (BOUNCED, "5.1.7", None),
        (BOUNCED, "5.1.8", None),
        (BOUNCED, "5.2.0", Mark.SOFT),
        (BOUNCED, "5.2.1", Mark.SOFT),
        (BOUNCED, "5.2.2", Mark.FULL),
        (BOUNCED, "5.2.3", None),
        (BOUNCED, "5.2.4", Mark.SOFT),
        (BOUNCED, "5.0.0", Mark.SOFT),
        (BOUNCED, "5.3.4", None),
        (BOUNCED, "5.4.1", Mark.SOFT),
        (BOUNCED, "5.4.4", Mark.SOFT),
        (BOUNCED, "5.5.0", Mark.SOFT),
        (BOUNCED, "5.5.1", None),
        (BOUNCED, "5.6.0", None),
        (BOUNCED, "5.7.1", None),
        (BOUNCED, "5.11.1", None),
        (EXPIRED, "4.1.1", Mark.SOFT),
        (EXPIRED, "4.2.1", Mark.SOFT),
        (EXPIRED, "4.2.2", Mark.FULL),
        (EXPIRED, "4.4.7", Mark.SOFT),
        (EXPIRED, "4.4.2", None),
        (EXPIRED, "4.4.1", None),
        (EXPIRED, "4.3.2", None),
        (EXPIRED, "4.7.1", None),
        (Outcome.SUPPRESSED, "5.1.1", None),
        (Outcome.CANCELLED, "", None),
        (Outcome.UNKNOWN, "4.4.2", None),
    ],
)
def test_what_an_end_says_of_its_address(outcome: Outcome, status: str, mark: Mark | None) -> None:
    assert mark_of(outcome, status) is mark


@pytest.mark.parametrize("reason", Reason)
def test_who_is_barred(reason: Reason) -> None:
    assert bars(reason, is_single=False)
    assert bars(reason, is_single=True) is (reason is not Reason.UNSUBSCRIBED)


def test_reasons_weigh_in_their_order() -> None:
    assert sorted(Reason, key=WEIGHTS.__getitem__) == ["unsubscribed", "manual", "soft-bounced", "hard-bounced", "complained"]
    assert all(0 < weight < 256 for weight in WEIGHTS.values())


@pytest.mark.parametrize(("given", "kept"), [(1_800_000_000.9, 1_800_000_000), (-5.0, 0), (1e12, LATEST)])
def test_an_entry_is_read_as_it_was_written(given: float, kept: int) -> None:
    for reason in Reason:
        found = decode(b"a@b.cz", encode(reason, given))
        assert (found.address, found.reason, found.since.timestamp()) == ("a@b.cz", reason, kept)
        assert reason_of(encode(reason, given)) is reason


def test_marks_are_read_as_they_were_packed() -> None:
    limits = Limits(soft=3, full=5)
    packed = b"".join(pack_mark(row, mark, b"x" * (row + 1), limits) for row, mark in enumerate(Mark))
    assert list(unpack_marks(packed)) == [
        (0, Mark.GOOD, 0, b"x"), (1, Mark.SOFT, 3, b"xx"), (2, Mark.FULL, 5, b"xxx"), (3, Mark.HARD, 0, b"xxxx"),
    ]  # fmt: skip
