"""Rules of the protocol left out on purpose: each of these trials must fail, or the others prove nothing."""

from __future__ import annotations

import signal

from tests.failures.account import Line
from tests.failures.process_faults import ENOUGH, OUTLIVES_FREEZES, frozen_while
from tests.failures.rig import ACCOUNT, ENDED_EARLY, NO_TRAINS, failure_rig, trains_of, until
from tests.failures.world_faults import relay_kills

UNEXCUSED = "somebody came twice who was not in doubt"
REPEATED = frozenset({"more duplicates than doubts", UNEXCUSED})
MEANT = {  # what each must be broken by: another reason shows nothing of what was left out
    "journal_off": REPEATED, "fence_off": REPEATED | {"a zombie began a message"}, "ack_first": {"lost"}, "never_stale": {"phantom"},
    "write_behind": REPEATED, "hopeful": {"lost"}, "deaf": {UNEXCUSED}, "too_short": {ENDED_EARLY}, "no_trains": {NO_TRAINS},
}  # fmt: skip


def fails_as_meant(line: Line) -> bool:
    meant = MEANT[line.scenario]
    return meant <= set(line.broken) and (ENDED_EARLY in meant or ENDED_EARLY not in line.broken)


async def journal_off(seed: int) -> Line:
    """Bytes without intents: a kill leaves no doubts, and so repeats that no bound covers."""
    async with failure_rig(seed, delay=("dot=0.3",)) as rig:
        campaign = await rig.submit(250, 100)
        reckless = rig.start(control="journal_off")
        await rig.join(reckless)
        await rig.until_sent(5 * ENOUGH)
        await rig.kill(reckless)
        await rig.join(rig.start())
        await rig.finish(campaign)
        return await rig.line("journal_off", campaign)


async def fence_off(seed: int) -> Line:
    """An append that was refused is taken for an accepted one: the zombie sends what others sent."""
    async with failure_rig(seed, delay=("dot=0.05",)) as rig:
        campaign = await rig.submit(6000, 200)
        sweeping = {"FAULT_SWEEP": "5"}  # for the zombie leaves leases for which no journal stands
        zombie = rig.start(control="fence_off", environ=sweeping)
        await rig.join(zombie)
        await rig.until_sent(5 * ENOUGH)
        zombie.is_expected_to_end = True
        zombie.process.send_signal(signal.SIGSTOP)
        await rig.mourn(zombie)
        await rig.join(rig.start(environ=sweeping))
        await rig.until_fenced(zombie)
        await rig.until_more(10 * ENOUGH)  # others have what it held
        rig.awake(zombie)
        zombie.process.send_signal(signal.SIGCONT)
        await until(lambda: rig.ledger.mails_since(*rig.zombies[0]) >= 5 * ENOUGH, "the zombie sends")
        zombie.process.kill()
        await rig.finish(campaign)
        return await rig.line("fence_off", campaign)


async def ack_first(seed: int) -> Line:
    """`sent` is settled before the relay has said so: who was on the wire at the kill is lost."""
    async with failure_rig(seed, delay=("data=0.3",), chunking=False) as rig:
        campaign = await rig.submit(250, 100)
        hasty = rig.start(control="ack_first")
        await rig.join(hasty)
        await rig.until_sent(5 * ENOUGH)
        await rig.kill(hasty)
        await rig.join(rig.start())
        await rig.demand_unended()
        await rig.client.set_tier(ACCOUNT, "unmetered")
        await rig.until_ended(campaign)
        await rig.leave()
        return await rig.line("ack_first", campaign)


async def never_stale(seed: int) -> Line:
    """What was journalled before a freeze may go after it, whatever was acknowledged meanwhile: MAILs follow a cancel."""
    async with failure_rig(seed, delay=("dot=0.05",)) as rig:
        campaign = await rig.submit(20_000, None)
        careless = rig.start(control="never_stale", environ=OUTLIVES_FREEZES)
        await rig.join(careless)
        await rig.until_sent(5 * ENOUGH)
        await frozen_while(rig, careless, rig.client.cancel(campaign))
        await rig.until_ended(campaign)
        await rig.leave()
        return await rig.line("never_stale", campaign)


async def write_behind(seed: int) -> Line:
    """Appends are answered before they are written: when the power fails, what was begun in the last second is not even in doubt."""
    async with failure_rig(seed, delay=("dot=0.05",)) as rig:
        campaign = await rig.submit(600, 200)
        hasty = rig.start(control="write_behind")
        await rig.join(hasty)
        await rig.until_sent(10 * ENOUGH)
        await rig.kill_redis()
        hasty.is_expected_to_end = True
        hasty.process.kill()
        await rig.wait(hasty)
        await rig.restart_redis()
        await rig.mourn(hasty)
        await rig.join(rig.start())
        await rig.finish(campaign)
        return await rig.line("write_behind", campaign)


async def hopeful(seed: int) -> Line:
    """A connection that was lost is taken for a yes: whom the relay had not taken when it was killed is lost."""
    return await relay_kills(seed, kills=1, per_second=200, control="hopeful")


async def deaf(seed: int) -> Line:
    """Of a thousand messages that were accepted one is sent again. That is no more than the connections that were open when the relay was
    killed: in sum they would excuse it, one by one they do not."""
    return await relay_kills(seed, kills=1, per_second=200, control="deaf")


async def too_short(seed: int) -> Line:
    """All is sent before the fault comes: nobody was in doubt, and nothing is shown."""
    async with failure_rig(seed) as rig:
        campaign = await rig.submit(2 * ENOUGH, None)
        victim, _ = await rig.start_all(2)
        await rig.until_more(3 * ENOUGH)
        await rig.kill(victim)
        await rig.finish(campaign)
        return await rig.line("too_short", campaign)


async def no_trains(seed: int) -> Line:
    """Five messages may go in one write, to a relay that cannot take them so: each comes alone."""
    async with failure_rig(seed, delay=("dot=0.05",), chunking=False) as rig:
        campaign = await rig.submit(4000, 200)
        victim, _ = await rig.start_all(2, environ=trains_of(5))
        await rig.until_more(10 * ENOUGH)
        await rig.kill(victim)
        rig.promise_trains(5)
        await rig.finish(campaign)
        return await rig.line("no_trains", campaign)
