"""The purge of an account on Redis: nothing is left under {m1234}, in small steps, each of which may be done again (docs/design/016).

Order: the account is marked, by Redis' own clock and not before its time; it stands among the purges that have begun; the tombstone is
written; its audit lines are brought to safety; then what lets its rows go, its campaigns one by one, whatever else stands in its slot, and
its own hash last; then its names elsewhere, and the line that says it is done. Broken off anywhere, the same call goes on: the mark is in
the account while that stands, and `{x}:purging` has its name from before the first deletion until after the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sendengine.policy.term import fields_of, tells_of_purge, term_of
from sendengine.queue import keys, scripts, trail
from sendengine.queue.link import Caller
from sendengine.queue.reading import as_text

PAUSE = 0.005  # seconds between two steps: the neighbours' calls come between
CAMPAIGNS_AT_ONCE = 100
SCANNED, UNLINKED = 500, 20


async def purge(link: Caller, account: str, line: bytes) -> str:
    """done; gone (it was purged before); early (its time has not come, or it has no end); missing (never heard of)."""
    began = await _begin(link, account)
    if began not in ("done", "same"):
        return began
    await link.call("SADD", keys.PURGING, account)
    await link.call("HSETNX", keys.GONE, account, f"{await _now_us(link):.0f}")
    await trail.fill(link, account)
    for lane in (account + channel for channel in reversed(keys.CHANNELS)):
        await _purge_lane(link, lane)
    async for some in _rest(link, account):
        await link.call("UNLINK", *some)
        await asyncio.sleep(PAUSE)
    await link.call("UNLINK", keys.account(account))
    await _purge_names(link, account)
    if not await trail.has_lately(link, account, tells_of_purge):  # whoever had begun it, and whatever was noted since
        await trail.write(link, account, ["", f"{await _now_us(link):.0f}", line])
    await link.call("SREM", keys.PURGING, account)
    return "done"


async def due(link: Caller) -> list[str]:
    """Purges that have begun and not ended, and accounts whose time has come."""
    now = await _now_us(link) / 1e6
    found = [name.decode() for name in await link.call("SMEMBERS", keys.PURGING)]
    names = [name.decode() for name in await link.call("SMEMBERS", keys.ACCOUNTS)]
    for account in (name for name in names if "/" not in name):
        wanted = fields_of(None)
        values = await link.call("HMGET", keys.account(account), *wanted)
        try:
            term = term_of({name: value.decode() for name, value in zip(wanted, values, strict=True) if value})
        except ValueError:  # nobody can read it, and it keeps no other waiting
            continue
        if term is not None and term.purge_at is not None and term.purge_at <= now:
            found.append(account)
    return list(dict.fromkeys(found))


async def _begin(link: Caller, account: str) -> str:
    """As doom.lua; of one whose hash is gone: same while its purge has not ended."""
    key = keys.account(account)
    while True:
        fields = as_text(await link.call("HGETALL", key))
        if not fields:
            has_begun = await link.call("SISMEMBER", keys.PURGING, account)
            return "same" if has_begun else "gone" if await link.call("HEXISTS", keys.GONE, account) else "missing"
        term = term_of(fields)
        if "purging" not in fields and (term is None or term.purge_at is None):
            return "early"
        soonest = 0.0 if term is None or term.purge_at is None else term.purge_at
        seen = [part for name in fields_of(None) for part in (name, fields.get(name, ""))]
        reply = (await scripts.commit(link, "doom", (key,), f"{soonest * 1e6:.0f}", *seen, mark=keys.mark(key))).decode()
        if reply not in ("moved", "missing"):
            return str(reply)


async def _purge_lane(link: Caller, lane: str) -> None:
    key = keys.account(lane)
    await scripts.run(link, "purge", (key,))
    while names := await link.call("ZRANGE", key + ":sends", 0, CAMPAIGNS_AT_ONCE - 1):
        for name in (each.decode() for each in names):
            await link.call("SREM", keys.holders(name), lane)  # before the campaign is forgotten, or nobody would know of it
            if not await scripts.run(link, "purge", (key,), name):
                return
            await asyncio.sleep(PAUSE)


async def _rest(link: Caller, account: str) -> AsyncIterator[list[bytes]]:
    """Whatever else has the account's tag, whoever made it, but its own hash: some at a time."""
    own, cursor, server = keys.account(account).encode(), b"0", await link.at(keys.account(account))
    while True:
        cursor, names = await server.call("SCAN", cursor, "MATCH", keys.account(account) + "*", "COUNT", SCANNED)
        found = [name for name in names if name != own]
        for start in range(0, len(found), UNLINKED):
            yield found[start : start + UNLINKED]
        if cursor == b"0":
            return
        await asyncio.sleep(0)


async def _purge_names(link: Caller, account: str) -> None:
    """What of it stands in no slot of its own."""
    lanes = [account + channel for channel in keys.CHANNELS]
    await link.call("ZREM", keys.INDEX, *lanes)
    await link.call("ZREM", keys.HOOKS, account)
    if hashes := await link.call("HKEYS", keys.api_keys(account)):
        await link.call("HDEL", keys.API_KEYS, *hashes)
        await link.call("UNLINK", keys.api_keys(account))
    await link.call("SREM", keys.ACCOUNTS, *lanes)


async def _now_us(link: Caller) -> float:
    seconds, micros = await link.call("TIME")
    return int(seconds) * 1e6 + int(micros)
