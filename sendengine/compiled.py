"""The hot path's modules, compiled: which they are, and how they are found.

The same files, and no second source: mypyc makes machine code of them where there is a C compiler (scripts/compile), which takes a quarter
to a third off a message (docs/design/026). It is kept in a folder named by the digest of every source file and of the interpreter, in
build/compiled of a checkout, in _compiled of an installed package: what was edited or upgraded since is read as it stands. All of them are
compiled or none: what one is compiled to knows how the others lie in memory.

SENDENGINE_COMPILED: 0 the sources are interpreted; 1 it is an error when they would be; unset: compiled, where they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
CHECKOUT, INSTALLED = PACKAGE.parent / "build" / "compiled", PACKAGE / "_compiled"
SUFFIX = EXTENSION_SUFFIXES[0]
SWITCH = "SENDENGINE_COMPILED"
SHARED = "sendengine__mypyc"

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
        if not path.name.startswith("."):  # an editor's
            octets = path.read_bytes()
            hasher.update(b"%b\0%d\0%b" % (path.relative_to(package).as_posix().encode(), len(octets), octets))
    return hasher.hexdigest()[:20]


def file_of(folder: Path, name: str, suffix: str = SUFFIX) -> Path:
    return folder / f"sendengine/{name.replace('.', '/')}{suffix}"


def files_in(folder: Path) -> dict[str, Path]:
    """By the full names of their modules; what they have in common is a module of its own."""
    return {SHARED: folder / f"{SHARED}{SUFFIX}"} | {f"sendengine.{name}": file_of(folder, name) for name in MODULES}


def is_whole(folder: Path) -> bool:
    return all(file.is_file() for file in files_in(folder).values())


@cache
def home() -> Path | None:
    """Where all of the compiled modules are, as the sources stand; None when they are nowhere."""
    try:
        made = digest()
    except OSError:  # a file that goes while it is read: whoever changes them wants the sources
        return None
    return next((folder for folder in (CHECKOUT / made, INSTALLED / made) if is_whole(folder)), None)


def form() -> str:
    """What this process runs."""
    from sendengine import reply

    return "interpreted" if (reply.__file__ or "").endswith(".py") else "compiled"


class Finder:
    """Finds the compiled modules. What stands there is looked at when the first one is imported: most processes need none."""

    def __init__(self, must: bool) -> None:
        self._must = must
        self._names = frozenset(files_in(Path()))

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        folder = home()
        if folder is None and self._must:
            raise ImportError(f"{SWITCH}=1, and {fullname} is not compiled as it stands (scripts/compile)")
        if folder is None:
            return None
        file = str(files_in(folder)[fullname])
        spec = ModuleSpec(fullname, ExtensionFileLoader(fullname, file), origin=file)
        spec.has_location = True
        return spec


def install() -> None:
    """Called by the package when it is imported."""
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "0", "1"):
        raise ImportError(f"{SWITCH} is {switch!r}: 0 and 1 are known")
    if switch == "0" or any(isinstance(each, Finder) for each in sys.meta_path):
        return
    if switch == "1" or CHECKOUT.is_dir() or INSTALLED.is_dir():
        sys.meta_path.insert(0, Finder(switch == "1"))
