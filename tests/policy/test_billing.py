"""Which events are genuine, and what they may say."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from sendengine.errors import RefusedInput
from sendengine.policy.billing import (
    BODY_MOST,
    FRESH_S,
    HEADER,
    AnyEvent,
    BoostPurchased,
    Forged,
    TierChanged,
    decode,
    digest,
    encode,
    parse_secrets,
    schema,
    sign,
    verify,
)

NOW = 1_800_000_000.0
SECRET, NEXT, STRANGER = b"s" * 32, b"n" * 32, b"x" * 32
BASE: dict[str, Any] = {"id": "evt_1", "account": "m1", "sequence": 1, "at": "2026-11-27T10:00:00Z"}
EACH: list[dict[str, Any]] = [
    {"type": "payment.received", "order": "o1", "settles": True},
    {"type": "subscription.renewed", "ends": "2027-11-27T10:00:00+01:00"},
    {"type": "subscription.renewed", "ends": None},
    {"type": "subscription.cancelled"},
    {"type": "subscription.expired"},
    {"type": "edition.changed", "edition": "plus"},
    {"type": "tier.changed", "tier": "100k"},
    {"type": "credits.purchased", "credits": 1000},
    {"type": "boost.purchased", "rate": "200000/h", "from": "2026-11-27T10:00:00Z", "until": "2026-11-28T10:00:00Z"},
    {"type": "seats.changed", "seats": 3},
]


def body(**more: Any) -> bytes:
    return orjson.dumps({**BASE, "type": "tier.changed", "tier": "100k", **more})


def signed(raw: bytes, *secrets: bytes, at: float = NOW) -> dict[str, str]:
    return {HEADER: sign(raw, secrets or (SECRET,), at)}


@pytest.mark.parametrize("said", EACH, ids=lambda said: said["type"])
def test_each_event_is_read_as_it_was_written(said: dict[str, Any]) -> None:
    event = decode(orjson.dumps({**BASE, **said}))
    assert (event.id, event.account, event.sequence, event.paid) == ("evt_1", "m1", 1, True)
    again: AnyEvent = decode(encode(event))
    assert again == event
    assert type(again) is type(event)


def test_the_digest_is_of_what_is_said_not_of_how() -> None:
    one = decode(body(why="sale"))
    spaced = orjson.dumps(orjson.loads(body(why="sale")), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    assert digest(decode(spaced)) == digest(one)
    assert digest(decode(body(why="sales"))) != digest(one)


@pytest.mark.parametrize(
    "more",
    [
        {"type": "tier.dropped"}, {"account": "1234"}, {"account": "m0"}, {"account": "m1\n"}, {"sequence": 0}, {"sequence": "1"},
        {"sequence": 1.5}, {"id": ""},
        {"id": "a b"}, {"id": "evt\n"}, {"id": "x" * 101}, {"at": "yesterday"}, {"at": "2026-11-27T10:00:00"}, {"tier": ""},
        {"tier": 5}, {"surprise": 1}, {"paid": "no"}, {"paid": False}, {"order": "o 1"}, {"why": "x" * 1001},
        {"why": "one\ntwo"}, {"who": "\x00"},
    ],
)  # fmt: skip
def test_what_is_no_event(more: dict[str, Any]) -> None:
    with pytest.raises(RefusedInput):
        decode(body(**more))


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"{}", b"\xff", b'{"type":"tier.changed"', b"[" * 5000, b'{"type":' + b"{" * 5000,
     orjson.dumps({**BASE, "type": "payment.received"}), orjson.dumps({**BASE, "type": "payment.received", "order": "o", "paid": False}),
     orjson.dumps({**BASE, "type": "seats.changed", "seats": -1}), orjson.dumps({**BASE, "type": "credits.purchased", "credits": 0}),
     orjson.dumps({**BASE, "type": "subscription.renewed"}),
     orjson.dumps({**BASE, "type": "subscription.renewed", "ends": "0001-01-01T00:00:00+23:59"}),
     orjson.dumps({**BASE, "type": "subscription.renewed", "ends": "9999-12-31T23:59:59-23:59"})],
)  # fmt: skip
def test_what_cannot_be_read(raw: bytes) -> None:
    with pytest.raises(RefusedInput):
        decode(raw)


def test_a_genuine_one() -> None:
    raw = body()
    verify(raw, signed(raw), [SECRET], NOW)
    verify(raw, {HEADER.lower(): sign(raw, [SECRET], NOW)}, [SECRET], NOW)
    verify(raw, {"Host": "x", HEADER: sign(raw, [SECRET], NOW).upper().replace("T=", "t=").replace("V1=", "v1=")}, [SECRET], NOW)


@pytest.mark.parametrize(("theirs", "ours"), [((SECRET,), (NEXT, SECRET)), ((NEXT,), (NEXT, SECRET)), ((NEXT, SECRET), (SECRET,)),
                                              ((STRANGER, SECRET), (NEXT, SECRET))])  # fmt: skip
def test_two_secrets_hold_while_one_is_replaced(theirs: tuple[bytes, ...], ours: tuple[bytes, ...]) -> None:
    raw = body()
    verify(raw, signed(raw, *theirs), ours, NOW)


@pytest.mark.parametrize("off", [-FRESH_S, -1.0, 0.0, 1.0, FRESH_S])
def test_as_old_as_it_may_be(off: float) -> None:
    raw = body()
    verify(raw, signed(raw, at=NOW + off), [SECRET], NOW)


@pytest.mark.parametrize("off", [-FRESH_S - 1, FRESH_S + 1, -86400.0, 1e9])
def test_a_stale_stamp(off: float) -> None:
    raw = body()
    with pytest.raises(Forged, match="it was signed at"):
        verify(raw, signed(raw, at=NOW + off), [SECRET], NOW)


def test_a_fresh_stamp_on_an_old_signature() -> None:
    raw = body()
    old = sign(raw, [SECRET], NOW - 1000)
    with pytest.raises(Forged, match="not billing's"):
        verify(raw, {HEADER: old.replace(f"t={NOW - 1000:.0f}", f"t={NOW:.0f}")}, [SECRET], NOW)


GOOD = sign(body(), [SECRET], NOW)
MAC = GOOD.partition("v1=")[2]


@pytest.mark.parametrize(
    "header",
    ["", "t=", "v1=" + MAC, f"t={NOW:.0f}", f"t={NOW:.0f},v1=", f"t={NOW:.0f},v1=00", f"t=-1,v1={MAC}", f"t=1e9,v1={MAC}",
     f"t= {NOW:.0f},v1={MAC}",
     f"t={NOW:.0f},t={NOW:.0f},v1={MAC}", f"t={NOW:.0f},v0={MAC}", f"t={NOW:.0f},V1={MAC}", "t=" + "9" * 13 + f",v1={MAC}",
     f"t={NOW:.0f}," + ",".join(["v1=" + "0" * 64] * 5), f"t=\u0661,v1={MAC}", f"t={NOW:.0f},v1={MAC[:-1]}\u00e9", "\x00", "t=1" * 10_000],
)  # fmt: skip
def test_headers_that_are_none(header: str) -> None:
    with pytest.raises(Forged):
        verify(body(), {HEADER: header}, [SECRET], NOW)


def test_one_header_and_no_more() -> None:
    for headers in ({}, {HEADER: GOOD, HEADER.lower(): GOOD}):
        with pytest.raises(Forged, match="one header"):
            verify(body(), headers, [SECRET], NOW)


def test_without_a_secret_nothing_is_genuine() -> None:
    raw = body()
    with pytest.raises(Forged, match="no secret"):
        verify(raw, signed(raw), [], NOW)


def test_a_body_beyond_all_measure_is_not_even_hashed() -> None:
    raw = b" " * (BODY_MOST + 1)
    with pytest.raises(Forged, match="octets"):
        verify(raw, signed(raw), [SECRET], NOW)


def test_forgeries_of_every_kind_are_refused() -> None:
    """A thousand each: an octet altered, left out or added; another's secret; an octet of the signature altered; the stamp altered."""
    chance = Random(7)
    raw, header = body(), signed(body())[HEADER]
    refused = 0
    for _ in range(1000):
        at, octet = chance.randrange(len(raw)), chance.randrange(1, 256)
        altered = [
            raw[:at] + bytes([raw[at] ^ octet]) + raw[at + 1 :], raw[:at] + raw[at + 1 :], raw[:at] + bytes([octet]) + raw[at:],
        ]  # fmt: skip
        place = chance.randrange(64)
        digit = chance.choice([each for each in "0123456789abcdef" if each != MAC[place]])
        attempts = [(each, header) for each in altered]
        attempts.append((raw, header.replace(MAC, MAC[:place] + digit + MAC[place + 1 :])))
        attempts.append((raw, sign(raw, [chance.randbytes(32)], NOW)))
        attempts.append((raw, header.replace(f"t={NOW:.0f}", f"t={NOW + chance.choice([-1, 1]) * chance.randint(1, 299):.0f}")))
        for octets, given in attempts:
            with pytest.raises(Forged):
                verify(octets, {HEADER: given}, [SECRET, NEXT], NOW)
            refused += 1
    assert refused == 6000


@pytest.mark.parametrize(("text", "secrets"), [("a" * 32, 1), (f"# new\n{'b' * 40}\n\n  {'a' * 32}  \n", 2)])
def test_a_file_of_secrets(text: str, secrets: int) -> None:
    assert len(parse_secrets(text)) == secrets


@pytest.mark.parametrize("text", ["", "# none\n", "short", "\n".join(["a" * 32, "b" * 32, "c" * 32])])
def test_what_is_no_file_of_secrets(text: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        parse_secrets(text)
    assert "short" not in str(refused.value)


def test_the_schema_names_every_type() -> None:
    found = schema()
    kept = Path(__file__).parent.parent.parent / "docs" / "billing-events.schema.json"
    assert orjson.loads(kept.read_bytes()) == found, "write it anew: it is what schema() returns"
    named = {each["properties"]["type"]["enum"][0] for each in found["$defs"].values()}
    assert named == {said["type"] for said in EACH}
    boost = found["$defs"]["BoostPurchased"]
    assert {"from", "until", "rate"} <= set(boost["properties"])
    assert isinstance(decode(orjson.dumps({**BASE, **EACH[8]})), BoostPurchased)
    assert isinstance(decode(body()), TierChanged)
