"""The shared state in memory: what the keys of queue/keys.py hold, as objects, and the rules that keep an account whole.

The twin of lua/lib.lua: every method here is one of its functions, and the contract tests hold the two together. Nothing here awaits, so
each call is as atomic as a script. Masks are ints, bit p for row p. Times are µs of the store's clock, as whole numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil

import msgspec

from sendengine.lanes import is_paid, owner
from sendengine.policy.apikeys import ApiKey
from sendengine.policy.durability import Persistence
from sendengine.policy.grants import BOOSTED, FIELD, SPAN
from sendengine.policy.suppression import Listed
from sendengine.ports import AuditLine, News, OutcomeChunk, Part, Queued
from sendengine.queue.keys import CHANNELS, LEVELS
from sendengine.queue.memory_money import Bill, Money
from sendengine.records import TRANSACTIONAL
from sendengine.types import Outcome, SendState

ENDED = (SendState.CANCELLED, SendState.FINISHED)
IN_MEMORY = Persistence(appendonly=False, save="", policy="noeviction", replicas=0, min_replicas=0)
OUTCOME_FIELDS = tuple(outcome.name.lower() for outcome in Outcome)

GRANT_KEPT_US = 30 * 86400e6
History = dict[int, tuple[int, int]]  # row -> tries, first MAIL (active s)


class Fields(dict[str, str]):
    """A record as readers of the port see it: text by name. What is absent counts as 0."""

    def number(self, name: str) -> int:
        return int(self.get(name, 0))

    def add(self, name: str, n: int) -> None:
        self[name] = str(self.number(name) + n)

    def set_times(self, **times: float) -> None:
        for name, value in times.items():
            self[name] = f"{value:.0f}"

    def forget(self, *names: str) -> None:
        for name in names:
            self.pop(name, None)

    def octets(self, name: str) -> bytes:
        return self.get(name, "").encode("utf-8", "surrogateescape")

    def set_octets(self, name: str, value: bytes) -> None:
        self[name] = value.decode("utf-8", "surrogateescape")


class StoredBatch:
    def __init__(self, digest: bytes, accepted: int, payload: bytes) -> None:
        self.digest, self.accepted, self.payload = digest, accepted, payload


class Portion:
    """Rows of one batch that move together: given back, or leased."""

    def __init__(self, batch: int, level: int, mask: int, past: History) -> None:
        self.batch, self.level, self.mask, self.past = batch, level, mask, past


class Lease(Portion):
    def __init__(self, portion: Portion, campaign: str, worker: str) -> None:
        super().__init__(portion.batch, portion.level, portion.mask, portion.past)
        self.campaign, self.worker = campaign, worker


class Retry:
    def __init__(self, tries: int, first: int, due: float) -> None:
        self.tries, self.first, self.due = tries, first, due


class Campaign:
    """Its rows are in `levels` or `given_back` (READY), in a lease of the account, in `retries`, or final."""

    def __init__(self, campaign_id: str, message: bytes) -> None:
        self.id = campaign_id
        self.message = message
        self.fields = Fields()
        self.batches: dict[int, StoredBatch] = {}
        self.levels: dict[int, dict[int, int]] = {level: {} for level in LEVELS}  # batch -> mask, in the order of input
        self.given_back: deque[Portion] = deque()
        self.aside: list[Portion] = []  # in quarantine
        self.kills: dict[int, int] = {}  # by batch: workers that died of it without progress between
        self.retries: dict[int, dict[int, Retry]] = {}  # by batch, by row
        self.doubts: dict[tuple[int, int], int] = {}  # (batch, row) -> times
        self.outcomes: list[OutcomeChunk] = []
        self.messages: dict[int, bytes] = {}  # transactional: by batch
        self.message_keys: dict[str, int] = {}  # transactional: a message's key -> its batch
        self.fingerprints: set[bytes] = set()
        self.receipts: dict[tuple[int, int], tuple[str, str, int]] = {}  # SMS: (batch, row) -> state, error, ms
        self.bill: Bill | None = None  # where its rows cost something

    @property
    def state(self) -> str:
        return self.fields["state"]

    @property
    def has_ready(self) -> bool:
        return bool(self.given_back) or any(self.levels.values())

    @property
    def next_retry(self) -> float | None:
        return min((retry.due for rows in self.retries.values() for retry in rows.values()), default=None)

    def count(self, tally: Mapping[str, int]) -> None:
        for field, n in tally.items():
            if n:
                self.fields.add(field, n)

    def forget_old(self, now: float, retention: float, most: int) -> None:
        """Transactional: what ended longer ago than the retention, so many at a time."""
        limit_ms = (now / 1e6 - retention) * 1e3
        for chunk in [old for old in self.outcomes[:most] if old.at_ms <= limit_ms]:
            self.outcomes.remove(chunk)
            self.batches.pop(chunk.batch, None)
            self.messages.pop(chunk.batch, None)
            self.doubts.pop((chunk.batch, 0), None)
            self.receipts.pop((chunk.batch, 0), None)
            if self.bill is not None:
                self.bill.prices.pop(chunk.batch, None)
            self.message_keys = {key: batch for key, batch in self.message_keys.items() if batch != chunk.batch}

    def write_outcomes(self, now: float, batch: int, records: bytes, dictionary: str, worker: str) -> None:
        """Entry names are those of a stream: ms, and a number within it."""
        ms, number = int(now // 1000), 0
        if self.outcomes:
            last_ms, last_number = map(int, self.outcomes[-1].entry.split("-"))
            if last_ms >= ms:
                ms, number = last_ms, last_number + 1
        self.outcomes.append(OutcomeChunk(f"{ms}-{number}", ms, batch, records, dictionary.encode(), worker))
        if self.bill is not None:
            self.bill.pay(batch, records, now)


class Tally:
    """How the account's mail fared, by the hour."""

    def __init__(self) -> None:
        self.at: float | None = None  # of the last look
        self.seen: dict[str, tuple[int, int]] = {}  # campaign -> sent, bounced at the last look
        self.hours: dict[int, tuple[int, int]] = {}
        self.complaints: dict[int, int] = {}


