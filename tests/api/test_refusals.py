"""Refusals in words of HTTP: 404 for what the path names and nothing else, the field that is off, a request that mends it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sendengine import remedies
from sendengine.api.app import OPERATIONS
from tests.api.bench import MESSAGE, Api

SMS = {"sender": "Shop", "text": "Hi"}
BAD_VALUES: list[tuple[str, str, dict[str, Any], str, str]] = [  # method, path, body, field, what the answer names
    ("PUT", "/v1/accounts/m9", {"tier": "60kk"}, "tier", "60k"),
    ("PUT", "/v1/accounts/m1/tier", {"tier": "77zz"}, "tier", "200k"),
    ("PUT", "/v1/accounts/m9", {"tier": "60k", "relay": {"url": "http://x"}}, "relay", "smtp://"),
    ("PUT", "/v1/accounts/m9", {"tier": "60k", "relay": {"retry": "often"}}, "retry", "5m*2"),
    ("POST", "/v1/accounts/m1/boosts", {"rate": "fast", "until": "+2h"}, "rate", "200k"),
    ("POST", "/v1/accounts/m1/boosts", {"rate": "90000/h", "until": "tomorrowish"}, "until", "+2h30m"),
    ("POST", "/v1/accounts/m1/boosts", {"rate": "90000/h", "until": "+2h", "from": "soon"}, "from", "+2h30m"),
    ("POST", "/v1/accounts/m1/holds", {"reason": "contents"}, "reason", "content"),
    ("POST", "/v1/accounts/m1/term", {"verb": "renew", "ends": "in a year"}, "ends", "+2h30m"),
    ("POST", "/v1/accounts/m1/term", {"verb": "renew", "ends": "2020-01-01T00:00:00Z"}, "ends", "over before it begins"),
    ("PUT", "/v1/accounts/m1/sms", {"rate": "fast"}, "rate", "200k"),
    ("PUT", "/v1/accounts/m1/sms", {"provider": "trail"}, "provider", "trial"),
    ("POST", "/v1/accounts/m1/credits", {"amount": 5, "at": "lately"}, "at", "+2h30m"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "at": "tomorrowish"}, "at", "+2h30m"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "window": "Mon 99:00"}, "window", "Europe/Prague"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "on_doubt": "maybe"}, "on_doubt", "resend or hold"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "lifetime": "long"}, "lifetime", "90s"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "retry": "often"}, "retry", "5m*2"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "campaign": "no campaign"}, "campaign", "64 letters"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m7"}, "account", "m7"),
    ("POST", "/v1/sends", MESSAGE | {"account": "m1", "from": "nobody"}, "from", "nobody"),
    ("POST", "/v1/messages", MESSAGE | {"account": "m1", "to": "nobody", "fields": {"name": "A"}}, "to", "nobody"),
    ("POST", "/v1/sms/sends", SMS | {"account": "m1", "at": "soon"}, "at", "+2h30m"),
    ("POST", "/v1/sms/sends", SMS | {"account": "m1", "region": "XX"}, "region", "SE"),
    ("POST", "/v1/sms/sends", SMS | {"account": "m1", "sender": "a name that is too long"}, "sender", "short code"),
    ("POST", "/v1/webhooks", {"account": "m1", "url": "http://x", "events": ["bounce"]}, "url", "https://"),
    ("POST", "/v1/webhooks", {"account": "m1", "url": "https://x.example", "events": ["bounces"]}, "events[0]", "send.finished"),
    ("POST", "/v1/accounts/m1/boosts", {"rate": [5], "until": "+2h"}, "rate", "openapi"),
    ("POST", "/v1/accounts/m1/suppressions", {"addresses": ["nobody"]}, "addresses", "nobody"),
    ("POST", "/v1/accounts/m1/keys", {"scopes": ["read"], "seat": ""}, "seat", "letters"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "field", "said"), BAD_VALUES, ids=lambda each: each if isinstance(each, str) else "")
async def test_a_bad_value_in_a_body_is_400_and_names_its_field(
    api: Api, method: str, path: str, body: dict[str, Any], field: str, said: str
) -> None:
    answer = await api(method, path, await api.key(None), json=body)
    assert answer.status == 400
    assert answer.json["detail"].startswith(f"{field}: ")
    assert said in answer.json["detail"] + answer.remedy
    assert "--" not in answer.body.decode()
    assert "sendengine " not in answer.body.decode()


@pytest.mark.parametrize("query", ["at=tomorrowish", "finish_by=soon"])
async def test_a_bad_value_in_a_query_is_400_and_names_it(api: Api, query: str) -> None:
    answer = await api("GET", f"/v1/accounts/m1/estimate?recipients=5&{query}", await api.key("m1"))
    assert (answer.status, answer.json["detail"].startswith(query.partition("=")[0] + ": ")) == (400, True)


async def test_what_the_path_names_is_404(api: Api) -> None:
    ops = await api.key(None)
    for path in ("/v1/accounts/m7", "/v1/accounts/m7/why", "/v1/sends/m1:none", "/v1/accounts/m7/credits"):
        answer = await api("GET", path, ops)
        assert (answer.status, "sendengine " not in answer.remedy) == (404, True), path


async def test_remedies_are_requests_of_http(api: Api) -> None:
    ops, key = await api.key(None), await api.key("m1")
    await api("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c", "recipients": [{"email": "a@x.org", "name": "A"}]})
    bound = (await api("GET", "/v1/sends/c", key)).json["binding"]
    assert (bound["limit"], "sendengine " in bound["lift"]) == ("no_worker", False)
    paused = (await api("POST", "/v1/sends/c/pause", key)).json["binding"]
    assert paused["lift"] == "POST /v1/sends/m1:c/resume"
    await api("POST", "/v1/accounts/m1/holds", ops, json={"reason": "content"})
    held = await api("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "d"})
    assert (held.status, "DELETE /v1/accounts/m1/holds/content" in held.remedy) == (409, True)
    for path in ("/v1/accounts/m1", "/v1/accounts/m1/why"):
        lift = (await api("GET", path, key)).json["binding"]["lift"]
        assert ("DELETE /v1/accounts/m1/holds/content" in lift, "sendengine" in lift) == (True, False)
    again = await api("PUT", "/v1/accounts/m1", ops, json={"tier": "5k"})
    assert (again.status, again.remedy) == (409, "PUT /v1/accounts/m1/tier" + remedies.OPERATORS)


async def test_a_tier_or_a_rate_may_be_a_number(api: Api) -> None:
    ops = await api.key(None)
    assert (await api("PUT", "/v1/accounts/m8", ops, json={"tier": 7500})).json["tier"] == "7500"
    endless = await api("PUT", "/v1/accounts/m8/tier", ops, json={"tier": 10**400})
    assert endless.status in (400, 404), endless.json
    assert (await api("PUT", "/v1/accounts/m8/tier", ops, json={"tier": 1e5})).json["tier_rate"] == 100_000
    boosted = await api("POST", "/v1/accounts/m8/boosts", ops, json={"rate": 200000, "until": "+1h"})
    assert (boosted.status, boosted.json["rate"]) == (201, 200_000)
    assert (await api("PUT", "/v1/accounts/m8/sms", ops, json={"rate": 7200.5})).json["rate"] == 7200.5
    assert (await api("PUT", "/v1/accounts/m8/tier", ops, json={"tier": True})).status == 400


async def test_a_refusal_names_its_field_once_and_what_may_stand_there(api: Api) -> None:
    ops = await api.key(None)
    for method, path, body, detail, allowed in (
        ("POST", "m1/term", {"verb": "forget"}, "verb: Invalid enum value 'forget'", "one of trial, renew, cancel, reactivate, expire"),
        ("PUT", "m1/relay", {"tls": "some"}, "tls: Invalid enum value 'some'", "one of none, opportunistic, required, verify"),
        ("POST", "m1/keys", {"scopes": ["x"], "seat": "A"}, "scopes[0]: Invalid enum value 'x'", "one of read, send, admin"),
        ("PUT", "m1/tier", {"tier": "77zz"}, "tier: unknown tier '77zz'; nearest is '60k'", "or a number of messages per hour"),
        ("POST", "m1/credits", {"amount": 0}, "amount: 0.0 is no number of credits", "above 0, up to 1,000,000,000"),
    ):
        refused = await api(method, f"/v1/accounts/{path}", ops, json=body)
        assert (refused.status, detail in refused.json["detail"], allowed in refused.remedy) == (400, True, True), refused.json
    made = await api("POST", "/v1/sends", await api.key("m1"), json=MESSAGE | {"on_doubt": "x", "recipients": []})
    assert made.json["detail"] == "on_doubt: is resend or hold, not 'x'"
    hook = await api("POST", "/v1/webhooks", await api.key("m1"), json={"url": "http://hooks.example/x", "events": ["none"]})
    assert "one of bounce, complaint" in hook.remedy
    plain = await api("POST", "/v1/webhooks", await api.key("m1"), json={"url": "http://hooks.example/x", "events": ["bounce"]})
    assert "a webhook is an https:// URL (http:// is for" in plain.json["detail"]


async def test_what_can_be_done_about_a_send_that_has_ended(api: Api) -> None:
    key = await api.key("m1")
    await api("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "c", "recipients": [{"email": "a@x.org", "name": "A"}]})
    await api("POST", "/v1/sends/c/cancel", key)
    for verb in ("pause", "resume", "reverse"):
        refused = await api("POST", f"/v1/sends/c/{verb}", key)
        assert (refused.status, f"takes no {verb} any more" in refused.json["detail"]) == (409, True)
        assert refused.remedy == (
            "GET /v1/sends/m1:c/outcomes shows what became of each; POST /v1/sends/m1:c/resend sends to those it did not reach"
        )


@pytest.mark.parametrize("scopes", [("read", "send"), ("read", "send", "admin")])
@pytest.mark.parametrize(("method", "path"), [("PUT", "m1/tier"), ("POST", "m1/credits"), ("DELETE", "m1/holds/content")])
async def test_what_is_the_operators_is_called_so_whatever_the_scopes(api: Api, method: str, path: str, scopes: tuple[str, ...]) -> None:
    answer = await api(method, f"/v1/accounts/{path}", await api.key("m1", *scopes), json={})
    assert (answer.status, answer.json["detail"]) == (403, "this is the operator's: no account's key opens it")
    assert "ask the operator" in answer.remedy


@pytest.mark.parametrize(
    ("method", "path", "body", "detail", "allowed"),
    [
        ("PUT", "m1/tier", {"tier": "60k", "foo": 1}, "foo: there is no such field", "tier, why"),
        ("PUT", "m9", {"tier": "60k", "relay": {"foo": 1}}, "relay.foo: there is no such field", "url, password, tls, retry"),
        ("POST", "m1/keys", {"scopes": ["read"]}, "seat: is missing", "openapi"),
        ("POST", "m1/boosts", {"until": "+2h", "rate": 5, "form": "now"}, "form: there is no such field", "rate, until, from, why"),
        ("PUT", "m1/tier", [1], "the body: Expected `object`, got `array`", "openapi"),
        ("PUT", "m1/tier", {"tier": [1]}, "tier: Expected `", "openapi"),
    ],
)
async def test_the_detail_of_a_body_begins_with_the_field_that_is_off(
    api: Api, method: str, path: str, body: Any, detail: str, allowed: str
) -> None:
    answer = await api(method, f"/v1/accounts/{path}", await api.key(None), json=body)
    assert (answer.status, answer.json["detail"].startswith(detail)) == (400, True), answer.json
    assert allowed in answer.remedy


async def test_a_term_in_grace_is_renewed_and_not_cancelled(api: Api) -> None:
    ops = await api.key(None)
    await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "renew", "ends": "+1d"})
    await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "expire"})
    answer = await api("POST", "/v1/accounts/m1/term", ops, json={"verb": "cancel"})
    assert (answer.status, "`verb` renew" in answer.remedy) == (409, True)


async def test_a_boost_or_a_hold_that_is_not_there_is_404(api: Api) -> None:
    ops = await api.key(None)
    for path in ("boosts/99", "holds/unpaid-fee"):
        answer = await api("DELETE", f"/v1/accounts/m1/{path}", ops)
        assert (answer.status, answer.remedy) == (404, "GET /v1/accounts/m1"), path


def test_each_request_that_a_remedy_names_says_whose_it_is() -> None:
    """An account's key must not be sent where it is refused."""
    told = [
        remedies.create_account("m1"), remedies.show_account("m1"), remedies.set_tier("m1"), remedies.set_tier("m1/sms"),
        remedies.boost("m1"), remedies.set_relay("m1", ""), remedies.set_sms("m1"), remedies.renew("m1"), remedies.expire("m1"),
        remedies.release("m1", "content"), remedies.grant_credits("m1", "5"), remedies.list_keys("m1"), remedies.list_sends(),
        remedies.outcomes("m1:c"), remedies.status("m1:c"), remedies.resume("m1:c"), remedies.cancel("m1:c"), remedies.move_up("m1:c"),
        remedies.replay("m1:c"),
    ]  # fmt: skip
    for each in told:
        method, path = each.http.split()[:2]
        asked = next(op for op in OPERATIONS if op.method == method and is_of(op.path, path))
        assert each.http.endswith(remedies.OPERATORS) == asked.operators, each.http


def is_of(pattern: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", pattern), path) is not None
