"""The merge values of some hundred recipients, in columns, while they are being encoded.

One owner: Renderer.prepare. A value that cannot be rendered becomes an entry of `failures` by row and never stops the
other rows. `unfit` holds the rows whose values no 8bit body line can carry (renderer.py sends these quoted-printable).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

RECIPIENT = "email"  # the merge field that every row has
_SCALARS = (str, int, float, bool)

T = TypeVar("T")


class RenderFailure(msgspec.Struct, frozen=True):
    """Why one recipient's message cannot be made: it ends as failed, 5.6.0, and no relay is involved."""

    reason: str


class CannotRender(ValueError):
    """Raised about one value by an encoder; `Values.encode` makes it that row's RenderFailure."""


class UnfitFor8bit(ValueError):
    """Raised about one value by the encoder of 8bit bodies; `Values.encode` marks the row."""


class Field(msgspec.Struct, frozen=True):
    """A merge field. The default stands for a value that is missing, null or empty."""

    name: str
    default: str | None = None


class Values:
    def __init__(self, columns: dict[str, Sequence[object]], size: int) -> None:
        self.size = size
        self.failures: dict[int, RenderFailure] = {}
        self.unfit: set[int] = set()
        self._columns = columns
        self._texts: dict[Field, list[str]] = {}
        self._lines: dict[Field, list[str]] = {}

    def texts(self, field: Field) -> list[str]:
        """The column as text; "" in the rows that fail for it."""
        found = self._texts.get(field)
        if found is None:
            found = self._texts[field] = self._as_text(field)
        return found

    def lines(self, field: Field) -> list[str]:
        """The same, with every line end (CRLF, CR or LF) made LF."""
        found = self._lines.get(field)
        if found is None:
            found = self.texts(field)
            if any("\r" in text for text in found):
                found = [unix_lines(text) for text in found]
            self._lines[field] = found
        return found

    def lengths(self, name: str) -> list[int]:
        """Characters of each text in a column; numbers count as nothing, and lists are measured where they are used."""
        return [len(value) if type(value) is str else 0 for value in self._columns.get(name, ())]

    def longest(self, name: str) -> int:
        try:
            return max(map(len, self._columns.get(name, ())), default=0)  # type: ignore[arg-type]
        except TypeError:
            return max(self.lengths(name))

    def row(self, at: int) -> dict[str, object]:
        """One recipient's fields by name. A null is a missing field."""
        cells = ((name, column[at]) for name, column in self._columns.items())
        return {name: value for name, value in cells if value is not None}

    def encode(self, texts: Sequence[T], encode: Callable[[T], bytes]) -> list[bytes]:
        """`encode` of every text; what it raises becomes the row's trouble, with b"" in its place."""
        encoded = []
        for at, text in enumerate(texts):
            try:
                encoded.append(encode(text))
            except UnfitFor8bit:
                self.unfit.add(at)
                encoded.append(b"")
            except UnicodeEncodeError:  # a lone surrogate, which no charset holds; before ValueError, its base
                self.fail(at, "a merge value is not Unicode text")
                encoded.append(b"")
            except CannotRender as trouble:
                self.fail(at, str(trouble))
                encoded.append(b"")
        return encoded

    def fail(self, at: int, reason: str) -> None:
        self.failures.setdefault(at, RenderFailure(reason))

    def only(self, rows: Sequence[int]) -> Values:
        return Values({name: [column[at] for at in rows] for name, column in self._columns.items()}, len(rows))

    def _as_text(self, field: Field) -> list[str]:
        column = self._columns.get(field.name, (None,) * self.size)
        texts = [value if type(value) is str else self._text(at, field, value) for at, value in enumerate(column)]
        if field.default is not None:
            texts = [text or field.default for text in texts]
        return texts

    def _text(self, at: int, field: Field, value: object) -> str:
        if isinstance(value, _SCALARS):
            try:
                return str(value)
            except ValueError:  # an int beyond sys.get_int_max_str_digits()
                self.fail(at, f"merge field {field.name!r} has too many digits")
                return ""
        if value is not None:
            self.fail(at, f"merge field {field.name!r} is neither text nor a number")
        elif field.default is None:
            self.fail(at, f"merge field {field.name!r} is missing")
        return ""


def unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
