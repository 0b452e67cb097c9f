"""What a text with merge fields is made of. `{{ name }}` and `{{ name | default("friend") }}` are fields; every other
use of `{{ }}` or `{% %}` makes the text Logic, which minijinja renders whole.

Pure parsing: how a value is escaped or encoded is decided where it goes (slots.py), not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import repeat

import msgspec

from sendengine.render.logic import Logic
from sendengine.render.values import Field, Values

FIELD = re.compile(
    r"""\{\{ \s* ([^\W\d]\w*) \s*
        (?: \| \s* default \s* \( \s* ("(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*') \s* \) \s* )? \}\}""",
    re.VERBOSE,
)
_escape = re.compile(r"\\(.)")


class Template(msgspec.Struct, frozen=True):
    """Literal text and fields in turn; literals are never empty and never neighbours."""

    pieces: tuple[str | Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, Field))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def required(self) -> frozenset[str]:
        return frozenset(field.name for field in self.fields if field.default is None)

    @property
    def literal(self) -> str | None:
        """The whole text, when there is no field in it."""
        return None if self.fields else "".join(piece for piece in self.pieces if isinstance(piece, str))

    def filled(self, values: Values, column: Callable[[Values, Field], list[str]] = Values.texts) -> list[str]:
        """The text of every row."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Field):
            return column(values, self.pieces[0])
        parts = [repeat(p, values.size) if isinstance(p, str) else column(values, p) for p in self.pieces]
        return list(map("".join, zip(*parts, strict=True))) if parts else [""] * values.size


def is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def parse(text: str, place: str, is_html: bool = False) -> Template | Logic:
    """Raises RefusedInput naming the place and the line."""
    rest = FIELD.sub("", text)
    if is_template(rest):
        return Logic(text, place, is_html)
    return parse_fields(text)


def parse_fields(text: str) -> Template:
    """Only fields are seen; what else stands between braces stays text."""
    pieces: list[str | Field] = []
    end = 0
    for match in FIELD.finditer(text):
        if match.start() > end:
            pieces.append(text[end : match.start()])
        default = match[2]
        pieces.append(Field(match[1], None if default is None else _escape.sub(r"\1", default[1:-1])))
        end = match.end()
    if end < len(text):
        pieces.append(text[end:])
    return Template(tuple(pieces))
