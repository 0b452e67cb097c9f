"""A list comes in while real processes send: within a second nobody on it is mailed any more. The relay's ledger is the witness."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.failures.stage_rig import ACCOUNT, failure_rig

pytestmark = pytest.mark.timeout(150)

ACTS_WITHIN = 1.0
SPREAD = {"SENDENGINE_ENGINE_SPREAD_ABOVE": "1"}  # every worker has a part


@pytest.mark.parametrize("workers", [1, 4])
async def test_an_import_in_mid_send_acts_on_every_worker(tmp_path: Path, workers: int) -> None:
    async with failure_rig() as rig:
        campaign = await rig.submit(3000, per_hour=720_000)
        barred = set(rig.names[1::2])
        (tmp_path / "list.csv").write_text("\n".join([*(f"other{at}@example.com" for at in range(5000)), *sorted(barred)]))
        rig.start_workers(workers, **SPREAD)
        await rig.until_sent(400)
        words = [sys.executable, "-m", "sendengine", "suppress", "import", str(tmp_path / "list.csv"), "--account", ACCOUNT]
        done = await asyncio.to_thread(subprocess.run, words, env=rig.stage.environ(), capture_output=True, check=True)
        told = await rig.client.desk.now_us() / 1e6
        assert done.stdout == f"{5000 + len(barred):,} rows: {5000 + len(barred):,} added, 0 changed, 0 rejected\n".encode()
        await rig.until_ended(campaign)
        reckoning = await rig.reckon(campaign)
        mailed = {line["rcpt_to"]: line["mail_at"] for line in rig.ledger()}
    late = {name: at - told for name, at in mailed.items() if name in barred and at > told + ACTS_WITHIN}
    assert late == {}
    assert reckoning.outcomes == {"sent": len(mailed), "suppressed": 3000 - len(mailed)}
    assert 3000 - len(mailed) > 500, "the list came in mid-send"
    assert (reckoning.lost, reckoning.duplicates, reckoning.findings) == (0, 0, 0)


async def test_mailboxes_that_do_not_exist_are_on_the_list_when_the_send_has_ended() -> None:
    async with failure_rig("--reject", "rcpt=550 5.1.1 no such mailbox") as rig:
        campaign = await rig.submit(150, per_hour=720_000)
        rig.start_workers(1)
        status = await rig.until_ended(campaign)
        assert status.bounced == 150
        assert {(each.address, each.reason.value) async for each in rig.client.suppressed(ACCOUNT)} == {
            (name, "hard-bounced") for name in rig.names
        }
        again = await rig.client.resend(campaign)
        status = await rig.until_ended(again.id)
    assert (status.suppressed, status.bounced) == (150, 0)
