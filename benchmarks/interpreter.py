"""How quick the interpreter itself is. Builds of one version differ by a half: what a distribution ships is optimised by a profile (PGO),
what pyenv builds by default is not. So a figure in µs stands beside this one.
"""

from __future__ import annotations

import time
from functools import cache

_ROUNDS, _STEPS = 7, 20_000


def work(steps: int) -> int:
    """Attribute, call, dict, bytes: what the interpreter does all day, nothing of ours."""
    seen: dict[int, bytes] = {}
    length = 0
    for at in range(steps):
        seen[at & 63] = b"%d %b" % (at, b"reference")
        length += len(seen[at & 63]) + int(abs(at) > 3)
    return length


@cache
def step_ns() -> float:
    """CPU ns of one step, the best of a few rounds."""
    taken = []
    for _ in range(_ROUNDS):
        before = time.process_time()
        work(_STEPS)
        taken.append((time.process_time() - before) / _STEPS * 1e9)
    return min(taken)
