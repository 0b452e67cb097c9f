"""The account's side, proved where its messages arrive: `python -m benchmarks gates`, or one part of it (`gates.grace`) alone.

Each part is a suite of its own, with its own stage; their short forms are tests (tests/test_gates.py).
"""

from __future__ import annotations

PARTS = tuple(f"gates.{part}" for part in ("changes", "cancelled", "grace", "purge", "neighbour", "channels", "rejected"))
