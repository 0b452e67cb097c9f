"""The Outbox port on Redis: webhooks out, what was last looked at for them, and what is on its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from sendengine.ports import Queued
from sendengine.queue import keys, scripts
from sendengine.queue.link import Argument, Caller


class RedisOutbox:
    """On its desk's link. `fill_trail` takes an account's lines to its trail."""

    def __init__(self, link: Caller, fill_trail: Callable[[str], Awaitable[None]]) -> None:
        self._link, self._fill_trail = link, fill_trail

    async def hooks(self, account: str) -> list[bytes]:
        return list(await self._link.call("HVALS", keys.account(account) + ":hooks"))

    async def keep_hook(self, account: str, hook: str, value: bytes, *, line: bytes = b"") -> bool:
        """First the account, then the index."""
        is_done = await self._change(account, "keep", hook, value, line)
        if is_done and value:
            await self.need(account, 0.0)
        if is_done:
            await self._fill_trail(account)
        return is_done

    async def seen(self, account: str) -> Mapping[str, str]:
        flat = await self._link.call("HGETALL", keys.account(account) + ":hooked")
        return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def begun(self, account: str, since_us: float) -> list[str]:
        found = await self._link.call("ZRANGEBYSCORE", keys.account(account) + ":sends", f"{since_us:.0f}", "+inf")
        return [name.decode() for name in found]

    async def look(self, account: str, version: str, changes: Mapping[str, str], found: Sequence[Queued]) -> bool:
        flat: list[Argument] = [item for pair in changes.items() for item in pair]
        queued: list[Argument] = [item for each in found for item in (each.id, f"{each.due_us:.0f}", each.value)]
        return await self._change(account, "look", version, len(changes), *flat, *queued)

    async def waiting(self, account: str) -> int:
        return int(await self._link.call("ZCARD", keys.account(account) + ":due"))

    async def due(self, account: str, now_us: float, limit: int) -> list[Queued]:
        B = keys.account(account)
        flat = await self._link.call("ZRANGEBYSCORE", B + ":due", "-inf", f"{now_us:.0f}", "WITHSCORES", "LIMIT", 0, limit)
        if not flat:
            return []
        values = await self._link.call("HMGET", B + ":out", *flat[::2])
        return [Queued(id_.decode(), float(at), value or b"") for id_, at, value in zip(flat[::2], flat[1::2], values, strict=True)]

    async def next_due(self, account: str) -> float | None:
        first = await self._link.call("ZRANGE", keys.account(account) + ":due", 0, 0, "WITHSCORES")
        return float(first[1]) if first else None

    async def told(self, account: str, delivery: Queued | str) -> bool:
        if isinstance(delivery, str):
            return await self._change(account, "told", delivery, "", "")
        return await self._change(account, "told", delivery.id, f"{delivery.due_us:.0f}", delivery.value)

    async def claim(self, limit: int, seconds: float) -> list[str]:
        found = await scripts.run(self._link, "hookclaim", (keys.HOOKS,), limit, f"{seconds * 1e6:.0f}")
        return [account.decode() for account in found]

    async def need(self, account: str, at_us: float | None) -> None:
        if at_us is None:
            await self._link.call("ZREM", keys.HOOKS, account)
        else:
            await self._link.call("ZADD", keys.HOOKS, f"{at_us:.0f}", account)

    async def _change(self, account: str, *args: Argument) -> bool:
        B = keys.account(account)
        return bool(await scripts.commit(self._link, "hooks", (B,), *args, mark=keys.mark(B)))
