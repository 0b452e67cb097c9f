"""An account with everything that one can own, come by in the ways of the product: sends in each state with rows in each place, what killed
workers left, both channels, money, keys, webhooks, suppression, billing's queue; and a neighbour with the same, whose name begins with its.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import orjson

from benchmarks.bench import children, message
from benchmarks.gates.centre import Centre, centre, phones
from benchmarks.gates.scene import Scene, until
from benchmarks.letter import rows
from sendengine.policy.term import DAY
from sendengine.queue import keys
from sendengine.queue.link import Link

DOOMED, NEIGHBOUR = "m1001", "m10010"
FLAGS = (
    "--delay", "dot=0.2", "--reject", "rcpt=451@reader7", "--reject", "rcpt=550 5.1.1 nobody@reader5",
    "--reject", "rcpt=550 5.2.1 busy@reader6",
)  # fmt: skip
_QUICK = {"SENDENGINE_ENGINE_DEAD_AFTER_S": "2"}
_PER_HOUR = 360_000
_LONG = 1500  # rows that no worker gets through with

# Kinds of keys that stand under {m…} then, by what is behind the account, or behind a send of it (queue/keys.py).
OWN = ("", ":sends", ":open", ":run", ":ready", ":again", ":line", ":at", ":lease", ":sup", ":late", ":soft", ":health", ":events",
       ":early", ":orders", ":hooks", ":hooked", ":due", ":out", "/sms", "/sms:sends", "/sms:lease", "/sms:lots", "/sms:money")  # fmt: skip
OF_SENDS = ("", ":m", ":p", ":q0", ":b", ":r", ":w", ":d", ":o", ":x", ":i", ":f0", ":$", ":s")


async def build(s: Scene) -> None:
    """Both accounts; the workers are dead when it returns, and the grace of the first is over."""
    c = centre(s)
    first = await s.workers(1, {**_QUICK, **c.environ})
    for account in (DOOMED, NEIGHBOUR):
        await _sends(s, account)
    await until(lambda: _all_stand(s, ":c:done:r", ":c:done:o", "/sms:c:sms-done:s"))
    await _kill(first)
    second = await s.workers(2, {**_QUICK, **c.environ})  # the first one, until it is found dead, and its successor
    await until(lambda: _all_stand(s, ":c:run:d"))
    for account in (DOOMED, NEIGHBOUR):
        await s.client.pause(f"{account}:line-1")
        await s.client.cancel(f"{account}:dropped")
    await until(lambda: _all_stand(s, ":c:line-1:b", ":lease", "/sms:lease"))
    await _kill(second)
    for account in (DOOMED, NEIGHBOUR):
        await _rest(s, account)
    await _end(s, c)


async def _sends(s: Scene, account: str) -> None:
    client = s.client
    await s.account(account, _PER_HOUR)
    await s.event(account, "subscription.renewed", ends=None)
    await client.set_sms(account, rate=f"{_PER_HOUR}")
    await client.grant_credits(account, 100_000)
    await client.submit_sms(account=account, sender="ACME", text="Hi", recipients=phones(20), campaign="sms-done")
    await client.submit_sms(account=account, sender="ACME", text="Hi {{ phone }}", recipients=phones(_LONG), campaign="sms-run")
    letter = message(account)
    await client.submit(account=account, message=letter, recipients=rows(account, 60), campaign="done")
    for name in ("run", "dropped"):
        await client.submit(account=account, message=letter, recipients=rows(account, _LONG), campaign=name)
    for name in ("line-1", "line-2"):
        await client.submit(account=account, message=letter, recipients=rows(account, _LONG), campaign=name, sequential=True)
    tomorrow = datetime.now(UTC) + timedelta(1)
    await client.submit(account=account, message=letter, recipients=rows(account, 10), campaign="later", at=tomorrow)
    await client.open(account=account, message=letter, campaign="open")
    await client.load(f"{account}:open", _in_pieces(account, 150))


async def _in_pieces(account: str, count: int) -> AsyncIterator[bytes]:
    """A list that does not come to its end, as NDJSON."""
    for row in rows(account, count):
        yield orjson.dumps(row) + b"\n"


async def _rest(s: Scene, account: str) -> None:
    """What needs no worker, or would be gone while one works."""
    client, now = s.client, await s.redis_now()
    until_ = datetime.fromtimestamp(now + 3600, UTC)
    await client.send(account=account, message=message(account), to="one@example.org", fields={"first_name": "A", "city": "B"})
    await client.suppress(account, [f"gone{n}@example.org" for n in range(3)], "complained")
    await client.suppress(account, ["+46701234567"])
    await client.boost(account, "500000", until=until_, why="sale")
    await client.create_key(account, scopes=["read", "send"], seat="Ann")
    hook = await client.create_hook(account, "https://hooks.example.org/in", ["send.finished"])
    await client.try_hook(account, hook.id)
    await s.event(account, "tier.changed", tier="400000", order="o-1", paid=False)
    await s.event(account, "seats.changed", ahead=3, seats=4)
    await client.hold(account, "content", text="looked at")


async def _end(s: Scene, c: Centre) -> None:
    await asyncio.to_thread(s.stage.stop, c.process)
    ends = await s.redis_now() - 11 * DAY
    assert (await s.client.desk.set_gate(DOOMED, {}, {"term": "active", "term_ends": f"{ends * 1e6:.0f}"})).status == "done"


async def _kill(worker: subprocess.Popen[bytes]) -> None:
    processes = children(worker)
    worker.kill()  # before them: it would start others
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(worker.wait)


async def _all_stand(s: Scene, *behind: str) -> bool:
    link = Link(s.stage.url)
    try:
        return all([await link.call("EXISTS", keys.account(account) + each) for account in (DOOMED, NEIGHBOUR) for each in behind])
    finally:
        await link.close()


def missing(names: set[str]) -> list[str]:
    """Kinds of keys that the account does not own."""
    own = keys.account(DOOMED)
    behind = {name.removeprefix(own) for name in names if name.startswith(own)}
    parts = {re.sub(r"^(/sms)?:c:[^:]+", "", each) for each in behind if ":c:" in each}
    return [kind for kind in OWN if kind not in behind] + [f":c:ID{kind}" for kind in OF_SENDS if kind not in parts]
