"""Requests made from the OpenAPI document, good and bad: no server error, and every answer is one that the document knows."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from sendengine.api import openapi
from sendengine.api.app import OPERATIONS
from sendengine.client import Client
from sendengine.queue import embedded
from sendengine.queue.desk import RedisDesk
from sendengine.render.message import Message
from tests.api.process import Process, api_process

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("SENDENGINE_FUZZ_EXAMPLES", "25"))  # an operation and role
LETTER = Message(sender="news@shop.example", subject="x", text="{{ name }}")
SCHEMA = schemathesis.openapi.from_dict(openapi.document(OPERATIONS))
LASTING = ("watchSend",)  # an answer that does not end
NAMES = [name for each in OPERATIONS if (name := each.name) not in LASTING]


class World:
    def __init__(self, process: Process, keys: dict[str, str]) -> None:
        self.process, self.keys = process, keys


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """On a server of its own: others empty theirs between our tests."""
    folder = Path(tempfile.mkdtemp(prefix="se-"))
    try:
        url = embedded.ensure(folder, ephemeral=True)
        keys = asyncio.run(_furnish(url))
        with api_process(url, SENDENGINE_API_REQUESTS_PER_S="100000") as process:
            yield World(process, keys)
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder)


async def _furnish(url: str) -> dict[str, str]:
    desk = RedisDesk(url)
    async with Client(desk=desk) as client:
        for account in ("m1", "m2"):
            await client.create_account(account, "60k")
            await client.open(account=account, message=LETTER, campaign="c")
        scopes = ["read", "send", "admin"]
        account_key = await client.create_key("m1", scopes=scopes, seat="Ann")
        operator = await client.create_key(scopes=scopes, seat="ops")
    await desk.close()
    return {"account": account_key.key, "operator": operator.key}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["account", "operator"])
@pytest.mark.parametrize("name", NAMES)
def test_no_request_is_a_server_error(world: World, name: str, role: str) -> None:
    operation = next(each.ok() for each in SCHEMA.get_all_operations() if each.ok().definition.raw["operationId"] == name)
    path = {"account": "m1", "send": "m1:c", "boost": 1, "key": "0" * 16, "hook": "0" * 16, "reason": "content", "address": "a@x.org"}

    @hypothesis.given(case=operation.as_strategy(), is_real=hypothesis.strategies.booleans())
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case: Any, is_real: bool) -> None:
        if is_real and case.path_parameters:  # half of the requests meet something
            case.path_parameters.update({part: path[part] for part in case.path_parameters if part in path})
        case.query = {**(case.query or {}), "follow": "false"} if name == "listOutcomes" else case.query
        case.call_and_validate(
            base_url=world.process.url, headers={"Authorization": f"Bearer {world.keys[role]}"}, checks=CHECKS, timeout=20
        )

    ask()
