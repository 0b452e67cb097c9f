"""The rate ceiling as the relay sees it (domain rule 1.2): MAILs in any window of w seconds <= r (w + max(0.5 s, 1 s - 1/r)) + 1."""

from __future__ import annotations

from collections.abc import Sequence

EFFECTIVE = 1.0  # seconds after which a new rate holds


class Rates:
    """An account's rate over time, in messages per hour; None is unmetered."""

    def __init__(self, since: float, per_hour: float | None) -> None:
        self._steps = [(since, per_hour)]

    def change(self, at: float, per_hour: float | None) -> None:
        self._steps.append((at, per_hour))

    def exceeded(self, times: Sequence[float]) -> str | None:
        """The window in which the ceiling was passed, or None. Ascending `times` of MAIL.

        Within a second of a change either rate may hold: windows that touch it are judged by the higher one of its neighbours.
        """
        bounds = [*(at for at, _ in self._steps[1:]), float("inf")]
        for at, (since, per_hour) in enumerate(self._steps):
            settled = since if at == 0 else since + EFFECTIVE
            found = _exceeded([time for time in times if settled <= time < bounds[at]], per_hour)
            if found:
                return found
            if at == 0:
                continue
            before = self._steps[at - 1]
            higher = None if None in (before[1], per_hour) else max(before[1] or 0.0, per_hour or 0.0)
            start = before[0] + (EFFECTIVE if at > 1 else 0.0)
            found = _exceeded([time for time in times if start <= time < bounds[at]], higher)
            if found:
                return found
        return None


def _exceeded(times: Sequence[float], per_hour: float | None) -> str | None:
    """n of a window passes r (w + slack) + 1 exactly when i - r t_i has risen by more than r slack since some earlier MAIL."""
    if per_hour is None or not times:
        return None
    r = per_hour / 3600
    allowed = r * max(0.5, 1.0 - 1.0 / r) + 1e-6
    lowest, first = times[0] * -r, 0
    for i, time in enumerate(times):
        level = i - r * time
        if level - lowest > allowed:
            return f"{i - first + 1} MAILs within {time - times[first]:.4f} s at {r:.4g} a second"
        if level < lowest:
            lowest, first = level, i
    return None
