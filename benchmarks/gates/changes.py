"""What changes what an account may do, in mid-send, on 1, 2 and 4 processes: the last MAIL under the old state, and what comes after.

Five accounts send at once. One is held and released; one's term ends, and is renewed; one's send is cancelled; one's tier is changed, up
and down, by events from billing; one buys a boost, which ends by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import msgspec

from benchmarks.analysis import turn
from benchmarks.bench import Figure, Result, figure_of
from benchmarks.gates.scene import SOON, WATCHED, WITHIN, Scene, Whole, between, burst, rate, scene
from benchmarks.plots import Chart

TITLE = "gates.changes: hold, term, cancel, tier and boost in mid-send"
SLOW, FAST = 72_000, 144_000


class Change(msgspec.Struct, frozen=True):
    """Asked for and returned, by the scene's clock; of what comes by itself both are its time. `is_faster`: None: nothing goes then."""

    what: str
    asked: float
    returned: float
    is_faster: bool | None


class Played(msgspec.Struct, frozen=True):
    account: str
    count: int
    changes: list[Change]


class Found(msgspec.Struct, frozen=True):
    processes: int
    late: dict[str, float]  # change -> seconds from its return to the last MAIL under the old state; negative: it came before
    resumed: dict[str, float]  # release, renewal -> seconds from their return to the first MAIL
    turned: dict[str, float]  # a change of rate -> the new one over the old one, from a second after it on
    excess: dict[str, float]  # account -> messages above the ceiling in the worst window
    whole: dict[str, Whole]
    workers: int  # that sent

    @property
    def is_whole(self) -> bool:
        return all(whole.is_whole for whole in self.whole.values())


async def run(quick: bool) -> Result:
    phase, counts = (3.0, (1, 2)) if quick else (6.0, (1, 2, 4))
    return result([await measure(processes, phase) for processes in counts])


async def measure(processes: int, phase: float, slow: int = SLOW, fast: int = FAST) -> Found:
    async with scene() as s:
        await s.workers(processes)
        played = await asyncio.gather(*(_begin(s, f"m{1001 + place}", play, phase, slow, fast) for place, play in enumerate(PLAYS)))
        return await _found(s, processes, played, phase, slow, fast)


async def _begin(s: Scene, account: str, play: Play, phase: float, slow: int, fast: int) -> Played:
    count = int(phase * (2 * slow + fast) / 3600)
    await s.account(account, slow)
    await s.submit(account, count)
    changes = await play(s, account, phase, slow, fast)
    await s.finished(account, SOON + 4 * phase)
    return Played(account, count, changes)


async def _done(s: Scene, what: str, verb: Awaitable[object], is_faster: bool | None = None) -> Change:
    asked = s.now()
    await verb
    return Change(what, asked, s.now(), is_faster)


async def hold(s: Scene, account: str, phase: float, slow: int, fast: int) -> list[Change]:
    await asyncio.sleep(phase)
    held = await _done(s, "hold", s.client.hold(account, "content"))
    await asyncio.sleep(WATCHED)
    return [held, await _done(s, "release", s.client.release(account, "content"), True)]


async def term(s: Scene, account: str, phase: float, slow: int, fast: int) -> list[Change]:
    ends = await s.redis_now() + phase
    await s.event(account, "subscription.renewed", ends=_moment(ends))
    at = await s.at(ends)
    await asyncio.sleep(phase + WATCHED)
    ended = Change("end of the term", at, at, None)
    return [ended, await _done(s, "renewal", s.event(account, "subscription.renewed", ends=None), True)]


async def cancel(s: Scene, account: str, phase: float, slow: int, fast: int) -> list[Change]:
    await asyncio.sleep(phase)
    return [await _done(s, "cancel of the send", s.client.cancel(f"{account}:bench"))]


async def tier(s: Scene, account: str, phase: float, slow: int, fast: int) -> list[Change]:
    await asyncio.sleep(phase)
    faster = await _done(s, "faster tier, event", s.event(account, "tier.changed", tier=f"{fast}"), True)
    await asyncio.sleep(phase)
    return [faster, await _done(s, "slower tier, event", s.event(account, "tier.changed", tier=f"{slow}"), False)]


