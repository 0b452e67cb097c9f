"""Filling in a skeleton: values become slot tuples once per batch, and a message is one `%` on bytes.

The only rules here: which row fails, and which goes quoted-printable although its neighbours are 8bit. In that case its
tuple says so by its type, and no recipient is lost to a long or odd value. A row fails too when its values, as often as
the message uses them, are too much: that is known, and said, before any text is made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from sendengine.batch import BATCH_ROWS
from sendengine.render.dkim import Field, Pieces, Signing, SigningKey
from sendengine.render.logic import Logic
from sendengine.render.slots import Slot
from sendengine.render.values import RECIPIENT, RenderFailure, Values

MAX_FILLED = 16 << 20  # characters that one recipient's values may come to
MAX_BATCH = 128 << 20  # those of a hundred recipients; beyond it, whoever has more than an even share fails


class QuotedValues(tuple[bytes, ...]):
    """The values of a row that no 8bit rendition can carry, encoded for the quoted-printable one."""

    __slots__ = ()


class Renderer:
    """One rendition of a skeleton. `from_domain`: whose keys may sign it. `has_eightbit`: its messages may hold octets above 127.
    `has_logic`: a row may take milliseconds, so that whoever has other things to do should prepare one at a time."""

    def __init__(
        self, head: Sequence[Field], body: Pieces, message_id: str, from_domain: str, has_eightbit: bool, quoted: Callable[[], Renderer]
    ) -> None:  # fmt: skip
        pieces = [*(piece for _, field in head for piece in field), b"\r\n", *body]
        slots = [piece for piece in pieces if not isinstance(piece, bytes)]
        places = {slot: at for at, slot in enumerate(dict.fromkeys(slots))}
        self._slots = list(places)
        self._order = [places[slot] for slot in slots]
        self._uses = Counter(name for slot in slots for name in slot.names)
        self._format = _format(pieces, message_id)
        self._message_id = message_id
        self._quoted = quoted
        self._head, self._body = head, body
        self.from_domain = from_domain
        self.has_eightbit = has_eightbit
        self.has_logic = any(isinstance(getattr(slot, "source", None), Logic) for slot in self._slots)
        self.size = len(self._format)

    def prepare(
        self, names: Sequence[str], columns: Sequence[Sequence[object]], recipients: Sequence[str], rows: range | None = None
    ) -> list[tuple[bytes, ...] | RenderFailure]:
        """What `wire` needs of each recipient, in order. `columns` go by `names`, each as long as `recipients`. With `rows`
        only of these; what is too much for one of them is judged by all."""
        named: dict[str, Sequence[object]] = dict(zip(names, columns, strict=True))
        named[RECIPIENT] = recipients
        values = Values(named, len(recipients))
        heavy = self._heavy(values)
        if rows is not None:
            return self._without(heavy, values, rows)
        return self._without(heavy, values, range(values.size)) if heavy else self._prepared(values)

    def wire(
        self, values: tuple[bytes, ...], serial: int, date: bytes, time: int = 0, keys: Sequence[SigningKey] = ()
    ) -> bytes:  # fmt: skip
        """The message, signed by these keys: CRLF at every line's end, dots stuffed (RFC 5321 4.5.2), without the final dot. `date` is
        the value of the Date field, `time` that of the signature's t=."""
        if type(values) is QuotedValues:
            return self._quoted().wire(tuple(values), serial, date, time, keys)
        signatures = self._signing.fields(values, serial, date, time, keys) if keys else b""
        return self._format % (signatures, date, serial, *values)

    @cached_property
    def _signing(self) -> Signing:
        """Made for the first message that is signed."""
        return Signing(self._head, self._body, self._message_id)

    def message_id(self, serial: int) -> str:
        """The same for every attempt at this recipient (RFC 5322 3.6.4)."""
        return self._message_id % serial

    def _heavy(self, values: Values) -> list[int]:
        """The rows with too much in them; almost always a look at each column's longest value tells that there are none."""
        longest = sum(count * values.longest(name) for name, count in self._uses.items())
        if longest <= MAX_FILLED and longest * values.size <= MAX_BATCH:
            return []
        sizes = [0] * values.size
        for name, count in self._uses.items():
            for at, length in enumerate(values.lengths(name)):
                sizes[at] += count * length
        most = MAX_FILLED if sum(sizes) <= MAX_BATCH else MAX_BATCH // BATCH_ROWS
        return [at for at, size in enumerate(sizes) if size > most]

    def _without(self, heavy: list[int], values: Values, wanted: range) -> list[tuple[bytes, ...] | RenderFailure]:
        rows: list[tuple[bytes, ...] | RenderFailure] = [RenderFailure("its values make the message too large")] * len(wanted)
        others = sorted(set(wanted).difference(heavy))
        for at, row in zip(others, self._prepared(values.only(others)), strict=True):
            rows[wanted.index(at)] = row
        return rows

    def _prepared(self, values: Values) -> list[tuple[bytes, ...] | RenderFailure]:
        if not values.size:
            return []
        encoded = [slot.encode(values) for slot in self._slots]
        rows: list[tuple[bytes, ...] | RenderFailure] = [()] * values.size
        if encoded:
            rows[:] = zip(*[encoded[at] for at in self._order], strict=True)
        unfit = sorted(values.unfit)
        if unfit:
            for at, row in zip(unfit, self._quoted()._prepared(values.only(unfit)), strict=True):
                rows[at] = QuotedValues(row) if isinstance(row, tuple) else row
        for at, failure in values.failures.items():
            rows[at] = failure
        return rows


def _format(pieces: Sequence[bytes | Slot], message_id: str) -> bytes:
    """Literals with their dots stuffed and "%" doubled, slots as %b. A literal after a slot never begins a line with
    its first octet: bodies.py sees to that."""
    runs: list[list[bytes]] = [[]]
    for piece in pieces:
        if isinstance(piece, bytes):
            runs[-1].append(piece)
        else:
            runs.append([])
    literals = (b"".join(run).replace(b"\n.", b"\n..").replace(b"%", b"%%") for run in runs)
    return b"%bDate: %b\r\nMessage-ID: " + message_id.encode() + b"\r\n" + b"%b".join(literals)
