"""Receipts of SMS by HTTP: a provider calls back, under a token of its own, and what it says goes the way of SMPP's receipts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson

from sendengine.api import problems, reading
from sendengine.api.call import Call, Services
from sendengine.api.operations import Operation, Param
from sendengine.api.problems import Problem
from sendengine.errors import Unavailable
from sendengine.policy.callbacks import receipts_of
from sendengine.policy.receipts import result
from sendengine.types import Provider, Receipt

BODY_MOST = 256 << 10
FIELDS_MOST = 1000
FORM = "application/x-www-form-urlencoded"
AGAIN_S = 2.0


class ReceiptsTaken(msgspec.Struct, frozen=True):
    """`taken`: brought to their recipients. `unknown`: they name no message that is expected; ones that came before their message's id was
    written are asked about again for a minute. `ignored`: they name none, or say nothing final."""

    taken: int
    unknown: int
    ignored: int


async def take(call: Call) -> ReceiptsTaken:
    provider = _provider_of(call)
    said = await _body(call)
    taken, unknown, ignored = 0, list[Receipt](), 0
    for part in receipts_of(provider, said):
        receipts = [each for each in part if each is not None]
        left = await call.client.desk.receive(provider.name, receipts) if receipts else []
        lost = {id(each) for each in left}
        _count(call.services, provider.name, (each for each in receipts if id(each) not in lost))
        taken, ignored = taken + len(receipts) - len(left), ignored + len(part) - len(receipts)
        unknown += left
    # Last: where Redis goes in between, all are told again.
    _give_up(call.services, provider.name, call.services.early.add(asyncio.get_running_loop().time(), provider.name, unknown))
    return ReceiptsTaken(taken, len(unknown), ignored)


def _provider_of(call: Call) -> Provider:
    """That of the path, where the request has its token. One without a token takes none; nobody learns which providers there are. What
    else the query has is the provider's own affair."""
    provider = call.services.providers.get(call.request.path_params["provider"])
    scheme, _, bearer = call.request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else call.request.query_params.get("token", "")
    token = provider.receipt_token if provider is not None else ""
    if not compare_digest(given.encode(), token.encode()) or provider is None or not token:
        raise Problem(problems.UNAUTHORISED, "the token is not this provider's", _TOKEN, {"WWW-Authenticate": "Bearer"})
    return provider


async def _body(call: Call) -> Any:
    raw = await reading.body_of(call.request, BODY_MOST, (*reading.JSON_TYPES, FORM))
    if call.request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        try:
            return dict(parse_qsl(raw.decode("utf-8", "replace"), max_num_fields=FIELDS_MOST))
        except ValueError:
            raise Problem(problems.BAD_REQUEST, f"the form has more than {FIELDS_MOST:,} fields", "JSON, for many receipts") from None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(problems.BAD_REQUEST, f"the body is no JSON: {error}", "JSON, or a form") from None


def _count(services: Services, provider: str, receipts: Iterable[Receipt]) -> None:
    """Each once: one that is early when it is found, or given up."""
    for each in receipts:
        services.meter.receipt(provider, result(each))


def _give_up(services: Services, provider: str, receipts: Iterable[Receipt]) -> None:
    for _ in receipts:
        services.meter.receipt(provider, "unknown")


async def ask_again(services: Services) -> None:
    """Beside the answers. While Redis is away the receipts wait as everybody does."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(AGAIN_S)
        for provider in services.early.providers:
            try:
                found, given_up = await services.early.ask(services.client.desk, provider, loop.time())
            except Unavailable:
                continue
            _count(services, provider, found)
            _give_up(services, provider, given_up)


_TOKEN = "Authorization: Bearer, or ?token=, with the first line of the provider's receipt_token_file"
OPERATIONS = (
    Operation(
        name="takeReceipts", method="POST", path="/v1/sms/receipts/{provider}", scope=None, handler=take,
        body=dict[str, Any] | list[Any], answer=ReceiptsTaken,
        params=(Param("token", "The provider's, where it cannot send a header Authorization."),),
        summary="Receipts of a provider of SMS, JSON or a form, read as its table says; the same again changes nothing.",
    ),
)  # fmt: skip
