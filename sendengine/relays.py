"""Relays as people name them: by URL, with the password in a file. Nothing of SMTP is loaded here: a client may import it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from sendengine.address import is_host
from sendengine.errors import ConfigError, RefusedInput
from sendengine.types import SMTPS_PORT, Relay, TlsPolicy

SMTP_PORT = 25


def relay_given(given: object) -> Relay:
    """The relay that a caller passed: a Relay, or its URL. Raises RefusedInput for anything else, before it is stored for workers to
    stumble over."""
    if isinstance(given, str):
        return relay_from_url(given)
    if not isinstance(given, Relay):
        raise RefusedInput(f"a relay is a Relay or smtp://host[:port], not {type(given).__name__}")
    try:
        relay = Relay.decode(given.encode())  # a Struct takes any values; its decoder does not
    except (msgspec.MsgspecError, TypeError) as error:
        raise RefusedInput(f"relay {given.host!r}: {error}") from None
    if not relay.host or not 0 < relay.port < 65536:
        raise RefusedInput(f"relay {relay.site!r} has no host or no port from 1 to 65535")
    return _sayable(relay)


def _sayable(relay: Relay) -> Relay:
    """What goes on the wire, or into a resolver, holds nothing that would end it there."""
    if not is_host(relay.host) or not (relay.user + relay.password).isprintable():
        raise RefusedInput(f"relay {relay.host!r}: its host, user or password holds what cannot be said")
    return relay


def password_from(path: Path) -> str:
    """The first line of a file."""
    return text_of(path).partition("\n")[0].rstrip("\r")


def relay_from_url(url: str, password: str = "", tls: TlsPolicy | None = None) -> Relay:
    """`smtp://[user@]host[:port]`, or `smtps://` for TLS from the start (port 465). `tls` None names no policy. Raises RefusedInput."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedInput(f"relay {url!r}: {error}") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedInput(f"relay {url!r}: blanks, control characters or letters beyond ASCII", "write the A-label of the host")
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise RefusedInput(f"relay {url!r} is not smtp://[user@]host[:port]")
    if parts.password is not None:
        raise RefusedInput("a relay's URL is shown to people: no password belongs there", "put it into a file and name the file")
    user = unquote(parts.username or "")
    if bool(user) != bool(password):
        missing = "password" if user else "user"
        raise RefusedInput(f"relay {url!r} has no {missing}", "AUTH needs both: user@ in the URL, the password in a file")
    if parts.scheme == "smtps":
        if port not in (None, SMTPS_PORT):
            raise RefusedInput(f"relay {url!r}: TLS from the start is spoken on port {SMTPS_PORT} only", "use smtp:// and STARTTLS")
        port = SMTPS_PORT
    return _sayable(Relay(parts.hostname, SMTP_PORT if port is None else port, user, password, tls))


def with_policy(relay: Relay, present: Relay | None, usual: TlsPolicy) -> Relay:
    """The policy of an account is never lost with its relay: it stays until another one is named. Where none was named for the present
    one, the configuration's (`usual`) holds. But `none` is of one relay: a password never goes to another one in clear unasked."""
    if relay.tls is not None:
        return relay
    named = None if present is None else present.tls
    if named is None or named is TlsPolicy.NONE:
        named = usual if usual in (TlsPolicy.REQUIRED, TlsPolicy.VERIFY) else None
    return msgspec.structs.replace(relay, tls=named)


def as_spoken(relay: Relay) -> Relay:
    """With the policy that it is spoken to under: relays that differ in what was named only share their sessions."""
    return msgspec.structs.replace(relay, tls=relay.policy)


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
