"""Packed batches: what goes in comes out, and what was not packed by us is recognised."""

from __future__ import annotations

import random

import msgspec
import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sendengine.batch import VERSION, Batch, CorruptPayload, UnknownVersion, first_difference, pack, unpack

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    positions = sorted(draw(st.sets(st.integers(0, 99))))
    size = len(positions)
    fields = tuple(draw(st.lists(st.text("abc", min_size=1, max_size=3), max_size=3)))
    return Batch(
        number=draw(st.integers(0, 2**40)),
        positions=positions,
        recipients=[f"u{at}@example.com" for at in positions],
        fields=fields,
        columns=[draw(st.lists(_VALUES, min_size=size, max_size=size)) for _ in fields],
        rejected=[(at, at * 7) for at in range(100) if at not in positions][:3],
        priorities=draw(st.sampled_from(["", "5" * size])),
    )


def _batch(**changes: object) -> Batch:
    plain = Batch(3, [0, 1, 4], ["a@b.cz", "c@d.cz", "e@f.cz"], ("name",), [["A", "C", "E"]], [(2, 77)])
    return msgspec.structs.replace(plain, **changes)


@given(batches())
def test_a_batch_survives_packing(batch: Batch) -> None:
    assert unpack(pack(batch)) == batch


def test_a_newer_version_is_left_for_others() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        unpack(bytes((VERSION + 1,)) + pack(_batch())[1:])


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x01", b"\x01garbage", pack(_batch())[:-3]])
def test_damage_is_corrupt(payload: bytes) -> None:
    with pytest.raises(CorruptPayload):
        unpack(payload)


@given(st.binary(max_size=60))
def test_any_octets_are_a_batch_or_one_of_two_errors(noise: bytes) -> None:
    with pytest.raises((CorruptPayload, UnknownVersion)):
        unpack(noise)


@pytest.mark.parametrize(
    "content",
    [
        [3, ["name"], None, ["a@b.cz"], [["A", "too many"]], [], ""],
        [3, ["name"], None, ["a@b.cz"], [], [], ""],
        [3, [], [100], ["a@b.cz"], [], [], ""],
        [3, [], [1, 1], ["a@b.cz", "c@d.cz"], [], [], ""],
        [3, [], None, ["a@b.cz"], [], [], "12"],
        [3, [], None, [5], [], [], ""],
        {"number": 3},
    ],
)
def test_columns_that_do_not_fit_are_corrupt(content: object) -> None:
    with pytest.raises(CorruptPayload):
        unpack(bytes((VERSION,)) + zstandard.compress(orjson.dumps(content)))


def test_a_payload_that_promises_too_much_is_refused_before_memory_is_taken() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(65 << 20))
    with pytest.raises(CorruptPayload, match="promises"):
        unpack(bytes((VERSION,)) + bomb)


@pytest.mark.parametrize(
    ("changes", "position"),
    [
        ({}, None),
        ({"columns": [["A", "C", "other"]]}, 4),
        ({"recipients": ["a@b.cz", "x@d.cz", "e@f.cz"]}, 1),
        ({"rejected": [(2, 78)]}, 2),
        ({"rejected": []}, 2),
        ({"positions": [0, 1, 5]}, 4),
        ({"priorities": "990"}, 0),
        ({"fields": ("town",)}, 0),
    ],
)
def test_the_first_differing_row_is_named(changes: dict[str, object], position: int | None) -> None:
    assert first_difference(pack(_batch()), pack(_batch(**changes))) == position


def test_a_recipient_with_two_short_fields_takes_at_most_32_octets() -> None:
    pick = random.Random(7)
    names, towns = ["Anna", "Petr", "Kateřina", "Jan", "Jiří", "Marie"], ["Praha", "Brno", "Plzeň", "Hradec Králové"]
    domains = ["gmail.com", "seznam.cz", "email.cz", "outlook.com"]
    batch = Batch(
        number=12345,
        positions=list(range(100)),
        recipients=[f"{pick.randbytes(5).hex()}@{pick.choice(domains)}" for _ in range(100)],
        fields=("first_name", "city"),
        columns=[[pick.choice(names) for _ in range(100)], [pick.choice(towns) for _ in range(100)]],
    )
    assert len(pack(batch)) <= 3200
