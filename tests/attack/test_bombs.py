"""Small inputs that could become enormous: bounded in work and memory, answered by an error of ours, felt by nobody else."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest

from sendengine.errors import RefusedInput, SendEngineError
from sendengine.intake import Intake, PackedBatch
from sendengine.render import logic, renderer
from sendengine.render.compile import compile as compile_message
from sendengine.render.logic import Logic
from sendengine.render.message import Message, dump
from sendengine.render.values import RenderFailure, Values
from sendengine.reply import MAX_LINE, MAX_REPLY, ReplyParser, _final_line, _final_lines
from sendengine.types import Outcome
from tests.attack.corpus import ours
from tests.attack.sending import TO, made, render
from tests.engine.rig import FIELDS, Rig, number
from tests.engine.virtual import run_virtually as run

MB = 1 << 20
ROOT = Path(__file__).parents[2]


def nested(head: str, count: int, body: str, tail: str = "{% endfor %}") -> str:
    return "".join(head.format(at, at - 1) for at in range(1, count + 1)) + body + tail * count


def deep(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


def over_digits(count: int, body: str) -> str:
    return nested("{{% for v{0} in '1234567890' %}}", count, body)


# Each is refused when the message is compiled.
REFUSED = {
    "billion laughs, lists": "{% for v0 in [a] %}" + nested("{{% for v{0} in [[v{1},v{1}]] %}}", 30, "{{ v30 }}") + "{% endfor %}",
    "billion laughs, texts": "{% for v0 in [a] %}" + nested("{{% for v{0} in [v{1}~v{1}] %}}", 30, "{{ v30 }}") + "{% endfor %}",
    "billion laughs, sums": "{% for v0 in [a] %}" + nested("{{% for v{0} in [v{1}+v{1}] %}}", 30, "{{ v30 }}") + "{% endfor %}",
    "billion laughs, tuples": "{% for v0 in (a, a) %}" + nested("{{% for v{0} in ((v{1}, v{1}),) %}}", 30, "{{ v30 }}") + "{% endfor %}",
    "billion laughs, maps": "{% for v0 in {a: 1} %}" + nested("{{% for v{0} in {{(v{1}~v{1}): 1}} %}}", 30, "{{ v30 }}") + "{% endfor %}",
    "billion laughs, defaults": "{% for v0 in b | default([a]) %}{{ v0 }}{% endfor %}",
    "exponential includes": "{% include 'text' %}{% include 'text' %}",
    "extends": "{% extends 'text' %}",
    "imports": "{% import 'text' as t %}{{ t.x() }}",
    "range": "{% for i in range(1000000000) %}x{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "times": "{{ 'x' * 1000000000 }}",
    "format": "{{ '%01000000000d' | format(1) }}",
    "wordwrap": "{{ a | indent(1000000000) }}",
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for x in a recursive %}{{ loop(a) }}{% endfor %}",
    "block": "{% block b %}{{ self.b() }}{% endblock %}",
    "set": "{% set x = a ~ a %}{{ x }}",
    "joins in one tag": "{% if 1 %}{{ " + "~".join("a" * 4000) + " }}{% endif %}",
    "urlencode again and again": "{{ a" + " | urlencode" * 9 + " }}",
    "nested parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "nested lists": "{{ " + "[" * 50_000 + "1" + "]" * 50_000 + " }}",
    "nested ifs": "{% if 1 %}" * 10_000 + "{% endif %}" * 10_000,
    "nested loops": "{% for x in 'a' %}" * 10_000 + "{% endfor %}" * 10_000,
    "tags without an end": "{{ a | upper " * 50_000,
    "statements without an end": "{% if " * 50_000,
    "raws without an end": "{% raw %}" * 50_000,
    "quotes without an end": "{{ '" * 50_001,
}
# Chains that minijinja reads by recursion: 50,000 of them overflow the stack and end the process.
CRASHES = {
    "not": "{% if " + "not " * 50_000 + "1 %}{% endif %}",
    "minus": "{{ " + "- " * 50_000 + "1 }}",
    "plus": "{{ a" + " + a" * 50_000 + " }}",
    "and": "{{ a" + " and a" * 50_000 + " }}",
    "elif": "{% if 0 %}" + "{% elif 0 %}" * 50_000 + "{% endif %}",
}
# Each fails its row.
FAILING: dict[str, tuple[str, object]] = {
    "loops in loops": (over_digits(8, "x"), 1),
    "a long value in loops": (over_digits(3, "{{ a }}"), "x" * 10 * MB),
    "a long list in loops": (over_digits(6, "{{ a }}"), [[]] * 30_000),
    "a deep value": ("{% if 1 %}{{ a }}{% endif %}", deep(5000)),
    "filters in loops": (over_digits(7, "{% if a | upper | lower | title %}{% endif %}"), "x" * 1300),
    "a search in loops": (over_digits(7, "{% if 'y' in a %}{% endif %}"), ["x"] * 1200),
    "escapes in loops": (over_digits(5, "{{ a | urlencode }}"), "😀" * 5000),
    "fields alone": ("{{ a }}" * 300, "x" * MB),
    "fields that do not touch": ("{{ a }}.\n" * 300, "x" * MB),
}


@pytest.mark.parametrize("name", REFUSED | CRASHES)
def test_bomb_is_refused_when_it_is_compiled(name: str) -> None:
    for place in ("text", "html", "subject"):
        with pytest.raises(RefusedInput):
            render(made(**{place: (REFUSED | CRASHES)[name]}), {"a": "x" * 10})


@pytest.mark.parametrize("name", FAILING)
def test_bomb_in_values_fails_its_row_alone(name: str) -> None:
    text, value = FAILING[name]
    made_ = compile_message(made(text=text), "u").renderer(True)
    tracemalloc.start()
    try:
        bad, good = made_.prepare(["a"], [[value, "x"]], [TO, TO])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(bad, RenderFailure)
    assert isinstance(good, tuple) or "fuel" in good.reason  # a template that no value can save
    assert peak < 64 * MB


SMALL = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
from sendengine.render.values import RenderFailure
from tests.attack.sending import TO, compile_message, made
from tests.attack.test_bombs import FAILING
for text, value in FAILING.values():
    (row,) = compile_message(made(text=text), "u").renderer(True).prepare(["a"], [[value]], [TO])
    assert isinstance(row, RenderFailure)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on address space is Linux's")
def test_all_of_them_fit_into_a_small_process() -> None:
    """What minijinja itself allocates is not Python's to count: here the system counts."""
    ended = subprocess.run([sys.executable, "-c", SMALL], cwd=ROOT, capture_output=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr[-400:]


def test_the_work_of_a_template_is_bounded_by_fuel_that_shrinks_with_its_values() -> None:
    text = Logic(over_digits(1, "{{ a }}"), "text", is_html=True)
    for size in (1, 1000, MB, 100 * MB):
        assert text._fuel(size, size) * max(size, 1) * 6 <= max(logic._BUDGET, size * 6)
        assert 1 <= text._fuel(size, size) <= logic._MOST_FUEL


def test_a_text_with_logic_may_have_one_large_value() -> None:
    text = "{% if a %}{{ a }}{% endif %}" + "".join(f"{{{{ a{at} | default('x') | upper }}}}" for at in range(50))
    assert len(render(made(text=text), {"a": "x" * 100_000})) > 100_000
    assert len(render(made(text="{% for i in list %}{{ i.name }}: {{ i.price }}\n{% endfor %}"),
                      {"list": [{"name": f"n{at}", "price": at} for at in range(100)]})) > 500  # fmt: skip


CONTROL = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from minijinja import Environment
Environment().add_template("t", "{% if " + "not " * 50_000 + "1 %}{% endif %}")
"""


def test_without_the_vetting_such_a_template_ends_the_process() -> None:
    """The control: it is what CRASHES are about, in a process of its own."""
    ended = subprocess.run([sys.executable, "-c", CONTROL], capture_output=True, timeout=50, check=False)
    assert ended.returncode < 0


def test_without_the_vetting_lists_in_loops_grow_exponentially() -> None:
    from minijinja import Environment

    bomb = REFUSED["billion laughs, lists"].replace("v30", "v12")
    environment = Environment()
    environment.fuel = 2000
    environment.add_template("t", "{% for v0 in [a] %}" + nested("{{% for v{0} in [[v{1},v{1}]] %}}", 12, "{{ v12 }}") + "{% endfor %}")
    assert len(environment.render_template("t", a="x" * 10)) > 2**12 * 10
    with pytest.raises(RefusedInput):
        Logic(bomb, "text", is_html=False)


# Many of something


def test_a_message_with_50_000_slots_is_compiled_and_rendered() -> None:
    """Linear: pairs of slots, or of names and texts, would be 2.5e9 comparisons and outlast the test's timeout."""
    count = 50_000
    text = "".join(f"{{{{ a{at} | default('d') }}}}\n\n" for at in range(count))
    assert render(made(text=text), {}).count(b"\r\nd\r\n") == count
    assert render(made(text="{% if a0 is defined %}{% endif %}" + "".join(f"{{{{ a{at} | default('d') }}}}" for at in range(2000))), {})
    names = Logic("{% if b %}{% endif %}" + "".join(f"{{{{ a{at} }}}}" for at in range(count)), "text", is_html=False)
    assert len(names.required) == count + 1


def test_a_batch_of_large_rows_is_cut_to_what_memory_holds() -> None:
    made_ = compile_message(made(text="{{ a }}\n" + "{{ a }}.\n" * 9), "u").renderer(True)
    rows = made_.prepare(["a"], [["x" * 900_000, *repeat("y" * 100, 98), "z" * 2 * MB]], [TO] * 100)
    assert [at for at, row in enumerate(rows) if isinstance(row, RenderFailure)] == [99]
    rows = made_.prepare(["a"], [["x" * 200_000] * 99 + ["y"]], [TO] * 100)  # 2 MB each, 198 MB in all
    assert [at for at, row in enumerate(rows) if not isinstance(row, RenderFailure)] == [99]
    assert renderer.MAX_BATCH < 198 * MB


@pytest.mark.parametrize(
    "eml",
    [
        b'Content-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n\n" * 100_000 + b"--b--\n",
        b"\n".join(b"X-%d: x" % at for at in range(100_000)) + b"\n\nx\n",
        b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (at, at) for at in range(1000)),
        b"Content-Type: text/plain; " + b"; ".join(b"p*%d=x" % at for at in range(50)) + b"\n\nx\n",
        b"Subject: x\n" + b" y\n" * 300_000 + b"\nx\n",
    ],
)  # fmt: skip
def test_a_mime_bomb_is_taken_or_refused_in_bounded_memory(eml: bytes) -> None:
    source = b"From: a@example.org\n" + eml
    tracemalloc.start()
    try:
        wire = ours(lambda: render(Message.from_eml(source), {}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(wire, SendEngineError | bytes)
    assert peak < 30 * len(source) + 8 * MB


def test_a_file_s_header_stays_on_its_line() -> None:
    from sendengine.render.message import Attachment

    for name in ("x" * 255, "ž" * 127, "=?utf-8?q?x?="):
        render(made(attachments=(Attachment(name, b"x"),)), {})
    for file in (Attachment("x" * 256, b"x"), Attachment("x", b"x", "text/" + "p" * 1000), Attachment("x\r\ny", b"x")):
        with pytest.raises(RefusedInput):
            render(made(attachments=(file,)), {})


# Lists of recipients


def taken(read: Callable[[Intake], object]) -> tuple[list[PackedBatch] | SendEngineError, int]:
    """What became of an input, and the most memory that Python held for it."""
    intake = Intake(("a", "b"), salt=b"s", in_headers=frozenset("b"), required=frozenset("a"))
    tracemalloc.start()
    try:
        found = ours(lambda: list(read(intake)))  # type: ignore[call-overload]
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HEAD = b"email,a,b\n"
GOOD = b"u@example.com,1,2\n"
JSON = b'{"email":"u@example.com","a":1}\n'
DEEP = b'{"email":"u@example.com","a":' + b"[" * 10_000 + b"]" * 10_000 + b',"b":1}\n'
LISTS: dict[str, tuple[bool, list[bytes], int, int]] = {  # is CSV, chunks, rows accepted, rows refused
    "a value of 10 MB": (True, [HEAD, b"u@example.com,", *repeat(b"x" * MB, 10), b",2\n", GOOD], 1, 1),
    "a line of 30 MB": (True, [HEAD, *repeat(b",x" * (MB // 2), 30), b"\n", GOOD], 1, 1),
    "a row of 10,000 columns": (True, [HEAD, b"u@example.com," + b"x," * 9_999 + b"\n", GOOD], 1, 1),
    "a hundred rows of 500,000 columns": (True, [HEAD, *repeat(b"," * 500_000 + b"\n", 100), GOOD], 1, 100),
    "a quote never closed": (True, [HEAD, b'"', *repeat(b"u@example.com,1,2\n" * 1000, 100)], -1, -1),
    "no line end": (True, [HEAD + GOOD[:-1], *repeat(b"x" * MB, 10)], 0, 1),
    "no header's end": (True, [*repeat(b"email,", 1), *repeat(b"x" * MB, 10)], -1, -1),
    "a header of one long name": (True, [b"email," + b"x" * 200_000 + b"\n", GOOD], -1, -1),
    "a header of 100,000 columns": (True, [b"email" + b",x" * 100_000 + b"\n"], -1, -1),
    "NDJSON of depth 10,000": (False, [DEEP, JSON], 1, 1),
    "NDJSON of depth 900, in a header": (False, [JSON[:-2], b',"b":' + b"[" * 900 + b"]" * 900 + b"}\n"], 0, 1),
    "NDJSON of 10 MB": (False, [JSON[:-3], b'"', *repeat(b"x" * MB, 10), b'"}\n', JSON], 1, 1),
    "NDJSON with 10,000 keys": (False, [JSON[:-2], *(b',"k%d":1' % at for at in range(10_000)), b"}\n"], 1, 0),
    "1e400": (False, [b'{"email":"u@example.com","a":1e400}\n', JSON[:-3] + b"-1e400}\n"], 0, 2),
    "5,000 digits": (False, [b'{"email":"u@example.com","a":' + b"9" * 5000 + b',"b":' + b"9" * 5000 + b"}\n"], 0, 1),
    "a key twice": (False, [b'{"email":"u@example.com","a":1,"email":"v@example.com"}\n'], 1, 0),
    "NaN": (False, [b'{"email":"u@example.com","a":NaN}\n'], 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_list_is_taken_or_refused_row_by_row_in_bounded_memory(name: str) -> None:
    is_csv, chunks, accepted, refused = LISTS[name]
    found, peak = taken(lambda intake: (intake.from_csv if is_csv else intake.from_ndjson)(chunks))
    assert peak < 64 * MB
    if accepted < 0:
        assert isinstance(found, SendEngineError | list)
    else:
        assert not isinstance(found, SendEngineError)
        assert sum(len(batch.positions) for batch in found) == accepted
        assert sum(len(batch.rejected) for batch in found) == refused


ODD = [10**5000, -(10**5000), float("inf"), float("nan"), deep(100_000), {"a": deep(2000)}, object(), b"x", {1: 2}, "\ud800", {"\ud800": 1}]


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_odd_values_of_a_program_s_rows_refuse_their_row(value: object) -> None:
    rows = [
        {"email": "u@example.com", "a": "1", "b": value},
        {"email": "v@example.com", "a": value, "b": "1"},
        {"email": "w@example.com", "a": "1"},
    ]
    found, _ = taken(lambda intake: intake.from_rows(rows))  # type: ignore[arg-type]
    assert not isinstance(found, SendEngineError)
    assert [len(batch.positions) for batch in found] == [1]
    rows = [{"email": "u@example.com", "p": value}, {"email": "v@example.com", "p": "9"}]
    (packed,) = Intake((), priority="p", salt=b"s").from_rows(rows)  # type: ignore[arg-type]
    assert packed.positions == b"\x01"


# Replies


def test_a_relay_that_never_stops_talking_is_cut_off_in_bounded_memory() -> None:
    read = MB // 4  # what uvloop reads at once
    floods = [b"2" * read, b"250-" + b"x" * read, b"250-x\r\n" * (read // 7), b"\0" * read, b"\n" * read, b"250 ok\n" * (read // 8)]
    tracemalloc.start()
    try:
        for at in range(60):
            parser = ReplyParser()
            parser.feed(b"%03d" % at + floods[at % len(floods)])
            parser.feed(floods[at % len(floods)])
            assert len(parser._rest) <= MAX_LINE or parser.fault
            assert sum(map(len, parser._lines)) <= MAX_REPLY
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        _final_line.cache_clear()
        _final_lines.cache_clear()
    assert kept < 4 * MB


# Other accounts


async def _with_a_bomb_beside(text: str, values: list[object]) -> tuple[list[float], dict[str, int]]:
    """Two accounts on one worker, the second one's template hostile: when the first one's mails left, and what became of the other's."""
    rig = Rig()
    await rig.account("m1", 36000.0)
    await rig.account("m2", 36000.0)
    await rig.submit(20, "good", "m1")
    message = Message(sender="x@example.com", subject="s", text=text)
    assert await rig.desk.create("m2", "bomb", b"d", None, dump(message), FIELDS) == "new"
    intake = Intake(("a",), salt=b"s")
    for batch in intake.from_rows({"email": f"b{at}@example.com", "a": value} for at, value in enumerate(values)):
        await rig.desk.submit("m2", "bomb", batch)
    await rig.desk.seal("m2", "bomb", 1)
    rig.start()
    await rig.until_ended("good", "m1")
    bomb = await rig.until_ended("bomb", "m2")
    assert not rig.workers["w1"][1].done()  # the worker lives
    assert (await rig.outcomes("good", "m1"))[Outcome.SENT] == 20
    counts = {name: number(bomb, name) for name in ("sent", "bounced")}
    times = rig.times("good")
    await rig.stop()
    return times, counts


def test_a_bomb_bounces_its_own_row_and_disturbs_nobody() -> None:
    text = "{% for i in '" + "x" * 100 + "' %}{{ a }}{% endfor %}"
    times, counts = run(_with_a_bomb_beside(text, ["ok", "x" * 2 * MB, "ok", ["x"] * 50_000, "ok"]))
    assert counts == {"sent": 3, "bounced": 2}
    undisturbed, _ = run(_with_a_bomb_beside("{{ a }}", ["ok"] * 5))
    assert times == pytest.approx(undisturbed, abs=0.01)


def test_the_judge_of_memory_sees_a_bomb() -> None:
    """The control: without the bounds, the same values take what they ask for."""
    values = Values({"a": ["x" * MB]}, 1)
    tracemalloc.start()
    try:
        slot = compile_message(made(text="{{ a }}" * 100), "u").renderer(True)._slots
        assert all(len(each.encode(values)) == 1 for each in slot if "a" in each.names)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 64 * MB

