"""fsck proves the money: whatever is changed by hand, on either side of the books, is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from sendengine.client import Client
from tests.sms.shop import NUMBERS


def _lot(change: Callable[[list[int]], list[int]]) -> Callable[[Redis], object]:
    def act(redis: Redis) -> object:
        granted, reserved, spent, *rest = redis.hget("{m1}/sms:lots", "1").decode().split()  # type: ignore[union-attr]
        figures = map(str, change([int(granted), int(reserved), int(spent)]))
        return redis.hset("{m1}/sms:lots", "1", " ".join([*figures, *rest]))

    return act


def _last_entry(redis: Redis) -> object:
    [(entry, _)] = redis.xrevrange("{m1}/sms:money", count=1)  # type: ignore[misc]
    return redis.xdel("{m1}/sms:money", entry)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (_lot(lambda figures: [figures[0] + 1, *figures[1:]]), "lot 1 is not what the ledger says"),
        (_lot(lambda figures: [figures[0], figures[1] - 2000, figures[2] + 2000]), "lot 1 is not what the ledger says"),
        (_last_entry, "lot 1 is not what the ledger says"),
        (lambda redis: redis.hincrby("{m1}/sms:c:a:$", "d1", -2000), "its sends have reserved something else"),
        (lambda redis: redis.hset("{m1}/sms:c:a:$", "0", (3000).to_bytes(4, "little")), "its rows that have not ended cost 30"),
        (lambda redis: redis.xadd("{m1}/sms:money", {"k": "spend", "l": "1:2000", "c": "a", "b": "0"}), "is not what the ledger says"),
    ],
)
async def test_what_was_changed_by_hand_is_found(redis_url: str, tmp_path: Path, act: Callable[[Redis], object], said: str) -> None:
    async with Client(redis_url) as client:
        await client.create_account("m1", "60k")
        await client.grant_credits("m1", 100, key="order")
        rows = [{"phone": number} for number in NUMBERS[:10]]
        await client.submit_sms(account="m1", sender="ACME", text="hi", recipients=rows, campaign="a")
        assert [finding async for finding in client.fsck()] == []
        with Redis.from_url(redis_url) as redis:
            act(redis)
        found = [finding.what async for finding in client.fsck()]
        assert any(said in what for what in found), found
        assert [finding.what async for finding in client.fsck("m1/sms")] == found
