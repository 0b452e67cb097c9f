"""Scenarios in which worker processes are killed, stopped, frozen and steered. Each returns its line of the report."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable

import msgspec

from sendengine.launch import EXIT_COLD, EXIT_FENCED
from tests.failures.account import STOPS_WITHIN, Doubt, Line, Silence, token_in
from tests.failures.failpoints import QUEUE_STEPS, REPLY_STEPS, RESCUE_STEPS, WIRE_STEPS, Failpoint
from tests.failures.rig import SHARED, Hand, Rig, failure_rig, lasting, trains_of, until

DRAIN_S = 5.0
BUSY = ("dot=0.05",)  # so that something is on the wire whenever a fault comes
ENOUGH = 20  # messages at least between two faults
FREEZES_S = (1.0, 5.0)
OUTLIVES_FREEZES = {"SENDENGINE_ENGINE_DEAD_AFTER_S": "6"}
SHOWS_WITHIN = 0.5  # seconds in which a worker that goes on has written what it had in hand
RESCUED_WITHIN = 2.5  # seconds that a takeover takes, as the rig's workers are set
UNMETERED_A_ROUND = 12_000
# Several processes start and die at once: on a busy machine a journal could not be read within the rig's own two seconds.
SEVERAL_AT_ONCE = {"SENDENGINE_ENGINE_DEAD_AFTER_S": "4"}
BEHIND_A_DOT = ("after_dot", "after_mail", "after_reply")  # a MAIL leaves behind the message before it


async def worker_kills(
    seed: int, kills: int, per_second: float = 300, n: int = 0, on_doubt: str = "resend", together: int = 1
) -> Line:
    """One of four workers is killed about each second, and replaced. Under `hold` nobody is sent to twice. Few kills are to meet many
    messages on their way: their dots take longer, but where several travel together anyway."""
    gap = int(per_second)
    async with failure_rig(seed, delay=BUSY if n or together > 1 else ("dot=0.3",)) as rig:
        campaign = await rig.submit(max(n, lasting(kills, 4, per_second)), per_second, on_doubt)
        environ = trains_of(together)
        await rig.start_all(4, environ=environ)
        for _ in range(kills):
            await rig.until_more(rig.random.randrange(ENOUGH, 2 * gap))
            await asyncio.gather(rig.kill(rig.random.choice(rig.living)), rig.start_all(1, environ=environ))
        if together > 1:
            rig.promise_trains(together)
        await rig.finish(campaign)
        name = "worker_kills_trains" if together > 1 else f"worker_kills_{on_doubt}"
        line = await rig.line(name, campaign, bound=0 if on_doubt == "hold" else None)
        if on_doubt == "hold":
            rig.promise(line.account.outcomes.get("unknown", 0) <= sum(rig.doubts), "more unknown than doubts")
            line = await rig.line("worker_kills_hold", campaign, bound=0)
        return line


async def worker_stops(seed: int, stops: int, per_second: float = 300) -> Line:
    """TERM under load, two at a time, with some dots that take their time: nothing is in doubt afterwards."""
    async with failure_rig(seed, delay=("dot=1.5%0.02", "dot=0.05")) as rig:
        campaign = await rig.submit(lasting(stops, 3, per_second), per_second)
        drain = {"SENDENGINE_ENGINE_SHUTDOWN_TIMEOUT_S": str(DRAIN_S)}
        await rig.start_all(4, environ=drain)
        for _ in range(stops // 2):
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            victims = rig.random.sample(rig.living, 2)
            await asyncio.gather(*(rig.term(victim, DRAIN_S + 5.0) for victim in victims), rig.start_all(2, environ=drain))
        await rig.finish(campaign)
        line = await rig.line("worker_stops", campaign, bound=0)
        rig.promise(line.account.outcomes == {"sent": line.account.accepted}, "a warm stop left somebody in doubt")
        return await rig.line("worker_stops", campaign, bound=0)


async def stops_without_redis(seed: int, rounds: int, per_second: float = 300) -> Line:
    """TERM while Redis is away: what they hold cannot be settled, and they leave within the drain limit all the same; when Redis is back
    another goes on from their journals."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(rounds, 10, per_second), per_second)
        drain = {"SENDENGINE_ENGINE_SHUTDOWN_TIMEOUT_S": str(DRAIN_S)}
        await rig.start_all(3, environ=drain)
        for _ in range(rounds):
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            await rig.kill_redis()
            leaving = rig.random.sample(rig.living, 2)
            await asyncio.gather(*(rig.term(hand, DRAIN_S + 5.0, EXIT_COLD) for hand in leaving))
            await rig.restart_redis()
            await asyncio.gather(*(rig.mourn(hand) for hand in leaving))
            await rig.start_all(2, environ=drain)
        await rig.finish(campaign)
        return await rig.line("stops_without_redis", campaign)


