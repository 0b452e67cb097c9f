"""Accounts over HTTP: shown, made, their speed bought, their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from sendengine.api import problems, streams
from sendengine.api.call import Call, Reply
from sendengine.api.operations import IDEMPOTENCY, Nothing, Operation, Param
from sendengine.api.problems import Problem
from sendengine.api.reading import Speed, speed_of
from sendengine.errors import RefusedInput, about
from sendengine.lanes import others
from sendengine.policy.apikeys import Scope
from sendengine.policy.term import Verb
from sendengine.relays import relay_from_url
from sendengine.remedies import Tongue
from sendengine.scheduler import why as whys
from sendengine.scheduler.accounts import Account
from sendengine.scheduler.apikeys import KeyShown, NewKey
from sendengine.scheduler.audit import Entry
from sendengine.scheduler.gates import Hold, Term
from sendengine.scheduler.planning import Estimate
from sendengine.scheduler.why import Why
from sendengine.types import Relay, TlsPolicy


class RelayGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url` is smtp://[user@]host[:port]; without it `password` and `tls` are those of the present relay. Without `tls` the policy that
    was named stays, under a new `url`, too; the first is the configuration's. `retry`: when its sends try again, "" as the configuration
    says."""

    url: str | None = None
    password: str | None = None
    tls: TlsPolicy | None = None
    retry: str | None = None

    def made(self) -> Relay | None:
        with about("relay"):
            return None if self.url is None else relay_from_url(self.url, self.password or "", self.tls)

    @property
    def is_login(self) -> bool:
        return self.url is None and (self.password is not None or self.tls is not None)


class RelayChange(RelayGiven, frozen=True, forbid_unknown_fields=True):
    """As RelayGiven. `why`: the reason, for the audit trail."""

    why: str = ""


class NewAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tier`: a tier's name, or messages per hour."""

    tier: Speed
    relay: RelayGiven | None = None


class TierGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`why`: the reason, for the audit trail."""

    tier: Speed
    why: str = ""


class NewBoost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rate`: messages per hour, as in 200000/h, or a tier's name. Times as in RFC 3339, or +2h."""

    rate: Speed
    until: str
    start: str | None = msgspec.field(name="from", default=None)
    why: str = ""


class NewHold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`text`: what the customer is told beside the reason's remedy."""

    reason: str
    text: str = ""


class TermGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ends` for trial and renew: a time as in RFC 3339; without it a renewed term has no end."""

    verb: Verb
    ends: str | None = None
    why: str = ""


class Purged(msgspec.Struct, frozen=True):
    """Nothing of it is left but its tombstone and its audit trail."""

    account: str


class NewKeyGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`seat` is who holds it."""

    scopes: Annotated[list[Scope], Meta(min_length=1)]
    seat: str


async def listed(call: Call) -> Response:
    async def found() -> AsyncIterator[Account]:
        if call.key.is_operator:
            async for each in call.client.accounts():
                yield each
        else:
            for lane in (call.key.account, *others(call.key.account)):
                if lane == call.key.account or await call.client.desk.account(lane):
                    yield await call.client.account(lane)

    return await streams.ndjson(call, found(), msgspec.json.encode)


async def show(call: Call) -> Account:
    return await call.client.account(call.account())


async def create(call: Call) -> Account:
    account, asked = call.account(), await call.body(NewAccount)
    way = asked.relay or RelayGiven()
    return await call.client.create_account(account, speed_of(asked.tier), relay=way.made(), retry=way.retry, who=call.who)


async def set_tier(call: Call) -> Account:
    account, asked = call.account(), await call.body(TierGiven)
    return await call.client.set_tier(account, speed_of(asked.tier), who=call.who, why=asked.why)


async def set_relay(call: Call) -> Account:
    account, asked = call.account(), await call.body(RelayChange)
    relay, retry, why = asked.made(), asked.retry, asked.why
    if asked.is_login:
        return await call.client.set_login(account, password=asked.password, tls=asked.tls, retry=retry, who=call.who, why=why)
    return await call.client.set_relay(account, relay, retry=retry, who=call.who, why=why)


async def boost(call: Call) -> Reply:
    account, asked = call.account(), await call.body(NewBoost)
    key, rate = call.idempotency_key(), speed_of(asked.rate)
    made = await call.client.boost(account, rate, until=asked.until, start=asked.start, who=call.who, why=asked.why, key=key)
    return Reply(made, 201)


async def end_boost(call: Call) -> Account:
    account, number = call.account(), call.request.path_params["boost"]
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise RefusedInput(f"{number[:20]!r} is no number of a boost", "the account shows them")
    return await call.client.end_boost(account, int(number), why=call.query("why").text("why") or "", who=call.who)


async def list_holds(call: Call) -> list[Hold]:
    return (await call.client.account(call.account())).holds


async def hold(call: Call) -> Reply:
    account, asked = call.account(), await call.body(NewHold)
    return Reply(await call.client.hold(account, asked.reason, text=asked.text, who=call.who), 201)


async def release(call: Call) -> Account:
    account, reason = call.account(), call.request.path_params["reason"]
    return await call.client.release(account, reason, why=call.query("why").text("why") or "", who=call.who)


async def show_term(call: Call) -> Term:
    return await call.client.term(call.account())


async def set_term(call: Call) -> Term:
    account, asked = call.account(), await call.body(TermGiven)
    return await call.client.set_term(account, asked.verb, ends=asked.ends, why=asked.why, who=call.who)


async def purge(call: Call) -> Purged:
    account = call.account()
    await call.body(Nothing)
    await call.client.purge(account, who=call.who)
    return Purged(account)


async def show_audit(call: Call) -> Response:
    account = call.account()
    if not call.key.is_operator:  # of one that is gone the trail is the operator's
        await call.client.account(account)
    return await streams.ndjson(call, call.client.audit(account), msgspec.json.encode)


async def why(call: Call) -> Why:
    account = call.account()
    await call.client.account(account)
    return await whys.of_account(call.client.desk, account, Tongue.REQUESTS)


async def estimate(call: Call) -> Estimate:
    account, query = call.account(), call.query("recipients", "at", "finish_by")
    count = query.count("recipients")
    if count is None:
        raise Problem(problems.BAD_REQUEST, "recipients: how many?", "recipients=1000")
    return await call.client.estimate(account, count, at=query.text("at"), finish_by=query.text("finish_by"))


async def list_keys(call: Call) -> list[KeyShown]:
    return await call.client.keys(call.account())


async def create_key(call: Call) -> Reply:
    account, asked = call.account(), await call.body(NewKeyGiven)
    return Reply(await call.client.create_key(account, scopes=asked.scopes, seat=asked.seat, who=call.who), 201)


async def revoke_key(call: Call) -> KeyShown:
    return await call.client.revoke_key(call.request.path_params["key"], call.account(), who=call.who)


_ACCOUNT = "/v1/accounts/{account}"
OPERATIONS = (
    Operation(
        name="listAccounts", method="GET", path="/v1/accounts", scope=Scope.READ, handler=listed, answer=Account, media=streams.NDJSON,
        summary="All accounts; an account's key sees its own.",
    ),
    Operation(
        name="showAccount", method="GET", path=_ACCOUNT, scope=Scope.READ, handler=show, answer=Account,
        summary="Tier, rate, sends, and what binds.",
    ),
    Operation(
        name="createAccount", method="PUT", path=_ACCOUNT, scope=Scope.ADMIN, operators=True, handler=create, body=NewAccount,
        answer=Account, summary="Make an account. The same again changes nothing; other settings are a conflict.",
    ),
    Operation(
        name="setTier", method="PUT", path=_ACCOUNT + "/tier", scope=Scope.ADMIN, operators=True, handler=set_tier, body=TierGiven,
        answer=Account, summary="Change its speed; in force within 1 s, in mid-send too.",
    ),
    Operation(
        name="setRelay", method="PUT", path=_ACCOUNT + "/relay", scope=Scope.ADMIN, operators=True, handler=set_relay, body=RelayChange,
        answer=Account, summary="Change where its mail goes, or when it is tried again.",
    ),
    Operation(
        name="boostAccount", method="POST", path=_ACCOUNT + "/boosts", scope=Scope.ADMIN, operators=True, handler=boost, body=NewBoost,
        answer=Account, status=201, params=(IDEMPOTENCY,), summary="More speed for a time; it begins and ends by itself.",
    ),
    Operation(
        name="endBoost", method="DELETE", path=_ACCOUNT + "/boosts/{boost}", scope=Scope.ADMIN, operators=True, handler=end_boost,
        answer=Account, params=(Param("why", "For the audit trail."),), summary="End a boost now.",
    ),
    Operation(
        name="whyAccount", method="GET", path=_ACCOUNT + "/why", scope=Scope.READ, handler=why, answer=Why,
        summary="The one limit that binds now, since when, and what would lift it.",
    ),
    Operation(
        name="listHolds", method="GET", path=_ACCOUNT + "/holds", scope=Scope.READ, handler=list_holds, answer=list[Hold],
        summary="What blocks it: each with what lifts it, and who decides.",
    ),
    Operation(
        name="holdAccount", method="POST", path=_ACCOUNT + "/holds", scope=Scope.ADMIN, operators=True, handler=hold, body=NewHold,
        answer=Account, status=201, summary="Block its sending, within 1 s and in mid-send too; nothing is lost.",
    ),
    Operation(
        name="releaseAccount", method="DELETE", path=_ACCOUNT + "/holds/{reason}", scope=Scope.ADMIN, operators=True, handler=release,
        answer=Account, params=(Param("why", "For the audit trail."),), summary="Lift a hold. With the last one sending resumes.",
    ),
    Operation(
        name="showTerm", method="GET", path=_ACCOUNT + "/term", scope=Scope.READ, handler=show_term, answer=Term,
        summary="Where it stands in its term.",
    ),
    Operation(
        name="setTerm", method="POST", path=_ACCOUNT + "/term", scope=Scope.ADMIN, operators=True, handler=set_term, body=TermGiven,
        answer=Term, summary="Begin a trial, renew, cancel, take that back, or end its term.",
    ),
    Operation(
        name="purgeAccount", method="POST", path=_ACCOUNT + "/purge", scope=Scope.ADMIN, operators=True, handler=purge, body=Nothing,
        answer=Purged, summary="Delete all of an account whose grace is over and whose purge is due; workers do so by themselves.",
    ),
    Operation(
        name="showAudit", method="GET", path=_ACCOUNT + "/audit", scope=Scope.ADMIN, handler=show_audit, answer=Entry,
        media=streams.NDJSON, summary="Who did what, when and why; the oldest first.",
    ),
    Operation(
        name="estimate", method="GET", path=_ACCOUNT + "/estimate", scope=Scope.READ, handler=estimate, answer=Estimate,
        params=(
            Param("recipients", "How many.", {"type": "integer", "minimum": 0, "maximum": 10**12}), Param("at", "When it would start."),
            Param("finish_by", "Which tier would make it?"),
        ),
        summary="When a send would be through, and which tier would make a deadline.",
    ),
    Operation(
        name="listKeys", method="GET", path=_ACCOUNT + "/keys", scope=Scope.ADMIN, handler=list_keys, answer=list[KeyShown],
        summary="Its API keys, without what they are.",
    ),
    Operation(
        name="createKey", method="POST", path=_ACCOUNT + "/keys", scope=Scope.ADMIN, handler=create_key, body=NewKeyGiven, answer=NewKey,
        status=201, summary="Make a key of the account. `key` is shown here and never again.",
    ),
    Operation(
        name="revokeKey", method="DELETE", path=_ACCOUNT + "/keys/{key}", scope=Scope.ADMIN, handler=revoke_key, answer=KeyShown,
        summary="From now on it opens nothing; requests that go on end within two seconds.",
    ),
)  # fmt: skip
