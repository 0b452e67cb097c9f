"""What is compiled is found only as it stands, and whoever wants the sources gets them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sendengine import compiled

HOME = compiled.home()
_ASK = "from sendengine import compiled; from sendengine.engine import lane; print(compiled.form(), lane.__file__)"


def asked(root: Path, switch: str | None, code: str = _ASK) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)} | ({compiled.SWITCH: switch} if switch is not None else {})
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=root, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another place with the same sources, and what was compiled of them where something was."""
    for path in compiled.PACKAGE.rglob("*.py"):
        copy = tmp_path / "sendengine" / path.relative_to(compiled.PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    if HOME is not None:
        (tmp_path / "build" / "compiled").mkdir(parents=True)
        (tmp_path / "build" / "compiled" / HOME.name).symlink_to(HOME)
    return tmp_path


needs_compiled = pytest.mark.skipif(HOME is None, reason="nothing is compiled here (scripts/compile)")


def test_every_module_that_is_named_is_there() -> None:
    assert all(compiled.file_of(compiled.PACKAGE.parent, name, ".py").is_file() for name in compiled.MODULES)


@needs_compiled
def test_a_checkout_runs_what_was_compiled_of_it(checkout: Path) -> None:
    assert asked(checkout, None).stdout.startswith("compiled")
    assert asked(checkout, "1").stdout.startswith("compiled")


@needs_compiled
def test_after_an_edit_anywhere_the_sources_are_read(checkout: Path) -> None:
    with (checkout / "sendengine" / "ports.py").open("a") as file:
        file.write("# edited\n")
    told = asked(checkout, None).stdout.split()
    assert told == ["interpreted", str(checkout / "sendengine" / "engine" / "lane.py")]


def test_whoever_wants_the_sources_gets_them(checkout: Path) -> None:
    told = asked(checkout, "0").stdout.split()
    assert told == ["interpreted", str(checkout / "sendengine" / "engine" / "lane.py")]


def test_whoever_demands_what_is_compiled_is_told_that_it_is_not(checkout: Path) -> None:
    with (checkout / "sendengine" / "ports.py").open("a") as file:
        file.write("# edited\n")
    assert "scripts/compile" in asked(checkout, "1").stderr


def test_an_unknown_word_is_refused() -> None:
    assert "0 and 1 are known" in asked(compiled.PACKAGE.parent, "no").stderr


@needs_compiled
def test_a_file_too_few_and_the_sources_are_read(checkout: Path) -> None:
    """What one module is compiled to knows how the others lie in memory."""
    assert HOME is not None
    folder = checkout / "build" / "compiled" / HOME.name
    folder.unlink()
    for path in HOME.rglob("*.so"):
        copy = folder / path.relative_to(HOME)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path)
    assert asked(checkout, None).stdout.startswith("compiled")
    compiled.file_of(folder, "reply").unlink()
    assert asked(checkout, None).stdout.startswith("interpreted")


@needs_compiled
def test_an_installed_package_has_them_within_it(checkout: Path) -> None:
    assert HOME is not None
    (checkout / "sendengine" / "_compiled").mkdir()
    (checkout / "build").rename(checkout / "elsewhere")
    (checkout / "sendengine" / "_compiled" / HOME.name).symlink_to(HOME)
    assert asked(checkout, "1").stdout.startswith("compiled")


@needs_compiled
def test_a_process_that_does_not_send_reads_no_digest(checkout: Path) -> None:
    code = "import sys; from sendengine import Client; print([name for name in sys.modules if '__mypyc' in name])"
    assert asked(checkout, None, code).stdout == "[]\n"
