"""What an operator may set about SMTP. Values only; seconds throughout."""

from __future__ import annotations

import msgspec


class StageTimeouts(msgspec.Struct, frozen=True):
    """How long a peer may take at each stage (RFC 5321 4.5.3.2). A dot is never given up before 600 s in production:
    each one given up is a recipient in doubt."""

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    starttls: float = 120.0
    auth: float = 120.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    body: float = 180.0  # without the peer taking a single octet
    dot: float = 600.0
    quit: float = 5.0


class SmtpSettings(msgspec.Struct, frozen=True):
    hostname: str = ""  # said at EHLO; empty: the machine's own name
    sessions: int = 20  # per relay and process
    connect_rate: float = 20.0  # sessions opened per second and relay
    idle_timeout: float = 60.0  # after which an idle session QUITs
    max_messages: int = 0  # after which a session QUITs; 0: never
    chunk_messages: int = 1  # that may go in one write, to a peer that offers CHUNKING and PIPELINING
    tick: float = 0.5  # how coarsely timeouts are looked at
    ca_file: str = ""  # trusted beside the system's authorities (policy `verify`)
    timeouts: StageTimeouts = StageTimeouts()
