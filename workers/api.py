"""The HTTP API in the foreground: for containers. Run from a checkout as `python -m workers.api`. `sendengine api` is the same process."""

from __future__ import annotations

import argparse
import os
import sys

from sendengine.api.server import ApiOptions, run
from sendengine.errors import SendEngineError
from sendengine.launch import EXIT_AGAIN


def options(args: list[str]) -> ApiOptions:
    parser = argparse.ArgumentParser(prog="workers.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8025, help="0: any free one")
    parser.add_argument("--config", default="", metavar="FILE", help="the configuration (else SENDENGINE_CONFIG)")
    found = parser.parse_args(args)
    return ApiOptions(found.host, found.port, found.config)


if __name__ == "__main__":
    try:
        status = run(options(sys.argv[1:]))
        if status == EXIT_AGAIN:
            os.execv(sys.executable, sys.orig_argv)
        sys.exit(status)
    except SendEngineError as error:
        print(f"{error}\n{error.remedy}".rstrip(), file=sys.stderr)
        sys.exit(error.exit_code)
