"""The words of the engine as values: what crosses a boundary is defined here, once.

Pure data. This module knows no clock, no I/O, no Redis and no SMTP syntax.
Times called *_at are seconds of a monotonic clock unless the name says `wall`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Protocol

import msgspec


class Outcome(IntEnum):
    """How a recipient ends; exactly one of them, once (domain rule: accepted = sum of outcomes + pending)."""

    SENT = 1
    BOUNCED = 2
    EXPIRED = 3
    SUPPRESSED = 4
    CANCELLED = 5
    UNKNOWN = 6


class SendState(StrEnum):
    SCHEDULED = "scheduled"
    SEQUENTIAL = "sequential"
    SENDING = "sending"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"


class OnDoubt(StrEnum):
    RESEND = "resend"
    HOLD = "hold"


class Stage(IntEnum):
    """Where an SMTP exchange stood when its attempt ended. Order matters: a later stage is a larger number.

    DOT means that the final dot (or the last BDAT octet) may have reached the peer: a fault there is a doubt.
    BODY means that it certainly had not: the message was not taken.
    """

    CONNECT = 0  # TCP connect and the 220 greeting
    EHLO = 1
    STARTTLS = 2
    AUTH = 3
    MAIL = 4
    RCPT = 5
    DATA = 6
    BODY = 7
    DOT = 8
    QUIT = 9


class Fault(StrEnum):
    """What went wrong where no reply tells it."""

    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    STALE = "stale"  # a reused session turned out closed before any reply to this MAIL: nothing was attempted
    REFUSED = "refused"  # connect failed, name unknown, network unreachable
    TLS = "tls"  # handshake or certificate against the policy
    PROTOCOL = "protocol"  # a reply nobody can read, too long, too many, or out of turn
    THROTTLED = "throttled"  # the peer took nothing and asks us to go slower
    UNSUITABLE = "unsuitable"  # this session cannot carry this message (8BITMIME, SIZE); nothing was written


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An SMTP reply. `text` has its lines joined by a space, the enhanced code cut off its head, at most 512 characters."""

    code: int
    enhanced: str  # RFC 3463 "5.1.1", or ""
    text: str

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """What happened on the wire to one delivery. A value, never an exception: policy reads it (policy/verdict.py).

    Exactly one of reply and fault is set. mail_at is 0.0 when MAIL was never written: then no permit was spent.
    """

    stage: Stage
    reply: Reply | None
    fault: Fault | None
    mail_at: float
    ended_at: float
    connect: float = 0.0  # seconds that opening the session took, charged to the first delivery it carried
    detail: str = ""  # the fault in an operator's words
    message_ids: tuple[str, ...] = ()  # by which receipts will name it, one a part


class TlsPolicy(StrEnum):
    NONE = "none"  # never
    OPPORTUNISTIC = "opportunistic"  # when offered; any certificate
    REQUIRED = "required"  # or no session; any certificate
    VERIFY = "verify"  # required, and the certificate must be valid for the host


SMTPS_PORT = 465  # TLS from the start (RFC 8314 3.3)


class Relay(msgspec.Struct, frozen=True):
    """Where an account's mail goes. Equal relays share their sessions (one site per relay and worker). `tls` is the policy that was named
    for it, None where none was (relays.with_policy)."""

    host: str
    port: int = 25
    user: str = ""
    password: str = ""
    tls: TlsPolicy | None = None

    @property
    def policy(self) -> TlsPolicy:
        """What it is spoken to under. On SMTPS_PORT there is no session in clear, whatever was named."""
        if self.port == SMTPS_PORT and self.tls is not TlsPolicy.VERIFY:
            return TlsPolicy.REQUIRED
        return self.tls or TlsPolicy.OPPORTUNISTIC

    @property
    def site(self) -> str:
        """host:port, the name people see."""
        return f"{self.host}:{self.port}"

    def encode(self) -> str:
        """As an account's field `relay` holds it."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def decode(text: str) -> Relay:
        return _decode_relay(text)


_decode_relay = msgspec.json.Decoder(Relay).decode


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """Who carries SMS (config/providers.toml). Accounts of equal providers share their sessions. `rate`: parts a second from all
    workers together, 0: as many as it takes. Of an HTTP provider: `url`, `headers` and `body` are templates (channel/http.py), `receipt_…`
    places in its call-backs (policy/callbacks.py)."""

    name: str
    kind: str
    host: str = ""
    port: int = 2775
    tls: bool = False
    system_id: str = ""
    system_type: str = ""
    password: str = ""
    binds: int = 1
    window: int = 50
    rate: float = 0.0
    enquire_link_s: float = 30.0
    answer_s: float = 60.0
    url: str = ""
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    message_id: str = ""
    receipt_token: str = ""
    receipt_list: str = ""
    receipt_id: str = "id"
    receipt_state: str = "status"
    receipt_error: str = ""
    receipt_states: tuple[tuple[str, str], ...] = ()
    refused: tuple[int, ...] = ()
    throttled: tuple[int, ...] = ()

    @property
    def site(self) -> str:
        """The name people see."""
        return self.name


Way = Relay | Provider


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a provider says later of a message that it took: its state in SMPP's words (DELIVRD, UNDELIV …)."""

    message_id: str
    state: str
    error: str = ""


class Envelope(Protocol):
    """What a channel may know of a delivery: the rest of it is the engine's."""

    sender: bytes  # reverse-path without brackets, b"" for the null path
    recipient: bytes
    wire: bytes  # the message with CRLF, dots stuffed (RFC 5321 4.5.2), ending in CRLF, without the final dot
    eightbit: bool  # wire holds octets above 127

    @property
    def is_alone(self) -> bool:
        """It is never written whole behind another one, nor another one behind it, before its fate is known."""
        ...
