"""What a message costs by stage: each part of the way alone, on the engine's own modules, in µs of CPU a message.

The stages take turns, a reference between them: a fixed loop of plain Python, of the same kind of work. A stage divided by the reference of
its own round is a figure that a busy machine disturbs little; the guard compares those. The kernel's part is in none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.analysis import Spread, spread
from benchmarks.bench import Chart, Result, message
from benchmarks.interpreter import work
from benchmarks.letter import recipient, rows, sender
from sendengine import records
from sendengine.batch import BATCH_ROWS, Batch, pack, unpack
from sendengine.channel.flight import Features
from sendengine.channel.session import Session
from sendengine.channel.settings import StageTimeouts
from sendengine.engine.campaigns import Campaign
from sendengine.engine.feed import Feed
from sendengine.engine.identity import Identity
from sendengine.engine.journal import Journal
from sendengine.engine.lane import Lane
from sendengine.engine.settings import EngineSettings
from sendengine.engine.visits import Visits
from sendengine.engine.work import Delivery, Lease, Share
from sendengine.policy.replies import ReplyRules
from sendengine.policy.verdict import SendPolicy, judge
from sendengine.ports import CampaignRecord
from sendengine.queue.memory import MemoryQueue
from sendengine.queue.memory_state import MemoryStore
from sendengine.render.compile import compile as compile_message
from sendengine.sink.silent import SilentMeter
from sendengine.types import Attempt, Envelope, Outcome, Relay, Reply, Stage

TITLE = "stages: what a message costs before and behind the kernel, µs of CPU, each stage alone"
REFERENCE = "reference loop"
_ACCOUNT = "m1"
_DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"
_BATCHES = 50  # a turn's work: 5,000 messages
_MESSAGES = _BATCHES * BATCH_ROWS
_SWING = b"250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
Turn = Callable[[], object]  # the work of _MESSAGES messages


async def run(quick: bool) -> Result:
    return result(measure(9 if quick else 31))


def measure(rounds: int) -> dict[str, list[float]]:
    """CPU µs a message of each stage and of the reference, a value for each round; the first round is thrown away."""
    turns = stages()
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            before = time.process_time()
            turn()
            if number:
                taken[name].append((time.process_time() - before) / _MESSAGES * 1e6)
    return taken


def ratios(taken: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each stage over the reference of the same round."""
    reference = taken[REFERENCE]
    return {name: [a / b for a, b in zip(values, reference, strict=True)] for name, values in taken.items() if name != REFERENCE}


def stages() -> dict[str, Turn]:
    """Every stage's turn, made ready."""
    people = list(rows(_ACCOUNT, BATCH_ROWS))
    names = ("first_name", "city")
    columns: list[list[Any]] = [[person[name] for person in people] for name in names]
    to = [person["email"] for person in people]
    payload = pack(Batch(1, list(range(BATCH_ROWS)), to, names, columns))
    renderer = compile_message(message(_ACCOUNT), "stages").renderer(True)
    values = [row for row in renderer.prepare(names, columns, to) if isinstance(row, tuple)]

    def prepare() -> None:
        for _ in range(_BATCHES):
            batch = unpack(payload)
            renderer.prepare(batch.fields, batch.columns, batch.recipients)

    def render() -> None:
        for number in range(_BATCHES):
            for row, own in enumerate(values):
                renderer.wire(own, number * BATCH_ROWS + row, _DATE)

    return {
        REFERENCE: reference,
        "unpack and prepare": prepare,
        "render": render,
        "journal: intent and outcome": _journal,
        "session": _Session(renderer.wire(values[0], 1, _DATE)).turn,
        "verdict": _verdict,
        "settle": _settle,
    }


def reference() -> int:
    return work(5 * _MESSAGES)


# the stages that need something to hold


def _delivery(lease: Lease, row: int, wire: bytes = b"") -> Delivery:
    one = Delivery()
    one.lease, one.row, one.wire, one.eightbit, one.is_resolved = lease, row, wire, True, False
    one.sender, one.recipient = sender(_ACCOUNT).encode(), recipient(_ACCOUNT, row).encode()
    return one


