"""What the parts share: a stage with a relay, workers that all take part, billing, and one clock for who asks and for who sees.

The trial relay takes the time of each MAIL by a clock that never steps (trial.ledger.WallClock); so does whoever acts here, on the same
machine, so a difference of the two is one of the monotonic clock.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson

from benchmarks.analysis import above_ceiling, lost_and_twice
from benchmarks.bench import Bench, message
from benchmarks.letter import rows, sender
from sendengine.client import Client
from sendengine.config import Config
from sendengine.policy.billing import HEADER, sign
from sendengine.scheduler.billing import Applied
from sendengine.scheduler.status import Status
from sendengine.trial.ledger import WallClock
from sendengine.trial.stage import Stage

WITHIN = 1.0  # seconds in which a verb is in force (domain 3)
WATCHED = 2.5  # seconds for which nothing may come
SOON = 30.0  # within which what is waited for has to come
EVERYBODY = {"SENDENGINE_ENGINE_SPREAD_ABOVE": "1"}  # an account is offered to all processes
_SECRET = b"what billing and this stage share"
_LOOK_S = 0.05


class Seen(msgspec.Struct, frozen=True):
    """A MAIL: when the relay read it, and to whom."""

    at: float
    recipient: str


class Whole(msgspec.Struct, frozen=True):
    """What became of a send, by its outcomes and by the relay."""

    outcomes: dict[str, int]
    lost: int  # accepted and without an outcome, or `sent` and never seen
    twice: int  # MAILs beyond the first to anybody
    stray: int  # seen, and not `sent`
    findings: int  # of fsck
    workers: int  # that sent some of it

    @property
    def is_whole(self) -> bool:
        return self.lost == self.twice == self.stray == self.findings == 0


class Scene:
    """One stage. Sends are called `bench` in their accounts, and known at the relay by their senders (letter.py)."""

    def __init__(self, stage: Stage, client: Client, flags: Sequence[str]) -> None:
        self.bench, self.stage, self.client = Bench(stage, client), stage, client
        self._mails = stage.folder / "mails.ndjson"
        self.relay = stage.relay(*flags, "--transactions", str(self._mails))
        self.now = WallClock().now
        self._sequences: Counter[str] = Counter()

    async def workers(self, processes: int, environ: Mapping[str, str] | None = None) -> Any:
        worker = self.stage.worker("-p", str(processes), environ={**EVERYBODY, **(environ or {})})
        await self.bench.workers_ready(processes)
        return worker

    async def account(self, account: str, per_hour: int) -> None:
        await self.bench.account(account, f"{per_hour}", self.relay.port)

    async def submit(self, account: str, count: int) -> None:
        send = await self.client.submit(account=account, message=message(account), recipients=rows(account, count), campaign="bench")
        assert send.accepted == count

    async def event(self, account: str, type_: str, ahead: int = 0, **said: Any) -> Applied:
        """Signed, and in its turn, as billing brings it; or so many ahead of it."""
        number = self._sequences[account] + 1 + ahead
        self._sequences[account] += not ahead
        head = {"id": f"evt_{account}_{number}", "account": account, "sequence": number, "at": datetime.now(UTC), "type": type_}
        raw = orjson.dumps({**head, **said})
        return await self.client.apply_event(raw, {HEADER: sign(raw, [_SECRET], await self.redis_now())})

    async def redis_now(self) -> float:
        """UNIX seconds by Redis' clock, which a term's end and a boost's times are read on."""
        return await self.client.desk.now_us() / 1e6

    async def at(self, redis_time: float) -> float:
        """That moment on the clock of this scene."""
        before, redis, after = self.now(), await self.redis_now(), self.now()
        return (before + after) / 2 + redis_time - redis

    def seen(self, account: str) -> list[Seen]:
        """Every MAIL of an account so far, in order, also of what was broken off behind it."""
        content, wanted = self._mails.read_bytes(), sender(account)
        lines = (orjson.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines())
        return sorted((Seen(line["at"], line["rcpt_to"]) for line in lines if line["mail_from"] == wanted), key=lambda seen: seen.at)

    def times(self, account: str) -> list[float]:
        return [seen.at for seen in self.seen(account)]

    async def until_seen(self, account: str, count: int) -> None:
        await until(lambda: _answer(len(self.seen(account)) >= count))

    async def status(self, account: str) -> Status:
        return await self.client.status(f"{account}:bench")

    async def finished(self, account: str, within: float = SOON) -> Status:
        return await self.bench.finished(f"{account}:bench", within)

    async def whole(self, account: str, count: int) -> Whole:
        """Of a send that has ended."""
        ended = [outcome async for outcome in self.client.outcomes(f"{account}:bench")]
        sent = [outcome.recipient for outcome in ended if outcome.outcome == "sent"]
        came = [seen.recipient for seen in self.seen(account)]
        missing, twice = lost_and_twice(came, sent)
        return Whole(
            outcomes=dict(Counter(str(outcome.outcome) for outcome in ended)),
            lost=missing + count - len(ended),
            twice=twice,
            stray=len(set(came) - set(sent)),
            findings=len([finding async for finding in self.client.fsck(f"{account}:bench")]),
            workers=len({outcome.worker for outcome in ended if outcome.worker}),
        )


@asynccontextmanager
async def scene(*flags: str) -> AsyncIterator[Scene]:
    """`flags`: of the relay, else it takes a moment for each message, so that several are under way."""
    with Stage() as stage:
        secrets = stage.folder / "billing"
        secrets.write_bytes(_SECRET + b"\n")
        async with Client(stage.url, config=Config(billing_secrets_file=str(secrets))) as client:
            yield Scene(stage, client, flags or ("--delay", "dot=0.02"))


async def until(holds: Callable[[], Awaitable[bool]], within: float = SOON) -> None:
    """Looks until it holds: what other processes do tells nobody."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)


async def _answer(value: bool) -> bool:
    return value


def written(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an NDJSON file."""
    content = path.read_bytes()
    return [orjson.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def rate(times: Sequence[float]) -> float:
    """Messages a second, by their spacing (domain 1.3)."""
    return (len(times) - 1) / (times[-1] - times[0])


def between(times: Sequence[float], since: float, until: float) -> list[float]:
    return [at for at in times if since <= at < until]


def burst(times: Sequence[float], per_hour: float) -> float:
    """How far the worst window, however long, lies above the ceiling of a rate (domain 1.2); at most 0 is right."""
    return above_ceiling(times, per_hour / 3600, float("inf"))
