"""SMS and credits over HTTP: bought, estimated, reserved; sends that are loaded, steered and looked at as any; low credit is told."""

from __future__ import annotations

import orjson
import pytest

from sendengine.policy.hooks import decode_delivery
from sendengine.remedies import OPERATORS
from sendengine.scheduler import hooks
from tests.api.bench import MESSAGE, Api

PEOPLE = [{"phone": f"+42060112{n:04}", "name": f"N{n}"} for n in range(150)]
SMS = {"sender": "Shop", "text": "Hi {{ name }}"}


async def bought(api: Api, amount: float = 1000.0) -> str:
    ops = await api.key(None)
    assert (await api("POST", "/v1/accounts/m1/credits", ops, json={"amount": amount})).status == 201
    return ops


async def test_credits_are_bought_once_and_shown(api: Api) -> None:
    ops, once = await api.key(None), {"Idempotency-Key": "order 5"}
    for _ in range(2):
        found = await api("POST", "/v1/accounts/m1/credits", ops, json={"amount": 100, "why": "order 5"}, headers=once)
        assert (found.status, found.json["granted"], found.json["free"]) == (201, 100.0, 100.0)
    assert (await api("POST", "/v1/accounts/m1/credits", ops, json={"amount": 200}, headers=once)).status == 409
    key = await api.key("m1", "read")
    assert (await api("GET", "/v1/accounts/m1/credits", key)).json["free"] == 100.0
    assert [move["credits"] for move in (await api("GET", "/v1/accounts/m1/credits/history", key)).lines] == [100.0]
    assert (await api("GET", "/v1/accounts/m1", key)).json["credits"] == 100.0
    for bad in ({"amount": 0}, {"amount": -5}, {"amount": 1e12}, {}):
        assert (await api("POST", "/v1/accounts/m1/credits", ops, json=bad)).status == 400


async def test_what_is_estimated_is_what_is_reserved(api: Api) -> None:
    await bought(api)
    key = await api.key("m1")
    cost = (await api("POST", "/v1/accounts/m1/credits/estimate", key, json={"text": SMS["text"], "recipients": PEOPLE})).json
    made = await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": PEOPLE, "campaign": "c"})
    assert (made.status, made.json["accepted"], made.json["id"]) == (201, 150, "m1/sms:c")
    assert (await api("GET", "/v1/accounts/m1/credits", key)).json["reserved"] == cost["credits"] > 0
    for name in ("c", "m1:c", "m1/sms:c", "m1%2Fsms:c"):
        found = await api("GET", f"/v1/sends/{name}", key)
        assert (found.status, found.json["campaign"]) == (200, "m1/sms:c"), name
    assert (await api("POST", "/v1/sends/m1/sms:c/cancel", key)).json["state"] == "cancelled"
    assert (await api("GET", "/v1/accounts/m1/credits", key)).json["free"] == 1000.0
    trail = (await api("GET", "/v1/accounts/m1/audit", key)).lines
    assert [(line["what"], line["facts"].get("send")) for line in trail[-2:]] == [("sms.create", "c"), ("send.cancel", "c")]


async def test_a_list_of_numbers_is_uploaded(api: Api) -> None:
    await bought(api)
    key = await api.key("m1")
    made = await api("POST", "/v1/sms/sends", key, json=SMS | {"campaign": "c", "region": "CZ"})
    assert (made.status, made.json["sealed"]) == (201, False)
    ndjson = b"".join(orjson.dumps(each) + b"\n" for each in PEOPLE) + b'{"phone":"601 999 999","name":"home"}\n{"phone":"x","name":"y"}\n'
    loaded = await api("POST", "/v1/sends/c/recipients", key, data=ndjson)
    assert (loaded.status, loaded.json["rows"], loaded.json["rejected"]) == (200, 152, 1)
    assert (await api("POST", "/v1/sends/c/seal", key, json={"rows": 152})).json["accepted"] == 151
    missing = await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": [{"email": "a@x.org", "name": "A"}]})
    assert (missing.status, "phone" in missing.json["detail"]) == (400, True)


async def test_without_credit_nothing_is_sent_and_the_remedy_is_to_buy(api: Api) -> None:
    await bought(api, 0.5)
    key = await api.key("m1")
    refused = await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": PEOPLE, "campaign": "c"})
    assert (refused.status, refused.headers["Location"]) == (402, "/v1/sends/m1/sms:c")
    cost = (await api("POST", "/v1/accounts/m1/credits/estimate", key, json={"text": SMS["text"], "recipients": PEOPLE})).json["credits"]
    assert f"costs {cost:g}, 0.5 are free, {cost - 0.5:g} are short" in refused.json["detail"], "of the whole list, not of its first batch"
    assert refused.remedy == (
        f"POST /v1/accounts/m1/credits with `amount` {cost - 0.5:g}{OPERATORS}, and repeat the call with `campaign`: it goes on there; "
        "or POST /v1/sends/m1/sms:c/cancel"
    )
    waiting = (await api("GET", "/v1/sends/c", key)).json["binding"]
    assert (waiting["limit"], f"{cost - 0.5:g} are short" in waiting["lift"]) == ("credits", True)
    assert (await api("GET", "/v1/accounts/m1/why", key)).json["binding"] == waiting
    await bought(api, cost)
    enough = (await api("GET", "/v1/sends/c", key)).json["binding"]
    assert (enough["limit"], "short" in enough["lift"], "`campaign`" in enough["lift"]) == ("credits", False, True)
    again = await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": PEOPLE, "campaign": "c"})
    assert (again.status, again.json["sealed"], again.json["accepted"]) == (200, True, 150)
    assert (await api("GET", "/v1/sends/c", key)).json["binding"]["limit"] == "no_worker"


