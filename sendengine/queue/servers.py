"""Where Redis is: a URL as one server, a service of Sentinel's or a Cluster, and the connections that each form gives out.

    redis://[user:password@]host[:port][/db]      one server; rediss:// with TLS, unix:///path for a socket
    redis+sentinel://[…@]host[:port],host…/service[/db]    the master that the sentinels name, asked at each connect
    redis+cluster://[…@]host[:port],host…          the cluster that these nodes belong to; any live one will do

`valkey` may stand for `redis` in each. Options of redis-py's follow a `?` (ssl_ca_certs=…); `sentinel_username` and `sentinel_password` are
for the sentinels themselves, which often want none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
import redis.asyncio as aioredis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from sendengine.errors import ConfigError

Node = tuple[str, int]

SENTINEL, CLUSTER = "sentinel", "cluster"
_PORTS = {"": 6379, SENTINEL: 26379, CLUSTER: 6379}
_SENTINEL_SECONDS = 1.0  # for its connect and for its answer: the next one is asked then


class Servers(msgspec.Struct, frozen=True):
    """A URL of several nodes, taken apart."""

    form: str  # sentinel or cluster
    scheme: str  # of each node
    login: str  # user:password, as it stood
    nodes: tuple[Node, ...]
    path: str
    options: dict[str, str]

    def url(self, node: Node, path: str = "") -> str:
        """That of one node."""
        host, port = node
        login = f"{self.login}@" if self.login else ""
        options = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.scheme}://{login}{f'[{host}]' if ':' in host else host}:{port}/{path}{options}"


def form_of(url: str) -> str:
    """sentinel, cluster, or "" for one server."""
    return url.partition("://")[0].partition("+")[2]


def servers(url: str) -> Servers:
    """Raises ConfigError for a URL that is not of several nodes."""
    scheme, _, rest = url.partition("://")
    base, _, form = scheme.partition("+")
    rest, _, options = rest.partition("?")
    login, _, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    if form not in (SENTINEL, CLUSTER) or not hosts:
        raise ConfigError(f"no Redis URL of several nodes: {scheme}://…", "redis+cluster://host:port,host:port")
    nodes = tuple(_node(host, _PORTS[form]) for host in hosts.split(","))
    if form == CLUSTER and path.strip("/") not in ("", "0"):
        raise ConfigError(f"a cluster has no database {path!r}", "leave it out of the URL")
    if form == SENTINEL and not path.partition("/")[0]:
        raise ConfigError("the URL names sentinels and no service", "redis+sentinel://host:port,host:port/SERVICE")
    return Servers(form, base, login, nodes, path, dict(parse_qsl(options)))


def _node(text: str, port: int) -> Node:
    host, colon, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host = text
    if (colon and not number.isdigit()) or not host:
        raise ConfigError(f"no host:port: {text!r}", "several are separated by commas")
    return host.strip("[]"), int(number) if colon else port


def connections(url: str, connect_within: float) -> aioredis.ConnectionPool:
    """What makes connections to one server, or to the master of a service. Nothing in it retries."""
    wanted: dict[str, Any] = {"protocol": 2, "socket_connect_timeout": connect_within, "socket_timeout": None}
    if form_of(url) != SENTINEL:
        return aioredis.ConnectionPool.from_url(url, **wanted)
    found = servers(url)
    service, _, database = found.path.partition("/")
    asking = {"username": found.options.pop("sentinel_username", None), "password": found.options.pop("sentinel_password", None)}
    kwargs = dict(parse_url(found.url(found.nodes[0], database)))
    has_tls = kwargs.pop("connection_class", None) is not None
    for of_a_node in ("host", "port"):
        kwargs.pop(of_a_node)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        found.nodes, sentinel_kwargs={
            **{name: value for name, value in kwargs.items() if name.startswith("ssl_")}, **asking, "protocol": 2, "ssl": has_tls,
            "socket_connect_timeout": _SENTINEL_SECONDS, "socket_timeout": _SENTINEL_SECONDS, "retry": Retry(NoBackoff(), 0),
        },
    )  # fmt: skip
    return _Service(service, sentinels, ssl=has_tls, **{**kwargs, **wanted})  # type: ignore[no-untyped-call]


class _Service(SentinelConnectionPool):
    """Owner of the connections to its sentinels, too."""

    async def aclose(self) -> None:
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()
        await super().aclose()
