"""Workers that break at a named step. `make chaos` goes through every step and action with many seeds."""

from __future__ import annotations

import pytest

from tests.failures.failpoints import Failpoint, parse
from tests.failures.faulty import cuts
from tests.failures.process_faults import failpoints, failpoints_of
from tests.failures.test_processes import holds

pytestmark = pytest.mark.timeout(240)


SOME = {
    "raise": ("after_take", "after_visit", "after_settle", "mid_body", "after_reply"),  # the answer was lost, what was asked was done
    "stall": ("after_append", "mid_body"),
    "bug": ("after_reply", "before_settle"),
}


async def test_killed_at_each_step_and_broken_otherwise_at_some() -> None:
    others = [point for action, steps in SOME.items() for point in failpoints_of(1, (action,)) if point.step in steps]
    assert holds(await failpoints(1, failpoints_of(1, ("kill",)) + others, at_once=5))


def test_failpoint_is_read_as_it_is_written() -> None:
    assert parse("before_append=kill@37") == Failpoint("before_append", "kill", 37)
    with pytest.raises(ValueError, match="no failpoint"):
        parse("before_lunch=kill")


def test_a_write_is_cut_where_its_parts_end() -> None:
    envelope = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
    data = b"S: x\r\n\r\nhello\r\n.\r\n" + envelope
    parts = {step: data[:end] for step, end in cuts(data)}
    assert parts["mid_body"] == data[:6]
    assert parts["before_dot"].endswith(b"hello\r\n")
    assert parts["after_dot"].endswith(b"\r\n.\r\n")
    assert parts["after_mail"].endswith(b"MAIL FROM:<a@x>\r\n")
    chunk = b"BDAT 12 LAST\r\nS: x\r\n\r\nhi\r\n"
    assert {step: chunk[:end] for step, end in cuts(chunk)}["before_dot"].endswith(b"hi")
