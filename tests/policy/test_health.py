"""What an account is held for by itself."""

from __future__ import annotations

import pytest

from sendengine.policy.health import BOUNCES, COMPLAINTS, Health, Thresholds, judge

ON = Thresholds(complaints=0.003, bounces=0.05, least=1000)


@pytest.mark.parametrize(
    ("sent", "bounced", "complaints", "reasons"),
    [
        (1000, 0, 2, []),
        (1000, 0, 3, [COMPLAINTS]),
        (999, 0, 999, []),  # too little to judge
        (951, 49, 0, []),
        (950, 50, 0, [BOUNCES]),
        (0, 1000, 0, [BOUNCES]),
        (0, 1000, 1, [COMPLAINTS, BOUNCES]),  # of mail sent before the window
        (10_000, 1_000, 30, [COMPLAINTS, BOUNCES]),
        (0, 0, 0, []),
    ],
)
def test_shares_are_judged_from_enough_mail_on(sent: int, bounced: int, complaints: int, reasons: list[str]) -> None:
    assert [reason for reason, _ in judge(ON, Health(sent, bounced, complaints))] == reasons


def test_off_by_default() -> None:
    assert not Thresholds().is_on
    assert judge(Thresholds(), Health(10_000, 10_000, 10_000)) == []


def test_reason_says_what_was_seen() -> None:
    [(_, why)] = judge(Thresholds(complaints=0.001), Health(2000, 0, 4))
    assert why == "0.20% of 2,000 messages were complained of within 24 h"
