"""What an author may write between the braces, judged before minijinja sees a letter of it.

The author is a stranger. What would let a small template make an endless or enormous text is not in the language: no
variables, macros, calls, multiplication, and only filters whose result is about as long as their input. A loop runs over
a value or a list of constants: over lists of its own variable, thirty loops make 2^30 copies of a value, and no fuel
counts these. minijinja parses chains of operators and of `elif` by recursion, without a limit (20,000 overflow the stack
and end the process): here they have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from sendengine.errors import RefusedInput

_STATEMENTS = frozenset(("if", "elif", "else", "endif", "for", "endfor", "raw", "endraw"))
_FILTERS = frozenset((
    "default", "d", "upper", "lower", "title", "capitalize", "trim", "length", "count", "first", "last", "reverse",
    "sort", "round", "int", "float", "abs", "urlencode", "escape", "e",
))  # fmt: skip
_REMEDY = f"there are the filters {', '.join(sorted(_FILTERS))}"
_BEFORE_PAREN = frozenset(("if", "elif", "else", "and", "or", "not", "in", "is", "for", "divisibleby"))
_MOST_SIGNS, _MOST_JOINS, _MOST_FILTERS, _MOST_ELIFS = 200, 50, 10, 200  # three times a tag, the last one a text

# Of `sort`, `title` and their like, for each character, against copying it. Measured: 30. In a loop each instruction is charged, most of
# which are others, and with eight a text of them takes some 20 ms.
SLOWNESS_ALONE, SLOWNESS = 32, 8

_STRING = r"""(?:"[^"\\]*+(?:\\.[^"\\]*+)*"|'[^'\\]*+(?:\\.[^'\\]*+)*')"""  # no possessive groups: as in address.py
_INSIDE = rf"""((?:{_STRING}|[^"'])*?)"""  # an end mark inside a string is none
_opening = re.compile(r"\{[{%]").search
_raw = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}", re.DOTALL).match
_tags = {"{%": re.compile(rf"\{{%{_INSIDE}%\}}", re.DOTALL).match, "{{": re.compile(rf"\{{\{{{_INSIDE}\}}\}}", re.DOTALL).match}
_string = re.compile(_STRING, re.DOTALL)
_filter = re.compile(r"(?<!\|)\|\s*(\w+)")
_call = re.compile(r"(\||\.)?\s*\b(\w+)\s*\(")
_called_value = re.compile(r"[])']\s*\(").search
_word = re.compile(r"[-+]?\s*(\w*)").match
_sign = re.compile(r"\b(?:not|and|or|if|is|in)\b|[^\w\s,']")
_constants = re.compile(r"\[\s*(?:(?:''|-?[\d.]+)\s*,?\s*)*\]")
_words = re.compile(r"\w+").findall
_slow = re.compile(r"\|\s*(?:upper|lower|title|capitalize|trim|reverse|sort)\b").search
_list = re.compile(r"(?<![\w\])'])\[|\b(?:in|if|else|and|or|not)\s*\[").search


class Measure(msgspec.Struct, frozen=True):
    """What the fuel is reckoned from: the longest stretch (literal text, or a tag), and how much there is to execute."""

    longest: int
    steps: int
    has_loop: bool
    growth: int  # characters that a filter, or escaping, may make of one
    slow_steps: int  # of these, in tags with filters that handle a character much slower than it is copied
    slow_words: frozenset[str]  # what these tags name


def vet(text: str, place: str, is_html: bool) -> Measure:
    """Raises RefusedInput naming place and line."""
    end, longest, steps, elifs, has_loop, growth = 0, 1, 0, 0, False, 6 if is_html else 1
    slow_steps, slow_words = 0, set[str]()
    for start, stop, statement, inside in _tags_of(text, place):
        longest, end = max(longest, start - end, (stop - start) * (SLOWNESS if _slow(inside) else 1)), stop
        word = _word(inside) if statement else None
        name = word[1] if word else ""
        has_loop |= name == "for"
        elifs += name == "elif"
        growth = max(growth, _growth(inside))
        signs = len(_sign.findall(inside))
        steps += 2 + signs
        if _slow(inside):
            slow_steps += 2 + signs
            slow_words.update(_words(inside))
        trouble = _trouble(inside, name, statement, signs) or ("too many elif" if elifs > _MOST_ELIFS else "")
        if trouble:
            raise RefusedInput(f"{place}, line {text.count(chr(10), 0, start) + 1}: {trouble}", _REMEDY)
    return Measure(max(longest, len(text) - end), steps, has_loop, growth, slow_steps, frozenset(slow_words))


def _tags_of(text: str, place: str) -> Iterator[tuple[int, int, bool, str]]:
    """Start, end, whether it is a statement, and the inside with its strings emptied. In one pass: a tag that does not
    end is refused at once, since looking for the end of each of its followers would take quadratic time."""
    at = 0
    while opening := _opening(text, at):
        start = opening.start()
        raw = _raw(text, start)
        found = raw or _tags[opening[0]](text, start)
        if not found:
            raise RefusedInput(f"{place}, line {text.count(chr(10), 0, start) + 1}: syntax error: a tag without its end")
        at = found.end()
        if not raw:
            yield start, at, opening[0] == "{%", _string.sub("''", found[1])


def _trouble(inside: str, statement: str, is_statement: bool, signs: int) -> str:
    if is_statement and statement not in _STATEMENTS:
        return f"unknown statement {statement!r}"
    if statement == "raw":
        return "syntax error: raw without its endraw"
    for name in _filter.findall(inside):
        if name not in _FILTERS:
            return f"unknown filter {name!r}"
    for sign, name in _call.findall(inside):
        if sign == "." or (sign != "|" and name not in _BEFORE_PAREN):
            return f"{name!r} cannot be called"
    if _called_value(inside):
        return "only filters can be called"
    return _size_trouble(inside, statement, signs)


def _size_trouble(inside: str, statement: str, signs: int) -> str:
    """What could make much of little."""
    if "*" in inside:
        return "multiplication is not available"
    if "{" in inside:
        return "syntax error: a brace inside a tag"  # a map, whose `}}` would also end the tag for us alone
    if signs > _MOST_SIGNS or len(re.findall(r"[~+]", inside)) > _MOST_JOINS:
        return f"a tag with more than {_MOST_SIGNS} signs, {_MOST_JOINS} of them joins"
    if inside.count("|") > _MOST_FILTERS or inside.count("urlencode") > 1:
        return f"a tag with more than {_MOST_FILTERS} filters, or urlencode twice"
    return _loop_trouble(re.split(r"\bin\b", inside, maxsplit=1)[-1]) if statement == "for" else ""


def _loop_trouble(source: str) -> str:
    source = _constants.sub("''", source)
    is_made = _list(source) or re.search(r"[~+]|(?<!\w)\(|\b(?:in|if|else|and|or|not)\s*\(", source)
    return "a loop runs over a field, a part of it or a list of constants" if is_made else ""


def _growth(inside: str) -> int:
    if "urlencode" in inside:
        return 12  # one character of four octets
    return 6 if re.search(r"\|\s*e(?:scape)?\b", inside) else 1  # &quot;
