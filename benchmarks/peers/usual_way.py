"""The usual Python way: recipients in Redis, an EmailMessage built for each, ten aiosmtplib connections kept open.

`python -m benchmarks.peers.usual_way PORT COUNT URL`. Taken and written down by the hundred, which is kinder than usual: what is left is
the message and the client. Nothing is paced, nothing survives a crash. Prints {"seconds", "cpu", "count"}.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiosmtplib
import orjson
import redis.asyncio
import uvloop

from benchmarks.letter import email_message, rows

_CONNECTIONS = 10
_ACCOUNT = "m1"
_QUEUE, _DONE = "peer:queue", "peer:done"
_BATCH = 100


async def main(port: int, count: int, url: str) -> dict[str, float]:
    store = redis.asyncio.Redis.from_url(url)
    await store.delete(_QUEUE, _DONE)
    people = list(rows(_ACCOUNT, count))
    for at in range(0, count, _BATCH):
        await store.rpush(_QUEUE, orjson.dumps(people[at : at + _BATCH]))
    clients = [aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) for _ in range(_CONNECTIONS)]
    for client in clients:
        await client.connect()
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_drain(store, client) for client in clients))
    taken, spent = time.perf_counter() - started, time.process_time() - cpu
    for client in clients:
        await client.quit()
    await store.delete(_QUEUE, _DONE)
    await store.aclose()
    return {"seconds": taken, "cpu": spent, "count": count}


async def _drain(store: redis.asyncio.Redis, client: aiosmtplib.SMTP) -> None:
    while (batch := await store.lpop(_QUEUE)) is not None:
        outcomes = []
        for row in orjson.loads(batch):
            _, reply = await client.send_message(email_message(_ACCOUNT, row))
            outcomes.append((row["email"], reply))
        await store.rpush(_DONE, orjson.dumps(outcomes))


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))).decode())
