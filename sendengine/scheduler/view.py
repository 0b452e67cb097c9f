"""One account as it stands now: its fields, its sends and who works. Everything that is shown of a send is read from here.

Times inside are UNIX seconds of Redis' clock, which is the clock that MAIL times are written in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from struct import Struct

import msgspec

from sendengine.lanes import owner
from sendengine.policy import gate
from sendengine.policy.credits import Home, balance
from sendengine.policy.estimate import Job, estimate
from sendengine.policy.grants import Grant, changes, grants_of, rate_at
from sendengine.policy.term import term_of
from sendengine.policy.times import LAST
from sendengine.policy.window import Window
from sendengine.ports import Desk, Heard
from sendengine.records import TRANSACTIONAL
from sendengine.remedies import Tongue
from sendengine.types import Outcome

ENDED = ("finished", "cancelled")
COUNTS = tuple(outcome.name.lower() for outcome in Outcome)

_SAMPLE = Struct("<dd")  # MAIL µs, messages so far (lua/settling.lua, sample)
_KEPT_SAMPLES = 12
_RATE_SECONDS, _RATE_MESSAGES = 10.0, 8  # what rate_achieved is taken over: the longer of both
_SETTLE_LAG = 6.0  # counts may be that old (domain rule: 5 s)
_READ_AT_ONCE = 200
SILENT_AFTER = 6.0  # a worker speaks every two seconds


class View(msgspec.Struct, frozen=True):
    account: str
    fields: Mapping[str, str]
    sends: Mapping[str, Mapping[str, str]]  # campaign -> campaign fields, oldest first; of those that have ended only who was asked for
    line: Sequence[str]
    now: float
    workers: Mapping[str, Heard]
    lessees: Set[str]  # who holds leases of the account: read only while some worker is silent
    home: Mapping[str, str]  # the account's own fields, whatever the lane
    tongue: Tongue = Tongue.COMMANDS  # in which it is shown
    free: int | None = None  # credits, in thousandths; read only while some send lacks them

    @property
    def tier_rate(self) -> float | None:
        """Messages per hour that the tier gives; None is unmetered."""
        return float(self.fields["rate"]) if self.fields.get("rate") else None

    @property
    def rate(self) -> float | None:
        """Messages per hour in force now: the tier's, or a higher boost's; None is unmetered."""
        return rate_at(self.tier_rate, self.grants, self.now)

    @property
    def grants(self) -> list[Grant]:
        """Boosts that hold now or will; those that are over are not among them."""
        return [grant for grant in grants_of(self.fields) if grant.end > self.now]

    @property
    def changes(self) -> list[tuple[float, float]]:
        """The rates to come, with their times."""
        return changes(self.tier_rate, self.grants, self.now)

    @property
    def shut(self) -> gate.Shut | None:
        """Why the account may not send now; None while it may."""
        return gate.shut(owner(self.account), self.home, self.now)

    @property
    def open_sends(self) -> dict[str, Mapping[str, str]]:
        """Those that have not ended, without the one of single messages."""
        return {campaign: send for campaign, send in self.sends.items() if send["state"] not in ENDED and campaign != TRANSACTIONAL}

    @property
    def going_on(self) -> dict[str, Mapping[str, str]]:
        """Sends that have not ended, and the one of single messages while some wait."""
        singles = self.sends.get(TRANSACTIONAL)
        return self.open_sends | ({TRANSACTIONAL: singles} if singles is not None and pending(singles) else {})

    @property
    def running(self) -> list[str]:
        """Sends that share the rate now: they may send and have somebody left who was never tried."""
        return [campaign for campaign, send in self.open_sends.items() if may_send(send) and untried(send)]


async def look(desk: Desk, account: str, *also: str, tongue: Tongue = Tongue.COMMANDS) -> View:
    """With the sends that have not ended, and those named beside. Raises nothing for an unknown account: its fields are empty then."""
    return await _view(desk, account, await desk.open_campaigns(account), also, tongue)


async def look_at_all(desk: Desk, account: str, tongue: Tongue = Tongue.COMMANDS) -> View:
    """With every send that the account ever had: as many as there are."""
    return await _view(desk, account, await desk.campaigns(account), (), tongue)


async def _view(desk: Desk, account: str, ids: Sequence[str], also: Sequence[str], tongue: Tongue) -> View:
    fields, line, now_us, workers = await asyncio.gather(desk.account(account), desk.line(account), desk.now_us(), desk.workers())
    ids = list(dict.fromkeys([*ids, *also]))
    sends: dict[str, Mapping[str, str]] = {}
    for start in range(0, len(ids), _READ_AT_ONCE):
        some = ids[start : start + _READ_AT_ONCE]
        sends |= zip(some, await asyncio.gather(*(desk.campaign(account, campaign) for campaign in some)), strict=True)
    known = {campaign: send for campaign, send in sends.items() if "state" in send}
    lessees = await desk.lessees(account) if any(map(is_silent, workers.values())) else set()
    home = fields if owner(account) == account else await desk.account(owner(account))
    is_short = any("lacks" in send and send["state"] not in ENDED for send in known.values())
    free = balance(await desk.lots(account), Home.of(home), now_us).free if is_short else None
    return View(account, fields, known, line, now_us / 1e6, workers, lessees, home, tongue, free)


def is_silent(worker: Heard) -> bool:
    return worker.age is None or worker.age >= SILENT_AFTER


def number(fields: Mapping[str, str], name: str) -> int:
    return int(float(fields.get(name) or 0))


def moment(fields: Mapping[str, str], name: str) -> datetime | None:
    """A time kept in µs; 0 means that it never came."""
    micros = float(fields.get(name) or 0)
    return wall(micros / 1e6) if micros else None


def wall(seconds: float) -> datetime:
    """What would take longer than the calendar lasts ends with it: a hundred million at one an hour."""
    return datetime.fromtimestamp(min(seconds, LAST), UTC)


def pending(send: Mapping[str, str]) -> int:
    return number(send, "accepted") - sum(number(send, name) for name in COUNTS)


def untried(send: Mapping[str, str]) -> int:
    """Those whose first try is to come; what was set aside waits for a person."""
    return max(0, number(send, "accepted") - number(send, "tried") - number(send, "quarantined"))


def is_loading(send: Mapping[str, str]) -> bool:
    return send.get("sealed") != "1"


def may_send(send: Mapping[str, str]) -> bool:
    return send["state"] == "sending" and not waits_for_seal(send) and send.get("open") != "0"


def waits_for_seal(send: Mapping[str, str]) -> bool:
    return is_loading(send) and (send.get("need_seal") == "1" or send.get("reversed") == "1")


def rate_achieved(send: Mapping[str, str], now: float) -> float | None:
    """Messages per hour over the last 10 s or 8 messages; 0 when it has gone quiet, None before there is as much to tell from.
    Of a send that has ended the average over all of it."""
    if send["state"] in ENDED:
        return _average(send)
    samples = _samples(send)
    if not samples:
        return None
    if len(samples) < _KEPT_SAMPLES and send.get("first_mail"):
        samples.insert(0, (float(send["first_mail"]), 1.0))
    last_at, last_n = samples[-1]
    base_at, base_n = samples[0]
    for at, n in samples:
        if last_at - at >= _RATE_SECONDS * 1e6 and last_n - n >= _RATE_MESSAGES:
            base_at, base_n = at, n
    if not _tells(last_n - base_n, (last_at - base_at) / 1e6):
        return None
    per_second: float = (last_n - base_n) / (last_at - base_at) * 1e6
    if now - last_at / 1e6 > max(_RATE_SECONDS, _SETTLE_LAG + 3 / per_second):
        return 0.0
    return per_second * 3600


def _samples(send: Mapping[str, str]) -> list[tuple[float, float]]:
    """(MAIL µs, messages from the first one to there), the oldest first."""
    return list(_SAMPLE.iter_unpack(send.get("recent", "").encode("utf-8", "surrogateescape")))


def _average(send: Mapping[str, str]) -> float | None:
    """What was refused is in it: each of them was on the wire, and used a permit."""
    span = float(send.get("last_mail") or 0) - float(send.get("first_mail") or 0)
    samples = _samples(send)
    intervals = samples[-1][1] - 1 if samples else 0
    return intervals / span * 3.6e9 if _tells(intervals, span / 1e6) else None


def _tells(intervals: float, seconds: float) -> bool:
    """Enough to tell a rate from: two messages within a moment say nothing."""
    return seconds > 0 and intervals > 0 and (seconds >= _RATE_SECONDS or intervals >= _RATE_MESSAGES)


def jobs(view: View) -> dict[str, Job]:
    """All that the account has to do, as the estimate sees it."""
    return {campaign: _job(view, campaign, send) for campaign, send in view.open_sends.items()}


def passes_term(view: View, estimate: float | None) -> bool:
    """Whether what will be through then goes beyond the end of the account's term: the rest of it is held from there on."""
    term = term_of(view.fields)
    return estimate is not None and term is not None and term.ends is not None and estimate >= term.ends


