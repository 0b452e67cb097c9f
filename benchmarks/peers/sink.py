"""The sink of all peers, and the only count that counts: Debian's smtp-sink tells how many messages it has taken.

It writes its counter behind each message into a file without a name; the last number there is the truth, whoever sent.
Counting costs it 2.7 us of 34 a message (smtp-source at 28,500/s falls to 26,400; medians of four in turns, two virtual cores).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.bench import cpu_seconds, free_port
from benchmarks.peers.install import Absent, program

_LOOK_S = 0.005
_TAIL = 128  # octets, more than a line of the counter
_SESSIONS = "200"  # its backlog


class Arrival(msgspec.Struct, frozen=True):
    """What came of a round: messages a second from the first that was seen to the last."""

    per_second: float
    count: int
    wanted: int

    @property
    def is_whole(self) -> bool:
        return self.count >= self.wanted


class Sink:
    """`with Sink() as sink:` — owner of one smtp-sink on loopback. Raises Absent where there is none."""

    def __enter__(self) -> Sink:
        found = program("smtp-sink")
        if found is None:
            raise Absent("smtp-sink is not installed (Debian: postfix)")
        self.port = free_port()
        memory = Path("/dev/shm")
        self._counter = tempfile.TemporaryFile(dir=memory if memory.is_dir() else None)
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        words = (found, "-c", *user, f"127.0.0.1:{self.port}", _SESSIONS)
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._counter, start_new_session=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._counter.close()

    def count(self) -> int:
        """Messages taken so far."""
        file = self._counter.fileno()
        size = os.fstat(file).st_size
        return last_count(os.pread(file, _TAIL, max(0, size - _TAIL)))

    def cpu_seconds(self) -> float:
        """Its processor time so far: where it comes near the time that passed, the sink is the limit and not its sender."""
        return cpu_seconds(self._process.pid)

    async def listens(self) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return

    async def arrive(self, wanted: int, within: float) -> Arrival:
        """The arrival of so many further messages, or of what came of them in time."""
        return await arrival(self.count, wanted, within)


async def arrival(count: Callable[[], int], wanted: int, within: float) -> Arrival:
    before, until = count(), time.perf_counter() + within
    first = last = (0.0, 0)
    while (now := time.perf_counter()) < until:
        came = count() - before
        if came > last[1]:
            last = (now, came)
            first = first if first[1] else last
        if came >= wanted:
            break
        await asyncio.sleep(_LOOK_S)
    span = last[0] - first[0]
    return Arrival((last[1] - first[1]) / span if span else 0.0, last[1], wanted)


def last_count(tail: bytes) -> int:
    """Of `sess=1 quit=0 mesg=17\\r…`; a line that is being written is left out."""
    _, found, number = tail[: tail.rfind(b"\r") + 1].rpartition(b"mesg=")
    return int(number) if found else 0
