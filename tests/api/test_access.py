"""Role x operation x foreign object, walked from the OpenAPI document: nothing of another account can be seen, steered or told to exist."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sendengine.api import openapi
from sendengine.api.app import OPERATIONS
from sendengine.ports import Desk
from sendengine.render.message import Message
from tests.api.bench import MESSAGE, Answer, Api, memory_desk, served

DOCUMENT = openapi.document(OPERATIONS)
METHODS = ("get", "post", "put", "delete", "patch")
WALK = [
    pytest.param(path, method, said, id=said["operationId"])
    for path, item in DOCUMENT["paths"].items()
    for method, said in item.items()
    if method in METHODS and "x-scope" in said
]
OBJECTS = ("account", "send", "boost", "key", "hook", "reason", "address", "provider")
LETTER = Message(sender="news@shop.example", subject="x", text="{{ name }}")
# Bodies that an operation takes, where an empty object is none.
BODIES: dict[str, Any] = {
    "createSend": MESSAGE, "sendMessage": MESSAGE | {"to": "a@x.org", "fields": {"name": "A"}}, "moveSend": {"direction": "up"},
    "createAccount": {"tier": "60k"}, "setTier": {"tier": "60k"}, "setRelay": {"url": "smtp://mx.example"},
    "boostAccount": {"rate": "90000/h", "until": "+1h"}, "createKey": {"scopes": ["read"], "seat": "Bob"},
    "createSmsSend": {"sender": "Shop", "text": "Hi"}, "setSms": {"rate": "1000"}, "grantCredits": {"amount": 10},
    "estimateCredits": {"text": "Hi", "recipients": [{"phone": "+420601123456"}]},
    "suppress": {"addresses": ["a@x.org"]}, "unsuppress": {"addresses": ["a@x.org"]}, "importSuppressions": b"a@x.org\n",
    "holdAccount": {"reason": "content"}, "setTerm": {"verb": "renew"},
    "loadRecipients": b"email,name\na@x.org,A\n", "createWebhook": {"url": "https://hooks.example/x", "events": ["bounce"]},
}  # fmt: skip


class Recording:
    """A desk that keeps what was asked of it, and with which words."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._desk, name)
        if not callable(found):
            return found

        def noted(*args: Any, **more: Any) -> Any:
            self.asked.append((name, args))
            return found(*args, **more)

        return noted


class World:
    """m1 and m2 are alike: a send `c` each, a boost, a key. m1 has a send `own` beside, m2 one `theirs`."""

    def __init__(self, api: Api, desk: Recording) -> None:
        self.api, self.desk = api, desk
        self.keys: dict[str, str] = {}
        self.hooks: dict[str, str] = {}

    async def furnish(self) -> None:
        client = self.api.client
        for account, beside in (("m1", "own"), ("m2", "theirs")):
            await client.create_account(account, "60k")
            await client.boost(account, "90000/h", until="+1h")
            for campaign in ("c", beside):
                await client.open(account=account, message=LETTER, campaign=campaign)
            self.keys[account] = (await client.create_key(account, scopes=["read"], seat="Ann")).id
            self.hooks[account] = (await client.create_hook(account, "https://hooks.example/x", ["bounce"])).id

    async def ask(self, key: str | None, path: str, method: str, said: Any, place: dict[str, str]) -> Answer:
        """One request; `place` fills the path."""
        for name, value in place.items():
            path = path.replace("{" + name + "}", value)
        body = BODIES.get(said["operationId"])
        needs = {"recipients": "5"} if said["operationId"] == "estimate" else {}
        if isinstance(body, bytes) or body is None:
            return await self.api(method.upper(), path, key, data=body, params=needs)
        return await self.api(method.upper(), path, key, json=body, params=needs)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    desk = Recording(memory_desk())
    async with served(desk) as api:  # type: ignore[arg-type]
        made = World(api, desk)
        await made.furnish()
        yield made


def named(path: str) -> list[str]:
    return [name for name in OBJECTS if "{" + name + "}" in path]


def places(path: str, account: str, send: str, world: World) -> dict[str, str]:
    key, hook = (known.get(account, "0" * 16) for known in (world.keys, world.hooks))
    values = {"account": account, "send": send, "boost": "1", "key": key, "hook": hook, "reason": "content", "address": "a@x.org"}
    values["provider"] = "p"
    return {name: values[name] for name in named(path)}


async def test_the_walk_knows_every_path_parameter() -> None:
    for path in DOCUMENT["paths"]:
        assert all("{" + name + "}" in path for name in named(path))
        assert path.count("{") == len(named(path))


@pytest.mark.parametrize(("path", "method", "said"), WALK)
async def test_without_a_key_that_stands_nothing_opens(world: World, path: str, method: str, said: Any) -> None:
    revoked = await world.api.client.create_key("m1", scopes=["read", "send", "admin"], seat="Ann")
    await world.api.client.revoke_key(revoked.id)
    for key in (None, "", "se_", "se_" + "A" * 43, "x" * 5000, revoked.key, revoked.id):
        answer = await world.ask(key, path, method, said, places(path, "m1", "c", world))
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.remedy


