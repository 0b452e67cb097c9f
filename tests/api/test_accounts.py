"""Accounts over HTTP: made by the operator, their speed, their keys and seats."""

from __future__ import annotations

from datetime import date

from sendengine.queue.desk import RedisDesk
from sendengine.scheduler import audit
from tests.api.bench import MESSAGE, Api


async def test_the_operator_makes_accounts_and_sells_speed(api: Api) -> None:
    ops = await api.key(None)
    made = await api("PUT", "/v1/accounts/m7", ops, json={"tier": "30k", "relay": {"url": "smtp://mx.example:2525", "retry": "1m, 5m"}})
    assert (made.status, made.json["tier"], made.json["relay"], made.json["retry"]) == (200, "30k", "mx.example:2525", "1m, 5m")
    assert (await api("PUT", "/v1/accounts/m7", ops, json={"tier": "60k"})).status == 409
    assert (await api("PUT", "/v1/accounts/M7", ops, json={"tier": "60k"})).status == 400
    faster = await api("PUT", "/v1/accounts/m7/tier", ops, json={"tier": "100k"})
    assert faster.json["rate"] == 100_000
    assert (await api("PUT", "/v1/accounts/m7/tier", ops, json={"tier": "100q"})).status == 400
    wrong = await api("PUT", "/v1/accounts/m7/tier", ops, json={"tier": "77zz"})
    assert (wrong.status, "nearest is '60k'" in wrong.json["detail"]) == (400, True)
    boosted = await api("POST", "/v1/accounts/m7/boosts", ops, json={"rate": "200000/h", "until": "+1h", "why": "sale"})
    assert (boosted.status, boosted.json["rate"]) == (201, 200_000)
    assert boosted.json["boosts"][0]["who"].startswith("Ann (key ")
    again, other = ({"rate": rate, "until": "+1h", "why": "sale"} for rate in ("300000/h", "400000/h"))
    for body, status, boosts in ((again, 201, 2), (again, 201, 2), (other, 409, 0)):
        answer = await api("POST", "/v1/accounts/m7/boosts", ops, json=body, headers={"Idempotency-Key": "order-7"})
        assert (answer.status, len(answer.json.get("boosts", ()))) == (status, boosts)
    assert (await api("DELETE", "/v1/accounts/m7/boosts/2", ops)).json["rate"] == 200_000
    ended = await api("DELETE", "/v1/accounts/m7/boosts/1", ops)
    assert (ended.status, ended.json["rate"]) == (200, 100_000)
    assert (await api("DELETE", "/v1/accounts/m7/boosts/1", ops)).status == 404
    assert (await api("DELETE", "/v1/accounts/m7/boosts/x", ops)).status == 400
    assert (await api("PUT", "/v1/accounts/m7/relay", ops, json={"url": "smtp://other.example"})).json["relay"] == "other.example:25"
    assert [line["account"] for line in (await api("GET", "/v1/accounts", ops)).lines] == ["m1", "m2", "m7"]
    nearest = await api("GET", "/v1/accounts/m77", ops)
    assert (nearest.status, "'m7'" in nearest.json["detail"]) == (404, True)


async def test_an_estimate_answers_which_tier_would_make_it(api: Api) -> None:
    key = await api.key("m1", "read")
    found = (await api("GET", "/v1/accounts/m1/estimate?recipients=60000&finish_by=%2B30m", key)).json
    assert (found["recipients"], found["makes_it"], found["tier"]) == (60_000, False, "200k")
    for query in ("", "?recipients=x", "?recipients=-1", "?recipients=1&colour=red", "?recipients=1&recipients=2", "?recipients=1e3"):
        assert (await api("GET", "/v1/accounts/m1/estimate" + query, key)).status == 400


async def test_keys_are_made_shown_once_and_revoked(api: Api) -> None:
    key = await api.key("m1")
    made = await api("POST", "/v1/accounts/m1/keys", key, json={"scopes": ["read"], "seat": "Bob"})
    assert (made.status, made.json["seat"], made.json["account"]) == (201, "Bob", "m1")
    assert (await api("GET", "/v1/accounts/m1", made.json["key"])).status == 200
    listed = await api("GET", "/v1/accounts/m1/keys", key)
    assert [each["seat"] for each in listed.json] == ["Ann", "Bob"]
    assert made.json["key"] not in listed.body.decode()
    assert date.fromisoformat(listed.json[0]["last_used"]) >= date(2026, 1, 1)  # a day, no time of it
    assert (await api("DELETE", f"/v1/accounts/m1/keys/{made.json['id']}", key)).status == 200
    assert (await api("GET", "/v1/accounts/m1", made.json["key"])).status == 401
    for bad in ({"scopes": [], "seat": "x"}, {"scopes": ["root"], "seat": "x"}, {"scopes": ["read"]}, {"scopes": ["read"], "seat": "\n"}):
        assert (await api("POST", "/v1/accounts/m1/keys", key, json=bad)).status == 400


