"""Who gets nothing any more, over HTTP; and that a complaint is told."""

from __future__ import annotations

import asyncio

import orjson

from sendengine.policy.hooks import decode_delivery
from sendengine.scheduler import hooks
from tests.api.bench import Api


async def test_addresses_are_put_on_the_list_read_and_taken_off(api: Api) -> None:
    key = await api.key("m1")
    added = await api("POST", "/v1/accounts/m1/suppressions", key, json={"addresses": ["A@X.org", "b@x.org"], "reason": "unsubscribed"})
    assert (added.status, added.json) == (200, {"added": 2, "changed": 0})
    again = await api("POST", "/v1/accounts/m1/suppressions", key, json={"addresses": ["b@x.org"], "reason": "complained"})
    assert again.json == {"added": 0, "changed": 1}
    lines = (await api("GET", "/v1/accounts/m1/suppressions", key)).lines
    assert {line["address"]: line["reason"] for line in lines} == {"A@x.org": "unsubscribed", "b@x.org": "complained"}
    assert len((await api("GET", "/v1/accounts/m1/suppressions?reason=complained", key)).lines) == 1
    assert len((await api("GET", "/v1/accounts/m1/suppressions?address=b@x.org", key)).lines) == 1
    assert (await api("POST", "/v1/accounts/m1/suppressions/remove", key, json={"addresses": ["b@x.org"]})).json == {"removed": 1}
    assert (await api("DELETE", "/v1/accounts/m1/suppressions/A%40x.org", key)).json == {"removed": 1}
    assert (await api("DELETE", "/v1/accounts/m1/suppressions/A%40x.org", key)).json == {"removed": 0}
    for bad in ({"addresses": []}, {"addresses": ["nobody"]}, {"addresses": ["a@x.org"], "reason": "weather"}):
        assert (await api("POST", "/v1/accounts/m1/suppressions", key, json=bad)).status == 400
    assert (await api("GET", "/v1/accounts/m1/suppressions?reason=weather", key)).status == 400
    assert (await api("GET", "/v1/accounts/m1/suppressions", key)).lines == []


async def test_a_list_of_any_form_is_imported(api: Api) -> None:
    key, path = await api.key("m1"), "/v1/accounts/m1/suppressions/import"
    bare = b"".join(b"p%d@x.org\n" % n for n in range(1050)) + b"nobody\n"
    found = (await api("POST", path + "?reason=hard-bounced", key, data=bare, headers={"Content-Type": "text/plain"})).json
    assert (found["rows"], found["added"], found["rejected"], found["refused"]["rows"][0]["line"]) == (1051, 1050, 1, 1051)
    ndjson = orjson.dumps({"email": "z@x.org", "reason": "complained"}) + b"\n"
    assert (await api("POST", path, key, data=ndjson, headers={"Content-Type": "application/x-ndjson"})).json["added"] == 1
    assert (await api("POST", path, key, data=b"email,reason\ny@x.org,manual\n", headers={"Content-Type": "text/csv"})).json["added"] == 1
    assert (await api("POST", path + "?reason=weather", key, data=bare)).status == 400
    lines = (await api("GET", "/v1/accounts/m1/suppressions", key)).lines
    assert len({line["address"] for line in lines}) == 1052


async def test_a_complaint_is_told_to_who_wants_to_know(api: Api) -> None:
    key = await api.key("m1")
    await api("POST", "/v1/webhooks", key, json={"url": "https://hooks.example/x", "events": ["complaint"]})
    await api("POST", "/v1/accounts/m1/suppressions", key, json={"addresses": ["a@x.org"], "reason": "complained"})
    await api("POST", "/v1/accounts/m1/suppressions", key, json={"addresses": ["b@x.org"]})
    [queued] = await api.client.desk.outbox.due("m1", 1e18, 10)
    delivery = decode_delivery(queued.value)
    assert delivery is not None
    assert orjson.loads(delivery.body)["data"] == {"recipients": ["a@x.org"], "count": 1}
    assert await asyncio.gather(*(hooks.emit(api.client.desk, account, "complaint", {}) for account in ("m1", "m2"))) == [1, 0]


