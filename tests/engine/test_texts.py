"""A relay that says something else each time costs a bounded number of texts, each of bounded length, and nothing else."""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec
import pytest

from sendengine.client import Client
from sendengine.config import Config
from sendengine.engine import texts
from sendengine.engine.texts import CODES_MOST, TEXTS_MOST, Texts
from sendengine.policy import verdict
from sendengine.reply import MAX_TEXT
from sendengine.types import Attempt, Outcome, Reply, Stage
from tests.engine.rig import Rig
from tests.engine.smtp_relay import SmtpRelay, start
from tests.engine.virtual import run_virtually


def test_texts_beyond_the_bound_become_codes_and_then_classes() -> None:
    journalled: list[bytes] = []
    known = Texts(lambda text: journalled.append(text) or len(journalled) - 1)  # type: ignore[func-returns-value]

    def said(number: int) -> tuple[str, str, str]:
        return msgspec.json.decode(journalled[number], type=tuple[str, str, str])

    numbers = [known.number("relay", "5.1.1", f"550 5.1.1 no {'x' * n}", "550 5.1.1") for n in range(TEXTS_MOST + 50)]
    assert len(set(numbers)) == TEXTS_MOST + 1
    assert said(numbers[-1]) == ("5.1.1", "550 5.1.1", "relay")
    numbers = [known.number("relay", f"5.1.{n}", f"550 5.1.{n} no", f"550 5.1.{n}") for n in range(1000)]
    assert said(numbers[-1]) == ("5.0.0", "", "relay")
    assert len(journalled) == TEXTS_MOST + CODES_MOST + 1
    assert said(known.number("relay", "5.1.1", "550 5.1.1 no x", "550 5.1.1")) == ("5.1.1", "550 5.1.1 no x", "relay")
    assert said(known.number("other", "5.1.1", "550 5.1.1 unknown", "550 5.1.1")) == ("5.1.1", "550 5.1.1 unknown", "other")


def test_a_relay_with_another_long_text_for_each_account_and_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "TEXTS_MOST", 20)
    monkeypatch.setattr(texts, "CODES_MOST", 10)
    serial = count()

    def at_rcpt(name: str) -> str:
        return f"550 5.{next(serial) % 900}.1 no {'at all ' * (next(serial) % 150)} {'much too long ' * 150}"

    async def talking() -> None:
        SmtpRelay(monkeypatch, at_rcpt)
        rig = Rig()
        for n in range(1, 6):
            await rig.account(f"m{n}")
            await rig.submit(100, account=f"m{n}")
        worker = start(rig)
        for n in range(1, 6):
            await rig.until_ended(account=f"m{n}")
            assert await rig.outcomes(account=f"m{n}") == {Outcome.BOUNCED: 100}
        replies = [value for name, value in rig.store.journals[worker.id].items() if name[:1] == b"R"]
        assert 30 < len(replies) <= 32
        assert max(map(len, replies)) < MAX_TEXT + 100
        async with Client(desk=rig.desk, config=Config()) as client:
            found = [outcome async for outcome in client.outcomes("m1:c1")]
        assert {outcome.status[0] for outcome in found} == {"5"}
        await rig.stop()

    run_virtually(talking())


def test_what_binds_an_account_is_one_text_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    serial = count()

    async def refusing() -> None:
        relay, rig = SmtpRelay(monkeypatch), Rig()
        relay.at_mail = lambda: f"451 4.7.{next(serial) % 900} not now {'because of this and that ' * 80}"
        for n in range(1, 4):
            await rig.account(f"m{n}")
            await rig.submit(20, account=f"m{n}")
        worker = start(rig)
        await asyncio.sleep(600)
        assert next(serial) >= 6
        for state in rig.store.accounts.values():
            assert state.fields["bind"].startswith("relay|")
            assert len(state.fields["bind"]) < MAX_TEXT + 300
        assert not [name for name in rig.store.journals[worker.id] if name[:1] == b"R"]
        rig.kill()

    run_virtually(refusing())


@pytest.mark.interpreted
def test_statuses_that_a_relay_makes_up_are_not_remembered_for_ever() -> None:
    for n in range(1000):
        sent = Attempt(Stage.DOT, Reply(250, f"2.{n}.0", "Ok"), None, 0.0, 0.0)
        assert verdict.judge(sent, 0, 0.0, None, None).status == f"2.{n}.0"  # type: ignore[arg-type]
    assert len(verdict._SENT) <= verdict._SENT_MOST