class Books:
    """What an account keeps of the events that came to it."""

    def __init__(self) -> None:
        self.ids: dict[str, tuple[int, str]] = {}  # id -> sequence, digest
        self.sequences: dict[int, str] = {}
        self.early: dict[int, tuple[float, bytes]] = {}  # sequence -> µs when it came, the event
        self.orders: dict[str, bytes] = {}


class Account:
    """What a lane of an account holds. `home`: the fields of the account itself, which for e-mail are its own; so is the list of those who
    get nothing any more."""

    def __init__(self, home: Account | None = None) -> None:
        self.fields = Fields()
        self.home = self.fields if home is None else home.fields
        self.suppressed: dict[bytes, bytes] = {} if home is None else home.suppressed  # address -> entry (policy.suppression)
        self.late: list[bytes] = [] if home is None else home.late  # those that came onto it, all of them, the newest last
        self.soft: dict[bytes, list[int]] = {} if home is None else home.soft  # address -> soft bounces, and of a full mailbox, in a row
        self.health = Tally()
        self.audit: dict[int, bytes] = {}  # lines that the audit trail has not taken yet
        self.runs: dict[str, bytes] = {}  # those of changes in parts that go on, with their counts so far
        self.books = Books()
        self.campaigns: dict[str, Campaign] = {}  # oldest first
        self.run: dict[str, int] = {}  # campaigns that may send now -> messages served since one joined
        self.line: list[str] = []
        self.looks: dict[str, float] = {}  # campaign -> when its schedule or window needs a look
        self.leases: dict[bytes, Lease] = {}
        self.has_begun = False  # one of the line started since the last visit

    @property
    def listed(self) -> int:
        """Changes of the list of suppressed addresses; -1 when there is none."""
        return int(self.home.get("sup", -1))

    def put(self, line: bytes) -> None:
        """For the audit trail: µs and JSON."""
        self.fields.add("audits", 1)
        self.audit[self.fields.number("audits")] = line

    def fold(self) -> None:
        for line in sorted(self.runs.values()):
            self.put(line)
        self.runs.clear()

    def tally(self, part: Part, now: float, **counts: int) -> None:
        """As lua/counting.lua."""
        if not part.line or not (any(counts.values()) or part.run in self.runs):
            return
        at, _, before = self.runs.get(part.run, b"0 {}").partition(b" ")
        said, counted = msgspec.json.decode(part.line), msgspec.json.decode(before).get("facts", {})
        sums = {name: n + int(counted.get(name, 0)) for name, n in counts.items()}
        said["facts"] = said.get("facts", {}) | {name: str(n) for name, n in sums.items() if n}
        at_us = now if any(counts.values()) else float(at)
        self.runs[part.run] = b"%.0f %b" % (at_us, msgspec.json.encode(said))
        if part.is_last:
            self.fold()

    def suppress(self, entries: Mapping[bytes, bytes]) -> Listed:
        """The graver reason stands, the first of equal ones."""
        changed = {name: entry for name, entry in entries.items() if entry[0] > self.suppressed.get(name, b"\0")[0]}
        new = len(changed.keys() - self.suppressed.keys())
        self.suppressed.update(changed)
        self.late += changed
        if changed:
            self.home.add("sup", len(changed))
        return Listed(new, len(changed) - new)

    def sync_run(self, campaign: Campaign, now: float) -> None:
        """Served counts start anew whenever a campaign joins, so shares are equal from then on."""
        if campaign.id == TRANSACTIONAL:
            return
        fields = campaign.fields
        is_complete = fields.get("sealed") == "1" or (fields.get("need_seal") != "1" and fields.get("reversed") != "1")
        may_send = campaign.state == SendState.SENDING and is_complete and fields.get("open") != "0"
        if may_send and campaign.id not in self.run:
            self.run = dict.fromkeys([*self.run, campaign.id], 0)
            fields.set_times(runs_since=now)
        elif not may_send:
            self.run.pop(campaign.id, None)

    def advance(self, now: float) -> None:
        """When no sequential campaign sends, the first sealed one that waits its turn starts, and stands at the head from then on."""
        waiting = [self.campaigns[name] for name in self.line]
        if any(campaign.state == SendState.SENDING for campaign in waiting):
            return
        for campaign in waiting:
            if campaign.state == SendState.SEQUENTIAL and campaign.fields.get("sealed") == "1":
                campaign.fields["state"] = SendState.SENDING.value
                self.line.remove(campaign.id)
                self.line.insert(0, campaign.id)
                self.sync_run(campaign, now)
                self.has_begun = True
                return

    def leave_line(self, campaign: Campaign, now: float) -> None:
        if campaign.id in self.line:
            self.line.remove(campaign.id)
            self.advance(now)

    def mend_line(self, campaign: Campaign, now: float) -> None:
        """Where it should stand, whatever happened: in the line while it is sequential and not through."""
        fields = campaign.fields
        if fields.get("sequential") == "1" and "through" not in fields and campaign.state not in ENDED:
            if campaign.id not in self.line:
                self.line.append(campaign.id)
        elif campaign.id in self.line:
            self.line.remove(campaign.id)
        self.advance(now)

    def shut_since(self, now: float) -> float | None:
        """Since when the account's gate is shut; None while it is open."""
        gate = self.home.get("gate")
        return float(self.home.get("closed_at", gate)) if gate is not None and now >= float(gate) else None

    def idle_until(self, now: float) -> float:
        """µs that count against no lifetime: what was counted, and since when the gate, or a relay that refuses us, forbids all sending."""
        limit, since, *_ = (*self.fields.get("bind", "").split("|", 2), "")
        causes = [self.shut_since(now), float(since) if limit in ("relay", "site") else None]
        begins = [cause for cause in causes if cause is not None]
        counted = self.fields.number("idle")
        return counted + max(0.0, now - max(min(begins), self.fields.number("idle_at"))) if begins else counted

    def rest(self, campaign: Campaign, now: float) -> None:
        """Paused or outside its window, no lifetime runs. Both at once count once, and so does what is idle time of the whole lane."""
        fields = campaign.fields
        rests = campaign.state == SendState.PAUSED or fields.get("open") == "0"
        if rests and "resting" not in fields:
            fields.set_times(resting=now, rested=self.idle_until(now))
        elif not rests and "resting" in fields:
            counted = self.idle_until(now) - fields.number("rested")
            fields.add("idle", int(max(0.0, now - fields.number("resting") - counted)))
            fields.forget("resting", "rested")

    def start(self, campaign: Campaign, now: float) -> None:
        """Its time has come: a scheduled campaign takes its place; one of the line that is through has left that."""
        self.looks.pop(campaign.id, None)
        if campaign.fields.get("sequential") == "1" and "through" not in campaign.fields:
            campaign.fields["state"] = SendState.SEQUENTIAL.value
            self.advance(now)
        else:
            campaign.fields["state"] = SendState.SENDING.value
            self.sync_run(campaign, now)

    def cut(self, now: float, delay: float, above: int = 0) -> tuple[int, float]:
        """Permits later than now + delay, granted under a smaller number, are void; the clock goes back on its grid (design 3.2). `above`:
        a number that workers have heard of, though a failover may have lost it."""
        last, at = float(self.fields.get("last", 0)), now + delay
        if last > at:
            (grid, _), (before, _) = self.speed(last), self.speed(at)
            if grid > 0:
                last -= ceil((last - at) / grid) * grid
            if before != grid:
                last = max(last, at - before)
        self.fields["last"] = f"{last:.3f}"
        self.fields["cut"] = str(max(self.fields.number("cut"), above) + 1)
        self.fields.set_times(cut_at=at)
        return self.fields.number("cut"), float(self.fields["cut_at"])

    def speed(self, at: float) -> tuple[float, float | None]:
        """The interval in force at a time, and when it may change next."""
        own = float(self.fields.get("iv", 0))
        if not own:
            return own, None
        grants = list(SPAN.iter_unpack(self.fields.octets("grants")))
        turns = [turn for start, end, _ in grants for turn in (start, end) if turn > at]
        return min([own, *(iv for start, end, iv in grants if start <= at < end)]), min(turns, default=None)

    def hold_grant(self, number: int, grant: bytes, now: float) -> None:
        """A grant is written; those over for long are forgotten."""
        fields = self.fields
        fields.set_octets(f"{FIELD}{number}", grant)
        spans = {name: fields.octets(name)[: SPAN.size] for name in fields if name.startswith(FIELD)}
        ends = {name: SPAN.unpack(span)[1] for name, span in spans.items()}
        ends |= {name: float(value.split(" ", 2)[1]) for name, value in fields.items() if name.startswith(BOOSTED)}
        fields.forget("grants", *(name for name, end in ends.items() if end < now - GRANT_KEPT_US))
        if live := [span for name, span in spans.items() if ends[name] > now]:
            fields.set_octets("grants", b"".join(live))

    def next_need(self, now: float) -> float:
        """When does it need a worker next? 0: now; -1: never, as things stand; so while its gate is shut."""
        if self.shut_since(now) is not None:
            return -1.0
        needs = list(self.looks.values())
        for name in (*self.run, TRANSACTIONAL):
            campaign = self.campaigns.get(name)
            if campaign is None:
                continue
            if campaign.has_ready:
                return 0.0
            if campaign.next_retry is not None:
                needs.append(campaign.next_retry)
        return float(round(min(needs, default=-1)))

    def finish_if_done(self, campaign: Campaign, now: float) -> None:
        """Through when nobody is left who was never tried; finished when the last recipient has an outcome. Counts stay."""
        fields = campaign.fields
        if "finished" in fields:
            return
        is_cancelled, is_sealed = campaign.state == SendState.CANCELLED, fields.get("sealed") == "1"
        accepted, done = fields.number("accepted"), sum(map(fields.number, OUTCOME_FIELDS))
        is_done = (is_sealed or is_cancelled) and done >= accepted
        if is_sealed and not is_cancelled and "through" not in fields and (is_done or fields.number("tried") >= accepted):
            fields["through"] = fields.get("first_mail_last", f"{now:.0f}")
            self.leave_line(campaign, now)
        if not is_done:
            return
        fields["over"] = f"{now:.0f}"
        fields["finished"] = fields["over"] if is_cancelled else fields.get("last_mail", fields["over"])
        fields["state"] = (SendState.CANCELLED if is_cancelled else SendState.FINISHED).value
        self.sync_run(campaign, now)
        self.leave_line(campaign, now)
        self.looks.pop(campaign.id, None)


