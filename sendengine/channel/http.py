"""SMS by a provider's HTTP interface: URL, header fields and body are templates, one request an SMS (ports.Site).

In a template {to} {from} {text} {parts} {password} stand for what is sent, each encoded for where it stands. What was certainly not taken
and what possibly was are never confused: a request that did not reach the wire is trouble of the site, one without an answer is a doubt.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from urllib.parse import quote, quote_plus

import aiohttp
import msgspec
import orjson
from asyncio_throttle.throttler import Throttler

from sendengine.policy import parts
from sendengine.policy.callbacks import value_at
from sendengine.policy.slowing import Slowing
from sendengine.ports import Clock, Feed
from sendengine.types import Attempt, Envelope, Fault, Provider, Reply, Stage

CONNECT_S = 30.0
BACK_OFF_FIRST, BACK_OFF_MOST, BACK_OFF_SPREAD = 1.0, 20.0, 0.3
AUTH_BACK_OFF = 300.0
AUTH_REFUSED = (401, 403, 407)
ANSWER_MOST = 64 << 10  # octets of an answer that are read
EARLY = 0.01
TAKEN = Reply(250, "2.0.0", "accepted")
_place = re.compile(r"\{(to|from|text|parts|password)\}")
_is_id = re.compile(r"[!-~]{1,64}").fullmatch


class HttpTrouble(msgspec.Struct):
    attempt: Attempt
    since: float
    retry_at: float


class Request(msgspec.Struct, frozen=True):
    method: str
    url: str
    headers: dict[str, str]
    body: bytes


def request(provider: Provider, sender: str, recipient: str, text: str) -> Request:
    """What is asked for one SMS. Pure."""
    values = {"to": recipient, "from": sender, "text": text, "parts": str(parts.count(text)), "password": provider.password}
    headers = {name: _filled(template, values, _in_header) for name, template in provider.headers}
    kind = next((value for name, value in provider.headers if name.lower() == "content-type"), "").lower()
    encode = _in_json if "json" in kind else quote_plus if "form" in kind else str
    body = _filled(provider.body, values, encode).encode()
    return Request(provider.method, _filled(provider.url, values, lambda value: quote(value, safe="")), headers, body)


def _filled(template: str, values: Mapping[str, str], encode: Callable[[str], str]) -> str:
    return _place.sub(lambda found: encode(values[found[1]]), template)


def _in_json(value: str) -> str:
    return orjson.dumps(value).decode()[1:-1]


def _in_header(value: str) -> str:
    """Nothing from outside ends a field's line, or begins another one."""
    return "".join(letter for letter in value if letter.isprintable() and letter.isascii())


def message_id(answer: bytes, place: str) -> tuple[str, ...]:
    """The text or number at a place like `messages.0.id` of a JSON answer; () where there is none."""
    if not place:
        return ()
    try:
        found = value_at(orjson.loads(answer), place)
    except orjson.JSONDecodeError:
        return ()
    text = str(found) if isinstance(found, str | int) else ""
    return (text,) if _is_id(text) else ()


