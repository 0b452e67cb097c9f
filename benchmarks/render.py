"""What a message costs to render, in microseconds: `python -m benchmarks.render [BATCHES]`.

Per size and rendition: `prepare` of a batch of 100 divided by 100, and one `wire` call. Medians of 7 runs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from sendengine.render.compile import Skeleton
from sendengine.render.compile import compile as compile_message
from sendengine.render.message import Message
from sendengine.render.values import RenderFailure

_LINE = "<p>Příliš žluťoučký kůň, dear {{ first_name }}: a line like any other of this letter.</p>\n"
_PLAIN = "<p>Prilis zlutoucky kun: a line like any other of this letter, with no field in it.</p>\n"
_DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"
_NAMES = ["first_name", "city"]
_COLUMNS = [["Anna", "Petr", "Jana", "Josef", "Eva"] * 20, ["Praha", "Brno", "Ostrava", "Opava", "Tabor"] * 20]
_CZECH = [["Anna", "Jiří", "Jana", "Žofie", "Eva"] * 20, ["Praha", "Plzeň", "Ostrava", "Děčín", "Tábor"] * 20]


def letter(octets: int, logic: str = "") -> Skeleton:
    html = _LINE * 3 + "<p>{{ city }}</p>\n" + _PLAIN * ((octets - 600) // len(_PLAIN)) + logic
    message = Message(
        sender="News <news@example.org>",
        subject="Hello {{ first_name | default('friend') }}",
        html=html,
        list_unsubscribe="https://example.org/u?e={{ email }}",
    )
    return compile_message(message, "m1.bench")


def microseconds(run: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(times):
            run()
        taken.append((time.perf_counter() - start) / times * 1e6)
    return statistics.median(taken)


def report(name: str, skeleton: Skeleton, columns: list[list[str]], eightbit: bool, batches: int) -> None:
    renderer = skeleton.renderer(eightbit)
    recipients = [f"user{at}@example.com" for at in range(100)]
    values = renderer.prepare(_NAMES, columns, recipients)[1]
    assert not isinstance(values, RenderFailure)
    size = len(renderer.wire(values, 1, _DATE))
    prepare = microseconds(lambda: renderer.prepare(_NAMES, columns, recipients), batches) / 100
    wire = microseconds(lambda: renderer.wire(values, 123_456, _DATE), batches * 20)
    print(f"{name:34} {size:6} octets   prepare {prepare:5.2f}   wire {wire:5.2f}   together {prepare + wire:5.2f} us")


def main(batches: int) -> None:
    for octets in (2_000, 20_000, 75_000):
        for eightbit, rendition in ((True, "8bit"), (False, "quoted-printable")):
            report(f"{octets // 1000} KB, {rendition}", letter(octets), _COLUMNS, eightbit, batches)
    report("2 KB, 8bit, non-ASCII values", letter(2_000), _CZECH, True, batches)
    report("2 KB, 8bit, logic", letter(2_000, "{% if city == 'Brno' %}!{% endif %}"), _COLUMNS, True, batches)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
