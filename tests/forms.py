"""Redis in its forms, as real processes on loopback: single servers, a master with its replica, a Cluster, and Sentinels over them.

Each server is an embedded one in a folder of its own; what is killed is started again from what it had written down.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError
from redis.retry import Retry

from sendengine.queue import embedded

LIMIT = 30.0  # seconds that any of these waits may take
SLOTS = 16384


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def client_of(port: int, decodes: bool = True) -> Redis:
    """One that repeats nothing by itself: redis-py's default waits for seconds in between."""
    return Redis(port=port, decode_responses=decodes, retry=Retry(NoBackoff(), 0))


def until(holds: Callable[[], Any]) -> None:
    """Poll until it holds; a server that does not answer yet is asked again."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            if holds():
                return
        except RedisError:
            pass
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.02)


S = TypeVar("S", bound="Server")


class Server:
    """Owner of a folder and of the server in it."""

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="se-"))
        self.port = free_port()
        self._extra = dict(extra or {})
        self.start()
        self.client = client_of(self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        found = embedded.status(self.folder)
        assert found is not None
        return found.pid

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def raw(self) -> Redis:
        """A client that decodes nothing."""
        return client_of(self.port, decodes=False)

    def replicas(self) -> int:
        """How many have what is written."""
        self.client.set("probe", "", px=1)
        return int(self.client.wait(9, 50))

    def start(self) -> None:
        embedded.ensure(self.folder, ephemeral=True, port=self.port, extra=self._extra)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: embedded.status(self.folder) is None)

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self._frozen = self.pid
        os.kill(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._frozen, signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        embedded.stop(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


class SmallDisk(Server):
    """One whose files can be kept from growing, as a full disk does (RLIMIT_FSIZE, which needs no root), and that ends when it cannot write
    what it must; `keep` starts it again, as an init system would."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        self._limit: int = getattr(self, "_limit", resource.RLIM_INFINITY)
        settings = {**embedded._CONFIG, **self._extra, "dir": str(self.folder), "port": str(self.port), "bind": "127.0.0.1"}
        words = [str(embedded._program()), *(word for name, value in settings.items() for word in (f"--{name}", value))]
        with (self.folder / "log").open("ab") as log:  # Python ignores SIGXFSZ, and lets its child ignore it, too
            self._process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, restore_signals=False)
        self._set_limit()
        with client_of(self.port) as client:
            until(lambda: self._process.poll() is not None or client.ping())

    def fill(self) -> None:
        """No file may grow by more than a little."""
        largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        self._limit = largest + 2000
        self._set_limit()

    def make_room(self) -> None:
        self._limit = resource.RLIM_INFINITY
        self._set_limit()

    def keep(self) -> None:
        if self._process.poll() is not None:
            self.start()

    def _set_limit(self) -> None:
        try:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (self._limit, resource.RLIM_INFINITY))
        except ProcessLookupError:
            pass  # it has ended

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        self.said = (self.folder / "log").read_text(errors="replace")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def server(**extra: str) -> Iterator[Server]:
    """`extra`: configuration of Valkey's, with _ for -."""
    yield from _closed(Server({name.replace("_", "-"): value for name, value in extra.items()}))


@contextmanager
def small_disk(**extra: str) -> Iterator[SmallDisk]:
    yield from _closed(SmallDisk({name.replace("_", "-"): value for name, value in extra.items()}))


def _closed(made: S) -> Iterator[S]:
    try:
        yield made
    finally:
        made.close()


@contextmanager
def replicated(replicas: int = 1, **extra: str) -> Iterator[list[Server]]:
    """A master, and replicas that keep up with it."""
    with ExitStack() as stack:
        servers = [stack.enter_context(server(repl_diskless_sync_delay="0", **extra))]
        for _ in range(replicas):
            servers.append(stack.enter_context(server(replicaof=f"127.0.0.1 {servers[0].port}", repl_diskless_sync_delay="0", **extra)))
        until(lambda: servers[0].replicas() == replicas)
        yield servers


