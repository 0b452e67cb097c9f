"""A meter that nobody reads (port Meter): tests, and workers without a metrics port."""

from __future__ import annotations

from collections.abc import Mapping

from sendengine.types import Outcome


class SilentMeter:
    def outcome(self, outcome: Outcome) -> None:
        pass

    def deferred(self, scope: str) -> None:
        pass

    def doubtful(self) -> None:
        pass

    def submitted(self, provider: str) -> None:
        pass

    def throttled(self, provider: str) -> None:
        pass

    def receipt(self, provider: str, result: str) -> None:
        pass

    def spent(self, amount: int) -> None:
        pass

    def appended(self, seconds: float, doubtful: int) -> None:
        pass

    def visited(self, seconds: float) -> None:
        pass

    def rate_error(self, error: float) -> None:
        pass

    def state(self, accounts: int, rows: int, sessions: int, oldest: float, bound: Mapping[str, int]) -> None:
        pass

    def flush(self) -> None:
        pass