async def test_an_account_has_as_many_seats_as_it_bought(api: Api) -> None:
    desk = api.client.desk
    if isinstance(desk, RedisDesk):
        await desk._link.call("HSET", "{m1}", "seats", "1")
    else:
        await desk.set_account("m1", {"seats": "1"})
    key = await api.key("m1")
    refused = await api("POST", "/v1/accounts/m1/keys", key, json={"scopes": ["read"], "seat": "Bob"})
    assert (refused.status, "1 seat" in refused.json["detail"]) == (409, True)
    assert (await api("POST", "/v1/accounts/m1/keys", key, json={"scopes": ["read"], "seat": "Ann"})).status == 201


async def test_a_hold_refuses_sends_with_its_remedy_until_it_is_lifted(api: Api) -> None:
    ops, key = await api.key(None), await api.key("m1")
    held = await api("POST", "/v1/accounts/m1/holds", ops, json={"reason": "unpaid-fee", "text": "invoice 17"})
    assert (held.status, held.json["holds"][0]["reason"]) == (201, "unpaid-fee")
    [hold] = (await api("GET", "/v1/accounts/m1/holds", key)).json
    assert (hold["text"], bool(hold["remedy"]), bool(hold["department"])) == ("invoice 17", True, True)
    refused = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": [{"email": "a@x.org", "name": "A"}]})
    assert (refused.status, bool(refused.remedy)) == (409, True)
    assert (await api("POST", "/v1/messages", key, json=MESSAGE | {"to": "a@x.org", "fields": {"name": "A"}})).status == 409
    assert (await api("POST", "/v1/accounts/m1/holds", ops, json={"reason": "weather"})).status == 400
    assert (await api("DELETE", "/v1/accounts/m1/holds/content", ops)).status == 404
    lifted = await api("DELETE", "/v1/accounts/m1/holds/unpaid-fee?why=paid", ops)
    assert (lifted.status, lifted.json["holds"]) == (200, [])
    assert (await api("POST", "/v1/sends", key, json=MESSAGE)).status == 201


async def test_a_term_is_renewed_and_cancelled(api: Api) -> None:
    ops = await api.key(None)
    renewed = await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "renew", "ends": "+30d"})
    assert (renewed.status, renewed.json["phase"]) == (200, "active")
    assert (await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "cancel"})).json["phase"] == "cancelled_active"
    assert (await api("GET", "/v1/accounts/m1/term", await api.key("m1", "read"))).json["may_send"] is True
    assert (await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "forget"})).status == 400


async def test_who_did_what_is_in_the_trail_by_seat_and_key(api: Api) -> None:
    ops = await api.key(None, seat="Olga")
    ann = await api.client.create_key("m1", scopes=["send", "read", "admin"], seat="Ann", who="setup")
    await api("POST", "/v1/sends", ann.key, json=MESSAGE | {"campaign": "c"})
    await api("POST", "/v1/sends/c/pause", ann.key)
    await api("POST", "/v1/sends/none/pause", ann.key)
    await api("GET", "/v1/sends/c", ann.key)
    await api("PUT", "/v1/accounts/m1/tier", ops, json={"tier": "100k"})
    await api("POST", "/v1/accounts/m1/holds", ops, json={"reason": "content"})
    await api("POST", "/v1/accounts/m1/keys", ann.key, json={"scopes": ["read"], "seat": "Bob"})
    await api("POST", "/v1/webhooks", ann.key, json={"url": "https://hooks.example/x", "events": ["bounce"]})
    trail = (await api("GET", "/v1/accounts/m1/audit", ann.key)).lines
    assert [(line["what"], line["who"].split(" ")[0]) for line in trail] == [
        ("account.create", audit.user()), ("key.create", "setup"),
        ("send.create", "Ann"), ("send.pause", "Ann"), ("tier", "Olga"), ("hold", "Olga"), ("key.create", "Ann"),
        ("webhook.create", "Ann"),
    ]  # fmt: skip
    assert trail[2]["facts"] == {"send": "c"}
    assert ann.id in trail[2]["who"]
    assert ann.key not in str(trail)
    assert (await api("GET", "/v1/accounts/m2/audit", ann.key)).status == 404


async def test_a_purge_is_not_before_its_time(api: Api) -> None:
    ops = await api.key(None)
    early = await api("POST", "/v1/accounts/m1/purge", ops)
    assert (early.status, bool(early.remedy)) == (409, True)
    assert (await api("POST", "/v1/accounts/m1/purge", await api.key("m1"))).status == 403
    await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "renew", "ends": "+1d"})
    assert (await api("POST", "/v1/accounts/m1/purge", ops)).status == 409


