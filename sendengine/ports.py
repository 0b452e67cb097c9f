"""The seams of the engine: what it needs of the outside world, as protocols without implementation.

Adapters live in queue/, channel/ and sink/; each port has an in-memory twin there that tests and users may use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from sendengine.intake import PackedBatch
from sendengine.policy.apikeys import ApiKey
from sendengine.policy.credits import Draw, Entry, Lot, Purchase
from sendengine.policy.durability import Persistence
from sendengine.policy.health import Health
from sendengine.policy.holds import Hold
from sendengine.policy.signing import KeyEntry
from sendengine.policy.suppression import Listed
from sendengine.render.dkim import SigningKey
from sendengine.types import Attempt, Envelope, Outcome, Receipt, Way


class Keyring(Protocol):
    """The private keys that sign (keyring.py; without files and with nothing learnt it is its own twin)."""

    def keys_of(self, from_domain: str) -> tuple[SigningKey, ...]:
        """Those that sign a message From there; none: it goes unsigned. Raises SendEngineError where there are keys that cannot be read."""
        ...

    def learn(self, stored: Sequence[KeyEntry]) -> None:
        """All keys of the shared state, in place of those known so far."""
        ...

    def turn(self, now_us: float) -> None:
        """Unix time: a key may begin to sign."""
        ...


class Clock(Protocol):
    """Time as the engine sees it; the virtual one of the tests turns by hand."""

    def monotonic(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...


class Feed(Protocol):
    """What the engine has ready for one site. Sessions pull from it at the very moment of writing, so that a message whose
    permit was cut or lapsed, or whose journal entry grew old, is never written."""

    def next(self, in_company: bool = False) -> Envelope | None:
        """A delivery whose MAIL may be written now, or None. In company: whole, behind others whose fate is open; one that
        goes alone is not handed out then."""
        ...

    def done(self, delivery: Envelope, attempt: Attempt) -> None:
        """Called exactly once for every delivery that `next` handed out."""
        ...

    def receipt(self, receipt: Receipt) -> None:
        """A provider of SMS says what became of a message that it took."""
        ...


class Site(Protocol):
    """One relay as seen from this worker: its sessions, its troubles."""

    @property
    def relay(self) -> Way: ...
    @property
    def sessions(self) -> int:
        """Open and usable."""
        ...

    @property
    def idle(self) -> int:
        """Of these, waiting for work."""
        ...

    @property
    def eightbit(self) -> bool:
        """The peer offers 8BITMIME (False until a session has said so)."""
        ...

    @property
    def together(self) -> int:
        """Most messages that a session writes at once (1 until a session has said more)."""
        ...

    @property
    def is_open(self) -> bool:
        """At least one session is usable: work may be prepared for it."""
        ...

    @property
    def trouble(self) -> Trouble | None:
        """Why no session can be had at present, or None."""
        ...

    def wake(self) -> None:
        """The feed has something: idle sessions pull; when all are busy and the limit allows, one more is opened."""
        ...

    def warm(self) -> None:
        """Work is coming: see that at least one session is open or opening."""
        ...

    def rest(self) -> None:
        """Nobody sends there any more: while it is in trouble it is not tried again, until it is warmed or woken."""
        ...

    def throttle(self, seconds: float, reason: str) -> None:
        """Policy says to leave this site alone for a while."""
        ...

    def share(self, workers: int) -> None:
        """So many workers send there now: where the peer has a rate of its own, this one keeps to its part of it."""
        ...


class Trouble(Protocol):
    """Why a site cannot be reached: an attempt that ended before MAIL, and when the next one is due."""

    attempt: Attempt
    since: float
    retry_at: float


class Channel(Protocol):
    """The ways out: sites by relay (SMTP), or by provider (SMS)."""

    def site(self, way: Way, feed: Feed, on_change: Callable[[], None]) -> Site:
        """The site of a relay or provider, made on first use; on_change is called when is_open or trouble changes."""
        ...

    async def close(self, timeout: float) -> None:
        """Let what is on the wire end (at most `timeout` seconds), QUIT, close. Afterwards every delivery handed out is done."""
        ...


class News(msgspec.Struct, frozen=True, array_like=True):
    """Something changed in an account. Permits later than cut_us (Redis time), granted under a smaller cut number, are void;
    cut 0: none are. `listed`: how often its list of suppressed addresses has changed; -1: this is no news of it."""

    account: str
    cut: int
    cut_us: float
    listed: int = -1


class Appended(msgspec.Struct, frozen=True, gc=False):
    now_us: float
    confirmed: int  # news that had been confirmed before these
    news: tuple[News, ...]


class Leased(msgspec.Struct, frozen=True, gc=False):
    """A batch taken: rows in `mask` are ours under `token` until settled or given back."""

    token: bytes
    campaign: str
    batch: int
    mask: bytes
    past: bytes  # records.PAST of the rows that were tried before
    stored: bytes  # payload (batch.unpack)
    message: bytes  # transactional only: the message itself
    idle_us: float = 0.0  # time in which the campaign stood still: it does not count against lifetimes
    kills: int = 0  # workers that died of this batch without progress between: a suspect


class Taken(msgspec.Struct, frozen=True, gc=False):
    need_us: float  # when the account needs a worker next, Redis time; 0 now, -1 never
    wake_us: float  # when something falls due even if the account is busy: a retry, a schedule, a window; -1 never
    look: tuple[str, ...]  # campaigns whose window must be evaluated
    leases: tuple[Leased, ...]


class Blame(StrEnum):
    """What a batch has to do with its worker's death (docs/design/010). Three kills without progress between, and it is set aside."""

    NONE = ""
    SUSPECT = "suspect"  # it may have been the one that was being opened
    KILL = "kill"  # it was being opened, or something of it was on its way


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """Outcomes of one lease (records.py names the layouts). Acts only on rows still leased under `token`."""

    token: bytes
    final: bytes
    records: bytes
    dictionary: bytes  # JSON {reply number: [status, reply, relay]}
    nums: bytes
    deferred: bytes = b""
    doubts: bytes = b""
    back: bytes = b""  # mask of the rows that are READY again; a lease without rows is gone
    blame: Blame = Blame.NONE
    marks: bytes = b""  # what the outcomes say of their addresses (policy.suppression.pack_mark)


