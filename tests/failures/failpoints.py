"""Failpoints: where a worker process breaks, how, and at which passing. Read from the environment of tests/failures/faulty_worker.py.

    FAILPOINT="before_append=kill@37"     the 37th time that an append with intents is about to go, the process is killed
    FAULT_RECORD=FILE                     a line before each fault acts: a fault that was never there proves nothing. It ends with what
                                          was struck, where that is a session (host:port at our end) or a recipient
    FAULT_RELEASE=FILE                    a stalled process goes on when this file stands
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec

QUEUE_STEPS = ("after_take", "after_visit", "before_append", "after_append", "before_settle", "after_settle", "before_trim")
WIRE_STEPS = ("after_mail", "mid_body", "before_dot", "after_dot")
REPLY_STEPS = ("after_reply",)
RESCUE_STEPS = ("after_revoke", "after_rescue_visit", "before_index", "before_bury", "mid_bury")
STEPS = QUEUE_STEPS + WIRE_STEPS + REPLY_STEPS + RESCUE_STEPS
# kill: SIGKILL. raise: the outage of the port at hand (Redis away, the answer lost; the connection reset). bug: RuntimeError.
# stall: the whole process stands still, as under SIGSTOP, until it is released.
ACTIONS = ("kill", "raise", "stall", "bug")


class Failpoint(msgspec.Struct, frozen=True):
    step: str
    action: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.step}={self.action}@{self.nth}"


def parse(text: str) -> Failpoint:
    """`step=action@nth`. Raises ValueError."""
    step, _, rest = text.partition("=")
    action, _, nth = rest.partition("@")
    if step not in STEPS or action not in ACTIONS:
        raise ValueError(f"no failpoint: {text}")
    return Failpoint(step, action, int(nth or 1))


class Faults:
    """The one failpoint of this process; none when `point` is None. Counts the passings of its step."""

    def __init__(self, point: Failpoint | None = None, record: str = "", release: str = "") -> None:
        self._point, self._record, self._release = point, record, release
        self._passed: Counter[str] = Counter()

    @classmethod
    def of_environment(cls) -> Faults:
        text = os.environ.get("FAILPOINT", "")
        return cls(parse(text) if text else None, os.environ.get("FAULT_RECORD", ""), os.environ.get("FAULT_RELEASE", ""))

    def pass_(self, step: str) -> str | None:
        """The action that is due at this passing of the step, or None."""
        self._passed[step] += 1
        point = self._point
        return point.action if point is not None and point.step == step and point.nth == self._passed[step] else None

    def reach(self, step: str, outage: Exception, struck: str = "") -> None:
        """Break here if it is the moment. `outage` is what the port raises when the world behind it is away."""
        action = self.pass_(step)
        if action is not None:
            self.act(action, struck)
            if action == "raise":
                raise outage

    def act(self, action: str, struck: str = "") -> None:
        """Write it down, then do it; `raise` is left to the caller, who knows the port."""
        self._write(f"{self._point} {time.time():.6f} {struck}\n")
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stall":
            while not Path(self._release).exists():
                time.sleep(0.02)
            self._write(f"released {time.time():.6f}\n")
        elif action == "bug":
            raise RuntimeError(f"a bug at {self._point}")

    def _write(self, line: str) -> None:
        record = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(record, line.encode())
        os.close(record)
