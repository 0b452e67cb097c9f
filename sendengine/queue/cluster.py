"""A Redis Cluster behind the interface of one Link: each command goes to the master of its key's slot, over one Link per master.

MOVED and ASK are followed, since neither was executed; nothing else is repeated. A slot that is being moved refuses the engine's scripts as
a whole (TRYAGAIN, that is Unavailable) until it has arrived: see `guarded`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError

from sendengine.errors import ConfigError, Unavailable
from sendengine.queue.link import CONNECT_SECONDS, Argument, Caller, Command, Link, asked, committed
from sendengine.queue.servers import CLUSTER, Node, form_of, servers

SLOTS = 16384
REDIRECTS = 5
ANSWER_SECONDS = 10.0  # one node of many may be silent while the others answer: no caller watches each
LOOK_SECONDS = 2.0
LOOK_EVERY = 0.2
_KEYLESS = frozenset(("TIME", "PING", "INFO", "CONFIG", "SCRIPT"))
_SCRIPTS = frozenset((b"EVALSHA", b"EVAL", b"FCALL"))


def open_link(url: str, timeout: float | None = None, wait_ms: int = 0, connect_within: float = CONNECT_SECONDS) -> Caller:
    """What speaks to the Redis of a URL, whatever its form. Raises ConfigError."""
    if form_of(url) == CLUSTER:
        return ClusterLink(url, timeout or ANSWER_SECONDS, wait_ms, connect_within)
    return Link(url, timeout, wait_ms, connect_within)


def key_of(command: Command) -> Argument | None:
    """The key whose slot decides; all keys of a command share it. None: any master will do."""
    if command[0] in _SCRIPTS:
        return command[3] if command[2] else None
    return None if command[0] in _KEYLESS else command[1]


def guarded(command: Command) -> Command:
    """A script with one more key, which never exists.

    A script names the first key of its slot and forms the others. While the slot is moved from node to node a server checks the named ones
    only, starts, and breaks off in the middle at the first key that is not there any more. Told of two keys of which one is missing, it
    refuses the whole: TRYAGAIN from the old node, and from the new one too.
    """
    if command[0] not in _SCRIPTS or not command[2]:
        return command
    n = int(command[2])
    first = command[3].decode() if isinstance(command[3], bytes) else str(command[3])
    return (*command[:2], n + 1, *command[3 : 3 + n], first.partition("}")[0] + "}:~", *command[3 + n :])


@lru_cache(maxsize=65536)
def slot_of(key: Argument) -> int:
    return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


class ClusterLink:
    """Owner of the slot table and of one Link per master. `timeout`: seconds after which a silent node counts as away."""

    def __init__(self, url: str, timeout: float, wait_ms: int = 0, connect_within: float = CONNECT_SECONDS) -> None:
        self._servers = servers(url)
        self._timeout, self._wait_ms, self._connect_within = timeout, wait_ms, connect_within
        self._links: dict[Node, Link] = {}
        self._nodes: dict[Link, Node] = {}
        self._owners: list[Node | None] = [None] * SLOTS
        self._guide: Node | None = None  # the node that told the table last
        self._is_stale = True
        self._looked_at = -LOOK_EVERY
        self._looking = asyncio.Lock()
        self._moves = 0

    @property
    def generation(self) -> int:
        """Changes with every connection made to any master, and whenever a slot has another one."""
        return self._moves + sum(link.generation for link in self._links.values())

    async def call(self, *args: Argument) -> Any:
        return await self._route([guarded(args)])

    async def commit(self, *args: Argument, mark: Argument | None = None) -> Any:
        """As Link's: a replica of the slot's own master has it."""
        command = guarded(args)
        return await self._route(committed(command, mark, self._wait_ms) if self._wait_ms else [command])

    async def _route(self, commands: Sequence[Command]) -> Any:
        key = key_of(commands[0])
        link = await self._owner(None if key is None else slot_of(key))
        now = commands
        for _ in range(REDIRECTS):
            try:
                return await (link.call(*now[0]) if len(now) == 1 else link.together(now))
            except MovedError as error:
                link, now = self._moved(error, link), commands
            except AskError as error:
                link, now = self._link(self._named(error, link)), asked(commands)
            except Unavailable:
                self._is_stale = True
                raise
        raise Unavailable("the cluster sends us round in a ring", "the same call may go through later")

    def _moved(self, error: MovedError, link: Link) -> Link:
        node = self._named(error, link)
        if self._owners[error.slot_id] != node:
            self._owners[error.slot_id] = node
            self._moves += 1
        self._is_stale = True  # slots move in ranges
        return self._link(node)

    def _named(self, error: AskError, link: Link) -> Node:
        """A node that knows no address of its own names none: it means itself."""
        return (error.host or self._nodes[link][0], error.port)

    def _link(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            passed = (NoScriptError, AskError)
            link = Link(self._servers.url(node), self._timeout, self._wait_ms, self._connect_within, passed)
            self._links[node] = link
            self._nodes[link] = node
        return link

    # the table

    async def _owner(self, slot: int | None) -> Link:
        await self._look_if_stale()
        node = self._guide if slot is None else self._owners[slot]
        if slot is None and node not in self._owners:  # a replica may be a guide, and no more
            node = next(iter(self._masters()), None)
        if node is None:
            self._is_stale = True
            raise Unavailable(f"nobody serves slot {slot} of the cluster", "the same call may go through later")
        return self._link(node)

    async def _look_if_stale(self) -> None:
        if not self._is_stale:
            return
        async with self._looking:
            if self._is_stale and (self._guide is None or time.monotonic() - self._looked_at >= LOOK_EVERY):
                await self._look()
                self._looked_at = time.monotonic()

    async def _look(self) -> None:
        """Read the table from the first node that answers; the last one that did is asked first."""
        guides = [] if self._guide is None else [self._guide]
        for node in dict.fromkeys([*guides, *self._masters(), *self._servers.nodes]):
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    self._learn(node, await self._link(node).call("CLUSTER", "SLOTS"))
                return
            except (Unavailable, TimeoutError):
                continue
            except ResponseError as error:
                raise ConfigError(f"no cluster at {node[0]}:{node[1]}: {error}", "one server is named redis://host:port") from error
        self._guide = None
        raise Unavailable("Redis is away: no node of the cluster answers", "the same call may go through later")

    def _learn(self, told_by: Node, ranges: list[Any]) -> None:
        owners: list[Node | None] = [None] * SLOTS
        for first, last, master, *_ in ranges:
            owners[first : last + 1] = [((master[0] or b"").decode() or told_by[0], int(master[1]))] * (last + 1 - first)
        if any(self._owners) and owners != self._owners:
            self._moves += 1
        self._owners, self._guide, self._is_stale = owners, told_by, False

    def _masters(self) -> list[Node]:
        return [node for node in dict.fromkeys(self._owners) if node is not None]

    async def masters(self) -> Sequence[Link]:
        await self._look_if_stale()
        return [self._link(node) for node in self._masters()]

    async def at(self, key: str) -> Link:
        return await self._owner(slot_of(key))

    # as a Link

    async def connect(self) -> None:
        for link in await self.masters():
            await link.connect()

    def drop(self, reason: str) -> None:
        """Whichever does not answer is not known: all are given up."""
        for link in self._links.values():
            link.drop(reason)
        self._is_stale = True

    async def close(self) -> None:
        for link in self._links.values():
            await link.close()
