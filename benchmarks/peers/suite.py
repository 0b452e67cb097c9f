"""All peers in one run, into one sink, in turns; medians of the rounds, and ours divided by theirs within each round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from benchmarks.analysis import Spread, spread
from benchmarks.bench import Chart, Figure, Result, bench, children
from benchmarks.peers import clients, install, relays
from benchmarks.peers.ground import ROUND_S, Ground, Send
from benchmarks.peers.install import Absent
from benchmarks.peers.sink import Arrival, Sink

TITLE = "peers: who sends how much into the same smtp-sink, 2 KB personal messages, counted there"
BOUND_S = 1200.0
_OURS = "sendengine"
_BARE = "bare pipelined writer (the floor)"


def _nothing() -> None:
    pass


class Peer(msgspec.Struct, frozen=True):
    name: str
    send: Send
    sizes: tuple[int, int]  # messages in a round: short form, full form
    ready: Callable[[], object] = _nothing  # installs what it needs; raises Absent
    at_least: float = 0.0  # times that ours is to be as fast, at the sink


class Round(msgspec.Struct, frozen=True):
    arrival: Arrival
    cpu_us: float  # a message, of the sending processes; 0.0: unknown
    sink_us: float = 0.0  # the sink's own


PEERS = (
    Peer(_OURS, clients.sendengine, (20_000, 30_000)),
    Peer(_BARE, clients.bare, (20_000, 30_000)),
    Peer("smtp-source (the wire)", relays.smtp_source, (20_000, 30_000), at_least=1.8),
    Peer("aiosmtplib, prepared bytes", clients.pool, (8_000, 20_000), at_least=7.0),
    Peer("aiosmtplib, EmailMessage, Redis", clients.usual_way, (500, 3_000), at_least=60.0),
    Peer("smtplib threads, prepared bytes", clients.threads, (8_000, 20_000)),
    Peer("nodemailer pool", clients.nodemailer, (500, 5_000), install.node_modules),
    Peer("Celery + smtplib, Redis", clients.celery, (300, 2_000), install.python, 50.0),
    Peer("Postfix relay", relays.postfix, (300, 3_000), relays.has_postfix, 50.0),
    Peer("Haraka relay", relays.haraka, (300, 3_000), relays.has_haraka, 50.0),
)


async def run(quick: bool) -> Result:
    absent: dict[str, str] = {}
    try:
        install.postfix()
    except Absent as error:
        return _result({}, {peer.name: str(error) for peer in PEERS})
    for peer in PEERS:
        try:
            await asyncio.to_thread(peer.ready)
        except Absent as error:
            absent[peer.name] = str(error)
    async with bench() as b:
        with Sink() as sink:
            await sink.listens()
            worker = b.stage.worker()
            await b.workers_ready()
            [pid] = children(worker)
            with Ground(b, sink, pid) as ground:
                rounds = await _rounds(ground, 2 if quick else 5, quick, absent)
    return _result(rounds, absent)


async def _rounds(ground: Ground, count: int, quick: bool, absent: dict[str, str]) -> dict[str, list[Round]]:
    """In turns, each round beginning with another one: who runs behind a heavy neighbour is not always the same."""
    rounds: dict[str, list[Round]] = {}
    for number in range(count):
        at = number % len(PEERS)
        for peer in PEERS[at:] + PEERS[:at]:
            if peer.name in absent:
                continue
            try:
                rounds.setdefault(peer.name, []).append(await _round(ground, peer, peer.sizes[0 if quick else 1]))
            except Absent as error:
                absent[peer.name] = str(error)
                rounds.pop(peer.name, None)
    return rounds


async def _round(ground: Ground, peer: Peer, size: int) -> Round:
    arriving = asyncio.create_task(ground.sink.arrive(size, ROUND_S))
    before = ground.sink.cpu_seconds()
    try:
        cpu_us = await peer.send(ground, size, arriving)
        came = await arriving
        return Round(came, cpu_us, (ground.sink.cpu_seconds() - before) / max(1, came.count) * 1e6)
    finally:
        arriving.cancel()


# what it comes to


def _result(rounds: dict[str, list[Round]], absent: dict[str, str]) -> Result:
    ours, floor = rounds.get(_OURS, []), rounds.get(_BARE, [])
    rows, figures = [], []
    for peer in PEERS:
        theirs = rounds.get(peer.name)
        if not theirs or not ours:
            rows.append([peer.name, "skipped: " + absent.get(peer.name, "ours did not run"), "", "", "", "", ""])
            continue
        rows.append(_row(peer.name, theirs, ours))
        if peer.at_least:
            figures.append(_figure(peer, _times(ours, theirs), _times(floor, theirs)))
    columns = ["", "messages/s", "range", "CPU us/message", "sink us", "ours / theirs, messages/s", "theirs / ours, CPU"]
    series = {name: [(0.0, _speed(own).median)] for name, own in rounds.items()}
    data = {"rounds": msgspec.to_builtins(rounds), "absent": absent}
    return Result(TITLE, columns, rows, figures, Chart("messages a second, median of the rounds", "", series, "bars"), data)


def _row(name: str, theirs: list[Round], ours: list[Round]) -> list[str]:
    speed, times = _speed(theirs), _times(ours, theirs)
    cpu = spread([own.cpu_us for own in theirs]).median
    dearer = spread([b.cpu_us / a.cpu_us for a, b in zip(ours, theirs, strict=False) if a.cpu_us] or [0.0])
    range_ = f"{speed.low:,.0f} to {speed.high:,.0f}"
    short = sum(not own.arrival.is_whole for own in theirs)
    return [
        name + (f" ({short} of {len(theirs)} rounds cut short)" if short else ""),
        f"{speed.median:,.0f}",
        range_,
        f"{cpu:,.1f}" if cpu else "",
        f"{spread([own.sink_us for own in theirs]).median:.1f}",
        "" if name == _OURS else _said(times),
        "" if name == _OURS or not cpu else _said(dearer),
    ]


def _figure(peer: Peer, times: Spread, most: Spread) -> Figure:
    what = f"messages/s at the sink, ours / {peer.name}, median of the rounds"
    return Figure(what, f">= {peer.at_least:g}", _said(times), times.median >= peer.at_least, f"the bare writer {_said(most)}")


def _speed(rounds: list[Round]) -> Spread:
    return spread([own.arrival.per_second for own in rounds])


def _times(ours: list[Round], theirs: list[Round]) -> Spread:
    pairs = zip(ours, theirs, strict=False)
    return spread([a.arrival.per_second / b.arrival.per_second for a, b in pairs if b.arrival.per_second] or [0.0])


def _said(values: Spread) -> str:
    return f"{values.median:.1f} ({values.low:.1f} to {values.high:.1f})"
