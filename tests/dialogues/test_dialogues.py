"""Every dialogue against the real channel: sockets, session and all. Shows the stage, the reply or fault and the verdict.

None may take longer than its timeouts and a second, and whatever the peer does, nothing escapes to the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sendengine.channel.settings import SmtpSettings, StageTimeouts
from sendengine.channel.site import SmtpSite
from sendengine.channel.smtp import SmtpChannel
from sendengine.policy.replies import parse_rules
from sendengine.policy.verdict import SendPolicy, judge
from sendengine.types import Attempt, Envelope, Relay, TlsPolicy
from tests.dialogues.player import Delivery, Dialogue, Player, read

HERE = Path(__file__).parent
PATHS = sorted(HERE.glob("*.dialogue"))
UNCHOSEN = 5.0  # seconds of a stage's timeout where a dialogue chooses none
RULES = parse_rules((HERE.parents[1] / "config" / "replies.toml").read_text())


class LoopClock:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self._loop.call_at(when, callback)


class ListFeed:
    """Hands out the deliveries in order; `over` is set when each is done, or when the site is in trouble."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        self.waiting = list(deliveries)
        self.done_with: list[tuple[Delivery, Attempt]] = []
        self.over = asyncio.Event()
        self._count = len(deliveries)

    def next(self, in_company: bool = False) -> Envelope | None:
        is_kept = not self.waiting or (in_company and self.waiting[0].is_alone)
        return None if is_kept else self.waiting.pop(0)

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        assert isinstance(delivery, Delivery)
        self.done_with.append((delivery, attempt))
        if len(self.done_with) == self._count:
            self.over.set()


def described(name: str, attempt: Attempt) -> str:
    assert msgspec.json.encode(attempt), "whatever the peer said, it can be written down"
    verdict = judge(attempt, 0, 0.0, SendPolicy(), RULES)
    what = f"{attempt.reply.code} {attempt.reply.enhanced}".strip() if attempt.reply else attempt.fault
    tries = "try" if verdict.spends_try else "no try"
    suspend = f", {verdict.suspend_s:g} s" if verdict.suspend_s else ""
    return f"{name}: {attempt.stage.name} {what} -> {verdict.action}, {verdict.scope}, {tries}{suspend}"


def deliveries_of(dialogue: Dialogue) -> list[Delivery]:
    size = int(dialogue.settings.get("size", "0"))
    text = dialogue.settings.get("text", "hello").encode()
    return [
        Delivery(
            number,
            b"bounces@example.com",
            b"r%d@example.net" % number,
            b"Subject: %d\r\n\r\n%b\r\n" % (number, text) + (b"x" * 78 + b"\r\n") * (size // 80),
            dialogue.settings.get("eightbit") == "yes",
            str(number) in dialogue.settings.get("alone", "").split(),
        )
        for number in range(1, int(dialogue.settings.get("messages", "1")) + 1)
    ]


def chosen_timeouts(dialogue: Dialogue) -> dict[str, float]:
    items = (item.partition("=") for item in dialogue.settings.get("timeouts", "").split())
    return {name: float(seconds) for name, _, seconds in items}


def patience_with(dialogue: Dialogue) -> float:
    """Seconds within which it must be over."""
    return (sum(chosen_timeouts(dialogue).values()) or UNCHOSEN) + float(dialogue.settings.get("idle", "0")) + 1.0


def settings_of(dialogue: Dialogue) -> SmtpSettings:
    timeouts = dict.fromkeys(StageTimeouts.__struct_fields__, UNCHOSEN) | chosen_timeouts(dialogue)
    trusted = dialogue.settings.get("trust", "")
    return SmtpSettings(
        hostname="client.example",
        sessions=1,
        max_messages=int(dialogue.settings.get("max", "0")),
        chunk_messages=int(dialogue.settings.get("chunk", "1")),
        tick=0.01,
        idle_timeout=float(dialogue.settings.get("idle", "60")),
        ca_file=str(HERE / f"{trusted}.pem") if trusted else "",
        timeouts=msgspec.convert(timeouts, StageTimeouts),
    )


async def play(dialogue: Dialogue, octets_apart: bool = False) -> tuple[list[str], SmtpSite]:
    deliveries = deliveries_of(dialogue)
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    feed = ListFeed(deliveries)
    async with Player(dialogue, deliveries, octets_apart) as player:
        user, _, password = dialogue.settings.get("auth", "").partition(":")
        host = dialogue.settings.get("host", "127.0.0.1")
        relay = Relay(host, player.port, user, password, TlsPolicy(dialogue.settings.get("tls", "none")))
        channel = SmtpChannel(settings_of(dialogue), LoopClock(), random=lambda: 0.0)

        closed = asyncio.Event()

        def changed() -> None:
            if site.trouble:
                feed.over.set()
            if site.sessions == 0:
                closed.set()

        site = channel.site(relay, feed, changed)
        site.wake()
        async with asyncio.timeout(patience_with(dialogue)):
            await feed.over.wait()
            if dialogue.settings.get("until") == "closed":
                await closed.wait()
        await channel.close(1.0)
        await player.end()
        if player.failure:
            raise player.failure
        assert player.played == len(dialogue.connections), "the talk was not played to its end"
    assert not escaped
    met = [described(str(delivery.number), attempt) for delivery, attempt in feed.done_with]
    if site._trouble and not met:
        met.append(described("site", site._trouble.attempt))
    return met, site


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
async def test_dialogue(path: Path) -> None:
    dialogue = read(path)
    met, _ = await play(dialogue)
    assert met == dialogue.expected


def opens_by_words(dialogue: Dialogue) -> bool:
    """Silence has no octets to keep apart, and what shows only together is lost that way."""
    settings = dialogue.settings
    return settings.get("handshake") == "no" and "timeouts" not in settings and settings.get("together") != "yes"


OPENINGS = [path for path in PATHS if opens_by_words(read(path))]


@pytest.mark.parametrize("path", OPENINGS, ids=lambda path: path.stem)
async def test_opening_an_octet_at_a_time(path: Path) -> None:
    """What comes behind the opening is split in test_splits.py, without sockets."""
    dialogue = read(path)
    met, _ = await play(dialogue, octets_apart=True)
    assert met == dialogue.expected
