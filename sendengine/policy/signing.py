"""Which keys sign a message: those of the domain in From, or of the nearest domain above it that has any whose time has come.

Such a signature is aligned with From in DMARC's relaxed sense (RFC 7489 3.1.1), with no list of public suffixes: an operator has no key for
one. Of each algorithm one key signs, so that a domain with an RSA and an Ed25519 key signs twice (RFC 8463 3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from sendengine.errors import RefusedInput

RSA, ED25519 = "rsa-sha256", "ed25519-sha256"
ALGORITHMS = (ED25519, RSA)  # in the order of their signatures
_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_is_domain = re.compile(rf"{_LABEL}(?:\.{_LABEL})+").fullmatch
_is_selector = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch  # RFC 6376 3.1


class KeyEntry(msgspec.Struct, frozen=True):
    """A private key as it is kept. `since_us`: Unix time in µs from which it signs; `place` is where an operator finds it."""

    domain: str
    selector: str
    algorithm: str
    text: str
    place: str
    since_us: float = 0.0

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What logs and tracebacks may show: all but the key."""
        return [(name, getattr(self, name)) for name in ("domain", "selector", "algorithm", "place", "since_us")]

    def __repr__(self) -> str:
        return f"KeyEntry({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def field(domain: str, selector: str) -> str:
    """The name of a key in the shared state."""
    return f"{selector}._domainkey.{domain}"


def encode(entry: KeyEntry) -> bytes:
    """The value of that field."""
    return msgspec.json.encode(_Kept(entry.algorithm, entry.text, entry.since_us))


def decode(name: str, value: bytes) -> KeyEntry:
    """One whose value cannot be read is an entry all the same, without a key, so that its domain is not taken for one without keys."""
    selector, _, domain = name.partition("._domainkey.")
    place = f"DKIM key {selector} of {domain} in Redis"
    try:
        kept = msgspec.json.decode(value, type=_Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        kept = _Kept(RSA, "")
    return KeyEntry(domain, selector, kept.algorithm, kept.text, place, kept.since_us)


class _Kept(msgspec.Struct, frozen=True):
    algorithm: str
    text: str
    since_us: float = 0.0


def check_name(domain: str, selector: str, place: str) -> None:
    """Raises RefusedInput for names that cannot stand in d= and s=."""
    if not _is_domain(domain) or len(domain) > 253:
        raise RefusedInput(f"{place}: {domain!r} is no domain in lower case", "an internationalised one in its A-labels")
    if not _is_selector(selector) or len(selector) > 63:
        raise RefusedInput(f"{place}: {selector!r} is no selector", "lower-case letters, digits, hyphens, dots")


def signing_domains(from_domain: str) -> Iterator[str]:
    """It and those above it, nearest first; none of one label."""
    labels = from_domain.lower().split(".")
    return (".".join(labels[at:]) for at in range(len(labels) - 1))


def by_preference(entries: Iterable[KeyEntry], now_us: float) -> dict[str, list[KeyEntry]]:
    """The keys of one domain that may sign now, by algorithm, the one to use first: it began last. Older ones go on being good.
    An algorithm that only a newer release knows comes last: nothing may go out as if that key were not there."""
    begun = [entry for entry in entries if entry.since_us <= now_us]
    begun.sort(key=lambda entry: (-entry.since_us, entry.selector))
    found: dict[str, list[KeyEntry]] = {algorithm: [] for algorithm in ALGORITHMS}
    for entry in begun:
        found.setdefault(entry.algorithm, []).append(entry)
    return {algorithm: those for algorithm, those in found.items() if those}
