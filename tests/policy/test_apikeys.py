"""What an API key is: 256 bits that are never kept, scopes, a seat."""

from __future__ import annotations

import pytest

from sendengine.errors import RefusedInput
from sendengine.policy.apikeys import ApiKey, Scope, decode, digest_of, encode, opens, scopes_of, seat_of, token_of

TOKEN = token_of(bytes(range(32)))
KEY = ApiKey(digest_of(TOKEN), "m1", (Scope.READ, Scope.SEND), "Ann", 1.8e15)


def test_a_key_carries_all_256_bits_and_is_kept_as_its_hash() -> None:
    assert TOKEN == "se_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert TOKEN[3:] not in encode(KEY).decode()
    assert KEY.digest not in encode(KEY).decode()
    with pytest.raises(ValueError, match="32 octets"):
        token_of(b"short")


def test_what_is_kept_is_read_back() -> None:
    assert decode(KEY.digest, encode(KEY)) == KEY


UNREADABLE = [b"", b"{", b"1", b'{"account":"m1"}', b'{"account":"m1","scopes":["root"],"seat":"x","made_us":1}', b"\xff"]


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_cannot_be_read_opens_nothing(value: bytes) -> None:
    assert decode(KEY.digest, value) is None
    assert not opens(None, KEY.digest)


def test_only_its_own_hash_opens() -> None:
    assert opens(KEY, KEY.digest)
    assert not opens(KEY, digest_of(TOKEN + "x"))
    assert not opens(KEY, digest_of("se_\ud800"))


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        (["send"], ["send"]), (["admin", "read"], ["read", "admin"]), (["send,read"], ["read", "send"]),
        (["read send", "read"], ["read", "send"]),
    ],
)
def test_scopes(given: list[str], scopes: list[str]) -> None:
    assert list(scopes_of(given)) == scopes


@pytest.mark.parametrize("given", [[], [""], ["root"], ["read", "write"]])
def test_scopes_that_are_none(given: list[str]) -> None:
    with pytest.raises(RefusedInput, match="scope"):
        scopes_of(given)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, "\u202e"])
def test_a_seat_is_a_name_that_can_be_shown(name: str) -> None:
    with pytest.raises(RefusedInput):
        seat_of(name)


def test_a_seat_is_trimmed() -> None:
    assert seat_of(" Ann ") == "Ann"
