"""Makes the compiled modules (sendengine/compiled.py): `scripts/compile`. Exit status 3 where that cannot be, with the reason."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ["SENDENGINE_COMPILED"] = "0"

from sendengine import compiled  # noqa: E402  its own folder comes first

CANNOT = 3
KEPT_S = 86400.0  # another interpreter may run what is older than the sources, or a process that is starting


def main(words: list[str]) -> int:
    package = Path(words[0]) if words else None
    if why := lacking() or (unlike(package) if package else ""):
        return cannot(why)
    folder = package / "_compiled" if package else compiled.CHECKOUT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        return cannot(str(error))
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / compiled.digest()
        if compiled.is_whole(made) and (made / "tools").read_text() == tools():
            return 0
        print("compiling the hot path, a minute", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            if not build(Path(work)):
                return cannot("the compiler refused it")
            if compiled.digest() != made.name:
                return cannot("a source was edited meanwhile; try again")
            (Path(work) / "made" / "tools").write_text(tools())
            shutil.rmtree(made, ignore_errors=True)
            (Path(work) / "made").rename(made)
        forget(folder, made)
    return 0


def tools() -> str:
    """What stands for the compiler, its version and its options."""
    files = (Path(__file__), ROOT / "requirements" / "dev.txt", ROOT / "pyproject.toml")
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def cannot(why: str) -> int:
    print(f"not compiled: {why}. Everything runs as well, slower.", file=sys.stderr)
    return CANNOT


def lacking() -> str:
    """What is missing here; "" when nothing is."""
    words = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(words[0]) is None:
        return f"there is no C compiler {words[0]}"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers are not installed"
    return ""


def unlike(package: Path) -> str:
    """Why what is made here is not that package's; "" when it is."""
    if not (package / "compiled.py").is_file():
        return f"{package} is no installed package of sendengine"
    if compiled.digest(package) != compiled.digest():
        return f"{package} has other sources than this checkout"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if package.parent.parent.name not in (version, "lib", "python3"):
        return f"{package} belongs to another Python than {version}, which is in .venv"
    return ""


def build(work: Path) -> bool:
    """The modules into work/made, beneath the names of their packages."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.errors import CCompilerError

    os.chdir(ROOT)
    words = ["--cache-dir", f"{work}/cache", *(str(compiled.file_of(Path(), name, ".py")) for name in compiled.MODULES)]
    group = compiled.SHARED.removesuffix("__mypyc")
    modules = mypycify(words, target_dir=f"{work}/c", group_name=group, opt_level="2", debug_level="0")
    for module in modules:
        module.extra_compile_args.append("-Wno-error")  # another compiler warns of other things
    command = Distribution({"name": "sendengine", "ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp, command.parallel = f"{work}/made", f"{work}/o", os.cpu_count()
    command.ensure_finalized()
    try:
        command.run()
    except CCompilerError as error:
        print(error, file=sys.stderr)
        return False
    return True


def forget(folder: Path, made: Path) -> None:
    """What was made of older sources, but not what a process may be about to import."""
    for old in folder.iterdir():
        if old.is_dir() and old != made and old.stat().st_mtime < time.time() - KEPT_S:
            shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