@pytest.mark.parametrize(("path", "method", "said"), WALK)
@pytest.mark.parametrize("account", ["m1", None])
async def test_a_key_opens_what_its_scopes_say(world: World, account: str | None, path: str, method: str, said: Any) -> None:
    for scope in ("read", "send", "admin"):
        key = await world.api.key(account, scope)
        for target, send in (("m1", "m1:own"), ("m2", "m2:theirs"), ("m9", "m9:none")):
            answer = await world.ask(key, path, method, said, places(path, target, send, world))
            if scope != said["x-scope"] or (account and said["x-operators"]):
                assert answer.status == 403, (scope, target)
                assert answer.remedy
            else:
                assert answer.status not in (401, 403), answer.body
                assert answer.status < 500


@pytest.mark.parametrize(("path", "method", "said"), [each for each in WALK if named(str(each.values[0]))])
async def test_foreign_and_missing_are_the_same(world: World, path: str, method: str, said: Any) -> None:
    """Same status, same words but for the name that was asked for, same questions to the server, none of them about another account."""
    key = await world.api.key("m1", seat="Prober")
    await world.api("GET", "/v1/accounts/m1", key)  # its first use of the day is noted
    before = await everything(world, "m2")
    seen = []
    for account, send in (("m2", "m2:theirs"), ("m2", "m2:c"), ("m2", "m2:none"), ("m3", "m3:none"), ("m2", "m2:own")):
        place = places(path, account, send, world)
        world.desk.asked.clear()
        answer = await world.ask(key, path, method, said, place)
        assert all(not {"m2", "m2/sms", "m3", "m3/sms"} & set(map(str, args)) for _, args in world.desk.asked), world.desk.asked
        text = answer.body.decode()
        for value in sorted(place.values(), key=len, reverse=True):
            text = text.replace(value, "*")
        seen.append((answer.status, text, [name for name, _ in world.desk.asked]))
    expected = 403 if said["x-operators"] else 404
    assert seen[0][0] == expected
    assert all(each == seen[0] for each in seen)
    if "send" in named(path):  # an own one that is missing is told the same way
        world.desk.asked.clear()
        answer = await world.ask(key, path, method, said, {"send": "m1:none"})
        assert (answer.status, answer.body.decode().replace("m1:none", "*")) == seen[0][:2]
        assert [name for name, _ in world.desk.asked] == seen[0][2]
    assert await everything(world, "m2") == before


@pytest.mark.parametrize("name", ["createSend", "sendMessage", "createSmsSend"])
async def test_an_account_in_the_body_is_the_own_one(world: World, name: str) -> None:
    key = await world.api.key("m1")
    path = {"createSend": "/v1/sends", "sendMessage": "/v1/messages", "createSmsSend": "/v1/sms/sends"}[name]
    before = await everything(world, "m2")
    answers = [await world.api("POST", path, key, json=BODIES[name] | {"account": account}) for account in ("m2", "m3")]
    assert [answer.status for answer in answers] == [400, 400]  # in the path it is 404
    assert answers[0].body.replace(b"m2", b"m3") == answers[1].body
    assert await everything(world, "m2") == before
    assert (await world.api("POST", path, key, json=BODIES[name] | {"account": "m1"})).status in (201, 202)
    assert (await world.api("GET", "/v1/sends?account=m2", key)).status == 400


async def test_lists_hold_the_own_account_only(world: World) -> None:
    key = await world.api.key("m1")
    for path in ("/v1/sends?ended=true", "/v1/accounts", "/v1/accounts/m1", "/v1/accounts/m1/why", "/v1/accounts/m1/keys"):
        answer = await world.api("GET", path, key)
        assert answer.status == 200
        assert b"m2" not in answer.body
        assert b"theirs" not in answer.body


async def test_a_send_named_like_an_account_gives_nothing_away(world: World) -> None:
    await world.api.client.open(account="m2", message=LETTER, campaign="m1")
    answer = await world.api("GET", "/v1/accounts/m1/why", await world.api.key("m1"))
    assert answer.status == 200
    assert b"m2" not in answer.body
    assert (await world.api("GET", "/v1/sends/m1", await world.api.key("m1"))).status == 404


async def test_a_key_of_another_account_is_not_revoked(world: World) -> None:
    key = await world.api.key("m1")
    answer = await world.api("DELETE", f"/v1/accounts/m1/keys/{world.keys['m2']}", key)
    missing = await world.api("DELETE", "/v1/accounts/m1/keys/0000000000000000", key)
    assert (answer.status, missing.status) == (404, 404)
    assert len(await world.api.client.keys("m2")) == 1


async def everything(world: World, account: str) -> str:
    """All that is kept of an account, but what time itself changes."""
    desk = world.desk
    sends = {name: dict(await desk.campaign(account, name)) for name in await desk.campaigns(account)}
    keys = [key.id for key in await desk.api_keys(account)]
    return repr([dict(await desk.account(account)), sends, keys])
