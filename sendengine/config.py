"""The configuration: TOML and environment into one frozen value, or an error that names file, line and nearest key.

Every key is in config/sendengine.toml with its default and meaning; a test holds that file and these Structs together.
The order is: SENDENGINE_<KEY> in the environment, the file (an explicit path, else SENDENGINE_CONFIG), the defaults.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from sendengine.address import is_host_name
from sendengine.errors import ConfigError, RefusedInput
from sendengine.policy import prices
from sendengine.policy.billing import parse_secrets
from sendengine.policy.entitlements import Edition, Offer
from sendengine.policy.entitlements import lacking as lacking_of_editions
from sendengine.policy.holds import Reason, lacking
from sendengine.policy.prices import PriceTable
from sendengine.policy.term import PURGE_SOONEST_DAYS
from sendengine.policy.tiers import UNMETERED, Tier, nearest
from sendengine.types import Provider, TlsPolicy

Positive = Annotated[float, Meta(gt=0)]
Some = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(pattern=r"\S")]  # not empty
Path_ = tuple[str, ...]  # of keys, from the top of the file

_is_reason = re.compile(r"[a-z0-9][a-z0-9-]{0,63}").fullmatch
PREFIX = "SENDENGINE_"
LARGEST = 1e9  # of any number here, whatever its unit: beyond it times leave the calendar and counters their octets
T = TypeVar("T")


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds per stage (RFC 5321 section 4.5.3.2)."""

    connect_s: Positive = 30.0
    greeting_s: Positive = 300.0
    ehlo_s: Positive = 300.0
    starttls_s: Positive = 120.0
    auth_s: Positive = 120.0
    mail_s: Positive = 300.0
    rcpt_s: Positive = 300.0
    data_s: Positive = 120.0
    body_s: Positive = 180.0
    dot_s: Annotated[float, Meta(ge=600)] = 600.0
    quit_s: Positive = 5.0


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tick_ms: Positive = 20.0
    lead_ms: Positive = 6.0
    journal_intents: Some = 64
    max_doubtful: Some = 512
    settle_s: Positive = 5.0
    append_fresh_ms: Positive = 200.0
    dead_after_s: Positive = 10.0
    cut_delay_ms: Positive = 200.0
    horizon_permits: Some = 12
    horizon_min_ms: Positive = 1000.0
    horizon_max_ms: Positive = 6500.0
    lease_s: Positive = 2.0
    max_doubt: Count = 1
    spread_above: Positive = 1000.0
    shutdown_timeout_s: Positive = 30.0

    def __post_init__(self) -> None:
        if self.horizon_min_ms > self.horizon_max_ms:
            raise ValueError("horizon_min_ms is above horizon_max_ms")


class AccountConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    grace_days: Annotated[float, Meta(ge=0)] = 10.0
    purge_after_days: Annotated[float, Meta(ge=PURGE_SOONEST_DAYS)] = 10.0
    audit_days: Positive = 3650.0
    hold_at_complaints: Share = 0.0
    hold_at_bounces: Share = 0.0
    hold_window_h: Annotated[int, Meta(ge=1, le=744)] = 24
    hold_least: Some = 1000

    def __post_init__(self) -> None:
        if self.purge_after_days < self.grace_days:
            raise ValueError("purge_after_days is below grace_days: who renews in grace would find nothing")


class ApiConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the HTTP API, of one process."""

    max_body_mib: Some = 32
    max_depth: Some = 16
    max_head_kib: Some = 16
    max_inline: Some = 10_000
    requests_per_s: Positive = 50.0
    requests: Some = 500
    uploads: Some = 32
    streams: Some = 200
    idle_s: Positive = 60.0
    open_metrics: bool = False
    private_webhooks: bool = False


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    relay: str = "smtp://127.0.0.1:2525"
    relay_tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    relay_password_file: str = ""
    hostname: str = ""
    redis_url: str = ""
    durability: Literal["server", "replicated"] = "server"
    replica_wait_ms: Some = 500
    require_durable: bool = False
    state_dir: str = ""
    tiers_file: str = ""
    replies_file: str = ""
    holds_file: str = ""
    prices_file: str = ""
    providers_file: str = ""
    sms_provider: str = "trial"
    sms_rate: str = "36000"
    editions_file: str = ""
    billing_secrets_file: str = ""
    dkim_keys: str = ""
    sessions: Some = 20
    connect_rate: Positive = 20.0
    chunk_messages: Annotated[int, Meta(ge=1, le=100)] = 1
    retention_days: Positive = 7.0
    lifetime_h: Positive = 24.0
    retry: str = "1m, 5m*2, 15m*2, 1h*3, 4h*5"
    soft_bounces: Annotated[int, Meta(ge=0, le=255)] = 10
    full_bounces: Annotated[int, Meta(ge=0, le=255)] = 30
    workers_tell: bool = False
    log_format: Literal["console", "json"] = "console"
    account: AccountConfig = AccountConfig()
    timeouts: Timeouts = Timeouts()
    engine: EngineConfig = EngineConfig()
    api: ApiConfig = ApiConfig()

    def __post_init__(self) -> None:
        if self.hostname and not is_host_name(self.hostname):
            raise ValueError(f"hostname {self.hostname!r} cannot be said at EHLO: it is a domain or an address literal")
        for keys, value in _values(self):
            if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
                raise ValueError(f"{'.'.join(keys)} is no number up to {LARGEST:g}")
            if isinstance(value, int) and value > LARGEST:
                raise ValueError(f"{'.'.join(keys)} is no number up to {LARGEST:g}")

    @property
    def wait_ms(self) -> int:
        """How long what is to be acknowledged waits for a replica; 0: for none."""
        return self.replica_wait_ms if self.durability == "replicated" else 0


def _values(struct: msgspec.Struct, above: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            yield from _values(value, (*above, name))
        else:
            yield (*above, name), value


class _TierRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of tiers.toml. The rate must be stated: one left out by mistake would be no ceiling."""

    per_hour: Positive | Literal["unmetered"]
    title: str
    price: str = ""


class _EditionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of editions.toml."""

    title: Text
    tier: Text | Positive
    channels: list[str]
    seats: Count


class _ReasonRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of holds.toml. Whoever is held must learn how it ends and who ends it."""

    title: Text
    remedy: Text
    department: Text


