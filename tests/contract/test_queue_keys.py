"""The keys that sign and that a fleet shares: kept, seen by their count of changes, removed."""

from __future__ import annotations

from queue_bench import Bench

from sendengine.policy.signing import ED25519, RSA, KeyEntry

ONE = KeyEntry("example.com", "one", RSA, "the key", "")
TWO = KeyEntry("example.com", "2026.b", ED25519, "another", "", 1.5e15)


def plain(entries: list[KeyEntry]) -> set[tuple[str, str, str, str, float]]:
    return {(entry.domain, entry.selector, entry.algorithm, entry.text, entry.since_us) for entry in entries}


async def test_a_key_is_kept_once_and_told_of_once(bench: Bench) -> None:
    assert await bench.queue.signing_keys(0) is None
    assert await bench.desk.keep_key(ONE)
    assert not await bench.desk.keep_key(ONE)
    found = await bench.queue.signing_keys(0)
    assert found is not None
    assert (found[0], plain(found[1])) == (1, plain([ONE]))
    assert "one of example.com" in found[1][0].place
    assert await bench.queue.signing_keys(1) is None


async def test_keys_stand_side_by_side_until_they_are_removed(bench: Bench) -> None:
    assert await bench.desk.keep_key(ONE)
    assert await bench.desk.keep_key(TWO)
    assert plain(await bench.desk.signing_keys()) == plain([ONE, TWO])
    assert await bench.desk.remove_key("example.com", "one")
    assert not await bench.desk.remove_key("example.com", "one")
    found = await bench.queue.signing_keys(2)
    assert found is not None
    assert (found[0], plain(found[1])) == (3, plain([TWO]))


async def test_a_key_of_the_same_name_takes_the_place_of_another(bench: Bench) -> None:
    assert await bench.desk.keep_key(ONE)
    assert await bench.desk.keep_key(KeyEntry("example.com", "one", RSA, "newer", ""))
    assert [entry.text for entry in await bench.desk.signing_keys()] == ["newer"]
