"""`worker`, `sink`, `embedded`, `config`, `version`: the processes and what they are told."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sendengine.commands import common, variables
from sendengine.commands.common import Json

if TYPE_CHECKING:
    from sendengine.config import Config
    from sendengine.errors import RefusedInput
    from sendengine.keyring import KeyRecord

T = TypeVar("T")

config_app = common.group("The configuration in force.")
embedded_app = common.group("The embedded server of the state directory.")


def worker(
    context: typer.Context,
    processes: Annotated[int, typer.Option("-p", "--processes", min=1, help="Processes.")] = 1,
    sessions: Annotated[int | None, typer.Option("-c", "--sessions", min=1, help="SMTP sessions per process and relay.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve /metrics, /healthz and /readyz there.")] = None,
    shutdown_timeout: Annotated[float | None, typer.Option(help="Seconds until a warm stop turns cold.")] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Leave when nothing is due now or in retry.")] = False,
    require_durable: Annotated[
        bool, typer.Option("--require-durable", help="Refuse a Redis that may lose what it acknowledged: exit 2.")
    ] = False,
    json: Json = False,
) -> None:
    """Send, until TERM or INT."""
    from sendengine.supervisor import WorkerOptions, supervise

    code = supervise(
        WorkerOptions(
            processes=processes, sessions=sessions, metrics_port=metrics_port, shutdown_timeout=shutdown_timeout, burst=burst,
            require_durable=require_durable,
        ),
        variables.unknown(context.find_root().command, os.environ),
    )  # fmt: skip
    if json:
        common.emit({"exit": code})
    raise typer.Exit(code)


def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8025,
    json: Json = False,
) -> None:
    """Serve the HTTP API, until TERM or INT. Keys are made by `key create`; /openapi.json says what can be asked."""
    import sys

    from sendengine.api.server import ApiOptions, run
    from sendengine.launch import EXIT_AGAIN

    def told(address: str) -> None:
        common.emit({"address": address}) if json else print(address)
        sys.stdout.flush()

    code = run(ApiOptions(host, port), told)
    if code == EXIT_AGAIN:
        os.execv(sys.executable, sys.orig_argv)
    raise typer.Exit(code)


def sink(
    context: typer.Context,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 2525,
    ledger: Annotated[str | None, typer.Option(metavar="FILE", help="One NDJSON line per message.")] = None,
    reject: Annotated[
        list[str] | None, typer.Option(metavar="STAGE=CODE", help="This answer; rcpt=451%0.1@example.net: to a tenth of those there.")
    ] = None,
    delay: Annotated[list[str] | None, typer.Option(metavar="STAGE=SECONDS", help="The answer comes so much later.")] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="The connection is closed instead.")] = None,
    rate: Annotated[str | None, typer.Option(metavar="N/s", help="451 above it.")] = None,
    transactions: Annotated[str | None, typer.Option(metavar="FILE", help="Every MAIL, the stage it reached and the reply.")] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Each message as it came, in a file named by its line in the ledger; only the disk bounds it."),
    ] = None,
    chunking: Annotated[bool, typer.Option("--chunking/--no-chunking")] = True,
    pipelining: Annotated[bool, typer.Option("--pipelining/--no-pipelining")] = True,
    cert: Annotated[str | None, typer.Option(metavar="FILE", help="Offers STARTTLS, with --key.")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE")] = None,
    user: Annotated[str, typer.Option(help="Demands AUTH.")] = "",
    password: Annotated[str, typer.Option()] = "",
    json: Json = False,
) -> None:
    """An SMTP server for trials: takes everything, misbehaves on request. Prints its address and, at the end, its counts: `refused` are
    transactions that ended with a refusal, at MAIL, RCPT, DATA or later.

    STAGE is one of connect ehlo starttls auth mail rcpt data body dot quit. CHUNKING (RFC 3030) has no DATA: with a rule at `data` it is
    not offered.
    """
    from sendengine.trial.sink import SinkOptions, run

    for name, near in variables.unknown(context.find_root().command, os.environ).items():
        common.note(f"warning: nothing reads the variable {name}" + (f"; nearest is {near!r}" if near else ""))
    run(
        SinkOptions(
            host=host, port=port, ledger=ledger, reject=tuple(reject or ()), delay=tuple(delay or ()), drop=tuple(drop or ()), rate=rate,
            transactions=transactions, keep=keep, chunking=chunking, pipelining=pipelining, cert=cert, key=key, user=user,
            password=password,
        )
    )  # fmt: skip


def smsc(
    context: typer.Context,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 2775,
    ledger: Annotated[str | None, typer.Option(metavar="FILE", help="One NDJSON line per submit_sm.")] = None,
    reject: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="This command_status; 0x0b%0.1@+4670: to a tenth of those there.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="CHANCE", help="Accepts, and never answers: 0.01, or 1@+4670.")] = None,
    hang_up: Annotated[list[str] | None, typer.Option(metavar="CHANCE", help="Accepts, and closes the connection.")] = None,
    delay: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Each answer comes so much later.")] = 0.0,
    rate: Annotated[str | None, typer.Option(metavar="N/s", help="ESME_RTHROTTLED above it.")] = None,
    receipts: Annotated[str, typer.Option(metavar="STATE", help="The state that its receipts tell; '': it sends none.")] = "DELIVRD",
    receipt_delay: Annotated[float, typer.Option(min=0.0, metavar="SECONDS")] = 0.1,
    password: Annotated[str, typer.Option(help="Demands it of whoever binds.")] = "",
    json: Json = False,
) -> None:
    """An SMS centre for trials (SMPP 3.4): takes everything, misbehaves on request. Prints its address and, at the end, its counts."""
    from sendengine.trial.smsc import SmscOptions, run

    for name, near in variables.unknown(context.find_root().command, os.environ).items():
        common.note(f"warning: nothing reads the variable {name}" + (f"; nearest is {near!r}" if near else ""))
    run(
        SmscOptions(
            host=host, port=port, ledger=ledger, reject=tuple(reject or ()), drop=tuple(drop or ()), hang_up=tuple(hang_up or ()),
            delay=delay, rate=rate, receipts=receipts, receipt_delay=receipt_delay, password=password,
        )
    )  # fmt: skip


@config_app.command("check")
def config_check(context: typer.Context, json: Json = False) -> None:
    """Read it, its tables (tiers, replies, holds, prices, providers), its keys and the names of variables; exit 2 with all that is off.

    Of each key in `dkim_keys` the record is printed that must stand in DNS; of a Redis that can be reached, how many keys it holds.
    """
    from sendengine import config
    from sendengine.errors import ConfigError
    from sendengine.policy import prices
    from sendengine.policy.retry import parse
    from sendengine.wiring import default_relay, key_survey, reply_rules

    unknown = variables.unknown(context.find_root().command, os.environ)
    faults: list[RefusedInput] = [
        ConfigError(f"unknown variable {name}" + (f"; nearest is {near!r}" if near else "")) for name, near in unknown.items()
    ]
    loaded, wrong = config.survey()
    signed, no_keys = key_survey(loaded)
    faults += [*wrong, *no_keys]
    found = _read(faults, lambda: config.tiers(loaded.tiers_file))
    _read(faults, lambda: config.reasons(loaded.holds_file))
    _read(faults, lambda: prices.in_force(config.price_tables(loaded.prices_file), datetime.now(UTC).date()))
    _read(faults, lambda: config.provider(loaded.providers_file, loaded.sms_provider))
    _read(faults, lambda: config.offer(loaded))
    _read(faults, lambda: config.billing_secrets(loaded))
    _read(faults, lambda: parse(loaded.retry))
    _read(faults, lambda: default_relay(loaded))
    _read(faults, lambda: reply_rules(loaded))
    stored = None if faults else _read(faults, lambda: _keys_in_redis(loaded))
    if json:
        said = [str(fault) for fault in faults]
        common.emit({"ok": not faults, "errors": said, "tiers": list(found or ()), "dkim": signed, "dkim_in_redis": stored})
    else:
        _show_check(faults, signed, stored)
    raise typer.Exit(2 if faults else 0)


def _read(faults: list[RefusedInput], read: Callable[[], T]) -> T | None:
    from sendengine.errors import RefusedInput

    try:
        return read()
    except RefusedInput as fault:
        faults.append(fault)
        return None


def _keys_in_redis(loaded: Config) -> int | None:
    """None where it cannot be reached; an embedded server is not started for it. Raises ConfigError for a URL that is none."""
    from sendengine.errors import Unavailable
    from sendengine.launch import embedded_dir
    from sendengine.queue.embedded import status

    state_dir = embedded_dir(loaded)
    if state_dir is not None and status(state_dir) is None:
        return None
    try:
        return len(common.call(lambda client: client.desk.signing_keys()))
    except Unavailable:
        return None


def _show_check(faults: list[RefusedInput], signed: list[KeyRecord], stored: int | None) -> None:
    for fault in faults:
        common.note(common.error_said(fault))
    if not faults:
        print("the configuration is good")
        held = "Redis is not reached: what keys it holds is not known" if stored is None else f"Redis holds {stored:,} keys that sign"
        print(held + (", see sendengine dkim list" if stored else ""))
    for each in signed:
        print(each.record)
        if each.is_short:
            common.note(f"warning: {each.file}: an RSA key of {each.bits} bits is short; make one of 2048")
        if each.is_exposed:
            common.note(f"warning: {each.file} is open to others than its owner: chmod 600 {each.file}")


@config_app.command("show")
def config_show(json: Json = False) -> None:
    """Every key with the value in force."""
    import msgspec
    import orjson

    from sendengine import config

    values = msgspec.to_builtins(config.load())
    values["redis_url"] = _without_password(values["redis_url"])
    if json:
        common.emit(values)
        return
    flat = [(name, value) for name, value in values.items() if not isinstance(value, dict)]
    flat += [(f"{table}.{name}", value) for table, keys in values.items() if isinstance(keys, dict) for name, value in keys.items()]
    for name, value in flat:
        print(f"{name} = {orjson.dumps(value).decode()}")


def version(json: Json = False) -> None:
    """The release."""
    import platform

    from sendengine import __version__

    common.emit({"version": __version__, "python": platform.python_version()}) if json else print(__version__)


@embedded_app.command("status")
def embedded_status(json: Json = False) -> None:
    """What it says of itself; exit 1 when none runs."""
    from sendengine.queue.embedded import status

    _note_named_server()
    found = status(_state_dir())
    if json:
        common.emit({"running": False} if found is None else {"running": True, **_fields(found)})
    elif found is None:
        print("no embedded server runs")
    else:
        facts = _fields(found).items()  # as text: what is pasted elsewhere has no commas
        common.show_facts("embedded server", [(name, value if isinstance(value, bool) else str(value)) for name, value in facts])
    raise typer.Exit(0 if found else 1)


@embedded_app.command("stop")
def embedded_stop(json: Json = False) -> None:
    """End it; nothing acknowledged is lost. Workers do not start it again: they wait until a command does."""
    from sendengine.queue.embedded import status, stop

    _note_named_server()
    found = status(_state_dir())
    stopped = stop(_state_dir())
    if stopped and found is not None and found.clients:
        common.note(f"warning: {found.clients} connected when it was stopped: workers among them wait until any command starts it again")
    common.emit({"stopped": stopped}) if json else print("stopped" if stopped else "no embedded server ran")


def _note_named_server() -> None:
    """These verbs are of the state directory, whatever other commands use."""
    from sendengine import config
    from sendengine.queue.embedded import named_url

    if url := named_url(os.environ, config.load().redis_url):
        common.note(f"note: this is the embedded server of {_state_dir()}; the one in use is {_without_password(url)}")


def _state_dir() -> Path:
    from sendengine import config
    from sendengine.queue.embedded import default_state_dir

    own = config.load().state_dir
    return Path(own) if own else default_state_dir(os.environ)


def _fields(found: object) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(found)
    return fields


def _without_password(url: str) -> str:
    import re

    return re.sub(r"(?<=:)[^:@/]+(?=@)|(?<=password=)[^&]+", "***", url)
