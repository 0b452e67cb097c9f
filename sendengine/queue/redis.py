"""The Queue port on Redis: a worker's side of the shared state. Every change of several keys is one script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sendengine import records
from sendengine.errors import SendEngineError
from sendengine.lanes import is_paid
from sendengine.policy.durability import Persistence
from sendengine.policy.health import Health
from sendengine.policy.holds import Hold, field, placed_line, suspended_line
from sendengine.policy.holds import encode as encode_hold
from sendengine.policy.signing import KeyEntry, decode
from sendengine.ports import Appended, CampaignRecord, Late, Leased, News, Settlement, Standings, Taken, Visited
from sendengine.queue import keys, purging, scripts
from sendengine.queue.cluster import open_link
from sendengine.queue.link import Argument, Caller
from sendengine.queue.persistence import persistence
from sendengine.queue.reading import as_text
from sendengine.queue.receiving import DAY, RECEIPT_DAYS, receive
from sendengine.types import Receipt

_decode_news = msgspec.msgpack.Decoder(News).decode
encode_news = msgspec.msgpack.Encoder().encode
INBOX_SECONDS = 3600


async def spread_news(link: Caller, account: str, cut: int, cut_us: float, listed: int = -1) -> None:
    """Into every registered worker's inbox; returns when all of them have it. An inbox nobody reads goes by itself."""
    news = encode_news(News(account, cut, cut_us, listed))
    boxes = [keys.inbox(worker.decode()) for worker in await link.call("SMEMBERS", keys.WORKERS)]
    await asyncio.gather(
        *(link.call("RPUSH", box, news) for box in boxes), *(link.call("EXPIRE", box, INBOX_SECONDS) for box in boxes)
    )


async def spread_cut(link: Caller, account: str, cut: Sequence[Any]) -> bool:
    """The cut that came with a change, number and µs, if there was one."""
    if cut:
        await spread_news(link, account, cut[0], float(cut[1]))
    return bool(cut)


async def shared_keys(link: Caller) -> tuple[int, list[KeyEntry]]:
    found = as_text(await link.call("HGETALL", keys.DKIM))
    changes = int(found.pop(keys.DKIM_CHANGES, 0))
    return changes, [decode(name, value.encode("utf-8", "surrogateescape")) for name, value in sorted(found.items())]