async def test_another_password_keeps_the_relay(api: Api) -> None:
    ops = await api.key(None)
    first = await api("PUT", "/v1/accounts/m1/relay", ops, json={"url": "smtp://user@mx.example:587", "password": "old", "tls": "verify"})
    assert (first.json["relay"], first.json["relay_user"], first.json["relay_tls"]) == ("mx.example:587", "user", "verify")
    again = await api("PUT", "/v1/accounts/m1/relay", ops, json={"password": "new", "retry": "1m"})
    assert (again.json["relay"], again.json["relay_tls"], again.json["retry"]) == ("mx.example:587", "verify", "1m")
    assert b"new" not in again.body
    other = await api("PUT", "/v1/accounts/m1/relay", ops, json={"url": "smtp://user@other.example", "password": "third"})
    assert (other.json["relay"], other.json["relay_tls"]) == ("other.example:25", "verify")
    assert (await api("PUT", "/v1/accounts/m1/relay", ops, json={"tls": "required"})).json["relay_tls"] == "required"
    assert (await api("PUT", "/v1/accounts/m2/relay", ops, json={"tls": "required"})).status == 409
    for bad in ({}, {"url": "smtp://user:pw@mx.example"}, {"url": "http://mx.example"}, {"password": ""}):
        assert (await api("PUT", "/v1/accounts/m1/relay", ops, json=bad)).status == 400


async def test_a_request_that_changes_nothing_leaves_no_line(api: Api) -> None:
    ops, once = await api.key(None, seat="Olga"), {"Idempotency-Key": "k"}
    row = {"email": "a@x.org", "name": "A"}
    for _ in range(2):
        await api("PUT", "/v1/accounts/m7", ops, json={"tier": "60k"})
        await api("POST", "/v1/accounts/m7/credits", ops, json={"amount": 10}, headers=once)
        await api("POST", "/v1/sms/sends", ops, json={"account": "m7", "sender": "Shop", "text": "Hi", "campaign": "s"})
        await api("POST", "/v1/sends", ops, json=MESSAGE | {"account": "m7", "recipients": [row]}, headers=once)
        await api("POST", "/v1/accounts/m7/suppressions", ops, json={"addresses": ["b@x.org"]})
        await api("POST", "/v1/accounts/m7/suppressions/import", ops, data=b"b@x.org\n")
    for _ in range(2):
        await api("POST", "/v1/accounts/m7/suppressions/remove", ops, json={"addresses": ["b@x.org"]})
        await api("DELETE", "/v1/accounts/m7/suppressions/b@x.org", ops)
        await api("POST", "/v1/sends/m7:s/cancel", ops)
    trail = (await api("GET", "/v1/accounts/m7/audit", ops)).lines
    assert {line["who"].split(" ")[0] for line in trail} == {"Olga"}
    assert [line["what"] for line in trail] == [
        "account.create", "credits.grant", "sms.create", "send.create", "suppress", "unsuppress", "send.cancel",
    ]  # fmt: skip


async def test_why_of_each_change_is_in_the_trail(api: Api) -> None:
    ops = await api.key(None, seat="Eve")
    await api("POST", "/v1/accounts/m1/boosts", ops, json={"rate": "200000/h", "until": "+1h", "why": "w0"})
    assert (await api("DELETE", "/v1/accounts/m1/boosts/1?why=w1", ops)).status == 200
    for way in ({"url": "smtp://mx.example", "why": "w2"}, {"tls": "required", "why": "w3"}, {"retry": "1m", "why": "w4"}):
        assert (await api("PUT", "/v1/accounts/m1/relay", ops, json=way)).status == 200
    assert (await api("PUT", "/v1/accounts/m1/sms", ops, json={"rate": 9000, "why": "w5"})).status == 200
    lines = (await api("GET", "/v1/accounts/m1/audit", ops)).lines[1:]
    assert [(line["what"], line["why"]) for line in lines] == [
        ("boost", "w0"), ("boost.end", "w1"), ("relay", "w2"), ("relay", "w3"), ("relay", "w4"), ("tier", "w5"),
    ]  # fmt: skip
    assert (await api("PUT", "/v1/accounts/m9", ops, json={"tier": "60k", "relay": {"why": "x"}})).status == 400


async def test_why_a_tier_was_changed_is_in_the_trail(api: Api) -> None:
    ops = await api.key(None, seat="Eve")
    assert (await api("PUT", "/v1/accounts/m1/tier", ops, json={"tier": "100k", "why": "order 7"})).status == 200
    changed = (await api("GET", "/v1/accounts/m1/audit", ops)).lines[-1]
    assert (changed["what"], changed["why"]) == ("tier", "order 7")
