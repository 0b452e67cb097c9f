"""The engine's settings, in seconds and counts; config.py fills them from the configuration file."""

from __future__ import annotations

import msgspec

from sendengine.policy.health import Thresholds
from sendengine.policy.suppression import Limits


class EngineSettings(msgspec.Struct, frozen=True):
    tick: float = 0.020  # one append and one look at what falls due
    lead: float = 0.006  # an intent is journalled at least this long before it is due
    journal_intents: int = 64  # unmetered work is journalled when this many are picked
    max_doubtful: int = 512  # W, hard: no new intents while so many have no journalled outcome
    append_fresh: float = 0.200  # bytes go only while the append's answer is younger
    settle_after: float = 5.0  # an outcome reaches the account no later
    horizon_permits: int = 12  # the three are one for all workers: who asks further ahead leaves the others nothing
    horizon_min: float = 1.0
    horizon_max: float = 6.5  # a visit a second ahead brings five seconds' worth, and takes along what may be five seconds old
    lease: float = 2.0  # seconds of work to hold, at the present rate
    unmetered_rows: int = 8000  # rows to hold of a campaign without a rate
    poll: float = 0.050  # an idle worker reads inbox and index
    beat: float = 1.0  # an empty append when nothing else is written
    dead_after: float = 10.0
    sweep_every: float = 60.0
    purges_every: float = 3600.0
    health: Thresholds = Thresholds()  # when an account is held by itself; off
    health_every: float = 60.0
    spread_above: float = 1000.0  # messages per second above which an account is offered to further workers
    max_accounts_found: int = 64  # taken out of the index per poll
    retain: float = 10.0  # journal records outlive their settlement
    carry_after: float = 15.0  # an intent open for longer is journalled anew, so that what follows it can be trimmed
    appends_in_flight: int = 8
    shutdown: float = 30.0  # what is on the wire at a warm stop gets so long
    waits_for_replica: bool = False  # what the queue acknowledges, a replica has (said, not done, here)
    require_durable: bool = False
    limits: Limits = Limits()  # soft bounces in a row that put an address on its account's list
    no_answer: float = 10.0  # an append unanswered for so long: the connection is given up
