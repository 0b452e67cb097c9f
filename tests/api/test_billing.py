"""Events from billing over HTTP: a signature and no key; what is applied, repeated and forged. The rest is tests/test_billing.py's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from sendengine.config import Config
from sendengine.policy.billing import HEADER, sign
from sendengine.ports import Desk
from tests.api.bench import LIMITS, Answer, Api, served

SECRET = b"a secret of thirty-two characters"


@pytest.fixture
async def api(desk: Desk, tmp_path: Path) -> AsyncIterator[Api]:
    path = tmp_path / "secrets"
    path.write_bytes(SECRET + b"\n")
    async with served(desk, LIMITS, msgspec.structs.replace(Config(), billing_secrets_file=str(path))) as made:
        await made.client.create_account("m1", "60k")
        yield made


def event(sequence: int, type_: str, **said: Any) -> bytes:
    head = {"id": f"evt_{sequence}", "account": "m1", "sequence": sequence, "at": "2026-11-27T10:00:00Z"}
    return orjson.dumps({**head, "type": type_, **said})


async def bring(api: Api, raw: bytes, *, secret: bytes = SECRET, late: float = 0.0, key: str | None = None) -> Answer:
    now = await api.client.desk.now_us() / 1e6
    headers = {HEADER: sign(raw, [secret], now - late), "Content-Type": "application/json"}
    return await api("POST", "/v1/billing/events", key, data=raw, headers=headers)


async def test_a_purchase_raises_the_tier_once_and_in_its_order(api: Api) -> None:
    second = await bring(api, event(2, "tier.changed", tier="100k"))
    assert (second.status, second.json["status"], second.json["expected"]) == (200, "waits", 1)
    first = await bring(api, event(1, "seats.changed", seats=2))
    assert (first.json["status"], [each["status"] for each in first.json["then"]]) == ("applied", ["applied"])
    assert (await bring(api, event(1, "seats.changed", seats=2))).json["status"] == "repeated"
    assert (await api.client.account("m1")).rate == 100_000
    other = await bring(api, event(1, "seats.changed", seats=9))
    assert (other.status, bool(other.remedy)) == (409, True)
    for raw in (event(3, "tier.changed", tier="77zz"), event(5, "edition.changed", edition="plos")):
        wrong = await bring(api, raw)
        assert (wrong.status, "nearest is '" in wrong.json["detail"]) == (400, True)
    assert (await bring(api, event(3, "tier.lowered", tier="5k"))).status == 400


async def test_a_channel_that_was_not_sold_is_a_conflict_with_its_remedy_and_a_gap_is_shown(api: Api) -> None:
    key = await api.key("m1")
    await bring(api, event(1, "edition.changed", edition="starter"))
    body = {"sender": "ACME", "text": "hi", "recipients": [{"phone": "+14155550100"}], "campaign": "c"}
    refused = await api("POST", "/v1/sms/sends", key, json=body)
    assert (refused.status, "'starter' has email only" in refused.json["detail"]) == (409, True)
    assert "edition with sms" in refused.remedy
    await bring(api, event(3, "seats.changed", seats=2))
    for path in ("/v1/accounts/m1", "/v1/accounts/m1/why"):
        waits = (await api("GET", path, key)).json["billing_waits"]
        assert (waits["sequence"], waits["events"], waits["why"]) == (2, 1, None)


async def test_an_event_of_a_purged_account_is_told_when_it_went(api: Api) -> None:
    now = await api.client.desk.now_us() / 1e6
    over = {"term": "active", "term_ends": f"{(now - 11 * 86_400) * 1e6:.0f}", "grace": "10", "purge_after": "10"}
    await api.client.desk.set_gate("m1", {}, over)
    await api.client.purge("m1")
    gone = await bring(api, event(1, "seats.changed", seats=2))
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    assert (gone.status, f"m1 was deleted at {day}" in gone.json["detail"], bool(gone.remedy)) == (400, True, True)


async def test_what_is_not_genuine_is_refused_and_says_nothing_of_any_account(api: Api) -> None:
    raw, ops = event(1, "tier.changed", tier="100k"), await api.key(None)
    foreign = raw.replace(b"m1", b"m7")
    unsigned = [await api("POST", "/v1/billing/events", key, data=raw, headers={"Content-Type": "application/json"}) for key in (None, ops)]
    forged = [
        await bring(api, raw, secret=b"another one of thirty-two letters"), await bring(api, raw, late=301),
        await bring(api, foreign, secret=b"another one of thirty-two letters"),
    ]  # fmt: skip
    assert {answer.status for answer in [*unsigned, *forged]} == {401}
    assert forged[0].body == forged[2].body
    assert all(b"m1" not in answer.body and b"m7" not in answer.body for answer in [*unsigned, *forged])
    assert forged[0].remedy
    assert (await api.client.account("m1")).rate == 60_000
    assert (await bring(api, b" " * 70_000)).status == 413


async def test_two_signature_headers_are_none(api: Api) -> None:
    raw = event(1, "tier.changed", tier="100k")
    good = sign(raw, [SECRET], await api.client.desk.now_us() / 1e6)
    headers = [(HEADER, good), (HEADER, good), ("Content-Type", "application/json")]
    async with api.http.post(api.url + "/v1/billing/events", data=raw, headers=headers) as response:
        assert response.status == 401
    assert (await api.client.account("m1")).rate == 60_000


async def test_without_a_secret_no_event_is_taken(desk: Desk) -> None:
    async with served(desk) as api:
        await api.client.create_account("m1", "60k")
        answer = await bring(api, event(1, "tier.changed", tier="100k"))
        assert answer.status in (401, 503)
        assert answer.remedy
        assert (await api.client.account("m1")).rate == 60_000
