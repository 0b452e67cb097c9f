"""Data from outside stays data: nothing in the package unpickles or evaluates it, and a template reaches plain values only."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from minijinja import Environment

import sendengine
from sendengine.errors import SendEngineError
from sendengine.render.logic import Logic
from sendengine.render.values import Values
from tests.attack.corpus import ours

PACKAGE = Path(sendengine.__file__).parent
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "workers").rglob("*.py")])
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "jsonpickle", "marshal", "shelve", "jinja2", "mako", "code",
           "codeop", "runpy", "imp"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
ATTRIBUTES = {"yaml.load", "yaml.unsafe_load", "os.system", "os.popen", "numpy.load", "builtins.eval", "builtins.exec"}


def executions(source: str) -> Iterator[str]:
    """What in a source could turn data into code. `re.compile`, and our own `compile` under another name, are no such thing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if name.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in MODULES:
                yield f"from {node.module}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                yield f"{node.func.id}()"
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ATTRIBUTES:
                yield f"{ast.unparse(node.func)}()"
            risky = [word for word in node.keywords if word.arg in ("shell", "allow_pickle")]
            yield from (f"{word.arg}=True" for word in risky if ast.unparse(word.value) == "True")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_source_neither_unpickles_nor_evaluates(path: Path) -> None:
    assert list(executions(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "import pickle as p", "from marshal import loads", "eval(x)", "def f(x):\n    exec(x)", "yaml.load(x)",
    "import jinja2.sandbox",
     "__import__(x)", "run(x, shell=True)", "compile(x, '', 'exec')", "os.system(x)", "numpy.load(x, allow_pickle=True)"],
)  # fmt: skip
def test_a_source_that_does_is_found_out(source: str) -> None:
    assert list(executions(source))


# Templates


class Spy:
    """Notes whatever is asked of it."""

    def __init__(self) -> None:
        self.__dict__["asked"] = []

    def __getattr__(self, name: str) -> object:
        self.__dict__["asked"].append(name)
        return lambda *_: "reached"

    def __str__(self) -> str:
        self.__dict__["asked"].append("__str__")
        return "reached"

    __call__ = __getitem__ = lambda self, *_: "reached"


REACHING = [
    "{{ v.items }}", "{{ v.append }}", "{{ v.pop }}", "{{ v.upper }}", "{{ v.format }}", "{{ v.real }}", "{{ v['pop']('x') }}",
    "{{ (v.pop)('x') }}", "{{ (v.append)(1) }}", "{{ (v.extend)(v) }}", "{{ v.keys() }}", "{{ v.get ('x') }}", "{{ v['get']\n('x') }}",
    "{{ v.__class__ }}", "{{ v['__class__'] }}", "{{ v.__class__.__base__.__subclasses__ }}", "{{ v.__class__.__mro__[1] }}",
    "{{ v.__init__.__globals__ }}", "{{ v.__dict__ }}", "{{ v.asked }}", "{{ v.real.numerator }}", "{{ v.x.items }}", "{{ v[0].append }}",
    "{{ v | attr('items') }}", "{{ v | map(attribute='x') }}", "{{ self }}", "{{ loop }}", "{{ debug() }}", "{{ namespace }}",
    "{{ dict }}",
    "{{ range }}", "{{ cycler }}", "{{ joiner }}", "{{ environment }}", "{{ os }}", "{{ request }}", "{{ config }}", "{{ PATH }}",
    "{{ env.PATH }}", "{{ self.__init__ }}", "{{ ''.__class__ }}", "{{ [].append }}", "{{ ().count }}", "{{ 1 .real }}",
]  # fmt: skip
VALUES: list[object] = [{"x": {"y": 1}, "z": [1]}, [{"a": 1}, [2]], "text", 5, 1.5, True, {}, []]


def rendered(text: str, value: object) -> str | None:
    """What a reader of this row would see, or None where the template or the row is refused."""
    made = ours(lambda: Logic("{% if 1 %}" + text + "{% endif %}", "text", is_html=False))
    if isinstance(made, SendEngineError):
        return None
    values = Values({"v": [value]}, 1)
    (found,) = made.filled(values)
    return None if values.failures else found


@pytest.mark.parametrize("text", REACHING)
def test_template_reaches_no_attribute_method_or_surroundings(text: str) -> None:
    for value in VALUES:
        before = repr(value)
        found = rendered(text, value)
        assert not found, f"{text} of {value} gives {found}"
        assert repr(value) == before


def test_what_belongs_to_a_value_is_reached() -> None:
    assert rendered("{{ v.x.y }}{{ v['z'][0] }}{% for k in v.z %}{{ k }}{% endfor %}{% if 'x' in v %}!{% endif %}", VALUES[0]) == "111!"
    assert rendered("{{ v.items }}", {"items": "its own"}) == "its own"
    assert rendered("{{ v[0].a }}{{ v | length }}{{ v[1] | first }}", VALUES[1]) == "122"


STRANGE = [Spy(), [Spy()], {"x": Spy()}, Spy, len, os.environ, lambda: "reached", b"x", {1, 2}, (1, 2)]


@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_what_is_no_plain_data_is_refused_before_it_is_asked(value: object) -> None:
    for text in ("{{ v }}", "{{ v | upper }}", "{{ v.x }}", "{% for x in v %}{{ x }}{% endfor %}", "{{ v == 1 }}"):
        assert rendered(text, value) is None
    inner = value[0] if isinstance(value, list) else value["x"] if type(value) is dict else value
    assert not (isinstance(inner, Spy) and inner.__dict__["asked"])


def test_minijinja_alone_reaches_methods() -> None:
    """The control: given the same list, a bare environment calls it."""
    value: list[object] = [1]
    environment = Environment()
    environment.add_template("t", "{{ (v.append)(2) }}")
    environment.render_template("t", v=value)
    assert value == [1, 2]
