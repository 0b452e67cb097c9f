"""Who gets nothing any more of an account, over HTTP: put on, taken off, read, imported in lists of any length."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from sendengine.api import streams
from sendengine.api.call import Call
from sendengine.api.operations import Operation, Param
from sendengine.api.sends import Noted, Refusals
from sendengine.policy.apikeys import Scope
from sendengine.policy.suppression import Listed, Reason, Suppressed
from sendengine.scheduler.sources import Upload

MOST = 10_000
Addresses = Annotated[list[str], Meta(min_length=1, max_length=MOST)]


class NewSuppressions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    addresses: Addresses
    reason: Reason = Reason.MANUAL


class Unsuppressing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    addresses: Addresses


class Removed(msgspec.Struct, frozen=True):
    """How many stood on the list."""

    removed: int


class ListImported(msgspec.Struct, frozen=True):
    rows: int
    added: int
    changed: int
    rejected: int
    refused: Refusals


async def add(call: Call) -> Listed:
    account, asked = call.account(), await call.body(NewSuppressions)
    return await call.client.suppress(account, asked.addresses, asked.reason, who=call.who)


async def remove(call: Call) -> Removed:
    account, asked = call.account(), await call.body(Unsuppressing)
    return await _removed(call, account, asked.addresses)


async def remove_one(call: Call) -> Removed:
    return await _removed(call, call.account(), [call.request.path_params["address"]])


async def _removed(call: Call, account: str, addresses: list[str]) -> Removed:
    return Removed(await call.client.unsuppress(account, addresses, who=call.who))


async def listed(call: Call) -> Response:
    account, query = call.account(), call.query("reason", "address")
    address = query.text("address")
    found = call.client.suppressed(account, None if address is None else [address], reason=query.text("reason"))
    return await streams.ndjson(call, found, msgspec.json.encode)


async def load(call: Call) -> ListImported:
    account, refused = call.account(), Noted()
    reason = call.query("reason").text("reason") or Reason.MANUAL
    with call.services.door.uploads.one(call.key.digest):
        upload = Upload(call.upload(), call.services.pool)
        found = await call.services.bulk.import_suppressed(account, upload, reason, refused, who=call.who)
    call.services.meter.rows(found.rows)
    return ListImported(found.rows, found.added, found.changed, found.rejected, refused.told())


_LIST = "/v1/accounts/{account}/suppressions"
_REASON = Param("reason", "Of a row that has none of its own.", {"type": "string", "enum": [each.value for each in Reason]})
OPERATIONS = (
    Operation(
        name="listSuppressions", method="GET", path=_LIST, scope=Scope.READ, handler=listed, answer=Suppressed, media=streams.NDJSON,
        params=(msgspec.structs.replace(_REASON, summary="For this reason only."), Param("address", "This one, if it is on the list.")),
        summary="Who gets nothing any more, in no order.",
    ),
    Operation(
        name="suppress", method="POST", path=_LIST, scope=Scope.SEND, handler=add, body=NewSuppressions, answer=Listed,
        summary="Onto the list, within 1 s and in mid-send too; the graver reason stands.",
    ),
    Operation(
        name="unsuppress", method="POST", path=_LIST + "/remove", scope=Scope.SEND, handler=remove, body=Unsuppressing, answer=Removed,
        summary="Off the list, whatever the reason.",
    ),
    Operation(
        name="unsuppressOne", method="DELETE", path=_LIST + "/{address}", scope=Scope.SEND, handler=remove_one, answer=Removed,
        summary="One off the list.",
    ),
    Operation(
        name="importSuppressions", method="POST", path=_LIST + "/import", scope=Scope.SEND, handler=load, upload=True, answer=ListImported,
        params=(_REASON,), summary="Upload a list, NDJSON, CSV or bare addresses, of any length.",
    ),
)  # fmt: skip
