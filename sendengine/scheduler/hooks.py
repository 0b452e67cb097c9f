"""Webhooks out: subscribed to, found, told. Any process may look and tell: whoever claims an account does, and if it dies the next one.

What a state tells afterwards is read from that state, not noted beside it: a look compares the account with what was last looked at, and
what it finds is queued together with the new state of looking, once, whoever looks at the same time. So nothing that ended in Redis is
missed, whatever dies, and the hot path knows nothing of webhooks. A hold may be over before anybody looks: the script that places or lifts
one notes it in the state of looking (`held`, lua/held.lua). What no state tells (a complaint, a test) is queued before its caller is
answered; complaints that there is no room for are added up in the state of looking (`untold`): the next look with room tells their number.
Delivery is at least once: a receiver that answers 2xx and is not heard gets it again, under the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import groupby
from math import ceil, inf
from typing import Any

import msgspec

from sendengine.errors import Conflict, NoAccount, NotFound, Unavailable, about
from sendengine.lanes import channel, others
from sendengine.policy import hooks as policy
from sendengine.policy.hooks import Delivery, Hook, Secret
from sendengine.policy.tiers import nearest
from sendengine.ports import Desk, OutcomeChunk, Poster, Queued
from sendengine.records import decode_outcomes
from sendengine.scheduler import audit, prepaid
from sendengine.scheduler.names import Ref, existing_account
from sendengine.scheduler.outcomes import Outcomes, RecipientOutcome
from sendengine.scheduler.status import status
from sendengine.scheduler.view import look as view_of
from sendengine.scheduler.view import wall
from sendengine.types import Outcome

CHANCE_OCTETS = 8 + policy.SECRET_OCTETS  # of an id and a secret
HOOKS_MOST = 20  # of an account
TOGETHER = 100  # bounces, or complaints, in one event
CHUNKS = 100  # settlements read in one look at a send
# Deliveries on their way, of an account: with so many nothing is looked for, and so nothing is lost; no test is told, and complaints
# are only counted.
WAITING_MOST = 10_000
QUEUED_TOGETHER = 100  # deliveries of complaints in one script
OVERLAP_US = 60e6  # looked back, for sends that were made while another process looked
LOOK_S, IDLE_S = 5.0, 30.0  # between looks, while sends go on and while none does
CLAIM_S = 120.0
TIMES = 20  # that a look is begun anew because another one was faster
ACCOUNTS, AT_ONCE = 50, 16  # that one process serves at a time; requests of one account
ROUND = 64  # deliveries of one account before others get their turn
TURN_S = 1.0
_SEND = "c:"
_UNTOLD = "untold"  # complaints that were counted only
_HELD = "held"  # holds that came and went since


class HookShown(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    account: str
    url: str
    events: list[str]
    seat: str
    credit_below: int
    created_at: datetime


class NewHook(HookShown, frozen=True, kw_only=True):
    """With its secret, which is shown when it is made and when it is changed, and never again."""

    secret: str


class Told(msgspec.Struct, frozen=True):
    """The body of a request."""

    type: str
    id: str
    account: str
    at: datetime
    data: dict[str, Any]


class Found(msgspec.Struct, frozen=True):
    """An event, for one subscription only where it is of that one's making. `at_us`: when it happened, where that is told; `latest_us`: at
    the latest, and subscriptions made later are not told. Where nothing is known it is younger than all of them (`_look_before`)."""

    event: str
    data: dict[str, Any]
    only: str | None = None
    at_us: float | None = None
    latest_us: float = inf


# subscriptions


async def create(
    desk: Desk, account: str, url: str, events: Sequence[str], credit_below: int, seat: str, chance: bytes, may_be_private: bool, who: str
) -> NewHook:  # fmt: skip
    """`chance`: CHANCE_OCTETS of it. Raises NotFound, RefusedInput, Conflict where there are too many."""
    await existing_account(desk, account)
    with about("url"):
        policy.check_url(url, may_be_private)
    known = await _hooks(desk, account)
    if len(known) >= HOOKS_MOST:
        raise Conflict(f"account {account} has {HOOKS_MOST} webhooks", "remove one of them")
    now, secret = await desk.now_us(), policy.secret_of(chance[8:])
    hook = Hook(chance[:8].hex(), url, policy.events_of(events), (Secret(secret),), now, seat, credit_below)
    await _look_before(desk, account, hook)
    await _keep(desk, account, hook, audit.line("webhook.create", who, webhook=hook.id, url=url))
    await _begin_looking(desk, account)
    return NewHook(**msgspec.structs.asdict(shown(account, hook)), secret=secret)


async def listed(desk: Desk, account: str) -> list[HookShown]:
    await existing_account(desk, account)
    found = sorted((await _hooks(desk, account)).values(), key=lambda hook: (hook.made_us, hook.id))
    return [shown(account, hook) for hook in found]


async def one(desk: Desk, account: str, hook_id: str) -> HookShown:
    return shown(account, await _hook(desk, account, hook_id))


async def remove(desk: Desk, account: str, hook_id: str, who: str) -> HookShown:
    """What is on its way to it is not told any more. Raises NotFound."""
    hook = await _hook(desk, account, hook_id)
    await desk.outbox.keep_hook(account, hook.id, b"", line=audit.line("webhook.remove", who, webhook=hook.id))
    return shown(account, hook)


async def rotate(desk: Desk, account: str, hook_id: str, chance: bytes, who: str) -> NewHook:
    """A new secret; the present one signs beside it for a day. Raises NotFound."""
    hook, secret = await _hook(desk, account, hook_id), policy.secret_of(chance[8:])
    hook = msgspec.structs.replace(hook, secrets=policy.rotated(hook.secrets, secret, await desk.now_us()))
    await _keep(desk, account, hook, audit.line("webhook.rotate", who, webhook=hook.id))
    return NewHook(**msgspec.structs.asdict(shown(account, hook)), secret=secret)


async def complained(desk: Desk, account: str, addresses: Sequence[str]) -> None:
    """Queued before their caller is answered, in events of up to TOGETHER recipients; those beyond WAITING_MOST deliveries are only
    counted, until there is room."""
    left = [Found("complaint", _complaint(addresses[at : at + TOGETHER])) for at in range(0, len(addresses), TOGETHER)]
    while left:  # another process may look at the same time
        hooks = [hook for hook in (await _hooks(desk, account)).values() if hook.wants("complaint")]
        if not hooks:
            return
        seen, now = await desk.outbox.seen(account), await desk.now_us()
        version = seen.get("v", "0")
        room = min(WAITING_MOST - await desk.outbox.waiting(account), QUEUED_TOGETHER)
        some = left[: ceil(room / len(hooks))] if room > 0 else []
        if not some:
            count = int(seen.get(_UNTOLD, 0)) + sum(each.data["count"] for each in left)
            if await desk.outbox.look(account, version, {_UNTOLD: f"{count}"}, ()):
                return
        elif await desk.outbox.look(account, version, {}, _queued(account, version, some, hooks, now)):
            await desk.outbox.need(account, 0.0)
            left = left[len(some) :]


def _complaint(addresses: Sequence[str]) -> dict[str, Any]:
    return {"recipients": addresses, "count": len(addresses)}


async def emit(desk: Desk, account: str, event: str, data: dict[str, Any], only: str | None = None) -> int:
    """Something that no state tells afterwards is queued before its caller is answered; to how many."""
    hooks = [hook for hook in (await _hooks(desk, account)).values() if hook.wants(event) and only in (None, hook.id)]
    while hooks:  # another process may look at the same time
        seen, now = await desk.outbox.seen(account), await desk.now_us()
        version = seen.get("v", "0")
        if await desk.outbox.look(account, version, {}, _queued(account, version, [Found(event, data)], hooks, now)):
            await desk.outbox.need(account, 0.0)
            return len(hooks)
        if not await desk.outbox.hooks(account):
            break
    return 0


async def attempt(desk: Desk, account: str, hook_id: str) -> HookShown:
    """An event `test`. Raises NotFound; Conflict where so much is on its way that one more would help nobody."""
    found = await one(desk, account, hook_id)
    if await desk.outbox.waiting(account) >= WAITING_MOST:
        raise Conflict(f"account {account} has {WAITING_MOST:,} deliveries on their way", "see that its receivers answer, then try again")
    await emit(desk, account, "test", {"hook": hook_id}, only=hook_id)
    return found


def shown(account: str, hook: Hook) -> HookShown:
    return HookShown(
        id=hook.id, account=account, url=hook.url, events=list(hook.events), seat=hook.seat, credit_below=hook.credit_below,
        created_at=wall(hook.made_us / 1e6),
    )  # fmt: skip


async def _hooks(desk: Desk, account: str) -> dict[str, Hook]:
    return {hook.id: hook for value in await desk.outbox.hooks(account) if (hook := policy.decode_hook(value)) is not None}


async def _hook(desk: Desk, account: str, hook_id: str) -> Hook:
    known = await _hooks(desk, account)
    if hook_id not in known:
        raise NotFound(f"no webhook {hook_id}{nearest(hook_id, known)}", f"those of account {account} are listed at /v1/webhooks")
    return known[hook_id]


async def _keep(desk: Desk, account: str, hook: Hook, line: bytes) -> None:
    if not await desk.outbox.keep_hook(account, hook.id, policy.encode_hook(hook), line=line):
        raise NoAccount(f"no account {account}")


# looking


async def _begin_looking(desk: Desk, account: str) -> None:
    """From now on: what ended before the first subscription is told to nobody."""
    seen = await desk.outbox.seen(account)
    if "since" in seen:
        return
    now, view = await desk.now_us(), await view_of(desk, account)
    state = {"since": f"{now:.0f}"} | _facts(view.fields)
    for lane in _lanes(account):
        state |= {_SEND + _name(Ref(lane, each)): _entry_at(now) for each in await desk.open_campaigns(lane)}
    await desk.outbox.look(account, seen.get("v", "0"), state, ())


async def _look_before(desk: Desk, account: str, hook: Hook) -> None:
    """What has no time of its own is looked for before there is another subscription, and told to those that stand."""
    for _ in range(TIMES):  # another process may look at the same time
        seen, known = await _seen_by(desk, account)
        if "since" not in seen:
            return
        changes: dict[str, str] = {}
        found = list(_of_account(await desk.account(account), seen, changes))
        if await desk.outbox.waiting(account) < WAITING_MOST:
            found += _of_untold(seen, changes)
        found += await _low_credit(desk, account, [*known, hook], seen, changes)
        version = seen.get("v", "0")
        queued = _queued(account, version, found, known, hook.made_us)
        if not changes or await desk.outbox.look(account, version, changes, queued):
            return
    raise Unavailable(f"others look at {account} all the time", "the same call may go through later")


async def _seen_by(desk: Desk, account: str) -> tuple[Mapping[str, str], list[Hook]]:
    """What was last looked at, and who subscribes; in this order: a subscription that comes between makes another version."""
    seen = await desk.outbox.seen(account)
    return seen, list((await _hooks(desk, account)).values())


async def look(desk: Desk, account: str) -> bool:
    """What has happened since the last look is queued. Whether sends go on."""
    (seen, hooks), now = await _seen_by(desk, account), await desk.now_us()
    if "since" not in seen:
        await _begin_looking(desk, account)
        return True
    changes: dict[str, str] = {"since": f"{now:.0f}"}
    found = [event async for event in _found(desk, account, hooks, seen, changes)]
    found += await _low_credit(desk, account, hooks, seen, changes)
    version = seen.get("v", "0")
    await desk.outbox.look(account, version, changes, _queued(account, version, found, hooks, now))
    return any(name.startswith(_SEND) for name in {**seen, **changes})


async def _low_credit(
    desk: Desk, account: str, hooks: Sequence[Hook], seen: Mapping[str, str], changes: dict[str, str]
) -> list[Found]:
    """For each subscription that wants it, where its threshold was passed downwards. Who never had credits is told nothing."""
    wanting = [hook for hook in hooks if "credit.low" in hook.events]
    if not wanting:
        return []
    found = await prepaid.show(desk, account)
    left = found.free + found.frozen  # what is frozen in grace is not gone: a renewal frees it
    before = float(seen.get("credits", left))
    if f"{left:g}" != seen.get("credits"):
        changes["credits"] = f"{left:g}"
    data = {"free": found.free, "frozen": found.frozen, "reserved": found.reserved}
    passed = [hook for hook in wanting if found.granted and left < hook.credit_below <= before]
    return [Found("credit.low", data | {"below": hook.credit_below}, hook.id) for hook in passed]


async def _found(
    desk: Desk, account: str, hooks: Sequence[Hook], seen: Mapping[str, str], changes: dict[str, str]
) -> AsyncIterator[Found]:
    """Events, and in `changes` what is looked at from now on."""
    for event in (*_of_account(await desk.account(account), seen, changes), *_of_untold(seen, changes)):
        yield event
    made = sorted(hook.made_us for hook in hooks)
    names = {name.removeprefix(_SEND) for name in seen if name.startswith(_SEND)}
    names |= await _begun(desk, account, float(seen["since"]) - OVERLAP_US)
    for campaign in sorted(names):
        place = seen.get(_SEND + campaign, _entry_at(float(seen["since"]) - OVERLAP_US))
        if place == "over":
            if not await _is_young(desk, account, campaign, float(seen["since"])):
                changes[_SEND + campaign] = ""
            continue
        async for event in _of_send(desk, _ref(account, campaign), place, made, changes):
            yield event


def _of_account(fields: Mapping[str, str], seen: Mapping[str, str], changes: dict[str, str]) -> Iterator[Found]:
    facts = _facts(fields)
    for name in facts:
        if facts[name] != seen.get(name, ""):
            changes[name] = facts[name]
    if "tier" in changes:
        rate = float(fields["rate"]) if fields.get("rate") else None
        yield Found("tier.changed", {"tier": facts["tier"], "before": seen.get("tier", ""), "rate": rate})
    if _HELD in seen:
        changes[_HELD] = ""
    yield from _held(seen, facts["holds"])


def _of_untold(seen: Mapping[str, str], changes: dict[str, str]) -> Iterator[Found]:
    if _UNTOLD in seen:
        changes[_UNTOLD] = ""
        yield Found("complaint", {"recipients": [], "count": int(seen[_UNTOLD])})


async def _of_send(desk: Desk, ref: Ref, place: str, made: Sequence[float], changes: dict[str, str]) -> AsyncIterator[Found]:
    """Bounces since `place`, a bounded number of settlements; when there are no more, its end. Nothing from before a subscription was made
    is told together with what came after (`made`: their times)."""
    view = await view_of(desk, ref.account, ref.id)  # read before its outcomes: what is finished then has all of them
    if ref.id not in view.sends:
        changes[_SEND + _name(ref)] = ""
        return
    chunks = await desk.outcomes(ref.account, ref.id, place, CHUNKS)
    for _, group in groupby(chunks, lambda chunk: bisect_right(made, _settled_us(chunk))):
        some = list(group)
        bounced = await _bounced(desk, ref, some)
        for start in range(0, len(bounced), TOGETHER):
            data = {"campaign": str(ref), "recipients": msgspec.to_builtins(bounced[start : start + TOGETHER])}
            yield Found("bounce", data, latest_us=_settled_us(some[-1]))
    changes[_SEND + _name(ref)] = chunks[-1].entry if chunks else place
    if len(chunks) < CHUNKS and "finished" in view.sends[ref.id]:
        changes[_SEND + _name(ref)] = "over"
        ended = float(view.sends[ref.id].get("over", inf))
        yield Found("send.finished", msgspec.to_builtins(status(view, ref.id)), latest_us=ended)


async def _bounced(desk: Desk, ref: Ref, chunks: list[OutcomeChunk]) -> list[RecipientOutcome]:
    if not any(record.outcome is Outcome.BOUNCED for chunk in chunks for record in decode_outcomes(chunk.records)):
        return []
    try:
        return [each async for each in Outcomes(desk, ref).of(chunks) if each.outcome == "bounced"]
    except Conflict:
        return []  # it ended so long ago that its recipients are kept no longer


def _settled_us(chunk: OutcomeChunk) -> float:
    """By Redis' clock, as subscriptions are dated; the latest that its millisecond allows."""
    return int(chunk.entry.split("-")[0]) * 1000.0 + 999


