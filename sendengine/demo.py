"""What `make run` shows: speed is what is sold, and the relay is the witness. Some 30 seconds, and nothing stays behind.

Two accounts send the same list side by side, then a list twice as long: one is on 1,000,000 messages an hour throughout, the other on
100,000 until it buys the faster tier in mid-send: an order, a payment, and billing's signed event. Every figure of the report comes from
the client or from the trial relay's ledger.
Exit status 1 when an identity does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes, token_hex

import msgspec
import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sendengine.client import Client
from sendengine.config import Config, billing_secrets
from sendengine.errors import SendEngineError
from sendengine.intake import Rejected
from sendengine.policy.billing import HEADER, SECRET_LEAST, Forged, sign
from sendengine.scheduler.status import Status
from sendengine.trial.letter import letter
from sendengine.trial.mails import read_ledger
from sendengine.trial.people import write_csv
from sendengine.trial.report import Check, Run, checks, report, save_picture
from sendengine.trial.stage import Stage
from sendengine.types import Relay, TlsPolicy

SIZES = (2000, 4000)
RAISE_AFTER = 4.0  # seconds into the send
GIVE_UP_AFTER = 120.0
_LOOK_S = 0.25
_LINE_S = 2.0


class Plan(msgspec.Struct, frozen=True):
    """One account: its tier at first, and the one it buys in the middle of its first send."""

    account: str
    tier: str
    raised_to: str = ""


PLANS = (Plan("m1001", "1m"), Plan("m1002", "100k", raised_to="1m"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sendengine.demo", description="Two accounts, two lists, one trial relay.")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="save a picture of the report")
    options = parser.parse_args()
    console = Console()
    try:
        with Stage() as stage:
            runs, checked = asyncio.run(_show(stage, console))
    except KeyboardInterrupt:
        print("stopped; nothing stays behind", file=sys.stderr)
        return 130
    except SendEngineError as error:
        print(f"error: {error}" + (f" ({error.remedy})" if error.remedy else ""), file=sys.stderr)
        return error.exit_code
    console.print(report(runs, checked))
    if options.svg:
        save_picture(report(runs, checked), options.svg)
    return 0 if all(check.holds for check in checked) else 1


async def _show(stage: Stage, console: Console) -> tuple[list[Run], list[Check]]:
    lists = [stage.folder / f"people-{size}.csv" for size in SIZES]
    for size, path in zip(SIZES, lists, strict=True):
        write_csv(path, size)
    relay = stage.relay()
    stage.worker()
    console.print(
        f"A server, a trial relay on port {relay.port} and a worker run in {stage.folder}.\n"
        f"{PLANS[0].account} sends at 1,000,000 messages an hour; {PLANS[1].account} begins at 100,000 and buys more in mid-send."
    )
    secret = stage.folder / "billing-secret"
    secret.write_text(token_hex(SECRET_LEAST))
    async with Client(stage.url, config=Config(billing_secrets_file=str(secret))) as client, asyncio.timeout(GIVE_UP_AFTER):
        for plan in PLANS:
            await client.create_account(plan.account, plan.tier, relay=Relay("127.0.0.1", relay.port, tls=TlsPolicy.NONE))
        with Progress(console) as progress:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_send_lists(client, stage, plan, lists, progress)) for plan in PLANS]
        runs = [run for task in tasks for run in task.result()]
        stage.stop(relay.process)  # it writes down what it still holds
        mails = read_ledger(relay.ledger.read_bytes())
        witnessed = []
        for run in runs:
            sent = [outcome.message_id async for outcome in client.outcomes(run.send.id) if outcome.outcome == "sent"]
            own = set(sent)
            witnessed.append(msgspec.structs.replace(run, sent=sent, mails=[mail for mail in mails if mail.message_id in own]))
    return witnessed, checks(witnessed, len(mails) - sum(len(run.mails) for run in witnessed))


async def _send_lists(client: Client, stage: Stage, plan: Plan, lists: list[Path], progress: Progress) -> list[Run]:
    """One list after the other; the tier is raised in the first send."""
    return [await _send(client, stage, plan, path, plan.raised_to if path is lists[0] else "", progress) for path in lists]


async def _send(client: Client, stage: Stage, plan: Plan, path: Path, raise_to: str, progress: Progress) -> Run:
    rejected: list[Rejected] = []
    send = await client.submit(
        account=plan.account,
        message=letter(f"Corner House Books <books@{plan.account}.example>"),
        recipients=path,
        campaign=f"summer-{path.stem.rpartition('-')[2]}",
        on_reject=rejected.extend,
    )
    promised, raised = send.finish_estimate, None
    while True:
        now = await client.status(send.id)
        progress.show(now)
        if now.finished_at is not None:
            return Run(send=send, final=now, promised=promised, raised=raised, rejected=rejected, sent=(), mails=())
        if raise_to and raised is None and now.started_at and _seconds_since(now.started_at) >= RAISE_AFTER:
            await _buy(client, plan.account, raise_to, progress)
            account = await client.account(plan.account)
            raised = time.time(), account.rate or 0.0
            promised = (await client.status(send.id)).finish_estimate
            progress.say(f"{plan.account} is raised to {account.rate:,.0f} messages an hour")
        if (trouble := stage.ended()) is not None:
            raise SendEngineError(trouble)
        await asyncio.sleep(_LOOK_S)


async def _buy(client: Client, account: str, tier: str, progress: Progress) -> None:
    """As billing sells it: an order, which changes nothing; somebody else's word for its payment, which is refused; the payment, signed."""
    head = {"account": account, "at": datetime.now(UTC).isoformat(), "who": "the shop", "order": "order-1"}
    order = {"id": "evt_1", "sequence": 1, "type": "tier.changed", "tier": tier, "paid": False, **head}
    payment = orjson.dumps({"id": "evt_2", "sequence": 2, "type": "payment.received", **head})
    own = billing_secrets(client.config)
    await _bring(client, orjson.dumps(order), own)
    progress.say(f"{account} orders {tier}: unpaid, it still has {(await client.account(account)).rate:,.0f} messages an hour")
    try:
        await _bring(client, payment, [token_bytes(SECRET_LEAST)])
        raise SendEngineError("a forged payment was taken")
    except Forged as error:
        progress.say(f"a payment that a stranger signed is refused: {error}")
    await _bring(client, payment, own)
    progress.say(f"{account} has paid: billing's signed event came to its account")


