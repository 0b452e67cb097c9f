"""The configuration becomes parts: no setting is lost on the way, and a relay's URL says what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from sendengine import relays, wiring
from sendengine.channel.smtp import StageTimeouts
from sendengine.config import Config, EngineConfig, Timeouts, data_file
from sendengine.errors import ConfigError, RefusedInput
from sendengine.sink.silent import SilentMeter
from sendengine.types import Relay, TlsPolicy

DEFAULT = Relay("127.0.0.1", 2525, tls=TlsPolicy.OPPORTUNISTIC)


@pytest.mark.parametrize(
    ("url", "password", "tls", "relay"),
    [
        ("smtp://mx.example.net", "", TlsPolicy.OPPORTUNISTIC, Relay("mx.example.net", tls=TlsPolicy.OPPORTUNISTIC)),
        ("smtp://u%40x@mx.example.net:587", "pw", TlsPolicy.VERIFY, Relay("mx.example.net", 587, "u@x", "pw", TlsPolicy.VERIFY)),
        ("smtp://[::1]:2525/", "", TlsPolicy.NONE, Relay("::1", 2525, tls=TlsPolicy.NONE)),
        ("smtps://mx.example.net", "", TlsPolicy.OPPORTUNISTIC, Relay("mx.example.net", 465, tls=TlsPolicy.OPPORTUNISTIC)),
        ("smtps://mx.example.net:465", "", TlsPolicy.VERIFY, Relay("mx.example.net", 465, tls=TlsPolicy.VERIFY)),
    ],
)
def test_url_names_a_relay(url: str, password: str, tls: TlsPolicy, relay: Relay) -> None:
    assert wiring.relay_from_url(url, password, tls) == relay


@pytest.mark.parametrize(
    ("url", "password", "words"),
    [
        ("mx.example.net:25", "", "is not smtp://"),
        ("smtp://", "", "is not smtp://"),
        ("smtp://mx.example.net/path", "", "is not smtp://"),
        ("smtp://mx.example.net:70000", "", "out of range"),
        ("smtp://user:secret@mx.example.net", "", "no password belongs there"),
        ("smtp://user@mx.example.net", "", "has no password"),
        ("smtp://mx.example.net", "pw", "has no user"),
        ("smtps://mx.example.net:587", "", "465 only"),
    ],
)
def test_url_that_names_no_relay_is_refused(url: str, password: str, words: str) -> None:
    with pytest.raises(RefusedInput, match=words) as refused:
        wiring.relay_from_url(url, password)
    assert "secret" not in str(refused.value)


def test_relay_survives_its_account_field() -> None:
    relay = Relay("mx.example.net", 587, "user", "pässword", TlsPolicy.VERIFY)
    assert wiring.relay_of({"relay": relay.encode()}, DEFAULT) == relay


@pytest.mark.parametrize("fields", [{}, {"relay": ""}])
def test_account_without_a_relay_uses_the_default(fields: dict[str, str]) -> None:
    assert wiring.relay_of(fields, DEFAULT) is DEFAULT


def test_default_relay_has_the_password_of_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass word\r\nsecond line\n")
    config = Config(relay="smtp://user@mx.example.net", relay_password_file=str(secret), relay_tls=TlsPolicy.REQUIRED)
    assert wiring.default_relay(config) == Relay("mx.example.net", 25, "user", "pass word", TlsPolicy.REQUIRED)


def test_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    config = Config(relay="smtp://user@mx.example.net", relay_password_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="none: No such file"):
        wiring.default_relay(config)


def test_engine_keys_arrive_in_seconds() -> None:
    own = EngineConfig(tick_ms=30, lead_ms=7, append_fresh_ms=150, horizon_min_ms=300, horizon_max_ms=4000, dead_after_s=20)
    settings = wiring.engine_settings(Config(engine=own))
    assert (settings.tick, settings.lead, settings.append_fresh) == (0.03, 0.007, 0.15)
    assert (settings.horizon_min, settings.horizon_max, settings.dead_after) == (0.3, 4.0, 20)


def test_smtp_keys_arrive() -> None:
    settings = wiring.smtp_settings(Config(sessions=3, connect_rate=5.0, hostname="a.example", timeouts=Timeouts(mail_s=9.0)))
    assert (settings.sessions, settings.connect_rate, settings.hostname) == (3, 5.0, "a.example")
    assert settings.timeouts == StageTimeouts(mail=9.0)


def test_shipped_reply_rules_are_the_default() -> None:
    assert wiring.reply_rules(Config()) is not None


async def test_worker_does_not_start_on_holds_without_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "holds.toml"
    path.write_text(data_file("holds.toml").read_text().replace('department = "billing"\n', ""))
    with pytest.raises(ConfigError, match="department"):
        wiring.build_worker(Config(holds_file=str(path)), "redis://127.0.0.1:1", SilentMeter(), "w")


@pytest.mark.parametrize(
    ("present", "url", "named", "policy"),
    [
        (None, "smtp://new.example", None, TlsPolicy.OPPORTUNISTIC),
        (TlsPolicy.VERIFY, "smtp://new.example", None, TlsPolicy.VERIFY),
        (TlsPolicy.NONE, "smtp://new.example", None, TlsPolicy.OPPORTUNISTIC),
        (TlsPolicy.VERIFY, "smtp://new.example", TlsPolicy.NONE, TlsPolicy.NONE),
        (TlsPolicy.VERIFY, "smtps://new.example", None, TlsPolicy.VERIFY),
        (TlsPolicy.NONE, "smtps://new.example", None, TlsPolicy.REQUIRED),
    ],
)
def test_tls_policy_stays_until_another_is_named(
    present: TlsPolicy | None, url: str, named: TlsPolicy | None, policy: TlsPolicy
) -> None:
    before = None if present is None else Relay("old.example", tls=present)
    found = relays.with_policy(relays.relay_from_url(url, "", named), before, TlsPolicy.OPPORTUNISTIC)
    assert found.policy is policy