class HttpSite:
    """Owner of its client session and of the requests under way."""

    def __init__(
        self, provider: Provider, feed: Feed, on_change: Callable[[], None], clock: Clock, random: Callable[[], float]
    ) -> None:  # fmt: skip
        self.relay = self._provider = provider
        self.eightbit, self.together = True, 1
        self._feed, self._on_change, self._clock, self._random = feed, on_change, clock, random
        self._pace = Slowing()
        self._throttler = Throttler(*_limit(provider.rate)) if provider.rate else None
        self._session: aiohttp.ClientSession | None = None
        self._pump: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._alone = False  # what is under way goes alone
        self._trouble: HttpTrouble | None = None
        self._failures = 0
        self._is_closing = False

    @property
    def sessions(self) -> int:
        return self._provider.window if self.is_open else 0

    @property
    def idle(self) -> int:
        return max(0, self.sessions - len(self._under_way))

    @property
    def is_open(self) -> bool:
        return self._session is not None and self._trouble is None

    @property
    def trouble(self) -> HttpTrouble | None:
        return self._trouble

    def warm(self) -> None:
        """There is nothing to open before the first request: whether the provider can be reached, that tells."""
        if self._session is None and not self._is_closing:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._provider.answer_s)
            connector = aiohttp.TCPConnector(limit=self._provider.window, keepalive_timeout=10)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            self._pump = asyncio.get_running_loop().create_task(self._pull_forever(self._session))
            self._on_change()

    def wake(self) -> None:
        self.warm()
        self._wanted.set()

    def rest(self) -> None:
        """The provider is asked nothing but to send."""

    def share(self, workers: int) -> None:
        if self._throttler is not None:
            self._throttler.rate_limit, self._throttler.period = _limit(self._provider.rate / workers)

    def throttle(self, seconds: float, reason: str) -> None:
        self._fail(Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, self._clock.monotonic(), detail=reason), seconds)

    async def close(self, timeout: float) -> None:
        self._is_closing = True
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # pulling

    async def _pull_forever(self, session: aiohttp.ClientSession) -> None:
        while True:
            self._wanted.clear()
            if not self._may_pull or not await self._pull(session):
                await self._wanted.wait()

    @property
    def _may_pull(self) -> bool:
        return self._trouble is None and not self._alone and len(self._under_way) < self._provider.window

    async def _pull(self, session: aiohttp.ClientSession) -> bool:
        """One request more, at the pace that the provider allows; False when nothing is ready."""
        await asyncio.sleep(self._pace.wait(self._clock.monotonic()))
        async with self._throttler or nullcontext():
            delivery = self._feed.next(bool(self._under_way)) if self._may_pull else None
            if delivery is None:
                return False
            self._alone = delivery.is_alone
            self._pace.sent(self._clock.monotonic())
            task = asyncio.get_running_loop().create_task(self._carry(session, delivery))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._alone = False
        self._wanted.set()

    async def _carry(self, session: aiohttp.ClientSession, delivery: Envelope) -> None:
        mail_at = self._clock.monotonic()
        try:
            attempt = await self._ask(session, delivery, mail_at)
        except asyncio.CancelledError:
            detail = "closed by us before the answer"
            attempt = Attempt(Stage.DOT, None, Fault.DISCONNECTED, mail_at, self._clock.monotonic(), detail=detail)
        self._feed.done(delivery, attempt)
        self._judge(attempt)

    async def _ask(self, session: aiohttp.ClientSession, delivery: Envelope, mail_at: float) -> Attempt:
        asked = request(self._provider, delivery.sender.decode(), delivery.recipient.decode(), delivery.wire.decode())
        now = self._clock.monotonic
        try:
            async with session.request(
                asked.method, asked.url, headers=asked.headers, data=asked.body or None, allow_redirects=False
            ) as answer:
                said = await answer.content.read(ANSWER_MOST)
                return self._answered(answer.status, said, mail_at, now())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:  # nothing was written
            return Attempt(Stage.CONNECT, None, Fault.REFUSED, 0.0, now(), detail=str(error))
        except TimeoutError:
            return Attempt(Stage.DOT, None, Fault.TIMEOUT, mail_at, now(), detail="the request is not answered")
        except aiohttp.ClientError as error:
            return Attempt(Stage.DOT, None, Fault.DISCONNECTED, mail_at, now(), detail=str(error) or type(error).__name__)

    def _answered(self, status: int, said: bytes, mail_at: float, now: float) -> Attempt:
        if 200 <= status < 300:
            return Attempt(Stage.DOT, TAKEN, None, mail_at, now, message_ids=message_id(said, self._provider.message_id))
        text = f"HTTP {status}"
        if status in self._provider.throttled:
            return Attempt(Stage.MAIL, None, Fault.THROTTLED, mail_at, now, detail=f"{text}: the provider asks us to go slower")
        if status in self._provider.refused:
            return Attempt(Stage.RCPT, Reply(550, "5.1.1", text), None, mail_at, now)
        if status in AUTH_REFUSED:  # it refuses us, not them
            return Attempt(Stage.EHLO, Reply(535, "5.7.8", text), None, 0.0, now)
        return Attempt(Stage.DOT, Reply(451, "4.3.0", text), None, mail_at, now)

    # trouble

    def _judge(self, attempt: Attempt) -> None:
        if attempt.fault is Fault.THROTTLED:
            self._pace.throttled(self._clock.monotonic())
        elif attempt.stage is Stage.EHLO:
            self._fail(attempt, AUTH_BACK_OFF)
        elif attempt.stage is Stage.CONNECT:
            self._failures += 1
            delay = min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(self._failures - 1, 16))
            self._fail(attempt, delay * (1.0 + BACK_OFF_SPREAD * self._random()))
        elif attempt.reply is not None:
            self._failures = 0

    def _fail(self, attempt: Attempt, seconds: float) -> None:
        now = self._clock.monotonic()
        if self._trouble is not None and self._trouble.retry_at >= now + seconds:
            return
        since = self._trouble.since if self._trouble else now
        self._trouble = HttpTrouble(attempt, since, now + seconds)
        self._clock.call_at(now + seconds, self._recover)
        self._on_change()

    def _recover(self) -> None:
        if self._trouble and self._trouble.retry_at <= self._clock.monotonic() + EARLY:
            self._trouble = None
            self._on_change()
            self.wake()


def _limit(rate: float) -> tuple[int, float]:
    """So many requests in so many seconds, near one, which is this rate exactly."""
    most = max(1, int(rate))
    return most, most / rate
