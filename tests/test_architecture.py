"""The layout as a rule: imports point down, an outside library has one home, and a client loads nothing of sending."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sendengine import compiled

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sendengine"

# Level of each member of the package; what is not named is the shell, 4: it knows everything.
PURE = (
    "types", "lanes", "address", "addressing", "reply", "errors", "remedies", "batch", "records", "csv_cells", "rows", "intake", "render",
    "policy",
)  # fmt: skip
LEVELS = {
    **dict.fromkeys(PURE, 0),
    "ports": 1,
    **dict.fromkeys(("queue", "channel", "sink", "keyring", "posting"), 2),
    "engine": 3,
}
SHELL = 4
HOMES = {
    "redis": "queue/",
    "aiohttp": ("posting.py", "channel/"),
    "aiosmtplib": "channel/",
    "cryptography": "keyring.py",
    "phonenumbers": "policy/numbers.py",
    "prometheus_client": "sink/metrics",
    "smpp34": "channel/smpp/pdu.py",
    "uvloop": "process.py",
    **dict.fromkeys(("starlette", "uvicorn", "h11"), "api/"),
}
IMPURE = {"asyncio", "socket", "subprocess", "time", "random", "secrets", "tempfile"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every absolute module name that a file imports, also inside functions; not what only type checkers read."""
    tree = ast.parse(path.read_bytes())
    unread = {id(node) for block in ast.walk(tree) if _is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def member(module: str) -> str:
    """`sendengine.queue.keys` -> `queue`."""
    return [*module.split("."), ""][1]


def own(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def may_import(path: Path, module: str) -> bool:
    top = module.split(".")[0]
    here = LEVELS.get(own(path), SHELL)
    if top == "sendengine":
        if member(module) == "api" or own(path) == "api":
            return is_of_the_api(path, module)
        there = LEVELS.get(member(module), SHELL)
        # Adapters know no other one, and the engine knows them as ports only.
        return member(module) == own(path) or (there <= here and there not in (2, 3)) or here == SHELL
    if top in HOMES:
        return path.relative_to(PACKAGE).as_posix().startswith(HOMES[top])
    return here > 0 or top not in IMPURE


def is_of_the_api(path: Path, module: str) -> bool:
    """Only what starts it knows the API, and it knows nothing of how state is kept or mail is sent: it asks the client."""
    if member(module) == "api":
        return own(path) in ("api", "commands")
    return LEVELS.get(member(module), SHELL) not in (2, 3) or module.startswith(("sendengine.sink", "sendengine.posting"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_imports_only_what_its_level_allows(path: Path) -> None:
    assert [module for module in imports(path) if not may_import(path, module)] == []


@pytest.mark.parametrize(
    ("path", "module", "allowed"),
    [
        ("policy/verdict.py", "sendengine.types.Reply", True),
        ("policy/verdict.py", "time", False),
        ("policy/verdict.py", "sendengine.ports.Clock", False),
        ("queue/keys.py", "redis.asyncio", True),
        ("queue/keys.py", "sendengine.channel.smtp", False),
        ("queue/keys.py", "sendengine.engine.worker", False),
        ("engine/pace.py", "redis", False),
        ("engine/pace.py", "sendengine.queue.memory", False),
        ("engine/pace.py", "sendengine.config.Config", False),
        ("sink/log.py", "prometheus_client", False),
        ("render/dkim.py", "cryptography.hazmat", False),
        ("engine/delivery.py", "sendengine.keyring.Keyring", False),
        ("keyring.py", "cryptography.hazmat", True),
        ("cli.py", "uvloop", False),
        ("commands/running.py", "starlette.routing", False),
        ("client.py", "uvicorn", False),
        ("api/sends.py", "starlette.responses", True),
        ("api/sends.py", "redis", False),
        ("api/sends.py", "sendengine.queue.desk", False),
        ("api/sends.py", "sendengine.client.Client", True),
        ("scheduler/status.py", "sendengine.api.app", False),
        ("cli.py", "sendengine.engine.worker", True),
    ],
)
def test_rule_tells_good_from_bad(path: str, module: str, allowed: bool) -> None:
    assert may_import(PACKAGE / path, module) is allowed


@pytest.mark.parametrize("path", [path for path in MODULES if "re" in imports(path)], ids=str)
def test_no_expression_takes_a_group_possessively(path: Path) -> None:
    """Python before 3.11.5 matches none that it should (gh-106052); Debian 12 has 3.11.2."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if re.search(r"(?<!\\)\)(?:[*+?]|\{\d*,?\d*\})\+|\(\?>", text)]


@pytest.mark.parametrize("name", compiled.MODULES)
def test_what_is_compiled_awaits_nothing_while_an_exception_is_handled(name: str) -> None:
    """mypyc keeps what is being handled for the whole thread: another task would find it, and a bare raise raise another's."""
    tree = ast.parse(compiled.file_of(ROOT, name, ".py").read_bytes())
    blocks = [node.body for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    blocks += [node.finalbody for node in ast.walk(tree) if isinstance(node, ast.Try)]
    waits = (ast.Await, ast.AsyncWith, ast.AsyncFor, ast.Yield, ast.YieldFrom)
    assert not [node.lineno for block in blocks for part in block for node in ast.walk(part) if isinstance(node, waits)]


def test_nothing_imports_the_workers() -> None:
    users = [path for path in MODULES if any(module.split(".")[0] == "workers" for module in imports(path))]
    assert users == []


def test_client_is_loaded_without_the_sending_half() -> None:
    names = "Client, Message" if (PACKAGE / "client.py").exists() else "__version__"
    code = f"import sys; from sendengine import {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "sendengine" in loaded
    unwanted = {"aiohttp", "aiosmtplib", "cryptography", "phonenumbers", "smpp34", "uvloop", "prometheus_client"}
    assert loaded & (unwanted | {"starlette", "uvicorn", "h11", "sendengine.api"}) == set()
