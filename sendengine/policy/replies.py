"""Rules that know rate limits and blocks of the sender by their words, since codes do not tell them apart.

Pure: the text of replies.toml comes in, a matcher comes out. A rule can only make us wait: no rule bounces anybody.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated

import msgspec

from sendengine.errors import ConfigError
from sendengine.reply import strip_ids
from sendengine.types import Reply

_REMEMBERED = 4096  # distinct replies, with their ids cut out


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`pattern` is searched, ignoring case, in "550 5.7.1 text"."""

    name: str
    pattern: str
    suspend_s: Annotated[float, msgspec.Meta(gt=0)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: list[Rule] = []


class ReplyRules:
    """Rules in their order; the first that matches holds. Only 4xx and 5xx replies are looked at."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = [(re.compile(rule.pattern, re.IGNORECASE), rule) for rule in rules]
        self._seen: dict[tuple[int, str, str], Rule | None] = {}

    def match(self, reply: Reply) -> Rule | None:
        if reply.code < 400:
            return None
        key = (reply.code, reply.enhanced, strip_ids(reply.text))
        if key not in self._seen:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[key] = self._search(str(reply))
        return self._seen[key]

    def _search(self, text: str) -> Rule | None:
        return next((rule for pattern, rule in self._rules if pattern.search(text)), None)


def parse_rules(text: str, name: str = "replies.toml") -> ReplyRules:
    """The rules of a TOML text. Raises ConfigError, naming the file and the rule."""
    try:
        rules = msgspec.convert(tomllib.loads(text), _File).rule
    except (ValueError, RecursionError) as error:  # msgspec's and tomllib's own are ValueErrors
        raise ConfigError(f"{name}: {error}") from None
    for rule in rules:
        try:
            re.compile(rule.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"{name}: rule {rule.name!r}: {error}") from None
    return ReplyRules(rules)
