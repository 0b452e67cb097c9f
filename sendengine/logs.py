"""Where log lines go: standard error, one line an event, as the configuration says (console or json).

Nothing here says what is logged. Standard output belongs to a command's answers.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import orjson
import structlog


def log_to_stderr(style: Literal["console", "json"]) -> None:
    """For this process, from now on. A field's order is the order in which the event's function gives it."""
    head: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    level = structlog.make_filtering_bound_logger(logging.INFO)
    if style == "json":
        structlog.configure(
            processors=[*head, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
            wrapper_class=level,
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        )
    else:
        structlog.configure(
            processors=[*head, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)],
            wrapper_class=level,
            logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        )
