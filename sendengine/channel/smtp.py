"""The SMTP way out (ports.Channel): sites by relay, each with its own sessions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import cache
from random import random as system_random

from sendengine.address import is_host_name
from sendengine.channel.opening import TlsContexts
from sendengine.channel.settings import SmtpSettings, StageTimeouts
from sendengine.channel.site import SmtpSite
from sendengine.ports import Clock, Feed
from sendengine.types import Relay

__all__ = ["SmtpChannel", "SmtpSettings", "StageTimeouts"]


class SmtpChannel:
    """Made inside a running loop. `random` spreads back-offs; tests pass their own."""

    def __init__(self, settings: SmtpSettings, clock: Clock, random: Callable[[], float] = system_random) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._contexts = TlsContexts(settings.ca_file)
        self._sites: dict[Relay, SmtpSite] = {}

    def site(self, relay: Relay, feed: Feed, on_change: Callable[[], None]) -> SmtpSite:
        site = self._sites.get(relay)
        if site is None:
            site = SmtpSite(
                relay, feed, on_change, self._settings, self._contexts, self._hostname, self._clock, self._random
            )
            self._sites[relay] = site
        return site

    async def close(self, timeout: float) -> None:
        await asyncio.gather(*(site.close(timeout) for site in self._sites.values()))

    def _hostname(self) -> str:
        return self._settings.hostname or _own_name()


@cache
def _own_name() -> str:
    """What to say at EHLO (RFC 5321 4.1.4). Asked once, and only where the configuration does not say it."""
    name = socket.getfqdn()
    return name if is_host_name(name) and "." in name else "[127.0.0.1]"  # a resolver's word is one from outside
