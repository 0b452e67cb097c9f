"""The failure table: a row for each of its lines, and what must hold for whatever a peer does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import ConfigError
from sendengine.policy.replies import parse_rules
from sendengine.policy.verdict import Action, Scope, SendPolicy, Verdict, judge
from sendengine.types import Attempt, Fault, Reply, Stage

RULES = parse_rules((Path(__file__).parents[2] / "config" / "replies.toml").read_text())
POLICY = SendPolicy(lifetime=1000.0)
TRY, NO_TRY = True, False
LATE = 1000.0


def replied(stage: Stage, text: str) -> Attempt:
    code, _, rest = text.partition(" ")
    enhanced, _, words = rest.partition(" ") if rest[1:2] == "." else ("", "", rest)
    return Attempt(stage, Reply(int(code), enhanced, words), None, 1.0, 2.0)


def failed(stage: Stage, fault: Fault) -> Attempt:
    return Attempt(stage, None, fault, 1.0, 2.0)


def judged(attempt: Attempt, age: float = 0.0) -> Verdict:
    return judge(attempt, 3, age, POLICY, RULES)


@pytest.mark.parametrize(
    ("attempt", "action", "scope", "spends", "suspend"),
    [
        (replied(Stage.DOT, "250 2.0.0 ok"), Action.SENT, Scope.RECIPIENT, TRY, 0),
        (failed(Stage.MAIL, Fault.STALE), Action.RETURNED, Scope.SESSION, NO_TRY, 0),
        (failed(Stage.MAIL, Fault.UNSUITABLE), Action.RETURNED, Scope.SESSION, NO_TRY, 0),
        (replied(Stage.RCPT, "550 5.1.1 unknown"), Action.BOUNCED, Scope.RECIPIENT, TRY, 0),
        (replied(Stage.RCPT, "450 4.2.2 full"), Action.DEFERRED, Scope.RECIPIENT, TRY, 0),
        (replied(Stage.DOT, "554 5.6.0 content"), Action.BOUNCED, Scope.MESSAGE, TRY, 0),
        (replied(Stage.DOT, "451 4.3.0 later"), Action.DEFERRED, Scope.MESSAGE, TRY, 0),
        (replied(Stage.DOT, "421 4.3.2 bye"), Action.DEFERRED, Scope.MESSAGE, TRY, 0),
        (replied(Stage.MAIL, "451 4.3.0 later"), Action.DEFERRED, Scope.ACCOUNT_RELAY, NO_TRY, 60),
        (replied(Stage.MAIL, "550 5.7.1 no"), Action.DEFERRED, Scope.ACCOUNT_RELAY, NO_TRY, 60),
        (replied(Stage.DATA, "451 4.3.0 later"), Action.DEFERRED, Scope.ACCOUNT_RELAY, NO_TRY, 60),
        (replied(Stage.DATA, "554 5.3.0 no"), Action.DEFERRED, Scope.ACCOUNT_RELAY, NO_TRY, 60),
        (replied(Stage.MAIL, "552 5.3.4 too big"), Action.DEFERRED, Scope.MESSAGE, TRY, 0),
        (replied(Stage.RCPT, "554 5.7.1 blocked using zen.spamhaus.org"), Action.DEFERRED, Scope.ACCOUNT_SITE, NO_TRY, 3600),
        (replied(Stage.MAIL, "451 4.7.1 rate exceeded"), Action.DEFERRED, Scope.ACCOUNT_SITE, NO_TRY, 5),
        (replied(Stage.MAIL, "421 4.7.0 [TSS04] Messages from 192.0.2.1"), Action.DEFERRED, Scope.ACCOUNT_SITE, NO_TRY, 900),
        *((failed(stage, fault), Action.DEFERRED, Scope.SITE, NO_TRY, 0)
          for stage in (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS)
          for fault in (Fault.REFUSED, Fault.TIMEOUT, Fault.DISCONNECTED, Fault.TLS, Fault.PROTOCOL)),
        *((replied(stage, text), Action.DEFERRED, Scope.SITE, NO_TRY, 0)
          for stage in (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS) for text in ("421 4.3.2 x", "451 x", "554 x")),
        *((replied(stage, "421 4.3.2 bye"), Action.DEFERRED, Scope.SITE, NO_TRY, 0)
          for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY)),
        (replied(Stage.AUTH, "535 5.7.8 wrong"), Action.DEFERRED, Scope.ACCOUNT_RELAY, NO_TRY, math.inf),
        (failed(Stage.AUTH, Fault.REFUSED), Action.DEFERRED, Scope.ACCOUNT_RELAY, NO_TRY, math.inf),
        (replied(Stage.AUTH, "454 4.7.0 later"), Action.DEFERRED, Scope.SITE, NO_TRY, 0),
        *((failed(stage, fault), Action.DEFERRED, Scope.RECIPIENT, TRY, 0)
          for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY)
          for fault in (Fault.TIMEOUT, Fault.DISCONNECTED)),
        *((failed(Stage.DOT, fault), Action.DOUBTFUL, Scope.RECIPIENT, TRY, 0)
          for fault in (Fault.TIMEOUT, Fault.DISCONNECTED, Fault.PROTOCOL)),
        (failed(Stage.RCPT, Fault.PROTOCOL), Action.DEFERRED, Scope.RECIPIENT, TRY, 0),
    ],
)  # fmt: skip
def test_row(attempt: Attempt, action: Action, scope: Scope, spends: bool, suspend: float) -> None:
    verdict = judged(attempt)
    assert (verdict.action, verdict.scope, verdict.spends_try, verdict.suspend_s) == (action, scope, spends, suspend)


def test_a_delivery_past_its_lifetime_expires() -> None:
    verdict = judged(replied(Stage.RCPT, "450 4.2.2 full"), LATE)
    assert (verdict.action, verdict.status) == (Action.EXPIRED, "4.4.7")


def test_an_expiry_still_leaves_the_relay_alone() -> None:
    verdict = judged(replied(Stage.MAIL, "451 4.3.0 later"), LATE)
    assert (verdict.action, verdict.scope, verdict.suspend_s) == (Action.EXPIRED, Scope.ACCOUNT_RELAY, 60.0)


@pytest.mark.parametrize(
    ("attempt", "status"),
    [
        (replied(Stage.RCPT, "550 5.1.1 x"), "5.1.1"),
        (replied(Stage.RCPT, "550 x"), "5.0.0"),
        (replied(Stage.DOT, "250 x"), "2.0.0"),
        (failed(Stage.DOT, Fault.TIMEOUT), "4.4.2"),
        (failed(Stage.CONNECT, Fault.REFUSED), "4.4.1"),
    ],
)
def test_status(attempt: Attempt, status: str) -> None:
    assert judged(attempt).status == status


CODES = st.one_of(st.integers(200, 299), st.integers(400, 599))  # a session takes 354 for itself
REPLIES = st.builds(
    Reply, CODES, st.sampled_from(["", "5.1.1", "4.7.28", "5.3.4"]), st.text(max_size=20)
)
ATTEMPTS = st.one_of(
    st.builds(lambda stage, reply: Attempt(stage, reply, None, 1.0, 2.0), st.sampled_from(Stage), REPLIES),
    st.builds(failed, st.sampled_from(Stage), st.sampled_from(Fault)),
)


@given(ATTEMPTS, st.floats(0, 2000))
def test_what_must_hold_for_any_attempt(attempt: Attempt, age: float) -> None:
    verdict = judged(attempt, age)
    is_acceptance = attempt.stage is Stage.DOT and attempt.reply is not None and attempt.reply.code < 300
    assert (verdict.action is Action.SENT) == is_acceptance
    if verdict.action is Action.BOUNCED:
        assert attempt.reply is not None
        assert attempt.reply.code >= 500
        assert attempt.stage in (Stage.RCPT, Stage.DOT)
    if verdict.action is Action.DOUBTFUL:
        assert attempt.stage is Stage.DOT
        assert attempt.reply is None
    if verdict.suspend_s:
        assert not verdict.spends_try


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 <bob@example.org>: Recipient address rejected: User unknown in virtual mailbox table",
        "452 4.2.2 The email account that you tried to reach is over quota",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages",
        "554 5.7.1 message content rejected",
        "552 5.3.4 Message size exceeds fixed limit",
        "450 4.2.0 Recipient address rejected: Greylisted",
        "550 5.2.1 The email account that you tried to reach is disabled",
    ],
)
def test_what_concerns_the_recipient_is_no_rate_limit(text: str) -> None:
    assert judged(replied(Stage.RCPT, text)).scope is Scope.RECIPIENT


@pytest.mark.parametrize(
    "text",
    [
        "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address",
        "550 5.7.26 This mail is unauthenticated, which poses a security risk to the sender and Gmail users",
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation",
        "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. part of their network is on our block list (S3140)",
        "454 Throttling failure: Maximum sending rate exceeded.",
        "450 4.7.1 Error: too much mail from 192.0.2.1",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.example.org",
        "554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1",
        "550 5.4.5 Daily user sending limit exceeded",
    ],
)
def test_what_concerns_the_sender_bounces_nobody(text: str) -> None:
    verdict = judged(replied(Stage.RCPT, text))
    assert (verdict.action, verdict.scope) == (Action.DEFERRED, Scope.ACCOUNT_SITE)
    assert verdict.rule


@pytest.mark.parametrize(
    "text", ["[[rule]]\nname='x'\npattern='('\nsuspend_s=1", "[[rule]]\nname='x'", "[[rule]]\nname=1\nx=2", "oops", "x=1"]
)
def test_rules_that_are_off_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"replies\.toml"):
        parse_rules(text)
