"""What one account, or one worker, does to all the others: their rates at the sink while it happens.

A thousand accounts send at 5,000 an hour on two workers, beside one with a million recipients queued. Then new accounts come and send;
then one account's relay takes its connections and answers no MAIL, from there to the end; then a worker is killed, which its supervisor
starts again. A window each counts, and the windows before and after all of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Collection, Sequence

import msgspec

from benchmarks import csink
from benchmarks.analysis import longest_gap
from benchmarks.bench import Bench, Chart, Figure, Result, bench
from benchmarks.many_accounts import ATTACHED_S, SETTLED_S, attached, by_account
from benchmarks.punctual import observed
from sendengine.engine.settings import EngineSettings
from sendengine.queue.redis import RedisQueue
from sendengine.trial.mails import rate_error

TITLE = "neighbours: what one account or one worker does to the others"
RATE, HEAVY_RATE = 5_000, 200_000
PHASES = ("before", "newcomers", "tarpit", "killed", "after")
_FIRST, _HEAVY, _NEWCOMER, _TARPIT = 1001, 101, 201, 301  # the numbers of accounts
_NEWCOMERS, _THEIRS = 5, 20  # and recipients of each
_AT_ONCE = 32
_BUT = " but the orphans"
_CHANGE, _START_S, _SILENT_S = 0.02, 2.0, 15.0
_GAP_S = 3 * 3600 / RATE
_END_S = 60.0


class Plan(msgspec.Struct, frozen=True):
    accounts: int
    heavy: int  # recipients of the one with the long list
    window: float


class Phase(msgspec.Struct, frozen=True):
    name: str
    errors: tuple[float, ...]  # rate error of each neighbour in which no killed worker had a part
    orphans: int  # the others
    gap: float  # the longest without a MAIL of the former, the window's edges included, s
    silence: float  # of the latter


class Found(msgspec.Struct, frozen=True):
    phases: tuple[Phase, ...]
    starts: tuple[float, ...]  # from each newcomer's submit to its first MAIL, s
    accepted: int  # of all neighbours
    sent: int  # as the engine tells it
    mails: int  # as the sink does
    lateness: str = ""  # the machine's own


async def run(quick: bool) -> Result:
    return result(await measure(Plan(100, 50_000, 5.0) if quick else Plan(1_000, 1_000_000, 30.0)))


async def measure(plan: Plan) -> Found:
    async with bench() as b, observed() as lateness:
        sink = csink.start(b.stage)
        sends = await _load(b, plan, sink.port)
        worker = b.stage.worker("-p", "2")
        await b.workers_ready(2)
        await attached(b, plan.accounts + 1)
        await asyncio.sleep(SETTLED_S)
        starts = {"before": time.time()}
        await asyncio.sleep(plan.window)
        starts["newcomers"] = time.time()
        submitted = [await _newcomer(b, _NEWCOMER + n, sink.port, plan.window / _NEWCOMERS) for n in range(_NEWCOMERS)]
        await _tarpit(b, plan)
        starts["tarpit"] = time.time()
        await asyncio.sleep(starts["tarpit"] + plan.window - time.time())
        _, name, pid = max((said["accounts"], name, said["pid"]) for name, said in (await b.client.workers()).items() if said)
        orphans = await _held_by(b, plan, name)
        starts["killed"] = time.time()
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(_SILENT_S)
        starts["after"] = time.time()
        await asyncio.sleep(plan.window)
        ended = [await b.finished(send, _END_S) for send in sends]
        await asyncio.to_thread(b.stage.stop, worker)
        await asyncio.to_thread(b.stage.stop, sink.process)
        times = by_account(sink.ledger)
    neighbours = [times.get(_FIRST + n, []) for n in range(plan.accounts)]
    spans = {name: (at, at + (_SILENT_S if name == "killed" else plan.window)) for name, at in starts.items()}
    return Found(
        tuple(_phase(name, neighbours, orphans if name == "killed" else (), *spans[name]) for name in PHASES),
        tuple(next(iter(times.get(_NEWCOMER + n, ())), float("inf")) - at for n, at in enumerate(submitted)),
        sum(status.accepted for status in ended), sum(status.sent for status in ended), sum(map(len, neighbours)), str(lateness),
    )  # fmt: skip


async def _load(b: Bench, plan: Plan, port: int) -> list[str]:
    """So many messages each that none ends while it is looked at. Answers the neighbours' sends."""
    await b.account(f"m{_HEAVY}", str(HEAVY_RATE), port)
    await b.submit(f"m{_HEAVY}", plan.heavy)
    each = int(RATE / 3600 * (ATTACHED_S / 3 + SETTLED_S + 4 * plan.window + _SILENT_S + 5.0))
    waiting, sends = iter(range(_FIRST, _FIRST + plan.accounts)), list[str]()

    async def some() -> None:
        for number in waiting:
            await b.account(f"m{number}", str(RATE), port)
            sends.append((await b.submit(f"m{number}", each)).id)

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    return sends


