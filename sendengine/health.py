"""A small HTTP/1.1 responder for probes and scrapes: GET only, one request a connection, bounded in size and time.

It knows paths and what answers them, nothing of workers. RFC 9110 and 9112, as far as a probe needs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from sendengine.errors import RefusedInput

REQUEST_OCTETS = 8192
REQUEST_SECONDS = 5.0
REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    431: "Request Header Fields Too Large", 503: "Service Unavailable",
}  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    type: str = "text/plain; charset=utf-8"


Routes = Mapping[str, Callable[[], Answer]]


async def serve(host: str, port: int, routes: Routes) -> asyncio.Server:
    """Listen; port 0 takes a free one. Raises RefusedInput when the address cannot be had."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(_encode(await _respond(reader, routes)))
            await asyncio.wait_for(writer.drain(), REQUEST_SECONDS)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone
        finally:
            writer.close()

    try:
        return await asyncio.start_server(on_connection, host, port, limit=REQUEST_OCTETS)
    except OSError as error:
        raise RefusedInput(f"cannot listen on {host}:{port}: {error.strerror}", "choose another port") from None


async def _respond(reader: asyncio.StreamReader, routes: Routes) -> Answer:
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_SECONDS)
    except TimeoutError:
        return _plain(408)
    except asyncio.LimitOverrunError:
        return _plain(431)
    method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
    target, _, version = rest.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        return _plain(400)
    answer = routes.get(target.partition(b"?")[0].decode("latin-1"))
    if answer is None:
        return _plain(404)
    return answer() if method == b"GET" else _plain(405)


def _plain(status: int) -> Answer:
    return Answer(status, REASONS[status].encode() + b"\n")


def _encode(answer: Answer) -> bytes:
    allow = "Allow: GET\r\n" if answer.status == 405 else ""  # RFC 9110 15.5.6
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: {answer.type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + answer.body
