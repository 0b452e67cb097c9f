"""What a delivery receipt says (SMPP 3.4, appendix B), and what an answer to submit_sm means. Pure tables.

A receipt's text is the vendors' folklore: `id:… sub:… dlvrd:… submit date:… done date:… stat:DELIVRD err:000 text:…`, in any order and
case. The optional parameters receipted_message_id and message_state, where they are there, are believed before it.
"""

from __future__ import annotations

import re

from sendengine.types import Receipt, Reply, Stage

DELIVERED = "DELIVRD"
STATES = {1: "ENROUTE", 2: DELIVERED, 3: "EXPIRED", 4: "DELETED", 5: "UNDELIV", 6: "ACCEPTD", 7: "UNKNOWN", 8: "REJECTD"}  # 3.4, 5.2.28
NOT_FINAL = frozenset({"ENROUTE", "ACCEPTD"})
_ID_MOST, _WORD_MOST = 64, 16
_field = {name: re.compile(rf"(?:^|\s){name}:\s*(\S+)", re.IGNORECASE) for name in ("id", "stat", "err")}
_is_id = re.compile(r"[!-~]{1,64}").fullmatch
_is_word = re.compile(r"[A-Za-z0-9_-]{1,16}").fullmatch


def receipt(text: str, message_id: str = "", state: int | None = None) -> Receipt | None:
    """`message_id` and `state` are those of the optional parameters. None for what names no message, or says nothing final."""
    named = message_id or _of("id", text)
    said = STATES.get(state, "UNKNOWN") if state is not None else _of("stat", text).upper()
    if not _is_id(named) or not _is_word(said) or said in NOT_FINAL:
        return None
    error = _of("err", text)
    return Receipt(named, said, error if _is_word(error) else "")


def result(receipt: Receipt) -> str:
    """As it is counted."""
    return "delivered" if receipt.state == DELIVERED else "undelivered"


def _of(name: str, text: str) -> str:
    found = _field[name].search(text)
    return found[1] if found else ""


# answers

THROTTLED = frozenset({0x14, 0x58})  # ESME_RMSGQFUL, ESME_RTHROTTLED: took nothing, asks us to go slower
AUTH_REFUSED = frozenset({0x0D, 0x0E, 0x0F})  # ESME_RBINDFAIL, RINVPASWD, RINVSYSID

_RECIPIENT = (Stage.RCPT, 550, "5.1.1")
_MESSAGE = (Stage.DOT, 554, "5.6.0")
_POLICY = (Stage.RCPT, 550, "5.7.1")
_NOT_NOW = (Stage.DOT, 451, "4.3.0")

_ANSWERS: dict[int, tuple[tuple[Stage, int, str], str]] = {
    0x01: (_MESSAGE, "the message's length is invalid"),
    0x02: (_MESSAGE, "the command's length is invalid"),
    0x03: (_MESSAGE, "the command is unknown"),
    0x04: (_NOT_NOW, "not in this state of the bind"),
    0x08: (_NOT_NOW, "system error"),
    0x0A: (_MESSAGE, "the sender is invalid"),
    0x0B: (_RECIPIENT, "the number is invalid"),
    0x33: (_RECIPIENT, "the number of destinations is invalid"),
    0x43: (_MESSAGE, "esm_class is invalid"),
    0x45: (_RECIPIENT, "submitting failed"),
    0x48: (_MESSAGE, "the sender's type of number is invalid"),
    0x49: (_MESSAGE, "the sender's numbering plan is invalid"),
    0x50: (_RECIPIENT, "the number's type is invalid"),
    0x51: (_RECIPIENT, "the number's numbering plan is invalid"),
    0x61: (_MESSAGE, "the delivery time is invalid"),
    0x62: (_MESSAGE, "the validity period is invalid"),
    0x64: (_NOT_NOW, "temporary error of the receiver"),
    0x65: (_RECIPIENT, "permanent error of the receiver"),
    0x66: (_POLICY, "the receiver rejects it"),
    0xFF: (_NOT_NOW, "unknown error"),
}  # 3.4, 5.1.3


def answer(status: int) -> tuple[Stage, Reply]:
    """What a command_status other than success and THROTTLED means, in the words of the failure table (policy/verdict.py). One that nobody
    knows is tried again: vendors make up their own from 0x400 on."""
    (stage, code, enhanced), text = _ANSWERS.get(status, (_NOT_NOW, "an error of its own"))
    return stage, Reply(code, enhanced, f"{text} (command_status {status:#04x})")