class Visited(msgspec.Struct, frozen=True, gc=False):
    now_us: float
    cut: int
    cut_us: float
    permits: int
    delay_us: float  # of the first permit, from now_us
    interval_us: float  # between permits; 0: unmetered
    deal: bytes  # place in the held list, one octet a permit; empty when there is nothing to share
    stopped: bytes  # places in the held list of campaigns that may not send now
    idle_us: float  # time in which the relay refused us: no lifetime runs
    acted: tuple[int, ...]  # for each settlement: 1, or 0 when its lease does not stand
    has_begun: bool = False  # a sequential campaign began with this visit: there is more to take
    closes_us: float = 0.0  # when the account's term ends: nothing goes from then on; 0: it has no end, or is over
    listed: int = -1  # changes of the list of suppressed addresses; -1: there is none
    spent: int = 0  # 1/1000 credit, by these settlements


class Standings(msgspec.Struct, frozen=True, gc=False):
    """What an account's list says of addresses, by their place in the question: entries (policy.suppression) of those that are suppressed;
    the places of those that bounced softly the last time."""

    barred: Mapping[int, bytes]
    soft: frozenset[int]


class Late(msgspec.Struct, frozen=True, gc=False):
    """Changes of the list so far, and whom they concern since the number that was asked for; None: too many to name."""

    listed: int
    addresses: Sequence[bytes] | None


class CampaignRecord(msgspec.Struct, frozen=True):
    fields: Mapping[str, str]
    message: bytes


