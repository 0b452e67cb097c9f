"""Postfix and Haraka as relays in front of the sink, each with its own queue on disk; and what the wire itself carries.

The letters reach them by SMTP as fast as they take them; what counts is what comes out behind.
"""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from benchmarks.bench import free_port, session_cpu_seconds
from benchmarks.letter import recipient, sender
from benchmarks.peers.ground import Arriving, Ground, Server
from benchmarks.peers.install import BUILD, HERE, Absent, node_modules, program

_DAEMONS = Path("/usr/lib/postfix/sbin")
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {daemons}
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.example
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{sink}
disable_dns_lookups = yes
in_flow_delay = 0
default_process_limit = 100
initial_destination_concurrency = 20
default_destination_concurrency_limit = 20
"""
_MASTER = """\
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
_PRIVATE = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")


# Postfix


async def postfix(ground: Ground, size: int, arriving: Arriving) -> float:
    server = await ground.kept("postfix", _start_postfix)
    return await _relayed(ground, server, size, arriving)


def has_postfix() -> None:
    if os.geteuid() != 0:
        raise Absent("Postfix starts as root only")
    if not (_DAEMONS / "master").exists():
        raise Absent("postfix is not installed")


def _start_postfix(ground: Ground) -> Server:
    """Its configuration and queue are its own: the system's Postfix, if there is one, does not notice."""
    folder, port = BUILD / "postfix", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    queue = folder / "queue"
    for name in (*_PRIVATE, "pid", "public", "maildrop"):
        (queue / name).mkdir(parents=True)
        if name != "pid":
            shutil.chown(queue / name, "postfix", "postdrop" if name in ("public", "maildrop") else None)
    for name in _PRIVATE:
        (queue / name).chmod(0o700)
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    words = {"folder": folder, "daemons": _DAEMONS, "sink": ground.sink.port, "port": f"127.0.0.1:{port}"}
    (folder / "main.cf").write_text(_MAIN.format(**words))
    (folder / "master.cf").write_text(_MASTER.format(**words))
    return ground.server("postfix", port, str(_DAEMONS / "master"), "-c", str(folder), "-d")


async def _relayed(ground: Ground, server: Server, size: int, arriving: Arriving) -> float:
    """CPU of all its processes, the taking in included: it is one machine's work."""
    before = session_cpu_seconds(server.process.pid)
    await ground.inject(server.port, size)
    arrival = await arriving
    return (session_cpu_seconds(server.process.pid) - before) / max(1, arrival.count) * 1e6


# Haraka


async def haraka(ground: Ground, size: int, arriving: Arriving) -> float:
    return await _relayed(ground, await ground.kept("haraka", _start_haraka), size, arriving)


def has_haraka() -> None:
    if not (node_modules() / "Haraka" / "bin" / "haraka").exists():
        raise Absent("npm has no haraka")


def _start_haraka(ground: Ground) -> Server:
    folder, port = BUILD / "haraka", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(node_modules() / "Haraka" / "config", folder / "config")  # its defaults: without them it does not greet
    for name in ("plugins", "queue"):
        (folder / name).mkdir()
    shutil.copy(HERE / "haraka_to_sink.js", folder / "plugins" / "to_sink.js")
    files = {
        "smtp.ini": f"listen=127.0.0.1:{port}\nnodes=0\n",
        "plugins": "to_sink\n",
        "me": "relay.example\n",
        "log.ini": "[main]\nlevel=ERROR\n",
        "outbound.ini": "concurrency_max=100\nenable_tls=false\nlocal_mx_ok=true\n",
        "sink_port": f"{ground.sink.port}\n",
    }
    for name, content in files.items():
        (folder / "config" / name).write_text(content)
    node, program_ = program("node"), node_modules() / "Haraka" / "bin" / "haraka"
    if node is None:
        raise Absent("node is not installed")
    return ground.server("haraka", port, node, str(program_), "-c", str(folder))


# The wire


async def smtp_source(ground: Ground, size: int, arriving: Arriving) -> float:
    """Postfix' load generator in C, twenty sessions kept open: every letter the same, nothing rendered, queued or written down."""
    found = program("smtp-source")
    if found is None:
        raise Absent("smtp-source is not installed (Debian: postfix)")
    from_, to = sender("m1"), recipient("m1", 1)
    words = (found, "-d", "-s", "20", "-l", "2048", "-m", str(size), "-f", from_, "-t", to, f"127.0.0.1:{ground.sink.port}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    async with ground.script(*words) as process:
        arrival = await arriving
        await process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / max(1, arrival.count) * 1e6
