"""Scenarios in which Redis comes back with less than it had acknowledged: its workers alive, dead with it, or by turns.

Nobody is lost and no `sent` is false. Who comes twice must be somebody of whom the lost writes spoke (docs/reliability.md), one by one:

- with workers alive: whose message was begun since the cut, under a lease that was taken since. Its batch waits again, and what became of
  it is nobody's. What was resolved and settled since under a lease that stands is written and settled again.
- with the workers dead, too: whose message was begun since the cut, and who is in doubt where the journals end now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

import msgspec

from sendengine import records
from sendengine.engine.remains import read
from sendengine.queue import embedded, keys
from tests.failures import aof
from tests.failures.account import Line
from tests.failures.process_faults import BUSY, ENOUGH
from tests.failures.rig import ACCOUNT, LIMIT, Rig, failure_rig, lasting, until
from tests.failures.world_faults import resumed

WORKERS = 2
LONGEST = 3.0  # seconds of work that are sent before it is asked whether a take is among what will be forgotten
OUTAGE = 0.5  # what was released before the kill has begun by its end: an append stays fresh for 0.2 s, and a dot takes 0.05 s


class Cut(msgspec.Struct):
    """What went with Redis' last writes."""

    has_power: bool
    since: float  # wall time
    kept: frozenset[str] = frozenset()  # tokens under leases that stand and whose worker lives
    until: float = float("inf")  # when Redis came back
    writes: int = 0
    doubtful: frozenset[str] = frozenset()

    def covers(self, rig: Rig) -> set[str]:
        rig.ledger.read()
        return {token for at, token in rig.ledger.begun if self.since <= at <= self.until} - self.kept | self.doubtful


async def redis_forgets(seed: int, kills: int, per_second: float = 300) -> Line:
    """The workers live, and write what they know again."""
    return await _forgets("redis_forgets", seed, [False] * kills, per_second)


async def power_fails(seed: int, kills: int, per_second: float = 300) -> Line:
    """The workers die with Redis, and others find what it kept."""
    return await _forgets("power_fails", seed, [True] * kills, per_second)


async def forgets_by_turns(seed: int, kills: int, per_second: float = 300) -> Line:
    """One after the other: what was forgotten once is forgotten again."""
    return await _forgets("forgets_by_turns", seed, [number % 2 == 1 for number in range(kills)], per_second)


async def _forgets(scenario: str, seed: int, has_power: Sequence[bool], per_second: float) -> Line:
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(len(has_power), LONGEST + 5, per_second), per_second)
        await rig.start_all(WORKERS)
        cuts = [await _forget(rig, power, per_second) for power in has_power]
        await rig.finish(campaign)
        covered = [cut.covers(rig) for cut in cuts]
        rig.excuses.forgotten = frozenset[str]().union(*covered)
        doubled = (await rig.account(campaign)).doubled
        for cut, tokens in zip(cuts, covered, strict=True):
            of = "Redis and its workers" if cut.has_power else "Redis"
            print(f"  {of}: {cut.writes} writes gone, which spoke of {len(tokens)}; {len(tokens & doubled)} of them came twice")
            rig.promise(not tokens.isdisjoint(doubled), "a cut showed in no duplicate: it proves nothing")
        return await rig.line(scenario, campaign, bound=sum(map(len, covered)))


async def _forget(rig: Rig, has_power: bool, per_second: float) -> Cut:
    """Until something was sent under a lease that will be forgotten: else a worker that lives would mend it all."""
    redis = rig.stage.folder / "redis"
    living = {hand.id for hand in rig.living}
    while True:
        cut, kept = Cut(has_power, time.time()), await _leased_to(rig, living)
        mark = aof.mark(redis)
        if (await _leased_to(rig, living)).keys() == kept.keys():
            break  # no take stands on one side of the mark and is counted to the other
    held = frozenset[str]().union(*kept.values())
    if not has_power:
        cut.kept = held
    await rig.until_more(int(rig.random.uniform(0.0, LONGEST) * per_second))
    await until(lambda: rig.ledger.read() > 0 and len(cut.covers(rig) - held) >= ENOUGH, "messages of a take behind the mark", LIMIT)
    await rig.kill_redis()
    if has_power:
        await _kill_workers(rig)
    await asyncio.to_thread(embedded.status, rig.stage.folder)  # waits until it is gone
    cut.writes = aof.cut(mark, redis)
    await asyncio.sleep(OUTAGE)
    cut.until = time.time()
    await rig.restart_redis()
    if has_power:
        cut.doubtful = await _doubtful(rig)
        await rig.start_all(WORKERS)
    await resumed(rig)
    return cut


async def _leased_to(rig: Rig, workers: Collection[str]) -> dict[bytes, frozenset[str]]:
    """Lease tokens and whom they hold."""
    found = {token: records.decode_lease(lease) for token, lease in (await rig.redis.hgetall(f"{keys.account(ACCOUNT)}:lease")).items()}
    return {
        token: frozenset(rig.token(lease.campaign, lease.batch, row) for row in records.rows_of(lease.mask))
        for token, lease in found.items()
        if lease.worker in workers
    }


async def _kill_workers(rig: Rig) -> None:
    for hand in rig.living:
        hand.is_expected_to_end = True
        hand.process.kill()
        await rig.wait(hand)


async def _doubtful(rig: Rig) -> frozenset[str]:
    """Those in doubt in every journal that stands, those of workers that were rescued since the cut too."""
    journals = [await rig.redis.hgetall(keys.journal(name.decode())) for name in await rig.redis.smembers(keys.WORKERS)]
    return frozenset[str]().union(*(rig.in_doubt(read(journal)) for journal in journals))
