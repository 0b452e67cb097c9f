"""Real workers, a real server and an independent relay to break; and the account that must hold afterwards.

Every process is a child of the stage and ends with it. Waiting is polling, with a bound; what blocks runs in a thread, since the proxies
share this loop.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sendengine import records
from sendengine.client import Client
from sendengine.config import load
from sendengine.engine.remains import Remains, read, settlements_of
from sendengine.launch import EXIT_FENCED
from sendengine.queue import embedded, keys
from sendengine.render.message import Message
from sendengine.trial.sink import SinkOptions
from sendengine.trial.stage import Stage
from sendengine.wiring import relay_from_url
from tests.failures.account import (
    RECOVERS_WITHIN,
    Account,
    Dot,
    Doubt,
    Ended,
    Excuses,
    Line,
    Silence,
    address_of,
    reckon,
    token_in,
    token_of,
)

ROOT = Path(__file__).parent.parent.parent
ACCOUNT = "m1"
MESSAGE = Message(
    sender="Shop <shop@example.com>",
    subject="Letter {{ token }}",
    text="Dear {{ token }},\n\nthis is for {{ token }}.\n",
    html="<p>Dear {{ token }}</p>\n",
    list_unsubscribe="https://shop.example/u?who={{ token }}",
)
QUICK = {"SENDENGINE_ENGINE_DEAD_AFTER_S": "2"}  # a takeover takes 2.5 s then
SHARED = {"SENDENGINE_ENGINE_SPREAD_ABOVE": "1"}  # every worker attaches to the account
FEW_SESSIONS = "4"  # with trains: so much waits for each session that its trains are full
RESUMES_WITHIN = 10.0  # seconds, when Redis is back
# scenarios whose recoveries are of that kind
REDIS_IS_BACK = ("redis_kills", "redis_forgets", "power_fails", "forgets_by_turns", "redis_cuts")
DOUBTFUL = (records.KIND_INTENT, records.KIND_DOUBT)
STARTS_WITHIN = 20.0  # seconds, all workers of a trial, on a busy machine
LIMIT = 60.0  # seconds that any of these waits may take
NO_TRAINS = "hardly any trains were there"
ENDED_EARLY = "the send ended before its faults were over"


class Ledger:
    """What the relay wrote down, read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.dots: list[Dot] = []
        self.begun: list[tuple[float, str]] = []
        self._mails: defaultdict[str, list[float]] = defaultdict(list)

    def read(self) -> int:
        """Dots so far."""
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self._offset += end
        for line in content[:end].splitlines():
            self._add(orjson.loads(line))
        return len(self.dots)

    def _add(self, line: dict[str, Any]) -> None:
        token = token_in(line["to"])
        if "head" not in line:
            self.begun.append((line["mail_at"], token))
            self._mails[line["client"]].append(line["mail_at"])
            return
        reply = line["reply"]
        is_crossed = line["head"] != [token] or line["body"] != [token]
        self.dots.append(
            Dot(
                line["mail_at"], token, reply == "" or reply[0] == "2", reply[:1] == "2", is_crossed, line["session"], line["peer"],
                line["client"], line["behind"],
            )
        )  # fmt: skip

    def mails_since(self, client: str, at: float) -> int:
        """Transactions that this client began later than that (wall time)."""
        self.read()
        return sum(mail_at > at for mail_at in self._mails[client])


class Hand(msgspec.Struct, eq=False):
    """A worker process, and the files by which a faulty one is led."""

    folder: Path
    number: int
    process: subprocess.Popen[bytes] = None  # type: ignore[assignment]  # set when it is started
    id: str = ""
    client: str = ""  # what it greets as; "" where others greet so, too
    is_expected_to_end: bool = False  # killed, stopped, or broken on purpose

    @property
    def record(self) -> Path:
        return self.folder / f"fault-{self.number}"

    @property
    def release(self) -> Path:
        return self.folder / f"release-{self.number}"

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def has_fired(self) -> bool:
        return self.record.exists()

    def struck(self) -> str:
        """What its fault has struck: a session or a recipient."""
        return self.record.read_text().splitlines()[0].split(" ")[2]


