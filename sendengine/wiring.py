"""From the configuration to parts that know nothing of it. The only place where adapters and engine meet; it holds no rule."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from sendengine.channel.smtp import SmtpSettings, StageTimeouts
from sendengine.channel.ways import Ways
from sendengine.compiled import form
from sendengine.config import Config, data_file, offer, providers, reasons
from sendengine.engine.settings import EngineSettings
from sendengine.engine.worker import Worker
from sendengine.errors import RefusedInput
from sendengine.keyring import KeyRecord, Keyring, described, read_directory, survey_directory
from sendengine.lanes import SMS
from sendengine.policy.health import BOUNCES, COMPLAINTS, Thresholds
from sendengine.policy.replies import ReplyRules, parse_rules
from sendengine.policy.suppression import Limits
from sendengine.ports import Meter
from sendengine.queue.redis import RedisQueue
from sendengine.relays import as_spoken, password_from, relay_from_url, text_of
from sendengine.types import Provider, Relay, Way

WIRE_SHARE = 0.8  # of a warm stop's time is for what is on the wire; the rest is for settling it


class LoopClock:
    """The running loop's timers by time.monotonic (port Clock), whatever the loop calls its own time."""

    monotonic = staticmethod(time.monotonic)  # the function itself: it is asked several times a message

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)


def build_worker(config: Config, url: str, meter: Meter, worker_id: str) -> Worker:
    """A worker on a Redis `url`, to be made and run inside one loop. Raises ConfigError, RefusedInput: a table of holds that leaves
    somebody without a way out, or of editions that is off, stops it here, though only schedulers read it."""
    offer(config)
    return Worker(
        queue=build_queue(config, url),
        channel=Ways(smtp_settings(config), LoopClock()),
        meter=meter,
        rules=reply_rules(config),
        settings=engine_settings(config),
        worker_id=worker_id,
        relay_of=partial(way_of, default=default_relay(config), providers=providers(config.providers_file), usual=config.sms_provider),
        now=time.monotonic,
        keyring=keyring(config),
        facts={"host": socket.gethostname(), "pid": os.getpid(), "started_at": time.time(), "form": form()},
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
        limits=Limits(soft=config.soft_bounces, full=config.full_bounces),
        health=thresholds(config),
    )


def thresholds(config: Config) -> Thresholds:
    """With the reasons that an account is held for by itself. Raises ConfigError where the table of reasons is off."""
    own, table = config.account, reasons(config.holds_file)
    held_for = (table[COMPLAINTS], table[BOUNCES])
    return Thresholds(own.hold_at_complaints, own.hold_at_bounces, own.hold_window_h, own.hold_least, held_for)


def smtp_settings(config: Config) -> SmtpSettings:
    timeouts = msgspec.structs.asdict(config.timeouts)
    return SmtpSettings(
        hostname=config.hostname,
        sessions=config.sessions,
        connect_rate=config.connect_rate,
        chunk_messages=config.chunk_messages,
        timeouts=StageTimeouts(**{name.removesuffix("_s"): seconds for name, seconds in timeouts.items()}),
    )


def reply_rules(config: Config) -> ReplyRules:
    path = Path(config.replies_file or data_file("replies.toml"))
    return parse_rules(text_of(path), str(path))


def keyring(config: Config) -> Keyring:
    """With the keys in files, each read once. Raises RefusedInput for what is no key."""
    return Keyring(read_directory(Path(config.dkim_keys)) if config.dkim_keys else ())


def key_survey(config: Config) -> tuple[list[KeyRecord], list[RefusedInput]]:
    """The keys in files, and what is wrong with them."""
    entries, faults = survey_directory(Path(config.dkim_keys)) if config.dkim_keys else ([], [])
    return [described(entry) for entry in entries], faults


# relays


def default_relay(config: Config) -> Relay:
    """Where accounts without a relay of their own send."""
    path = config.relay_password_file
    return as_spoken(relay_from_url(config.relay, password_from(Path(path)) if path else "", config.relay_tls))


def way_of(fields: Mapping[str, str], default: Relay, providers: Mapping[str, Provider], usual: str) -> Way:
    """Where a lane sends: its relay, or the provider of its SMS. Raises RefusedInput for one that nobody knows."""
    if fields.get("channel") != SMS:
        return relay_of(fields, default)
    name = fields.get("provider") or usual
    if name not in providers:
        raise RefusedInput(f"its provider {name!r} is not in the table of providers", "give the account another one")
    return providers[name]


def relay_of(fields: Mapping[str, str], default: Relay) -> Relay:
    """The relay of an account, of its fields. Raises RefusedInput for one that nobody can read."""
    own = fields.get("relay")
    try:
        return as_spoken(Relay.decode(own)) if own else default
    except msgspec.MsgspecError as error:
        raise RefusedInput(f"its relay cannot be read: {error}", "give the account another one") from None
