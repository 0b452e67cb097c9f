"""A list of people who do not exist, for trials: realistic, and the same each time.

Row n is the same however long the list is, so that a list of twice the length holds the shorter one, and twice as many of
everything: refused rows, duplicates. All addresses are under names that RFC 2606 reserves.
"""

from __future__ import annotations

import csv
import io
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import msgspec

COLUMNS = ("email", "first_name", "last_name", "company", "city", "voucher")

# Where odd rows stand, in every 500: so that 500 rows and their multiples hold the same share of each.
_CYCLE = 500
_DUPLICATES = {120: 7, 340: 231, 480: 119}  # place -> the place whose address comes again, otherwise written
_NO_AT, _NO_ADDRESS, _NO_VOUCHER, _LATIN_1 = 60, 185, 310, 435

_FIRST = (
    "Anna", "Petr", "Jana", "Jiří", "Marie", "Josef", "Eva", "Pavel", "Hana", "Martin", "Lenka", "Tomáš", "Kateřina",
    "Željko", "Søren", "Łukasz", "Zoë", "François", "Müge", "Ștefan", "Ольга", "Γιώργος", "美咲", "José", "John", "Mary",
)  # fmt: skip
_LAST = (
    "Nováková", "Svoboda", "Dvořák", "Černý", "Procházková", "Kučera", "Veselý", "Horák", "Němec", "Marek", "O'Brien",
    "Müller", "Nowak", "García", "Lindström", "Petrović", "Smith", "van der Berg", "Παπαδάκης", "佐藤", "Иванова",
)  # fmt: skip
_COMPANY = ("", "", 'Květiny "U Lípy", s.r.o.', "Smith, Smith & Sons", 'The "Quiet" Café', "Müller GmbH & Co. KG", "ABC 3000, a.s.")
_CITY = ("Praha", "Brno", "Ostrava", "Plzeň", "Liberec", "Olomouc", "České Budějovice", "Kraków", "Wien", "Køge", "")
_DOMAIN = ("example.com", "example.org", "example.net", "mail.example", "post.example", "bücher.example")


class Person(msgspec.Struct, frozen=True):
    """One row, in the order of COLUMNS; city and company may be empty."""

    email: str
    first_name: str
    last_name: str
    company: str
    city: str
    voucher: str


def people(count: int) -> Iterator[Person]:
    """`count` rows, the odd ones among them."""
    for row in range(count):
        yield _odd(row) or _person(row)


def write_csv(path: Path, count: int) -> None:
    """RFC 4180, UTF-8, but for one row in each 500 that an old program wrote in Latin-1."""
    with path.open("wb") as file:
        file.write(_line(COLUMNS, "utf-8"))
        for row, person in enumerate(people(count)):
            cells = tuple(str(cell) for cell in msgspec.structs.astuple(person))
            file.write(_line(cells, "latin-1" if row % _CYCLE == _LATIN_1 else "utf-8"))


def _odd(row: int) -> Person | None:
    place = row % _CYCLE
    if place in _DUPLICATES:
        again = _person(row - place + _DUPLICATES[place])
        local, _, domain = again.email.partition("@")
        return msgspec.structs.replace(again, email=f"{local}@{domain.upper()} ")
    if place == _NO_AT:
        return msgspec.structs.replace(_person(row), email=_person(row).email.replace("@", " at "))
    if place == _NO_ADDRESS:
        return msgspec.structs.replace(_person(row), email="")
    if place == _NO_VOUCHER:
        return msgspec.structs.replace(_person(row), voucher="")
    if place == _LATIN_1:
        return msgspec.structs.replace(_person(row), first_name="Zoë", last_name="Lindström", company="", city="Køge")
    return None


def _person(row: int) -> Person:
    pick = random.Random(f"person {row}")
    first, last = pick.choice(_FIRST), pick.choice(_LAST)
    return Person(
        email=f"{_plain(first)}.{_plain(last)}.{row}@{pick.choice(_DOMAIN)}",
        first_name=first,
        last_name=last,
        company=pick.choice(_COMPANY),
        city=pick.choice(_CITY),
        voucher=f"{pick.randrange(16**6):06X}",
    )


def _plain(name: str) -> str:
    """What of a name an ASCII local part can hold."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "".join(letter for letter in ascii_only if letter.isalnum()) or "reader"


def _line(cells: tuple[str, ...], encoding: str) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode(encoding)
