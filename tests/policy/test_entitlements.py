"""What each event makes of an account's fields."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from sendengine import config
from sendengine.config import Config
from sendengine.errors import ConfigError, Conflict, RefusedInput
from sendengine.policy.billing import AnyEvent, decode
from sendengine.policy.credits import good_until
from sendengine.policy.entitlements import Change, Edition, Offer, admit, change_of, changes_of, check, entitlements_of, lacking
from sendengine.policy.grants import Words, encode, grants_of, rate_at
from sendengine.policy.term import DAY, Phase, term_of
from sendengine.policy.tiers import Tier
from sendengine.policy.times import format_time

NOW = 1_800_000_000.0
TIERS = {"5k": Tier("5k", 5000.0, ""), "60k": Tier("60k", 60_000.0, ""), "unmetered": Tier("unmetered", None, "")}
OFFER = Offer(TIERS, {"plus": Edition("plus", "Plus", "60k", ("email", "sms"), 3)}, "36000")
BEFORE = {"tier": "5k", "rate": "5000.0", "iv": "720000.000", "seats": "1"}


def event(type_: str, **said: Any) -> AnyEvent:
    return decode(orjson.dumps({"id": "e1", "account": "m1", "sequence": 1, "at": format_time(NOW), "type": type_, **said}))


def after(fields: dict[str, str], change: Change) -> dict[str, str]:
    assert all(fields.get(name, "") == value for name, value in change.seen.items())
    return {name: value for name, value in {**fields, **change.fields}.items() if value}


def test_a_tier() -> None:
    change = change_of(event("tier.changed", tier="60k"), BEFORE, NOW, OFFER)
    assert change.is_speed
    assert after(BEFORE, change) == {"tier": "60k", "rate": "60000.0", "iv": "60000.000", "seats": "1"}


def test_what_stands_already_cuts_nothing() -> None:
    assert change_of(event("tier.changed", tier="5k"), BEFORE, NOW, OFFER) == Change()


def test_an_edition_is_all_of_its_parts() -> None:
    change = change_of(event("edition.changed", edition=" Plus "), BEFORE, NOW, OFFER)
    fields = after(BEFORE, change)
    assert (fields["tier"], fields["edition"], change.is_speed) == ("60k", "plus", True)
    found = entitlements_of(fields)
    assert (found.edition, found.channels, found.seats, found.sequence) == ("plus", ("email", "sms"), 3, 0)


@pytest.mark.parametrize("days", [{}, {"grace": "10.0", "purge_after": "10.00"}])
def test_a_term_is_changed_where_it_stands_as_it_is_written_however_that_is(days: dict[str, str]) -> None:
    fields = {**BEFORE, "term": "active", "term_ends": f"{(NOW + DAY) * 1e6:.0f}", **days}
    assert after(fields, change_of(event("subscription.cancelled"), fields, NOW, OFFER))["term"] == Phase.CANCELLED_ACTIVE


def test_seats() -> None:
    assert after(BEFORE, change_of(event("seats.changed", seats=9), BEFORE, NOW, OFFER))["seats"] == "9"


def test_unmetered() -> None:
    fields = after(BEFORE, change_of(event("tier.changed", tier="unmetered"), BEFORE, NOW, OFFER))
    assert fields == {"tier": "unmetered", "iv": "0", "seats": "1"}


@pytest.mark.parametrize(("said", "near"), [({"tier": "6k"}, None), ({"tier": "fast"}, "unknown tier"), ({"tier": "60kk"}, "'60k'")])
def test_tiers_by_name_or_figure(said: dict[str, str], near: str | None) -> None:
    if near is None:
        assert change_of(event("tier.changed", **said), BEFORE, NOW, OFFER).fields["rate"] == "6000.0"
        return
    with pytest.raises(RefusedInput, match=near):
        change_of(event("tier.changed", **said), BEFORE, NOW, OFFER)


def test_an_edition_that_nobody_sells() -> None:
    with pytest.raises(RefusedInput, match="nearest is 'plus'"):
        change_of(event("edition.changed", edition="pluss"), BEFORE, NOW, OFFER)


def test_a_boost_begins_and_ends_by_itself() -> None:
    said = {"rate": "200000", "from": format_time(NOW + 100), "until": format_time(NOW + 200), "who": "shop"}
    change = change_of(event("boost.purchased", **said), BEFORE, NOW, OFFER)
    fields = after(BEFORE, change)
    found = grants_of(fields)
    assert change.is_speed
    assert [rate_at(5000.0, found, NOW + at) for at in (99, 100, 199, 200)] == [5000, 200_000, 200_000, 5000]
    assert (fields["boosts"], found[0].words.who) == ("1", "shop")
    assert len(fields["grants"].encode("utf-8", "surrogateescape")) == 24


def test_boosts_that_are_over_are_forgotten_after_a_month() -> None:
    fields = dict(BEFORE)
    for at in (-40 * DAY, -DAY, 100.0):
        value = encode(NOW + at - 10, NOW + at, Words(9000.0, "", "", 0.0)).decode("utf-8", "surrogateescape")
        fields |= {f"boost:{len(fields)}": value, "boosts": str(len(fields))}
    change = change_of(event("boost.purchased", rate="60k", until=format_time(NOW + 50)), fields, NOW, OFFER)
    fields = after(fields, change)
    assert len(grants_of(fields)) == 3, "of four, one long over"
    assert len(fields["grants"].encode("utf-8", "surrogateescape")) == 48


def test_a_boost_of_the_past_is_refused_and_counts_as_come() -> None:
    change = change_of(event("boost.purchased", rate="60k", until=format_time(NOW)), BEFORE, NOW, OFFER)
    assert (change.fields, "over before it begins" in change.refused) == ({}, True)


def test_a_boost_without_a_rate_is_no_event() -> None:
    with pytest.raises(RefusedInput, match="has a rate"):
        change_of(event("boost.purchased", rate="unmetered", until=format_time(NOW + 9)), BEFORE, NOW, OFFER)


def test_credits_are_the_ledgers() -> None:
    [lot] = change_of(event("credits.purchased", credits=500, who="shop"), BEFORE, NOW, OFFER).lots
    assert (lot.amount, lot.bought_us, lot.fixed_us, lot.who, lot.why) == (500_000, NOW * 1e6, 0.0, "shop", "e1")
    alone = change_of(event("credits.purchased", credits=500), {**BEFORE, "channels": "sms"}, NOW, OFFER)
    assert (alone.lots[0].fixed_us, alone.seen) == (good_until(NOW * 1e6), {"channels": "sms"})


def test_a_payment_lifts_the_hold_for_an_unpaid_fee_where_all_is_settled() -> None:
    held = {**BEFORE, "hold:unpaid-fee": "{}", "hold:content": "{}"}
    assert change_of(event("payment.received", order="o"), held, NOW, OFFER) == Change()
    fields = after(held, change_of(event("payment.received", order="o", settles=True), held, NOW, OFFER))
    assert [name for name in fields if name.startswith("hold:")] == ["hold:content"]
    assert change_of(event("payment.received", order="o", settles=True), BEFORE, NOW, OFFER) == Change()


def test_the_term_by_events() -> None:
    fields = after(BEFORE, change_of(event("subscription.renewed", ends=format_time(NOW + DAY)), BEFORE, NOW, OFFER))
    assert term_of(fields).phase(NOW) is Phase.ACTIVE  # type: ignore[union-attr]
    fields = after(fields, change_of(event("subscription.cancelled"), fields, NOW, OFFER))
    assert term_of(fields).phase(NOW) is Phase.CANCELLED_ACTIVE  # type: ignore[union-attr]
    in_grace = change_of(event("subscription.renewed", ends=format_time(NOW + 90 * DAY)), fields, NOW + 10.9 * DAY, OFFER)
    assert (after(fields, in_grace)["term"], in_grace.before) == ("active", NOW + 11 * DAY)
    late = change_of(event("subscription.renewed", ends=format_time(NOW + 90 * DAY)), fields, NOW + 11 * DAY + 1, OFFER)
    assert (late.fields, "its grace ended" in late.refused) == ({}, True)
    fields = after(fields, change_of(event("subscription.expired"), fields, NOW + 5, OFFER))
    assert term_of(fields).ends == NOW + 5  # type: ignore[union-attr]


@pytest.mark.parametrize("said", [("subscription.cancelled", {}), ("subscription.renewed", {"ends": format_time(NOW - 1)})])
def test_what_the_term_forbids_counts_as_come(said: tuple[str, dict[str, Any]]) -> None:
    assert change_of(event(said[0], **said[1]), BEFORE, NOW, OFFER).refused


def test_a_payment_and_what_it_was_for() -> None:
    events = [event("seats.changed", seats=9), event("tier.changed", tier="60k"), event("tier.changed", tier="5k")]
    one, two = (change_of(each, BEFORE, NOW, OFFER) for each in events[:2])
    assert after(BEFORE, changes_of(events[:2], BEFORE, NOW, OFFER)) == after(after(BEFORE, one), two)
    assert changes_of(events[:2], BEFORE, NOW, OFFER).is_speed
    assert after(BEFORE, changes_of(events, BEFORE, NOW, OFFER)) == {**BEFORE, "seats": "9"}


def test_several_boosts_at_once_have_numbers_of_their_own() -> None:
    until = format_time(NOW + 100)
    change = changes_of([event("boost.purchased", rate=rate, until=until) for rate in ("60k", "70k")], BEFORE, NOW, OFFER)
    assert [(each.number, each.rate) for each in grants_of(after(BEFORE, change))] == [(1, 60_000), (2, 70_000)]
    assert change.seen == {"boosts": "", "grants": ""}


@pytest.mark.parametrize("said", [("tier.changed", {"tier": "warp"}), ("edition.changed", {"edition": "golden"}),
                                  ("boost.purchased", {"rate": "unmetered", "until": format_time(NOW + 9)})])  # fmt: skip
def test_what_nobody_sells_is_found_before_its_turn(said: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(RefusedInput):
        check(event(said[0], **said[1]), OFFER)
    check(event("tier.changed", tier="6k"), OFFER)


@pytest.mark.parametrize(("channels", "refused"), [("", ()), ("email", ("sms",)), ("sms", ("email",)), ("email sms", ()), ("mail sms", ())])
def test_a_channel_that_was_not_sold_is_refused_with_its_remedy(channels: str, refused: tuple[str, ...]) -> None:
    for channel in ("email", "sms"):
        if channel not in refused:
            admit("m1", {"channels": channels, "edition": "plus"}, channel)
            continue
        with pytest.raises(Conflict, match=f"no sends by {channel}: edition 'plus' has {channels} only") as caught:
            admit("m1", {"channels": channels, "edition": "plus"}, channel)
        assert f"an edition with {channel}" in caught.value.remedy


# the table


def test_the_shipped_editions() -> None:
    offer = config.offer(Config())
    assert list(offer.editions) == ["starter", "plus", "premium", "enterprise"]
    assert lacking(offer.editions, offer.tiers) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no edition"), ("[a]\ntitle='A'\ntier='6kk'\nchannels=['email']\nseats=1", "unknown tier"),
        ("[a]\ntitle='A'\ntier='5k'\nchannels=['fax']\nseats=1", "channels"),
        ("[a]\ntitle='A'\ntier='5k'\nchannels=[]\nseats=1", "channels"),
        ("[a]\ntitle='A'\ntier='5k'\nchannels=['email','email']\nseats=1", "channels"),
        ("[a]\ntier='5k'\nchannels=['email']\nseats=1", "title"),
        ("[a]\ntitle='A'\ntier='5k'\nchannels=['email']\nseats=-1", "seats"), ("[a]\ntitle='A'\nteir='5k'\n", "unknown key"),
    ],
)  # fmt: skip
def test_a_table_that_is_off_is_found_at_start(tmp_path: Any, text: str, said: str) -> None:
    (tmp_path / "editions.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        config.offer(Config(editions_file=str(tmp_path / "editions.toml")))


def test_a_tier_may_be_a_figure(tmp_path: Any) -> None:
    (tmp_path / "editions.toml").write_text("[A]\ntitle='A'\ntier=7500\nchannels=['email']\nseats=1")
    offer = config.offer(Config(editions_file=str(tmp_path / "editions.toml")))
    assert change_of(event("edition.changed", edition="a"), BEFORE, NOW, offer).fields["rate"] == "7500.0"
