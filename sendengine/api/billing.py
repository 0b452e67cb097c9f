"""Events from billing over HTTP: their signature is their key."""

from __future__ import annotations

from sendengine.api import problems, reading
from sendengine.api.call import Call
from sendengine.api.operations import Operation, Param
from sendengine.api.problems import Problem
from sendengine.errors import ConfigError
from sendengine.policy.billing import BODY_MOST, HEADER, AnyEvent
from sendengine.scheduler.billing import Applied


async def take(call: Call) -> Applied:
    """Read as octets: what is signed is what was sent. A header that stands twice is none."""
    raw = await reading.body_of(call.request, BODY_MOST)
    given = call.request.headers.getlist(HEADER)
    try:
        return await call.client.apply_event(raw, {HEADER: given[0]} if len(given) == 1 else {})
    except ConfigError:
        raise Problem(problems.BUSY, "this process has no secret of billing", "the key billing_secrets_file names them") from None


OPERATIONS = (
    Operation(
        name="takeEvent", method="POST", path="/v1/billing/events", scope=None, handler=take, body=AnyEvent, answer=Applied,
        params=(Param(HEADER, "t=UNIX,v1=HEX: HMAC-SHA-256 of the stamp, a dot and the body.", place="header"),),
        summary="An event from billing: applied once and in its order, however often it comes.",
    ),
)  # fmt: skip
