"""Texts with conditions, loops or filters, rendered whole by minijinja: some 6 us a text instead of under 1.

The template's author is a stranger, so what would let a small template make an endless or enormous text is not in the
language: no variables, macros, calls, multiplication, and only filters whose result is about as long as their input.
What remains grows with the instructions executed, and these are limited by fuel. An undefined field fails its row.
"""

from __future__ import annotations

import re
from itertools import pairwise

from minijinja import Environment, TemplateError

from sendengine.errors import RefusedInput
from sendengine.render.values import CannotRender, Values

MAX_OUTPUT = 16 << 20  # characters of one rendered text
_MOST_FUEL, _LEAST_FUEL = 50_000, 1_000
_STATEMENTS = frozenset(("if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"))
_FILTERS = frozenset((
    "default", "d", "upper", "lower", "title", "capitalize", "trim", "length", "count", "first", "last", "reverse",
    "sort", "round", "int", "float", "abs", "urlencode", "escape", "e",
))  # fmt: skip
_REMEDY = f"there are the filters {', '.join(sorted(_FILTERS))}"
_BEFORE_PAREN = frozenset(("if", "elif", "else", "and", "or", "not", "in", "is", "for", "divisibleby"))
_NO_COMMENTS = "\x00#", "#\x00"  # `{#` is how minified CSS begins an id inside @media; NUL is refused in messages

_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_INSIDE = rf"""((?:{_STRING}|[^"'])*?)"""  # an end mark inside a string is none
_tag = re.compile(
    rf"\{{%[-+]?\s*raw\s*[-+]?%\}}.*?\{{%[-+]?\s*endraw\s*[-+]?%\}}|\{{%{_INSIDE}%\}}|\{{\{{{_INSIDE}\}}\}}",
    re.DOTALL,
)
_string = re.compile(_STRING, re.DOTALL)
_filter = re.compile(r"(?<!\|)\|\s*(\w+)")
_call = re.compile(r"(\||\.)?\s*\b(\w+)\s*\(")
_word = re.compile(r"[-+]?\s*(\w*)")


class Logic:
    """One text. Raises RefusedInput naming place and line when it is no template, or one that may not run here."""

    def __init__(self, text: str, place: str, is_html: bool) -> None:
        self._environment = Environment(
            undefined_behavior="strict",
            debug=False,
            keep_trailing_newline=True,
            pycompat=False,
            auto_escape_callback=lambda name: is_html,
            comment_start_string=_NO_COMMENTS[0],
            comment_end_string=_NO_COMMENTS[1],
        )
        for name in ("default", "d"):
            self._environment.add_filter(name, _default)
        try:
            self._environment.add_template(place, text)
        except TemplateError as error:
            summary = str(error).partition("\n")[0].partition(" (in ")[0]
            raise RefusedInput(f"{place}, line {error.line}: {summary}") from None
        self._vet(text, place)  # only now: it takes for granted that the tags are closed
        self._place = place
        self._longest = _longest(text)
        self.names = tuple(sorted(self._environment.undeclared_variables_in_str(text)))
        self.required = frozenset(name for name in self.names if not _may_be_missing(name, text))

    def filled(self, values: Values) -> list[str]:
        """The text of every row, "" in those that fail."""
        return [self._render(values, at) for at in range(values.size)]

    def _render(self, values: Values, at: int) -> str:
        row = values.row(at)
        context = {name: row[name] for name in self.names if name in row}
        try:
            longest = max([self._longest, 1, *map(_size, context.values())])
            self._environment.fuel = min(_MOST_FUEL, max(_LEAST_FUEL, 4 * MAX_OUTPUT // longest))
            text: str = self._environment.render_template(self._place, **context)
        except (TemplateError, CannotRender) as error:
            values.fail(at, f"{self._place}: {str(error).partition(chr(10))[0]}")
            return ""
        if len(text) > MAX_OUTPUT:
            values.fail(at, f"{self._place}: the rendered text exceeds {MAX_OUTPUT} characters")
            return ""
        return text

    def _vet(self, text: str, place: str) -> None:
        for tag in _tag.finditer(text):
            inside = _string.sub("''", tag[1] or tag[2] or "")
            trouble = _trouble(inside, tag[1] is not None)
            if trouble:
                line = text.count("\n", 0, tag.start()) + 1
                raise RefusedInput(f"{place}, line {line}: {trouble}", _REMEDY)


def _trouble(inside: str, is_statement: bool) -> str:
    word = _word.match(inside)
    if is_statement and word and word[1] not in _STATEMENTS:
        return f"unknown statement {word[1]!r}"
    for name in _filter.findall(inside):
        if name not in _FILTERS:
            return f"unknown filter {name!r}"
    for sign, name in _call.findall(inside):
        if sign != "|" and name not in _BEFORE_PAREN:
            return f"{name!r} cannot be called"
    return "multiplication is not available" if "*" in inside else ""


def _longest(text: str) -> int:
    """The most characters that one instruction can put out: a stretch of literal text, or a tag with its strings."""
    ends = [0, *(end for tag in _tag.finditer(text) for end in tag.span()), len(text)]
    return max(end - start for start, end in pairwise(ends))


def _may_be_missing(name: str, text: str) -> bool:
    """The author has thought of its absence: a default, or a test whether it is defined."""
    return bool(re.search(rf"\b{re.escape(name)}\s*(\|\s*d(efault)?\b|is\s+(not\s+)?(un)?defined\b)", text))


def _default(value: object = None, other: object = "", _boolean: object = False) -> object:
    """As in fields: for what is missing or empty."""
    return other if value is None or value == "" else value


def _size(value: object) -> int:
    """Characters in a value; refuses what is not plain data (minijinja could call into it)."""
    if type(value) is str:
        return len(value)
    if type(value) in (int, float, bool) or value is None:
        return 24
    if type(value) is list:
        return sum(map(_size, value))
    if type(value) is dict:
        return sum(map(_size, value.values()))
    raise CannotRender(f"a merge value is a {type(value).__name__}, not plain data")
