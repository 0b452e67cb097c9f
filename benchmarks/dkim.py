"""What a signature adds to a message, over the bare signature of `cryptography`: the rendering alone, and whole workers.

A signed and an unsigned message and the bare signature take turns, so that what disturbs the machine disturbs all of them. What counts is
(signed − unsigned) / bare. Two processes against one: the same send, signed with RSA, in turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.analysis import Spread, spread
from benchmarks.bench import Bench, Chart, Figure, Result, bench, children, cpu_seconds, message
from benchmarks.letter import rows, sender
from benchmarks.throughput import sink
from sendengine.keyring import PrivateKey, read_key
from sendengine.policy.signing import KeyEntry
from sendengine.render.compile import compile as compile_message
from sendengine.render.dkim import SigningKey

TITLE = "dkim: what a signature adds to a message, over the bare signature"
BOUND_S = 900.0
_DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"
_DIGEST = b"\x5a" * 32
_TURN = {"rsa": 100, "ed25519": 800}  # messages
_WANTED = {"rsa": 1.08, "ed25519": 1.35}
SHARED = 40_000  # messages: a process takes 8,000 at a time, and of fewer the second one would get none
_LEAD_S = 1.5
_ROWS_PER_S = 50_000


class Round(msgspec.Struct, frozen=True):
    """CPU µs a message."""

    bare: float
    unsigned: float
    signed: float

    @property
    def ratio(self) -> float:
        return (self.signed - self.unsigned) / self.bare


class Sent(msgspec.Struct, frozen=True):
    per_second: float
    cpu_us: float  # of the worker processes, a message


async def run(quick: bool) -> Result:
    keys = {"rsa": _pem(rsa.generate_private_key(65537, 2048)), "ed25519": _pem(Ed25519PrivateKey.generate())}
    alone = {name: rendering(read_key(text, name), name, 9 if quick else 41) for name, text in keys.items()}
    workers = {name: await whole(name, text, *((1, 1_000) if quick else (3, 6_000))) for name, text in keys.items()}
    speeds = await processes(keys["rsa"], *((1, 1_000) if quick else (3, SHARED)))
    return _result(alone, workers, speeds, quick)


def _pem(key: Any) -> str:
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text


# the rendering alone


def rendering(key: PrivateKey, name: str, rounds: int) -> list[Round]:
    people = list(rows("m1", 100))
    columns = [[person[field] for person in people] for field in ("first_name", "city")]
    renderer = compile_message(message("m1"), "dkim").renderer(True)
    prepared = renderer.prepare(("first_name", "city"), columns, [person["email"] for person in people])
    values = [row for row in prepared if isinstance(row, tuple)]
    keys = (SigningKey("m1.example", "s", key.algorithm, key.sign),)
    works: tuple[Callable[[int], object], ...] = (
        lambda at: key.sign(_DIGEST),
        lambda at: renderer.wire(values[at % 100], at, _DATE),
        lambda at: renderer.wire(values[at % 100], at, _DATE, 1_767_225_600, keys),
    )
    taken = [Round(*(_cpu_us(work, _TURN[name]) for work in works)) for _ in range(rounds + 1)]
    return taken[1:]


def _cpu_us(work: Callable[[int], object], count: int) -> float:
    before = time.process_time()
    for at in range(count):
        work(at)
    return (time.process_time() - before) / count * 1e6


# whole workers


async def whole(name: str, text: str, rounds: int, size: int) -> list[Round]:
    """One process: an account whose domain has the key, and one whose domain has none, in turns."""
    key = read_key(text, name)
    found = []
    async with bench() as b:
        port, _ = await sink(b)
        worker = b.stage.worker()
        await b.workers_ready()
        pids = children(worker)
        for number in range(rounds):
            bare = _cpu_us(lambda at: key.sign(_DIGEST), 4 * _TURN[name])
            unsigned = await send(b, f"m{1000 + number}", size, port, pids)
            await _keep(b, f"m{2000 + number}", text, key)
            signed = await send(b, f"m{2000 + number}", size, port, pids)
            found.append(Round(bare, unsigned.cpu_us, signed.cpu_us))
    return found


async def processes(text: str, rounds: int, size: int) -> dict[int, list[Sent]]:
    """The speed of one process, and of two."""
    found: dict[int, list[Sent]] = {1: [], 2: []}
    key = read_key(text, "rsa")
    async with bench() as b:
        port, _ = await sink(b)
        for number in range(2 * rounds):
            count = 1 + number % 2
            worker = b.stage.worker("-p", str(count))
            await b.workers_ready(count)
            account = f"m{3000 + number}"
            await _keep(b, account, text, key)
            found[count].append(await send(b, account, size, port, children(worker)))
            b.stage.stop(worker)
    return found


async def _keep(b: Bench, account: str, text: str, key: PrivateKey) -> None:
    """Workers know of it before the send begins, which is later than they look for changes."""
    await b.client.desk.keep_key(KeyEntry(sender(account).partition("@")[2], "s", key.algorithm, text, ""))


async def send(b: Bench, account: str, size: int, port: int, pids: Sequence[int]) -> Sent:
    """All is queued before it starts."""
    await b.account(account, "unmetered", port)
    at = time.time() + size / _ROWS_PER_S + _LEAD_S + 2.5
    order = await b.submit(account, size, at=at)
    await asyncio.sleep(at - time.time() - 0.1)
    before = cpu_seconds(*pids)
    final = await b.finished(order.id, 240)
    spent = cpu_seconds(*pids) - before
    assert final.sent == size, final
    assert final.started_at is not None
    assert final.through_at is not None
    return Sent((size - 1) / (final.through_at - final.started_at).total_seconds(), spent / size * 1e6)


# what it comes to


def _result(alone: dict[str, list[Round]], workers: dict[str, list[Round]], speeds: dict[int, list[Sent]], quick: bool) -> Result:
    table, figures, series = [], [], {}
    for place, found in (("rendering", alone), ("worker", workers)):
        for name, rounds in found.items():
            ratio = spread([one.ratio for one in rounds])
            series[f"{name}, {place}"] = [(0.0, ratio.median)]
            columns = [spread([getattr(one, field) for one in rounds]).median for field in ("bare", "unsigned", "signed")]
            table.append([f"{name}, {place}", *(f"{value:.1f}" for value in columns), f"{ratio.median:.2f} ({_range(ratio)})"])
            wanted, rest = _WANTED[name], columns[2] - columns[1] - columns[0]
            wall = f"the bare signature takes {columns[0]:.1f} us, all else about a signed message {rest:.1f} us"
            what = f"{name}: CPU a message above unsigned over the bare signature, {place}, median"
            if place == "rendering" or not quick:  # some thousand messages are a few ticks of a worker's clock
                figures.append(Figure(what, f"<= {wanted}", f"{ratio.median:.2f} ({_range(ratio)})", ratio.median <= wanted, wall))
    gain = spread([two.per_second / one.per_second for one, two in zip(speeds[1], speeds[2], strict=True)])
    table.append(["rsa, messages/s of two processes over one", "", "", "", f"{gain.median:.2f} ({_range(gain)})"])
    if not quick:
        figures.append(Figure("rsa: two processes against one, median", ">= 1.5", table[-1][-1], gain.median >= 1.5))
    data = {"rendering": alone, "worker": workers, "processes": {str(count): found for count, found in speeds.items()}}
    columns = ["", "bare us", "unsigned us", "signed us", "(signed - unsigned) / bare"]
    chart = Chart("CPU above unsigned over the bare signature, median", "", series, "bars")
    return Result(TITLE, columns, table, figures, chart, msgspec.to_builtins(data))


def _range(values: Spread) -> str:
    return f"{values.low:.2f} to {values.high:.2f}"
