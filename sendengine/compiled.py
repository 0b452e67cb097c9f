"""The hot path's modules, compiled: which they are, and how a checkout finds them.

The same files, and no second source: mypyc makes machine code of them where there is a C compiler (scripts/compile), which takes a quarter
to a third off a message (docs/design/026). A checkout keeps them in build/compiled, in a folder named by the digest of every source file
and of the interpreter, so that what was edited since is read as it stands. An installed package has them beside its sources.

SENDENGINE_COMPILED: 0 the sources are interpreted; 1 it is an error when they would be; unset: compiled, where they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
FOLDER = PACKAGE.parent / "build" / "compiled"
SUFFIX = EXTENSION_SUFFIXES[0]
SWITCH = "SENDENGINE_COMPILED"

# Modules that define Structs stay as they are: their annotations are what msgspec reads. So does channel/train.py: mypyc 2.4 makes C of it
# that is none.
MODULES = (
    "engine.pacing", "engine.work", "engine.lane", "engine.feed", "engine.journal", "engine.delivery", "engine.visits", "engine.takes",
    "engine.screening", "engine.texts", "engine.worker", "channel.session", "channel.protocol", "reply",
)  # fmt: skip


def digest(package: Path = PACKAGE) -> str:
    """Of every source file, since what one module is compiled to depends on the types of others, and of the interpreter."""
    from hashlib import sha256  # by whoever sends, alone

    hasher = sha256(f"{SUFFIX} {sys.version}".encode())
    for path in sorted(package.rglob("*.py")):
        hasher.update(b"%b\0%d\0" % (path.relative_to(package).as_posix().encode(), path.stat().st_size))
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:20]


def home() -> Path:
    """Where a checkout's compiled modules are, once they are made."""
    return FOLDER / digest()


def is_compiled() -> bool:
    """Whether this process runs them."""
    from sendengine import reply

    return not (reply.__file__ or "").endswith(".py")


class Finder:
    """Finds the compiled modules of a checkout. What stands there is looked at when the first one is imported: most processes need none."""

    def __init__(self, must: bool) -> None:
        self._must = must
        self._home: Path | None = None
        self._names = frozenset(f"sendengine.{name}" for name in MODULES)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._names and not fullname.endswith("__mypyc"):  # what they share is a module of its own
            return None
        if self._home is None:
            self._home = home()
        file = self._home / (fullname.replace(".", "/") + SUFFIX)
        if file.is_file():
            spec = ModuleSpec(fullname, ExtensionFileLoader(fullname, str(file)), origin=str(file))
            spec.has_location = True
            return spec
        if self._must and fullname in self._names:
            raise ImportError(f"{SWITCH}=1, and {fullname} is not compiled as it stands (scripts/compile)")
        return None


def install() -> None:
    """Called by the package when it is imported. Outside a checkout there is nothing to find."""
    must = os.environ.get(SWITCH) == "1"
    if os.environ.get(SWITCH) != "0" and (must or FOLDER.is_dir()) and not any(isinstance(each, Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, Finder(must))
