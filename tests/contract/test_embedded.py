"""The embedded server as a real process: started once, shared, found again, losing nothing it acknowledged."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from sendengine.errors import ConfigError, Unavailable
from sendengine.queue import embedded


def running(state_dir: Path) -> embedded.Status:
    found = embedded.status(state_dir)
    assert found is not None
    return found


def kill(state_dir: Path) -> int:
    pid = running(state_dir).pid
    os.kill(pid, signal.SIGKILL)
    return pid


def python(code: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


ENSURE = "import sys, pathlib; from sendengine.queue import embedded; d = pathlib.Path(sys.argv[1]);"


def test_no_server_is_neither_shown_nor_stopped_nor_is_its_folder_made(state_dir: Path) -> None:
    assert embedded.status(state_dir) is None
    assert not embedded.stop(state_dir)
    assert list(state_dir.iterdir()) == []


def test_server_is_private_durable_and_listens_on_no_port(state_dir: Path) -> None:
    with Redis.from_url(embedded.ensure(state_dir), decode_responses=True) as redis:
        config = redis.config_get("*")
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
        "lazyfree-lazy-user-del": "yes",
    }
    assert {key: config[key] for key in wanted} == wanted
    assert (state_dir / "redis").stat().st_mode & 0o777 == 0o700
    assert (state_dir / "redis" / "redis.sock").stat().st_mode & 0o777 == 0o700


def test_second_command_finds_the_first_ones_server(state_dir: Path) -> None:
    url = embedded.ensure(state_dir)
    pid = running(state_dir).pid
    assert embedded.ensure(state_dir) == url
    assert running(state_dir).pid == pid


def test_status_tells_what_runs(state_dir: Path) -> None:
    url = embedded.ensure(state_dir)
    found = running(state_dir)
    assert (found.url, found.aof_ok) == (url, True)
    assert found.pid == int((state_dir / "redis" / "server.pid").read_text())
    assert found.version[0].isdigit()
    assert found.memory > 100_000


def test_concurrent_starters_start_one_server(state_dir: Path) -> None:
    code = ENSURE + "sys.stdin.readline(); print(embedded.ensure(d), embedded.status(d).pid)"
    starters = [python(code, state_dir) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        answers = set(threads.map(lambda starter: starter.communicate("go\n")[0], starters))
    assert len(answers) == 1
    assert int(answers.pop().split()[1]) == running(state_dir).pid


def test_shared_server_outlives_its_starter_and_an_ephemeral_one_does_not(state_dir: Path) -> None:
    shared, ephemeral = state_dir / "shared", state_dir / "ephemeral"
    code = ENSURE + "print(embedded.ensure(d, ephemeral=sys.argv[2] == 'e'), flush=True); sys.stdin.read()"
    starters = [python(code, shared, "s"), python(code, ephemeral, "e")]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("unix://")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(ephemeral / "redis" / "redis.sock"))
        for starter in starters:
            starter.kill()
            starter.communicate()
        assert connection.recv(1) == b""  # blocks until the server ends
    assert embedded.status(ephemeral) is None
    assert embedded.stop(shared)


def test_killed_server_comes_back_with_all_that_it_acknowledged(state_dir: Path) -> None:
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        for number in range(20):
            redis.rpush("list", number)
    killed = kill(state_dir)
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        assert redis.lrange("list", 0, -1) == [b"%d" % number for number in range(20)]
    assert running(state_dir).pid != killed


def test_torn_last_write_is_cut_off_and_the_rest_loads(state_dir: Path) -> None:
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        redis.set("whole", 1)
        redis.set("torn", "x" * 100)
    kill(state_dir)
    (file,) = (state_dir / "redis" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 50)
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        assert redis.keys() == [b"whole"]


def test_stopped_server_is_gone_when_stop_returns_and_keeps_its_data(state_dir: Path) -> None:
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        redis.set("key", 1)
    assert embedded.stop(state_dir)
    assert embedded.status(state_dir) is None
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        assert redis.get("key") == b"1"


def test_a_server_that_was_killed_is_revived_once_with_its_data(state_dir: Path) -> None:
    with Redis.from_url(embedded.ensure(state_dir)) as redis:
        redis.set("key", 1)
    assert not embedded.revive(state_dir)  # it lives
    kill(state_dir)
    assert embedded.status(state_dir) is None
    assert embedded.revive(state_dir)
    with Redis.from_url(running(state_dir).url) as redis:
        assert redis.get("key") == b"1"


def test_a_server_that_was_stopped_or_has_a_keeper_is_not_revived(state_dir: Path) -> None:
    assert not embedded.revive(state_dir)  # there was none
    embedded.ensure(state_dir)
    assert embedded.stop(state_dir)
    assert not embedded.revive(state_dir)
    embedded.ensure(state_dir, ephemeral=True)
    kill(state_dir)
    assert embedded.status(state_dir) is None
    assert not embedded.revive(state_dir)


def test_stale_pid_file_of_another_process_is_not_believed(state_dir: Path) -> None:
    folder = state_dir / "redis"
    folder.mkdir()
    (folder / "server.pid").write_text(str(os.getpid()))
    assert embedded.status(state_dir) is None
    embedded.ensure(state_dir)
    assert running(state_dir).pid != os.getpid()


def test_long_state_directory_gets_a_short_socket(state_dir: Path) -> None:
    deep = state_dir / ("d" * 120)
    try:
        url = embedded.ensure(deep)
        with Redis.from_url(url) as redis:
            assert redis.ping()
        assert running(deep).url == url
    finally:
        assert embedded.stop(deep)
        Path(url.removeprefix("unix://")).parent.rmdir()


def test_directory_with_a_space_and_a_percent_sign_is_reached(state_dir: Path) -> None:
    odd = state_dir / "a b%20c"
    with Redis.from_url(embedded.ensure(odd)) as redis:
        assert redis.ping()
    assert embedded.stop(odd)


def test_port_and_extra_configuration_are_passed_on(state_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = embedded.ensure(state_dir, ephemeral=True, port=port, extra={"maxmemory": "20mb"})
    assert url == f"redis://127.0.0.1:{port}"
    with Redis.from_url(url, decode_responses=True) as redis:
        assert redis.config_get("maxmemory") == {"maxmemory": "20971520"}


def test_server_that_cannot_start_is_an_error_with_its_reason_and_the_way_out(state_dir: Path) -> None:
    with pytest.raises(Unavailable, match="embedded server ended") as caught:
        embedded.ensure(state_dir, extra={"no-such-setting": "1"})
    assert "SENDENGINE_REDIS_URL" in caught.value.remedy


def test_unusable_state_directory_is_an_error_with_the_way_out(state_dir: Path) -> None:
    (state_dir / "file").write_text("")
    with pytest.raises(Unavailable, match="no state directory") as caught:
        embedded.ensure(state_dir / "file")
    assert "SENDENGINE_REDIS_URL" in caught.value.remedy


@pytest.mark.parametrize(
    ("given", "environ", "url"),
    [
        ("redis://a", {"SENDENGINE_REDIS_URL": "redis://b", "REDIS_URL": "redis://c"}, "redis://a"),
        ("", {"SENDENGINE_REDIS_URL": "redis://b", "REDIS_URL": "redis://c"}, "redis://b"),
        ("", {"SENDENGINE_REDIS_URL": "", "REDIS_URL": "valkey://c:1/2"}, "redis://c:1/2"),
        ("valkeys://user:word@d", {}, "rediss://user:word@d"),
        ("unix:///run/redis.sock", {}, "unix:///run/redis.sock"),
        ("valkeys+cluster://d:1,e:2", {}, "rediss+cluster://d:1,e:2"),
        ("", {"REDIS_URL": "valkey+sentinel://d,e/mail"}, "redis+sentinel://d,e/mail"),
    ],
)
def test_nearest_url_wins(given: str, environ: dict[str, str], url: str) -> None:
    assert embedded.resolve_url(environ, given) == url


def test_without_any_url_the_embedded_server_of_the_state_directory_is_used(state_dir: Path) -> None:
    url = embedded.resolve_url({"SENDENGINE_STATE_DIR": str(state_dir)})
    assert url == running(state_dir).url


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis+ring://a,b", "unix+cluster:///run/redis.sock"])
def test_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no Redis URL"):
        embedded.resolve_url({"REDIS_URL": url})


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"SENDENGINE_STATE_DIR": "/s", "XDG_STATE_HOME": "/x"}, Path("/s")),
        ({"XDG_STATE_HOME": "/x"}, Path("/x/sendengine")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/sendengine"),
        ({}, Path.home() / ".local/state/sendengine"),
    ],
)
def test_state_directory_is_found(environ: dict[str, str], path: Path) -> None:
    assert embedded.default_state_dir(environ) == path