def _lease() -> Lease:
    settings, relay = EngineSettings(), Relay("127.0.0.1")
    feed = Feed(relay, 1.0, lambda: 0.0, lambda *_: None, _ignore, _ignore, lambda *_: None)
    campaign = Campaign("c", CampaignRecord({"uid": "1", "sender": sender(_ACCOUNT), "retry": "1m"}, b""))
    return Lease(1, b"token", Share(Lane(_ACCOUNT, relay, feed, settings), campaign), 0, list(range(BATCH_ROWS)), 0.0)


def _new_journal() -> Journal:
    queue = MemoryQueue(MemoryStore(), lambda: 0.0)
    return Journal(queue, Identity("w"), EngineSettings(), SilentMeter(), lambda: 0.0, _ignore, _ignore, _ignore, tuple)


def _ignore(_: object) -> None:
    pass


def _body(row: int) -> bytes:
    return records.OUTCOME.pack(row, Outcome.SENT | records.FIRST_TRY, 1, 0, 123_456_789, 0.5, 0.01, 0)


def _journal() -> None:
    """An intent and an outcome encoded into a tick, which goes when it is written, as it does in a worker."""
    lease = _lease()
    for _ in range(_BATCHES):
        journal = _new_journal()
        for row in range(BATCH_ROWS):
            one = _delivery(lease, row)
            journal.intend(one)
            journal.resolve(one, records.KIND_OUTCOME, _body(row), 1e15, 0)


def _settle() -> None:
    """A hundred journalled outcomes absorbed by their lease, and its settlement encoded."""
    journal = _new_journal()
    journal.reply(b'["2.0.0","Ok","127.0.0.1:25"]')
    queue = MemoryQueue(MemoryStore(), lambda: 0.0)
    visits = Visits(queue, journal, EngineSettings(), SilentMeter(), lambda: 0.0, lambda: 0.0, _ignore, _ignore)
    one, share = Delivery(), _lease().share
    for _ in range(_BATCHES):
        lease = Lease(1, b"token", share, 0, list(range(BATCH_ROWS)), 0.0)
        lease.open = BATCH_ROWS
        for row in range(BATCH_ROWS):
            one.kind, one.record, one.mail_wall, one.reply = records.KIND_OUTCOME, _body(row), 1e15, 0
            lease.absorb(one, 1.0)
        visits._settlement(lease)


def _verdict() -> None:
    policy, rules = SendPolicy(lifetime=86400.0), ReplyRules([])
    attempt = Attempt(Stage.DOT, Reply(250, "2.0.0", "Ok"), None, 1.0, 1.1, 0.0)
    for _ in range(_MESSAGES):
        judge(attempt, 0, 0.0, policy, rules)


class _Session:
    """A session in full swing: reply in, message and the next one's commands out."""

    def __init__(self, wire: bytes) -> None:
        self._delivery = _delivery(_lease(), 1, wire)
        features = Features(pipelining=True, eightbit=True, size=True)
        self._session = Session(self, features, StageTimeouts())
        self._session.next_write(0.0)
        self._session.receive(_SWING[14:], 0.0)  # a first one: no dot is answered yet
        self._session.next_write(0.0)

    def next(self, in_company: bool = False) -> Envelope | None:
        return self._delivery

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        pass

    def turn(self) -> None:
        session = self._session
        for _ in range(_MESSAGES):
            session.receive(_SWING, 1.0)
            session.next_write(1.0)
        assert not session.ended_by


# what it comes to


def result(taken: dict[str, list[float]]) -> Result:
    spreads = {name: spread(values) for name, values in taken.items()}
    over = {name: spread(values) for name, values in ratios(taken).items()}
    rows_ = [_row(name, own, over.get(name)) for name, own in spreads.items()]
    total = sum(own.median for name, own in spreads.items() if name != REFERENCE)
    rows_.append(["together, without the reference", f"{total:.2f}", "", ""])
    columns = ["stage", "us/message", "range", "over the reference"]
    series = {name: [(0.0, own.median)] for name, own in spreads.items()}
    # It promises nothing: the guard compares.
    return Result(TITLE, columns, rows_, [], Chart("us of CPU a message", "", series, "bars"), {"us": taken})


def _row(name: str, own: Spread, over: Spread | None) -> list[str]:
    said = f"{over.median:.2f} ({over.low:.2f} to {over.high:.2f})" if over else ""
    return [name, f"{own.median:.2f}", f"{own.low:.2f} to {own.high:.2f}", said]