async def cancelled_in_doubt(seed: int, kills: int, per_second: float = 300) -> Line:
    """Workers die with messages on the wire, and the cancel is acknowledged before anybody takes over: each in doubt ends `unknown`, none
    is sent again, the rest is cancelled."""
    async with failure_rig(seed, delay=("dot=0.3",)) as rig:
        campaign = await rig.submit(lasting(kills, 5, per_second), per_second)
        await rig.start_all(kills + 1)
        await rig.until_more(5 * ENOUGH)
        doubts = await asyncio.gather(*(rig.kill(hand) for hand in rig.living[:kills]))
        await rig.demand_unended()
        await rig.client.cancel(campaign)
        rig.silences.append(Silence("c", time.time() + STOPS_WITHIN, float("inf")))
        rig.promise(not rig.recoveries, "a takeover came before the cancel")
        await rig.until_ended(campaign)
        await rig.leave()
        line = await rig.line("cancelled_in_doubt", campaign, bound=0)
        rig.promise(0 < sum(doubts) == line.account.outcomes.get("unknown", 0), f"of {sum(doubts)} in doubt not each ended unknown")
        rig.promise(line.account.outcomes.keys() == {"sent", "unknown", "cancelled"}, "the rest was not cancelled")
        return await rig.line("cancelled_in_doubt", campaign, bound=0)


async def zombies(seed: int, times: int, per_second: float = 300) -> Line:
    """Frozen past the fence, then back: it writes nothing any more, to nobody."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(times, 10, per_second), per_second)
        await rig.start_all(3)
        for _ in range(times):
            await rig.until_more(rig.random.randrange(ENOUGH, int(per_second)))
            zombie = rig.random.choice(rig.living)
            zombie.is_expected_to_end = True
            zombie.process.send_signal(signal.SIGSTOP)
            await rig.mourn(zombie)
            await rig.until_fenced(zombie)
            rig.awake(zombie)
            zombie.process.send_signal(signal.SIGCONT)
            code = await rig.wait(zombie)
            rig.promise(code == EXIT_FENCED, f"a fenced worker ended with {code}")
            await rig.join(rig.start())
        await rig.finish(campaign)
        return await rig.line("zombies", campaign)


async def steering(seed: int, rounds: int, per_second: float | None = 300, together: int = 1) -> Line:
    """Paused and resumed while a worker is frozen, from before the verb until it must have acted; at last one is killed and the rest is
    cancelled while another is frozen. None: unmetered, where a worker writes as fast as the relay reads."""
    name = "steering" if per_second else "steering_unmetered" if together == 1 else "steering_trains"
    async with failure_rig(seed, delay=BUSY if per_second else ()) as rig:
        campaign = await rig.submit(_enough(rounds + 1, per_second), per_second)
        await rig.start_all(3, environ={**OUTLIVES_FREEZES, **trains_of(together)})
        for _ in range(rounds):
            await rig.until_more(rig.random.randrange(ENOUGH, 300))
            await frozen_while(rig, await rig.busy(), rig.client.pause(campaign))
            rig.silences[-1] = msgspec.structs.replace(rig.silences[-1], until=time.time())
            await rig.client.resume(campaign)
        await rig.until_more(ENOUGH)
        await rig.kill(await rig.busy())
        await rig.until_more(ENOUGH)
        await frozen_while(rig, await rig.busy(), rig.client.cancel(campaign))
        if together > 1:
            rig.promise_trains(together)
        await rig.until_ended(campaign)
        await rig.leave()
        return await rig.line(name, campaign, bound=0)  # after a cancel nothing is sent again


def _enough(rounds: int, per_second: float | None) -> int:
    """Recipients for so many rounds, each with some seconds of sending in it."""
    return lasting(rounds, 4, per_second) if per_second else rounds * UNMETERED_A_ROUND


async def frozen_while(rig: Rig, hand: Hand, verb: Awaitable[object]) -> None:
    """It freezes before the verb is given or just then, for 1 to 5 s, and goes on when the verb was acknowledged STOPS_WITHIN ago: what it
    begins then is late. The silence is open: who resumes ends it."""
    frozen = time.monotonic()
    hand.process.send_signal(signal.SIGSTOP)
    thaws = frozen + rig.random.uniform(*FREEZES_S)
    await asyncio.sleep(rig.random.choice((0.0, rig.random.uniform(0.0, 0.2))))
    await rig.demand_unended()
    await verb
    acknowledged, wall = time.monotonic(), time.time()
    rig.silences.append(Silence("c", wall + STOPS_WITHIN, float("inf")))
    await asyncio.sleep(max(thaws, acknowledged + STOPS_WITHIN + 0.05) - time.monotonic())
    hand.process.send_signal(signal.SIGCONT)
    rig.faults += 1
    await asyncio.sleep(SHOWS_WITHIN)


async def orphan(seed: int, per_second: float = 60) -> Line:
    """The only worker of an account dies; with the settings as they are shipped another goes on within 30 s."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(1, 30, per_second), per_second)
        for hand in [rig.start(is_shared=False, environ={"SENDENGINE_ENGINE_DEAD_AFTER_S": "10"}) for _ in range(2)]:
            await rig.know(hand)
        await rig.until_sent(ENOUGH)
        await rig.kill(await rig.busy())
        rig.recoveries.append(await rig.until_more(ENOUGH))
        rig.promise(rig.recoveries[-1] <= 30.0, "orphaned work was left for more than 30 s")
        await rig.finish(campaign)
        return await rig.line("orphan", campaign)


