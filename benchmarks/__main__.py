"""`python -m benchmarks [SUITE …] [--quick]`: runs suites, all of them when none is named. Exit status 1 when a figure is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib import import_module

from benchmarks.bench import record

SUITES = ("linearity", "exactness", "tier_change", "throughput", "worker_memory", "many_accounts", "long_lists")
_BOUND_S = 600.0  # of any suite


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the engine promises, measured on this machine.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(SUITES))
    parser.add_argument("--quick", action="store_true", help="short forms: they show that the suites run, and write no results")
    options = parser.parse_args()
    for name in options.suites:
        if name not in SUITES:
            parser.error(f"no suite {name!r}; there are {' '.join(SUITES)}")
    held = [_run(name, options.quick) for name in options.suites or SUITES]
    return 0 if all(held) else 1


def _run(name: str, quick: bool) -> bool:
    suite = import_module(f"benchmarks.{name}")
    return record(name, asyncio.run(asyncio.wait_for(suite.run(quick), _BOUND_S)), quick)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
