"""The engine's rival: aiosmtplib with ten connections kept open and messages that are bytes already.

`python -m benchmarks.pool PORT COUNT`. Nothing is rendered, paced, journalled or settled, and the messages are made before the clock
starts. Prints {"seconds", "cpu", "count"}.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import aiosmtplib
import orjson
import uvloop

from benchmarks.bench import message
from benchmarks.letter import rows, sender
from sendengine.render.compile import compile as compile_message

_CONNECTIONS = 10
_ACCOUNT = "m1"
_DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"
Prepared = tuple[str, bytes]


def prepared(count: int, octets: int = 0) -> list[Prepared]:
    """Recipients and messages, as the engine would render them; of two kilobytes, or about so many octets."""
    renderer = compile_message(message(_ACCOUNT, octets), "pool").renderer(True)
    people = list(rows(_ACCOUNT, count))
    names = [name for name in people[0] if name != "email"]
    to = [person["email"] for person in people]
    every = renderer.prepare(names, [[person[name] for person in people] for name in names], to)
    return [
        (one, renderer.wire(values, row, _DATE))
        for row, (one, values) in enumerate(zip(to, every, strict=True))
        if isinstance(values, tuple)
    ]


async def send(port: int, messages: list[Prepared]) -> dict[str, float]:
    clients = [aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) for _ in range(_CONNECTIONS)]
    for client in clients:
        await client.connect()
    queue = iter(messages)
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_drain(client, queue) for client in clients))
    taken, spent = time.perf_counter() - started, time.process_time() - cpu
    for client in clients:
        await client.quit()
    return {"seconds": taken, "cpu": spent, "count": len(messages)}


async def _drain(client: aiosmtplib.SMTP, queue: Iterator[Prepared]) -> None:
    for to, content in queue:
        await client.sendmail(sender(_ACCOUNT), [to], content)


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(send(int(sys.argv[1]), prepared(int(sys.argv[2]))))).decode())
