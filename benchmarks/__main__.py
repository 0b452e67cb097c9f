"""`python -m benchmarks [SUITE …] [--quick]`: runs suites, all of them when none is named. Exit status 1 when a figure is missed.

`report [SUITE …] [--full]` writes one report of them; `guard [--accept]` compares what a message costs with what was accepted last.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks import guard, report
from benchmarks.bench import Result, record
from benchmarks.gates import PARTS
from sendengine.errors import RefusedInput

_ALWAYS = ("linearity", "exactness", "tier_change", "throughput", "worker_memory", "many_accounts", "neighbours", "long_lists")
SUITES = (*_ALWAYS, "submit", "sizes", "verbs", "million", "dkim", "distance", "uploads")
_COSTS = ("throughput", "stages", "sizes", "dkim", "distance", "million", "peers", "worker_memory")
IN_REPORT = ("linearity", "tiers", "exactness", "tier_change", "verbs", *_COSTS, "submit", "many_accounts", "neighbours", "long_lists")
_GROUPS = {"gates": PARTS}  # one name for several suites
_ALL = (*SUITES, "tiers", "stages", "sms", "peers", *_GROUPS, *PARTS)
_NAME_MOST = 100
_BOUND_S = 600.0  # of any suite that does not say another


def main(words: Sequence[str]) -> int:
    match words[:1]:
        case ["report"]:
            return _report(words[1:])
        case ["guard"]:
            return _guard(words[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the engine promises, measured on this machine.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(_ALL) + "; or a first word: report, guard")
    parser.add_argument("--quick", action="store_true", help="short forms: they show that the suites run, and write no results")
    _add_tiers(parser)
    options = _parsed(parser, words)
    held = [record(name, _run(name, options.quick, options), options.quick) for name in options.suites or SUITES]
    return 0 if all(held) else 1


def _report(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description="Runs suites and writes build/bench/report.md.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(_ALL))
    parser.add_argument("--full", action="store_true", help="every suite in full; the short form takes less than ten minutes")
    _add_tiers(parser)
    options = _parsed(parser, words)
    names = options.suites or IN_REPORT
    folder = report.FOLDER / "-".join(options.suites)[:_NAME_MOST]  # a report of one suite leaves that of all alone
    return 0 if report.write(names, lambda name: _run(name, not options.full, options), options.full, folder) else 1


def _guard(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks guard", description="What a message costs, against what was accepted last.")
    parser.add_argument("--accept", action="store_true", help="measure at length, and let that be what later runs are compared with")
    return guard.main(accept=parser.parse_args(words).accept)


def _add_tiers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tiers", help="for the suite tiers: names or rates an hour, with commas between")
    parser.add_argument("--recipients", type=int, help="for the suite tiers: how many each of them gets")


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    options = parser.parse_args(words)
    for name in options.suites:
        if name not in _ALL:
            parser.error(f"no suite {name!r}; there are {' '.join(_ALL)}")
    options.suites = [part for name in options.suites for part in _GROUPS.get(name, (name,))]
    return options


def _run(name: str, quick: bool, options: argparse.Namespace) -> Result:
    suite = import_module(f"benchmarks.{name}")
    if name == "tiers":
        plan = suite.plan(quick, options.tiers, options.recipients)
        return asyncio.run(asyncio.wait_for(suite.run(quick, plan), suite.bound(plan)))
    return asyncio.run(asyncio.wait_for(suite.run(quick), getattr(suite, "BOUND_S", _BOUND_S)))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RefusedInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
