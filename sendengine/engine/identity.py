"""Who a worker is to the others: the id that its leases name, and the token of its journal.

An attempt to register that had no answer may have been executed, or may be yet, and rescuers may already be at what it made. So the next
attempt is made as another worker: what was given up is an empty journal that no lease names, and whoever revokes or buries it, however
late and however often, takes nothing from anybody.
"""

from __future__ import annotations

import os
from itertools import count


class Identity:
    """Mutable; owner: the worker, until a registration was answered. From then on it is what it is."""

    def __init__(self, name: str) -> None:
        self._names = (f"{name}.{n}" for n in count(2))
        self.id = name
        self.token = os.urandom(8)

    def renew(self) -> str:
        """Another id and token; the id that was given up."""
        given_up, self.id, self.token = self.id, next(self._names), os.urandom(8)
        return given_up
