"""What an attempt means: the failure table. The only place that says so.

Pure. Two words: a *permit* (rate) was spent when MAIL was written; a *try* counts for the retry schedule. Only RCPT 5xx
and a 5xx answer to the message itself bounce a recipient; trouble between a relay and us never does.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from sendengine.policy.replies import ReplyRules
from sendengine.types import Attempt, Fault, Reply, Stage

RELAY_REFUSES_S = 60.0  # doubled for each refusal in a row (policy/retry.py, suspension)


class Action(StrEnum):
    SENT = "sent"
    BOUNCED = "bounced"
    DEFERRED = "deferred"
    DOUBTFUL = "doubtful"  # possibly sent: the send's on_doubt decides
    EXPIRED = "expired"
    RETURNED = "returned"  # not attempted: sent again at once, on a new permit


class Scope(StrEnum):
    """Whom the trouble concerns: what to leave alone, and what to count it for."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SITE = "site"
    ACCOUNT_SITE = "account at site"
    ACCOUNT_RELAY = "account at relay"
    SESSION = "session"


class SendPolicy(msgspec.Struct, frozen=True):
    lifetime: float = 86400.0  # seconds from the first MAIL; time spent waiting for us or for the relay does not count


class Verdict(msgspec.Struct, frozen=True, gc=False):
    action: Action
    scope: Scope
    spends_try: bool
    status: str  # RFC 3463
    suspend_s: float = 0.0  # leave the scope alone so long; inf: until an operator resumes it
    rule: str = ""  # the name of the reply rule that decided


class Event(StrEnum):
    """What ended the attempt, as the table names it."""

    OK = "2xx"
    REFUSED_FOR_NOW = "4xx"
    REFUSED = "5xx"
    LEAVING = "421"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    STALE = "stale"
    THROTTLED = "throttled"
    UNSUITABLE = "unsuitable"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    PROTOCOL = "protocol"


_Row = tuple[Action, Scope, bool, float]

_LOST = (Event.TIMEOUT, Event.DISCONNECTED)
_BEFORE_MAIL = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
_BEFORE_END = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY)

_DEFERRED: _Row = (Action.DEFERRED, Scope.RECIPIENT, True, 0.0)  # also whatever nobody can classify
_OURS: _Row = (Action.DEFERRED, Scope.SITE, False, 0.0)
_RELAY_REFUSES: _Row = (Action.DEFERRED, Scope.ACCOUNT_RELAY, False, RELAY_REFUSES_S)
_AUTH_REFUSED: _Row = (Action.DEFERRED, Scope.ACCOUNT_RELAY, False, math.inf)
_DOUBTFUL: _Row = (Action.DOUBTFUL, Scope.RECIPIENT, True, 0.0)
_AGAIN: _Row = (Action.RETURNED, Scope.SESSION, False, 0.0)
_TOO_LARGE: _Row = (Action.DEFERRED, Scope.MESSAGE, True, 0.0)

_TABLE: dict[tuple[Stage, Event], _Row] = {
    **{(stage, event): _OURS for stage in _BEFORE_MAIL for event in Event},
    (Stage.AUTH, Event.REFUSED): _AUTH_REFUSED,
    (Stage.AUTH, Event.UNREACHABLE): _AUTH_REFUSED,  # no mechanism that we know
    **{(stage, Event.LEAVING): _OURS for stage in _BEFORE_END},
    **{(stage, event): _DEFERRED for stage in _BEFORE_END for event in _LOST},
    (Stage.MAIL, Event.STALE): _AGAIN,
    (Stage.MAIL, Event.UNSUITABLE): _AGAIN,
    (Stage.MAIL, Event.THROTTLED): _AGAIN,  # the site goes slower; who was asked for had no try
    (Stage.MAIL, Event.REFUSED_FOR_NOW): _RELAY_REFUSES,
    (Stage.MAIL, Event.REFUSED): _RELAY_REFUSES,
    (Stage.RCPT, Event.REFUSED_FOR_NOW): _DEFERRED,
    (Stage.RCPT, Event.REFUSED): (Action.BOUNCED, Scope.RECIPIENT, True, 0.0),
    (Stage.DATA, Event.REFUSED_FOR_NOW): _RELAY_REFUSES,
    (Stage.DATA, Event.REFUSED): _RELAY_REFUSES,
    (Stage.DOT, Event.OK): (Action.SENT, Scope.RECIPIENT, True, 0.0),
    (Stage.DOT, Event.REFUSED_FOR_NOW): (Action.DEFERRED, Scope.MESSAGE, True, 0.0),
    (Stage.DOT, Event.LEAVING): (Action.DEFERRED, Scope.MESSAGE, True, 0.0),
    (Stage.DOT, Event.REFUSED): (Action.BOUNCED, Scope.MESSAGE, True, 0.0),
    **{(Stage.DOT, event): _DOUBTFUL for event in (*_LOST, Event.PROTOCOL)},
}

