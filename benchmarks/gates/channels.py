"""E-mail and SMS of one account at once, on the wire: the rate of the one with and without the other; one hold stops both.

E-mail sends alone, then beside SMS, then alone again once these are through; then both are held, and released.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from benchmarks.bench import Figure, Result, figure_of
from benchmarks.gates.centre import centre, phones
from benchmarks.gates.scene import SOON, WATCHED, WITHIN, Whole, between, burst, rate, scene
from benchmarks.plots import Chart

TITLE = "gates.channels: e-mail and SMS of one account"
MAIL, SMS = 100_000, 180_000
_ACCOUNT, _LANE, _RAMP_S, _WANTED = "m1001", "m1001/sms", 1.0, 0.01


class Found(msgspec.Struct, frozen=True):
    alone: float  # e-mail a second, by their spacing
    beside: float  # while SMS go
    sms: float  # SMS a second meanwhile
    late: dict[str, float]  # channel -> seconds from the hold's return to the last on the wire
    resumed: dict[str, float]  # channel -> seconds from the release's return to the first
    excess: dict[str, float]  # above the ceiling of each lane
    whole: Whole  # of e-mail
    sms_lost: int
    sms_twice: int
    times: dict[str, list[float]]

    @property
    def change(self) -> float:
        return self.beside / self.alone - 1


async def run(quick: bool) -> Result:
    return result(await measure(5.0 if quick else 40.0))


async def measure(phase: float, mail: int = MAIL, sms: int = SMS) -> Found:
    async with scene() as s:
        c = centre(s)
        await s.account(_ACCOUNT, mail)
        await s.client.set_sms(_ACCOUNT, rate=f"{sms}")
        mails, texts = int(mail / 3600 * (2 * phase + _RAMP_S + 3)), int(sms / 3600 * (phase + 2))
        await s.client.grant_credits(_ACCOUNT, texts * 10)
        await s.workers(2, c.environ)
        await s.submit(_ACCOUNT, mails)
        await asyncio.sleep(phase + _RAMP_S)
        began = s.now()
        await s.client.submit_sms(account=_ACCOUNT, sender="ACME", text="Hello", recipients=phones(texts), campaign="sms")
        await asyncio.sleep(phase)
        asked = s.now()
        await s.client.hold(_ACCOUNT, "content")
        held = s.now()
        await asyncio.sleep(WATCHED)
        opened = s.now()
        await s.client.release(_ACCOUNT, "content")
        released = s.now()
        await s.finished(_ACCOUNT)
        await s.bench.finished(f"{_LANE}:sms", SOON)
        times = {"e-mail": s.times(_ACCOUNT), "SMS": [line["at"] for line in c.lines()]}
        came = Counter(line["to"] for line in c.lines())
        return Found(
            alone=rate(between(times["e-mail"], times["e-mail"][0] + _RAMP_S, began)),
            beside=rate(between(times["e-mail"], times["SMS"][0], asked)),
            sms=rate(between(times["SMS"], 0, asked)),
            late={name: max(between(own, 0, opened)) - held for name, own in times.items()},
            resumed={name: min(between(own, opened, float("inf"))) - released for name, own in times.items()},
            excess={"e-mail": burst(times["e-mail"], mail), "SMS": burst(times["SMS"], sms)},
            whole=await s.whole(_ACCOUNT, mails),
            sms_lost=texts - len(came),
            sms_twice=came.total() - len(came),
            times=times,
        )


def result(found: Found) -> Result:
    both = found.late, found.resumed
    delays = [[f"{name}, hold and release", *(f"{1e3 * each[name]:+,.0f} ms" for each in both)] for name in found.late]
    rows = [
        ["rate of e-mail alone", f"{found.alone:.3f}/s", ""],
        ["beside SMS", f"{found.beside:.3f}/s", f"{100 * found.change:+.3f} %; SMS {found.sms:.2f}/s"],
        *delays,
    ]
    figures = [
        figure_of("e-mail beside SMS against alone, %", "within 1", [100 * found.change], abs(found.change) <= _WANTED),
        _bound("hold to the last on the wire, s", list(found.late.values())),
        _bound("release to the first, s", list(found.resumed.values())),
        figure_of("above the ceiling, over both ledgers", "<= 0", list(found.excess.values()), max(found.excess.values()) <= 0, 1),
        Figure("e-mail lost, twice", "0, 0", f"{found.whole.lost}, {found.whole.twice}", found.whole.is_whole),
        Figure("SMS lost, twice", "0, 0", f"{found.sms_lost}, {found.sms_twice}", found.sms_lost == found.sms_twice == 0),
    ]
    first = found.times["e-mail"][0]
    series = {name: [(at - first, float(place + 1)) for place, at in enumerate(own)] for name, own in found.times.items()}
    chart = Chart("seconds", "messages so far", series, "-")
    return Result(TITLE, ["", "", ""], rows, figures, chart, msgspec.to_builtins(found))


def _bound(what: str, values: Sequence[float]) -> Figure:
    return figure_of(what, f"<= {WITHIN:g}", values, max(values) <= WITHIN)