def finish_estimate(view: View, campaign: str) -> float | None:
    """When the send will be through; None when it is, or while nobody can tell (paused, what waits behind it in the line, held, its list
    has no end yet).
    Without a worker, as if one ran; beyond the end of the term, as if that were renewed. Single messages have no end."""
    send = view.sends[campaign]
    if campaign == TRANSACTIONAL or is_loading(send) or view.shut is not None:
        return None
    if send["state"] in (*ENDED, "paused") or send.get("through"):
        return None
    todo = jobs(view)
    achieved = sum(rate_achieved(view.sends[other], view.now) or 0.0 for other in view.running)
    is_short = view.fields.get("bind", "").startswith("connections")  # then it goes on as it goes now
    rate = achieved if view.rate is None or (is_short and achieved) else view.rate
    found = estimate(_counted_at(view, rate), rate or None, list(todo.values()), list(todo).index(campaign), view.changes)
    return None if found is None else max(found, view.now)


def _counted_at(view: View, rate: float) -> float:
    """The time for which the counts hold: they lag behind the wire, and come with the time of the last MAIL in them."""
    last = max((float(view.sends[campaign].get("last_mail") or 0) / 1e6 for campaign in view.running), default=0.0)
    interval = 3600 / rate if rate else 0.0
    return last + interval if view.now - last <= _SETTLE_LAG + interval else view.now


def _job(view: View, campaign: str, send: Mapping[str, str]) -> Job:
    return Job(
        remaining=untried(send),
        starts_at=float(send.get("at") or 0) / 1e6,
        sequential_rank=view.line.index(campaign) if campaign in view.line else None,
        window=Window.parse(send["window"]) if send.get("window") else None,
        paused=send["state"] == "paused",
    )
