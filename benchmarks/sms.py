"""SMS: submits a second by one bind with a window of 50, from the session alone and by a whole worker; and smpp34's own client beside them.

The trial centre runs in a process of its own, so that what is measured is ours; on two cores they still share the machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable

import orjson
import smpp34

from benchmarks.bench import Bench, Chart, Figure, Result, bench
from sendengine.channel.smpp.site import SmppSite
from sendengine.types import Attempt, Provider, Receipt
from sendengine.wiring import LoopClock

TITLE = "sms: submits a second over one SMPP bind, window 50"
WINDOW, WANTED = 50, 5_000
WITHIN = 180.0


async def run(quick: bool) -> Result:
    count, rounds = (3_000, 1) if quick else (50_000, 3)
    session, library, worker = [], [], []
    async with bench() as b:
        port = _centre(b)
        for _ in range(rounds):  # interleaved: what else the machine does meets all of them
            session.append(await _session(port, count))
            library.append(await _library(port, count))
        worker = [await _worker(b, port, count, at) for at in range(rounds)]
    return _result(session, library, worker)


def _centre(b: Bench) -> int:
    process = b.stage.start(sys.executable, "-m", "sendengine", "smsc", "--port", "0", "--receipts", "")
    return int(orjson.loads(b.stage._first_line(process))["listening"].rpartition(":")[2])


class _Sms:
    sender, recipient, wire, eightbit, is_alone = b"ACME", b"+46701234567", b"Your code is 123456. Do not tell it to anybody.", False, False


class _Feed:
    """So many messages, as fast as the session asks."""

    def __init__(self, count: int, ended: Callable[[], None]) -> None:
        self._left = self._open = count
        self._ended = ended
        self.sent = 0

    def next(self, in_company: bool = False) -> _Sms | None:
        if not self._left:
            return None
        self._left -= 1
        return _Sms()

    def done(self, delivery: object, attempt: Attempt) -> None:
        self._open -= 1
        self.sent += attempt.reply is not None and attempt.reply.code == 250
        if not self._open:
            self._ended()

    def receipt(self, receipt: Receipt) -> None: ...


async def _session(port: int, count: int) -> float:
    """The session and its site, without the engine."""
    ended = asyncio.Event()
    feed = _Feed(count, ended.set)
    provider = Provider(name="bench", kind="smpp", host="127.0.0.1", port=port, system_id="x", window=WINDOW)
    site = SmppSite(provider, feed, lambda: None, LoopClock(), lambda: 0.5)  # type: ignore[arg-type]
    began = time.perf_counter()
    site.wake()
    async with asyncio.timeout(WITHIN):
        await ended.wait()
    took = time.perf_counter() - began
    await site.close(5.0)
    assert feed.sent == count
    return count / took


async def _library(port: int, count: int) -> float:
    client = smpp34.Client("127.0.0.1", port, "x", "", bind_type="TRX", window_size=WINDOW)
    smsc = await client.connect()
    gate = asyncio.Semaphore(WINDOW)

    async def one() -> None:
        async with gate:
            answer = await smsc.submit_sm(_Sms.recipient[1:].decode(), _Sms.wire, source_addr="ACME", registered_delivery=1)
            assert answer.is_success

    began = time.perf_counter()
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*(one() for _ in range(count)))
    took = time.perf_counter() - began
    await smsc.unbind()
    return count / took


async def _worker(b: Bench, port: int, count: int, at: int) -> float:
    """From the first submit to the last, as the send's own times say."""
    account, table = f"m{at + 1}", b.stage.folder / "providers.toml"
    table.write_text(f'[trial]\nkind = "smpp"\nhost = "127.0.0.1"\nport = {port}\nsystem_id = "x"\nwindow = {WINDOW}\n')
    await b.client.create_account(account, "60k")
    await b.client.set_sms(account, rate="unmetered")
    await b.client.grant_credits(account, count * 4)
    rows = [{"phone": f"+4670{n:07}"} for n in range(count)]
    send = await b.client.submit_sms(account=account, sender="ACME", text=_Sms.wire.decode(), recipients=rows, campaign=f"bench{at}")
    worker = b.stage.worker("-p", "1", environ={"SENDENGINE_PROVIDERS_FILE": str(table)})
    status = await b.finished(send.campaign, WITHIN)
    await asyncio.to_thread(b.stage.stop, worker)
    assert status.sent == count
    assert status.started_at is not None
    assert status.through_at is not None
    return count / (status.through_at - status.started_at).total_seconds()


def _result(session: list[float], library: list[float], worker: list[float]) -> Result:
    named = {"our session": session, "smpp34's client": library, "a worker, journal and money with it": worker}
    rows = [[name, f"{min(each):,.0f}", f"{sorted(each)[len(each) // 2]:,.0f}", f"{max(each):,.0f}"] for name, each in named.items()]
    best, limit = max(session), max(library)
    figures = [
        Figure(
            "session, one bind, window 50", f">= {WANTED:,}/s, or the library's own limit", f"{best:,.0f}/s (smpp34 {limit:,.0f}/s)",
            best >= min(WANTED, limit),
        )
    ]  # fmt: skip
    columns = ["who", "least /s", "median /s", "most /s"]
    series = {name: [(float(at), value) for at, value in enumerate(each)] for name, each in named.items()}
    return Result(TITLE, columns, rows, figures, Chart("round", "submits/s", series), {**named, "cores": os.cpu_count()})