_FAULTS = {
    # RFC 3463: 4.4.1 no answer, 4.4.2 bad connection, 4.5.0 protocol, 4.6.3 conversion needed, 4.7.5 cryptography
    Fault.TIMEOUT: (Event.TIMEOUT, "4.4.2"),
    Fault.DISCONNECTED: (Event.DISCONNECTED, "4.4.2"),
    Fault.STALE: (Event.STALE, "4.4.2"),
    Fault.REFUSED: (Event.UNREACHABLE, "4.4.1"),
    Fault.TLS: (Event.TLS, "4.7.5"),
    Fault.PROTOCOL: (Event.PROTOCOL, "4.5.0"),
    Fault.THROTTLED: (Event.THROTTLED, "4.3.2"),
    Fault.UNSUITABLE: (Event.UNSUITABLE, "4.6.3"),
}

_SENT: dict[str, Verdict] = {}  # one value per status: nearly every verdict is one of these
_SENT_MOST = 256  # a relay may make up statuses


def judge(attempt: Attempt, tries: int, age: float, policy: SendPolicy, rules: ReplyRules) -> Verdict:
    """The verdict on an attempt. `tries` were spent before it (no limit stands on them: the lifetime ends a delivery);
    `age` is seconds since the delivery's first MAIL, without the time that does not count."""
    reply = attempt.reply
    if reply is not None and attempt.stage is Stage.DOT and 200 <= reply.code < 300:
        return _sent(reply)
    verdict = _by_rule(attempt.stage, reply, rules) or _by_table(attempt)
    if verdict.action is Action.DEFERRED and age >= policy.lifetime:
        # The scope stays: a relay that refuses us is left alone whether or not this delivery goes on.
        return msgspec.structs.replace(verdict, action=Action.EXPIRED, spends_try=False, status="4.4.7")
    return verdict


def _sent(reply: Reply) -> Verdict:
    status = _status(reply)
    if status not in _SENT:
        if len(_SENT) >= _SENT_MOST:
            _SENT.clear()
        action, scope, spends_try, _ = _TABLE[Stage.DOT, Event.OK]
        _SENT[status] = Verdict(action, scope, spends_try, status)
    return _SENT[status]


def _by_rule(stage: Stage, reply: Reply | None, rules: ReplyRules) -> Verdict | None:
    if reply is None or stage < Stage.MAIL:
        return None
    rule = rules.match(reply)
    if rule is None:
        return None
    return Verdict(Action.DEFERRED, Scope.ACCOUNT_SITE, False, _status(reply), rule.suspend_s, rule.name)


def _by_table(attempt: Attempt) -> Verdict:
    reply = attempt.reply
    if reply is not None:
        event, status = _event(reply), _status(reply)
    else:
        assert attempt.fault is not None
        event, status = _FAULTS[attempt.fault]
    row = _TABLE.get((attempt.stage, event), _DEFERRED)
    if attempt.stage is Stage.MAIL and reply is not None and _is_about_size(reply):
        row = _TOO_LARGE
    action, scope, spends_try, suspend_s = row
    return Verdict(action, scope, spends_try, status, suspend_s)


def _event(reply: Reply) -> Event:
    if reply.code == 421:
        return Event.LEAVING
    return {2: Event.OK, 4: Event.REFUSED_FOR_NOW, 5: Event.REFUSED}.get(reply.code // 100, Event.PROTOCOL)


def _is_about_size(reply: Reply) -> bool:
    """RFC 1870 6.1: MAIL is refused for the size it announces. That is one message's trouble, not the account's."""
    return reply.code == 552 or reply.enhanced[1:] in (".3.4", ".2.3")


def _status(reply: Reply) -> str:
    return reply.enhanced or f"{reply.code // 100}.0.0"