class Rig:
    """Owner of a stage, its relay and its workers, and of what was found out about the faults."""

    def __init__(self, stage: Stage, seed: int, port: int) -> None:
        self.stage, self.seed, self.port = stage, seed, port
        self.random = random.Random(seed)
        self.ledger = Ledger(stage.folder / "tokens.ndjson")
        self.accepted: dict[str, str] = {}  # token -> campaign
        self.silences: list[Silence] = []
        self.hands: list[Hand] = []
        self.faults = 0
        self.doubts: list[int] = []  # W of each worker that was lost
        self.standing: list[int] = []  # W of the one that had most, of workers alive, when a fault met them
        self.met: list[tuple[float, frozenset[str]]] = []  # wall time of such a fault, and tokens in doubt then
        self.excuses = Excuses()
        self.zombies: list[tuple[str, float]] = []  # what each greets as, and when it was woken
        self.recoveries: list[float] = []
        self.stops: list[tuple[float, float]] = []  # seconds that each warm stop took, and may take
        self.expects: list[str] = []  # promises that were not kept
        self._watchers: set[asyncio.Task[None]] = set()
        self.client: Client
        self.redis: Any  # redis.asyncio types every reply as anything
        self.relay_port = 0
        self._sink: subprocess.Popen[bytes]

    # the relay

    async def start_relay(self, **options: Any) -> None:
        """Options as SinkOptions; the same port again after a kill."""
        words = SinkOptions(port=self.relay_port, **options)
        self._options = options
        self._sink = self.stage.start(
            sys.executable, "-m", "tests.failures.sink", msgspec.json.encode(words).decode(), str(self.stage.folder / "tokens.ndjson"),
            environ={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._sink.stdout is not None
        line = await asyncio.to_thread(self._sink.stdout.readline)
        self.relay_port = orjson.loads(line)["port"]

    async def kill_relay(self) -> None:
        self._sink.kill()
        await asyncio.to_thread(self._sink.wait)

    async def restart_relay(self) -> None:
        await self.start_relay(**self._options)

    # sends

    async def submit(
        self, n: int, per_second: float | None, on_doubt: str = "resend", campaign: str = "c", relay_port: int = 0, account: str = ACCOUNT
    ) -> str:
        tier = "unmetered" if per_second is None else str(per_second * 3600)
        relay = relay_from_url(f"smtp://127.0.0.1:{relay_port or self.relay_port}", "", "none")  # type: ignore[arg-type]
        await self.client.create_account(account, tier, relay=relay)
        tokens = [token_of(self.seed, campaign, row) for row in range(n)]
        rows = ({"email": address_of(token), "token": token} for token in tokens)
        send = await self.client.submit(account=account, message=MESSAGE, recipients=rows, campaign=campaign, on_doubt=on_doubt)
        self.accepted.update(dict.fromkeys(tokens, campaign))
        return send.campaign

    async def until_sent(self, n: int, limit: float = LIMIT) -> None:
        """The relay has n dots. Where it will never have so many the trial is broken: a fault that comes when all is sent meets nothing."""

        async def are_there() -> bool:
            return self.ledger.read() >= n or await self._has_ended()

        await until(are_there, f"{n} messages at the relay", limit)

    async def _has_ended(self) -> bool:
        has = bool(await self.redis.hexists(keys.campaign(ACCOUNT, "c"), "finished"))
        self.promise(not has, ENDED_EARLY)
        return has

    async def demand_unended(self) -> None:
        """The faults are over, or the last verb is about to be given: the send must not be."""
        await self._has_ended()

    async def until_more(self, n: int = 1, limit: float = LIMIT) -> float:
        """n more than now; the seconds that took."""
        began = time.monotonic()
        await self.until_sent(self.ledger.read() + n, limit)
        return time.monotonic() - began

    # workers

    def start(
        self, *, failpoint: str = "", control: str = "", url: str = "", is_shared: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> Hand:  # fmt: skip
        """A worker process: workers.send as it is, or the faulty one when any fault is asked of it."""
        number = len(self.hands)
        hand = Hand(self.stage.folder, number, client=f"worker-{number}.example.com")
        faulty = {
            "FAILPOINT": failpoint, "FAULT_CONTROL": control, "FAULT_RECORD": str(hand.record), "FAULT_RELEASE": str(hand.release),
        }  # fmt: skip
        is_faulty = bool(failpoint or control or any(name.startswith("FAULT_") for name in environ or ()))
        own = {
            **QUICK, **(SHARED if is_shared else {}), **(faulty if is_faulty else {}), **(environ or {}), "PYTHONPATH": str(ROOT),
            "SENDENGINE_HOSTNAME": hand.client,
        }  # fmt: skip
        if url:
            own["SENDENGINE_REDIS_URL"] = url
        module = "tests.failures.faulty_worker" if is_faulty else "workers.send"
        hand.process = self.stage.start(sys.executable, "-m", module, environ=own)
        self.hands.append(hand)
        return hand

    async def start_all(self, n: int, **options: Any) -> list[Hand]:
        """n of them that share the account, when all of them send."""
        hands = [self.start(**options) for _ in range(n)]
        for hand in hands:
            await self.join(hand)
        return hands

    async def know(self, hand: Hand) -> str:
        """Its worker id, once it is registered."""

        async def find() -> bool:
            names = [name.decode() for name in await self.redis.smembers(keys.WORKERS)]
            hand.id = next((name for name in names if f"-{hand.process.pid}-" in name), "")
            return bool(hand.id) or not hand.is_alive

        if not hand.id:
            await until(find, "the worker registers")
        return hand.id

    async def join(self, hand: Hand) -> Hand:
        """Until it sends: the index hints at the account again and again, and at some time it is this worker that asks."""
        await self.know(hand)

        async def holds() -> bool:
            await self.redis.zadd(keys.INDEX, {ACCOUNT: 0})
            return await self._has_ended() or not hand.is_alive or hand.has_fired() or hand.id in await self.holders()

        await until(holds, f"{hand.id} takes a lease")
        return hand

    async def holders(self) -> set[str]:
        """Workers that hold a lease of the account."""
        return {records.decode_lease(lease).worker for lease in await self.redis.hvals(f"{keys.account(ACCOUNT)}:lease")}

    @property
    def living(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.is_alive and not hand.is_expected_to_end]

    def promise_trains(self, together: int) -> None:
        """So far a quarter of the messages, at the least, had others behind them before they were answered, and there was a full train."""
        self.ledger.read()
        behind = [dot.behind for dot in self.ledger.dots]
        some, most = sum(n > 0 for n in behind), max(behind, default=0)
        print(f"  trains: {some} of {len(behind)} messages had others behind them, up to {most}")
        self.promise(some * 4 >= len(behind) and most >= together - 1, NO_TRAINS)

    def promise(self, is_kept: bool, what: str) -> None:
        """What a scenario owes beside the identity."""
        if not is_kept and what not in self.expects:
            self.expects.append(what)

    async def kill(self, hand: Hand) -> int:
        """SIGKILL; its W: intents without outcome in the journal that it left."""
        await self.know(hand)
        hand.is_expected_to_end = True
        hand.process.kill()
        await self.wait(hand)
        return await self.mourn(hand)

    async def mourn(self, hand: Hand) -> int:
        """It is dead, or not reachable: note whom it leaves in doubt before somebody takes over, and how long that takes."""
        died = time.monotonic()
        remains = await self._remains(hand.id)
        self.excuses.doubts.append(Doubt(hand.client, self.in_doubt(remains)))
        w = sum(len(one.doubts) // records.DOUBT.size for many in settlements_of(remains, 0).values() for one in many)
        self.faults += 1
        self.doubts.append(w)
        watcher = asyncio.create_task(self._until_taken_over(hand.id, died))
        self._watchers.add(watcher)
        return w

    async def _remains(self, worker: str) -> Remains:
        """Read until nothing more comes: the last append may lie in the server's socket still."""
        journal, before = await self._journal(worker), None
        while journal != before:
            await asyncio.sleep(0.03)
            journal, before = await self._journal(worker), journal
        return read(journal)

    def in_doubt(self, remains: Remains) -> frozenset[str]:
        """Tokens with an intent and no outcome, or an answer that was lost."""
        found: set[str] = set()
        for number, note in remains.notes.items():
            rows = remains.rows.get(number, {})
            found.update(self.token(note.campaign, note.batch, row) for row, (kind, _) in rows.items() if kind in DOUBTFUL)
        return frozenset(found)

    def token(self, campaign: str, batch: int, row: int) -> str:
        return token_of(self.seed, campaign, records.ROWS * batch + row)

    async def _journal(self, worker: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = await self.redis.hgetall(keys.journal(worker))
        assert found, f"{worker} was taken over before its journal could be read"
        return found

    async def until_in_doubt(self, n: int) -> None:
        """So many intents of living workers stand without outcome: a fault in this moment meets them."""

        async def are_many() -> bool:
            journals = [await self.redis.hgetall(keys.journal(hand.id)) for hand in self.living]
            found[:] = [self.in_doubt(read(journal)) for journal in journals]
            return sum(map(len, found)) >= n

        found: list[frozenset[str]] = []
        await until(are_many, f"{n} intents without outcome")
        self.standing.append(max(map(len, found)))
        self.met.append((time.time(), frozenset[str]().union(*found)))

    def met_on_the_wire(self) -> int:
        """Of those whom faults met in doubt, so many had a message begun by then: what became of it was learnt while Redis was away."""
        self.ledger.read()
        begun: dict[str, float] = {}
        for at, token in self.ledger.begun:
            begun[token] = min(at, begun.get(token, at))
        return sum(begun.get(token, at) < at for at, tokens in self.met for token in tokens)

    async def _until_taken_over(self, worker: str, since: float) -> None:
        async def is_gone() -> bool:
            return not await self.redis.exists(keys.journal(worker))

        await until(is_gone, "a takeover", every=0.1)
        self.recoveries.append(time.monotonic() - since)

    def awake(self, hand: Hand) -> None:
        """It was taken over, and is about to go on: from now on it begins nothing."""
        self.zombies.append((hand.client, time.time()))

    async def busy(self) -> Hand:
        """A worker that holds a lease."""
        found: list[Hand] = []

        async def look() -> bool:
            holders = await self.holders()
            found.extend(hand for hand in self.hands if hand.is_alive and hand.id in holders)
            return bool(found)

        await until(look, "a lease")
        return self.random.choice(found)

    async def until_fenced(self, hand: Hand) -> None:
        """A rescuer holds its journal."""

        async def is_fenced() -> bool:
            return (await self.redis.hget(keys.journal(hand.id), "t")) in (None, records.REVOKED)

        await until(is_fenced, "the fence")

    async def wait(self, hand: Hand, limit: float = LIMIT) -> int:
        """Its exit status."""
        return await asyncio.to_thread(hand.process.wait, limit)

    async def term(self, hand: Hand, limit: float, wanted: int = 0) -> None:
        """A warm stop; how long it took must be within the limit."""
        hand.is_expected_to_end = True
        began = time.monotonic()
        hand.process.terminate()
        code = await self.wait(hand)
        took = time.monotonic() - began
        self.faults += 1
        self.stops.append((took, limit))
        self.promise(code == wanted, f"a stop ended with {code}")
        self.promise(took <= limit, f"a stop took {took:.1f} s")

    # Redis

    async def kill_redis(self, met: int = 0) -> None:
        """As soon as so many intents stand without outcome, if any must."""
        status = await asyncio.to_thread(embedded.status, self.stage.folder)
        assert status is not None
        if met:
            await self.until_in_doubt(met)
        os.kill(status.pid, signal.SIGKILL)

    async def restart_redis(self) -> None:
        await asyncio.to_thread(embedded.ensure, self.stage.folder, True, self.port)

    # the end

    async def finish(self, campaign: str, account: str = ACCOUNT) -> None:
        """The faults are over. The rest at full speed, at a relay that takes no time any more; then everybody leaves, so that the ledger is
        at rest too."""
        await self.demand_unended()
        self._sink.send_signal(signal.SIGUSR1)
        await self.client.set_tier(account, "unmetered")
        await self.until_ended(campaign)
        await self.leave()

    async def until_ended(self, campaign: str) -> None:
        """As long as messages arrive at the relay it has not come to a stop, however long the list is."""

        async def is_over() -> bool:
            return (await self.client.status(campaign)).finished_at is not None

        while True:
            arrived = self.ledger.read()
            try:
                await until(is_over, f"{campaign} ends")
                return
            except TimeoutError:
                if self.ledger.read() == arrived:
                    raise TimeoutError(await self._what_stands_still(campaign)) from None

    async def _what_stands_still(self, campaign: str) -> str:
        status, why = await self.client.status(campaign), await self.client.why(campaign)
        alive = {hand.id: hand.process.pid for hand in self.hands if hand.is_alive}
        leases = [records.decode_lease(lease) for lease in await self.redis.hvals(f"{keys.account(ACCOUNT)}:lease")]
        held = {(lease.worker, len(lease.token)) for lease in leases}
        journals = [name.decode() for name in await self.redis.smembers(keys.WORKERS)]
        return f"{campaign} stands still: {status} {why} alive {alive} leases {held} journals {journals}"

    async def leave(self) -> None:
        watchers, self._watchers = self._watchers, set()
        await asyncio.gather(*watchers)
        alive = [hand for hand in self.hands if hand.is_alive]
        for hand in alive:
            hand.process.terminate()
        for hand in alive:
            await self.wait(hand)
        robbed = [hand for hand in self.hands if not hand.is_expected_to_end and hand.process.returncode == EXIT_FENCED]
        self.promise(not robbed, f"{len(robbed)} healthy workers were robbed")

    async def account(self, *campaigns: str) -> Account:
        ended = []
        for campaign in campaigns:
            async for one in self.client.outcomes(campaign):
                ended.append(Ended(token_in(one.recipient), str(one.outcome), f"{one.status} {one.reply}".strip()))
        self.ledger.read()
        return reckon(self.accepted, ended, self.ledger.dots, self.ledger.begun, self.silences, self.excuses)

    async def line(self, scenario: str, *campaigns: str, bound: int | None = None) -> Line:
        """The account of the trial. `bound` of duplicates: else the doubts of the workers that were lost. The recovery is that of the
        stop, where nothing but stops was there to recover from."""
        times = [(took, RECOVERS_WITHIN) for took in self.recoveries] or self.stops
        recovery, within = max(times, default=(0.0, RECOVERS_WITHIN))
        if scenario in REDIS_IS_BACK:
            within = RESUMES_WITHIN
        self.promise(not any(self.ledger.mails_since(*zombie) for zombie in self.zombies), "a zombie began a message")
        findings = 0
        for campaign in campaigns:
            findings += len([finding async for finding in self.client.fsck(campaign)])
        return Line(
            scenario=scenario, seed=self.seed, faults=self.faults, account=await self.account(*campaigns),
            bound=sum(self.doubts) if bound is None else bound, most_doubtful=max(self.doubts + self.standing, default=0),
            recovery=recovery, within=within, findings=findings, expects=tuple(self.expects),
        )  # fmt: skip


def lasting(rounds: int, seconds: float, per_second: float) -> int:
    """Recipients for so many faults, each of so many seconds with all that belongs to it on a busy machine. What is left goes at full
    speed."""
    return int((STARTS_WITHIN + rounds * seconds) * per_second)


def trains_of(together: int) -> dict[str, str]:
    """Environment of a worker. Of one message at a time there are no trains, and sessions are as shipped."""
    return {"SENDENGINE_CHUNK_MESSAGES": str(together), "SENDENGINE_SESSIONS": FEW_SESSIONS} if together > 1 else {}


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, limit: float = LIMIT, every: float = 0.03) -> None:
    """Polls. Redis may be away meanwhile."""
    end = time.monotonic() + limit
    while True:
        try:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
        except (RedisError, OSError):
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit:g} s for: {what}")
        await asyncio.sleep(every)


@asynccontextmanager
async def failure_rig(seed: int = 1, over_tcp: bool = False, **relay: Any) -> AsyncIterator[Rig]:
    """`relay`: SinkOptions. `over_tcp`: Redis listens on a port too, for a proxy to stand before it."""
    with Stage() as stage:
        port = free_port() if over_tcp else 0
        if over_tcp:
            await asyncio.to_thread(embedded.stop, stage.folder)
            stage.url = await asyncio.to_thread(embedded.ensure, stage.folder, True, port)
        rig = Rig(stage, seed, port)
        await rig.start_relay(**relay)
        config = msgspec.structs.replace(load(), retry="1s*60")
        async with Client(stage.url, config=config) as rig.client, Redis.from_url(stage.url) as rig.redis:
            yield rig


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