async def _is_young(desk: Desk, account: str, campaign: str, since: float) -> bool:
    """It would be taken for a new one, were it forgotten."""
    return campaign in await _begun(desk, account, since - 2 * OVERLAP_US)


def _lanes(account: str) -> list[str]:
    return [account, *others(account)]


def _name(ref: Ref) -> str:
    """Of a send in what was looked at: ID, or sms/ID."""
    return "/".join(filter(None, (channel(ref.account), ref.id)))


def _ref(account: str, name: str) -> Ref:
    lane, _, campaign = f"{account}/{name}".rpartition("/")
    return Ref(lane, campaign)


async def _begun(desk: Desk, account: str, since: float) -> set[str]:
    return {_name(Ref(lane, each)) for lane in _lanes(account) for each in await desk.outbox.begun(lane, since)}


def _facts(fields: Mapping[str, str]) -> dict[str, str]:
    holds = sorted(name.removeprefix("hold:") for name in fields if name.startswith("hold:"))
    return {"tier": fields.get("tier", ""), "holds": " ".join(holds)}


def _held(seen: Mapping[str, str], now: str) -> Iterator[Found]:
    """Each hold that came or went, at its time; and what beside that is another than what was last looked at."""
    standing = set(seen.get("holds", "").split())
    for line in seen.get(_HELD, "").splitlines():
        at, *moves = line.split()
        after = standing | {move[1:] for move in moves if move[0] == "+"}
        after -= {move[1:] for move in moves if move[0] == "-"}
        if after != standing:
            yield Found("hold", _holds(standing, after), at_us=float(at), latest_us=float(at))
        standing = after
    if standing != (stand := set(now.split())):
        yield Found("hold", _holds(standing, stand))


