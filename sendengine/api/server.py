"""The process that serves: its socket, its signals, and a connection that waits for no head longer than it must.

TERM or INT: take no new connection, let requests end that end by themselves, break off those that last, exit 0. A second one, or QUIT: at
once. HUP: the same as the first, then anew with the configuration of now. USR1: what every task waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import h11
import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sendengine.api import hooks, problems, receipts
from sendengine.api.app import Side, build
from sendengine.api.call import Services
from sendengine.api.problems import Problem
from sendengine.client import Client
from sendengine.config import Config, load, providers
from sendengine.errors import RefusedInput
from sendengine.launch import EXIT_AGAIN, EXIT_COLD, server_url
from sendengine.logs import log_to_stderr
from sendengine.remedies import Tongue
from sendengine.sink.metrics_api import ApiMeter

log = structlog.get_logger("sendengine.api")
HEAD_S = 10.0  # for the head of a request, once it has begun or the connection is new
KEEP_ALIVE_S = 75
BACKLOG = 1024
SWITCH_S = 0.0005  # readers of uploads are threads: they shall not hold up everybody else's answers


class ApiOptions(msgspec.Struct, frozen=True):
    """What `sendengine api` was told; port 0 is any free one."""

    host: str = "127.0.0.1"
    port: int = 8025
    config_path: str = ""


def run(options: ApiOptions, told: Callable[[str], None] | None = None) -> int:
    """Serve until told to stop; the exit status. `told` gets the address. Raises ConfigError, RefusedInput, Unavailable when it cannot
    begin."""
    config = load(options.config_path or None)
    log_to_stderr(config.log_format)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what it would say is said by us, or is the client's affair
    url = server_url(config)
    sys.setswitchinterval(SWITCH_S)
    loop = uvicorn.Config("", loop="uvloop", log_config=None).get_loop_factory()
    with bound(options.host, options.port) as own, asyncio.Runner(loop_factory=loop) as runner:
        if told is not None:
            told(address_of(own))
        return runner.run(_serve(config, url, own))


async def _serve(config: Config, url: str, own: socket.socket) -> int:
    opened = partial(Client, url, config=config, tongue=Tongue.REQUESTS)
    async with opened() as client, opened() as bulk:
        services = Services(client, config.api, ApiMeter(), bulk, providers(config.providers_file))
        server = server_of(services, config, [hooks.tell, receipts.ask_again])
        server.listen_to_signals(services)
        log.info("api_runs", address=address_of(own))
        await server.serve(sockets=[own])
    log.info("api_left")
    return EXIT_AGAIN if server.is_reload else 0


def server_of(services: Services, config: Config, beside: Sequence[Side] = ()) -> Server:
    return Server(
        uvicorn.Config(
            build(services, beside), http=Connection, ws="none", lifespan="on", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=round(config.engine.shutdown_timeout_s),
            h11_max_incomplete_event_size=config.api.max_head_kib << 10,
        )
    )  # fmt: skip


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RefusedInput."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        own = socket.socket(family, kind, proto)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
        own.listen(BACKLOG)
        own.setblocking(False)
    except (OSError, OverflowError) as error:
        raise RefusedInput(f"cannot listen on {host}:{port}: {error}", "choose another --host or --port") from None
    return own


def address_of(own: socket.socket) -> str:
    host, port = own.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Its signals are ours: it would end by the signal itself, not by status 0."""

    is_reload = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def listen_to_signals(self, services: Services) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, services)
        loop.add_signal_handler(signal.SIGHUP, self._reload, services)
        loop.add_signal_handler(signal.SIGQUIT, os._exit, EXIT_COLD)
        loop.add_signal_handler(signal.SIGUSR1, _dump_tasks)

    def _stop(self, services: Services) -> None:
        if self.should_exit:
            os._exit(EXIT_COLD)
        services.stopping.set()
        self.should_exit = True

    def _reload(self, services: Services) -> None:
        self.is_reload = True
        self._stop(services)


def _dump_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


class _Reader(h11.Connection):
    """Keeps what it thinks of a request that it refuses."""

    status_hint = 400

    def __init__(self, most: int) -> None:
        super().__init__(h11.SERVER, most)
        self._most = most

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            if isinstance(event, h11.Request) and self._size(event) > self._most:  # it came at once, so its reading had no limit
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
            return event
        except h11.RemoteProtocolError as error:
            self.status_hint = error.error_status_hint
            raise

    @staticmethod
    def _size(head: h11.Request) -> int:
        return len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)


class Connection(H11Protocol):
    """Refusals of a head are problem documents too, and a head that does not come is not waited for."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.conn = _Reader(self.config.h11_max_incomplete_event_size or 16 << 10)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._judge_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._judge_head()

    def send_400_response(self, msg: str) -> None:
        kind = problems.HEAD_TOO_LARGE if getattr(self.conn, "status_hint", 400) == 431 else problems.BAD_REQUEST
        body = problems.octets(Problem(kind, msg))
        fields = [("content-type", problems.TYPE), ("content-length", str(len(body))), ("connection", "close")]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer has begun already
            for event in (h11.Response(status_code=kind.status, headers=fields), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _judge_head(self) -> None:
        """One that has begun is waited for; when it is there it is not."""
        if self.conn.their_state is not h11.IDLE:
            self._await_nothing()
        elif self.conn.trailing_data[0] and self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._give_up)

    def _await_nothing(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
