"""The text of an SMS send, compiled once: what it says to each recipient, in how many parts, at what price.

It has the face of a message's skeleton and renderer (compile.py, renderer.py): the engine asks the same questions of both. The octets
that it makes are the text itself in UTF-8; how they travel is the channel's matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from sendengine.addressing import PHONE
from sendengine.errors import RefusedInput
from sendengine.policy import parts
from sendengine.policy.parts import BadText
from sendengine.policy.prices import PriceTable
from sendengine.render.dkim import SigningKey
from sendengine.render.logic import Logic
from sendengine.render.message import Message
from sendengine.render.template import parse
from sendengine.render.values import RenderFailure, Values

PLACE = "text"
DEAREST = 2**32 - 1  # of a row, in thousandths of a credit
_KEPT = 1024  # texts whose parts are remembered


class SmsText:
    """`fields` and `required` leave out `phone`, the recipient itself. Raises RefusedInput for a text of which no SMS can be made."""

    in_headers: frozenset[str] = frozenset()
    from_domain = ""  # nothing is signed
    has_eightbit = False

    def __init__(self, message: Message) -> None:
        if message.html or message.eml or message.attachments or message.text is None:
            raise RefusedInput("an SMS is a text and nothing else")
        self._source = parse(message.text, PLACE)
        self.fields = tuple(dict.fromkeys(name for name in self._source.names if name != PHONE))
        self.required = self._source.required - {PHONE}
        self.has_logic = isinstance(self._source, Logic)
        self._counts: dict[str, int] = {}
        if not self._source.names and not self.has_logic:
            self.parts(message.text)

    def users(self, field: str) -> list[str]:
        return [PLACE] if field in self.fields else []

    def renderer(self, eightbit: bool) -> SmsText:
        """One for all: what a peer offers is no matter of the text's."""
        return self

    def prepare(
        self, names: Sequence[str], columns: Sequence[Sequence[object]], recipients: Sequence[str], rows: range | None = None
    ) -> list[tuple[bytes, ...] | RenderFailure]:
        """As Renderer.prepare: what `wire` needs of each recipient."""
        wanted = range(len(recipients)) if rows is None else rows
        values = Values({**dict(zip(names, columns, strict=True)), PHONE: recipients}, len(recipients)).only(wanted)
        texts = self._source.filled(values)
        return [values.failures.get(at) or self._prepared(text) for at, text in enumerate(texts)]

    def wire(
        self, values: tuple[bytes, ...], serial: int, date: bytes, time: int = 0, keys: Sequence[SigningKey] = ()
    ) -> bytes:  # fmt: skip
        return values[0]

    def parts(self, text: str) -> int:
        """Raises BadText."""
        found = self._counts.get(text)
        if found is None:
            if len(self._counts) >= _KEPT:
                self._counts.clear()
            found = self._counts[text] = parts.count(text)
        return found

    def _prepared(self, text: str) -> tuple[bytes, ...] | RenderFailure:
        try:
            self.parts(text)
        except BadText as error:
            return RenderFailure(str(error))
        return (text.encode(),)


class Pricing:
    """What rows cost by one version of the price table. `parts`: of each row of the batch priced last."""

    def __init__(self, text: SmsText, table: PriceTable) -> None:
        self._text, self.table = text, table
        self.parts: list[int] = []

    def prices(
        self, recipients: Sequence[str], names: Sequence[str], columns: Sequence[Sequence[object]], faults: dict[int, str]
    ) -> list[int]:
        """Thousandths of a credit for each row, 0 where it has a fault; what has no price, or no text, is one."""
        prepared = self._text.prepare(names, columns[: len(names)], recipients)
        found = []
        self.parts = [0] * len(recipients)
        for at, (recipient, values) in enumerate(zip(recipients, prepared, strict=True)):
            price = 0
            if at not in faults:
                if isinstance(values, RenderFailure):
                    faults[at] = values.reason
                else:
                    price = self._price(at, recipient, values[0].decode(), faults)
            found.append(price)
        return found

    def _price(self, at: int, recipient: str, text: str, faults: dict[int, str]) -> int:
        of_part = self.table.of(recipient)
        if of_part is None:
            faults[at] = f"there is no price for {recipient}"
            return 0
        count = self._text.parts(text)
        if of_part * count > DEAREST:
            faults[at] = f"{count} parts to {recipient} are too dear to be reckoned"
            return 0
        self.parts[at] = count
        return of_part * count