def _holds(were: set[str], are: set[str]) -> dict[str, Any]:
    return {"holds": sorted(are), "placed": sorted(are - were), "released": sorted(were - are)}


def _entry_at(us: float) -> str:
    return f"{max(0.0, us) / 1000:.0f}-0"


def _queued(
    account: str, version: str, found: Sequence[Found], hooks: Sequence[Hook], now: float
) -> list[Queued]:
    """One for each subscription that wants it; the ids follow from what was looked at, so that a look that is repeated queues the same."""
    queued = []
    for place, each in enumerate(found):
        event_id = "evt_" + blake2b(f"{account} {version} {place} {now:.0f}".encode(), digest_size=12).hexdigest()
        at = now if each.at_us is None else each.at_us
        body = msgspec.json.encode(Told(each.event, event_id, account, wall(at / 1e6), each.data))
        queued += [
            Queued(f"{event_id}.{hook.id}", at, policy.encode_delivery(Delivery(hook.id, each.event, body, first_us=now)))
            for hook in hooks
            if hook.wants(each.event) and each.only in (None, hook.id) and hook.made_us <= each.latest_us
        ]
    return queued


# telling


class Teller:
    """Looks for accounts that need somebody, and tells. Several may, in any processes. `noted` gets what each try came to: taken, again,
    or given up."""

    def __init__(self, desk: Desk, poster: Poster, noted: Callable[[str], None]) -> None:
        self._desk, self._poster, self._noted = desk, poster, noted

    async def run(self) -> None:
        """For ever. A slow receiver holds up its own account. While Redis is away it waits as everybody does."""
        serving: set[asyncio.Task[None]] = set()
        try:
            while True:
                for account in await self._claimed(ACCOUNTS - len(serving)):
                    serving.add(asyncio.create_task(self._serve(account)))
                waiting = serving or {asyncio.create_task(asyncio.sleep(TURN_S))}
                done, _ = await asyncio.wait(waiting, timeout=TURN_S, return_when=asyncio.FIRST_COMPLETED)
                serving -= done
                for task in done:
                    if not isinstance(error := task.exception(), Unavailable | None):
                        raise error
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def _claimed(self, limit: int) -> list[str]:
        try:
            return await self._desk.outbox.claim(limit, CLAIM_S) if limit else []
        except Unavailable:
            return []

    async def turn(self, limit: int = 20) -> int:
        """Accounts that needed somebody now, each served once."""
        accounts = await self._desk.outbox.claim(limit, CLAIM_S)
        await asyncio.gather(*map(self._serve, accounts))
        return len(accounts)

    async def _serve(self, account: str) -> None:
        outbox = self._desk.outbox
        hooks = await _hooks(self._desk, account)
        if not hooks:
            await outbox.need(account, None)
            return
        goes_on = await look(self._desk, account) if await outbox.waiting(account) < WAITING_MOST else True
        await self._tell(account, hooks)
        now, due = await self._desk.now_us(), await outbox.next_due(account)
        after = now + (LOOK_S if goes_on else IDLE_S) * 1e6
        await outbox.need(account, after if due is None else min(after, due))

    async def _tell(self, account: str, hooks: Mapping[str, Hook]) -> None:
        due = await self._desk.outbox.due(account, await self._desk.now_us(), ROUND)
        few = asyncio.Semaphore(AT_ONCE)

        async def tell(queued: Queued) -> None:
            async with few:
                await self._try(account, queued, hooks)

        await asyncio.gather(*map(tell, due))

    async def _try(self, account: str, queued: Queued, hooks: Mapping[str, Hook]) -> None:
        delivery = policy.decode_delivery(queued.value)
        hook = hooks.get(delivery.hook) if delivery is not None else None
        if delivery is None or hook is None:  # nobody wants it any more
            await self._desk.outbox.told(account, queued.id)
            return
        now = await self._desk.now_us()
        event_id = queued.id.partition(".")[0]
        headers = {
            "Content-Type": "application/json", "User-Agent": "sendengine", "webhook-id": event_id,
            "webhook-timestamp": f"{now / 1e6:.0f}",
            "webhook-signature": policy.signatures(hook.secrets, event_id, round(now / 1e6), delivery.body, now),
        }  # fmt: skip
        posted = await self._poster.post(hook.url, headers, delivery.body)
        wait = policy.wait_after(delivery.tries + 1)
        if posted.is_taken or wait is None:
            self._noted("taken" if posted.is_taken else "given up")
            await self._desk.outbox.told(account, queued.id)
            return
        self._noted("again")
        tried = msgspec.structs.replace(delivery, tries=delivery.tries + 1, last=posted.detail or str(posted.status))
        await self._desk.outbox.told(account, Queued(queued.id, now + wait * 1e6, policy.encode_delivery(tried)))
