"""A trial relay's ledger read back: the messages it took, and how fast they came. The wire is the witness, not the sender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import orjson


class Mail(msgspec.Struct, frozen=True):
    """One message as the relay saw it: when its MAIL came (UNIX seconds), from whom, to whom."""

    at: float
    sender: str
    recipient: str
    message_id: str


def read_ledger(content: bytes) -> list[Mail]:
    """The messages that were taken (2xx), by MAIL time; a last line that is still being written is left out."""
    found = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        entry = orjson.loads(line)
        if entry["reply"].startswith("2"):
            found.append(Mail(entry["mail_at"], entry["mail_from"], entry["rcpt_to"], entry["message_id"] or ""))
    return sorted(found, key=lambda mail: mail.at)


def by_sender(mails: Iterable[Mail]) -> dict[str, list[Mail]]:
    found: dict[str, list[Mail]] = {}
    for mail in mails:
        found.setdefault(mail.sender, []).append(mail)
    return found


def duration(times: Sequence[float]) -> float:
    """T: from the first MAIL to the last, of ascending times."""
    return times[-1] - times[0]


def rate_error(times: Sequence[float], r: float) -> float:
    """((n - 1) / (t_n - t_1)) / r - 1, of ascending times and r messages per second."""
    return (len(times) - 1) / duration(times) / r - 1
