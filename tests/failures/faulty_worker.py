"""A worker process as workers/send.py runs it, its ports wrapped in faults: `python -m tests.failures.faulty_worker`.

The environment says which: FAILPOINT, FAULT_RECORD and FAULT_RELEASE (failpoints.py), FAULT_CONTROL (faulty.CONTROLS), FAULT_RETAIN
(seconds that a journal record outlives its settlement: trims come sooner), FAULT_SWEEP (seconds between two sweeps).
"""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import partial

import msgspec

from sendengine.channel import site
from sendengine.channel.opening import Opened, open_session
from sendengine.config import Config
from sendengine.engine.worker import Worker
from sendengine.launch import WorkerOptions
from sendengine.ports import Meter
from sendengine.process import run
from sendengine.types import Attempt
from sendengine.wiring import LoopClock, default_relay, engine_settings, keyring, relay_of, reply_rules, smtp_settings
from tests.failures.failpoints import Faults
from tests.failures.faulty import FaultyChannel, FaultyQueue, FaultyTransport


def build(config: Config, url: str, meter: Meter, worker_id: str) -> Worker:
    """As wiring.build_worker."""
    faults, control = Faults.of_environment(), os.environ.get("FAULT_CONTROL", "")
    settings = engine_settings(config)
    if retain := os.environ.get("FAULT_RETAIN"):
        settings = msgspec.structs.replace(settings, retain=float(retain))
    if sweep := os.environ.get("FAULT_SWEEP"):
        settings = msgspec.structs.replace(settings, sweep_every=float(sweep))
    if control == "never_stale":
        settings = msgspec.structs.replace(settings, append_fresh=float("inf"))
    _break_transports(faults)
    return Worker(
        queue=FaultyQueue(url, config.engine.cut_delay_ms * 1000, faults, control),
        channel=FaultyChannel(smtp_settings(config), LoopClock(), faults, control),
        meter=meter,
        rules=reply_rules(config),
        settings=settings,
        worker_id=worker_id,
        relay_of=partial(relay_of, default=default_relay(config)),
        now=time.monotonic,
        keyring=keyring(config),
        facts={"host": socket.gethostname(), "pid": os.getpid(), "started_at": time.time()},
    )


def _break_transports(faults: Faults) -> None:
    """Sessions are opened deep in the channel: there the transport is wrapped."""

    async def opening(*args: object) -> Opened | Attempt:
        opened = await open_session(*args)  # type: ignore[arg-type]
        if isinstance(opened, Attempt):
            return opened
        transport = FaultyTransport(opened.transport, faults)
        return Opened(transport, opened.features)  # type: ignore[arg-type]

    setattr(site, "open_session", opening)  # noqa: B010 - it is imported there, not exported


if __name__ == "__main__":
    sys.exit(run(WorkerOptions(), build=build))