async def _newcomer(b: Bench, number: int, port: int, seconds: float) -> float:
    """It comes, and then so long nothing more happens. When its list was complete."""
    await b.account(f"m{number}", str(RATE), port)
    await b.submit(f"m{number}", _THEIRS)
    complete = time.time()
    await asyncio.sleep(seconds)
    return complete


async def _tarpit(b: Bench, plan: Plan) -> None:
    """An account with all it needs to fill every session, whose relay answers no MAIL from then on."""
    relay = await asyncio.to_thread(b.stage.relay, "--delay", "mail=600")
    await b.account(f"m{_TARPIT}", str(HEAVY_RATE), relay.port)
    await b.submit(f"m{_TARPIT}", int(HEAVY_RATE / 3600 * plan.window))


async def _held_by(b: Bench, plan: Plan, name: str) -> set[int]:
    """Places of the neighbours of which this worker holds something: few are held by both."""
    queue = RedisQueue(b.stage.url)
    try:
        leases = await asyncio.gather(*(queue.need(f"m{_FIRST + place}") for place in range(plan.accounts)))
    finally:
        await queue.close()
    return {place for place, (_, held) in enumerate(leases) if name in held.values()}


def _phase(name: str, neighbours: Sequence[Sequence[float]], orphans: Collection[int], since: float, until: float) -> Phase:
    errors, gap, silence = [], 0.0, 0.0
    for place, times in enumerate(neighbours):
        seen = [at for at in times if since <= at <= until]
        longest = longest_gap(seen, since, until)
        if place in orphans:
            silence = max(silence, longest)
        else:
            gap = max(gap, longest)
            errors.append(rate_error(seen, RATE / 3600) if len(seen) > 1 else -1.0)
    return Phase(name, tuple(errors), len(orphans), gap, silence)


def result(found: Found) -> Result:
    rows = [[own.name, *_range(own.errors), f"{own.gap:.2f}", str(own.orphans), f"{own.silence:.2f}"] for own in found.phases]
    return Result(
        TITLE, ["", "least rate error", "greatest", "longest gap, s", "orphans", "their silence, s"], rows, _figures(found),
        Chart("rate error of the worst neighbour, %", "", {own.name: [(0.0, _worst(own) * 100)] for own in found.phases}, "bars"),
        msgspec.to_builtins(found),
        notes=[
            f"Newcomers' first MAIL after {', '.join(f'{1e3 * start:.0f}' for start in found.starts)} ms.",
            "The killed worker's accounts are the orphans: of them the silence counts, of the others rate and gaps, edges included.",
        ],
    )  # fmt: skip


def _figures(found: Found) -> list[Figure]:
    allowed = EngineSettings().max_doubtful
    twice = found.mails - found.accepted
    figures = [
        Figure(f"rate of every neighbour{_BUT if own.orphans else ''}, {own.name}", "within 2 %", f"{_worst(own) * 100:.3f} %",
               _worst(own) <= _CHANGE, found.lateness)
        for own in found.phases
    ]  # fmt: skip
    gap = max(own.gap for own in found.phases)
    slowest, [killed] = max(found.starts), [own for own in found.phases if own.name == "killed"]
    figures += [
        Figure("longest gap of any of them", f"<= {_GAP_S:.2f} s", f"{gap:.2f} s", gap <= _GAP_S, found.lateness),
        Figure("a newcomer's first MAIL after its list was complete", f"<= {_START_S:g} s", f"{slowest:.3f} s", slowest <= _START_S),
        Figure("accounts of the killed worker are silent for", f"<= {_SILENT_S:g} s", f"{killed.silence:.1f} s",
               killed.orphans > 0 and killed.silence < _SILENT_S),
        Figure("neighbours' recipients sent, of those accepted", f"{found.accepted:,}", f"{found.sent:,}", found.sent == found.accepted),
        Figure("MAILs beyond them in the whole ledger, sent twice after the kill", f"0 to {allowed}", f"{twice}", 0 <= twice <= allowed),
    ]  # fmt: skip
    return figures


def _worst(phase: Phase) -> float:
    return max(map(abs, phase.errors), default=1.0)


def _range(errors: Sequence[float]) -> tuple[str, str]:
    return (f"{min(errors) * 100:+.3f} %", f"{max(errors) * 100:+.3f} %") if errors else ("", "")
