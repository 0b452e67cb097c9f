"""A send whose list comes in pieces: opened, loaded by lists cut anywhere, sealed; and what `submit` promises holds for it too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from sendengine.errors import Conflict, NotFound, RefusedInput
from sendengine.intake import Rejected
from sendengine.scheduler.status import Send
from tests.test_client import MESSAGE, Bench, bench  # noqa: F401 - a fixture


def ndjson(numbers: Sequence[int]) -> bytes:
    return b"".join(orjson.dumps({"email": f"p{n}@example.org", "name": f"N{n}"}) + b"\n" for n in numbers)


async def pieces(octets: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(octets), size):
        await asyncio.sleep(0)
        yield octets[start : start + size]


async def opened(bench: Bench, **more: object) -> Send:  # noqa: F811
    return await bench.client.open(account="m1", message=MESSAGE, campaign="c", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
async def test_a_list_cut_anywhere_is_the_same_list(bench: Bench, size: int) -> None:  # noqa: F811
    made = await opened(bench)
    assert (made.created, made.state, made.sealed, made.accepted) == (True, "sending", False, 0)
    loaded = await bench.client.load("m1:c", pieces(ndjson(range(250)), size))
    assert (loaded.rows, loaded.rejected, loaded.first_batch, loaded.next_batch) == (250, 0, 0, 3)
    sealed = await bench.client.seal("m1:c", rows=250)
    assert (sealed.created, sealed.sealed, sealed.accepted) == (True, True, 250)
    assert not (await bench.client.seal("m1:c", rows=250)).created


async def test_what_was_loaded_in_pieces_is_what_a_submit_would_have_made(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    await bench.client.load("m1:c", pieces(ndjson(range(250))))
    await bench.client.seal("m1:c")
    rows = [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in range(250)]
    assert not (await bench.submit(rows, campaign="c")).created


async def test_csv_with_a_byte_order_mark_is_told_by_its_first_letter(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    loaded = await bench.client.load("m1:c", pieces(b"\xef\xbb\xbfemail;name\na@x.org;A\nb@x.org;B\n", 1))
    assert loaded.rows == 2
    await bench.client.open(account="m1", message=MESSAGE, campaign="d")
    assert (await bench.client.load("m1:d", pieces(b"\xef\xbb\xbf\n" + ndjson([1]), 1))).rows == 1


async def broken_off(bench: Bench) -> None:  # noqa: F811
    """A send whose upload ended in the middle."""

    async def broken() -> AsyncIterator[bytes]:
        yield ndjson(range(1500))
        raise ConnectionResetError("the sender is gone")

    await opened(bench)
    with pytest.raises(ConnectionResetError):
        await bench.client.load("m1:c", broken())


async def test_a_repeated_upload_changes_nothing_and_one_broken_off_goes_on(bench: Bench) -> None:  # noqa: F811
    await broken_off(bench)
    assert 0 < (await bench.client.status("m1:c")).rows < 1600
    for _ in range(2):
        assert (await bench.client.load("m1:c", pieces(ndjson(range(2000))))).next_batch == 20
    assert (await bench.client.seal("m1:c", rows=2000)).duplicates == 0


async def test_a_list_that_broke_off_is_not_sealed(bench: Bench) -> None:  # noqa: F811
    await broken_off(bench)
    stands = (await bench.client.status("m1:c")).rows
    with pytest.raises(Conflict, match=f"has not ended: {stands:,} rows of it stand") as refused:
        await bench.client.seal("m1:c")
    assert "repeat" in refused.value.remedy
    assert f"rows={stands}" in refused.value.remedy
    with pytest.raises(Conflict, match=f"{stands:,} rows, not {stands + 1:,}"):
        await bench.client.seal("m1:c", rows=stands + 1)
    await bench.client.load("m1:c", pieces(ndjson(range(stands))))  # all that it was, says who repeats it
    await bench.client.load("m1:c", pieces(ndjson(range(stands, 2000))), first_batch=stands // 100)
    assert (await bench.client.seal("m1:c")).accepted == 2000


async def test_what_stands_of_a_list_that_broke_off_is_sealed_by_its_number(bench: Bench) -> None:  # noqa: F811
    async def broken() -> AsyncIterator[bytes]:
        yield ndjson(range(1500))
        raise ConnectionResetError("the sender is gone")

    await opened(bench)
    await bench.client.load("m1:c", pieces(ndjson(range(250))))
    with pytest.raises(ConnectionResetError):
        await bench.client.load("m1:c", broken(), first_batch=3)
    stands = (await bench.client.status("m1:c")).rows
    with pytest.raises(Conflict, match="has not ended"):
        await bench.client.seal("m1:c")
    await bench.client.load("m1:c", pieces(ndjson(range(250))))  # the list before it
    with pytest.raises(Conflict, match="has not ended"):
        await bench.client.seal("m1:c")
    assert (await bench.client.seal("m1:c", rows=stands)).rows == stands


async def test_a_submit_that_broke_off_is_not_sealed(bench: Bench) -> None:  # noqa: F811
    async def broken() -> AsyncIterator[dict[str, str]]:
        for n in range(1000):
            yield {"email": f"p{n}@example.org", "name": f"N{n}"}
        raise ConnectionResetError("the source is gone")

    with pytest.raises(ConnectionResetError):
        await bench.client.submit(account="m1", message=MESSAGE, recipients=broken(), campaign="c")
    with pytest.raises(Conflict, match="has not ended"):
        await bench.client.seal("m1:c")
    rows = [{"email": f"p{n}@example.org", "name": f"N{n}"} for n in range(1001)]
    assert (await bench.submit(rows, campaign="c")).sealed


async def test_a_second_list_goes_on_where_the_first_ended(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    first = await bench.client.load("m1:c", pieces(ndjson(range(150))))
    second = await bench.client.load("m1:c", pieces(ndjson(range(100, 260))), first_batch=first.next_batch)
    assert (second.first_batch, second.next_batch) == (2, 4)
    sealed = await bench.client.seal("m1:c")
    assert (sealed.rows, sealed.accepted, sealed.duplicates) == (310, 260, 50)


async def test_a_list_that_has_become_longer_is_told_where_it_goes_on(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    await bench.client.load("m1:c", pieces(ndjson(range(250))))
    with pytest.raises(Conflict, match=r"ended before this row; the first that differs is row 250\b") as refused:
        await bench.client.load("m1:c", pieces(ndjson(range(400))))
    assert "first_batch=3" in refused.value.remedy
    for _ in range(2):
        assert (await bench.client.load("m1:c", pieces(ndjson(range(250, 400))), first_batch=3)).next_batch == 5
    with pytest.raises(Conflict, match=r"row 400\b"):
        await bench.client.load("m1:c", pieces(ndjson([*range(250, 350), 7000])), first_batch=3)
    assert (await bench.client.seal("m1:c", rows=400)).accepted == 400


async def test_another_list_in_the_same_place_is_refused_by_the_row_that_differs(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    await bench.client.load("m1:c", pieces(ndjson(range(250))))
    with pytest.raises(Conflict, match=r"row 120\b"):
        await bench.client.load("m1:c", pieces(ndjson([*range(120), 7000, *range(121, 250)])))
    with pytest.raises(Conflict, match="3 is the next"):
        await bench.client.load("m1:c", pieces(ndjson(range(10))), first_batch=5)
    await bench.client.seal("m1:c")
    with pytest.raises(Conflict, match="list ended before"):
        await bench.client.load("m1:c", pieces(ndjson(range(10))), first_batch=3)


@pytest.mark.parametrize(
    ("octets", "first"),
    [
        (ndjson(range(400)), 0),  # longer than what stands
        (ndjson([7000]), 0),  # other rows
        (ndjson([7000]), 3),  # behind the end
        (ndjson([7000]), 5),  # ahead of it
    ],
)
async def test_who_uploads_what_does_not_fit_is_told_how_to_go_on(bench: Bench, octets: bytes, first: int) -> None:  # noqa: F811
    await opened(bench)
    await bench.client.load("m1:c", pieces(ndjson(range(250))))
    if first != 3:  # else it goes on
        with pytest.raises(Conflict) as refused:
            await bench.client.load("m1:c", pieces(octets), first_batch=first)
        assert "first_batch=3 goes on" in str(refused.value.remedy)
    await bench.client.seal("m1:c")
    with pytest.raises(Conflict) as refused:
        await bench.client.load("m1:c", pieces(octets), first_batch=first)
    said = f"{refused.value} {refused.value.remedy}"
    assert ("it is sealed" in said, "first_batch" in said, "another --campaign" in said) == (True, False, True)


@pytest.mark.parametrize(
    ("other", "row"),
    [
        (ndjson(range(2000)), 250),  # the first one had ended, by a batch that was not full
        (ndjson([*range(120), 7000, *range(121, 9000)]), 120),
        (ndjson([*range(249), 7000, *range(250, 9000)]), 249),
    ],
)
async def test_a_list_that_differs_stores_none_of_its_rows_behind(bench: Bench, other: bytes, row: int) -> None:  # noqa: F811
    await opened(bench)
    await bench.client.load("m1:c", pieces(ndjson(range(250))))
    with pytest.raises(Conflict, match=rf"row {row}\b"):
        await bench.client.load("m1:c", pieces(other))
    assert (await bench.client.seal("m1:c", rows=250)).accepted == 250


async def test_refused_rows_are_told_with_their_lines(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    told: list[Rejected] = []
    loaded = await bench.client.load("m1:c", pieces(ndjson(range(3)) + b'{"email":"bad"}\n{\n' + ndjson([4])), on_reject=told.extend)
    assert (loaded.rows, loaded.rejected, [each.line for each in told]) == (6, 2, [4, 5])


async def test_a_strict_send_with_a_bad_row_is_never_sealed_nor_sent(bench: Bench) -> None:  # noqa: F811
    await opened(bench, strict=True)
    await bench.client.load("m1:c", pieces(ndjson(range(3)) + b'{"email":"bad"}\n'))
    taken = await bench.queue.take("m1", "w", 100, [b"12345678"], [], [])
    assert taken.leases == ()
    with pytest.raises(RefusedInput, match="strict"):
        await bench.client.seal("m1:c")
    assert not (await bench.client.status("m1:c")).sealed


async def test_what_can_be_sent_to_nobody_is_not_sealed(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    with pytest.raises(RefusedInput, match="empty"):
        await bench.client.seal("m1:c")
    await bench.client.load("m1:c", pieces(b"email,name\nnobody,x\n"))
    with pytest.raises(RefusedInput, match="every row"):
        await bench.client.seal("m1:c")
    with pytest.raises(Conflict, match="1 rows, not 2"):
        await bench.client.seal("m1:c", rows=2)


@pytest.mark.parametrize(
    ("octets", "said"),
    [(b"name\nA\n", "no column 'email'"), (b'{"mail":"a@x.org"}\n', "nearest is 'mail'"), (b"email\na@x.org\n", "no column 'name'"),
     (b"", "list is empty"), (b" \n" * 200_000, "list is empty")],
)  # fmt: skip
async def test_a_list_that_cannot_be_read_stores_nothing(bench: Bench, octets: bytes, said: str) -> None:  # noqa: F811
    await opened(bench)
    with pytest.raises(RefusedInput, match=said):
        await bench.client.load("m1:c", pieces(octets, 65536))
    assert (await bench.client.status("m1:c")).rows == 0


async def test_a_send_that_takes_no_rows(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    await bench.client.cancel("m1:c")
    with pytest.raises(Conflict, match="cancelled"):
        await bench.client.load("m1:c", pieces(ndjson([1])))
    with pytest.raises(NotFound):
        await bench.client.load("m1:none", pieces(ndjson([1])))
    await bench.client.send(account="m1", message=MESSAGE, to="a@x.org", fields={"name": "A"})
    with pytest.raises(RefusedInput, match="single messages"):
        await bench.client.load("m1:transactional", pieces(ndjson([1])))


async def test_outcomes_of_a_send_whose_list_is_to_come_are_none_yet(bench: Bench) -> None:  # noqa: F811
    await opened(bench)
    assert [each async for each in bench.client.outcomes("m1:c")] == []
    await bench.client.load("m1:c", pieces(ndjson(range(3))))
    await bench.client.cancel("m1:c")
    assert {each.outcome async for each in bench.client.outcomes("m1:c", follow=True)} == {"cancelled"}
