"""A rate is data: x2, x0.5, pause and resume in mid-send, each measured at the relay from the moment the verb returned."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from benchmarks.analysis import above_ceiling, lost_and_twice, turn
from benchmarks.bench import Bench, Chart, Figure, Result, bench, figure_of
from benchmarks.letter import recipient, sender
from sendengine.trial.mails import Mail, by_sender

TITLE = "tier_change: 100,000 an hour, x2, x0.5, pause, resume, in mid-send"
SLOW, FAST = 100_000, 200_000
SETTLED_S = 1.5  # after a verb, what a rate is read from
WINDOW = 5.0  # seconds before a verb that the old rate is read from


class Script(msgspec.Struct, frozen=True):
    """When each verb had returned, UNIX seconds."""

    doubled: float
    halved: float
    paused: float
    resumed: float


async def run(quick: bool) -> Result:
    phase, copies = (4.0, 1) if quick else (8.0, 4)
    size = int(phase * (SLOW + FAST + SLOW + SLOW) / 3600)
    accounts = [f"m{1001 + copy}" for copy in range(copies)]
    async with bench() as b:
        relay = b.stage.relay()
        b.stage.worker()
        await b.workers_ready()
        played = await asyncio.gather(*(_play(b, account, size, phase, place * 0.37, relay.port) for place, account in enumerate(accounts)))
        seen = by_sender(b.seen_by(relay))
    return _result({account: seen[sender(account)] for account in accounts}, dict(zip(accounts, played, strict=True)), size)


async def _play(b: Bench, account: str, size: int, phase: float, offset: float, port: int) -> Script:
    await asyncio.sleep(offset)  # so that the verbs of different accounts meet the worker at different times
    await b.account(account, str(SLOW), port)
    send = await b.submit(account, size)
    await asyncio.sleep(phase)
    await b.client.set_tier(account, str(FAST))
    doubled = time.time()
    await asyncio.sleep(phase)
    await b.client.set_tier(account, str(SLOW))
    halved = time.time()
    await asyncio.sleep(phase)
    await b.client.pause(send.id)
    paused = time.time()
    await asyncio.sleep(3.0)
    await b.client.resume(send.id)
    resumed = time.time()
    await b.finished(send.id, phase * 4 + 30)
    return Script(doubled, halved, paused, resumed)


def _result(seen: dict[str, list[Mail]], scripts: dict[str, Script], size: int) -> Result:
    delays: dict[str, list[float]] = {"x2": [], "x0.5": [], "pause": [], "resume": []}
    excess, lost, twice = [], 0, 0
    for account, mails in seen.items():
        times, script = [mail.at for mail in mails], scripts[account]
        for verb, delay in _delays(times, script).items():
            delays[verb].append(delay)
        excess.append(max(_excess(times, script)))
        wanted = [recipient(account, row) for row in range(size)]
        missing, again = lost_and_twice([mail.recipient for mail in mails], wanted)
        lost, twice = lost + missing, twice + again
    rows = [[verb, *(f"{delay * 1000:+,.0f} ms" for delay in found)] for verb, found in delays.items()]
    figures = [
        *(figure_of(f"{verb} in force after, s", "<= 1", found, max(found) <= 1) for verb, found in delays.items()),
        figure_of("above the ceiling at any constant rate", "<= 0", excess, max(excess) <= 0, 1),
        Figure("lost, twice", "0, 0", f"{lost}, {twice}", lost == twice == 0),
    ]
    columns = ["verb", *seen]
    data: dict[str, Any] = {
        "delays": delays,
        "scripts": msgspec.to_builtins(scripts),
        "mail_times": {account: [mail.at for mail in mails] for account, mails in seen.items()},
    }
    chart = Chart("seconds", "messages so far", {account: _curve([mail.at for mail in mails]) for account, mails in seen.items()}, "-")
    return Result(TITLE, columns, rows, figures, chart, data)


def _delays(times: list[float], script: Script) -> dict[str, float]:
    """A change of rate is where the lines before and after it meet; a pause is over with the last MAIL after it."""
    return {
        "x2": turn(_until(times, script.halved), script.doubled, WINDOW, script.doubled + SETTLED_S) - script.doubled,
        "x0.5": turn(_between(times, script.doubled + SETTLED_S, script.paused), script.halved, WINDOW, script.halved + SETTLED_S)
        - script.halved,
        "pause": max([at for at in times if at < script.resumed]) - script.paused,
        "resume": min(at for at in times if at >= script.resumed) - script.resumed,
    }


def _excess(times: list[float], script: Script) -> list[float]:
    """Of each stretch of one rate, a second after the verb that began it; a resume begins at once, for it must not catch up."""
    slow, fast = SLOW / 3600, FAST / 3600
    return [
        above_ceiling(_until(times, script.doubled), slow),
        above_ceiling(_between(times, script.doubled, script.halved), fast),
        above_ceiling(_between(times, script.halved + 1.0, script.paused), slow),
        above_ceiling(_between(times, script.resumed, times[-1] + 1), slow),
    ]


def _until(times: list[float], end: float) -> list[float]:
    return [at for at in times if at < end]


def _between(times: list[float], start: float, end: float) -> list[float]:
    return [at for at in times if start <= at < end]


def _curve(times: list[float]) -> list[tuple[float, float]]:
    return [(at - times[0], float(place + 1)) for place, at in enumerate(times)]
