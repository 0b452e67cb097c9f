"""A hundred SMS of which the provider rejects thirty: what is charged is the price of a hundred (domain 4)."""

from __future__ import annotations

import asyncio

import msgspec

from benchmarks.bench import Figure, Result
from benchmarks.gates.centre import START, centre, phones
from benchmarks.gates.scene import scene, until
from benchmarks.plots import Chart

TITLE = "gates.rejected: what SMS cost of which the provider rejects some"
_ACCOUNT, _TEXT, _BOUGHT = "m1001", "Your order is on its way.", 10_000


class Found(msgspec.Struct, frozen=True):
    count: int
    sent: int
    bounced: int
    taken: int  # by the centre's ledger
    rejected: int
    price: float  # of one
    before: float  # free credits
    after: float
    reserved: float
    findings: int  # of fsck, credits included


async def run(quick: bool) -> Result:
    return result(await measure(100 if quick else 1000))


async def measure(count: int) -> Found:
    """Of each hundred, those whose number ends in 00 to 29 are rejected."""
    async with scene() as s:
        rejected = [f"{START}{hundred:05}{ten}" for hundred in range(count // 100) for ten in range(3)]
        c = centre(s, *(word for number in rejected for word in ("--reject", f"0x0b@{number}")))
        await s.account(_ACCOUNT, 60_000)
        await s.client.set_sms(_ACCOUNT, rate="unmetered")
        before = (await s.client.grant_credits(_ACCOUNT, _BOUGHT)).free
        price = (await s.client.sms_cost(_ACCOUNT, _TEXT, phones(1))).credits
        send = await s.client.submit_sms(account=_ACCOUNT, sender="ACME", text=_TEXT, recipients=phones(count), campaign="sms")
        await s.workers(1, c.environ)
        status = await s.bench.finished(send.id, 60.0)

        async def is_told() -> bool:
            return len(c.lines()) == count

        await until(is_told)
        shown = await s.client.credits(_ACCOUNT)
        findings = [finding async for finding in s.client.fsck()]
        lines = c.lines()
        await asyncio.to_thread(s.stage.stop, c.process)
        return Found(
            count, status.sent, status.bounced, sum(not line["status"] for line in lines), sum(bool(line["status"]) for line in lines),
            price, before, shown.free, shown.reserved, len(findings),
        )  # fmt: skip


def result(found: Found) -> Result:
    spent, wanted = found.before - found.after, found.count * found.price
    rows = [["accepted", f"{found.taken:,}", f"{found.sent:,} sent"], ["rejected", f"{found.rejected:,}", f"{found.bounced:,} bounced"],
            ["credits", f"{spent:,.0f} spent", f"{found.reserved:g} reserved"]]  # fmt: skip
    are_those = found.rejected == found.bounced == 30 * found.count // 100 and found.taken == found.sent
    figures = [
        Figure("the balance falls by", f"{wanted:g}, the price of all", f"{spent:g}", spent == wanted and not found.reserved),
        Figure("sent, bounced", "as the centre says", f"{found.sent:,}, {found.bounced:,}", are_those),
        Figure("fsck, credits included", "0 findings", f"{found.findings}", not found.findings),
    ]
    chart = Chart("", "SMS", {"accepted": [(0.0, float(found.taken))], "rejected": [(0.0, float(found.rejected))]}, "bars")
    return Result(TITLE, ["", "at the centre", "in the account"], rows, figures, chart, msgspec.to_builtins(found))
