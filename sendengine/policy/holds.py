"""Holds: why an account may not send, what lifts that, and who decides (domain rule 3). Pure; the reasons are data (config/holds.toml).

A hold stops the send function only. Several stand side by side, one a reason; the last one's lifting resumes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sendengine.policy.tiers import unknown

FIELD = "hold:"  # of the account, with the reason behind
# Reasons that the engine's callers count on: no table may lack one.
KNOWN = (
    "suspicious-collection", "spam-complaints", "antispam-breach", "content", "unpaid-fee", "terms-breach", "terms-not-accepted",
    "list-not-approved", "sender-not-verified",
)  # fmt: skip


class Reason(msgspec.Struct, frozen=True):
    """What is known of a reason before anybody is held for it."""

    name: str
    title: str
    remedy: str
    department: str


class Hold(msgspec.Struct, frozen=True):
    """One that stands. Remedy and department are those of the day on which it was placed; `since` is UNIX seconds."""

    reason: str
    title: str
    remedy: str
    department: str
    since: float
    text: str = ""
    who: str = ""


class _Record(msgspec.Struct, frozen=True):
    """A Hold as its field keeps it: the reason is the field's name."""

    title: str
    remedy: str
    department: str
    since: float
    text: str = ""
    who: str = ""


_decode = msgspec.json.Decoder(_Record).decode


def reason_named(name: str, reasons: Mapping[str, Reason]) -> Reason:
    """Raises UnknownName with the nearest one."""
    found = reasons.get(name.strip().lower().replace("_", "-"))
    if found is None:
        raise unknown("unknown reason", name, reasons)
    return found


def lacking(reasons: Mapping[str, Reason]) -> list[str]:
    """Known reasons that a table has not."""
    return [name for name in KNOWN if name not in reasons]


def placed(reason: Reason, since: float, text: str = "", who: str = "") -> Hold:
    return Hold(reason.name, reason.title, reason.remedy, reason.department, since, text, who)


# as the account's fields hold it


def field(reason: str) -> str:
    return FIELD + reason


def encode(hold: Hold) -> str:
    kept = {name: value for name, value in msgspec.structs.asdict(hold).items() if name != "reason"}
    return msgspec.json.encode(_Record(**kept)).decode()


def placed_line(hold: Hold) -> bytes:
    """Of one that nobody placed but the engine, for the audit trail."""
    return msgspec.json.encode({"what": "hold", "who": hold.who, "why": hold.text, "facts": {"reason": hold.reason}})


def suspended_line(campaign: str, why: str) -> bytes:
    """Likewise of a send that the engine has paused."""
    return msgspec.json.encode({"what": "send.pause", "who": "engine", "why": why, "facts": {"send": campaign}})


def holds_of(fields: Mapping[str, str]) -> list[Hold]:
    """Those that stand, the oldest first. One that nobody can read holds all the same: the scripts look at its name alone."""
    found = (_read(name, value) for name, value in fields.items() if name.startswith(FIELD))
    return sorted(found, key=lambda hold: (hold.since, hold.reason))


def _read(name: str, value: str) -> Hold:
    reason = name.removeprefix(FIELD)
    try:
        return Hold(reason, **msgspec.structs.asdict(_decode(value)))
    except msgspec.MsgspecError:
        return Hold(reason, reason, "an operator looks at the account", "operations", 0.0, "what is kept of this hold cannot be read")