async def test_an_upload_that_is_too_dear_is_told_its_whole_price_and_goes_on(api: Api) -> None:
    await bought(api, 5)
    key = await api.key("m1")
    await api("POST", "/v1/sms/sends", key, json=SMS | {"campaign": "c"})
    ndjson = b"".join(orjson.dumps(each) + b"\n" for each in PEOPLE)
    refused = await api("POST", "/v1/sends/c/recipients", key, data=ndjson)
    assert (refused.status, "from row 0 on" in refused.json["detail"]) == (402, True)
    assert "repeat the upload: it goes on there" in refused.remedy
    await bought(api, 1000)
    assert (await api("POST", "/v1/sends/c/recipients", key, data=ndjson)).status == 200
    assert (await api("GET", "/v1/sends/c", key)).json["binding"]["limit"] == "unsealed"
    assert (await api("POST", "/v1/sends/c/seal", key)).json["accepted"] == 150


async def half_paid(api: Api) -> tuple[str, list[dict[str, str]], float]:
    """A key, people, and what they cost: half of it was bought."""
    people = [{"phone": f"+4206011{n:05}", "name": f"N{n:03}"} for n in range(300)]
    key = await api.key("m1")
    cost = (await api("POST", "/v1/accounts/m1/credits/estimate", key, json={"text": SMS["text"], "recipients": people})).json["credits"]
    await bought(api, cost / 2)
    return key, people, cost


async def test_an_upload_that_lacks_credit_in_the_middle_is_not_sealed(api: Api) -> None:
    key, people, cost = await half_paid(api)
    csv = "phone,name\n" + "".join(f"{each['phone']},{each['name']}\n" for each in people)
    headers = {"Content-Type": "text/csv"}
    await api("POST", "/v1/sms/sends", key, json=SMS | {"campaign": "c"})
    refused = await api("POST", "/v1/sends/c/recipients", key, data=csv, headers=headers)
    assert (refused.status, "from row 100 on" in refused.json["detail"]) == (402, True)
    sealed = await api("POST", "/v1/sends/c/seal", key)
    assert (sealed.status, "100 rows" in sealed.json["detail"]) == (409, True)
    assert sealed.remedy == (
        'POST /v1/sends/m1/sms:c/recipients with the list once more, or repeat the call that began it: it goes on where it stopped; '
        'or seal what stands with {"rows": 100} in the body'
    )
    await bought(api, cost)
    assert (await api("POST", "/v1/sends/c/recipients", key, data=csv, headers=headers)).json["rows"] == 300
    assert (await api("POST", "/v1/sends/c/seal", key)).json["accepted"] == 300


async def test_a_whole_call_that_lacks_credit_is_not_sealed_by_another(api: Api) -> None:
    key, people, cost = await half_paid(api)
    whole = SMS | {"recipients": people, "campaign": "c"}
    assert (await api("POST", "/v1/sms/sends", key, json=whole)).status == 402
    assert (await api("POST", "/v1/sends/c/seal", key)).status == 409
    assert (await api("POST", "/v1/sends/c/seal", key, json={"rows": 300})).status == 409
    await bought(api, cost)
    again = await api("POST", "/v1/sms/sends", key, json=whole)
    assert (again.status, again.json["sealed"], again.json["accepted"]) == (200, True, 300)