class Cluster:
    """Masters that share the slots evenly."""

    def __init__(self, masters: list[Server]) -> None:
        self.masters = masters
        self._moves: list[Move] = []
        for at, each in enumerate(masters):
            each.client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
            first, last = SLOTS * at // len(masters), SLOTS * (at + 1) // len(masters) - 1
            each.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for other in masters[1:]:
            masters[0].client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, _bus(other))
        self.until_whole()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.masters)

    def until_whole(self) -> None:
        """Every node sees all others and has heard of the latest epoch: one that has not, and gets a slot, claims it with an old one and
        gives it back to the first packet of before the move."""
        until(lambda: all(self._sees_all(each) for each in self.masters) and len({_epoch(each) for each in self.masters}) == 1)

    def _sees_all(self, node: Server) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return (info["cluster_state"], int(info["cluster_known_nodes"])) == ("ok", len(self.masters))

    def owner(self, key: str) -> Server:
        port = _owner_in_the_eyes_of(self.masters[0], key)
        return next(each for each in self.masters if each.port == port)

    def empty(self) -> None:
        while self._moves:
            self._moves.pop().finish()
        self.until_whole()  # a node that the machine kept waiting may have been missed by the others
        for each in self.masters:
            until(lambda each=each: each.client.flushall() and each.client.script_flush() and each.client.function_flush())  # type: ignore[misc]

    def begin_move(self, key: str) -> Move:
        """Of the slot of a key to another master."""
        self.until_whole()
        source = self.owner(key)
        target = next(each for each in self.masters if each is not source)
        self._moves.append(Move(self.masters, source, target, key))
        return self._moves[-1]


class Move:
    """A slot on its way, as redis-cli's reshard does it: between `__init__` and `finish` both nodes have some of its keys."""

    def __init__(self, masters: list[Server], source: Server, target: Server, key: str) -> None:
        self._masters, self._source, self._target, self._key = masters, source, target, key
        self._slot = slot = key_slot(key.encode())
        self._is_over = False
        self.target = target
        self._ids = {each: each.client.execute_command("CLUSTER MYID") for each in (source, target)}
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self._ids[source])
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self._ids[target])

    def carry(self, limit: int = 1000) -> int:
        """Keys moved now."""
        keys = self._source.client.execute_command("CLUSTER GETKEYSINSLOT", self._slot, limit)
        if keys:
            self._source.client.execute_command("MIGRATE", "127.0.0.1", self._target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def finish(self) -> None:
        if self._is_over:
            return
        while self.carry():
            pass
        self._is_over = True
        for node in (self._target, self._source, *self._masters):
            node.client.execute_command("CLUSTER SETSLOT", self._slot, "NODE", self._ids[self._target])
        until(lambda: {_owner_in_the_eyes_of(each, self._key) for each in self._masters} == {self._target.port})


def _owner_in_the_eyes_of(node: Server, key: str) -> int:
    """Its port. Gossip of before a move may set a node back for a moment."""
    try:
        node.client.type(key)
    except MovedError as error:
        return int(error.port)
    except AskError:
        pass  # on its way from here, and here until it has arrived
    return node.port


def _epoch(node: Server) -> int:
    return int(node.client.execute_command("CLUSTER INFO")["cluster_current_epoch"])


def _bus(node: Server) -> int:
    return int(node.client.config_get("cluster-port")["cluster-port"])


@contextmanager
def cluster(masters: int = 3) -> Iterator[Cluster]:
    with ExitStack() as stack:
        nodes = []
        for _ in range(masters):
            extra = {"cluster_enabled": "yes", "cluster_node_timeout": "1000", "cluster_port": str(free_port())}
            nodes.append(stack.enter_context(server(**extra)))
        yield Cluster(nodes)


class Sentinel:
    """Owner of one watching process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="se-"))
        self.port = free_port()
        configuration = self.folder / "sentinel.conf"  # it writes down there what it learns
        configuration.touch()
        words = [str(embedded._program()), str(configuration), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        self.client = client_of(self.port)
        until(self.client.ping)

    def watch(self, service: str, master: Server) -> None:
        self.client.execute_command("SENTINEL MONITOR", service, "127.0.0.1", master.port, 2)
        for name, value in (("down-after-milliseconds", "500"), ("failover-timeout", "3000")):
            self.client.execute_command("SENTINEL SET", service, name, value)

    def knows(self, service: str, sentinels: int, replicas: int) -> bool:
        said = self.client.execute_command("SENTINEL MASTER", service)
        known = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
        return (int(known["num-other-sentinels"]), int(known["num-slaves"])) == (sentinels - 1, replicas)

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sentinels(msgspec.Struct, frozen=True):
    """Three watchers of one master; `url` leads to whoever they name."""

    service: str
    each: list[Sentinel]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.each)}/{self.service}"

    def master_port(self) -> int:
        return int(self.each[0].client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)[1])


@contextmanager
def sentinels(master: Server, service: str = "mail", n: int = 3) -> Iterator[Sentinels]:
    with ExitStack() as stack:
        each = []
        for _ in range(n):
            each.append(Sentinel())
            stack.callback(each[-1].close)
        for one in each:
            one.watch(service, master)
        replicas = master.replicas()
        until(lambda: all(one.knows(service, n, replicas) for one in each))
        yield Sentinels(service, each)
