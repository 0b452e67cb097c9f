"""How fast recipients are taken in, and how small they get: `python -m benchmarks.intake [ROWS]`."""

from __future__ import annotations

import io
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from sendengine.batch import unpack
from sendengine.intake import Intake, PackedBatch

_FIRST = [
    "Anna",
    "Petr",
    "Jana",
    "Jiří",
    "Marie",
    "Josef",
    "Eva",
    "Pavel",
    "Hana",
    "Martin",
    "Lenka",
    "Tomáš",
    "Kateřina",
    "Lucie",
    "John",
    "Mary",
]
_LAST = [
    "Novak",
    "Svoboda",
    "Dvorak",
    "Cerny",
    "Prochazka",
    "Kucera",
    "Vesely",
    "Horak",
    "Nemec",
    "Marek",
    "Hajek",
    "Kral",
    "Benes",
]
_CITY = ("Praha", "Brno", "Ostrava", "Plzeň", "Liberec", "Olomouc", "České Budějovice", "Hradec Králové")
_DOMAIN = ["gmail.com", "seznam.cz", "email.cz", "centrum.cz", "outlook.com", "yahoo.com", "hotmail.com", "example.org"]


def rows(count: int) -> Iterator[tuple[str, str, str]]:
    pick = random.Random(1)
    for at in range(count):
        local = f"{pick.choice(_LAST).lower()}.{pick.randrange(10**6)}{at % 10}"
        yield f"{local}@{pick.choice(_DOMAIN)}", pick.choice(_FIRST), pick.choice(_CITY)


def main(count: int) -> None:
    lists = list(rows(count))
    as_csv = "email,first_name,city\n" + "".join(f"{a},{b},{c}\n" for a, b, c in lists)
    as_ndjson = "".join(f'{{"email":"{a}","first_name":"{b}","city":"{c}"}}\n' for a, b, c in lists)
    _report("csv", count, lambda: _intake().from_csv(_chunks(as_csv)))
    _report("ndjson", count, lambda: _intake().from_ndjson(_chunks(as_ndjson)))
    mappings = [{"email": a, "first_name": b, "city": c} for a, b, c in lists]
    _report("rows", count, lambda: _intake().from_rows(mappings))
    payloads = [packed.payload for packed in _intake().from_rows(mappings)]
    started = time.perf_counter()
    for payload in payloads:
        unpack(payload)
    spent = time.perf_counter() - started
    octets = sum(map(len, payloads)) / count
    print(f"unpack {spent / len(payloads) * 1e6:.0f} us a batch; {octets:.1f} octets a recipient")


def _intake() -> Intake:
    return Intake(("first_name", "city"), frozenset({"first_name"}), frozenset({"first_name"}), salt=b"benchmark")


def _chunks(text: str) -> Iterator[bytes]:
    stream = io.BytesIO(text.encode())
    return iter(lambda: stream.read(1 << 16), b"")


def _report(name: str, count: int, cut: Callable[[], Iterable[PackedBatch]]) -> None:
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        taken = sum(packed.rows for packed in cut())
        rates.append(taken / (time.perf_counter() - started))
        assert taken == count
    print(f"{name:7} best {max(rates):9,.0f} rows/s, median {statistics.median(rates):9,.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
