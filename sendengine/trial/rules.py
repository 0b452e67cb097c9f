"""How a trial server misbehaves on request: it refuses, delays or drops at a stage, at times or for some addresses.

    --reject STAGE=CODE[ TEXT][%PROBABILITY][@PATTERN]     rcpt=550   'dot=452 4.2.2 full%0.05'   rcpt=451@example.net
    --delay  STAGE=SECONDS[%PROBABILITY][@PATTERN]         dot=0.2
    --drop   STAGE[%PROBABILITY][@PATTERN]                 body%0.01

PATTERN is sought in the address at hand: the sender at `mail`, the recipient from `rcpt` on. Probabilities come from
one seeded generator, so that a run can be repeated. At `body` a rule acts when the first octet of the message has come,
before its end. BDAT (RFC 3030) passes no stage `data`: where a rule stands there, the server does not
offer it. Pure but for that generator.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import msgspec

from sendengine.errors import RefusedInput

STAGES = ("connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "dot", "quit")

_STAGE = re.compile(r"\w+")
_WHEN = r"(?:%(?P<chance>[\d.]+))?(?:@(?P<pattern>\S+))?"
_REJECT = re.compile(r"(?P<stage>\w+)=(?P<value>[245]\d\d(?: [^%@\r\n]*)?)" + _WHEN)
_DELAY = re.compile(r"(?P<stage>\w+)=(?P<value>\d+(?:\.\d+)?)" + _WHEN)
_DROP = re.compile(r"(?P<stage>\w+)(?P<value>)" + _WHEN)
_RATE = re.compile(r"(\d+)/(s|min|h)")


class Ruling(msgspec.Struct, frozen=True):
    """What becomes of one step: another answer, seconds to wait before it, the connection closed in its stead."""

    reply: bytes = b""
    delay: float = 0.0
    drop: bool = False


class _Rule(msgspec.Struct, frozen=True):
    ruling: Ruling
    chance: float
    pattern: bytes


class Rules:
    """All rules of one server, by stage."""

    def __init__(self, reject: Iterable[str] = (), delay: Iterable[str] = (), drop: Iterable[str] = ()) -> None:
        self._random = random.Random(1)
        self._by_stage: dict[str, list[_Rule]] = {}
        for text in reject:
            stage, value, chance, pattern = _parse("--reject", _REJECT, text)
            self._add(stage, Ruling(reply=_reply(value)), chance, pattern)
        for text in delay:
            stage, value, chance, pattern = _parse("--delay", _DELAY, text)
            self._add(stage, Ruling(delay=float(value)), chance, pattern)
        for text in drop:
            stage, _, chance, pattern = _parse("--drop", _DROP, text)
            self._add(stage, Ruling(drop=True), chance, pattern)

    def __bool__(self) -> bool:
        return bool(self._by_stage)

    def has(self, stage: str) -> bool:
        return stage in self._by_stage

    def at(self, stage: str, address: bytes = b"") -> Ruling | None:
        """The ruling for this step, or None; rules of different kinds add up, the first of a kind wins."""
        rules = self._by_stage.get(stage)
        if not rules:
            return None
        hits = [rule.ruling for rule in rules if rule.pattern in address and self._random.random() < rule.chance]
        return Ruling(
            reply=next((hit.reply for hit in hits if hit.reply), b""),
            delay=next((hit.delay for hit in hits if hit.delay), 0.0),
            drop=any(hit.drop for hit in hits),
        )

    def _add(self, stage: str, ruling: Ruling, chance: float, pattern: bytes) -> None:
        self._by_stage.setdefault(stage, []).append(_Rule(ruling, chance, pattern))


def parse_rate(text: str) -> tuple[int, float]:
    """`N/s`, `N/min` or `N/h` as (count, seconds)."""
    found = _RATE.fullmatch(text)
    if not found or not int(found[1]):
        raise RefusedInput(f"--rate {text}: not a rate", "write N/s, N/min or N/h")
    return int(found[1]), {"s": 1.0, "min": 60.0, "h": 3600.0}[found[2]]


def _parse(flag: str, form: re.Pattern[str], text: str) -> tuple[str, str, float, bytes]:
    stage = _STAGE.match(text)
    if stage and stage[0] not in STAGES:
        raise RefusedInput(f"{flag} {text}: no stage {stage[0]!r}", f"the stages are {' '.join(STAGES)}")
    found = form.fullmatch(text)
    if not found:
        raise RefusedInput(f"{flag} {text}: not understood", "see sendengine sink --help")
    try:
        chance = float(found["chance"] or 1.0)
    except ValueError:
        raise RefusedInput(f"{flag} {text}: {found['chance']!r} is no probability") from None
    if chance > 1:
        raise RefusedInput(f"{flag} {text}: a probability is 0 to 1, not {found['chance']}")
    return found["stage"], found["value"], chance, (found["pattern"] or "").encode()


def _reply(value: str) -> bytes:
    """A bare code gets an enhanced one of its class (RFC 3463) and a text."""
    return (value if len(value) > 3 else f"{value} {value[0]}.0.0 as requested").encode()
