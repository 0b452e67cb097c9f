"""What a supervisor and its worker processes agree on: what they were told, and how a process says why it ended."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sendengine.config import Config, load
from sendengine.queue.embedded import default_state_dir, named_url, resolve_url

EXIT_COLD = 1
EXIT_REFUSED = 2
EXIT_AGAIN = 75 + 1000  # no status of a process: it left to be started anew, in place
EXIT_FENCED = 76  # a rescuer holds its journal: a new id, at once


class WorkerOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `sendengine worker` was told. None: as the configuration says."""

    processes: int = 1
    sessions: int | None = None  # per process and relay
    shutdown_timeout: float | None = None
    burst: bool = False  # leave when nothing is due now or in retry
    metrics_port: int | None = None  # None: none; 0: any free one
    metrics_host: str = "127.0.0.1"
    config_path: str = ""
    require_durable: bool = False


def configured(options: WorkerOptions) -> Config:
    """The configuration in force: what the command said wins. Raises ConfigError."""
    config = load(options.config_path or None)
    engine = config.engine
    if options.shutdown_timeout is not None:
        engine = msgspec.structs.replace(engine, shutdown_timeout_s=options.shutdown_timeout)
    demands = config.require_durable or options.require_durable
    return msgspec.structs.replace(config, engine=engine, sessions=options.sessions or config.sessions, require_durable=demands)


def server_url(config: Config) -> str:
    return resolve_url(os.environ, config.redis_url, Path(config.state_dir) if config.state_dir else None)


def embedded_dir(config: Config) -> Path | None:
    """The state directory whose embedded server is used; None when a server is named."""
    if named_url(os.environ, config.redis_url):
        return None
    return Path(config.state_dir) if config.state_dir else default_state_dir(os.environ)
