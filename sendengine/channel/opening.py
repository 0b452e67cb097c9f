"""Opening a session: connect, EHLO, STARTTLS, AUTH by aiosmtplib, whose transport is then ours.

Whatever the peer does on the way is an Attempt that ended before MAIL: no exception of aiosmtplib leaves this module.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import aiosmtplib
import msgspec

from sendengine.channel.flight import Features
from sendengine.channel.settings import SmtpSettings, StageTimeouts
from sendengine.reply import MAX_TEXT, make_reply
from sendengine.types import Attempt, Fault, Relay, Stage, TlsPolicy

IMPLICIT_TLS_PORT = 465  # RFC 8314 3.3


class Opened(msgspec.Struct, frozen=True):
    transport: asyncio.Transport
    features: Features


class TlsContexts:
    """One context for all sessions that trust nobody in particular, one for those that verify. Made on first use."""

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        self._made: dict[bool, ssl.SSLContext] = {}

    def get(self, policy: TlsPolicy) -> ssl.SSLContext:
        verifies = policy is TlsPolicy.VERIFY
        if verifies not in self._made:
            context = ssl.create_default_context()
            if verifies and self._ca_file:
                context.load_verify_locations(self._ca_file)
            if not verifies:
                # RFC 7435 4: against listeners only; which certificate it is does not matter.
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._made[verifies] = context
        return self._made[verifies]


class _Broken(Exception):
    """Our own reason not to go on: what the peer offers does not meet the relay's policy."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


async def open_session(
    relay: Relay, settings: SmtpSettings, contexts: TlsContexts, hostname: str, now: float
) -> Opened | Attempt:
    """A transport on which MAIL may be said, or what prevented it. `now` only dates the attempt."""
    result, stage = await _try(relay, relay.policy, settings.timeouts, contexts, hostname)
    is_tls_trouble = stage is Stage.STARTTLS and relay.policy is TlsPolicy.OPPORTUNISTIC
    if isinstance(result, Exception) and is_tls_trouble and not relay.user:
        # RFC 7435 3: rather in clear than not at all. A password never goes that way.
        result, stage = await _try(relay, TlsPolicy.NONE, settings.timeouts, contexts, hostname)
    return result if isinstance(result, Opened) else _attempt(stage, result, now)


async def _try(
    relay: Relay, tls: TlsPolicy, timeouts: StageTimeouts, contexts: TlsContexts, hostname: str
) -> tuple[Opened | Exception, Stage]:
    is_implicit = relay.port == IMPLICIT_TLS_PORT and tls is not TlsPolicy.NONE
    try:
        smtp = _client(relay, tls, is_implicit, timeouts, contexts, hostname)
    except ValueError as error:  # a host, or a name for EHLO, that aiosmtplib will not say: it must not pass in silence
        return error, Stage.CONNECT
    walk = _Walk(smtp, relay, timeouts)
    try:
        await walk.connect()
        await walk.hello()
        if tls is not TlsPolicy.NONE and not is_implicit:
            await walk.start_tls(contexts.get(tls), must=tls is not TlsPolicy.OPPORTUNISTIC)
        if relay.user:
            await walk.log_in(must_be_private=relay.policy is not TlsPolicy.NONE)
        return walk.opened(), walk.stage
    except (aiosmtplib.SMTPException, OSError, ValueError, _Broken) as error:
        smtp.close()
        return error, walk.stage
    except BaseException:
        smtp.close()
        raise


def _client(
    relay: Relay, tls: TlsPolicy, is_implicit: bool, timeouts: StageTimeouts, contexts: TlsContexts, hostname: str
) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=relay.host,
        port=relay.port,
        local_hostname=hostname,
        timeout=timeouts.ehlo,
        use_tls=is_implicit,
        start_tls=False,
        tls_context=contexts.get(tls) if tls is not TlsPolicy.NONE else None,
    )


class _Walk:
    """The way from nothing to MAIL; `stage` is where it stands."""

    def __init__(self, smtp: aiosmtplib.SMTP, relay: Relay, timeouts: StageTimeouts) -> None:
        self.stage = Stage.CONNECT
        self._smtp = smtp
        self._relay = relay
        self._timeouts = timeouts

    async def connect(self) -> None:
        """TCP within one bound, the greeting within another (RFC 5321 4.5.3.2.1); aiosmtplib has one for both."""
        smtp, loop = self._smtp, asyncio.get_running_loop()
        async with asyncio.timeout(None) as bound:
            give_up = loop.call_later(
                self._timeouts.connect, lambda: bound.reschedule(0.0) if smtp.transport is None else None
            )
            try:
                await smtp.connect(timeout=self._timeouts.greeting)
            finally:
                give_up.cancel()

    async def hello(self) -> None:
        self.stage = Stage.EHLO
        try:
            await self._smtp.ehlo(timeout=self._timeouts.ehlo)
        except aiosmtplib.SMTPHeloError as error:
            if error.code // 100 != 5 or not self._smtp.is_connected:
                raise
            await self._smtp.helo(timeout=self._timeouts.ehlo)  # RFC 5321 4.1.1.1

    async def start_tls(self, context: ssl.SSLContext, must: bool) -> None:
        if not self._smtp.supports_extension("starttls"):
            if must:
                self.stage = Stage.STARTTLS
                raise _Broken(Fault.TLS, "STARTTLS is not offered, and the relay's policy requires it")
            return
        self.stage = Stage.STARTTLS
        await self._smtp.starttls(tls_context=context, timeout=self._timeouts.starttls)
        await self.hello()  # RFC 3207 4.2: what was said in clear is forgotten

    async def log_in(self, must_be_private: bool) -> None:
        self.stage = Stage.AUTH
        if must_be_private and self._smtp.get_transport_info("sslcontext") is None:
            raise _Broken(Fault.TLS, "the session is not encrypted: the password was not sent")
        if not self._smtp.supported_auth_methods:
            raise _Broken(Fault.REFUSED, "the relay offers no AUTH mechanism that we know")
        await self._smtp.login(self._relay.user, self._relay.password, timeout=self._timeouts.auth)

    def opened(self) -> Opened:
        offers = self._smtp.supports_extension
        features = Features(offers("pipelining"), offers("chunking"), offers("8bitmime"), offers("size"))
        if not self._smtp.is_connected:
            raise aiosmtplib.SMTPServerDisconnected("the peer closed the connection")
        return Opened(cast(asyncio.Transport, self._smtp.transport), features)


def _attempt(stage: Stage, error: Exception, now: float) -> Attempt:
    if isinstance(error, aiosmtplib.SMTPResponseException) and 200 <= error.code < 600:
        reply = make_reply(error.code, _readable(error.message).split("\n"))
        return Attempt(stage, reply, None, 0.0, now, detail=f"{stage.name} refused")
    return Attempt(stage, None, _fault(error), 0.0, now, detail=_readable(str(error))[:MAX_TEXT] or type(error).__name__)


def _readable(text: str) -> str:
    """aiosmtplib keeps octets that are no UTF-8 as surrogates, which nobody can write down."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _fault(error: Exception) -> Fault:
    if isinstance(error, _Broken):
        return error.fault
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return Fault.PROTOCOL  # a code that is none
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return Fault.TLS
    if isinstance(error, TimeoutError):
        return Fault.TIMEOUT
    if any(isinstance(e, aiosmtplib.SMTPServerDisconnected | ConnectionResetError) for e in (error, error.__cause__)):
        return Fault.DISCONNECTED
    return Fault.REFUSED if isinstance(error, OSError) else Fault.PROTOCOL