async def test_lists_have_both_lanes_of_an_account_and_no_other(api: Api) -> None:
    ops = await bought(api)
    key, other = await api.key("m1"), await api.key("m2")
    await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": PEOPLE, "campaign": "s"})
    await api("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "e"})
    assert [line["campaign"] for line in (await api("GET", "/v1/sends", key)).lines] == ["m1:e", "m1/sms:s"]
    assert [line["account"] for line in (await api("GET", "/v1/accounts", key)).lines] == ["m1", "m1/sms"]
    assert (await api("GET", "/v1/sends", other)).lines == []
    answers = [await api("GET", f"/v1/sends/{name}", other) for name in ("m1/sms:s", "m1/sms:none", "s", "m1:s")]
    assert {answer.status for answer in answers} == {404}
    assert (await api("PUT", "/v1/accounts/m1/sms", ops, json={"rate": "7200"})).json["rate"] == 7200
    assert (await api("GET", "/v1/accounts/m1/sms", key)).json["rate"] == 7200
    assert (await api("GET", "/v1/accounts/m1", key)).json["rate"] == 60_000
    unknown = await api("PUT", "/v1/accounts/m1/sms", ops, json={"provider": "pigeons"})
    assert (unknown.status, "trial" in unknown.remedy) == (400, True)


@pytest.mark.parametrize("bad", [{"sender": "a name that is too long"}, {"region": "XX"}, {"text": ""}, {"recipients": []}, {"at": "soon"}])
async def test_sms_that_cannot_be(api: Api, bad: dict[str, object]) -> None:
    await bought(api)
    answer = await api("POST", "/v1/sms/sends", await api.key("m1"), json=SMS | {"recipients": PEOPLE} | bad)
    assert answer.status == 400
    assert answer.remedy


async def test_low_credit_is_told_once_to_whom_it_is_low(api: Api) -> None:
    await bought(api, 1000.0)
    key, desk = await api.key("m1"), api.client.desk
    for below in (5, 990):
        body = {"url": "https://hooks.example/x", "events": ["credit.low"], "credit_below": below}
        assert (await api("POST", "/v1/webhooks", key, json=body)).status == 201
    await hooks.look(desk, "m1")
    await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": PEOPLE, "campaign": "c"})
    for _ in range(3):
        await hooks.look(desk, "m1")
    found = [decode_delivery(each.value) for each in await desk.outbox.due("m1", 1e18, 10)]
    told = [orjson.loads(each.body) for each in found if each is not None]
    assert [(each["type"], each["data"]["below"]) for each in told] == [("credit.low", 990)]
    assert told[0]["data"]["free"] < 990


async def test_why_tells_of_either_channel_and_which_one_it_is(api: Api) -> None:
    """A send of SMS that is paused is what is wrong with the account, whatever its e-mail does."""
    await bought(api)
    key = await api.key("m1")
    await api("POST", "/v1/sms/sends", key, json=SMS | {"recipients": PEOPLE, "campaign": "s"})
    first = (await api("GET", "/v1/accounts/m1/why", key)).json
    assert (first["channel"], first["campaign"], first["binding"]["limit"]) == ("sms", "m1/sms:s", "no_worker")
    await api("POST", "/v1/sends/s/pause", key)
    await api("POST", "/v1/sends", key, json=MESSAGE | {"campaign": "e", "recipients": [{"email": "a@x.org", "name": "A"}]})
    found = (await api("GET", "/v1/accounts/m1/why", key)).json
    both = [(each["channel"], each["campaign"], each["binding"]["limit"]) for each in (found, *found["beside"])]
    assert both == [("email", "m1:e", "no_worker"), ("sms", "m1/sms:s", "paused")]
    await api("POST", "/v1/sends/e/cancel", key)
    shown = (await api("GET", "/v1/accounts/m1", key)).json
    assert (shown["binding_channel"], shown["binding"]["limit"], shown["sends"]) == ("sms", "paused", ["m1/sms:s"])
    lane = (await api("GET", "/v1/accounts/m1/sms", key)).json
    assert (lane["account"], lane["binding_channel"], lane["sends"]) == ("m1/sms", "sms", ["m1/sms:s"])


async def test_the_command_line_tells_of_either_channel(api: Api) -> None:
    await bought(api)
    await api.client.submit_sms(account="m1", sender="Shop", text="Hi", recipients=[{"phone": "+420601123456"}], campaign="s")
    found = await api.client.explain("m1")
    assert (found.channel, found.campaign) == ("sms", "m1/sms:s")
    assert (await api.client.account("m1")).binding_channel == "sms"


async def test_a_single_sms_is_taken_once(api: Api) -> None:
    await bought(api)
    key, once = await api.key("m1", "send"), {"Idempotency-Key": "login-1"}
    message = SMS | {"to": "601 123 456", "region": "CZ", "fields": {"name": "Ann"}}
    first, again = [await api("POST", "/v1/sms/messages", key, json=message, headers=once) for _ in range(2)]
    assert (first.status, first.json["recipient"], again.json == first.json) == (202, "+420601123456", True)
    assert (await api("POST", "/v1/sms/messages", key, json=message | {"text": "other"}, headers=once)).status == 409
    assert (await api("POST", "/v1/sms/messages", key, json=message | {"to": "x"})).status == 400
    found = await api("GET", "/v1/sends/m1/sms:transactional", await api.key("m1", "read"))
    assert (found.json["campaign"], found.json["accepted"]) == ("m1/sms:transactional", 1)


async def test_a_single_sms_without_credit_is_refused_and_nothing_stands(api: Api) -> None:
    await bought(api, 0.5)
    key = await api.key("m1")
    message = SMS | {"to": "601 123 456", "region": "CZ", "fields": {"name": "Ann"}}
    refused = await api("POST", "/v1/sms/messages", key, json=message)
    assert (refused.status, refused.json["type"], refused.json["title"]) == (
        402, "urn:sendengine:problem:credits-message", "Too little credit: nothing was sent",
    )  # fmt: skip
    assert ("Location" in refused.headers, bool(refused.remedy)) == (False, True)
