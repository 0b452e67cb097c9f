"""What others send with, into the same sink: `python -m benchmarks peers`."""

from __future__ import annotations

from benchmarks.peers.suite import BOUND_S, run

__all__ = ["BOUND_S", "run"]
