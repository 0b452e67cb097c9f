"""Makes the compiled modules (sendengine/compiled.py): `scripts/compile`. Exit status 3 where there is no C compiler or no headers."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ["SENDENGINE_COMPILED"] = "0"

from sendengine import compiled  # noqa: E402  its own folder comes first

LACKING = 3


def main(words: list[str]) -> int:
    if why := lacking():
        print(f"not compiled: {why}. Everything runs as well, slower.", file=sys.stderr)
        return LACKING
    if words:
        build(Path(words[0]).resolve().parent)
        return 0
    compiled.FOLDER.mkdir(parents=True, exist_ok=True)
    with (compiled.FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = compiled.home()
        if not made.is_dir():
            print("compiling the hot path, a minute", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=compiled.FOLDER) as folder:
                build(Path(folder) / "made")
                for old in compiled.FOLDER.iterdir():
                    if old.is_dir() and old != Path(folder):
                        shutil.rmtree(old)
                (Path(folder) / "made").rename(made)
    return 0


def lacking() -> str:
    """What is missing here; "" when nothing is."""
    words = (sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(words[0]) is None:
        return f"there is no C compiler {words[0]}"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers are not installed"
    return ""


def build(target: Path) -> None:
    """The modules into `target`, beneath the names of their packages."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as work:
        sources = [f"sendengine/{name.replace('.', '/')}.py" for name in compiled.MODULES]
        modules = mypycify(["--cache-dir", f"{work}/cache", *sources], target_dir=f"{work}/c", opt_level="2", debug_level="0")
        command = Distribution({"name": "sendengine", "ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib, command.build_temp, command.parallel = str(target), f"{work}/o", os.cpu_count()
        command.ensure_finalized()
        command.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
