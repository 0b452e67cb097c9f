"""One sending process in the foreground, without a supervisor: for containers, and for a look at one worker alone.

Run from a checkout as `python -m workers.send`. TERM and INT stop it warm; HUP too, and then it starts anew in the same process, with the
configuration of now.
"""

from __future__ import annotations

import argparse
import os
import sys

from sendengine.errors import SendEngineError
from sendengine.launch import EXIT_AGAIN, WorkerOptions
from sendengine.process import run


def options(args: list[str]) -> WorkerOptions:
    parser = argparse.ArgumentParser(prog="workers.send", description=__doc__)
    parser.add_argument("-c", "--sessions", type=int, help="SMTP sessions per relay")
    parser.add_argument("--shutdown-timeout", type=float, metavar="S", help="after so long a warm stop turns cold")
    parser.add_argument("--burst", action="store_true", help="leave when nothing is due now or in retry")
    parser.add_argument("--require-durable", action="store_true", help="refuse a Redis that may lose what it acknowledged")
    parser.add_argument("--config", default="", metavar="FILE", help="the configuration (else SENDENGINE_CONFIG)")
    found = parser.parse_args(args)
    return WorkerOptions(
        sessions=found.sessions, shutdown_timeout=found.shutdown_timeout, burst=found.burst, config_path=found.config,
        require_durable=found.require_durable,
    )  # fmt: skip


if __name__ == "__main__":
    try:
        status = run(options(sys.argv[1:]))
        if status == EXIT_AGAIN:
            os.execv(sys.executable, sys.orig_argv)
        sys.exit(status)
    except SendEngineError as error:
        print(f"{error}\n{error.remedy}".rstrip(), file=sys.stderr)
        sys.exit(error.exit_code)
