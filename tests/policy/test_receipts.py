"""What receipts and answers say, and how fast a provider is sent to that complains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.policy.receipts import answer, receipt
from sendengine.policy.replies import ReplyRules
from sendengine.policy.slowing import Slowing
from sendengine.policy.verdict import Action, Scope, SendPolicy, judge
from sendengine.types import Attempt, Fault, Receipt, Stage

STANDARD = "id:77f3 sub:001 dlvrd:001 submit date:2601011200 done date:2601011201 stat:DELIVRD err:000 text:Hello id:fake stat:EXPIRED"


@pytest.mark.parametrize(
    ("text", "message_id", "state", "found"),
    [
        (STANDARD, "", None, Receipt("77f3", "DELIVRD", "000")),
        ("ID:abc STAT:undeliv ERR:0a1", "", None, Receipt("abc", "UNDELIV", "0a1")),
        ("stat:EXPIRED id: 12-34", "", None, Receipt("12-34", "EXPIRED", "")),
        (STANDARD, "own", None, Receipt("own", "DELIVRD", "000")),
        ("", "own", 5, Receipt("own", "UNDELIV", "")),
        ("id:1 stat:DELIVRD", "", 8, Receipt("1", "REJECTD", "")),
        ("", "own", 99, Receipt("own", "UNKNOWN", "")),
        ("id:1 stat:ENROUTE err:000", "", None, None),
        ("", "own", 6, None),
        ("hello", "", None, None),
        ("id:1", "", None, None),
        ("stat:DELIVRD", "", None, None),
        ("id:" + "x" * 65 + " stat:DELIVRD", "", None, None),
        ("id:a\x00b stat:DELIVRD", "", None, None),
        ("id:1 stat:" + "D" * 17, "", None, None),
    ],
)
def test_receipt_is_read_whatever_its_order_and_case(text: str, message_id: str, state: int | None, found: Receipt | None) -> None:
    assert receipt(text, message_id, state) == found


@given(st.text(max_size=300), st.text(max_size=70), st.one_of(st.none(), st.integers(0, 255)))
def test_receipt_of_anything_is_a_receipt_or_nothing(text: str, message_id: str, state: int | None) -> None:
    found = receipt(text, message_id, state)
    assert found is None or (found.message_id.isprintable() and " " not in found.message_id and len(found.state) <= 16)


@pytest.mark.parametrize(
    ("status", "action", "scope"),
    [
        (0x0B, Action.BOUNCED, Scope.RECIPIENT),
        (0x45, Action.BOUNCED, Scope.RECIPIENT),
        (0x66, Action.BOUNCED, Scope.RECIPIENT),
        (0x0A, Action.BOUNCED, Scope.MESSAGE),
        (0x01, Action.BOUNCED, Scope.MESSAGE),
        (0x08, Action.DEFERRED, Scope.MESSAGE),
        (0x64, Action.DEFERRED, Scope.MESSAGE),
        (0x400, Action.DEFERRED, Scope.MESSAGE),
        (0xFFFFFFFF, Action.DEFERRED, Scope.MESSAGE),
    ],
)
def test_answer_is_judged_as_the_failure_table_says(status: int, action: Action, scope: Scope) -> None:
    stage, reply = answer(status)
    found = judge(Attempt(stage, reply, None, 1.0, 2.0), 0, 0.0, SendPolicy(), ReplyRules([]))
    assert (found.action, found.scope, found.spends_try) == (action, scope, True)
    assert f"{status:#04x}" in reply.text


def test_throttled_message_spends_no_try_and_goes_again_at_once() -> None:
    found = judge(Attempt(Stage.MAIL, None, Fault.THROTTLED, 1.0, 2.0), 3, 1e9, SendPolicy(), ReplyRules([]))
    assert (found.action, found.spends_try) == (Action.RETURNED, False)


class Pump:
    """Sends as fast as the pace allows, to a peer that complains above `limit` a second."""

    def __init__(self, limit: float, rate: float = 0.0) -> None:
        self.pace, self.limit, self.now = Slowing(rate), limit, 100.0
        self._allowance, self._at = limit, self.now
        self.taken, self.refused = 0, 0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            wait = self.pace.wait(self.now)
            self.now += max(wait, 0.0005)
            if self.pace.wait(self.now) > 0:
                continue
            self._allowance = min(self.limit, self._allowance + (self.now - self._at) * self.limit)
            self._at = self.now
            self.pace.sent(self.now)
            if self._allowance >= 1:
                self._allowance -= 1
                self.taken += 1
            else:
                self.refused += 1
                self.pace.throttled(self.now)


def test_provider_that_complains_is_sent_to_near_its_limit_with_few_refusals() -> None:
    pump = Pump(limit=50.0)
    pump.run(60.0)
    assert 0.4 * 50 * 60 <= pump.taken <= 50 * 61
    assert pump.refused < 0.05 * pump.taken


def test_provider_that_does_not_complain_is_not_held_up() -> None:
    pump = Pump(limit=1e9)
    pump.run(1.0)
    assert pump.taken == 2000
    assert pump.pace.wait(pump.now) == 0.0


def test_own_rate_of_a_provider_is_kept() -> None:
    pump = Pump(limit=1e9, rate=100.0)
    pump.run(10.0)
    assert 990 <= pump.taken <= 1003


@pytest.mark.parametrize("workers", [(4,), (1, 4), (4, 1, 4)])
def test_worker_keeps_to_its_part_of_a_providers_rate(workers: tuple[int, ...]) -> None:
    pump = Pump(limit=1e9, rate=100.0)
    for n in workers:
        pump.pace.share(n)
    pump.run(10.0)
    assert 247 <= pump.taken <= 253


def test_part_that_grows_is_no_end_of_a_complaint() -> None:
    pump = Pump(limit=20.0, rate=100.0)
    pump.pace.share(2)
    pump.run(10.0)
    pump.pace.share(1)
    pump.run(50.0)
    assert pump.refused < 0.08 * pump.taken


def test_pace_is_free_again_after_the_complaint() -> None:
    pump = Pump(limit=50.0)
    pump.run(5.0)
    pump.limit = pump._allowance = 1e9
    pump.run(30.0)
    assert not pump.pace.is_slowed
