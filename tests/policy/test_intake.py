"""Intake: every row ends in a batch or is refused with its line, and the same input is always cut the same way."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.batch import Batch, unpack
from sendengine.csv_cells import MAX_SHOWN, CsvRows
from sendengine.errors import RefusedInput
from sendengine.intake import Intake, PackedBatch
from sendengine.rows import MAX_LINE

_SALT = b"salt"


def _intake(*fields: str, required: str = "", in_headers: str = "", priority: str | None = None) -> Intake:
    return Intake(fields, frozenset(required.split()), frozenset(in_headers.split()), priority, salt=_SALT)


def _csv(text: str | bytes, intake: Intake | None = None) -> list[PackedBatch]:
    octets = text.encode() if isinstance(text, str) else text
    return list((intake or _intake()).from_csv([octets]))


def _refused(batches: Iterable[PackedBatch]) -> list[tuple[int, int, str]]:
    return [(bad.line, bad.row, bad.reason) for packed in batches for bad in packed.rejected]


def _recipients(batches: Iterable[PackedBatch]) -> list[str]:
    return [recipient for packed in batches for recipient in unpack(packed.payload).recipients]


def _pieces(octets: bytes, size: int) -> Iterator[bytes]:
    return (octets[at : at + size] for at in range(0, len(octets), size))


def test_batches_are_hundreds_of_input_rows_before_refusals() -> None:
    rows = [{"email": f"u{at}@example.com" if at % 10 else "bad"} for at in range(250)]
    batches = list(_intake().from_rows(rows))
    assert [(packed.number, packed.rows, len(packed.positions)) for packed in batches] == [
        (0, 100, 90),
        (1, 100, 90),
        (2, 50, 45),
    ]
    assert batches[1].positions[:3] == bytes([1, 2, 3])
    assert unpack(batches[1].payload).recipients[0] == "u101@example.com"
    assert batches[1].rejected[0].row == 100


def test_only_the_fields_in_use_are_kept() -> None:
    (packed,) = _csv("city,Email,age\nBrno,a@b.cz,7\n", _intake("city", "email"))
    assert unpack(packed.payload) == Batch(0, [0], ["a@b.cz"], ("city",), [["Brno"]])


@pytest.mark.parametrize("head", ["email,name", "email;name", "email\tname", "\ufeffemail,name", ' EMAIL ,"name"'])
def test_the_header_tells_delimiter_and_columns(head: str) -> None:
    delimiter = next(sign for sign in ",;\t" if sign in head)
    (packed,) = _csv(f"{head}\r\na@b.cz{delimiter}Jan\r\n", _intake("name"))
    assert unpack(packed.payload).columns == [["Jan"]]


@pytest.mark.parametrize(
    ("head", "intake", "words"),
    [
        ("e-mail,name", _intake(), r"'email'.*'e-mail'"),
        ("email,first name", _intake("first_name", required="first_name"), r"'first_name'.*'first name'"),
        ("email,prio", _intake(priority="priority"), r"'priority'.*'prio'"),
        ("email,name,email", _intake(), "twice"),
        ("", _intake(), "'email'"),
        ("ana@b.cz,Ana", _intake(), "the list has no header"),
        ("jmeno,prijmeni", _intake(), "no column 'email'$"),
        ("email,prijmeni", _intake("town", required="town"), "no column 'town'$"),
    ],
)
def test_a_missing_column_refuses_the_input_and_names_the_nearest(head: str, intake: Intake, words: str) -> None:
    with pytest.raises(RefusedInput, match=words):
        _csv(head + "\n", intake)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_utf_16_is_refused_by_its_name(encoding: str) -> None:
    with pytest.raises(RefusedInput, match="this is UTF-16; save it as UTF-8"):
        _csv("email,name\r\na@b.cz,Jiří\r\n".encode(encoding))


def _zipped(text: bytes) -> bytes:
    with io.BytesIO() as made:
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("list.csv", text)
        return made.getvalue()


@pytest.mark.parametrize(("packed", "name"), [(gzip.compress, "gzip"), (_zipped, "zip")])
def test_a_packed_list_is_refused_by_its_name(packed: Callable[[bytes], bytes], name: str) -> None:
    with pytest.raises(RefusedInput, match=f"this is {name}: ") as refused:
        _csv(packed(b"email,name\r\n" + b"a@b.cz,Jan\r\n" * 100))
    assert "unpack" in refused.value.remedy


def test_a_column_with_a_default_may_be_missing() -> None:
    (packed,) = _csv("email\na@b.cz\n", _intake("name"))
    assert unpack(packed.payload).columns == [[None]]


def test_refused_rows_name_the_line_where_they_start() -> None:
    text = b'email,name\na@b.cz,"two\nlines"\nbad,x\n\nc@d.cz\ne@f.cz,x,y\ng@h.cz,\xff\ni@j.cz,\n"k"k@l.cz,x\nm@n.cz,M\n'
    batches = _csv(text, _intake("name", required="name"))
    assert _refused(batches) == [
        (4, 1, "an address needs an @"),
        (6, 2, "1 column where the header has 2"),
        (7, 3, "3 columns where the header has 2"),
        (8, 4, "not UTF-8, or a line over 512 KiB"),
        (9, 5, "no value for the field 'name'"),
        (10, 6, "a quote inside the field is not doubled"),
    ]
    assert _recipients(batches) == ["a@b.cz", "m@n.cz"]
    assert batches[0].positions == bytes([0, 7])


def test_an_undecodable_octet_in_an_unused_column_refuses_the_row() -> None:
    batches = _csv(b"email,name\na@b.cz,\xe9\nc@d.cz,x\n")
    assert [(bad.line, bad.text) for bad in batches[0].rejected] == [(2, "a@b.cz,\\xe9")]
    assert _recipients(batches) == ["c@d.cz"]


QUOTE = "a quote that does not end on its line"
STRAY = 'stray@b.cz,"Ana'


def _good(first: int, count: int) -> list[str]:
    return [f"u{at}@b.cz,U{at}" for at in range(first, first + count)]


def _with_name(lines: Iterable[str]) -> list[PackedBatch]:
    return _csv("\n".join(["email,name", *lines]) + "\n", _intake("name"))


@pytest.mark.parametrize(
    "last",
    ['x@b.cz,"Xe"', "x@b.cz,Xe", '",y', '"', 'x@b.cz,Xe"', 'x@b.cz,"Xe', '"x@b.cz","Xe"', 'nobody,""'],
    ids=["text behind it", "never closed", "a cell too many", "closed", "closed at a row's end", "two of them", "quoted", "doubled"],
)
@pytest.mark.parametrize("between", [1, 3, 300, 5000])
def test_a_stray_quote_costs_its_own_line_and_nobody_else(between: int, last: str) -> None:
    good = [*_good(0, 20), *_good(20, between), *_good(9000, 50)]
    batches = _with_name([*good[:20], STRAY, *good[20:-50], last, *good[-50:]])
    assert [each for each in _recipients(batches) if each != "x@b.cz"] == [line.partition(",")[0] for line in good]
    assert _refused(batches)[0] == (22, 20, QUOTE)
    assert batches[0].rejected[0].text == STRAY


def test_a_cell_may_go_on_over_lines_and_the_rows_behind_it_keep_their_numbers() -> None:
    batches = _with_name(['a@b.cz,"Street 1\n\nof ""old"" Brno, a@b.cz\n"', "bad,x", *_good(0, 120), 'c@d.cz,"x\ny"', "worse,x"])
    assert _refused(batches) == [(6, 1, "an address needs an @"), (129, 123, "an address needs an @")]
    assert unpack(batches[0].payload).columns[0][0] == 'Street 1\n\nof "old" Brno, a@b.cz\n'
    assert unpack(batches[1].payload).columns[0][-1] == "x\ny"


@pytest.mark.parametrize(("lines", "width", "is_good"), [(100, 10, True), (101, 10, False), (65, 990, True), (67, 990, False)])
def test_a_cell_of_too_many_lines_or_characters_is_a_stray_quote(lines: int, width: int, is_good: bool) -> None:
    batches = _with_name(['a@b.cz,"' + "\n".join(["x" * width] * lines) + '"', *_good(0, 2)])
    assert _recipients(batches) == [*["a@b.cz"] * is_good, "u0@b.cz", "u1@b.cz"]
    assert [row for row in _refused(batches)[:1] if not is_good] == [(2, 0, QUOTE)] * (not is_good)


@pytest.mark.parametrize("inner", ["u@b.cz,U", ' u@b.cz ,"U', '"u@b.cz",', '"u@b.cz","U"'])
def test_a_line_that_looks_like_a_row_is_no_part_of_a_cell(inner: str) -> None:
    """As a whole these would be one row of two cells."""
    batches = _csv(f'name;email\n"A;\n;{inner}\nx";a@b.cz\nc;c@b.cz\n'.replace(";", ","))
    assert "c@b.cz" in _recipients(batches)
    batches = _with_name(['a@b.cz,"A', inner, 'x"', "c@b.cz,C"])
    assert _refused(batches)[0] == (2, 0, QUOTE)
    assert "c@b.cz" in _recipients(batches)


def test_a_list_of_nothing_but_open_quotes_is_looked_at_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def count(rows: CsvRows, line: str) -> bool:
        nonlocal looked
        looked += 1
        return False

    monkeypatch.setattr(CsvRows, "_looks_like_a_row", count)
    batches = _with_name(['""x"', *['"x""'] * 3000])
    assert sum(packed.rows for packed in batches) == len(_refused(batches)) == 3001
    assert looked <= 3000 * 100


MALFORMED = [
    'x"y"@b.cz', '"k"k@l.cz,x', "c@d.cz", "e@f.cz,x,y", 'q@b.cz,"two\nl\\xe9nes, of ""one"" row"', 'nobody,"a, b"', "m@n.cz,\\xff",
    "bad\\xe9,x",
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [7, 64, 1 << 20])
def test_a_refused_row_is_kept_as_it_stood(end: str, size: int) -> None:
    good = [f"u{at}@b.cz,{at}" for at in range(40)]
    raw = [line for each in MALFORMED for line in (*good, each)] + ['z@b.cz,"open', "y@b.cz,1"]
    octets = "\n".join(["email,name", *raw]).replace("\n", end).encode().replace(b"\\xff", b"\xff").replace(b"\\xe9", b"\xe9")
    refused = [bad.text for packed in _intake("name").from_csv(_pieces(octets, size)) for bad in packed.rejected]
    assert refused == [*(each.replace("\n", end) for each in MALFORMED), 'z@b.cz,"open']


@pytest.mark.parametrize("is_json", [False, True])
def test_a_long_or_undecodable_row_is_kept_as_it_stood(is_json: bool) -> None:
    rows = [b"bad," + b"x" * 50_000, b"bad,h\xe9l", b"bad," + b"y" * 70_000, b"bad,\\xe9"]
    text = b"\n".join(rows if is_json else [b"email,name", *rows])
    packed = list(_intake().from_ndjson([text]) if is_json else _intake().from_csv([text]))
    found = [(bad.text, bad.octets) for each in packed for bad in each.rejected]
    assert found == [
        (rows[0].decode(), b""), ("bad,h\\xe9l", rows[1]), (rows[2][:MAX_SHOWN].decode(), b""), ("bad,\\xe9", b""),
    ]  # fmt: skip


def test_a_line_without_end_is_one_refused_row_and_the_next_is_read() -> None:
    octets = b"email,name\n" + b"x" * (3 * MAX_LINE) + b"\na@b.cz,A\n"
    batches = list(_intake("name").from_csv(_pieces(octets, 1 << 16)))
    assert [(bad.line, len(bad.text) <= MAX_SHOWN) for packed in batches for bad in packed.rejected] == [(2, True)]
    assert _recipients(batches) == ["a@b.cz"]


def test_ndjson_lines_that_are_no_objects_are_refused() -> None:
    text = b'{"email":"a@b.cz","name":"A"}\n\n{"email":\n[1]\n{"email":5}\n{"name":"x"}\n\xff\n{"email":"c@d.cz"}\n'
    batches = list(_intake("name", required="name").from_ndjson([text]))
    refused = _refused(batches)
    assert [line for line, _, _ in refused] == [3, 4, 5, 6, 7, 8]
    assert refused[0][2] == "not JSON: unexpected end of data at character 11"
    assert all(type(reason) is str for _, _, reason in refused)
    assert refused[1][2] == "not an object with fields"
    assert refused[5][2] == "no value for the field 'name'"
    assert _recipients(batches) == ["a@b.cz"]


@pytest.mark.parametrize("value", ["x\r\nBcc: e@f.cz", "x\ny", "\x00", "a\x7f", "\u2028"])
def test_control_characters_are_refused_where_a_header_shows_them(value: str) -> None:
    rows = [{"email": "a@b.cz", "name": value}]
    (in_header,) = _intake("name", in_headers="name").from_rows(rows)
    (in_body,) = _intake("name").from_rows(rows)
    assert [bad.reason for bad in in_header.rejected] == ["control character in 'name', a field of a header"]
    assert unpack(in_body.payload).columns == [[value]]


@pytest.mark.parametrize("value", [object(), "\ud800", 2**70])
def test_a_value_that_cannot_be_stored_refuses_its_row_only(value: object) -> None:
    (packed,) = _intake("name").from_rows([{"email": "a@b.cz", "name": value}, {"email": "c@d.cz", "name": "C"}])
    assert [bad.row for bad in packed.rejected] == [0]
    assert _recipients([packed]) == ["c@d.cz"]


@pytest.mark.parametrize("text", ['{"mail":"a@b.cz"}\n{"e_mail":"c@d.cz"}\n', '{"mail":"a@b.cz"}\n[1]\n', "{}\n"])
def test_a_list_without_any_address_column_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(RefusedInput, match="no column 'email'"):
        list(_intake().from_ndjson([text]))


def test_lines_that_cannot_be_read_are_no_list_without_a_column() -> None:
    assert [line for line, _, _ in _refused(_intake().from_ndjson(['{"email"\n[1]\n']))] == [1, 2]


def test_priorities_make_levels() -> None:
    rows: list[dict[str, Any]] = [{"email": f"u{at}@b.cz", "p": p} for at, p in enumerate(["9", 0, 9, "", True, 1.0, 10, "-1", "3"])]
    (packed,) = _intake(priority="p").from_rows(rows)
    masks = {level: int.from_bytes(mask, "little") for level, mask in packed.levels.items()}
    assert masks == {9: 0b101, 0: 0b10, 3: 1 << 8}
    assert {len(mask) for mask in packed.levels.values()} == {13}
    assert [bad.row for bad in packed.rejected] == [3, 4, 5, 6, 7]


def test_a_priority_that_changes_changes_the_digest() -> None:
    (one,) = _intake(priority="p").from_rows([{"email": "a@b.cz", "p": 1}])
    (two,) = _intake(priority="p").from_rows([{"email": "a@b.cz", "p": 2}])
    assert one.digests != two.digests


def test_a_refused_row_that_changes_changes_the_digest() -> None:
    (one,), (two,) = (_intake().from_rows([{"email": text}]) for text in ("bad", "worse"))
    assert one.digests != two.digests
    assert one.levels == {}
    assert one.fingerprints == b""


def test_fingerprints_are_of_the_normal_form_and_keyed() -> None:
    (mine,) = _intake().from_rows([{"email": "a@b.cz"}, {"email": " a@B.CZ "}, {"email": "A@b.cz"}])
    (theirs,) = Intake((), salt=b"other").from_rows([{"email": "a@b.cz"}])
    first, second, third = (mine.fingerprints[at : at + 8] for at in (0, 8, 16))
    assert first == second != third
    assert first != theirs.fingerprints


def test_pushed_rows_are_cut_like_iterated_ones() -> None:
    rows = [{"email": f"u{at}@b.cz"} for at in range(150)]
    intake = _intake()
    pushed = [*filter(None, map(intake.push, rows)), intake.flush()]
    assert pushed == list(_intake().from_rows(rows))
    assert intake.flush() is None


_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=6)
_EMAILS = st.one_of(st.integers(0, 50).map("u{}@example.com".format), st.just(" A@B.Cz "))
_PEOPLE = st.tuples(_EMAILS, _CELLS.filter(lambda cell: "@" not in cell))
_NOBODY = st.tuples(st.sampled_from(["", "bad"]), _CELLS.map(lambda cell: cell.replace("\n", "")))  # over lines they would be stray quotes


@given(st.lists(st.one_of(_PEOPLE, _NOBODY), max_size=230), st.integers(1, 400))
def test_csv_rows_end_in_exactly_one_place_however_the_input_is_chunked(rows: list[tuple[str, str]], size: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("email", "name"), *rows])
    octets = text.getvalue().encode()
    whole = list(_intake("name", required="name").from_csv([octets]))
    assert list(_intake("name", required="name").from_csv(_pieces(octets, size))) == whole
    places = []
    for packed in whole:
        batch = unpack(packed.payload)
        first = packed.number * 100
        places += [first + at for at in batch.positions] + [bad.row for bad in packed.rejected]
        assert batch.columns == [[rows[first + at][1] for at in batch.positions]]
        assert len(packed.fingerprints) == 8 * len(batch.recipients)
        lines = {at: sum(1 + "".join(row).count("\n") for row in rows[:at]) + 2 for at in range(len(rows))}
        assert [bad.line for bad in packed.rejected] == [lines[bad.row] for bad in packed.rejected]
    assert sorted(places) == list(range(len(rows)))


@given(st.lists(st.one_of(_PEOPLE, _NOBODY, st.none()), max_size=120), st.integers(1, 300))
def test_ndjson_is_cut_like_the_same_rows_given_as_mappings(rows: list[tuple[str, str] | None], size: int) -> None:
    documents = [{"email": row[0], "name": row[1]} if row else None for row in rows]
    octets = b"".join(orjson.dumps(document) + b"\n" for document in documents)
    from_lines = list(_intake("name").from_ndjson(_pieces(octets, size)))
    from_rows = list(_intake("name").from_rows(documents))  # type: ignore[arg-type]
    assert [(a.payload, a.rejected) for a in from_lines] == [(b.payload, b.rejected) for b in from_rows]
