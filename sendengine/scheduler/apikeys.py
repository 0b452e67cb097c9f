"""API keys as their owners see them: made (and shown once), listed, revoked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

import msgspec

from sendengine.errors import Conflict, NoAccount, NotFound
from sendengine.policy.apikeys import OPERATOR, ApiKey, digest_of, scopes_of, seat_of, token_of
from sendengine.policy.tiers import nearest
from sendengine.ports import Desk
from sendengine.remedies import list_keys, said
from sendengine.scheduler import audit
from sendengine.scheduler.names import existing_account
from sendengine.scheduler.view import wall


class KeyShown(msgspec.Struct, frozen=True, kw_only=True):
    """`id` names it; what it is nobody can tell any more. `account` is None for the operator's; `last_used` is the day, in UTC."""

    id: str
    account: str | None
    scopes: list[str]
    seat: str
    created_at: datetime
    last_used: date | None


class NewKey(KeyShown, frozen=True, kw_only=True):
    """With the key itself: the one time that it is shown."""

    key: str


async def create(desk: Desk, account: str | None, scopes: Iterable[str], seat: str, chance: bytes, who: str) -> NewKey:
    """Of an account, or (None) of the operator. Raises NotFound, RefusedInput; Conflict where the account's seats are all taken."""
    wanted, name = scopes_of(scopes), seat_of(seat)
    seats = None if account is None else (await existing_account(desk, account)).get("seats")
    token = token_of(chance)
    key = ApiKey(digest_of(token), account or "", wanted, name, await desk.now_us())
    kept = await desk.keep_api_key(key, int(float(seats)) if seats else None)
    if kept == "gone":  # purged since it was looked at
        raise NoAccount(f"no account {account}")
    if kept == "seats":
        taken = sorted({each.seat for each in await desk.api_keys(key.owner)})
        raise Conflict(
            f"account {account} has {seats} seat{'s' * (seats != '1')}, taken by {', '.join(taken)}",
            said("buy another seat, or revoke the keys of one: ", list_keys(account)),
        )
    await _note(desk, "key.create", who, key)
    return NewKey(**msgspec.structs.asdict(shown(key)), key=token)


async def listed(desk: Desk, owner: str | None) -> list[KeyShown]:
    """Of an account, of `admin`, or (None) all. Raises NotFound."""
    if owner not in (None, OPERATOR):
        await existing_account(desk, owner)
    return [shown(key) for key in await desk.api_keys(owner)]


async def revoke(desk: Desk, key_id: str, owner: str | None, who: str) -> KeyShown:
    """It opens nothing any more. `owner` as in `listed`: a key of another one is not found. Raises NotFound."""
    known = {key.id: key for key in await desk.api_keys(owner)}
    key = known.get(key_id)
    if key is None or not await desk.drop_api_keys(key.owner, [key.digest]):
        raise NotFound(f"no API key {key_id}{nearest(key_id, known)}", list_keys(None if owner in (None, OPERATOR) else owner))
    await _note(desk, "key.revoke", who, key)
    return shown(key)


async def _note(desk: Desk, what: str, who: str, key: ApiKey) -> None:
    """In the trail of its account; the operator's keys are of no account."""
    if not key.is_operator:
        await desk.note(key.account, audit.line(what, who, key=key.id, seat=key.seat, scopes=" ".join(key.scopes)))


def shown(key: ApiKey) -> KeyShown:
    return KeyShown(
        id=key.id, account=key.account or None, scopes=list(map(str, key.scopes)), seat=key.seat, created_at=wall(key.made_us / 1e6),
        last_used=wall(key.used_us / 1e6).date() if key.used_us else None,
    )  # fmt: skip
