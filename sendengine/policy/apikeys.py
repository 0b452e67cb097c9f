"""API keys: what they look like, what is kept of them, and what they allow. Pure.

A key is 256 bits of chance behind `se_`. Only its SHA-256 is kept: nobody can read a key back, and a key so long needs no slow hash. It
belongs to one account or, with account "", to the operator, whose keys may do to every account what their scopes say.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest

import msgspec

from sendengine.errors import RefusedInput, about

PREFIX = "se_"
SECRET_OCTETS = 32
ID_DIGITS = 16  # of the digest: enough to name a key, too few to be one
SEAT_LETTERS = 100
OPERATOR = "admin"  # the owner's name where an account's stands
DAY_US = 86400e6


class Scope(StrEnum):
    READ = "read"
    SEND = "send"
    ADMIN = "admin"


class ApiKey(msgspec.Struct, frozen=True):
    """What is kept. `digest` in hex; `account` "" is the operator's; `seat` is the person or program that holds it; `made_us` and `used_us`
    are Unix µs, the latter to the day (0: never)."""

    digest: str
    account: str
    scopes: tuple[Scope, ...]
    seat: str
    made_us: float
    used_us: float = 0.0

    @property
    def id(self) -> str:
        return self.digest[:ID_DIGITS]

    @property
    def owner(self) -> str:
        return self.account or OPERATOR

    @property
    def is_operator(self) -> bool:
        return not self.account


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    account: str
    scopes: tuple[Scope, ...]
    seat: str
    made_us: float
    used_us: float = 0.0


def encode(key: ApiKey) -> bytes:
    """The value under its digest."""
    return msgspec.json.encode(_Kept(key.account, key.scopes, key.seat, key.made_us, key.used_us))


def decode(digest: str, value: bytes) -> ApiKey | None:
    """None for what no release of ours has written: it opens nothing."""
    try:
        kept = msgspec.json.decode(value, type=_Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return ApiKey(digest, kept.account, kept.scopes, kept.seat, kept.made_us, kept.used_us)


def token_of(chance: bytes) -> str:
    """The key itself, of SECRET_OCTETS octets nobody can guess."""
    if len(chance) != SECRET_OCTETS:
        raise ValueError(f"a key is made of {SECRET_OCTETS} octets")
    return PREFIX + urlsafe_b64encode(chance).rstrip(b"=").decode()


def digest_of(token: str) -> str:
    return sha256(token.encode("utf-8", "backslashreplace")).hexdigest()


def opens(key: ApiKey | None, digest: str) -> bool:
    """Whether the key that was found is the one that was shown; as long for a wrong one as for a right one."""
    return compare_digest((key.digest if key is not None else "").ljust(len(digest), "-"), digest) and key is not None


def scopes_of(names: Iterable[str]) -> tuple[Scope, ...]:
    """In their order, each once; `read send` in one word is two. Raises RefusedInput."""
    words = [word for name in names for word in name.replace(",", " ").split()]
    wrong = next((word for word in words if word not in list(Scope)), None)
    if wrong is not None or not words:
        said = f"{wrong!r} is no scope" if wrong is not None else "a key without a scope opens nothing"
        with about("scopes"):
            raise RefusedInput(said, f"one or more of {' '.join(Scope)}")
    return tuple(scope for scope in Scope if scope in words)


def seat_of(name: str) -> str:
    """Who holds the key, as the audit trail will name them. Raises RefusedInput."""
    seat = name.strip()
    if not seat or len(seat) > SEAT_LETTERS or not seat.isprintable():
        with about("seat"):
            raise RefusedInput(f"{name[:SEAT_LETTERS]!r} is no name", f"1 to {SEAT_LETTERS} letters that can be shown")
    return seat