async def slow_relay(seed: int, dot_s: float, n: int = 80) -> Line:
    """A relay that thinks for longer than a worker may be silent: whoever waits for it is healthy, and is not robbed."""
    async with failure_rig(seed, delay=(f"dot={dot_s}",)) as rig:
        campaign = await rig.submit(n, 100)
        for hand in [rig.start() for _ in range(2)]:  # there may be one batch only: the other has nothing to do, and looks on
            await rig.know(hand)
        rig.faults += 1
        await rig.until_ended(campaign)
        standing = await rig.client.desk.standing("m1", "c")
        rig.promise(not standing.doubts, "somebody was in doubt")
        await rig.leave()
        return await rig.line("slow_relay", campaign)


async def rescuers(seed: int, actions: tuple[str, ...], per_second: float = 200) -> Line:
    """Recovery itself is broken at every step of it, by every action; whoever comes next completes it."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(len(actions), 15, per_second), per_second)
        for action in actions:
            healthy = rig.living  # of the round before: they would be there first
            victims = await rig.start_all(len(RESCUE_STEPS))
            await asyncio.gather(*(rig.term(hand, 35.0) for hand in healthy))
            await rig.until_more(ENOUGH * 5)
            points = [Failpoint(step, action) for step in RESCUE_STEPS]
            hands = [rig.start(failpoint=str(point)) for point in points]
            await asyncio.gather(*(rig.know(hand) for hand in hands))
            await asyncio.gather(*(rig.kill(victim) for victim in victims))
            follow = [_follow(rig, hand, point) for hand, point in zip(hands, points, strict=True)]
            await asyncio.gather(*follow, _die_until_all_fired(rig, hands))
        await rig.join(rig.start())
        await rig.finish(campaign)
        return await rig.line("rescuers", campaign)


async def _die_until_all_fired(rig: Rig, rescuers: list[Hand]) -> None:
    """One that goes on after its fault may take over all that there is, before another has come to its own step: then there is more."""

    def have_fired() -> bool:
        return all(hand.has_fired() or not hand.is_alive for hand in rescuers)

    while not have_fired():
        try:
            await until(have_fired, "all rescuers", limit=3 * RESCUED_WITHIN)
        except TimeoutError:
            await rig.kill(await rig.join(rig.start()))


def failpoints_of(seed: int, actions: tuple[str, ...]) -> list[Failpoint]:
    """Each step outside of a takeover with each action that it can take, at a passing that the seed chooses."""
    import random

    chance = random.Random(seed)
    latest = {"after_take": 2, "before_trim": 2, "before_settle": 3, "after_settle": 3, "after_visit": 8}
    return [
        Failpoint(step, action, chance.randint(1, latest.get(step, 12)))
        for action in actions
        for step in QUEUE_STEPS + WIRE_STEPS + REPLY_STEPS
    ]


async def failpoints(seed: int, points: list[Failpoint], per_second: float = 150, at_once: int = 4) -> Line:
    """Workers that break at their failpoint, some at once, beside a healthy one. The list must last until the last of them has started."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(len(points), 4, per_second), per_second)
        await rig.start_all(1, environ=SEVERAL_AT_ONCE)
        turns = asyncio.Semaphore(at_once)

        async def one(point: Failpoint) -> None:
            async with turns:
                hand = rig.start(failpoint=str(point), environ={"FAULT_RETAIN": "1", **SEVERAL_AT_ONCE})
                await rig.join(hand)
                await _follow(rig, hand, point)

        async with asyncio.TaskGroup() as tasks:
            for point in points:
                tasks.create_task(one(point))
        await rig.finish(campaign)
        return await rig.line("failpoints", campaign, bound=sum(rig.doubts) + sum(_may_double(point) for point in points))


