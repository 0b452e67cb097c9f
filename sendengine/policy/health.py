"""When an account is held by itself: too many complaints, or hard bounces, of what it sent within a window. Pure; off by default.

Both are shares of messages: complaints of those sent, bounces of those sent and bounced. Little mail proves nothing: below `least` nobody
is judged. After a hold counting starts anew, so that whoever is released is judged by what comes then.
"""

from __future__ import annotations

import msgspec

from sendengine.policy.holds import Reason

COMPLAINTS, BOUNCES = "spam-complaints", "suspicious-collection"  # what one is held for


class Thresholds(msgspec.Struct, frozen=True):
    """Shares from 0 to 1, 0 is off; the window in hours; the fewest messages that are judged. `reasons`: what whoever is held is told."""

    complaints: float = 0.0
    bounces: float = 0.0
    window_h: int = 24
    least: int = 1000
    reasons: tuple[Reason, ...] = ()

    @property
    def is_on(self) -> bool:
        return self.complaints > 0 or self.bounces > 0

    def reason(self, name: str) -> Reason:
        return next(reason for reason in self.reasons if reason.name == name)


class Health(msgspec.Struct, frozen=True):
    """Of an account, within the window."""

    sent: int
    bounced: int
    complaints: int


def judge(thresholds: Thresholds, seen: Health) -> list[tuple[str, str]]:
    """What the account is to be held for, and why in words."""
    found, tried = [], seen.sent + seen.bounced
    if tried < thresholds.least:
        return []
    if 0 < thresholds.complaints <= _share(seen.complaints, seen.sent):
        said = f"{_share(seen.complaints, seen.sent):.2%} of {seen.sent:,} messages were complained of{_within(thresholds)}"
        found.append((COMPLAINTS, said))
    if 0 < thresholds.bounces <= _share(seen.bounced, tried):
        found.append((BOUNCES, f"{_share(seen.bounced, tried):.2%} of {tried:,} messages bounced for good{_within(thresholds)}"))
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float(part > 0)


def _within(thresholds: Thresholds) -> str:
    return f" within {thresholds.window_h} h"
