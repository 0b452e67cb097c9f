"""What the relays say, by number: each distinct text stands in the journal once, and there is an end to them.

A relay may say something else to each message. Then its codes must do, and when it makes up those, too, their class; so a relay costs
memory here and at Redis up to a bound, and leaves numbers to the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import orjson

from sendengine.reply import strip_ids

TEXTS_MOST = 1024  # distinct texts of one relay, each at most reply.MAX_TEXT characters long
CODES_MOST = 256  # and, beyond them, distinct codes

_Said = tuple[str, str, str]  # status, text, relay: what a lease's dictionary has of it


class Texts:
    """Owner of the numbers. `number_of` gives one to a text and journals it (Journal.reply)."""

    def __init__(self, number_of: Callable[[bytes], int]) -> None:
        self._number_of = number_of
        self._numbers: dict[_Said, int] = {}
        self._counts: Counter[str] = Counter()  # by relay

    def number(self, relay: str, status: str, text: str, code: str) -> int:
        """The number of what `relay` said ("": nobody did, it is our own word); `code` is the text without its words."""
        a_class = status[:1] + ".0.0", "", relay
        for most, said in ((TEXTS_MOST, (status, strip_ids(text), relay)), (TEXTS_MOST + CODES_MOST, (status, code, relay))):
            if said in self._numbers or self._counts[relay] < most:
                return self._known(said)
        return self._known(a_class)

    def _known(self, said: _Said) -> int:
        number = self._numbers.get(said)
        if number is None:
            self._counts[said[2]] += 1
            number = self._numbers[said] = self._number_of(orjson.dumps(said))
        return number
