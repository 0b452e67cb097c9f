"""A URL of several nodes means what it says, and one that means nothing says why."""

from __future__ import annotations

import pytest

from sendengine.errors import ConfigError
from sendengine.queue.servers import Node, connections, form_of, servers


@pytest.mark.parametrize(
    ("url", "nodes", "first"),
    [
        ("redis+cluster://a:7000,b:7001", [("a", 7000), ("b", 7001)], "redis://a:7000/"),
        ("redis+cluster://a,b/", [("a", 6379), ("b", 6379)], "redis://a:6379/"),
        ("rediss+cluster://u:p%40w@a:7000/0?ssl_cert_reqs=none", [("a", 7000)], "rediss://u:p%40w@a:7000/?ssl_cert_reqs=none"),
        ("redis+cluster://[::1]:7000,[::2]", [("::1", 7000), ("::2", 6379)], "redis://[::1]:7000/"),
        ("redis+sentinel://a:26380,b/mail/2", [("a", 26380), ("b", 26379)], "redis://a:26380/"),
    ],
)
def test_a_url_of_several_nodes_is_taken_apart(url: str, nodes: list[Node], first: str) -> None:
    found = servers(url)
    assert list(found.nodes) == nodes
    assert found.url(found.nodes[0]) == first
    assert found.form == form_of(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://a", "several nodes"),
        ("redis+cluster://", "several nodes"),
        ("redis+cluster://a/3", "no database"),
        ("redis+cluster://a:port", "no host:port"),
        ("redis+cluster://a,,b", "no host:port"),
        ("redis+sentinel://a:26379", "no service"),
        ("redis+sentinel://a:26379/", "no service"),
    ],
)
def test_a_url_that_means_nothing_says_why(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        servers(url)


def test_login_and_database_are_the_masters_and_the_sentinels_have_their_own() -> None:
    pool = connections("redis+sentinel://u:pw@a,b/mail/2?sentinel_password=s", 5.0)
    assert {name: pool.connection_kwargs[name] for name in ("username", "password", "db")} == {"username": "u", "password": "pw", "db": 2}
    asked = pool.sentinel_manager.sentinel_kwargs
    assert (asked["username"], asked["password"], asked["ssl"]) == (None, "s", False)
    assert "sentinel_password" not in pool.connection_kwargs