async def boost(s: Scene, account: str, phase: float, slow: int, fast: int) -> list[Change]:
    await asyncio.sleep(phase)
    until = await s.redis_now() + phase
    begins = await _done(s, "boost, event", s.event(account, "boost.purchased", rate=f"{fast}", until=_moment(until)), True)
    at = await s.at(until)
    return [begins, Change("end of the boost", at, at, False)]


Play = Callable[[Scene, str, float, int, int], Awaitable[list[Change]]]
PLAYS: tuple[Play, ...] = (hold, term, cancel, tier, boost)


def _moment(redis_time: float) -> datetime:
    return datetime.fromtimestamp(redis_time, UTC)


async def _found(s: Scene, processes: int, played: Sequence[Played], phase: float, slow: int, fast: int) -> Found:
    late, resumed, turned, excess, whole = dict[str, float](), dict[str, float](), dict[str, float](), dict[str, float](), {}
    for own in played:
        times = s.times(own.account)
        whole[own.account] = await s.whole(own.account, own.count)
        first, *rest = own.changes
        if first.is_faster is None:
            opened = rest[0] if rest else None
            late[first.what] = max(at for at in times if opened is None or at < opened.asked) - first.returned
            if opened is not None:
                resumed[opened.what] = min(at for at in times if at >= opened.asked) - opened.returned
            excess[own.account] = burst(times, slow)
        else:
            second = rest[0]
            parts = [times, between(times, 0, second.returned), between(times, first.returned + WITHIN, times[-1] + 1)]
            late[first.what] = turn(parts[1], first.returned, phase, first.returned + WITHIN) - first.returned
            late[second.what] = turn(parts[2], second.returned, phase, second.returned + WITHIN) - second.returned
            before, amid, after = _stretches(times, first, second)
            turned |= {first.what: rate(amid) / rate(before), second.what: rate(after) / rate(amid)}
            excess[own.account] = max(burst(times, fast), burst(before, slow), burst(after, slow))
    workers = max(each.workers for each in whole.values())
    return Found(processes, late, resumed, turned, excess, whole, workers)


def _stretches(times: Sequence[float], faster: Change, slower: Change) -> tuple[list[float], list[float], list[float]]:
    """Under the rate before, the faster one, and the one after it: a second after each change, within which either may hold."""
    return (
        between(times, 0, faster.asked),
        between(times, faster.returned + WITHIN, slower.asked),
        between(times, slower.returned + WITHIN, times[-1] + 1),
    )


def result(found: Sequence[Found]) -> Result:
    first = found[0]
    names = {**dict.fromkeys(first.late), **dict.fromkeys(first.resumed)}
    rows = [[name, *(f"{1e3 * (own.late | own.resumed)[name]:+,.0f} ms" for own in found)] for name in names]
    figures = [
        *(figure_of(f"{name}: to the last MAIL under the old state, s", f"<= {WITHIN:g}", [own.late[name] for own in found],
                    max(own.late[name] for own in found) <= WITHIN) for name in first.late),
        *(figure_of(f"{name}: to the first MAIL, s", f"<= {WITHIN:g}", [own.resumed[name] for own in found],
                    max(own.resumed[name] for own in found) <= WITHIN) for name in first.resumed),
        figure_of("above the ceiling, over the whole ledger", "<= 0", [worst for own in found for worst in own.excess.values()],
                  max(worst for own in found for worst in own.excess.values()) <= 0, 1),
        Figure("lost, twice", "0, 0", f"{_sum(found, 'lost')}, {_sum(found, 'twice')}", all(own.is_whole for own in found)),
        Figure("every process sent", "yes", " ".join(f"{own.workers}/{own.processes}" for own in found),
               all(own.workers == own.processes for own in found)),
    ]  # fmt: skip
    series = {f"{own.processes} processes": [(float(place), 1e3 * late) for place, late in enumerate(own.late.values())] for own in found}
    columns = ["from its return", *(f"{own.processes} processes" for own in found)]
    return Result(TITLE, columns, rows, figures, Chart("change", "ms", series), {"found": msgspec.to_builtins(found)})


def _sum(found: Sequence[Found], what: str) -> int:
    return sum(getattr(whole, what) for own in found for whole in own.whole.values())
