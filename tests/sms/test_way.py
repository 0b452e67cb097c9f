"""The whole way of an SMS: from the list to the receipt, with a centre that misbehaves; what it costs at each end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from sendengine.errors import Conflict, RefusedInput
from sendengine.policy.suppression import Listed
from sendengine.render.message import Message
from tests.sms.shop import NUMBERS, ledger, restarted, shop, taken

PRICE = 2  # of a part to Sweden


async def test_hundred_sms_of_which_thirty_are_rejected_cost_the_price_of_a_hundred(tmp_path: Path) -> None:
    async with shop(tmp_path, reject=tuple(f"0x0b@+467000000{ten}" for ten in range(3))) as (it, centre):
        await it.open(1000)
        await it.submit(100)
        assert await it.sums() == {"reserved": 100 * PRICE, "spent": 0, "free": 1000 - 100 * PRICE}
        it.work()
        status = await it.ended()
        assert (status.sent, status.bounced) == (70, 30)
        assert await it.sums() == {"reserved": 0, "spent": 100 * PRICE, "free": 1000 - 100 * PRICE}
        assert (centre.counts["accepted"], centre.counts["rejected"]) == (70, 30)
        assert sorted(line["to"] for line in ledger(tmp_path)) == NUMBERS[:100]


async def test_receipts_come_to_their_recipients_and_give_nothing_back(tmp_path: Path) -> None:
    async with shop(tmp_path, receipts="UNDELIV") as (it, _):
        await it.open(1000)
        await it.submit(20, text="x" * 200)
        it.work()
        status = await it.ended()
        assert status.sent == 20

        async def are_told() -> bool:
            return (await it.client.status("a")).undelivered == 20

        await it.until(are_told)
        found = await it.outcomes()
        assert {(each.outcome, each.receipt and each.receipt.state) for each in found} == {("sent", "UNDELIV")}
        assert await it.sums() == {"reserved": 0, "spent": 40 * PRICE, "free": 1000 - 40 * PRICE}


async def test_merge_fields_are_priced_as_they_are_filled_and_sent_as_they_are_priced(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(1000)
        rows = [{"phone": number, "name": "n" * (150 + at)} for at, number in enumerate(NUMBERS[:20])]
        cost = await it.client.sms_cost("m1", "Hi {{ name }}", [*rows, rows[0], {"phone": "nobody", "name": "x"}])
        assert (cost.recipients, cost.rejected, cost.duplicates, cost.parts) == (20, 1, 1, 8 + 2 * 12)
        await it.client.submit_sms(account="m1", sender="ACME", text="Hi {{ name }}", recipients=rows, campaign="a")
        it.work()
        await it.ended()
        assert (await it.sums())["spent"] == cost.credits == 32 * PRICE
        assert len(ledger(tmp_path)) == cost.parts


async def test_answer_that_is_lost_is_a_doubt_sent_again_once(tmp_path: Path) -> None:
    async with shop(tmp_path, {"answer_s": 0.4}, drop=("1@+46700000003",)) as (it, _):
        await it.open(1000)
        await it.submit(10)
        it.work()
        status = await it.ended()
        assert (status.sent, status.unknown) == (9, 1)
        assert taken(tmp_path) == Counter(dict.fromkeys(NUMBERS[:10], 1)) + Counter({NUMBERS[3]: 1})
        assert (await it.sums())["spent"] == 10 * PRICE


async def test_answer_that_is_lost_is_not_sent_again_on_hold(tmp_path: Path) -> None:
    async with shop(tmp_path, hang_up=("1@+46700000003",)) as (it, _):
        await it.open(1000)
        await it.submit(10, on_doubt="hold")
        it.work()
        status = await it.ended()
        assert (status.sent, status.unknown) == (9, 1)
        assert taken(tmp_path) == Counter(dict.fromkeys(NUMBERS[:10], 1))


async def test_connection_that_breaks_leaves_at_most_a_window_in_doubt_and_nobody_out(tmp_path: Path) -> None:
    async with shop(tmp_path, {"window": 10}, hang_up=("0.02",)) as (it, centre):
        await it.open(10_000)
        await it.submit(300)
        it.work()
        status = await it.ended()
        assert status.sent + status.unknown == 300
        got, found = taken(tmp_path), await it.outcomes()
        assert {each.recipient for each in found if each.outcome == "sent"} <= set(got)
        assert sum(got.values()) - len(got) <= 10 * centre.counts["hung_up"]
        assert all(n == 1 or each.possible_duplicate or each.outcome == "unknown" for each in found if (n := got[each.recipient]))
        assert (await it.sums())["spent"] == 300 * PRICE


async def test_centre_that_throttles_is_sent_to_more_slowly_and_nobody_twice(tmp_path: Path) -> None:
    async with shop(tmp_path, rate="60/s") as (it, centre):
        await it.open(10_000)
        await it.submit(150)
        it.work()
        status = await it.ended()
        assert status.sent == 150
        assert taken(tmp_path) == Counter(dict.fromkeys(NUMBERS[:150], 1))
        assert centre.counts["throttled"] > 0
        assert {each.attempts for each in await it.outcomes()} == {1}


async def test_centre_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    async with shop(tmp_path, delay=0.02) as (it, centre):
        port = it.provider.port
        await it.open(10_000, rate="360k")
        await it.submit(200)
        it.work()

        async def some_went() -> bool:
            return centre.counts["accepted"] >= 40

        async def is_told() -> bool:
            bound = await it.client.why("m1/sms")
            return bound is not None and bound.limit == "site" and "trial" in bound.lift

        await it.until(some_went)
        await centre.stop()
        await it.until(is_told)
        again = await restarted(centre, port)
        try:
            status = await it.ended()
        finally:
            await it.rest()
            await again.stop()
        assert status.sent + status.unknown == 200
        assert {each.recipient for each in await it.outcomes() if each.outcome == "sent"} <= set(taken(tmp_path))


async def test_wrong_password_holds_the_send_and_bounces_nobody(tmp_path: Path) -> None:
    async with shop(tmp_path, password="right") as (it, _):
        await it.open(1000)
        await it.submit(5)
        it.work()

        async def is_told() -> bool:
            bound = await it.client.why("a")
            return bound is not None and "the bind is refused" in bound.lift

        await it.until(is_told)
        assert (await it.client.status("a")).pending == 5
        assert await it.sums() == {"reserved": 10, "spent": 0, "free": 990}


async def test_pause_resume_and_cancel_act_as_for_mail_and_a_cancel_gives_the_rest_back(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(1000, rate="36000")
        await it.submit(100)
        it.work()

        async def some_went() -> bool:
            return (await it.client.status("a")).sent >= 5

        await it.until(some_went)
        assert (await it.client.pause("m1:a")).state == "paused"
        assert (await it.client.resume("m1/sms:a")).state == "sending"
        await it.client.cancel("a")
        status = await it.ended()
        assert status.sent + status.cancelled == 100
        sent = sum(taken(tmp_path).values())
        assert await it.sums() == {"reserved": 0, "spent": sent * PRICE, "free": 1000 - sent * PRICE}


async def test_missing_ones_are_sent_to_again_and_paid_for_again(tmp_path: Path) -> None:
    async with shop(tmp_path, reject=("0x0b@+46700000001",)) as (it, centre):
        await it.open(1000)
        await it.submit(4, text="hi {{ phone }}")
        it.work()
        assert (await it.ended()).bounced == 1
        centre._reject.clear()
        again = await it.client.resend("a")
        assert (again.id, again.accepted) == ("m1/sms:a-r1", 1)
        assert (await it.ended("a-r1")).sent == 1
        assert ledger(tmp_path)[-1]["octets"] == b"hi +46700000001".hex()
        assert (await it.sums())["spent"] == 5 * PRICE


async def test_list_that_is_too_dear_goes_on_once_more_is_bought_and_nothing_went_before(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, centre):
        await it.open(500)
        it.work()
        with pytest.raises(Conflict, match="stands as lot 1 with 500 credits"):
            await it.client.grant_credits("m1", 300, key="first")
        with pytest.raises(RefusedInput, match="row 200") as refused:
            await it.submit(400)
        assert "credits grant" in refused.value.remedy
        assert centre.counts["accepted"] == 0
        await it.client.grant_credits("m1", 300)
        await it.submit(400)
        assert (await it.ended()).sent == 400
        assert await it.sums() == {"reserved": 0, "spent": 800, "free": 0}


async def test_same_call_again_changes_nothing_and_costs_nothing(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(1000)
        await it.submit(10)
        await it.submit(10)
        assert (await it.sums())["reserved"] == 20
        for other in ({"text": "another"}, {"region": "SE"}):
            with pytest.raises(Conflict, match="exists with another"):
                await it.submit(10, **other)
        mail = Message(sender="a@example.com", subject="s", text="t")
        with pytest.raises(Conflict, match="other channel"):
            await it.client.submit(account="m1", message=mail, recipients=[{"email": "a@example.com"}], campaign="a")
        assert (await it.client.status("m1:a")).campaign == "m1/sms:a"


async def test_hold_stops_sms_within_a_second_and_its_lifting_resumes_them(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, centre):
        await it.open(1000, rate="72000")
        await it.submit(60)
        it.work()

        async def some_went() -> bool:
            return centre.counts["accepted"] >= 10

        await it.until(some_went)
        await it.client.hold("m1", "content", text="look at it")
        at = time.time()
        await asyncio.sleep(1.5)  # what is claimed is a bound in time
        assert [line["at"] - at for line in ledger(tmp_path) if line["at"] > at + 1.0] == []
        for name in ("m1/sms", "a"):
            bound = await it.client.why(name)
            assert bound is not None
            assert bound.limit == "hold"
        with pytest.raises(Conflict, match="held"):
            await it.submit(1, "b")
        await it.client.release("m1", "content")
        assert (await it.ended()).sent == 60
        assert taken(tmp_path) == Counter(NUMBERS[:60])
        assert await it.sums() == {"reserved": 0, "spent": 120, "free": 880}


async def test_number_on_the_list_of_the_suppressed_gets_nothing_and_costs_nothing(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(1000)
        assert await it.client.suppress("m1", ["+46 70-000 00 03", "a@example.com"], "unsubscribed") == Listed(2)
        await it.submit(6)
        await it.client.suppress("m1", [NUMBERS[5]])  # after the list was frozen, before it went
        it.work()
        status = await it.ended()
        assert (status.sent, status.suppressed) == (4, 2)
        assert sorted(taken(tmp_path)) == [*NUMBERS[:3], NUMBERS[4]]
        assert await it.sums() == {"reserved": 0, "spent": 8, "free": 992}
        assert [each.address async for each in it.client.suppressed("m1", [NUMBERS[3], NUMBERS[4]])] == [NUMBERS[3]]
        with pytest.raises(RefusedInput, match="no account id"):
            await it.client.suppress("m1/sms", [NUMBERS[0]])


async def test_single_sms_goes_ahead_of_bulk_and_costs_what_it_says(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(1000, rate="36000")
        await it.submit(100)
        said = {"account": "m1", "sender": "My Bank", "text": "Your code: {{ code }}", "to": NUMBERS[500], "key": "login-1"}
        made = await it.client.send_sms(fields={"code": "1234"}, **said)
        assert (made.campaign, made.account, made.recipient, made.index) == ("m1/sms:transactional", "m1", NUMBERS[500], 0)
        assert await it.client.send_sms(fields={"code": "1234"}, **said) == made
        with pytest.raises(Conflict, match="another message of m1 has the key 'login-1'"):
            await it.client.send_sms(fields={"code": "4321"}, **said)
        assert await it.sums() == {"reserved": 101 * PRICE, "spent": 0, "free": 1000 - 101 * PRICE}
        it.work()
        await it.ended()
        told = ledger(tmp_path)
        [single] = [line for line in told if line["to"] == NUMBERS[500]]
        assert (single["from"], bytes.fromhex(single["octets"])) == ("My Bank", b"Your code: 1234")
        assert [line["to"] for line in told].index(NUMBERS[500]) < 5
        assert await it.sums() == {"reserved": 0, "spent": 101 * PRICE, "free": 1000 - 101 * PRICE}
        [outcome] = await it.outcomes("m1/sms:transactional")
        assert (outcome.outcome, outcome.recipient, outcome.message_id) == ("sent", NUMBERS[500], "")


async def test_single_sms_that_cannot_be_paid_for_or_sent_is_refused(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(1)
        said = {"account": "m1", "sender": "ACME", "text": "hello", "to": NUMBERS[0]}
        with pytest.raises(RefusedInput, match="it costs 2 credits, 1 are free: nothing was sent") as refused:
            await it.client.send_sms(**said)
        assert "credits grant --account m1" in refused.value.remedy
        for wrong in ({"to": "nobody"}, {"sender": "much too long a name"}, {"text": "{{ code }}"}, {"to": "+99900001"}, {"region": "XX"}):
            with pytest.raises(RefusedInput):
                await it.client.send_sms(**said | wrong)
        await it.client.grant_credits("m1", 1, key="second")
        await it.client.send_sms(**said)
        assert await it.sums() == {"reserved": 2, "spent": 0, "free": 0}


async def test_single_messages_of_both_channels_have_names_of_their_own(tmp_path: Path) -> None:
    async with shop(tmp_path) as (it, _):
        await it.open(10)
        await it.client.send(account="m1", message=Message(sender="a@x.org", subject="x", text="x"), to="b@x.org")
        await it.client.send_sms(account="m1", sender="ACME", text="hello", to=NUMBERS[0])
        for name in ("m1:transactional", "m1/sms:transactional"):
            assert (await it.client.status(name)).campaign == name