class Queue(Protocol):
    """What a worker needs of the shared state (queue/redis.py; in-memory twin queue/memory.py). Raises Unavailable when it is away."""

    @property
    def generation(self) -> int:
        """Connections made so far: when it changes, Redis may have lost its last writes."""
        ...

    async def register(self, worker: str, token: bytes) -> None: ...
    async def append(
        self, worker: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]
    ) -> Appended:
        """Write journal fields (name, value, name, value …), delete those in `gone`; the first `seen` news are not needed again.
        Raises Fenced when a rescuer holds the journal."""
        ...

    async def find(self, limit: int) -> list[str]: ...
    async def offer(self, account: str, need_us: float) -> None: ...
    async def hasten(self, account: str, need_us: float) -> bool:
        """As `offer`, of an account that stands in the index; False when it does not."""
        ...

    async def take(
        self, account: str, worker: str, rows: int, tokens: Sequence[bytes], has_first: Sequence[str], has_retries: Sequence[str]
    ) -> Taken:
        """Leases of up to `rows` first tries, and as many retries, per campaign: none where the worker has enough of them."""
        ...

    async def visit(
        self, account: str, want: int, horizon_us: float, bind: str, held: Sequence[str], settlements: Sequence[Settlement],
        lead_us: float = 0.0,
    ) -> Visited:  # fmt: skip
        """Settlements in, permits out; a clock that fell behind starts no sooner than `lead_us` from now, less a credit of 10 ms."""
        ...

    async def standings(self, account: str, addresses: Sequence[bytes]) -> Standings: ...
    async def late(self, account: str, listed: int) -> Late: ...
    async def payload(self, account: str, campaign: str, batch: int) -> bytes | None:
        """What is stored of a batch (batch.unpack); None when it is gone."""
        ...

    async def campaign(self, account: str, campaign: str) -> CampaignRecord | None: ...
    async def account(self, account: str) -> Mapping[str, str]: ...
    async def share(self, provider: str, worker: str, seconds: float) -> int:
        """This worker sends by that provider, and counts for so long after saying so. How many do, itself included."""
        ...

    async def expect(self, provider: str, refs: Mapping[str, bytes]) -> None:
        """Messages that a provider took, by the id under which its receipts will name them (records.pack_ref)."""
        ...

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        """What it says of them. Those that name no message that is expected are answered."""
        ...

    async def window(self, account: str, campaign: str, is_open: bool, next_us: float | None) -> None: ...
    async def leave(self, account: str, above: int = 0) -> tuple[int, float]:
        """Cut what this worker will not use, and tell the others. The cut's number, above the one given, and its µs; 0 where there is no
        such account."""
        ...

    async def suspend(self, account: str, campaign: str, why: str) -> None:
        """Pause a campaign whose message itself is refused; every worker is told."""
        ...

    async def workers(self) -> list[str]: ...
    async def beat(self, worker: str) -> tuple[bytes, bytes] | None:
        """(token, beat) of a worker's journal, token records.REVOKED once it is fenced; None when there is no journal."""
        ...

    async def revoke(self, worker: str, token: bytes, beat: bytes) -> Mapping[bytes, bytes]:
        """Fence a dead worker and read its journal; empty when it beats after all, or is gone. One that is fenced already may be again."""
        ...

    async def bury(self, worker: str) -> None: ...
    async def accounts(self) -> list[str]: ...
    async def need(self, account: str) -> tuple[float, dict[bytes, str]]:
        """(next need µs, lease token -> worker)."""
        ...

    async def claim_sweep(self, seconds: float) -> bool: ...
    async def claim(self, what: str, seconds: float) -> bool:
        """Whether it is ours to look after something: once in so many seconds, of all workers."""
        ...

    async def health(self, account: str, hours: int) -> Health:
        """How its e-mail fared since so many hours, as far as it was looked at."""
        ...

    async def hold(self, account: str, hold: Hold) -> None:
        """Place one that does not stand yet; every worker is told. Counting of how its mail fares starts anew."""
        ...

    async def due_purges(self) -> list[str]: ...
    async def purge(self, account: str, line: bytes) -> str:
        """As Desk.purge."""
        ...

    async def ask_sweep(self) -> None:
        """Whoever next claims the sweep gets it: somebody has left with things in hand that stand in no journal."""
        ...

    def drop(self) -> None:
        """It does not answer: whatever waits fails with Unavailable, and the next call connects anew."""
        ...

    async def tell(self, worker: str, info: bytes) -> None: ...
    async def signing_keys(self, known: int) -> tuple[int, list[KeyEntry]] | None:
        """The number of changes made to them, and all keys that are shared; None where that number is `known`."""
        ...

    async def persistence(self) -> Sequence[Persistence]:
        """What each master says of itself."""
        ...

    async def close(self) -> None: ...


