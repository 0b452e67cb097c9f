"""Which limit binds now, since when, and what would lift it: the one answer of `status`, `why` and `top`.

Pure: it reads a View. The order of the questions is the order in which the causes hide each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from sendengine import remedies
from sendengine.lanes import is_paid, owner
from sendengine.policy.prices import shown
from sendengine.policy.times import format_time
from sendengine.policy.window import Window
from sendengine.records import TRANSACTIONAL
from sendengine.remedies import Remedy
from sendengine.scheduler.view import ENDED, View, is_loading, is_silent, may_send, moment, number, pending, untried, waits_for_seal, wall

STOPS_ALL = ("hold", "term", "relay", "site", "no_worker")
PACED = ("rate", "share")  # that which is sold binds: all is well
UNTIMED = ("site", "relay", "credits", "unsealed")  # how long, nobody can tell


class Binding(msgspec.Struct, frozen=True):
    limit: str
    since: datetime | None
    lift: str


def _bound(view: View, limit: str, since: datetime | None, *lift: str | Remedy) -> Binding:
    return Binding(limit, since, remedies.said(*lift).told(view.tongue))


def binding(view: View, campaign: str) -> Binding | None:
    """None: nothing binds, it has ended or only waits for a retry's time."""
    send = view.sends[campaign]
    if send["state"] in ENDED or (campaign == TRANSACTIONAL and not pending(send)):
        return None
    own = _gate_binds(view) or _state_binds(view, campaign, send)
    return own or _surroundings_bind(view, campaign, send) or _rest_binds(view, campaign, send)


def account_binding(view: View) -> Binding | None:
    """What binds a lane: its account's gate, else the limit of the send that runs, else of the oldest one."""
    campaign = binding_send(view)
    return _gate_binds(view) if campaign is None else binding(view, campaign)


def gravest(lanes: Sequence[View]) -> list[View]:
    """An account's lanes: first the one that is stuck, then one that goes at its speed, then what nothing binds."""

    def weight(view: View) -> int:
        bound = account_binding(view)
        return 2 if bound is None else 1 if bound.limit in PACED else 0

    return sorted(lanes, key=weight)


def binding_send(view: View) -> str | None:
    """The send whose limit is the account's; None while nothing binds any."""
    return next((campaign for campaign in [*view.running, *view.going_on] if binding(view, campaign) is not None), None)


def go_on(view: View) -> set[str]:
    """The sends that do: none while what binds the first of them stops all of the account."""
    may = [campaign for campaign, send in view.going_on.items() if may_send(send) and pending(send) and "lacks" not in send]
    bound = binding(view, may[0]) if may else None
    return set() if bound is not None and bound.limit in STOPS_ALL else set(may)


def _gate_binds(view: View) -> Binding | None:
    """A hold, or a term that is over: whatever else stands in the way, nothing of the account goes before that is lifted. It takes no
    sends meanwhile: each was there before."""
    shut = view.shut
    return None if shut is None else _bound(view, shut.limit, wall(shut.since), shut.lift)


# since when: no send is bound by anything before it was there to be bound

_ASKED_FOR = ("created", "at", "resumed_at")


def _latest(send: Mapping[str, str], *names: str) -> datetime:
    return wall(max(number(send, name) for name in names) / 1e6)


def _runs_since(send: Mapping[str, str]) -> datetime:
    """Since when none of its own conditions keeps it; of one that began under the release before, from what that kept."""
    return _latest(send, *_ASKED_FOR, "runs_since")


def _goes_since(view: View, send: Mapping[str, str]) -> datetime:
    """Since when it goes as fast as it may: from its first message, or from when nothing has stopped all of the account's since."""
    return max(_latest(send, "runs_since", "first_mail", *_ASKED_FOR), _latest(view.fields, "idle_at"))


def _state_binds(view: View, campaign: str, send: Mapping[str, str]) -> Binding | None:
    name = f"{view.account}:{campaign}"
    if send["state"] == "paused":
        why = send.get("why", "")
        return _bound(view, "paused", moment(send, "paused_at"), f"{why}; " if why else "", remedies.resume(name), *_mended(send, name))
    if send["state"] == "scheduled":
        return _bound(view, "window", _latest(send, "created", "resumed_at"), f"it starts at {format_time(number(send, 'at') / 1e6)}")
    if send["state"] == "sequential":
        return _bound(view, "turn", _latest(send, *_ASKED_FOR), _before(view, campaign, name))
    if is_loading(send) and "lacks" in send:
        return _bound(view, "credits", _latest(send, "lacks_at", *_ASKED_FOR), *_buying(view, campaign, number(send, "lacks")))
    if waits_for_seal(send):
        return _bound(view, "unsealed", _latest(send, *_ASKED_FOR), remedies.complete(name, number(send, "batches")))
    if send.get("open") == "0":
        opens = Window.parse(send["window"]).next_open(view.now)
        since = _latest(send, "closed_at", *_ASKED_FOR, *(("sealed_at",) if send.get("need_seal") == "1" else ()))
        return _bound(view, "window", since, f"the window {send['window']!r} opens at {format_time(opens)}")
    return None


