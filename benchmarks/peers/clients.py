"""Ours, and the peers that send by themselves: Python's and Node's clients, and Celery with its workers."""

from __future__ import annotations

import asyncio
import os
import sys

import orjson

from benchmarks.bench import ROOT, session_cpu_seconds
from benchmarks.letter import SUBJECT, TEXT, filled, rows, sender
from benchmarks.peers.ground import ROUND_S, Arriving, Ground, stop
from benchmarks.peers.install import HERE, Absent, node_modules, program, python
from benchmarks.throughput import engine

_ACCOUNT = "m1"


async def sendengine(ground: Ground, size: int, arriving: Arriving) -> float:
    """One worker process, unmetered; all is queued before it starts."""
    own = await engine(ground.b, ground.account(), size, ground.sink.port, ground.worker)
    return own.cpu_us


async def bare(ground: Ground, size: int, arriving: Arriving) -> float:
    """The writer that does nothing but write: what any pipelined client in Python is bounded by."""
    return await ground.cost(sys.executable, "-m", "benchmarks.bare", str(ground.sink.port), str(size), "0")


async def usual_way(ground: Ground, size: int, arriving: Arriving) -> float:
    return await ground.cost(sys.executable, "-m", "benchmarks.peers.usual_way", str(ground.sink.port), str(size), ground.b.stage.url)


async def pool(ground: Ground, size: int, arriving: Arriving) -> float:
    return await ground.cost(sys.executable, "-m", "benchmarks.pool", str(ground.sink.port), str(size))


async def threads(ground: Ground, size: int, arriving: Arriving) -> float:
    return await ground.cost(sys.executable, "-m", "benchmarks.peers.threads", str(ground.sink.port), str(size))


async def nodemailer(ground: Ground, size: int, arriving: Arriving) -> float:
    """It builds its messages itself: it has no other way."""
    node = program("node")
    if node is None:
        raise Absent("node is not installed")
    letters = [{"to": row["email"], "subject": filled(SUBJECT, row), "text": filled(TEXT, row)} for row in rows(_ACCOUNT, size)]
    file = ground.b.stage.folder / "letters.json"
    file.write_bytes(orjson.dumps({"from": sender(_ACCOUNT), "letters": letters}))
    environ = {"NODE_PATH": str(node_modules()), "PEER_LETTERS": str(file)}
    return await ground.cost(node, str(HERE / "nodemailer.js"), str(ground.sink.port), environ=environ)


async def celery(ground: Ground, size: int, arriving: Arriving) -> float:
    """All is queued before its workers start, as ours is; two processes for each core, since they wait for replies."""
    url = ground.b.stage.url
    broker = url.replace("unix://", "redis+socket://", 1)
    environ = {"PEER_BROKER": broker, "PEER_PORT": str(ground.sink.port), "PYTHONPATH": f"{ROOT}:{HERE}"}
    async with ground.script(str(python()), "-m", "celery_task", str(size), environ=environ) as process:
        async with asyncio.timeout(ROUND_S):
            _, errors = await process.communicate()
    if process.returncode:
        raise Absent(f"Celery cannot queue: {errors.decode(errors='replace').strip().splitlines()[-1][:120]}")
    quiet = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")
    words = ("-m", "celery", "-A", "celery_task", "worker", "-c", str(2 * (os.cpu_count() or 1)), *quiet)
    worker = ground.server("celery", 0, str(python()), *words, environ=environ)
    try:
        arrival = await arriving
        return session_cpu_seconds(worker.process.pid) / max(1, arrival.count) * 1e6
    finally:
        await asyncio.to_thread(stop, worker)
