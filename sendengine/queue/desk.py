"""The Desk port on Redis: a scheduler's side of the shared state.

Every verb writes the account (one script), then tells every registered worker, and only then answers. What needs a worker and has none is
put into the index: written first, then indexed (model: index.pml).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sendengine.errors import Unavailable
from sendengine.intake import DIGEST_OCTETS, PackedBatch
from sendengine.lanes import is_paid, owner
from sendengine.policy import apikeys
from sendengine.policy.apikeys import ApiKey
from sendengine.policy.credits import Entry, Kind, Lot, Purchase
from sendengine.policy.durability import Persistence
from sendengine.policy.grants import SPAN
from sendengine.policy.signing import KeyEntry, encode, field
from sendengine.policy.suppression import Listed
from sendengine.policy.tiers import interval_us
from sendengine.ports import (
    WHOLE,
    AuditLine,
    Bill,
    Booked,
    Booking,
    Gated,
    Heard,
    LedgerEntry,
    OutcomeChunk,
    Part,
    Repair,
    Run,
    Standing,
    Stored,
)  # fmt: skip
from sendengine.queue import gates, keys, purging, scripts, trail
from sendengine.queue.cluster import open_link
from sendengine.queue.link import Argument
from sendengine.queue.outbox import RedisOutbox
from sendengine.queue.persistence import persistence
from sendengine.queue.reading import as_text
from sendengine.queue.receiving import receive
from sendengine.queue.redis import shared_keys, spread_cut, spread_news
from sendengine.records import TRANSACTIONAL, decode_lease, mask_of
from sendengine.types import Receipt

RETRY_OCTETS = 14
_NIBBLE = bytes(octet % 16 for octet in range(256))
PAID = ("submit", "submit_last", "transact", "cancel")  # with the money in front where rows cost something
COMPLAINTS_KEPT_H = 31 * 24
ANSWER_SECONDS = 20.0  # a person, or a web process, waits no longer


class RedisDesk:
    """Owner of one link. `cut_delay_us` is D of design 3.2, `retention` seconds that transactional outcomes are kept, `wait_ms` how long
    what is accepted waits for a replica (0: for none), `audit_days` how long audit trails are kept."""

    def __init__(
        self, url: str, cut_delay_us: float = 200_000, retention: int = 7 * 86400, wait_ms: int = 0, audit_days: float = 3650.0
    ) -> None:
        self._link = open_link(url, ANSWER_SECONDS, wait_ms)
        self._cut_delay = f"{cut_delay_us:.0f}"
        self._retention = retention
        self._audit_days = audit_days
        self.outbox = RedisOutbox(self._link, self._fill_trail)

    async def _script(self, name: str, account: str, *args: Argument) -> Any:
        """A write. A repeat that finds all done already is acknowledged no sooner than the first."""
        if name in PAID and is_paid(account):
            name += "_paid"
        return await scripts.commit(self._link, name, (keys.account(account),), *args, mark=keys.mark(keys.account(account)))

    async def _enlist(self, key: str, member: str) -> None:
        await self._link.commit("SADD", key, member, mark=keys.mark(keys.INDEX))

    async def _tell(self, account: str, cut: int = 0, cut_us: float = 0.0) -> None:
        """Workers hear of it; an account that none is attached to goes into the index for its next need."""
        await gates.tell(self._link, account, cut, cut_us)

    # accounts

    async def create_account(self, account: str, fields: Mapping[str, str], *, line: bytes = b"") -> bool:
        """Of a purged one nothing is made. The tombstone stands in another slot: it is looked for before, and again behind the script."""
        home = owner(account)
        if await self.gone(home) is not None:
            return False
        await self._enlist(keys.ACCOUNTS, account)
        flat = [item for pair in fields.items() for item in pair]
        [is_new] = await self._script("account", account, "new", self._cut_delay, line, 0, *flat)
        if await self.gone(home) is not None:
            if is_new:
                await self._link.call("UNLINK", keys.account(account), keys.account(account) + ":audit")
            await self._link.call("SREM", keys.ACCOUNTS, account)
            return False
        await self._fill_trail(home)
        return bool(is_new)

    async def set_account(
        self, account: str, fields: Mapping[str, str], *, line: bytes = b"", seen: Mapping[str, str] | None = None
    ) -> bool:
        pairs = [item.encode("utf-8", "surrogateescape") for pair in [*(seen or {}).items(), *fields.items()] for item in pair]
        reply = await self._script("account", account, "set", self._cut_delay, line, len(seen or {}), *pairs)
        return await self._told(account, reply[1:])

    async def set_rate(self, account: str, tier: str, per_hour: float | None, *, line: bytes = b"") -> bool:
        return await self._told(
            account, await self._script("rate", account, tier, per_hour or "", interval_us(per_hour), self._cut_delay, line)
        )

    async def boost(self, account: str, grant: bytes, *, line: bytes = b"", key: str = "", digest: str = "") -> int | None:
        spans = (f"{value:.3f}" for value in SPAN.unpack_from(grant))
        reply = await self._script("boost", account, self._cut_delay, line, "new", *spans, grant[SPAN.size :], key, digest)
        await self._told(account, reply[1:])
        return int(reply[0]) if reply else None

    async def end_boost(self, account: str, number: int, *, line: bytes = b"") -> bool:
        return await self._told(account, (await self._script("boost", account, self._cut_delay, line, "end", number))[1:])

    async def _told(self, account: str, cut: Sequence[Any]) -> bool:
        """Workers hear of the cut that came with a change, if there was one, and its line goes into the trail."""
        is_done = await spread_cut(self._link, account, cut)
        await self._fill_trail(owner(account))
        return is_done

    async def account(self, account: str) -> Mapping[str, str]:
        return as_text(await self._link.call("HGETALL", keys.account(account)))

    async def accounts(self) -> list[str]:
        return sorted(name.decode() for name in await self._link.call("SMEMBERS", keys.ACCOUNTS))

    async def set_gate(
        self, account: str, seen: Mapping[str, str], fields: Mapping[str, str], *, before_us: float | None = None, line: bytes = b""
    ) -> Gated:
        gated = await gates.set_gate(self._link, self._cut_delay, account, seen, fields, before_us, line)
        await self._fill_trail(account)
        return gated

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        return await receive(self._link, provider, receipts)

    async def lacks(self, lane: str, campaign: str, needed: int) -> bool:
        return bool(await self._script("lacks", lane, campaign, needed))

    async def book(self, account: str, booking: Booking) -> Booked:
        limit = "" if booking.before_us is None else f"{booking.before_us:.0f}"
        pairs = [item.encode("utf-8", "surrogateescape") for pair in [*booking.seen.items(), *booking.fields.items()] for item in pair]
        lots = [part for lot in booking.lots for part in _purchase(lot)]
        status, last, *_ = await self._script(
            "event", account, self._cut_delay, booking.line, booking.sequence, booking.id, booking.digest, booking.event,
            "1" if booking.is_speed else "", limit, booking.order, booking.kept, len(booking.lots), *lots, len(booking.seen), *pairs,
        )  # fmt: skip
        if status in (b"done", b"known"):  # a repeat, too: who brought it before may have died before it told anybody
            for lane in await gates.lanes(self._link, account):
                number, at = await self._link.call("HMGET", keys.account(lane), "cut", "cut_at")
                await self._tell(lane, int(number or 0), float(at or 0))
            await self._fill_trail(account)
        return Booked(status.decode(), booking.sequence if status == b"done" else int(last))

    async def early_event(self, account: str, sequence: int) -> bytes | None:
        found: bytes | None = await self._link.call("HGET", keys.account(account) + ":early", sequence)
        return None if found is None else _came(found)[1]

    async def early(self, account: str) -> Mapping[int, float]:
        flat = await self._link.call("HGETALL", keys.account(account) + ":early")
        return {int(at): _came(kept)[0] for at, kept in zip(flat[::2], flat[1::2], strict=True)}

    async def forget_early(self, account: str, sequence: int) -> None:
        await self._link.call("HDEL", keys.account(account) + ":early", sequence)

    async def order(self, account: str, order: str) -> bytes:
        return _lines(await self._link.call("HGET", keys.account(account) + ":orders", order))

    async def orders(self, account: str) -> Mapping[str, bytes]:
        flat = await self._link.call("HGETALL", keys.account(account) + ":orders")
        kept = {order.decode(): _lines(value) for order, value in zip(flat[::2], flat[1::2], strict=True)}
        return {order: lines for order, lines in kept.items() if lines}

    async def note(self, account: str, line: bytes) -> None:
        if await self._script("note", account, line):
            await self._fill_trail(account)
        else:
            await trail.fill(self._link, account, await self._kept_from())  # what was noted before has its number already
            await trail.write(self._link, account, ["", f"{await self.now_us():.0f}", line], await self._kept_from())

    async def audit(self, account: str, after: str, limit: int) -> list[AuditLine]:
        if not after:  # a run that goes on would have lines for each page, and the reading no end
            await trail.fill(self._link, account, await self._kept_from())
        start = f"({after}" if after else "-"
        found = await self._link.call("XRANGE", keys.trail(account), start, "+", "COUNT", limit)
        return [AuditLine(entry.decode(), int(entry.split(b"-")[0]), flat[1]) for entry, flat in found]

    async def purge(self, account: str, line: bytes) -> str:
        return await purging.purge(self._link, account, line)

    async def gone(self, account: str) -> float | None:
        at = await self._link.call("HGET", keys.GONE, account)
        return None if at is None else float(at)

    async def _fill_trail(self, account: str) -> None:
        """What was noted is safe with the change it tells of: a trail out of reach does not undo that, and the next one comes by."""
        with suppress(Unavailable):
            await trail.move(self._link, account, await self._kept_from())

    async def _kept_from(self) -> float:
        """ms of the oldest audit line that is kept."""
        return (await self.now_us() / 1e6 - self._audit_days * 86400) * 1000

    # who gets nothing any more

    async def suppress(
        self, account: str, entries: Mapping[bytes, bytes], tells: bool = True, *, part: Part = WHOLE, are_complaints: bool = False
    ) -> Listed | None:
        if not entries:
            return Listed()
        kept, flat = COMPLAINTS_KEPT_H if are_complaints else "", (item for pair in entries.items() for item in pair)
        reply = await self._script("suppress", account, *_told_as(part), kept, *flat)
        if not reply:
            return None
        new, changed, changes = reply
        if tells:  # a repeat, too: who asked before may have died before it told anybody
            for lane in await gates.lanes(self._link, account):
                await spread_news(self._link, lane, 0, 0.0, changes)
        if part.is_last:
            await self._fill_trail(owner(account))
        return Listed(new, changed - new)

    async def unsuppress(self, account: str, addresses: Sequence[bytes], *, part: Part = WHOLE) -> int:
        """Workers need not hear of it: whom they barred has an outcome, and whom they open later they ask for."""
        if not addresses:
            return 0
        removed = int(await self._script("unsuppress", account, *_told_as(part), *addresses))
        if part.is_last:
            await self._fill_trail(owner(account))
        return removed

    async def suppressed(self, account: str, addresses: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = await self._link.call("HMGET", keys.home(account) + ":sup", *addresses)
        return found

    async def suppressions(self, account: str, cursor: int, limit: int) -> tuple[int, list[tuple[bytes, bytes]]]:
        after, flat = await self._link.call("HSCAN", keys.home(account) + ":sup", cursor, "COUNT", limit)
        return int(after), list(zip(flat[::2], flat[1::2], strict=True))

    async def count_suppressed(self, account: str) -> int:
        return int(await self._link.call("HLEN", keys.home(account) + ":sup"))

    # signing keys

    async def keep_key(self, entry: KeyEntry, moves: bool = False) -> str:
        return await self._set_key(field(entry.domain, entry.selector), encode(entry), entry.text, "1" if moves else "")

    async def remove_key(self, domain: str, selector: str) -> bool:
        return await self._set_key(field(domain, selector), b"") == "done"

    async def signing_keys(self) -> list[KeyEntry]:
        return (await shared_keys(self._link))[1]

    async def _set_key(self, name: str, value: bytes, text: str = "", moves: str = "") -> str:
        reply = await scripts.commit(self._link, "dkim", (keys.DKIM,), name, value, text, moves, mark=keys.mark(keys.INDEX))
        state: str = reply.decode()
        return state

    # API keys

    async def keep_api_key(self, key: ApiKey, seats: int | None) -> str:
        return (await self._api_key(key.owner, "keep", key.digest, apikeys.encode(key), key.seat, "" if seats is None else seats))[0]

    async def api_key(self, digest: str) -> ApiKey | None:
        value = await self._link.call("HGET", keys.API_KEYS, digest)
        return None if value is None else apikeys.decode(digest, value)

    async def api_keys(self, owner: str | None = None) -> list[ApiKey]:
        if owner is None:
            flat = await self._link.call("HGETALL", keys.API_KEYS)
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
        else:
            digests = await self._link.call("HKEYS", keys.api_keys(owner))
            values = await self._link.call("HMGET", keys.API_KEYS, *digests) if digests else []
            pairs = [pair for pair in zip(digests, values, strict=True) if pair[1] is not None]
        found = [apikeys.decode(digest.decode(), value) for digest, value in pairs]
        return sorted(filter(None, found), key=lambda key: (key.made_us, key.digest))

    async def change_api_key(self, key: ApiKey, changed: ApiKey) -> bool:
        reply = await self._api_key(key.owner, "change", key.digest, apikeys.encode(key), apikeys.encode(changed))
        return reply[0] == "done"

    async def drop_api_keys(self, owner: str, digests: Sequence[str]) -> int:
        return (await self._api_key(owner, "drop", *digests))[1]

    async def _api_key(self, owner: str, *args: Argument) -> tuple[str, int]:
        state, n = await scripts.commit(self._link, "apikey", (keys.API_KEYS,), owner, *args, mark=keys.mark(keys.INDEX))
        return state.decode(), int(n)

    # submitting

    async def create(
        self, account: str, campaign: str, definition: bytes, at_us: float | None, message: bytes, fields: Mapping[str, str], *,
        line: bytes = b"",
    ) -> str:  # fmt: skip
        await self._enlist(keys.holders(campaign), account)
        flat = [item for pair in fields.items() for item in pair]
        start = "" if at_us is None else f"{at_us:.0f}"
        status: str = (await self._script("create", account, campaign, definition, start, message, line, *flat)).decode()
        if status in ("account", "taken"):
            await self._link.call("SREM", keys.holders(campaign), account)
        elif status in ("new", "same"):
            await self._tell(account)
        if status == "new":
            await self._fill_trail(owner(account))
        return status

    async def submit(
        self, account: str, campaign: str, batch: PackedBatch, is_last: bool = False, *, run: Run | None = None, line: bytes = b""
    ) -> Stored:
        """The line stays where it was noted, for one of the calls behind to move: a batch is not kept waiting for the trail."""
        levels = [item for level, mask in batch.levels.items() for item in (level, mask)]
        reply = await self._script(
            "submit_last" if is_last else "submit", account, campaign, batch.number, batch.rows, len(batch.rejected),
            batch.digests + batch.before, batch.payload, batch.fingerprints, batch.positions, _places(batch.fingerprints),
            run.name if run else "", run.first if run else 0, line, *levels,
            *([batch.prices] if is_paid(account) else []),
        )  # fmt: skip
        stored = _stored(reply)
        if stored.status in ("stored", "same"):  # who submitted before may have died before it told anybody
            await self._index(account, batch.number, is_attached=bool(reply[-2]), is_running=bool(reply[-1]))
        return stored

    async def _index(self, account: str, number: int, is_attached: bool, is_running: bool) -> None:
        """A worker must come to know of the rows: by news of the first batch, by the index when none is attached."""
        if is_attached and number == 0:
            await spread_news(self._link, account, 0, 0.0)
        elif is_running and not is_attached:
            await self._link.call("ZADD", keys.INDEX, "LT", 0, account)

    async def begin_list(self, account: str, campaign: str, run: Run) -> bool:
        return bool(await self._script("list", account, campaign, "begin", run.name, run.first))

    async def end_list(self, account: str, campaign: str, run: Run, batches: int) -> bool:
        return bool(await self._script("list", account, campaign, "end", run.name, run.first, batches))

    async def leave_list(self, account: str, campaign: str, run: Run) -> bool:
        return bool(await self._script("list", account, campaign, "leave", run.name, run.first))

    async def seal(
        self, account: str, campaign: str, batches: int, digests: bytes = b"", *, must_have_ended: bool = False, line: bytes = b""
    ) -> Stored:
        reply = await self._script("seal", account, campaign, batches, digests, line, "1" if must_have_ended else "")
        stored = _stored(reply)
        if stored.status in ("sealed", "same"):
            await self._tell(account)
        if stored.status == "sealed":
            await self._fill_trail(owner(account))
        return stored

    async def transact(self, account: str, payload: bytes, message: bytes, key: str, digest: bytes, price: bytes = b"") -> Stored:
        own = [price] if is_paid(account) else []
        status, *rest = await self._script("transact", account, payload, message, self._retention, key, digest, *own)
        if status == b"credit":
            return _stored([status, *rest])
        if status in (b"stored", b"same"):
            await (spread_news(self._link, account, 0, 0.0) if rest[1] else self._tell(account))
        return Stored(status.decode(), number=rest[0] if rest else 0)

    # credits

    async def grant_credits(
        self, lane: str, key: str, amount: int, bought_us: float, good_us: float, who: str, why: str, *, line: bytes = b""
    ) -> int | None:
        number = await self._script("grant", lane, key, amount, f"{bought_us:.0f}", f"{good_us:.0f}", who, why, line)
        await self._fill_trail(owner(lane))
        return None if number is None else int(number)

    async def lots(self, lane: str) -> list[Lot]:
        flat = as_text(await self._link.call("HGETALL", keys.lots(lane)))
        found = [(int(name), value.split()) for name, value in flat.items() if name.isdigit()]
        return [
            Lot(number, int(granted), float(bought), float(fixed), int(reserved), int(spent))
            for number, (granted, reserved, spent, bought, fixed) in sorted(found)
        ]

    async def ledger(self, lane: str, after: str, limit: int) -> list[LedgerEntry]:
        start = f"({after}" if after else "-"
        found = await self._link.call("XRANGE", keys.money(lane), start, "+", "COUNT", limit)
        return [LedgerEntry(entry.decode(), int(entry.split(b"-")[0]) / 1e3, _ledger_entry(as_text(flat))) for entry, flat in found]

    async def bill(self, lane: str, campaign: str) -> Bill:
        flat = await self._link.call("HGETALL", keys.campaign(lane, campaign) + ":$")
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        draws = {int(name[1:]): int(value) for name, value in pairs if name.startswith(b"d") and int(value)}
        return Bill(draws, {int(name): value for name, value in pairs if not name.startswith(b"d")})

    async def receipts(self, lane: str, campaign: str, rows: Sequence[tuple[int, int]]) -> list[tuple[str, str, int] | None]:
        if not rows:
            return []
        names = [f"{batch}:{row}" for batch, row in rows]
        stored = await self._link.call("HMGET", keys.campaign(lane, campaign) + ":s", *names)
        return [None if value is None else _receipt(value.decode()) for value in stored]

    # verbs

    async def _verb(self, name: str, account: str, campaign: str, line: bytes) -> str:
        status, *rest = await self._script(name, account, campaign, self._cut_delay, line)
        if status == b"done":
            await self._tell(account, rest[0], float(rest[1]))
            await self._fill_trail(owner(account))
        elif status == b"same":  # who asked before may have died before it told anybody
            await self._tell(account)
        return _answer(status, *rest)

    async def _change(self, name: str, account: str, campaign: str, line: bytes) -> str:
        """A verb that makes no permit void."""
        status, state = await self._script(name, account, campaign, line)
        if status != b"closed":
            await self._tell(account)
            await self._fill_trail(owner(account))
        return _answer(status, state)

    async def pause(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._verb("pause", account, campaign, line)

    async def resume(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._verb("resume", account, campaign, line)

    async def cancel(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._verb("cancel", account, campaign, line)

    async def reverse(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._change("reverse", account, campaign, line)

    async def replay(self, account: str, campaign: str, *, line: bytes = b"") -> str:
        return await self._change("replay", account, campaign, line)

    async def move(self, account: str, campaign: str, direction: str, *, line: bytes = b"") -> str:
        status, state = await self._script("move", account, campaign, direction, line)
        await self._fill_trail(owner(account))
        return _answer(status, state)

    # reading

    async def campaign(self, account: str, campaign: str) -> Mapping[str, str]:
        return as_text(await self._link.call("HGETALL", keys.campaign(account, campaign)))

    async def message(self, account: str, campaign: str) -> bytes:
        return await self._link.call("GET", keys.campaign(account, campaign) + ":m") or b""

    async def campaigns(self, account: str) -> list[str]:
        return [name.decode() for name in await self._link.call("ZRANGE", keys.account(account) + ":sends", 0, -1)]

    async def open_campaigns(self, account: str) -> list[str]:
        A = keys.account(account)
        names = await self._link.call("SMEMBERS", A + ":open")
        if not names:
            return []
        created = await self._link.call("ZMSCORE", A + ":sends", *names)
        return [name.decode() for _, name in sorted(zip((float(at or 0) for at in created), names, strict=True))]

    async def next_retry(self, account: str, campaign: str) -> float | None:
        first = await self._link.call("ZRANGE", keys.campaign(account, campaign) + ":w", 0, 0, "WITHSCORES")
        return float(first[1]) if first else None

    async def holders(self, campaign: str) -> list[str]:
        return sorted(name.decode() for name in await self._link.call("SMEMBERS", keys.holders(campaign)))

    async def line(self, account: str) -> list[str]:
        return [name.decode() for name in await self._link.call("LRANGE", keys.account(account) + ":line", 0, -1)]

    async def outcomes(self, account: str, campaign: str, after: str, limit: int) -> list[OutcomeChunk]:
        start = f"({after}" if after else "-"
        key = keys.campaign(account, campaign) + ":o"
        chunks = []
        for entry, flat in await self._link.call("XRANGE", key, start, "+", "COUNT", limit):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            chunks.append(
                OutcomeChunk(
                    entry.decode(), int(entry.split(b"-")[0]), int(fields[b"k"]), fields[b"r"], fields[b"d"], fields[b"w"].decode()
                )
            )
        return chunks

    async def batches(self, account: str, campaign: str, numbers: Sequence[int]) -> list[tuple[bytes, bytes] | None]:
        if not numbers:
            return []
        stored = await self._link.call("HMGET", keys.campaign(account, campaign) + ":p", *numbers)
        return [None if value is None else (value[8:21], value[21:]) for value in stored]

    async def digest(self, account: str, campaign: str, number: int) -> bytes:
        return (await self._link.call("HGET", keys.campaign(account, campaign) + ":p", number) or b"")[:DIGEST_OCTETS]

    async def has_message(self, account: str, number: int) -> bool:
        return bool(await self._link.call("HEXISTS", keys.campaign(account, TRANSACTIONAL) + ":x", number))

    async def standing(self, account: str, campaign: str) -> Standing:
        """Not one snapshot: while a send runs rows move between the readings."""
        key = keys.campaign(account, campaign)
        ready: dict[int, list[bytes]] = {}
        leased: dict[int, list[bytes]] = {}
        retry: dict[int, list[bytes]] = {}
        for level in keys.LEVELS:
            after = "-"
            while entries := await self._link.call("XRANGE", f"{key}:q{level}", after, "+", "COUNT", 1000):
                for entry, flat in entries:
                    ready.setdefault(int(entry.split(b"-")[0]) - 1, []).append(flat[1])
                after = "(" + entries[-1][0].decode()
        aside: dict[int, list[bytes]] = {}
        for place, masks in (":b", ready), (":z", aside):
            for value in await self._link.call("LRANGE", key + place, 0, -1):
                masks.setdefault(int.from_bytes(value[:4], "little"), []).append(value[5:18])
        held = await self._link.call("HGETALL", keys.account(account) + ":lease")
        for lease in map(decode_lease, held[1::2]):
            if lease.campaign == campaign:
                leased.setdefault(lease.batch, []).append(lease.mask)
        waiting = await self._link.call("HGETALL", key + ":r")
        for number, entries in zip(waiting[::2], waiting[1::2], strict=True):
            retry.setdefault(int(number), []).append(mask_of(entries[::RETRY_OCTETS]))
        doubts = await self._link.call("HGETALL", key + ":d")
        named = [tuple(map(int, name.split(b":"))) for name in doubts[::2]]
        times = {(k, row): int(n) for (k, row), n in zip(named, doubts[1::2], strict=True)}
        is_running = bool(await scripts.run(self._link, "let", (keys.account(account),), campaign))
        return Standing(ready, leased, retry, times, aside, is_running, campaign in await self.line(account))

    async def restore(self, account: str, campaign: str, repair: Repair) -> int:
        flat: list[Argument] = [len(repair.counts), *(item for pair in repair.counts.items() for item in pair), len(repair.wanted)]
        for k, wanted in repair.wanted.items():
            flat += (k, repair.ended[k], repair.twice[k], wanted)
        back = int(await self._script("restore", account, campaign, repair.last_entry, repair.seen, *flat))
        await self._tell(account)
        return back

    async def workers(self) -> Mapping[str, Heard]:
        names = [name.decode() for name in await self._link.call("SMEMBERS", keys.WORKERS)]
        return dict(zip(names, await asyncio.gather(*map(self._heard, names)), strict=True))

    async def _heard(self, worker: str) -> Heard:
        key = keys.info(worker)
        said, left_ms = await asyncio.gather(self._link.call("GET", key), self._link.call("PTTL", key))
        return Heard(said, max(0.0, keys.INFO_SECONDS - int(left_ms) / 1000)) if said and int(left_ms) >= 0 else Heard()

    async def lessees(self, account: str) -> set[str]:
        return {decode_lease(lease).worker for lease in await self._link.call("HVALS", keys.account(account) + ":lease")}

    async def now_us(self) -> float:
        seconds, micros = await self._link.call("TIME")
        return int(seconds) * 1e6 + int(micros)

    async def persistence(self) -> Sequence[Persistence]:
        return await persistence(self._link)

    async def close(self) -> None:
        await self._link.close()


def _told_as(part: Part) -> tuple[Argument, ...]:
    """As counting.lua takes it."""
    return part.line, part.run, "1" if part.is_last else ""


def _answer(status: bytes, *rest: bytes) -> str:
    """What the verb did, or the state that forbids it."""
    return (rest[0] if status == b"closed" else status).decode()


def _places(fingerprints: bytes) -> bytes:
    """The first 20 bits of each, in three octets: two, and the lower half of the third (lua/finding.lua)."""
    places = bytearray(len(fingerprints) // 8 * 3)
    places[0::3], places[1::3], places[2::3] = fingerprints[0::8], fingerprints[1::8], fingerprints[2::8].translate(_NIBBLE)
    return bytes(places)


def _came(kept: bytes) -> tuple[float, bytes]:
    """When an event that waits came (µs), and the event. The release before kept the event alone: 0."""
    if kept.startswith(b"{"):
        return 0.0, kept
    at, _, event = kept.partition(b" ")
    return float(at), event


def _lines(kept: bytes | None) -> bytes:
    """Of an order, behind the sequence of its latest event. The release before remembered payments, too."""
    return b"" if kept is None or kept.endswith(b" paid") else kept.partition(b" ")[2]


def _purchase(lot: Purchase) -> tuple[Argument, ...]:
    return lot.amount, f"{lot.bought_us:.0f}", f"{lot.fixed_us:.0f}", lot.who, lot.why


def _stored(reply: list[Any]) -> Stored:
    status = reply[0].decode()
    if status == "stored":
        return Stored(status, accepted=reply[1], duplicates=reply[2])
    if status == "differs":
        return Stored(status, payload=reply[1])
    if status == "expected":
        return Stored(status, number=reply[1])
    if status == "closed":
        return Stored(status, state=reply[1].decode())
    if status == "credit":
        return Stored(status, needed=int(reply[1]), free=int(reply[2]))
    return Stored(status)


def _ledger_entry(fields: Mapping[str, str]) -> Entry:
    moved = dict(pair.split(":") for pair in fields["l"].split())
    return Entry(
        Kind(fields["k"]), {int(number): int(part) for number, part in moved.items()}, fields["c"], int(fields["b"]),
        float(fields.get("u", 0)), float(fields.get("x", 0)), fields.get("w", ""), fields.get("y", ""),
    )  # fmt: skip


def _receipt(text: str) -> tuple[str, str, int]:
    state, error, ms = text.split(" ")
    return state, "" if error == "-" else error, int(ms)
