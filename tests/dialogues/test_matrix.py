"""The catalogue has no gap: whatever a peer can do, at every stage where it can do it, there is a dialogue of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

NAMES = {path.stem for path in Path(__file__).parent.glob("*.dialogue")}
EVENTS = ("421", "4xx", "5xx", "garbage", "silence", "disconnected")
BEFORE_MAIL = ("greeting", "ehlo", "starttls", "auth", "quit")  # QUIT too is said alike in every mode
TRANSACTION = ("mail", "rcpt", "data", "body", "dot")
MODES = ("pipelined", "unpipelined", "chunked")
POLICIES = ("opportunistic", "required", "verify")
TLS_TROUBLE = ("expired", "elsewhere", "injected", "broken", "refused", "stripped", "handshake_silence", "ehlo_refused")
PLACES = ("first", "middle", "last")  # of three messages that are written together
TRAIN_EVENTS = {
    "mail": ("4xx", "5xx", "421", "garbage", "silence", "disconnected", "one_reply_too_many"),
    "rcpt": ("4xx", "5xx", "421", "garbage", "silence", "disconnected", "one_reply_too_many"),
    "chunk": ("4xx", "5xx", "421", "garbage", "silence", "disconnected", "one_reply_too_many"),
    "reply": ("missing",),
}
# What a cell is called where another word says it better.
ALSO = {
    "auth_5xx": "auth_refused",
    **{f"{mode}_body_silence": f"{mode}_body_stalled" for mode in MODES},
    **{f"{mode}_dot_{code}": f"{mode}_message_{code}" for mode in MODES for code in ("421", "4xx", "5xx")},
}


def cells() -> Iterator[str]:
    yield from map("_".join, product(BEFORE_MAIL, EVENTS))
    for mode, stage, event in product(MODES, TRANSACTION, EVENTS):
        if (mode, stage) != ("chunked", "data"):  # BDAT has no DATA
            yield f"{mode}_{stage}_{event}"
    for stage, events in TRAIN_EVENTS.items():
        yield from (f"train_{stage}_{event}_{place}" for event, place in product(events, PLACES))
    yield from (f"tls_{trouble}_{policy}" for trouble, policy in product(TLS_TROUBLE, POLICIES))


def test_every_stage_meets_every_event() -> None:
    missing = [cell for cell in cells() if ALSO.get(cell, cell) not in NAMES]
    assert missing == []


def test_the_catalogue_is_large() -> None:
    assert len(NAMES) >= 120