class Hooks:
    """An account's webhooks out: subscriptions, what was last looked at, what is on its way."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.seen: dict[str, str] = {}
        self.out: dict[str, Queued] = {}


class MemoryStore:
    """One Redis' worth of shared state; queues and desks that share it see each other's writes.

    `is_away` makes every call raise Unavailable; adding to `generation` is a reconnect.
    """

    def __init__(self) -> None:
        self.is_away = False
        self.generation = 1
        self.accounts: dict[str, Account] = {}  # by lane
        self.money: dict[str, Money] = {}  # by lane
        self.expected: dict[str, dict[str, bytes]] = {}  # by provider: message id -> whose receipt it will be
        self.sharing: dict[str, dict[str, float]] = {}  # by provider: worker that sends by it -> µs until which it counts
        self.holders: dict[str, set[str]] = {}
        self.index: dict[str, float] = {}
        self.workers: dict[str, None] = {}
        self.journals: dict[str, dict[bytes, bytes]] = {}
        self.inboxes: dict[str, list[News]] = {}
        self.infos: dict[str, tuple[float, bytes]] = {}  # what a worker said -> until when it holds
        self.swept_until = 0.0
        self.gone: dict[str, float] = {}  # tombstones: account -> µs of its purge
        self.claims: dict[str, float] = {}  # what some worker looks after -> until when nobody else does
        self.trails: dict[str, list[AuditLine]] = {}
        self.signing_keys: dict[str, bytes] = {}
        self.key_changes = 0
        self.api_keys: dict[str, ApiKey] = {}
        self.hooks: dict[str, Hooks] = {}
        self.hook_index: dict[str, float] = {}

    def lanes(self, account: str) -> dict[str, Account]:
        """Those that there are, by what stands behind the account's name."""
        return {lane: self.accounts[account + lane] for lane in CHANNELS if account + lane in self.accounts}

    def make(self, lane: str) -> Account:
        """A lane other than e-mail's begins beside an account that stands."""
        name, slash, _ = lane.partition("/")
        made = self.accounts[lane] = Account(self.accounts[name] if slash else None)
        return made

    def note(self, lane: str, now: float, line: bytes) -> None:
        """As lua/noting.lua."""
        if line:
            home = self.accounts[owner(lane)]
            home.fold()
            home.put(b"%.0f %b" % (now, line))

    def write_trail(self, account: str, lines: Mapping[int, bytes], keep_from_ms: float) -> None:
        """As lua/audit.lua: each line (µs and JSON) once, by their numbers; 0 is the next one."""
        trail = self.trails.setdefault(account, [])
        for number, line in sorted(lines.items()):
            last_ms, last = map(int, trail[-1].entry.split("-")) if trail else (0, 0)
            number = number or last + 1
            if number > last:
                us, _, said = line.partition(b" ")
                ms = max(last_ms, int(us) // 1000)
                trail.append(AuditLine(f"{ms}-{number}", ms, said))
        self.trails[account] = [line for line in trail if line.at_ms >= keep_from_ms]

    def money_of(self, lane: str) -> Money | None:
        """None where rows cost nothing, or there is no such account."""
        home = self.accounts.get(owner(lane))
        if home is None or not is_paid(lane):
            return None
        return self.money.setdefault(lane, Money(home.fields))

    def spread(self, account: str, cut: int = 0, cut_us: float = 0.0, listed: int = -1) -> None:
        """News into every registered worker's inbox."""
        for worker in self.workers:
            self.inboxes.setdefault(worker, []).append(News(account, cut, cut_us, listed))

    def offer(self, account: str, need_us: float) -> None:
        """Into the index; a need that is sooner wins, -1 (never) is not written."""
        if need_us >= 0:
            need_us = float(round(need_us))
            self.index[account] = min(need_us, self.index.get(account, need_us))