async def _bring(client: Client, event: bytes, secrets: Sequence[bytes]) -> None:
    await client.apply_event(event, {HEADER: sign(event, secrets, time.time())})


def _seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()


class Progress:
    """A table that changes, or, where standard output is no terminal, a line for each send now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._shown: dict[str, Status] = {}
        self._said_at: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, words: str) -> None:
        self._console.print(words, soft_wrap=True, highlight=False)

    def show(self, send: Status) -> None:
        self._shown[send.campaign] = send
        if self._live is not None:
            self._live.update(self._table())
        elif send.finished_at or time.monotonic() - self._said_at.get(send.campaign, 0.0) >= _LINE_S:
            self._said_at[send.campaign] = time.monotonic()
            name, sent, contracted, achieved, end = _cells(send)
            self.say(f"{name:17} {sent:>14} sent, {achieved:>9} of {contracted:>9} an hour, finish {end}")

    def _table(self) -> Table:
        table = Table("send", "sent", "contracted /h", "achieved /h", "finish time (UTC)")
        for send in self._shown.values():
            table.add_row(*_cells(send))
        return table


def _cells(send: Status) -> tuple[str, ...]:
    end = send.through_at or send.finish_estimate
    return (
        send.campaign,
        f"{send.sent:,} of {send.accepted:,}",
        _rate(send.rate_contracted),
        _rate(send.rate_achieved),
        f"{end:%H:%M:%S}" if end else "-",
    )


def _rate(per_hour: float | None) -> str:
    return "-" if per_hour is None else f"{per_hour:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
