"""The keys that sign and that a fleet shares: kept, seen by their count of changes, removed."""

from __future__ import annotations

import pytest
from queue_bench import Bench

from sendengine.policy.signing import ED25519, RSA, KeyEntry
from sendengine.queue.desk import RedisDesk
from sendengine.queue.keys import DKIM
from sendengine.queue.memory import MemoryDesk

ONE = KeyEntry("example.com", "one", RSA, "the key", "")
TWO = KeyEntry("example.com", "2026.b", ED25519, "another", "", 1.5e15)


async def put(bench: Bench, name: str, value: bytes) -> None:
    """As some other release, or somebody by hand, has written it."""
    if isinstance(bench.desk, MemoryDesk):
        bench.desk._store.signing_keys[name] = value
    else:
        assert isinstance(bench.desk, RedisDesk)
        await bench.desk._link.call("HSET", DKIM, name, value)


def plain(entries: list[KeyEntry]) -> set[tuple[str, str, str, str, float]]:
    return {(entry.domain, entry.selector, entry.algorithm, entry.text, entry.since_us) for entry in entries}


async def test_a_key_is_kept_once_and_told_of_once(bench: Bench) -> None:
    assert await bench.queue.signing_keys(0) is None
    assert await bench.desk.keep_key(ONE) == "done"
    assert await bench.desk.keep_key(ONE) == "same"
    found = await bench.queue.signing_keys(0)
    assert found is not None
    assert (found[0], plain(found[1])) == (1, plain([ONE]))
    assert "one of example.com" in found[1][0].place
    assert await bench.queue.signing_keys(1) is None


async def test_keys_stand_side_by_side_until_they_are_removed(bench: Bench) -> None:
    assert await bench.desk.keep_key(ONE) == "done"
    assert await bench.desk.keep_key(TWO) == "done"
    assert plain(await bench.desk.signing_keys()) == plain([ONE, TWO])
    assert await bench.desk.remove_key("example.com", "one")
    assert not await bench.desk.remove_key("example.com", "one")
    found = await bench.queue.signing_keys(2)
    assert found is not None
    assert (found[0], plain(found[1])) == (3, plain([TWO]))


async def test_another_key_of_the_same_name_is_refused_and_changes_nothing(bench: Bench) -> None:
    assert await bench.desk.keep_key(ONE) == "done"
    other = KeyEntry("example.com", "one", RSA, "newer", "")
    assert await bench.desk.keep_key(other) == "other"
    assert await bench.desk.keep_key(other, moves=True) == "other"
    found = await bench.queue.signing_keys(0)
    assert found is not None
    assert (found[0], plain(found[1])) == (1, plain([ONE]))


async def test_the_same_key_begins_at_another_time_only_where_that_is_asked(bench: Bench) -> None:
    later = KeyEntry("example.com", "one", RSA, "the key", "", 1.5e15)
    assert await bench.desk.keep_key(ONE) == "done"
    assert await bench.desk.keep_key(later) == "same"
    assert plain(await bench.desk.signing_keys()) == plain([ONE])
    assert await bench.desk.keep_key(later, moves=True) == "done"
    assert await bench.desk.keep_key(later, moves=True) == "same"
    assert plain(await bench.desk.signing_keys()) == plain([later])


@pytest.mark.parametrize("damaged", [b"{", b"1", b'{"text":"a key of no kind"}', b'{"algorithm":"rsa-sha256","text":""}'])
async def test_a_key_takes_the_place_of_a_value_that_nobody_can_read(bench: Bench, damaged: bytes) -> None:
    await put(bench, "one._domainkey.example.com", damaged)
    assert await bench.desk.keep_key(ONE) == "done"
    assert plain(await bench.desk.signing_keys()) == plain([ONE])
