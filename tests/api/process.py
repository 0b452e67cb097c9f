"""`sendengine api` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]


class Process(msgspec.Struct):
    popen: subprocess.Popen[str]
    url: str


@contextmanager
def api_process(redis_url: str, **environ: str) -> Iterator[Process]:
    """Ended by TERM at the end, if it still runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SENDENGINE_")}
    popen = subprocess.Popen(
        [sys.executable, "-m", "workers.api", "--port", "0"], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=own | {"SENDENGINE_REDIS_URL": redis_url, "SENDENGINE_LOG_FORMAT": "json"} | environ,
    )  # fmt: skip
    try:
        assert popen.stderr is not None
        said = ""
        for line in popen.stderr:
            said += line
            if found := re.search(r'"address":"(http://[^"]+)"', line):
                break
        else:
            raise AssertionError(said)
        threading.Thread(target=popen.stderr.read, daemon=True).start()  # a full pipe would hold it up
        yield Process(popen, found[1])
    finally:
        popen.terminate()
        popen.wait(30)
