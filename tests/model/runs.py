"""The protocol's models, run by spin: every rule holds, and each rule left out has its counter-example.

    python -m tests.model.runs                  all runs, a line each; exit 1 when one is not as expected
    python -m tests.model.runs NAME...          these
    python -m tests.model.runs --trail NAME     the counter-example of one, step by step

An `ok` run must search all states and find no error; a `no` run leaves a rule out and must find one. A search that was cut off says so
("INCOMPLETE"): it is no proof, and counts as failed. Needs spin and a C compiler.
"""

from __future__ import annotations

import signal
import sys
import time

from tests.model.spin import Run, check, missing, trail

INDEX = [
    Run("ok_index", "SWEEP=0", "index", is_quick=True),
    Run("ok_index_workers_die", "WORKER_DIES=1 CALLER_DIES=0 VERBS=0", "index"),
    Run("ok_index_all_die", "WORKER_DIES=1 VERBS=0", "index"),
    Run("ok_index_workers_die_verbs", "WORKER_DIES=1 CALLER_DIES=0", "index"),
    Run("ok_index_two_workers_die", "WORKER_DIES=2 CALLER_DIES=0 VERBS=0", "index"),
    Run("no_TAKE_OUT_FIRST", "TAKE_OUT_FIRST=0 SWEEP=0", "index", is_quick=True),
    Run("no_INDEX_AFTER", "INDEX_AFTER=0 SWEEP=0", "index", is_quick=True),
    Run("no_REPEAT_INDEXES", "REPEAT_INDEXES=0 SWEEP=0", "index", is_quick=True),
    Run("no_LAST_LOOK", "LAST_LOOK=0 SWEEP=0", "index", is_quick=True),
    Run("no_ATTACHED_IS_LEASE", "ATTACHED_IS_LEASE=0 SWEEP=0", "index", is_quick=True),
    Run("no_INDEX_BEFORE_BURY", "INDEX_BEFORE_BURY=0 WORKER_DIES=1 SWEEP=0", "index", is_quick=True),
    Run("no_SWEEP_index", "SWEEP=0 WORKER_DIES=1", "index"),
]
# Defaults: two rows, one lease, two rescuers of which one dies, a late copy, a deferral, a lost reply. With `hold` all of it
# is searched at once. With `resend` that is too large: three runs leave one thing out each, the second rescuer, their death, the deferral.
FEW = "RESCUERS=1 RCRASH=0 LATE=0"
ONE = "RESCUERS=1 RCRASH=1 LATE=0"
TWO = "RESCUERS=2 RCRASH=0 LATE=0"
BACK = "ROLLBACK=1 LATE=0 RCRASH=0 RESCUERS=1"
ENGINE = [
    Run("ok_resend_one_row", "N=1 RESCUERS=1", is_quick=True),
    Run("ok_hold_one_row", "N=1 RESCUERS=1 HOLD=1", is_quick=True),
    Run("ok_hold_one_row_cancel", "N=1 RESCUERS=1 HOLD=1 CANCEL=1", is_quick=True),
    Run("ok_resend_one_row_cancel", "N=1 RESCUERS=1 CANCEL=1"),
    Run("ok_resend_two_rescuers", "N=1"),
    Run("ok_hold_two_rescuers", "N=1 HOLD=1"),
    Run("ok_resend", "N=2 RESCUERS=1"),
    Run("ok_hold", "N=2 HOLD=1"),
    Run("ok_resend_rescuers_live", "N=2 RCRASH=0"),
    Run("ok_resend_no_deferral", "N=2 DEFERS=0"),
    Run("ok_resend_cancel", "N=2 RESCUERS=1 CANCEL=1"),
    Run("ok_hold_cancel", "N=2 RESCUERS=1 HOLD=1 CANCEL=1"),
    Run("ok_resend_two_leases", "N=1 K=2 RESCUERS=1"),
    Run("ok_hold_two_leases", "N=1 K=2 RESCUERS=1 HOLD=1"),
    Run("ok_two_rows_two_leases", f"N=2 K=2 {FEW}"),
    Run("ok_resend_lapse", "N=1 RESCUERS=1 LAPSES=1"),
    Run("ok_hold_lapse", f"N=2 LAPSES=1 {ONE} HOLD=1"),
    Run("ok_resend_register_again", f"N=2 REGISTER_AGAIN=1 {ONE}"),
    Run("ok_hold_register_again", f"N=1 REGISTER_AGAIN=1 {ONE} HOLD=1", is_quick=True),
    Run("ok_late_registration", f"N=1 REGISTER_AGAIN=2 {FEW}", is_quick=True),
    Run("ok_late_burial", f"N=1 REGISTER_AGAIN=1 {TWO}"),
    Run("ok_rollback_one_row", f"N=1 LOSTANSWER=1 {BACK}"),
    Run("ok_rollback_one_row_hold", f"N=1 LOSTANSWER=1 {BACK} HOLD=1", is_quick=True),
    Run("ok_rollback", f"N=2 {BACK} DEFERS=0"),
    Run("ok_rollback_hold", f"N=2 {BACK} LOSTREPLY=0 HOLD=1"),
]
RULES = (
    "FENCE_APPEND", "INTENT", "NOTE_WITH_INTENT", "TAKE_IS_ONE", "REVOKE_FIRST", "SETTLE_BEFORE_TRIM", "NOCREATE", "CARRY_FIRST",
)  # fmt: skip
KEPT = "ROLLBACK=1 LATE=0 RCRASH=0 RESCUERS=0 NOCRASH=1"
MUTANTS = [
    *(Run(f"no_{rule}", f"{rule}=0 {FEW}", is_quick=True) for rule in RULES),
    *(Run(f"no_{rule}_hold", f"{rule}=0 {FEW} HOLD=1") for rule in RULES),
    Run("no_LEASE_TOKEN", "LEASE_TOKEN=0 N=1 RESCUERS=1 RCRASH=0 LATE=1", is_quick=True),
    Run("no_DOUBT_WITH_FREE", "DOUBT_WITH_FREE=0 N=1 RESCUERS=2 RCRASH=1 LATE=0", is_quick=True),
    Run("no_FREE_BEFORE_BURY", "FREE_BEFORE_BURY=0 N=1 RESCUERS=1 RCRASH=1 LATE=0", is_quick=True),
    Run("no_SWEEP", "SWEEP=0 N=1 RESCUERS=1 RCRASH=0 LATE=0 LOSTREPLY=0 DEFERS=0", is_quick=True),
    Run("no_FRESH_ID", f"FRESH_ID=0 N=1 REGISTER_AGAIN=2 {FEW}", is_quick=True),
    Run("no_FRESH_ID_burial", f"FRESH_ID=0 N=1 REGISTER_AGAIN=1 {TWO}"),
    Run("no_LEASES_FIRST", f"LEASES_FIRST=0 REGISTER_AGAIN=1 {FEW}", is_quick=True),
    Run("no_TRIM_EXACT", f"TRIM_EXACT=0 {FEW}", is_quick=True),
    Run("no_STICKY", f"STICKY=0 CANCEL=1 {ONE}", is_quick=True),
    Run("no_CANCEL_DOUBT", f"CANCEL_DOUBT=0 CANCEL=1 {ONE} STICKY=0", is_quick=True),
    Run("no_WITHDRAW", "WITHDRAW=2 CANCEL=1 RESCUERS=0 RCRASH=0 LATE=0 NOCRASH=1", is_quick=True),
    Run("no_LAST_ENTRY", f"LAST_ENTRY=0 LAPSES=1 {ONE} HOLD=1", is_quick=True),
    Run("no_RETAIN", f"RETAIN=0 {KEPT}", is_quick=True),
    Run("no_RESYNC", f"RESYNC=0 {KEPT}", is_quick=True),
    Run("no_RETAIN_UNACTED", f"RETAIN_UNACTED=0 LOSTANSWER=1 {KEPT}", is_quick=True),
]
# Controls: where a mutant's error is an end that is not reached, the same must end with the rule.
CONTROLS = [
    Run("ok_control_KEPT", f"LOSTANSWER=1 {KEPT}"),
    Run("ok_control_WITHDRAW", "CANCEL=1 RESCUERS=0 RCRASH=0 LATE=0 NOCRASH=1", is_quick=True),
]
RUNS = [*ENGINE, *MUTANTS, *CONTROLS, *INDEX]


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # by way of every `finally`
    if tool := missing():
        print(f"{tool} is not installed (on Debian: apt-get install spin gcc)", file=sys.stderr)
        return 1
    by_name = {run.name: run for run in RUNS}
    if unknown := [name for name in arguments if name not in by_name and name != "--trail"]:
        print(f"no such run: {' '.join(unknown)}; there are: {' '.join(by_name)}", file=sys.stderr)
        return 2
    if arguments[:1] == ["--trail"]:
        print(trail(by_name[arguments[1]]))
        return 0
    return _run([by_name[name] for name in arguments] or RUNS)


def _run(runs: list[Run]) -> int:
    began, failed = time.monotonic(), 0
    for run in runs:
        result = check(run)
        print(result, flush=True)
        failed += not result.is_as_expected
    print(f"{len(runs)} runs, {failed} not as expected, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
