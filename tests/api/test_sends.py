"""Sends over HTTP: inline, uploaded, repeated, steered, watched; and single messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from sendengine.render.message import Message
from tests.api.bench import MESSAGE, Api, until

PEOPLE = [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in range(250)]
LETTER = Message(sender="news@shop.example", subject="x", text="{{ name }}")
NDJSON = b"".join(orjson.dumps(each) + b"\n" for each in PEOPLE)


async def uploaded(octets: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(octets), size):
        yield octets[start : start + size]


async def test_a_send_with_its_recipients_in_the_body(api: Api) -> None:
    key = await api.key("m1")
    rows = [*PEOPLE, {"email": "nobody", "name": "x"}, {"email": "p0@EXAMPLE.org", "name": "again"}]
    made = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": rows, "campaign": "summer"})
    said = made.json
    assert (made.status, made.headers["Location"]) == (201, "/v1/sends/m1:summer")
    assert (said["campaign"], said["sealed"], said["rows"], said["accepted"], said["duplicates"]) == ("m1:summer", True, 252, 250, 1)
    assert said["refused"] == {
        "count": 1, "rows": [{"line": 251, "row": 250, "reason": "an address needs an @", "text": '{"email":"nobody","name":"x"}'}],
    }  # fmt: skip
    again = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": rows, "campaign": "summer"})
    assert (again.status, again.json["created"]) == (200, False)
    other = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": PEOPLE[:120], "campaign": "summer"})
    assert (other.status, "row 120" in other.json["detail"] or "row 100" in other.json["detail"]) == (409, True)
    assert "--" not in other.remedy
    assert (await api.client.desk.campaign("m1", "summer"))["created_by"] == "Ann"


async def test_what_lifts_an_unsealed_send_is_its_upload_and_its_seal(api: Api) -> None:
    key = await api.key("m1", "send", "read")
    send = (await api("POST", "/v1/sends", key, json=MESSAGE | {"strict": True})).json["id"]
    path = f"/v1/sends/{send}"
    empty = (await api("GET", path, key)).json
    await api("POST", path + "/recipients", key, data=uploaded(NDJSON))
    loaded = (await api("GET", path, key)).json
    assert [(each["binding"]["limit"], each["finish_estimate"]) for each in (empty, loaded)] == [("unsealed", None)] * 2
    assert empty["binding"]["lift"] == f"POST {path}/recipients brings its list; POST {path}/seal ends it"
    assert loaded["binding"]["lift"] == (
        f"POST {path}/recipients repeats its list, or goes on behind it with first_batch=3; POST {path}/seal ends it"
    )


async def test_a_list_is_uploaded_and_sealed(api: Api) -> None:
    key = await api.key("m1", "send", "read")
    made = await api("POST", "/v1/sends", key, json=MESSAGE)
    send = made.json["id"]
    assert (made.status, made.json["sealed"]) == (201, False)
    path = f"/v1/sends/{send}"
    loaded = await api("POST", path + "/recipients", key, data=uploaded(NDJSON), headers={"Content-Type": "application/x-ndjson"})
    assert (loaded.status, loaded.json["rows"], loaded.json["next_batch"]) == (200, 250, 3)
    more = await api("POST", path + "/recipients?first_batch=3", key, data=b"email,name\nz@x.org,Z\nbad,B\n")
    assert (more.json["rows"], more.json["rejected"], more.json["refused"]["rows"][0]["line"]) == (2, 1, 3)
    assert (await api("POST", path + "/recipients?first_batch=9", key, data=b"email,name\nz@x.org,Z\n")).status == 409
    assert (await api("POST", path + "/seal", key, json={"rows": 250})).status == 409
    sealed = await api("POST", path + "/seal", key, json={"rows": 252})
    assert (sealed.status, sealed.json["sealed"], sealed.json["accepted"]) == (200, True, 251)
    assert (await api("POST", path + "/recipients", key, data=NDJSON)).status == 200  # a repeat is no harm
    assert (await api("GET", path, key)).json["rows"] == 252


async def test_a_list_whose_connection_broke_is_sealed_when_it_was_repeated(api: Api) -> None:
    key = await api.key("m1", "send", "read")
    path = f"/v1/sends/{(await api('POST', '/v1/sends', key, json=MESSAGE)).json['id']}"
    whole = b"".join(orjson.dumps({"email": f"p{n}@example.org", "name": f"N{n}"}) + b"\n" for n in range(20_000))

    async def broken() -> AsyncIterator[bytes]:
        async for part in uploaded(whole[:700_000], 100_000):
            yield part
        raise ConnectionResetError

    with pytest.raises(aiohttp.ClientError):
        await api("POST", path + "/recipients", key, data=broken())
    async with asyncio.timeout(30):
        while "has not ended" not in (sealed := await api("POST", path + "/seal", key)).json["detail"]:
            assert sealed.status in (400, 409)  # nothing of it stands yet, or rows come
    assert sealed.status == 409
    assert (await api("POST", path + "/recipients", key, data=whole)).json["rows"] == 20_000
    assert (await api("POST", path + "/seal", key)).json["accepted"] == 20_000


async def test_an_idempotency_key_names_the_send(api: Api) -> None:
    key, once = await api.key("m1"), {"Idempotency-Key": "order 17"}
    first = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": PEOPLE}, headers=once)
    again = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": PEOPLE}, headers=once)
    assert (first.status, again.status, again.json["id"]) == (201, 200, first.json["id"])
    changed = await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": PEOPLE, "subject": "x"}, headers=once)
    assert (changed.status, "another message" in changed.json["detail"]) == (409, True)
    elsewhere = await api("POST", "/v1/sends", await api.key("m2"), json=MESSAGE | {"recipients": PEOPLE}, headers=once)
    assert elsewhere.status == 201
    assert elsewhere.json["id"].partition(":")[2] != first.json["id"].partition(":")[2]
    for bad in ("", "x" * 256):
        assert (await api("POST", "/v1/sends", key, json=MESSAGE, headers={"Idempotency-Key": bad})).status == 400


async def test_verbs_steer_and_say_the_state(api: Api) -> None:
    key = await api.key("m1")
    await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": PEOPLE, "campaign": "c"})
    for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "sending"), ("reverse", "sending"), ("cancel", "cancelled")):
        done = await api("POST", f"/v1/sends/c/{verb}", key)
        assert (done.status, done.json["state"]) == (200, state)
    assert (await api("POST", "/v1/sends/c/resume", key)).status == 409
    lines = (await api("GET", "/v1/sends/m1:c/outcomes?outcome=cancelled", key)).lines
    assert sorted(line["recipient"] for line in lines) == sorted(each["email"] for each in PEOPLE)
    assert (await api("GET", "/v1/sends/m1:c/outcomes?outcome=sent", key)).lines == []
    assert (await api("GET", "/v1/sends/m1:c/outcomes?outcome=sunk", key)).status == 400
    resent = await api("POST", "/v1/sends/c/resend", key)
    assert (resent.status, resent.json["id"], resent.json["accepted"]) == (201, "m1:c-r1", 250)
    assert (await api("POST", "/v1/sends/c/resend", key)).status == 200
    assert [line["campaign"] for line in (await api("GET", "/v1/sends", key)).lines] == ["m1:c-r1"]
    assert len((await api("GET", "/v1/sends?ended=true&account=m1", key)).lines) == 2
    early = await api("POST", "/v1/sends/c-r1/resend", key)
    assert (early.status, "remedy" in early.json) == (409, True)


async def test_sequential_sends_are_moved(api: Api) -> None:
    key = await api.key("m1")
    for name in ("a", "b", "c"):
        await api("POST", "/v1/sends", key, json=MESSAGE | {"recipients": PEOPLE[:1], "campaign": name, "sequential": True})
    assert (await api("POST", "/v1/sends/c/move", key, json={"direction": "up"})).status == 200
    assert await api.client.desk.line("m1") == ["a", "c", "b"]
    assert (await api("POST", "/v1/sends/c/move", key, json={"direction": "sideways"})).status == 400


async def test_events_tell_the_status_until_the_end(api: Api) -> None:
    key = await api.key("m1", "read")
    await api.client.open(account="m1", message=LETTER, campaign="c")
    async with api.http.get(f"{api.url}/v1/sends/c/events", headers={"Authorization": f"Bearer {key}"}) as response:
        assert response.content_type == "text/event-stream"
        first = await response.content.readuntil(b"\n\n")
        await api.client.cancel("m1:c")
        rest = await response.read()
    assert orjson.loads(first.partition(b"data: ")[2])["state"] == "sending"
    assert orjson.loads(rest.rpartition(b"data: ")[2])["state"] == "cancelled"
    assert api.services.door.streams.held == 0


async def test_a_revoked_key_ends_what_lasts(api: Api) -> None:
    made = await api.client.create_key("m1", scopes=["read", "send"], seat="Ann")
    await api.client.open(account="m1", message=LETTER, campaign="c")
    sent: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield b'{"email":"a@x.org","name":"A"}\n' * 1000
            await asyncio.sleep(0.05)

    async with api.http.get(f"{api.url}/v1/sends/c/events", headers={"Authorization": f"Bearer {made.key}"}) as response:
        await response.content.readuntil(b"\n\n")
        upload = asyncio.create_task(api("POST", "/v1/sends/c/recipients", made.key, data=endless()))
        await until(lambda: len(sent) > 2)
        await api.client.revoke_key(made.id)
        async with asyncio.timeout(2.0):  # the promise
            rest = await response.read()
            answer = await asyncio.gather(upload, return_exceptions=True)
    assert b"event: problem" in rest
    assert isinstance(answer[0], Exception) or answer[0].status == 401
    assert (await api("GET", "/v1/sends/c", made.key)).status == 401


async def test_a_single_message_is_taken_once(api: Api) -> None:
    key = await api.key("m1", "send")
    message = MESSAGE | {"to": "a@x.org", "fields": {"name": "Ann"}}
    first = await api("POST", "/v1/messages", key, json=message, headers={"Idempotency-Key": "1"})
    again = await api("POST", "/v1/messages", key, json=message, headers={"Idempotency-Key": "1"})
    other = await api("POST", "/v1/messages", key, json=message)
    assert (first.status, again.json == first.json, other.json["index"]) == (202, True, 100)
    assert (await api("POST", "/v1/messages", key, json=MESSAGE | {"to": "a@x.org"})).status == 400
    differs = await api("POST", "/v1/messages", key, json=message | {"to": "b@x.org"}, headers={"Idempotency-Key": "1"})
    assert (differs.status, differs.remedy) == (409, "give each message a key of its own")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "what shall be sent"),
        ({"subject": "x", "text": "y"}, 400, "no From"),
        (MESSAGE | {"message": "From: a@x.org\n\nx"}, 400, "whole message"),
        (MESSAGE | {"colour": "red"}, 400, "colour"),
        (MESSAGE | {"at": "soon"}, 400, "no time"),
        (MESSAGE | {"on_doubt": "x"}, 400, "on_doubt"),
        (MESSAGE | {"retry": "²m"}, 400, "no step"),
        (MESSAGE | {"lifetime": "1y"}, 400, "no duration"),
        (MESSAGE | {"window": "Mon-Foo"}, 400, ""),
        (MESSAGE | {"campaign": "a b"}, 400, "no campaign id"),
        (MESSAGE | {"campaign": "transactional"}, 400, "taken"),
        (MESSAGE | {"recipients": []}, 400, "empty"),
        (MESSAGE | {"recipients": [1]}, 400, "recipients[0]"),
        (MESSAGE | {"recipients": [{"email": "bad", "name": 1}]}, 400, "nothing can be sent"),
        (MESSAGE | {"recipients": PEOPLE[:1] * 10_001}, 413, "10,000"),
        (MESSAGE | {"headers": {"X-A": "a\r\nBcc: b@x.org"}}, 400, ""),
        (b'{"subject":"\\ud800","from":"a@x.org","text":"x"}', 400, ""),
        (MESSAGE | {"account": "m2"}, 400, "no account m2"),
        (MESSAGE | {"account": "m77"}, 400, "no account m77"),
        (MESSAGE | {"account": "M1"}, 400, "no account id"),
        ([1], 400, "object"),
    ],
)
async def test_a_send_that_cannot_be_is_refused_with_a_remedy(api: Api, body: object, status: int, said: str) -> None:
    key = await api.key("m1")
    octets = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = await api("POST", "/v1/sends", key, data=octets, headers={"Content-Type": "application/json"})
    assert (answer.status, said in answer.json["detail"]) == (status, True), answer.body
    assert answer.remedy
    assert await api.client.desk.campaigns("m1") == []


async def test_a_whole_message_and_attachments(api: Api) -> None:
    key = await api.key("m1")
    eml = "From: Shop <news@shop.example>\r\nSubject: Hi {{ name }}\r\n\r\nHello\r\n"
    assert (await api("POST", "/v1/sends", key, json={"message": eml, "recipients": PEOPLE})).status == 201
    attached = {"attachments": [{"filename": "a.txt", "data": "aGVsbG8="}], "reply_to": "r@shop.example"}
    attached["list_unsubscribe"] = "https://shop.example/{{ name }}"
    assert (await api("POST", "/v1/sends", key, json=MESSAGE | attached | {"recipients": PEOPLE})).status == 201
    bad = await api("POST", "/v1/sends", key, json=MESSAGE | {"attachments": [{"filename": "a.txt", "data": "§"}]})
    assert bad.status == 400
