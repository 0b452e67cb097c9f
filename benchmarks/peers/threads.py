"""The standard library's client in twenty threads, a connection each, with messages that are bytes already.

`python -m benchmarks.peers.threads PORT COUNT`. Prints {"seconds", "cpu", "count"}.
"""

from __future__ import annotations

import smtplib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import orjson

from benchmarks.letter import sender
from benchmarks.pool import Prepared, prepared

_THREADS = 20
_ACCOUNT = "m1"


def main(port: int, messages: list[Prepared]) -> dict[str, float]:
    clients = [smtplib.SMTP("127.0.0.1", port) for _ in range(_THREADS)]
    queue = iter(messages)
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda client: _drain(client, queue), clients))
    taken, spent = time.perf_counter() - started, time.process_time() - cpu
    for client in clients:
        client.quit()
    return {"seconds": taken, "cpu": spent, "count": len(messages)}


def _drain(client: smtplib.SMTP, queue: Iterator[Prepared]) -> None:
    for to, content in queue:
        client.sendmail(sender(_ACCOUNT), [to], content)


if __name__ == "__main__":
    print(orjson.dumps(main(int(sys.argv[1]), prepared(int(sys.argv[2])))).decode())
