"""All ways out of one worker (ports.Channel): e-mail by SMTP, SMS by their providers, loaded when the first one goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import random as system_random
from typing import Protocol

from sendengine.channel.settings import SmtpSettings
from sendengine.channel.smtp import SmtpChannel
from sendengine.ports import Clock, Feed, Site
from sendengine.types import Provider, Way


class Ways:
    """Made inside a running loop."""

    def __init__(self, settings: SmtpSettings, clock: Clock, random: Callable[[], float] = system_random) -> None:
        self._mail = SmtpChannel(settings, clock, random)
        self._clock, self._random = clock, random
        self._providers: dict[Provider, _SmsSite] = {}

    def site(self, way: Way, feed: Feed, on_change: Callable[[], None]) -> Site:
        if not isinstance(way, Provider):
            return self._mail.site(way, feed, on_change)
        if way not in self._providers:
            self._providers[way] = _sms_site(way, feed, on_change, self._clock, self._random)
        return self._providers[way]

    async def close(self, timeout: float) -> None:
        await asyncio.gather(self._mail.close(timeout), *(site.close(timeout) for site in self._providers.values()))


def _sms_site(
    provider: Provider, feed: Feed, on_change: Callable[[], None], clock: Clock, random: Callable[[], float]
) -> _SmsSite:  # fmt: skip
    if provider.kind == "http":
        from sendengine.channel.http import HttpSite

        return HttpSite(provider, feed, on_change, clock, random)
    from sendengine.channel.smpp.site import SmppSite

    return SmppSite(provider, feed, on_change, clock, random)


class _SmsSite(Site, Protocol):
    """What both drivers are."""

    async def close(self, timeout: float) -> None: ...
