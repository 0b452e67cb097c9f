"""The configuration: file, environment and defaults agree, and what is wrong is named with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sendengine import config
from sendengine.config import Config
from sendengine.errors import ConfigError
from sendengine.types import TlsPolicy


def written(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def flat(table: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        found |= flat(value, (*above, key)) if isinstance(value, dict) else {(*above, key): value}
    return found


def test_shipped_file_states_every_default() -> None:
    shipped = tomllib.loads(config.data_file("sendengine.toml").read_text(encoding="utf-8"))
    defaults = flat(msgspec.to_builtins(Config()))
    assert flat(shipped) == defaults
    assert [*flat(shipped)] == [*defaults]
    assert {key: type(value) for key, value in flat(shipped).items()} == {k: type(v) for k, v in defaults.items()}


def test_shipped_file_comments_every_table_and_every_top_level_key() -> None:
    lines = config.data_file("sendengine.toml").read_text(encoding="utf-8").splitlines()
    tables = [number for number, line in enumerate(lines) if line.startswith("[")]
    starts = [number for number in range(tables[0]) if "=" in lines[number] and not lines[number].startswith("#")]
    bare = [lines[n] for n in starts + tables if not lines[n - 1].startswith("#") and n - 1 not in starts]
    assert bare == []


def test_without_file_and_environment_the_defaults_hold() -> None:
    assert config.load(None, {}) == Config()


def test_file_named_by_the_environment_is_read_and_an_explicit_one_goes_before(tmp_path: Path) -> None:
    path = written(tmp_path, "sessions = 3")
    other = tmp_path / "other.toml"
    other.write_text("sessions = 4")
    assert config.load(None, {"SENDENGINE_CONFIG": path}).sessions == 3
    assert config.load(str(other), {"SENDENGINE_CONFIG": path}).sessions == 4


def test_environment_goes_before_the_file_in_every_table(tmp_path: Path) -> None:
    path = written(tmp_path, "sessions = 3\nrelay = 'smtp://a'\n[engine]\nlead_ms = 4\ntick_ms = 10")
    environ = {
        "SENDENGINE_SESSIONS": "7",
        "SENDENGINE_RELAY_TLS": "verify",
        "SENDENGINE_ENGINE_TICK_MS": "12.5",
        "SENDENGINE_TIMEOUTS_QUIT_S": "1",
    }
    found = config.load(path, environ)
    assert (found.sessions, found.relay, found.relay_tls) == (7, "smtp://a", TlsPolicy.VERIFY)
    assert (found.engine.tick_ms, found.engine.lead_ms, found.timeouts.quit_s) == (12.5, 4.0, 1.0)


def test_every_key_has_a_variable_of_its_own() -> None:
    keys = ["_".join(path) for path, _ in config.settings(Config)]
    assert len(set(keys)) == len(keys) == len(flat(msgspec.to_builtins(Config())))


def test_bounds_are_checked_over_file_and_environment_together() -> None:
    environ = {"SENDENGINE_ENGINE_HORIZON_MIN_MS": "6800", "SENDENGINE_ENGINE_HORIZON_MAX_MS": "7000"}
    assert config.load(None, environ).engine.horizon_min_ms == 6800
    with pytest.raises(ConfigError, match="horizon_min_ms is above horizon_max_ms"):
        config.load(None, {"SENDENGINE_ENGINE_HORIZON_MIN_MS": "6800"})


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("\nsesions = 3", ":2: ", "unknown key 'sesions'; nearest is 'sessions'"),
        ("[timeouts]\nquit_s = 3\n[engine]\n#\ntick = 3", ":5: ", "unknown key 'engine.tick'; nearest is 'tick_ms'"),
        ("[motor]\nx = 1", ":1: ", "unknown key 'motor'"),
        ("engine.tick_ms = 'x'", ":1: ", "engine.tick_ms: Expected `float`, got `str`"),
        ("sessions = 5\n[timeouts]\nconnect_s = 30\nrcpt_s = -1", ":4: ", "timeouts.rcpt_s: Expected `float` > 0"),
        ("[timeouts]\ndot_s = 30", ":2: ", "timeouts.dot_s: Expected `float` >= 600"),
        ("engine = 3", ":1: ", "engine: Expected `object`, got `int`"),
        ("relay_tls = 'maybe'", ":1: ", "Invalid enum value 'maybe'"),
        ("[engine]\nhorizon_min_ms = 9000", ":1: ", "horizon_min_ms is above horizon_max_ms"),
        ("sessions = 1\nrelay = \n", ": ", "line 2"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, {})
    assert str(caught.value).startswith(path + place)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SENDENGINE_SESSIONS", "many"), ("SENDENGINE_CONNECT_RATE", "0"), ("SENDENGINE_LOG_FORMAT", "x")],
)
def test_what_is_wrong_in_the_environment_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}={value}: "):
        config.load(None, {name: value})


def test_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        config.load(str(tmp_path / "none.toml"), {})
    (tmp_path / "own.toml").write_bytes(b"relay = '\xff'")
    with pytest.raises(ConfigError, match=r"own\.toml: .*decode"):
        config.load(str(tmp_path / "own.toml"), {})


def test_shipped_tiers_are_the_ones_sold() -> None:
    assert {tier.name: tier.per_hour for tier in config.tiers().values()} == {
        "2300": 2_300.0,
        "5k": 5_000.0,
        "15k": 15_000.0,
        "30k": 30_000.0,
        "60k": 60_000.0,
        "100k": 100_000.0,
        "200k": 200_000.0,
        "1m": 1_000_000.0,
        "unmetered": None,
    }


def test_operators_tiers_replace_the_shipped_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "[Gold]\nper_hour = 12\ntitle = 'Gold'\nprice = '9 EUR a month'")
    (tier,) = config.tiers(path).values()
    assert (tier.name, tier.per_hour, tier.title, tier.price) == ("gold", 12.0, "Gold", "9 EUR a month")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\ntitle = 'x'", ":1: a: Object missing required field `per_hour`"),
        ("[a]\nper_hour = 1\ntitle = 'x'\npric = 'y'", ":4: unknown key 'a.pric'; nearest is 'price'"),
        ("[a]\nper_hour = 0\ntitle = 'x'", ":2: a.per_hour: "),
        ("a = 3", ":1: a: Expected `object`, got `int`"),
    ],
)
def test_what_is_wrong_in_a_tier_table_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.tiers(path)
    assert message in str(caught.value)


def test_all_mistakes_are_found_at_once_and_the_rest_is_read(tmp_path: Path) -> None:
    tables = "[timeouts]\nrcpt_s = -1\nmail_s = 9\n[engine]\ntick = 1\nlead_ms = 'x'"
    path = written(tmp_path, f"sesions = 3\nretry = 5\nhostname = 'a b'\n{tables}")
    found, faults = config.survey(path, {"SENDENGINE_CONNECT_RATE": "x", "SENDENGINE_RETENTION_DAYS": "1e99", "SENDENGINE_SESSIONS": "7"})
    assert [str(fault).partition(": ")[::2] for fault in faults] == [
        (f"{path}:1", "unknown key 'sesions'; nearest is 'sessions'"),
        (f"{path}:2", "retry: Expected `str`, got `int`"),
        (f"{path}:5", "timeouts.rcpt_s: Expected `float` > 0.0"),
        (f"{path}:8", "unknown key 'engine.tick'; nearest is 'tick_ms'"),
        (f"{path}:9", "engine.lead_ms: Expected `float`, got `str`"),
        ("SENDENGINE_CONNECT_RATE=x", "Expected `float`, got `str`"),
        (f"{path}:3", "hostname 'a b' cannot be said at EHLO: it is a domain or an address literal"),
        ("SENDENGINE_RETENTION_DAYS", "retention_days is no number up to 1e+09"),
    ]
    assert (found.sessions, found.timeouts.mail_s, found.timeouts.rcpt_s, found.hostname) == (7, 9.0, 300.0, "")
