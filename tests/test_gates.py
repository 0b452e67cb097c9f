"""The proofs of the account's side (benchmarks/gates), small: real processes, and the relay as the witness.

What is asserted is what no busy machine excuses: bounds of a second, ceilings, and that nobody is lost and nobody gets two. Rates to a
percent are the suite's, and those of virtual time (tests/engine/test_gate.py, tests/sms/test_lanes.py).
"""

from __future__ import annotations

import math

import pytest

from benchmarks.gates import cancelled, changes, channels, grace, neighbour, purge, rejected
from benchmarks.gates.scene import WITHIN

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("processes", [1, 2, 4])
async def test_change_in_mid_send_is_in_force_within_a_second(processes: int) -> None:
    found = await changes.measure(processes, 2.5)
    assert found.workers > 1 or processes == 1
    assert {what: late for what, late in found.late.items() if what not in found.turned and late > WITHIN} == {}
    assert {what: after for what, after in found.resumed.items() if after > WITHIN} == {}
    assert {what: worst for what, worst in found.excess.items() if worst > 0} == {}
    is_faster = {what: ratio > 1 for what, ratio in found.turned.items() if abs(math.log2(ratio)) > 0.5}  # nearer to the new rate
    assert is_faster == {"faster tier, event": True, "slower tier, event": False, "boost, event": True, "end of the boost": False}
    assert found.is_whole, found.whole


async def test_cancelled_account_sends_to_the_second_its_term_ends_and_is_held_then() -> None:
    found = await cancelled.measure(3.0)
    assert found.phases == ("cancelled_active", "grace")
    assert abs(found.last) <= WITHIN
    assert found.excess <= 0
    assert (found.state, found.binding, found.failed) == ("sending", "term", 0)
    assert found.pending > 0


async def test_renewal_in_the_last_second_of_grace_resumes_and_one_behind_it_is_refused_and_purged() -> None:
    found = await grace.measure(120)
    assert found.asked >= 0
    assert found.resumed <= WITHIN  # below 0: the script had renewed it, and its caller was not told yet
    assert found.whole.is_whole
    assert found.excess <= 0
    assert (found.event, found.came, found.purged) == ("refused", 0, True)
    assert "its grace ended" in found.verb


async def test_purge_of_an_account_with_everything_killed_at_its_steps_and_run_again_completes() -> None:
    found = await purge.measure(9)
    assert found.missing == []
    assert found.kills >= 10
    assert (found.incomplete, found.left, found.touched, found.trails) == (0, [], 0, 0)


async def test_neighbour_sends_on_while_a_large_account_is_purged() -> None:
    found = await neighbour.measure(20_000, 1.5, 72_000)
    assert found.left == 0
    assert found.gaps["while"] <= WITHIN
    assert found.excess <= 0


async def test_hold_stops_mail_and_sms_within_a_second_and_its_lifting_resumes_both() -> None:
    found = await channels.measure(2.5, 72_000, 36_000)
    assert max(found.late.values()) <= WITHIN
    assert max(found.resumed.values()) <= WITHIN
    assert max(found.excess.values()) <= 0
    assert found.whole.is_whole
    assert (found.sms_lost, found.sms_twice) == (0, 0)


async def test_sms_that_the_provider_rejects_are_charged() -> None:
    found = await rejected.measure(100)
    assert (found.sent, found.bounced) == (found.taken, found.rejected) == (70, 30)
    assert (found.before - found.after, found.reserved, found.findings) == (100 * found.price, 0, 0)
