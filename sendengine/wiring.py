"""From the configuration to parts that know nothing of it. The only place where adapters and engine meet; it holds no rule."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from sendengine.address import is_host
from sendengine.channel.smtp import SmtpChannel, SmtpSettings, StageTimeouts
from sendengine.config import Config, data_file
from sendengine.engine.settings import EngineSettings
from sendengine.engine.worker import Worker
from sendengine.errors import ConfigError, RefusedInput
from sendengine.policy.replies import ReplyRules, parse_rules
from sendengine.ports import Meter
from sendengine.queue.redis import RedisQueue
from sendengine.types import Relay, TlsPolicy

SMTP_PORT = 25
SMTPS_PORT = 465  # RFC 8314 3.3
WIRE_SHARE = 0.8  # of a warm stop's time is for what is on the wire; the rest is for settling it

class LoopClock:
    """The running loop's timers by time.monotonic (port Clock), whatever the loop calls its own time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)


def build_worker(config: Config, url: str, meter: Meter, worker_id: str) -> Worker:
    """A worker on a Redis `url`, to be made and run inside one loop."""
    return Worker(
        queue=build_queue(config, url),
        channel=SmtpChannel(smtp_settings(config), LoopClock()),
        meter=meter,
        rules=reply_rules(config),
        settings=engine_settings(config),
        worker_id=worker_id,
        relay_of=partial(relay_of, default=default_relay(config)),
        now=time.monotonic,
        facts={"worker": worker_id, "host": socket.gethostname(), "pid": os.getpid(), "started_at": time.time()},
    )


def build_queue(config: Config, url: str) -> RedisQueue:
    return RedisQueue(url, config.engine.cut_delay_ms * 1000, config.wait_ms)


def engine_settings(config: Config) -> EngineSettings:
    own = config.engine
    return EngineSettings(
        tick=own.tick_ms / 1000,
        lead=own.lead_ms / 1000,
        journal_intents=own.journal_intents,
        max_doubtful=own.max_doubtful,
        append_fresh=own.append_fresh_ms / 1000,
        settle_after=own.settle_s,
        horizon_permits=own.horizon_permits,
        horizon_min=own.horizon_min_ms / 1000,
        horizon_max=own.horizon_max_ms / 1000,
        lease=own.lease_s,
        dead_after=own.dead_after_s,
        spread_above=own.spread_above,
        shutdown=own.shutdown_timeout_s * WIRE_SHARE,
        waits_for_replica=config.wait_ms > 0,
        require_durable=config.require_durable,
    )


def smtp_settings(config: Config) -> SmtpSettings:
    timeouts = msgspec.structs.asdict(config.timeouts)
    return SmtpSettings(
        hostname=config.hostname,
        sessions=config.sessions,
        connect_rate=config.connect_rate,
        timeouts=StageTimeouts(**{name.removesuffix("_s"): seconds for name, seconds in timeouts.items()}),
    )


def reply_rules(config: Config) -> ReplyRules:
    path = Path(config.replies_file or data_file("replies.toml"))
    return parse_rules(_text(path), str(path))


# relays


def default_relay(config: Config) -> Relay:
    """Where accounts without a relay of their own send."""
    path = config.relay_password_file
    return relay_from_url(config.relay, password_from(Path(path)) if path else "", config.relay_tls)


def password_from(path: Path) -> str:
    """The first line of a file."""
    return _text(path).partition("\n")[0].rstrip("\r")


def relay_from_url(url: str, password: str = "", tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC) -> Relay:
    """`smtp://[user@]host[:port]`, or `smtps://` for TLS from the start (port 465). Raises RefusedInput."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedInput(f"relay {url!r}: {error}") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedInput(f"relay {url!r}: blanks, control characters or letters beyond ASCII", "write the A-label of the host")
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise RefusedInput(f"relay {url!r} is not smtp://[user@]host[:port]")
    if parts.password is not None:
        raise RefusedInput("a relay's URL is shown to people: no password belongs there", "put it into a file and name the file")
    user = unquote(parts.username or "")
    if not is_host(parts.hostname) or not (user + password).isprintable():
        raise RefusedInput(f"relay {url!r}: its host, user or password holds what cannot be said")
    if bool(user) != bool(password):
        missing = "password" if user else "user"
        raise RefusedInput(f"relay {url!r} has no {missing}", "AUTH needs both: user@ in the URL, the password in a file")
    if parts.scheme == "smtps":
        if port not in (None, SMTPS_PORT):
            raise RefusedInput(f"relay {url!r}: TLS from the start is spoken on port {SMTPS_PORT} only", "use smtp:// and STARTTLS")
        port = SMTPS_PORT
        tls = tls if tls is TlsPolicy.VERIFY else TlsPolicy.REQUIRED
    return Relay(parts.hostname, SMTP_PORT if port is None else port, user, password, tls)


def relay_of(fields: Mapping[str, str], default: Relay) -> Relay:
    """The relay of an account, of its fields. Raises RefusedInput for one that nobody can read."""
    own = fields.get("relay")
    try:
        return Relay.decode(own) if own else default
    except msgspec.MsgspecError as error:
        raise RefusedInput(f"its relay cannot be read: {error}", "sendengine account set-relay") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