def load(path: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in force. Raises ConfigError for a file that cannot be read and for what stands wrong in it."""
    found, faults = survey(path, environ)
    if faults:
        raise faults[0]
    return found


def survey(path: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[Config, list[ConfigError]]:
    """What is right in file and environment, the defaults in place of the rest; and all that is wrong."""
    environ = os.environ if environ is None else environ
    path = path or environ.get("SENDENGINE_CONFIG")
    faults: list[ConfigError] = []
    document: dict[str, Any] = {}
    origins: dict[str, list[str]] = {}  # of what stands under a key of the top
    if path:
        try:
            text, document = _document(path)
        except ConfigError as fault:
            faults.append(fault)
        else:
            faults += [ConfigError(f"{path}:{_line(text, keys)}: {said}") for keys, said in _weed(document, Config)]
            origins = {key: [f"{path}:{_line(text, (key,))}"] for key in document}
    for keys, type_ in settings(Config):
        name = PREFIX + "_".join(keys).upper()
        if name in environ:
            try:
                _override(document, keys, type_, name, environ[name])
                origins.setdefault(keys[0], []).append(name)
            except ConfigError as fault:
                faults.append(fault)
    faults += [ConfigError(f"{', '.join(origins[key])}: {said}") for key, said in _weed_by_bounds(document)]
    return msgspec.convert(document, Config), faults


def tiers(path: str = "") -> dict[str, Tier]:
    """The tiers by name, in the order of the file (empty: the shipped one)."""
    path = path or str(data_file("tiers.toml"))
    text, document = _document(path)
    table = {}
    for name, value in document.items():
        row = _convert(path, text, value, _TierRow, (name,))
        per_hour = None if row.per_hour == UNMETERED else float(row.per_hour)
        table[name.lower()] = Tier(name.lower(), per_hour, row.title, row.price)
    return table


def reasons(path: str = "") -> dict[str, Reason]:
    """Why an account may be held, by name (empty: the shipped table). Raises ConfigError where a known reason is not in it, or one has no
    remedy or no department."""
    path = path or str(data_file("holds.toml"))
    text, document = _document(path)
    table = {}
    for name, value in document.items():
        row = _convert(path, text, value, _ReasonRow, (name,))
        if not _is_reason(name.lower()):
            raise ConfigError(f"{path}:{_line(text, (name,))}: {name!r} is no name of a reason: letters, digits and dashes")
        table[name.lower()] = Reason(name.lower(), row.title, row.remedy, row.department)
    if lacks := lacking(table):
        raise ConfigError(f"{path}: the reason {lacks[0]!r} has no table, with its title, remedy and department")
    return table


ReceiptState = Literal["ENROUTE", "DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "ACCEPTD", "UNKNOWN", "REJECTD"]  # policy/receipts.py


class _ProviderRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["smpp", "http"]
    host: str = ""
    port: Annotated[int, Meta(ge=1, le=65535)] = 2775
    tls: bool = False
    system_id: str = ""
    system_type: str = ""
    password_file: str = ""
    binds: Annotated[int, Meta(ge=1, le=64)] = 1
    window: Annotated[int, Meta(ge=1, le=1000)] = 50
    rate: Annotated[float, Meta(ge=0)] = 0.0
    enquire_link_s: Positive = 30.0
    answer_s: Positive = 60.0
    url: str = ""
    method: Literal["GET", "POST", "PUT"] = "POST"
    headers: dict[str, str] = {}
    body: str = ""
    message_id: str = ""
    receipt_token_file: str = ""
    receipt_list: str = ""
    receipt_id: str = "id"
    receipt_state: str = "status"
    receipt_error: str = ""
    receipt_states: dict[str, ReceiptState] = {}
    refused: tuple[int, ...] = (400, 404, 422)
    throttled: tuple[int, ...] = (429, 503)


_is_provider = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch


def providers(path: str = "") -> dict[str, Provider]:
    """Who carries SMS, by name, in the order of the file (empty: the shipped one)."""
    path = path or str(data_file("providers.toml"))
    text, document = _document(path)
    return {name: _provider(path, name, _convert(path, text, value, _ProviderRow, (name,))) for name, value in document.items()}


def provider(path: str, name: str) -> Provider:
    """Raises ConfigError for one that the file lacks, with the nearest name."""
    found = providers(path)
    if name not in found:
        place = path or "the shipped providers.toml"
        raise ConfigError(f"no provider {name!r} in {place}{nearest(name, found)}", "the key providers_file names the table")
    return found[name]


def _provider(path: str, name: str, row: _ProviderRow) -> Provider:
    if not _is_provider(name):
        raise ConfigError(f"{path}: {name!r} is no name of a provider: up to 64 letters, digits, dots, dashes and underscores")
    missing = {"smpp": not row.host and "host", "http": not row.url and "url"}[row.kind]
    if missing:
        raise ConfigError(f"{path}: {name}: a provider by {row.kind} needs `{missing}`")
    values = {key: getattr(row, key) for key in Provider.__struct_fields__ if hasattr(row, key)}
    values["headers"], values["receipt_states"] = tuple(row.headers.items()), tuple(row.receipt_states.items())
    values["receipt_token"] = _secret(row.receipt_token_file) if row.receipt_token_file else ""
    password = _secret(row.password_file) if row.password_file else ""
    return Provider(name=name, password=password, **values)


def _secret(path: str) -> str:
    """The first line of a file."""
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


class _PriceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    since: date
    prices: dict[str, float]


def price_tables(path: str = "") -> list[PriceTable]:
    """The versions of the price table, in the order of the file (empty: the shipped one)."""
    path = path or str(data_file("prices.toml"))
    text, document = _document(path)
    rows = {name: _convert(path, text, value, _PriceRow, (name,)) for name, value in document.items()}
    return [prices.table(name, row.since, row.prices, path) for name, row in rows.items()]


def offer(found: Config) -> Offer:
    """What billing may sell here. Raises ConfigError, for an edition of a tier that there is not, for example."""
    sold = tiers(found.tiers_file)
    path = found.editions_file or str(data_file("editions.toml"))
    text, document = _document(path)
    editions = {}
    for name, value in document.items():
        row = _convert(path, text, value, _EditionRow, (name,))
        editions[name.lower()] = Edition(name.lower(), row.title, str(row.tier), tuple(row.channels), row.seats)
    if fault := lacking_of_editions(editions, sold):
        raise ConfigError(f"{path}: {fault}")
    return Offer(sold, editions, found.sms_rate, found.account.grace_days, found.account.purge_after_days)


def billing_secrets(found: Config) -> tuple[bytes, ...]:
    """Those that are shared with billing, none where no file is named. Raises ConfigError."""
    path = found.billing_secrets_file
    if not path:
        return ()
    try:
        return parse_secrets(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'no UTF-8'}") from None
    except RefusedInput as error:
        raise ConfigError(f"{path}: {error}", error.remedy) from None


def data_file(name: str) -> Path:
    """A file of config/: inside the package when it was installed from a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    shipped = package / "_config" / name
    return shipped if shipped.exists() else package.parent / "config" / name


def settings(struct: type[msgspec.Struct], above: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every key below a Struct, as its path and type; tables are walked into."""
    hints = get_type_hints(struct, include_extras=True)
    for name in struct.__struct_fields__:
        if _is_table(hints[name]):
            yield from settings(hints[name], (*above, name))
        else:
            yield (*above, name), hints[name]


def _override(document: dict[str, Any], keys: Path_, type_: Any, name: str, text: str) -> None:
    try:
        value = msgspec.to_builtins(msgspec.convert(text, type_, strict=False))
    except ValueError as error:  # msgspec's own, or a variable that is no UTF-8
        raise ConfigError(f"{name}={text}: {error}") from None
    for key in keys[:-1]:
        document = document.setdefault(key, {})
    document[keys[-1]] = value


def _document(path: str) -> tuple[str, dict[str, Any]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        return text, parsed_toml(text, path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def parsed_toml(text: str, path: str) -> dict[str, Any]:
    """Raises ConfigError; tomllib lets out more than its own: a number of 5,000 digits, a list within a list within a …"""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: too many values within each other") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _convert(path: str, text: str, value: Any, type_: type[T], above: Path_ = ()) -> T:
    for keys, said in _weed(value, type_, above) if isinstance(value, dict) else ():
        raise ConfigError(f"{path}:{_line(text, keys)}: {said}")
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}:{_line(text, above)}: {'.'.join(above)}: {error}") from None


def _weed(table: dict[str, Any], type_: Any, above: Path_ = ()) -> Iterator[tuple[Path_, str]]:
    """Takes out keys that no Struct has, and values that its key does not; each with what is wrong about it."""
    hints = get_type_hints(type_, include_extras=True)
    for key, value in list(table.items()):
        keys = (*above, key)
        if key not in hints:
            del table[key]
            yield keys, f"unknown key {'.'.join(keys)!r}{nearest(key, hints)}"
        elif _is_table(hints[key]) and isinstance(value, dict):
            yield from _weed(value, hints[key], keys)
        else:
            try:
                msgspec.convert(value, hints[key])
            except msgspec.ValidationError as error:
                del table[key]
                yield keys, f"{'.'.join(keys)}: {error}"


def _weed_by_bounds(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for what the Structs themselves refuse, file and environment together. They look at one key of the top at a time."""
    for key in list(document):
        try:
            msgspec.convert({key: document[key]}, Config)
        except msgspec.ValidationError as error:
            del document[key]
            yield key, str(error).partition(" - at `$")[0]


def _is_table(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _line(text: str, keys: Path_) -> int:
    """The line that sets a key, or that opens the nearest table around it (tomllib keeps no positions)."""
    best, depth, table = 1, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        setting = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if header:
            table = _names(header[1])
            found = table
        elif setting:
            found = table + _names(setting[1])
        else:
            continue
        if len(found) > depth and found == list(keys[: len(found)]):
            best, depth = number, len(found)
    return best


def _names(dotted: str) -> list[str]:
    return [name.strip(" \t\"'") for name in dotted.split(".")]
