"""Webhooks out: what can be told, where to, how it is signed, and how often it is tried. Pure.

Signed as Standard Webhooks has it (standardwebhooks.com): `webhook-id`, `webhook-timestamp`, `webhook-signature` = "v1," and the base64 of
HMAC-SHA-256 over "id.timestamp.body", one for each secret that stands, with a space between.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from hmac import new as hmac_of
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import msgspec

from sendengine.errors import RefusedInput, about

EVENTS = ("send.finished", "bounce", "complaint", "hold", "credit.low", "tier.changed")
TEST = "test"  # asked for, never subscribed to
# Seconds between tries: 12 tries, the last 25 hours after the first.
WAITS = (60, 240, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 4 * 3600, 6 * 3600, 8 * 3600)
TRIES = len(WAITS) + 1
SECRET_PREFIX, SECRET_OCTETS = "whsec_", 32
OVERLAP_US = 86400e6  # that an old secret signs beside its successor
URL_LETTERS = 2000
_NAT64 = IPv6Network("64:ff9b::/96")


class Secret(msgspec.Struct, frozen=True):
    """`until_us`: Unix µs up to which it signs; 0: without end."""

    text: str
    until_us: float = 0.0


class Hook(msgspec.Struct, frozen=True):
    """A subscription, as the account keeps it. `credit_below` is where `credit.low` begins."""

    id: str
    url: str
    events: tuple[str, ...]
    secrets: tuple[Secret, ...]
    made_us: float
    seat: str
    credit_below: int = 100

    def wants(self, event: str) -> bool:
        return event in self.events or event == TEST


class Delivery(msgspec.Struct, frozen=True):
    """One event on its way to one subscription. `tries` were made."""

    hook: str
    event: str
    body: bytes
    tries: int = 0
    first_us: float = 0.0
    last: str = ""  # what the last try came to


encode_hook = encode_delivery = msgspec.json.encode
_decode_hook = msgspec.json.Decoder(Hook).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode


def decode_hook(value: bytes) -> Hook | None:
    """None for what no release of ours has written."""
    try:
        return _decode_hook(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def decode_delivery(value: bytes) -> Delivery | None:
    try:
        return _decode_delivery(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def wait_after(tries: int) -> float | None:
    """Seconds from a try that failed, the `tries`-th, to the next; None: it was the last."""
    return float(WAITS[tries - 1]) if tries < TRIES else None


def secret_of(chance: bytes) -> str:
    return SECRET_PREFIX + b64encode(chance).decode()


def signatures(secrets: Sequence[Secret], delivery: str, timestamp: int, body: bytes, now_us: float) -> str:
    said = f"{delivery}.{timestamp}.".encode() + body
    standing = [secret for secret in secrets if not secret.until_us or now_us < secret.until_us]
    return " ".join("v1," + b64encode(hmac_of(_octets(secret), said, sha256).digest()).decode() for secret in standing)


def _octets(secret: Secret) -> bytes:
    return b64decode(secret.text.removeprefix(SECRET_PREFIX))


def rotated(secrets: Sequence[Secret], text: str, now_us: float) -> tuple[Secret, ...]:
    """A new one, beside it the present one for a day; older ones end."""
    return (Secret(text), *(Secret(secret.text, now_us + OVERLAP_US) for secret in secrets if not secret.until_us))


def events_of(names: Sequence[str]) -> tuple[str, ...]:
    """In their order, each once. Raises RefusedInput."""
    wrong = next((name for name in names if name not in EVENTS), None)
    if wrong is not None or not names:
        said = f"nothing is told of {wrong[:40]!r}" if wrong is not None else "a webhook is told of something"
        with about("events"):
            raise RefusedInput(said, f"one or more of {' '.join(EVENTS)}")
    return tuple(event for event in EVENTS if event in names)


def check_url(url: str, may_be_private: bool) -> None:
    """Raises RefusedInput for what is no URL to post to. Names are looked at again when they are resolved (`is_public`)."""
    example = "as in https://hooks.example.com/sendengine"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RefusedInput(f"the URL of a webhook: {error}", example) from None
    if len(url) > URL_LETTERS or not (url.isascii() and url.isprintable()) or " " in url:
        raise RefusedInput(f"the URL of a webhook has up to {URL_LETTERS} printable ASCII letters", example)
    if parts.scheme not in (("https", "http") if may_be_private else ("https",)) or not host:
        plain = " (http:// is for a server whose operator lets webhooks go to private addresses: private_webhooks)"
        raise RefusedInput(f"a webhook is an https:// URL{plain if parts.scheme == 'http' else ''}", example)
    if parts.username or parts.password:
        raise RefusedInput("the URL of a webhook has no password: what is sent is signed", example)
    if not may_be_private and (_is_address(host) and not is_public(host)):
        raise RefusedInput(f"{host} is no public address", example)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an address is one that anybody may be asked to connect to: our own networks are none of a customer's business."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found in _NAT64:  # RFC 6052: a network without IPv4 reaches an IPv4 address so
            return is_public(str(IPv4Address(found.packed[12:])))
        if (mapped := found.ipv4_mapped or found.sixtofour) is not None:
            return is_public(str(mapped))
        if found.is_site_local or found.is_reserved:
            return False
    return found.is_global and not found.is_multicast