class Meter(Protocol):
    """What the engine tells of itself, per event; the adapter counts (sink/metrics.py), or nobody does (sink/silent.py)."""

    def outcome(self, outcome: Outcome) -> None: ...
    def deferred(self, scope: str) -> None: ...
    def doubtful(self) -> None: ...
    def appended(self, seconds: float, doubtful: int) -> None: ...
    def visited(self, seconds: float) -> None: ...
    def submitted(self, provider: str) -> None:
        """An SMS reached a provider, whatever it answered but "slower"."""
        ...

    def throttled(self, provider: str) -> None: ...
    def receipt(self, provider: str, result: str) -> None:
        """delivered, undelivered, or unknown: it names no message that is expected."""
        ...

    def spent(self, amount: int) -> None:
        """1/1000 credit, of rows that a visit settled."""
        ...

    def rate_error(self, error: float) -> None:
        """Of one account over its last full window: (achieved / contracted) - 1."""
        ...

    def state(self, accounts: int, rows: int, sessions: int, oldest: float, bound: Mapping[str, int]) -> None:
        """Now: accounts attached, rows in hand, sessions open, age in seconds of the oldest lease, accounts by binding limit."""
        ...


class Run(msgspec.Struct, frozen=True, gc=False):
    """One call that loads a list: its name (16 hexadecimal digits, by chance), and the batch where its list begins."""

    name: str
    first: int = 0


class Stored(msgspec.Struct, frozen=True, gc=False):
    """What became of a submitted batch. `status`: stored, sealed, unended (Desk.seal), same (a repeat), differs (payload: what
    stands there), expected (number: the batch that is due), apart (what stands before it is another list), closed (state: why nothing is
    taken), credit (needed is more than is free, in 1/1000 credit)."""

    status: str
    accepted: int = 0
    duplicates: int = 0
    number: int = 0
    payload: bytes = b""
    state: str = ""
    needed: int = 0
    free: int = 0


class LedgerEntry(msgspec.Struct, frozen=True, gc=False):
    """`entry` orders them; `at` is UNIX seconds."""

    entry: str
    at: float
    what: Entry


class Bill(msgspec.Struct, frozen=True):
    """What a campaign has reserved and neither spent nor got back, by lot, and what its rows cost, by batch: u32 each by row, or one for
    all of it (1/1000 credit)."""

    draws: Draw
    prices: Mapping[int, bytes]

    def price(self, batch: int, row: int) -> int:
        prices = self.prices.get(batch, b"")
        at = 0 if len(prices) == 4 else 4 * row
        return int.from_bytes(prices[at : at + 4], "little")


class OutcomeChunk(msgspec.Struct, frozen=True, gc=False):
    """One settlement's outcomes (records.decode_outcomes), `entry` orders them, `at_ms` is when they were settled."""

    entry: str
    at_ms: int
    batch: int
    records: bytes
    dictionary: bytes
    worker: str


class Standing(msgspec.Struct, frozen=True):
    """Where every row of a campaign stands, but for those with an outcome: what fsck adds up. Masks by batch number."""

    ready: Mapping[int, list[bytes]]  # waiting in a level's stream, or given back
    leased: Mapping[int, list[bytes]]
    retry: Mapping[int, list[bytes]]
    doubts: Mapping[tuple[int, int], int]  # (batch, row) -> times in doubt
    aside: Mapping[int, list[bytes]] = {}  # in quarantine
    is_running: bool = False  # it is among those that may send
    is_in_line: bool = False


