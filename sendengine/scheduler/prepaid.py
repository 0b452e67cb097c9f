"""SMS credits as people see them: bought, shown, told one by one, and checked. Amounts are credits with up to three decimals."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from struct import Struct

import msgspec

from sendengine.errors import Conflict, NoAccount, RefusedInput, about
from sendengine.intake import Intake
from sendengine.lanes import sms_lane
from sendengine.policy import credits as policy
from sendengine.policy.credits import Draw, Home, Kind, Lot
from sendengine.policy.prices import MILLI, shown
from sendengine.ports import Bill, Desk, LedgerEntry
from sendengine.records import rows_of
from sendengine.remedies import create_account
from sendengine.render.sms import Pricing
from sendengine.scheduler import audit, sources
from sendengine.scheduler.distinct import Distinct
from sendengine.scheduler.fsck import Finding
from sendengine.scheduler.names import Ref
from sendengine.scheduler.sources import Recipients
from sendengine.scheduler.view import wall

GRANT_MOST = 10**9  # credits in one lot
_AT_ONCE = 1000
_READINGS, _PAUSE_S = 3, 0.3
_PRICED = Struct("<IH")  # what a row costs, in 1/1000 credit, and its parts


class LotShown(msgspec.Struct, frozen=True):
    """`state`: good, frozen (the term is over), expired, used. `expires_at` is None where nothing ends it as things stand."""

    lot: int
    state: str
    granted: float
    reserved: float
    spent: float
    free: float
    bought_at: datetime
    expires_at: datetime | None


class Credits(msgspec.Struct, frozen=True):
    """granted = reserved + spent + free + frozen + expired."""

    account: str
    granted: float
    reserved: float
    spent: float
    free: float
    frozen: float
    expired: float
    lots: list[LotShown]


class Move(msgspec.Struct, frozen=True):
    """One entry of the ledger. `lots`: what each lot gave, or got."""

    at: datetime
    kind: str
    credits: float
    campaign: str | None
    lots: dict[int, float]
    who: str
    why: str


class Cost(msgspec.Struct, frozen=True):
    """What a list would cost now; exactly what it is charged if it is submitted under this version and all of it is sent."""

    account: str
    prices: str
    recipients: int
    rejected: int
    duplicates: int
    parts: int
    credits: float
    free: float
    is_enough: bool


def amount_of(text: str | float) -> int:
    """Credits as thousandths. Raises RefusedInput."""
    with about("amount"):
        return _amount(text)


def _amount(text: str | float) -> int:
    try:
        exact = Decimal(str(text)) * MILLI
        if exact != int(exact) or not 0 < exact <= GRANT_MOST * MILLI:
            raise ValueError
    except (InvalidOperation, ValueError, OverflowError):
        raise RefusedInput(f"{text} is no number of credits", f"above 0, up to {GRANT_MOST:,}, three decimals at most") from None
    return int(exact)


async def grant(desk: Desk, account: str, amount: int, key: str | None, otherwise: str, bought: float, who: str, why: str) -> int:
    """The number of the lot; the same again for the same key. `otherwise` names a purchase without one."""
    for name, text in (("who", who), ("why", why), ("key", key or "")):
        if not text.isprintable():
            raise RefusedInput(f"{name} {text!r} holds control characters or no Unicode text")
    bought_us = round(bought * 1e6)
    line = audit.line("credits.grant", who, why, amount=shown(amount), key=key or "")
    lane, until_us = sms_lane(account), policy.good_until(bought_us)
    number = await desk.grant_credits(lane, key or otherwise, amount, bought_us, until_us, who, why, line=line)
    if number is None:
        raise NoAccount(f"no account {account}", create_account(account))
    lot = next(lot for lot in await desk.lots(lane) if lot.number == number)
    if lot.granted != amount:
        remedy = "each purchase has a key of its own"
        raise Conflict(f"the purchase {key!r} stands as lot {number} with {shown(lot.granted)} credits, not {shown(amount)}", remedy)
    return number


async def show(desk: Desk, account: str) -> Credits:
    lots, fields, now = await asyncio.gather(desk.lots(sms_lane(account)), desk.account(account), desk.now_us())
    home = Home.of(fields)
    found = policy.balance(lots, home, now)
    sums = {name: _credits(getattr(found, name)) for name in found.__struct_fields__}
    return Credits(account=account, lots=[_shown(lot, home, now) for lot in policy.in_order(lots, home)], **sums)


def _shown(lot: Lot, home: Home, now: float) -> LotShown:
    expires = lot.expires_us(home)
    state = "used" if not lot.rest else "frozen" if home.is_over(now) else "expired" if now >= expires else "good"
    return LotShown(
        lot=lot.number,
        state=state,
        granted=_credits(lot.granted),
        reserved=_credits(lot.reserved),
        spent=_credits(lot.spent),
        free=_credits(lot.free(home, now)),
        bought_at=wall(lot.bought_us / 1e6),
        expires_at=None if math.isinf(expires) else wall(expires / 1e6),
    )


async def history(desk: Desk, account: str) -> AsyncIterator[Move]:
    """Oldest first."""
    lane = sms_lane(account)
    async for entry in _ledger(desk, lane):
        what = entry.what
        send = str(Ref(lane, what.campaign)) if what.campaign else None
        lots = {number: _credits(part) for number, part in what.lots.items()}
        yield Move(wall(entry.at), what.kind.value, _credits(what.amount), send, lots, what.who, what.why)


async def cost(desk: Desk, account: str, recipients: Recipients, intake: Intake, pricing: Pricing) -> Cost:
    """Of a list of any length; of exact duplicates the first is priced, as submit does."""
    with Distinct(_PRICED.size) as distinct:
        rows = rejected = 0
        async for batch in sources.batches(recipients, intake):
            rejected += len(batch.rejected)
            rows += len(batch.positions)
            for at, row in enumerate(batch.positions):
                price = int.from_bytes(batch.prices[4 * at : 4 * at + 4], "little")
                distinct.add(batch.fingerprints[8 * at : 8 * at + 8] + _PRICED.pack(price, pricing.parts[row]))
        count, total, parts = await asyncio.to_thread(_sums, distinct)
    free = (await show(desk, account)).free
    return Cost(
        account=account,
        prices=pricing.table.version,
        recipients=count,
        rejected=rejected,
        duplicates=rows - count,
        parts=parts,
        credits=_credits(total),
        free=free,
        is_enough=_credits(total) <= free,
    )


def _sums(distinct: Distinct) -> tuple[int, int, int]:
    """Rows, their price, their parts."""
    count = total = parts = 0
    for price, each in map(_PRICED.unpack, distinct.firsts()):
        count, total, parts = count + 1, total + price, parts + each
    return count, total, parts


def _credits(amount: int) -> float:
    return amount / MILLI


async def _ledger(desk: Desk, lane: str) -> AsyncIterator[LedgerEntry]:
    after = ""
    while entries := await desk.ledger(lane, after, _AT_ONCE):
        after = entries[-1].entry
        for entry in entries:
            yield entry


# the proof


async def check(desk: Desk, lane: str) -> list[Finding]:
    """What does not add up of a lane's money: the ledger's fold against the lots, what its sends have drawn against both, and each send's
    against its rows that have not ended. It moves while it is read: a finding counts when three readings in a row make it."""
    found: list[Finding] | None = None
    for reading in range(_READINGS):
        if reading:
            await asyncio.sleep(_PAUSE_S)
        again = await _findings(desk, lane)
        found = again if found is None else [finding for finding in found if finding in again]
        if not found:
            break
    return found or []


async def _findings(desk: Desk, lane: str) -> list[Finding]:
    lots = await desk.lots(lane)
    folded, drawn = await _folded(desk, lane)
    found = [Finding(lane, what) for what in _lots_differ(lots, folded)]
    held: Draw = {}
    for campaign in await desk.campaigns(lane):
        bill = await desk.bill(lane, campaign)
        for number, part in bill.draws.items():
            held[number] = held.get(number, 0) + part
        name = str(Ref(lane, campaign))
        if bill.draws != {number: part for number, part in drawn.get(campaign, {}).items() if part}:
            found.append(Finding(name, "what it has reserved is not what the ledger says"))
        rest, reserved = await _unended(desk, lane, campaign, bill), sum(bill.draws.values())
        if rest is not None and rest != reserved:
            found.append(Finding(name, f"it has reserved {shown(reserved)} credits, and its rows that have not ended cost {shown(rest)}"))
    wrong = [lot.number for lot in lots if lot.reserved != held.get(lot.number, 0)]
    return found + [Finding(lane, f"lot {number}: its sends have reserved something else") for number in wrong]


async def _folded(desk: Desk, lane: str) -> tuple[dict[int, Lot], dict[str, Draw]]:
    """The lots as the ledger says they are, and what each campaign has drawn by it."""
    lots: dict[int, Lot] = {}
    drawn: dict[str, Draw] = {}
    async for entry in _ledger(desk, lane):
        policy.apply(lots, entry.what)
        if entry.what.kind is Kind.GRANT:
            continue
        own = drawn.setdefault(entry.what.campaign, {})
        for number, part in entry.what.lots.items():
            own[number] = own.get(number, 0) + (part if entry.what.kind is Kind.RESERVE else -part)
    return lots, drawn


def _lots_differ(lots: Iterable[Lot], folded: Mapping[int, Lot]) -> list[str]:
    standing = {lot.number: lot for lot in lots}
    differing = [number for number in sorted(standing.keys() | folded) if standing.get(number) != folded.get(number)]
    wrong = [f"lot {number} is not what the ledger says" for number in differing]
    return wrong + [f"lot {lot.number} is below zero" for lot in standing.values() if min(lot.reserved, lot.spent, lot.rest) < 0]


async def _unended(desk: Desk, lane: str, campaign: str, bill: Bill) -> int | None:
    """What the rows cost that stand somewhere; None where it moved while it was read."""
    before = await desk.campaign(lane, campaign)
    standing = await desk.standing(lane, campaign)
    rows = {(k, row) for places in (standing.ready, standing.leased, standing.retry, standing.aside)
            for k, masks in places.items() for mask in masks for row in rows_of(mask)}  # fmt: skip
    if await desk.campaign(lane, campaign) != before:
        return None
    return sum(bill.price(k, row) for k, row in rows)