def _buying(view: View, campaign: str, needed: int) -> tuple[str | Remedy, ...]:
    """What the rest of its list costs was read when it was refused; what is free may be more by now."""
    again = remedies.submit_again(f"{view.account}:{campaign}")
    free = view.free or 0
    if free >= needed:
        return f"{shown(free)} credits are free, the rest of its list costs {shown(needed)}: ", again
    short = f"the rest of its list costs {shown(needed)} credits, {shown(free)} are free, {shown(needed - free)} are short: "
    return short, remedies.grant_credits(owner(view.account), shown(needed - free)), "; then ", again


def _mended(send: Mapping[str, str], name: str) -> tuple[str | Remedy, ...]:
    """Of a send that the engine itself has stopped: its message is frozen, so that a mended one is another send."""
    if not send.get("why"):
        return ()
    other = ", and submit the mended message under another id to those it did not reach"
    return "; or, where the message is at fault, ", remedies.cancel(name), other


def _before(view: View, campaign: str, name: str) -> str | Remedy:
    """What must be through first. The one that sends keeps its place at the head of the line: behind it nobody moves up. Paused ones, and
    those whose list is not complete, are passed by."""
    line = [other for other in view.line if other in view.sends]
    ahead = line[: line.index(campaign)] if campaign in line else []
    before = [f"{view.account}:{other}" for other in ahead if not _is_passed(view.sends[other])]
    if not before:
        return "its list is complete"
    first, *others = before
    can_move = view.sends[ahead[-1]]["state"] != "sending"
    said = f"{first} and {len(others)} more are through first" if others else f"{first} is through first"
    return remedies.said(f"{said}, or ", remedies.move_up(name)) if can_move else said


def _is_passed(send: Mapping[str, str]) -> bool:
    return send["state"] in ("paused", "scheduled") or (send["state"] == "sequential" and is_loading(send))


def _surroundings_bind(view: View, campaign: str, send: Mapping[str, str]) -> Binding | None:
    if pending(send) == 0 and is_loading(send):
        more = remedies.complete(f"{view.account}:{campaign}", number(send, "batches"))
        return _bound(view, "unsealed", _latest(send, "last_mail", *_ASKED_FOR), more)
    if pending(send) and (silence := _silence(view, send)) is not None:
        return silence
    limit, _, rest = view.fields.get("bind", "").partition("|")
    if limit:
        since, _, lift = rest.partition("|")
        return _bound(view, limit, max(wall(float(since) / 1e6), _runs_since(send)), lift, *_other_way(view, limit))
    return None


def _other_way(view: View, limit: str) -> tuple[str | Remedy, ...]:
    """What its operator can do about a relay, or a provider of SMS, that is in trouble."""
    if limit not in ("relay", "site"):
        return ()
    if is_paid(view.account):
        return ", or another provider: ", remedies.set_sms(owner(view.account), "--provider NAME")
    return ", or another relay: ", remedies.set_relay(view.account, "--relay URL")


def _silence(view: View, send: Mapping[str, str]) -> Binding | None:
    """No worker speaks, or none of those that hold the account's leases: nobody sends for it before one comes or takes over."""
    silent = {name: worker for name, worker in view.workers.items() if is_silent(worker)}
    is_deserted = len(silent) == len(view.workers)
    if not is_deserted and not (view.lessees and view.lessees <= silent.keys()):
        return None
    ages = {name: worker.age for name, worker in silent.items() if worker.age is not None and (is_deserted or name in view.lessees)}
    if not ages:
        since = max(_runs_since(send), _latest(send, "last_mail"))
        return _bound(view, "no_worker", since, remedies.start_worker()) if is_deserted else None
    last = min(ages, key=ages.__getitem__)
    at = view.now - ages[last]
    remedy = remedies.start_worker() if is_deserted else "another takes over when that has lasted dead_after_s"
    return _bound(view, "no_worker", max(wall(at), _runs_since(send)), f"worker {last} has been silent since {format_time(at)}: ", remedy)


def _rest_binds(view: View, campaign: str, send: Mapping[str, str]) -> Binding | None:
    if not untried(send):
        aside = number(send, "quarantined")
        is_all = aside and aside == pending(send)
        replay = remedies.replay(f"{view.account}:{campaign}")
        return _bound(view, "quarantine", moment(send, "last_mail"), replay, ", or cancel it") if is_all else None
    since = _goes_since(view, send)
    if len(view.running) > 1 and campaign != TRANSACTIONAL:  # single messages go ahead of all others
        since = max(since, sorted(_runs_since(view.sends[other]) for other in view.running)[1])  # when the second of them came
        others = len(view.running) - 1
        return _bound(view, "share", since, f"{others} other send{'s' if others > 1 else ''} of the account ends, or a faster tier")
    if view.rate is None:
        return _bound(view, "connections", since, remedies.more_sessions())
    boost = () if is_paid(view.account) else (", or boost for a time: ", remedies.boost(view.account))
    return _bound(view, "rate", since, _boost_in_force(view), "a faster tier: ", remedies.set_tier(view.account), *boost)


def _boost_in_force(view: View) -> str:
    """Until the rate becomes another one."""
    held = [grant for grant in view.grants if grant.holds(view.now) and grant.rate == view.rate]
    if not held or view.rate == view.tier_rate:
        return ""
    boost = max(held, key=lambda grant: grant.end)
    return f"boost {boost.number} gives {boost.rate:,.0f} messages per hour until {format_time(boost.end)}; "