def _may_double(point: Failpoint) -> bool:
    """A connection that is reset behind the end of a message leaves that one in doubt; before it, the relay has no message to take."""
    return point.action == "raise" and point.step in BEHIND_A_DOT


async def _follow(rig: Rig, hand: Hand, point: Failpoint) -> None:
    """See the fault, and that the worker does afterwards what it must."""
    await until(lambda: hand.has_fired() or not hand.is_alive, f"{point} fires")
    rig.promise(hand.has_fired(), f"{point} did not fire")
    if point.action == "raise":  # an outage is survived
        rig.faults += 1
        _excuse(rig, hand, point)
        await rig.until_more(ENOUGH)
        await rig.term(hand, 35.0)
        return
    hand.is_expected_to_end = True
    if point.action == "stall":
        await rig.mourn(hand)
        if point.step in RESCUE_STEPS:
            await rig.join(rig.start())
        await rig.until_fenced(hand)
        if point.step not in WIRE_STEPS:  # else it stands in the midst of a write, which ends when it goes on
            rig.awake(hand)
        hand.release.touch()
    code = await rig.wait(hand)
    wanted = {"kill": -signal.SIGKILL, "bug": 1, "stall": EXIT_FENCED}[point.action]
    rig.promise(code == wanted, f"{point} ended with {code}")
    if point.action != "stall":
        await rig.mourn(hand)


def _excuse(rig: Rig, hand: Hand, point: Failpoint) -> None:
    """Of the session that was reset, or of the reply that was never read."""
    if point.step == "after_reply":
        rig.excuses.doubts.append(Doubt(hand.client, frozenset((token_in(hand.struck()),))))
    elif _may_double(point):
        rig.excuses.cut.add(hand.struck())


async def under_a_supervisor(seed: int, kills: int, per_second: float = 200) -> Line:
    """As users run it: the supervisor replaces what is killed, and leaves warm."""
    async with failure_rig(seed, delay=BUSY) as rig:
        campaign = await rig.submit(lasting(kills, 6, per_second), per_second)
        supervisor = rig.stage.worker("-p", "2", environ={"SENDENGINE_ENGINE_DEAD_AFTER_S": "2", **SHARED})
        killed: set[str] = set()
        for _ in range(kills):
            await rig.until_more(2 * int(per_second))
            said = {name: info for name, info in (await rig.client.workers()).items() if info.get("accounts") and name not in killed}
            worker = rig.random.choice(sorted(said))
            killed.add(worker)
            os.kill(said[worker]["pid"], signal.SIGKILL)
            await rig.mourn(Hand(rig.stage.folder, 0, supervisor, worker))
        await rig.demand_unended()
        await rig.client.set_tier("m1", "unmetered")
        await rig.until_ended(campaign)
        await rig.leave()
        supervisor.terminate()
        rig.promise(await asyncio.to_thread(supervisor.wait, 60) == 0, "the supervisor left with a fault")
        return await rig.line("under_a_supervisor", campaign)
