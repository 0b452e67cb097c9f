"""Scenarios in which the world around healthy workers breaks: Redis, the relay, and the network to either."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from sendengine.launch import EXIT_FENCED
from tests.failures.account import Line
from tests.failures.process_faults import BUSY, ENOUGH
from tests.failures.proxy import Proxy, proxy_to
from tests.failures.rig import Hand, Rig, failure_rig, lasting, trains_of

RESUMES_S = 10.0
MET = 5  # intents without outcome, at least, whenever Redis goes: what was settled before has nothing to lose
IN_FLIGHT = 60  # more messages than lie on the wire: so many more mean that new ones were begun


async def redis_kills(seed: int, kills: int, per_second: float = 300) -> Line:
    """Killed and started again with its workers alive: nobody is lost, nobody doubled, and they resume by themselves."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(kills, 3, per_second), per_second)
        await rig.start_all(2)
        for _ in range(kills):
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            await rig.kill_redis(MET)
            await asyncio.sleep(rig.random.uniform(0.0, 1.0))  # the outage
            await rig.restart_redis()
            await resumed(rig)
        await rig.finish(campaign)
        rig.promise(rig.met_on_the_wire() >= kills * MET, f"the kills met {rig.met_on_the_wire()} messages on the wire")
        return await rig.line("redis_kills", campaign, bound=0)


async def redis_cuts(seed: int, cuts: int, per_second: float = 300) -> Line:
    """The connections to Redis are reset or closed, with answers on their way, on a network that is slow both ways."""
    async with failure_rig(seed, over_tcp=True, delay=BUSY) as rig, proxy_to(rig.port) as proxy:
        campaign = await rig.submit(lasting(cuts, 3, per_second), per_second)
        await rig.start_all(2, url=f"redis://127.0.0.1:{proxy.port}")
        for _ in range(cuts):
            proxy.up.delay, proxy.down.delay = rig.random.uniform(0, 0.03), rig.random.uniform(0, 0.03)
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            await rig.until_in_doubt(MET)
            rig.faults += await proxy.cut(rig.random.choice(("rst", "fin")))
            await resumed(rig, faults=0)
        proxy.heal()
        await rig.finish(campaign)
        rig.promise(rig.met_on_the_wire() >= cuts * MET, f"the cuts met {rig.met_on_the_wire()} messages on the wire")
        return await rig.line("redis_cuts", campaign, bound=0)


async def redis_partitions(seed: int, times: int, per_second: float = 300) -> Line:
    """One worker is cut off from Redis, one way or both, until it is taken over; when it comes back it writes nothing."""
    async with failure_rig(seed, over_tcp=True, delay=BUSY) as rig, AsyncExitStack() as proxies:
        campaign = await rig.submit(lasting(times, 10, per_second), per_second)

        async def start() -> tuple[Hand, Proxy]:
            proxy = await proxies.enter_async_context(proxy_to(rig.port))
            hand = rig.start(url=f"redis://127.0.0.1:{proxy.port}")
            await rig.join(hand)
            return hand, proxy

        workers = list(await asyncio.gather(start(), start(), start()))
        for _ in range(times):
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            hand, proxy = workers.pop(rig.random.randrange(len(workers)))
            up, down = rig.random.choice(((True, True), (True, False), (False, True)))
            proxy.blackhole(up, down)
            hand.is_expected_to_end = True
            await rig.until_more(IN_FLIGHT)  # what was on the wire has ended, its outcomes in the journal or not
            await rig.mourn(hand)
            await rig.until_fenced(hand)
            rig.awake(hand)
            proxy.heal()
            code = await rig.wait(hand)
            rig.promise(code == EXIT_FENCED, f"a fenced worker ended with {code}")
            workers.append(await start())
        await rig.finish(campaign)
        return await rig.line("redis_partitions", campaign)


async def relay_kills(seed: int, kills: int, per_second: float = 300, control: str = "") -> Line:
    """The relay dies and comes back: at most one in doubt for each connection that was open then."""
    async with failure_rig(seed, delay=BUSY) as rig, proxy_to(rig.relay_port, is_telling=True) as proxy:
        campaign = await rig.submit(lasting(kills, 4, per_second), per_second, relay_port=proxy.port)
        await rig.start_all(2, control=control)
        bound = 0
        for _ in range(kills):
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            bound += len(proxy.peers)
            rig.excuses.cut |= proxy.peers
            await rig.kill_relay()
            await proxy.cut("rst")
            await rig.restart_relay()
            await resumed(rig, limit=30.0)
        await rig.finish(campaign)
        return await rig.line(control or "relay_kills", campaign, bound=bound)


async def smtp_cuts(seed: int, cuts: int, per_second: float = 300, together: int = 1) -> Line:
    """Sessions end by FIN or RST at any octet, on a line that is slow and stands still at times. Of `together` messages in one write a
    session may have two writes under way."""
    async with failure_rig(seed, delay=BUSY) as rig, proxy_to(rig.relay_port, is_telling=True) as proxy:
        campaign = await rig.submit(lasting(cuts, 4, per_second), per_second, relay_port=proxy.port)
        await rig.start_all(2, environ=trains_of(together))
        for _ in range(cuts):
            proxy.up.delay = rig.random.uniform(0, 0.1)
            proxy.up.bandwidth = rig.random.choice((0, 50_000))
            proxy.down.delay = rig.random.uniform(0, 0.1)
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            if rig.random.random() < 0.5:
                proxy.blackhole(*rig.random.choice(((True, True), (True, False), (False, True))))
                await asyncio.sleep(rig.random.uniform(0.1, 1.0))
            if rig.random.random() < 0.3:
                proxy.heal()
                rig.faults += 1
            else:
                rig.faults += await proxy.cut(rig.random.choice(("rst", "fin")))
                proxy.heal()
            await resumed(rig, faults=0, limit=30.0)
        if together > 1:
            rig.promise_trains(together)
        await rig.finish(campaign)
        rig.excuses.cut, rig.excuses.within = proxy.cut_peers, 1 if together == 1 else 2 * together
        name = "smtp_cuts" if together == 1 else "smtp_cuts_trains"
        return await rig.line(name, campaign, bound=proxy.cut_connections * rig.excuses.within)


async def resumed(rig: Rig, faults: int = 1, limit: float = RESUMES_S) -> None:
    """New messages are begun again, in time."""
    rig.faults += faults
    took = await rig.until_more(IN_FLIGHT)
    rig.recoveries.append(took)
    rig.promise(took <= limit, f"sending went on after {took:.1f} s only")
