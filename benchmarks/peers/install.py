"""What peers need, made where it is missing: an environment of their own, npm's modules, Debian's postfix. All under build/peers.

None of it is a dependency of the product. Whatever cannot be had is Absent, in a word that the table shows; nothing else is stopped by it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.bench import ROOT

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "peers"
_PATH = os.environ.get("PATH", "") + ":/usr/sbin"  # where Debian puts smtp-sink
_BOUND_S = 300.0
_POSTFIX = "postfix postfix/main_mailer_type select No configuration"  # leaves out main.cf, without which its daemon never starts


class Absent(Exception):
    """A peer that cannot run here, and why."""


def program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def python() -> Path:
    """The interpreter of the peers' own environment, made of the hashed requirements beside this file."""
    lock = HERE / "requirements.txt"
    folder = BUILD / "venv"
    if not _is_made(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        _call(sys.executable, "-m", "venv", "--without-pip", str(folder))
        quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:")
        _call(sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", *quiet, "--requirement", str(lock))
        _stamp(folder, lock)
    return folder / "bin" / "python"


def node_modules() -> Path:
    """npm's modules of package-lock.json."""
    npm = program("npm")
    if npm is None or program("node") is None:
        raise Absent("node and npm are not installed")
    lock, folder = HERE / "package-lock.json", BUILD / "node"
    if not _is_made(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        _call(npm, "ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder))
        _stamp(folder, lock)
    return folder / "node_modules"


def postfix() -> None:
    """smtp-sink, smtp-source and Postfix' own programs; its daemon is not configured, and the system's files are left alone."""
    if program("smtp-sink") is not None:
        return
    if os.geteuid() != 0 or program("apt-get") is None:
        raise Absent("postfix is not installed (apt-get install postfix)")
    environ = {"DEBIAN_FRONTEND": "noninteractive"}
    _call("debconf-set-selections", given=_POSTFIX, environ=environ)
    _call("apt-get", "update", "-q", environ=environ)
    _call("apt-get", "install", "-y", "-q", "--no-install-recommends", "postfix", environ=environ)


def _is_made(folder: Path, lock: Path) -> bool:
    stamp = folder / "stamp"
    return stamp.is_file() and stamp.read_bytes() == lock.read_bytes()


def _stamp(folder: Path, lock: Path) -> None:
    shutil.copy(lock, folder / "stamp")


def _call(*words: str, given: str = "", environ: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(
            words, input=given, check=True, capture_output=True, text=True, timeout=_BOUND_S, env=os.environ | (environ or {})
        )
    except FileNotFoundError as error:
        raise Absent(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Absent(f"{Path(words[0]).name} took longer than {_BOUND_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        raise Absent(f"{Path(words[0]).name} failed: {said[-1][:100] if said else error.returncode}") from error
