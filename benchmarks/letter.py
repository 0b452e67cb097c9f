"""The letter that every sender of the benchmarks sends, and to whom: two kilobytes, personal in the subject and the text.

The standard library alone: peers read it too, in environments of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime, make_msgid

SUBJECT = "{{ first_name }}, what is new in {{ city }}"
_GREETING = "Dear {{ first_name }},\r\n\r\nyour shop in {{ city }} has what you were looking for.\r\n"
_LINE = "A line of plain text, as long as lines in letters of this kind usually are.\r\n"
TEXT = _GREETING + _LINE * 20
_FIELDS = 360  # octets of the header
_CITIES = ("Praha", "Brno", "Ostrava", "Plzeň", "Liberec", "Olomouc")


def sender(account: str) -> str:
    return f"news@{account}.example"


def recipient(account: str, row: int) -> str:
    return f"reader{row}@{account}.example.org"


def rows(account: str, count: int) -> Iterator[dict[str, str]]:
    for row in range(count):
        yield {"email": recipient(account, row), "first_name": f"Reader {row % 997}", "city": _CITIES[row % len(_CITIES)]}


def text_of(octets: int) -> str:
    """A text that makes the letter about so large."""
    return _GREETING + _LINE * round((octets - len(_GREETING) - _FIELDS) / len(_LINE))


def filled(template: str, row: dict[str, str]) -> str:
    """As whoever has no skeleton fills it in."""
    for name, value in row.items():
        template = template.replace(f"{{{{ {name} }}}}", value)
    return template


def email_message(account: str, row: dict[str, str]) -> EmailMessage:
    """The letter to one person, made with the standard library; the same fields as ours has."""
    letter = EmailMessage(policy=SMTP)
    letter["From"] = f"News <{sender(account)}>"
    letter["To"] = row["email"]
    letter["Subject"] = filled(SUBJECT, row)
    letter["Date"] = localtime()
    letter["Message-ID"] = make_msgid(domain=f"{account}.example")
    letter.set_content(filled(TEXT, row), cte="8bit")
    return letter