class Repair(msgspec.Struct, frozen=True):
    """What fsck wants mended of a campaign; masks by batch number, for the same batches in all three."""

    last_entry: str  # of the outcomes it has read: with later ones nothing is changed
    seen: str  # records.seen of the campaign that it has read: with another nothing is changed
    counts: Mapping[str, int]
    ended: Mapping[int, bytes]  # rows that have an outcome or were never accepted: taken out of wherever they stand
    twice: Mapping[int, bytes]  # rows that stand more than once: taken out of where they wait
    wanted: Mapping[int, bytes]  # rows that should stand somewhere: READY where they do not


class Booking(msgspec.Struct, frozen=True):
    """An event from billing as it comes to its account: `event` itself (JSON), in case it has to wait; what it changes
    (policy.entitlements), the lots of SMS credits that it brings, and what is kept of an order (b"" nothing)."""

    sequence: int
    id: str
    digest: str
    event: bytes
    line: bytes  # for the audit trail
    seen: Mapping[str, str] = {}
    fields: Mapping[str, str] = {}
    is_speed: bool = False
    lots: Sequence[Purchase] = ()
    before_us: float | None = None
    order: str = ""
    kept: bytes = b""


class Booked(msgspec.Struct, frozen=True):
    """What became of it: done; known (a repeat); early (it waits for those before it); far (too far ahead for that); altered (its
    id came with other words or another sequence); taken (its sequence came with another id); occupied (another event waits with its
    sequence); moved (what was seen has changed); full (as many
    orders wait for their payment as may); missing, purging.
    `sequence`: the last that came to its turn."""

    status: str
    sequence: int


class Heard(msgspec.Struct, frozen=True):
    """What a registered worker last said of itself (JSON), and how many seconds ago; b"" and None when it has not for a day."""

    said: bytes = b""
    age: float | None = None


class AuditLine(msgspec.Struct, frozen=True):
    """One line of an account's audit trail (scheduler/audit.py writes them); `entry` orders them."""

    entry: str
    at_ms: int
    line: bytes


class Gated(msgspec.Struct, frozen=True):
    """What became of a change of an account's term or holds. `status`: done, same (all stands so already), missing (no such account),
    purging (its purge has begun), late (it was too late for it), moved (what the caller saw does not stand any more)."""

    status: str
    now_us: float = 0.0


class Queued(msgspec.Struct, frozen=True):
    """Something on its way to a webhook (policy.hooks.Delivery), due at `due_us`."""

    id: str
    due_us: float
    value: bytes


class Outbox(Protocol):
    """Webhooks out in the shared state (queue/outbox.py; in-memory twin queue/memory_outbox.py): any process may deliver them."""

    async def hooks(self, account: str) -> list[bytes]:
        """Its subscriptions (policy.hooks.Hook)."""
        ...

    async def keep_hook(self, account: str, hook: str, value: bytes, *, line: bytes = b"") -> bool:
        """b"" removes it; with the last one goes all that was on its way. A look that knew nothing of it is refused. False where there is
        no such account. `line` is noted for the audit trail where that changes anything."""
        ...

    async def seen(self, account: str) -> Mapping[str, str]:
        """What was last looked at; its `v` is the version."""
        ...

    async def begun(self, account: str, since_us: float) -> list[str]:
        """Campaigns created since."""
        ...

    async def look(self, account: str, version: str, changes: Mapping[str, str], found: Sequence[Queued]) -> bool:
        """What was found is queued with what was looked at ("" forgets it), or, where the version is another one, nothing is."""
        ...

    async def waiting(self, account: str) -> int:
        """How many are on their way."""
        ...

    async def due(self, account: str, now_us: float, limit: int) -> list[Queued]:
        """Those to be tried now, the longest due first."""
        ...

    async def next_due(self, account: str) -> float | None: ...
    async def told(self, account: str, delivery: Queued | str) -> bool:
        """Tried, and due again; an id: it is over. False where it is gone."""
        ...

    async def claim(self, limit: int, seconds: float) -> list[str]:
        """Accounts that need somebody now: they are the caller's for so long."""
        ...

    async def need(self, account: str, at_us: float | None) -> None:
        """When it needs somebody next; None: never, until a subscription is kept."""
        ...


