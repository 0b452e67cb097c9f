"""The Poster port over aiohttp: one POST, whatever comes of it a value. URLs are strangers': no redirect is followed, little is read, and
an address that is not public is connected to only where that is allowed, looked at when the name has been resolved, so that no name
that changes its mind leads inside.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from sendengine.errors import RefusedInput
from sendengine.policy.hooks import check_url, is_public
from sendengine.ports import Posted

TRY_S, CONNECT_S = 15.0, 5.0
SHOWN = 200


class HttpPoster:
    """Owner of its sessions; usable inside `async with` only."""

    def __init__(self, may_be_private: bool = False, seconds: float = TRY_S) -> None:
        self._may_be_private, self._seconds = may_be_private, seconds

    async def __aenter__(self) -> Self:
        resolver = None if self._may_be_private else _Public()
        connector = aiohttp.TCPConnector(limit=100, limit_per_host=16, resolver=resolver, force_close=False)
        timeout = aiohttp.ClientTimeout(total=self._seconds, sock_connect=CONNECT_S)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        try:
            check_url(url, self._may_be_private)
            async with self._session.post(url, data=body, headers=dict(headers), allow_redirects=False) as response:
                text = await response.content.read(SHOWN)
                return Posted(response.status, text.decode("utf-8", "replace") if response.status >= 300 else "")
        except RefusedInput as error:
            return Posted(0, str(error))
        except TimeoutError:
            return Posted(0, f"no answer within {self._seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            return Posted(0, f"{type(error).__name__}: {error}"[:SHOWN])


class _Public(AbstractResolver):
    """Names lead to public addresses only."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(is_public(each["host"]) for each in found):
            raise OSError(None, f"{host} leads to an address that is not public")
        return found

    async def close(self) -> None:
        await self._resolver.close()
