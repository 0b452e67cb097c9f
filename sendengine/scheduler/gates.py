"""Terms and holds: the verbs that shut and open an account's gate. What may follow on what is decided by policy/term.py; the desk makes a
change only of what was seen, so two who change the same thing at once are heard one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import msgspec

from sendengine.config import AccountConfig
from sendengine.errors import Conflict, NoAccount, NotFound, RefusedInput, Unavailable, about
from sendengine.policy import holds, term
from sendengine.policy.holds import Reason, holds_of, placed, reason_named
from sendengine.policy.term import Verb, fields_of, term_of
from sendengine.policy.times import format_time
from sendengine.ports import Desk, Gated
from sendengine.remedies import expire, show_account
from sendengine.scheduler import audit
from sendengine.scheduler.names import account_id, existing_account
from sendengine.scheduler.view import View, wall

TIMES = 20  # that a change is begun anew because another one was faster
LONGEST_TEXT = 1000


class Hold(msgspec.Struct, frozen=True):
    """A block that stands: what it is for, what the customer can do, who lifts it."""

    reason: str
    title: str
    remedy: str
    department: str
    since: datetime
    text: str
    who: str


class Term(msgspec.Struct, frozen=True):
    """Where a term stands. `phase` is trial, active, cancelled_active, grace or deleted; None is an account without a term, which sends
    without end. From `grace_ends` on it cannot be renewed, from `purge_at` on its data may be deleted."""

    account: str
    phase: str | None
    ends: datetime | None
    grace_ends: datetime | None
    purge_at: datetime | None
    may_send: bool  # as far as the term goes; holds are another matter


async def hold(desk: Desk, reasons: Mapping[str, Reason], account: str, reason: str, text: str, who: str) -> None:
    """One that stands already gets another text, if one is given. Raises NotFound, RefusedInput."""
    with about("reason"):
        known = reason_named(reason, reasons)
    name = holds.field(known.name)
    text, who = _text(text), _text(who)

    async def change() -> Gated:
        fields = await existing_account(desk, account_id(account))
        now = await desk.now_us() / 1e6
        stands = next((each for each in holds_of(fields) if each.reason == known.name), None)
        wanted = placed(known, now, text, who)
        if stands is not None:
            wanted = msgspec.structs.replace(stands, text=text or stands.text)
        line = audit.line("hold", who, text, reason=known.name)
        return await desk.set_gate(account, {name: fields.get(name, "")}, {name: holds.encode(wanted)}, line=line)

    await _settled(account, change)


async def release(desk: Desk, account: str, reason: str, why: str, who: str) -> None:
    """Raises NotFound where no such hold stands, naming those that do. A reason that is in no table any more can be lifted, too."""
    name, why, who = reason.strip().lower().replace("_", "-"), _text(why), _text(who)

    async def change() -> Gated:
        fields = await existing_account(desk, account_id(account))
        found = [each.reason for each in holds_of(fields)]
        if name not in found:
            stand = f"it is held for {', '.join(found)}" if found else "it is not held at all"
            raise NotFound(f"account {account} is not held for {reason!r}: {stand}", show_account(account))
        field = holds.field(name)
        return await desk.set_gate(account, {field: fields[field]}, {field: ""}, line=audit.line("release", who, why, reason=name))

    await _settled(account, change)


async def change_term(
    desk: Desk, config: AccountConfig, account: str, verb: Verb, ends: float | None, why: str, who: str
) -> None:
    """Raises NotFound, Conflict where its phase forbids the verb, RefusedInput for an impossible end. A renewal that is asked for within
    the grace and would arrive after it is refused as any other."""
    why, who = _text(why), _text(who)

    async def change() -> Gated:
        fields = await existing_account(desk, account_id(account))
        before, now = term_of(fields), await desk.now_us() / 1e6
        after = _changed(account, config, before, verb, now, ends)
        until = "" if after.ends is None else format_time(after.ends)
        line = audit.line(f"term.{verb}", who, why, ends=until)
        limit = None if before is None or before.grace_ends is None else before.grace_ends * 1e6
        seen = {name: fields.get(name, "") for name in fields_of(before)}
        return await desk.set_gate(account, seen, fields_of(after), before_us=limit, line=line)

    await _settled(account, change)


def _changed(account: str, config: AccountConfig, before: term.Term | None, verb: Verb, now: float, ends: float | None) -> term.Term:
    days = {"grace_days": config.grace_days, "purge_after_days": config.purge_after_days}
    try:
        return term.change(before, verb, now, ends, **days)
    except RefusedInput as error:
        refused = type(error)(f"account {account}: {error}", error.way)
        refused.field = error.field
        raise refused from None


async def _settled(account: str, change: Callable[[], Awaitable[Gated]]) -> None:
    """Begun anew while somebody else is faster, or the time is up: then the policy says so."""
    for _ in range(TIMES):
        gated = await change()
        if gated.status in ("done", "same"):
            return
        if gated.status == "missing":
            raise NoAccount(f"account {account} is gone")
        if gated.status == "purging":
            raise Conflict(f"account {account} is deleted: its data are being purged", "a new account, under another id")
    raise Unavailable(f"account {account} is changed by others all the time", "the same call may go through later")


async def purge(desk: Desk, account: str, who: str) -> None:
    """Delete everything of it, where its time has come. Broken off, the same call goes on. Raises Conflict before its time, NotFound."""
    answer = await desk.purge(account_id(account), term.purge_line(_text(who) or audit.user()))
    if answer == "early":
        found = term_of(await desk.account(account))
        if found is None or found.purge_at is None:
            raise Conflict(f"account {account} has a term without an end", expire(account))
        raise Conflict(f"account {account} may be purged from {format_time(found.purge_at)} on, and not before", "ask again then")
    if answer in ("gone", "missing"):
        await existing_account(desk, account)


def _text(text: str) -> str:
    """Words of people, for people: in one line, since they are shown on screens and in errors."""
    if len(text) > LONGEST_TEXT:
        raise RefusedInput(f"a text of {len(text)} characters is longer than {LONGEST_TEXT}")
    if not text.isprintable():
        raise RefusedInput(f"the text {text[:40]!r} holds control characters, lines or no Unicode")
    return text


def shown_holds(fields: Mapping[str, str]) -> list[Hold]:
    return [
        Hold(each.reason, each.title, each.remedy, each.department, wall(each.since), each.text, each.who) for each in holds_of(fields)
    ]


def shown_term(view: View) -> Term:
    found = term_of(view.home)
    if found is None:
        return Term(view.account, None, None, None, None, True)
    ends, grace_ends, purge_at = (None if at is None else wall(at) for at in (found.ends, found.grace_ends, found.purge_at))
    return Term(view.account, found.phase(view.now).value, ends, grace_ends, purge_at, found.may_send(view.now))