class Posted(msgspec.Struct, frozen=True):
    """What became of a request to a webhook: its status, or 0 and why there is none."""

    status: int
    detail: str = ""

    @property
    def is_taken(self) -> bool:
        return 200 <= self.status < 300


class Poster(Protocol):
    """Posts to URLs of strangers (posting.py)."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        """Whatever happens is a value."""
        ...


class Part(msgspec.Struct, frozen=True):
    """How a part of a change is noted for the audit trail, by the script that makes it, where it changes anything. What the parts of a
    `run` changed is added up, and told by one `line` with the counts among its facts: with the last part, or sooner, where anything else
    is noted, the trail is read or the account purged; what comes behind that is told by another line."""

    line: bytes = b""  # b"": nothing is told
    run: str = ""
    is_last: bool = True


WHOLE = Part()


class Desk(Protocol):
    """What a scheduler needs of the shared state (queue/desk.py; in-memory twin queue/memory.py). Raises Unavailable when it is away.

    Verbs answer the state they met ("done", "same" or the state that forbids it) after every worker has been told.
    """

    @property
    def outbox(self) -> Outbox: ...

    async def keep_key(self, entry: KeyEntry, moves: bool = False) -> str:
        """Into the shared keys; "same" when it stands there already, and then it begins at another time only where it `moves`; "other":
        another key has its domain and selector, and nothing was changed."""
        ...

    async def remove_key(self, domain: str, selector: str) -> bool: ...
    async def signing_keys(self) -> list[KeyEntry]:
        """By domain and selector."""
        ...

    async def keep_api_key(self, key: ApiKey, seats: int | None) -> str:
        """Into the keys; "seats": its owner may have so many seats, and other ones take them all; "same": it stands there; "gone":
        its owner was purged, or is being purged."""
        ...

    async def api_key(self, digest: str) -> ApiKey | None: ...
    async def api_keys(self, owner: str | None = None) -> list[ApiKey]:
        """Of an owner (an account, or policy.apikeys.OPERATOR), or of all; oldest first."""
        ...

    async def change_api_key(self, key: ApiKey, changed: ApiKey) -> bool:
        """What is kept of it; False, and nothing is changed, where it is not as it was read: one that was dropped never comes back."""
        ...

    async def drop_api_keys(self, owner: str, digests: Sequence[str]) -> int:
        """How many of them there were; those of another owner stay."""
        ...

    async def create_account(self, account: str, fields: Mapping[str, str], *, line: bytes = b"") -> bool:
        """False: it stands, or did. `line`, here and below, is noted for the audit trail with the change; what changes nothing notes
        none."""
        ...

    async def set_account(
        self, account: str, fields: Mapping[str, str], *, line: bytes = b"", seen: Mapping[str, str] | None = None
    ) -> bool:
        """False, and nothing is changed: there is none, or it is not as it was `seen` ("" is absent)."""
        ...

    async def set_rate(self, account: str, tier: str, per_hour: float | None, *, line: bytes = b"") -> bool: ...
    async def boost(self, account: str, grant: bytes, *, line: bytes = b"", key: str = "", digest: str = "") -> int | None:
        """Add a grant of speed (policy.grants.encode); its number, or None where there is no such account. Under a `key` it is granted
        once: the same one again, with the same `digest` of what was asked, is the same number, with another one 0."""
        ...

    async def end_boost(self, account: str, number: int, *, line: bytes = b"") -> bool:
        """From now on it does not hold; False when there is no such grant, or it is over."""
        ...

    async def suppress(
        self, account: str, entries: Mapping[bytes, bytes], tells: bool = True, *, part: Part = WHOLE, are_complaints: bool = False
    ) -> Listed | None:
        """Addresses onto the account's list (policy.suppression.encode), a thousand at most; None where there is no such account, or its
        purge has begun. Without `tells` workers find out by themselves, within some seconds: for a part of many, whose last one tells.
        `are_complaints`: each that comes or changes is counted as one of its mail (policy/health.py)."""
        ...

    async def unsuppress(self, account: str, addresses: Sequence[bytes], *, part: Part = WHOLE) -> int:
        """Off the list, a thousand at most, and their soft bounces are forgotten; how many stood there."""
        ...

    async def suppressed(self, account: str, addresses: Sequence[bytes]) -> list[bytes | None]: ...
    async def suppressions(self, account: str, cursor: int, limit: int) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Some of the list, from cursor 0 on until it is 0 again. While it grows an address may come twice, none is left out that stood
        there all the while."""
        ...

    async def count_suppressed(self, account: str) -> int: ...
    async def account(self, account: str) -> Mapping[str, str]: ...
    async def accounts(self) -> list[str]: ...
    async def set_gate(
        self, account: str, seen: Mapping[str, str], fields: Mapping[str, str], *, before_us: float | None = None, line: bytes = b""
    ) -> Gated:
        """Change fields of its term and holds (policy/term.py, policy/holds.py; "" is absent) where `seen` still stands and it is before
        `before_us`. Every worker is told, of every lane. `line` (JSON) is noted for the audit trail with the change, or not at all."""
        ...

    async def purge(self, account: str, line: bytes) -> str:
        """Delete everything of an account whose time has come (policy.term): done; gone (it was purged before); early; missing (there never
        was one). Broken off, the same call goes on. `line` ends its audit trail."""
        ...

    async def gone(self, account: str) -> float | None:
        """µs of its purge; None of an account that stands, or never did."""
        ...

    async def note(self, account: str, line: bytes) -> None:
        """A line for its audit trail, of a change that carried none. An account that is gone has its trail still."""
        ...

    async def audit(self, account: str, after: str, limit: int) -> list[AuditLine]:
        """Those later than the entry `after` ("" from the first)."""
        ...

    async def book(self, account: str, booking: Booking) -> Booked:
        """An event from billing, as a whole or not at all. Every worker is told."""
        ...

    async def early_event(self, account: str, sequence: int) -> bytes | None:
        """One that waits for those before it."""
        ...

    async def early(self, account: str) -> Mapping[int, float]:
        """The sequences of all that wait, with the µs at which each came."""
        ...

    async def forget_early(self, account: str, sequence: int) -> None: ...
    async def order(self, account: str, order: str) -> bytes:
        """Its lines that wait for their payment, as they were kept; b"" none."""
        ...

    async def orders(self, account: str) -> Mapping[str, bytes]:
        """All that wait for their payment, each as `order` gives it."""
        ...

    async def create(
        self, account: str, campaign: str, definition: bytes, at_us: float | None, message: bytes, fields: Mapping[str, str], *,
        line: bytes = b"",
    ) -> str:  # fmt: skip
        """new, same, differs, account (there is none), or taken (another lane of the account has a campaign of this id)."""
        ...

    async def submit(
        self, account: str, campaign: str, batch: PackedBatch, is_last: bool = False, *, run: Run | None = None, line: bytes = b""
    ) -> Stored:
        """One batch, in its turn, where all that stands before it is the caller's list too (PackedBatch.before). `is_last`: it is stored
        and the list is sealed, or neither. Where it is stored, or refused for want of credit, the list of `run` is `unended` from then on.
        `line` is noted with the first batch that the run stores: each may bring it until one was stored."""
        ...

    async def lacks(self, lane: str, campaign: str, needed: int) -> bool:
        """Of a campaign whose list was refused for want of credit: what all that is left of it costs, in 1/1000 credit. False where it
        lacks nothing any more."""
        ...

    async def begin_list(self, account: str, campaign: str, run: Run) -> bool:
        """A run has begun: its list is `unended` until it, or one that takes its place, has ended (docs/design/022), or the seal. What is
        sealed changes no more. True, here and below, where this changed anything."""
        ...

    async def end_list(self, account: str, campaign: str, run: Run, batches: int) -> bool:
        """Its list has come to its end, behind so many batches."""
        ...

    async def leave_list(self, account: str, campaign: str, run: Run) -> bool:
        """It was refused, and is as though it had not begun: but where it has stored a batch."""
        ...

    async def seal(
        self, account: str, campaign: str, batches: int, digests: bytes = b"", *, must_have_ended: bool = False, line: bytes = b""
    ) -> Stored:
        """The list is complete: so many batches, the last with these digests (PackedBatch.digests; b"": whatever stands).
        `must_have_ended`: the answer is `unended` where a list is."""
        ...

    async def transact(self, account: str, payload: bytes, message: bytes, key: str, digest: bytes, price: bytes = b"") -> Stored:
        """One single message. `number` is its batch; `digest` (8 octets) is of what its caller said; `price` (u32, 1/1000 credit) where the
        lane is paid for. stored; same (a repeat of its key); differs (its key is another message's); missing (the campaign "transactional"
        was not made yet); credit."""
        ...

    async def pause(self, account: str, campaign: str, *, line: bytes = b"") -> str: ...
    async def resume(self, account: str, campaign: str, *, line: bytes = b"") -> str: ...
    async def cancel(self, account: str, campaign: str, *, line: bytes = b"") -> str: ...
    async def reverse(self, account: str, campaign: str, *, line: bytes = b"") -> str: ...
    async def move(self, account: str, campaign: str, direction: str, *, line: bytes = b"") -> str: ...
    async def replay(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        """What was set aside is READY again."""
        ...

    async def campaign(self, account: str, campaign: str) -> Mapping[str, str]: ...
    async def message(self, account: str, campaign: str) -> bytes: ...
    async def campaigns(self, account: str) -> list[str]:
        """Oldest first."""
        ...

    async def open_campaigns(self, account: str) -> list[str]:
        """Those that have not ended, oldest first."""
        ...

    async def next_retry(self, account: str, campaign: str) -> float | None:
        """µs of the earliest; None while nobody waits for one."""
        ...

    async def grant_credits(
        self, lane: str, key: str, amount: int, bought_us: float, good_us: float, who: str, why: str, *, line: bytes = b""
    ) -> int | None:
        """A lot of so many thousandths; its number, the same again for the same key. `good_us`: until when it is good where the account
        is SMS-only now. None where there is no such account."""
        ...

    async def lots(self, lane: str) -> list[Lot]:
        """By number."""
        ...

    async def ledger(self, lane: str, after: str, limit: int) -> list[LedgerEntry]:
        """In the order in which they were made, those later than the entry `after` ("" from the first)."""
        ...

    async def bill(self, lane: str, campaign: str) -> Bill: ...
    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        """As Queue.receive."""
        ...

    async def receipts(self, lane: str, campaign: str, rows: Sequence[tuple[int, int]]) -> list[tuple[str, str, int] | None]:
        """(state, error, ms of its arrival) of each (batch, row); None where none has come."""
        ...
    async def holders(self, campaign: str) -> list[str]:
        """Lanes that have a campaign of this id."""
        ...

    async def line(self, account: str) -> list[str]: ...
    async def outcomes(self, account: str, campaign: str, after: str, limit: int) -> list[OutcomeChunk]:
        """In the order of settlement, those later than the entry `after` ("" from the first)."""
        ...

    async def digest(self, account: str, campaign: str, number: int) -> bytes:
        """Over the rows of a batch and of all before it; b"" where it is gone."""
        ...

    async def has_message(self, account: str, number: int) -> bool:
        """Whether the text of a single message is kept: until its outcome."""
        ...

    async def batches(self, account: str, campaign: str, numbers: Sequence[int]) -> list[tuple[bytes, bytes] | None]:
        """(accepted mask, payload) of each; None where it is gone."""
        ...

    async def standing(self, account: str, campaign: str) -> Standing: ...
    async def restore(self, account: str, campaign: str, repair: Repair) -> int:
        """Rows put back, or -1: it moved meanwhile, and nothing was changed."""
        ...

    async def workers(self) -> Mapping[str, Heard]: ...
    async def lessees(self, account: str) -> set[str]:
        """Workers that hold leases of it."""
        ...

    async def now_us(self) -> float: ...
    async def persistence(self) -> Sequence[Persistence]: ...
    async def close(self) -> None: ...