class RedisQueue:
    """Owner of one link. `cut_delay_us` is D of design 3.2. `wait_ms`: how long a journal write waits for a replica; 0: for none."""

    def __init__(self, url: str, cut_delay_us: float = 200_000, wait_ms: int = 0) -> None:
        self._link = open_link(url, wait_ms=wait_ms)
        self._cut_delay = cut_delay_us

    @property
    def generation(self) -> int:
        """How many connections there were: it changes when Redis may have lost its last writes."""
        return self._link.generation

    async def _script(self, name: str, *args: Any) -> Any:
        return await scripts.run(self._link, name, (args[0],), *args[1:])

    async def register(self, worker: str, token: bytes) -> None:
        journal = keys.journal(worker)
        if not await scripts.commit(self._link, "register", (journal,), token, mark=keys.mark(journal)):
            raise SendEngineError(f"worker id {worker} is taken")
        await self._link.call("SADD", keys.WORKERS, worker)

    async def append(
        self, worker: str, token: bytes, seen: int, gone: Sequence[bytes], fields: Sequence[bytes]
    ) -> Appended:
        both = (keys.journal(worker), keys.inbox(worker))
        reply = await scripts.commit(self._link, "append", both, token, seen, len(gone), *gone, *fields)
        return Appended(float(reply[0]), reply[1], tuple(_decode_news(item) for item in reply[2:]))

    async def find(self, limit: int) -> list[str]:
        return [name.decode() for name in await self._script("find", keys.INDEX, limit)]

    async def offer(self, account: str, need_us: float) -> None:
        """A need that is sooner wins; -1 (never) is not written."""
        if need_us >= 0:
            await self._link.call("ZADD", keys.INDEX, "LT", f"{need_us:.0f}", account)

    async def hasten(self, account: str, need_us: float) -> bool:
        if need_us >= 0:
            await self._link.call("ZADD", keys.INDEX, "XX", "LT", f"{need_us:.0f}", account)
        return await self._link.call("ZSCORE", keys.INDEX, account) is not None

    async def take(
        self, account: str, worker: str, rows: int, tokens: Sequence[bytes], has_first: Sequence[str], has_retries: Sequence[str]
    ) -> Taken:
        need, wake, look, leases = await scripts.commit(  # in a cluster the journal's own wait does not cover the lease
            self._link, "take", (keys.account(account),),
            worker, rows, b"".join(tokens), len(has_first), *has_first, *has_retries,
        )  # fmt: skip
        return Taken(
            float(need),
            float(wake),
            tuple(name.decode() for name in look),
            tuple(
                Leased(token, campaign.decode(), batch, mask, past, (stored or b"")[21:], message, float(idle), int(kills or 0))
                for token, campaign, batch, mask, past, stored, message, idle, kills in leases
            ),
        )

    async def visit(
        self, account: str, want: int, horizon_us: float, bind: str, held: Sequence[str], settlements: Sequence[Settlement],
        lead_us: float = 0.0,
    ) -> Visited:  # fmt: skip
        args: list[Argument] = [want, f"{horizon_us:.0f}", f"{lead_us:.0f}", bind, len(held), *held]
        for s in settlements:
            args += (s.token, s.final, s.records, s.dictionary, s.nums, s.deferred, s.doubts, s.back, s.blame.value, s.marks)
        key = keys.account(account)
        settle = "settle_paid" if is_paid(account) else "settle"
        if settlements and not held:  # a rescue, or what was settled lately once more: the journal that proves it goes afterwards
            reply = await scripts.commit_kept(self._link, settle, (key,), *args, mark=keys.mark(key))
        else:
            reply = await scripts.run_kept(self._link, settle if settlements else "visit", (key,), *args)
        now, cut, cut_us, n, delay, interval, deal, stopped, idle, acted, begun, closes, listed, spent = reply
        return Visited(
            float(now), cut, float(cut_us), n, float(delay), float(interval), deal, stopped, float(idle), tuple(acted), bool(begun),
            float(closes), listed, int(spent),
        )  # fmt: skip

    async def standings(self, account: str, addresses: Sequence[bytes]) -> Standings:
        """Two commands, in one write. They may be answered at two moments: what comes between them brings news."""
        home = keys.home(account)
        barred, soft = await asyncio.gather(
            self._link.call("HMGET", home + ":sup", *addresses), self._link.call("HMGET", home + ":soft", *addresses)
        )
        return Standings(
            {at: entry for at, entry in enumerate(barred) if entry is not None},
            frozenset([at for at, counts in enumerate(soft) if counts is not None]),
        )

    async def late(self, account: str, listed: int) -> Late:
        changes, is_whole, *addresses = await self._script("late", keys.home(account), listed)
        return Late(changes, addresses if is_whole else None)

    async def payload(self, account: str, campaign: str, batch: int) -> bytes | None:
        stored = await self._link.call("HGET", keys.campaign(account, campaign) + ":p", batch)
        return None if stored is None else stored[21:]

    async def campaign(self, account: str, campaign: str) -> CampaignRecord | None:
        key = keys.campaign(account, campaign)
        fields = as_text(await self._link.call("HGETALL", key))
        message = await self._link.call("GET", key + ":m")
        return CampaignRecord(fields, message or b"") if fields else None

    async def account(self, account: str) -> Mapping[str, str]:
        return as_text(await self._link.call("HGETALL", keys.account(account)))

    async def share(self, provider: str, worker: str, seconds: float) -> int:
        return int(await self._script("share", keys.sharing(provider), worker, f"{seconds * 1e6:.0f}"))

    async def expect(self, provider: str, refs: Mapping[str, bytes]) -> None:
        key = keys.receipts(provider, int(time.time()) // DAY)
        await self._link.call("HSET", key, *(item for pair in refs.items() for item in pair))
        await self._link.call("EXPIRE", key, RECEIPT_DAYS * DAY)

    async def receive(self, provider: str, receipts: Sequence[Receipt]) -> list[Receipt]:
        return await receive(self._link, provider, receipts)

    async def window(self, account: str, campaign: str, is_open: bool, next_us: float | None) -> None:
        look = "" if next_us is None else f"{next_us:.0f}"
        args = (campaign, 1 if is_open else 0, look, f"{self._cut_delay:.0f}")
        await spread_cut(self._link, account, await self._script("window", keys.account(account), *args))

    async def leave(self, account: str, above: int = 0) -> tuple[int, float]:
        cut = await self._script("leave", keys.account(account), f"{self._cut_delay:.0f}", above)
        await spread_cut(self._link, account, cut)
        return (cut[0], float(cut[1])) if cut else (0, 0.0)

    async def suspend(self, account: str, campaign: str, why: str) -> None:
        args = (campaign, f"{self._cut_delay:.0f}", suspended_line(campaign, why), why)
        status, *rest = await self._script("pause", keys.account(account), *args)
        await spread_cut(self._link, account, rest if status == b"done" else [])

    async def workers(self) -> list[str]:
        return [name.decode() for name in await self._link.call("SMEMBERS", keys.WORKERS)]

    async def beat(self, worker: str) -> tuple[bytes, bytes] | None:
        token, beat = await self._link.call("HMGET", keys.journal(worker), "t", "b")
        return None if token is None else (token, beat or b"")

    async def revoke(self, worker: str, token: bytes, beat: bytes) -> Mapping[bytes, bytes]:
        journal = keys.journal(worker)
        flat = await scripts.commit(self._link, "revoke", (journal,), token, beat, records.REVOKED, mark=keys.mark(journal))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def bury(self, worker: str) -> None:
        """Delete a journal whose leases are all freed. The journal goes before the registration: a crash between is met again."""
        await self._link.call("UNLINK", keys.journal(worker), keys.inbox(worker), keys.info(worker))
        await self._link.call("SREM", keys.WORKERS, worker)

    async def accounts(self) -> list[str]:
        return [name.decode() for name in await self._link.call("SMEMBERS", keys.ACCOUNTS)]

    async def need(self, account: str) -> tuple[float, dict[bytes, str]]:
        reply = await self._script("need", keys.account(account))
        return float(reply[0]), {token: worker.decode() for token, worker in zip(reply[3::2], reply[4::2], strict=True)}

    async def is_idle(self, account: str) -> bool:
        """Nothing of it is due now, waits for a retry, or is leased."""
        reply = await self._script("need", keys.account(account))
        return not reply[1] and not reply[2]

    async def claim_sweep(self, seconds: float) -> bool:
        return await self._link.call("SET", keys.SWEEP, "1", "NX", "PX", int(seconds * 1000)) is not None

    async def claim(self, what: str, seconds: float) -> bool:
        return await self._link.call("SET", keys.claim(what), "1", "NX", "PX", int(seconds * 1000)) is not None

    async def health(self, account: str, hours: int) -> Health:
        return Health(*map(int, await self._script("health", keys.account(account), hours)))

    async def hold(self, account: str, hold: Hold) -> None:
        from sendengine.queue.gates import set_gate  # which stands on this module

        name, delay = field(hold.reason), f"{self._cut_delay:.0f}"
        await set_gate(self._link, delay, account, {name: ""}, {name: encode_hold(hold)}, None, placed_line(hold))
        await self._link.call("UNLINK", keys.account(account) + ":health")

    async def due_purges(self) -> list[str]:
        return await purging.due(self._link)

    async def purge(self, account: str, line: bytes) -> str:
        return await purging.purge(self._link, account, line)

    async def ask_sweep(self) -> None:
        await self._link.call("DEL", keys.SWEEP)

    async def tell(self, worker: str, info: bytes) -> None:
        await self._link.call("SET", keys.info(worker), info, "EX", keys.INFO_SECONDS)

    async def signing_keys(self, known: int) -> tuple[int, list[KeyEntry]] | None:
        changes = int(await self._link.call("HGET", keys.DKIM, keys.DKIM_CHANGES) or 0)
        return None if changes == known else await shared_keys(self._link)

    async def persistence(self) -> Sequence[Persistence]:
        return await persistence(self._link)

    def drop(self) -> None:
        """The server does not answer: give the connection up, so that what waits fails with Unavailable."""
        self._link.drop("no answer")

    async def close(self) -> None:
        await self._link.close()
