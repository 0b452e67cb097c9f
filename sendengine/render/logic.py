"""Texts with conditions, loops or filters, rendered whole by minijinja: some 6 us a text instead of under 1.

What may be written is vetting.py's matter. What remains grows with the instructions executed, and these are limited by
fuel, the fewer the longer the values are. A template gets plain data only: no attribute of a Python object is in its
reach. An undefined field fails its row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from minijinja import Environment, TemplateError

from sendengine.errors import RefusedInput
from sendengine.render.values import CannotRender, Values
from sendengine.render.vetting import SLOWNESS, SLOWNESS_ALONE, vet

MAX_OUTPUT = 4 << 20  # characters of one rendered text
MAX_INPUT = 100_000  # characters of the values that one text names, in one row: to copy and sort them takes some 10 ms, whatever they are
_TOO_LARGE = f"the values of a text with logic exceed {MAX_INPUT} characters"
_BUDGET = 8 * MAX_OUTPUT  # characters that one rendering may handle: instructions x the longest thing they could touch
_MOST_FUEL = 50_000
_MOST_DEPTH = 100  # of lists and maps within each other in a value
_NO_COMMENTS = "\x00#", "#\x00"  # `{#` is how minified CSS begins an id inside @media; NUL is refused in messages

_optional = re.compile(r"\b(\w+)\s*(?:\|\s*d(?:efault)?\b|is\s+(?:not\s+)?(?:un)?defined\b)")


class Logic:
    """One text. Raises RefusedInput naming place and line when it is no template, or one that may not run here."""

    def __init__(self, text: str, place: str, is_html: bool) -> None:
        self._measure = vet(text, place, is_html)
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
        for name in list(self._environment.globals):  # a field may have such a name, and shows then what the row says
            self._environment.remove_global(name)
        try:
            self._environment.add_template(place, text)
        except TemplateError as error:
            summary = str(error).partition("\n")[0].partition(" (in ")[0]
            raise RefusedInput(f"{place}, line {error.line}: {summary}") from None
        self._place = place
        self.names = tuple(sorted(self._environment.undeclared_variables_in_str(text)))
        # The author has thought of a field's absence: a default, or a test whether it is defined.
        self.required = frozenset(self.names).difference(_optional.findall(text))

    def filled(self, values: Values) -> list[str]:
        """The text of every row, "" in those that fail."""
        return [self._render(values, at) for at in range(values.size)]

    def _render(self, values: Values, at: int) -> str:
        row = values.row(at)
        try:
            sizes = {name: _size(row[name]) for name in self.names if name in row}
            if sum(sizes.values()) > MAX_INPUT:
                raise CannotRender(_TOO_LARGE)
            slow = max((size for name, size in sizes.items() if name in self._measure.slow_words), default=0)
            context = {name: _plain(row[name]) for name in self.names if name in row}
            self._environment.fuel = self._fuel(max([1, *sizes.values()]), slow)
            text: str = self._environment.render_template(self._place, **context)
        except (TemplateError, CannotRender) as error:
            values.fail(at, f"{self._place}: {str(error).partition(chr(10))[0]}")
            return ""
        if len(text) > MAX_OUTPUT:
            values.fail(at, f"{self._place}: the rendered text exceeds {MAX_OUTPUT} characters")
            return ""
        return text

    def _fuel(self, size: int, slow: int) -> int:
        """Each instruction handles at most the longest value once. Without loops each is executed once, and what the slow filters may get
        at is known by name: the longest of it is `slow`."""
        measure = self._measure
        longest = max(measure.longest, size * measure.growth)
        if not measure.has_loop and max(measure.steps * longest, measure.slow_steps * slow * SLOWNESS_ALONE) <= _BUDGET:
            return _MOST_FUEL
        if measure.slow_steps:
            longest = max(longest, size * (SLOWNESS if measure.has_loop else SLOWNESS_ALONE))
        return min(_MOST_FUEL, max(1, _BUDGET // longest))


class _Fields(dict[str, object]):
    """A map without methods: minijinja looks for `d.items` among the attributes where the map has no such key."""

    def __getattribute__(self, name: str) -> object:
        return _hidden(self, name)


class _Items(list[object]):
    """A list without methods."""

    def __getattribute__(self, name: str) -> object:
        return _hidden(self, name)


def _hidden(value: object, name: str) -> object:
    if name.startswith("__"):  # what the interpreter asks for; minijinja passes on no such name
        return object.__getattribute__(value, name)
    raise AttributeError(name)


def _plain(value: object) -> object:
    """The value for the template, copied where it could be changed or asked for more than its content."""
    if type(value) is list:
        return _Items(map(_plain, value))
    if type(value) is dict:
        return _Fields((key, _plain(each)) for key, each in value.items())
    return value


def _default(value: object = None, other: object = "", _boolean: object = False) -> object:
    """As in fields: for what is missing or empty."""
    return other if value is None or value == "" else value


def _size(value: object, depth: int = 0) -> int:
    """Characters in a value as a template may print it; refuses what is not plain data (minijinja could call into it)."""
    if type(value) is str:
        return len(value)
    if type(value) in (int, float, bool) or value is None:
        return 24
    if depth > _MOST_DEPTH:
        raise CannotRender(f"a merge value has more than {_MOST_DEPTH} lists within each other")
    if type(value) is list:
        return _total(2 + _size(each, depth + 1) for each in value)
    if type(value) is dict:
        return _total(4 + _size(key, depth + 1) + _size(each, depth + 1) for key, each in value.items())
    raise CannotRender(f"a merge value is a {type(value).__name__}, not plain data")


def _total(sizes: Iterable[int]) -> int:
    """Counts no further than the limit: to count a million would cost as much as it forbids."""
    total = 2
    for size in sizes:
        total += size
        if total > MAX_INPUT:
            raise CannotRender(_TOO_LARGE)
    return total
