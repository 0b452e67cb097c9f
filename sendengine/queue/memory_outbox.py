"""The Outbox port in memory, the twin of queue/outbox.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sendengine.errors import Unavailable
from sendengine.ports import Queued
from sendengine.queue.memory_state import Hooks, MemoryStore


class MemoryOutbox:
    """Owner of nothing: the state is the store's. `noted` takes a line to an account's trail."""

    def __init__(self, store: MemoryStore, now_us: Callable[[], float], noted: Callable[[str, bytes], None]) -> None:
        self._all, self._now_us, self._noted = store, now_us, noted

    def _of(self, account: str) -> Hooks:
        if self._all.is_away:
            raise Unavailable("the store is away", "the same call may go through later")
        return self._all.hooks.get(account, Hooks())

    def _stands(self, account: str) -> bool:
        """Its purge has not begun."""
        return account in self._all.accounts and "purging" not in self._all.accounts[account].fields

    async def hooks(self, account: str) -> list[bytes]:
        return list(self._of(account).kept.values())

    async def keep_hook(self, account: str, hook: str, value: bytes, *, line: bytes = b"") -> bool:
        self._of(account)
        if not self._stands(account):
            return False
        own = self._all.hooks.setdefault(account, Hooks())
        if own.kept.get(hook, b"") != value:
            self._noted(account, line)
        if value:
            own.kept[hook] = value
            if "v" in own.seen:  # a look that began before it must begin anew
                own.seen["v"] = str(int(own.seen["v"]) + 1)
            await self.need(account, 0.0)
            return True
        own.kept.pop(hook, None)
        if not own.kept:
            del self._all.hooks[account]
        return True

    async def seen(self, account: str) -> Mapping[str, str]:
        return dict(self._of(account).seen)

    async def begun(self, account: str, since_us: float) -> list[str]:
        self._of(account)
        found = self._all.accounts[account].campaigns if account in self._all.accounts else {}
        created = [(float(campaign.fields["created"]), name) for name, campaign in found.items()]
        return [name for at, name in sorted(created) if at >= round(since_us)]

    async def look(self, account: str, version: str, changes: Mapping[str, str], found: Sequence[Queued]) -> bool:
        own = self._of(account)
        if own.seen.get("v", "0") != version or not own.kept or not self._stands(account):
            return False
        for name, value in changes.items():
            own.seen[name] = value
            if not value:
                del own.seen[name]
        own.seen["v"] = str(int(version) + 1)
        own.out |= {each.id: Queued(each.id, float(round(each.due_us)), each.value) for each in found}
        return True

    async def waiting(self, account: str) -> int:
        return len(self._of(account).out)

    async def due(self, account: str, now_us: float, limit: int) -> list[Queued]:
        due = [each for each in self._of(account).out.values() if each.due_us <= round(now_us)]
        return sorted(due, key=lambda each: (each.due_us, each.id))[:limit]

    async def next_due(self, account: str) -> float | None:
        return min((each.due_us for each in self._of(account).out.values()), default=None)

    async def told(self, account: str, delivery: Queued | str) -> bool:
        out = self._of(account).out
        id_ = delivery if isinstance(delivery, str) else delivery.id
        if id_ not in out or not self._stands(account):
            return False
        if isinstance(delivery, str):
            del out[id_]
        else:
            out[id_] = Queued(id_, float(round(delivery.due_us)), delivery.value)
        return True

    async def claim(self, limit: int, seconds: float) -> list[str]:
        self._of("")
        now, index = float(round(self._now_us())), self._all.hook_index
        due = sorted((at, account) for account, at in index.items() if at <= now)[:limit]
        for _, account in due:
            index[account] = now + seconds * 1e6
        return [account for _, account in due]

    async def need(self, account: str, at_us: float | None) -> None:
        self._of(account)
        self._all.hook_index.pop(account, None)
        if at_us is not None:
            self._all.hook_index[account] = float(round(at_us))
