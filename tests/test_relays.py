"""An account's relay is changed by several at once, made twice, moved: the TLS policy that was named is never lost on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from sendengine import wiring
from sendengine.client import Client
from sendengine.config import Config
from sendengine.errors import Conflict, Unavailable
from sendengine.types import Relay, TlsPolicy
from tests.test_accounts import Bench, bench, told

__all__ = ["bench"]  # a fixture of theirs


def meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[Any]], times: int = 1) -> None:
    """Between the next reading of an account and what follows it somebody else acts."""
    read, left = bench.desk.account, [act] * times

    async def account(name: str) -> Mapping[str, str]:
        found = await read(name)
        if left:
            now = left.pop()
            monkeypatch.setattr(bench.desk, "account", read)
            await now()
            monkeypatch.setattr(bench.desk, "account", account)
        return found

    monkeypatch.setattr(bench.desk, "account", account)


def client_of(bench: Bench, **keys: Any) -> Client:
    made = Client(desk=bench.desk, config=Config(**keys))
    made.config, made.tiers = Config(**keys), bench.client.tiers
    return made


async def test_a_policy_that_is_named_meanwhile_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.client.set_relay("m1", "smtp://old.example")
    meanwhile(bench, monkeypatch, lambda: bench.client.set_login("m1", tls=TlsPolicy.VERIFY))
    moved = await bench.client.set_relay("m1", "smtp://new.example", who="anna")
    assert (moved.relay, moved.relay_tls) == ("new.example:25", "verify")
    assert [each.facts["tls"] for each in await told(bench)] == ["opportunistic", "verify", "verify"]


async def test_a_relay_that_is_changed_meanwhile_is_not_changed_back_by_a_password(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.client.set_relay("m1", Relay("old.example", 587, "u", "old"))
    meanwhile(bench, monkeypatch, lambda: bench.client.set_relay("m1", Relay("new.example", 587, "u", "other")))
    changed = await bench.client.set_login("m1", password="third", retry="1m")
    assert (changed.relay, changed.retry) == ("new.example:587", "1m")
    assert Relay.decode((await bench.desk.account("m1"))["relay"]).password == "third"


async def test_a_login_and_a_schedule_are_one_change(bench: Bench) -> None:
    await bench.client.set_relay("m1", "smtp://mx.example")
    await bench.client.set_login("m1", tls=TlsPolicy.REQUIRED, retry="1m", who="anna", why="order 7")
    _, line = await told(bench)
    assert (line.why, line.facts) == ("order 7", {"relay": "mx.example:25", "tls": "required", "retry": "1m"})


async def test_who_is_always_overtaken_is_told_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(range(1000))
    meanwhile(bench, monkeypatch, lambda: bench.client.set_relay("m1", f"smtp://r{next(names)}.example"), times=900)
    with pytest.raises(Unavailable, match="changed by others"):
        await bench.client.set_relay("m1", "smtp://mx.example")


@pytest.mark.parametrize("policy", [TlsPolicy.REQUIRED, TlsPolicy.VERIFY])
async def test_the_first_relay_of_its_own_keeps_the_configurations_policy(bench: Bench, policy: TlsPolicy) -> None:
    client = client_of(bench, relay_tls=policy)
    assert (await client.set_relay("m1", "smtp://mx.example")).relay_tls == policy
    assert (await client.create_account("m2", "60k", relay="smtp://mx.example")).relay_tls == policy
    assert (await client.set_relay("m2", Relay("mx.example", tls=TlsPolicy.NONE))).relay_tls == "none"
    assert (await client.set_relay("m2", "smtp://other.example")).relay_tls == policy


async def test_the_configurations_none_is_not_inherited(bench: Bench) -> None:
    client = client_of(bench, relay_tls=TlsPolicy.NONE)
    assert (await client.set_relay("m1", "smtp://mx.example")).relay_tls == "opportunistic"


async def test_behind_a_relay_that_nobody_can_read_the_policy_must_be_named(bench: Bench) -> None:
    await bench.desk.set_account("m1", {"relay": '"smtp://mx.example"'})
    with pytest.raises(Conflict, match=r"relay of account m1 cannot be read.* TLS policy") as refused:
        await bench.client.set_relay("m1", "smtp://mx.example")
    assert "--tls" in refused.value.remedy
    assert (await bench.client.account("m1")).relay == "unreadable"
    named = await bench.client.set_relay("m1", Relay("mx.example", tls=TlsPolicy.OPPORTUNISTIC))
    assert (named.relay, named.relay_tls) == ("mx.example:25", "opportunistic")


async def test_tls_from_the_start_is_no_policy_that_anybody_named(bench: Bench) -> None:
    assert (await bench.client.set_relay("m1", "smtps://mx.example")).relay_tls == "required"
    assert (await bench.client.set_relay("m1", "smtp://other.example")).relay_tls == "opportunistic"
    await bench.client.set_login("m1", tls=TlsPolicy.REQUIRED)
    for url in ("smtps://mx.example", "smtp://other.example"):
        assert (await bench.client.set_relay("m1", url)).relay_tls == "required"


async def test_another_password_names_no_policy(bench: Bench) -> None:
    await bench.client.set_relay("m1", Relay("mx.example", 465, "u", "old"))
    assert (await bench.client.set_login("m1", password="new")).relay_tls == "required"
    assert (await bench.client.set_relay("m1", "smtp://other.example")).relay_tls == "opportunistic"


@pytest.mark.parametrize("named", [None, TlsPolicy.VERIFY])
async def test_an_account_made_again_stands_whatever_policy_was_named_since(bench: Bench, named: TlsPolicy | None) -> None:
    for _ in range(2):
        await bench.client.create_account("m2", "60k", relay="smtp://mx.example")
    await bench.client.set_login("m2", tls=TlsPolicy.VERIFY)
    again = await bench.client.create_account("m2", "60k", relay=Relay("mx.example", tls=named))
    assert again.relay_tls == "verify"
    for other in ("smtp://other.example", Relay("mx.example", tls=TlsPolicy.REQUIRED), Relay("mx.example", user="u", password="p")):
        with pytest.raises(Conflict, match="another relay"):
            await bench.client.create_account("m2", "60k", relay=other)
    await bench.desk.set_account("m2", {"relay": "{"})
    with pytest.raises(Conflict, match="another relay"):
        await bench.client.create_account("m2", "60k", relay="smtp://mx.example")


def test_relays_that_are_spoken_to_alike_share_their_sessions() -> None:
    own = {"relay": Relay("mx.example", tls=None).encode()}
    assert wiring.relay_of(own, Relay("x")) == wiring.default_relay(Config(relay="smtp://mx.example"))
    own = {"relay": Relay("mx.example", 465).encode()}
    assert wiring.relay_of(own, Relay("x")) == wiring.default_relay(Config(relay="smtps://mx.example"))
