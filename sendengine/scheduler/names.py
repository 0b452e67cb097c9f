"""Names of accounts and campaigns: what they may look like, and which one somebody means.

An account is m1234, and its SMS are the lane m1234/sms; a campaign's id is unique in its account, lanes together, and `m1234:ID` or
`m1234/sms:ID` is its full form; the first finds it in either lane. A bare ID is enough where only one account has such a campaign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from sendengine import remedies
from sendengine.address import BadAddress, normalise
from sendengine.errors import NoAccount, NotFound, RefusedInput
from sendengine.lanes import SMS, others, owner
from sendengine.policy.tiers import nearest
from sendengine.policy.times import format_time
from sendengine.ports import Desk
from sendengine.records import TRANSACTIONAL
from sendengine.remedies import Remedy, said

_is_account = re.compile(r"m[1-9][0-9]{0,17}").fullmatch
_is_lane = re.compile(rf"m[1-9][0-9]{{0,17}}(?:/{SMS})?").fullmatch
_is_campaign = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch
_SINGLE = said("choose another, or ", Remedy("use `sendengine send`", "POST /v1/messages"))
_SEARCHED = 1000  # accounts whose sends are read for the nearest name


class Ref(msgspec.Struct, frozen=True):
    """`account` is a lane: m1234, or m1234/sms."""

    account: str
    id: str

    def __str__(self) -> str:
        return f"{self.account}:{self.id}"


def is_account(text: str) -> bool:
    """An account, or one of its lanes."""
    return _is_lane(text) is not None


def lane_id(text: str) -> str:
    if not _is_lane(text):
        raise RefusedInput(f"{text!r} is no account id", "write m and a number without leading zeros, as in m1234, or m1234/sms")
    return text


def account_id(text: str) -> str:
    if not _is_account(text):
        raise RefusedInput(f"{text!r} is no account id", "write m and a number without leading zeros, as in m1234")
    return text


def is_campaign(text: str) -> bool:
    return _is_campaign(text) is not None


def campaign_id(text: str) -> str:
    """The id of a send that a caller names; `transactional` is reserved for an account's single messages."""
    if not _is_campaign(text):
        raise RefusedInput(f"{text!r} is no campaign id", "write up to 64 letters, digits, dots, dashes and underscores")
    if text == TRANSACTIONAL:
        raise RefusedInput(f"the campaign id {text!r} is taken by single messages", _SINGLE)
    return text


def new_campaign_id(wall: float, random: bytes) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y%m%d}-{random.hex()}"


def is_of_single_messages(campaign: str) -> bool:
    """Whether `m1234:transactional`, or the bare name, is meant."""
    return campaign.rpartition(":")[2] == TRANSACTIONAL


def envelope_sender(text: str) -> str:
    """An address that may stand in MAIL FROM. Raises RefusedInput: what is no address could end the command and begin another."""
    try:
        return normalise(text)
    except BadAddress as error:
        raise RefusedInput(f"envelope sender {text!r}: {error}") from None


async def existing_account(desk: Desk, account: str) -> dict[str, str]:
    """Its fields, or those of its lane. Raises NotFound, with the nearest one or with the time at which it was purged."""
    fields = dict(await desk.account(lane_id(account)))
    home = owner(account)
    if not fields and home != account and await desk.account(home):
        raise NoAccount(f"account {home} has no SMS yet", remedies.set_sms(home))
    if not fields and (at := await desk.gone(home)) is not None:
        raise NoAccount(f"account {home} was deleted at {format_time(at / 1e6)}", "a new account, under another id")
    if not fields:
        near = nearest(account, dict.fromkeys(await desk.accounts()))
        raise NoAccount(f"no account {account}{near}", remedies.create_account(account))
    return fields


async def resolve(desk: Desk, name: str) -> Ref:
    """The campaign that `m1234:ID` or a bare ID names. Raises NotFound or, when several accounts have it, RefusedInput."""
    account, separator, campaign = name.rpartition(":")
    if not _is_campaign(campaign):
        raise RefusedInput(f"{name!r} is no campaign", "write m1234:ID, or the ID alone")
    if separator and campaign != TRANSACTIONAL:
        holders = _lanes(lane_id(account))
    else:  # each lane has single messages of its own
        holders = [lane_id(account)] if separator else await desk.holders(campaign)
    found = [holder for holder in holders if "state" in await desk.campaign(holder, campaign)]
    if len(found) > 1:
        raise RefusedInput(f"{len(found)} accounts have a campaign {campaign}", "one of " + " ".join(f"{a}:{campaign}" for a in found[:5]))
    if not found:
        raise await _not_found(desk, name, [account] if separator else (await desk.accounts())[:_SEARCHED])
    return Ref(found[0], campaign)


def _lanes(lane: str) -> list[str]:
    """An account stands for all its lanes."""
    return [lane, *others(lane)] if lane == owner(lane) else [lane]


async def _not_found(desk: Desk, name: str, accounts: Iterable[str]) -> NotFound:
    known: dict[str, None] = {}
    for account in accounts:
        for campaign in await desk.campaigns(account):
            known[f"{account}:{campaign}" if ":" in name else campaign] = None
    return NotFound(f"no campaign {name}{nearest(name, known)}", remedies.list_sends())
