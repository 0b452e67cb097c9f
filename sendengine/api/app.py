"""The ASGI application: a route for each operation, one way in, one way out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from sendengine.api import access, accounts, billing, checks, hooks, openapi, problems, receipts, sends, sms, suppressions
from sendengine.api.call import Call, Reply, Services
from sendengine.api.operations import JSON, Operation
from sendengine.api.problems import Problem, problem_of
from sendengine.errors import SendEngineError
from sendengine.policy.apikeys import Scope as KeyScope
from sendengine.sink.metrics_api import CONTENT_TYPE_LATEST

log = structlog.get_logger("sendengine.api")
OPERATIONS: tuple[Operation, ...] = (
    *sends.OPERATIONS, *sms.OPERATIONS, *accounts.OPERATIONS, *suppressions.OPERATIONS, *hooks.OPERATIONS, *billing.OPERATIONS,
    *receipts.OPERATIONS, *checks.OPERATIONS,
)
Side = Callable[[Services], Awaitable[None]]
SIDE_PAUSE_S = 5.0
DRAINED, DRAIN_S = 1 << 20, 0.5  # of a body that nobody wants: then the connection is closed
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def build(services: Services, beside: Sequence[Side] = ()) -> Starlette:
    """`beside`: what runs beside the answers as long as the application does."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_kept(work, services)) for work in beside]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            services.close()

    document = openapi.encoded(OPERATIONS)
    routes = [
        *_routes(OPERATIONS, services),
        Route("/openapi.json", _plain(lambda: Response(document, media_type=JSON))),
        Route("/healthz", _plain(lambda: Response(b"ok\n", media_type="text/plain"))),
        Route("/readyz", _readiness(services)),
        Route("/metrics", _metrics(services)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_route, Exception: _bug})
    app.router.redirect_slashes = False
    return app


async def _kept(work: Side, services: Services) -> None:
    """A bug there is logged and costs a pause, not the answers; nor does it end what runs beside them without anybody noticing."""
    while True:
        try:
            await work(services)
        except Exception:
            log.exception("api_side_failed")
        await asyncio.sleep(SIDE_PAUSE_S)


class _SendName(Convertor[str]):
    """m1234:ID, and m1234/sms:ID, whose slash is none of the path's, written as it is or as %2F."""

    regex = "(?:m[1-9][0-9]{0,17}/[a-z]+:)?[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("send", _SendName())


def _routes(operations: Iterable[Operation], services: Services) -> list[Route]:
    """One a path, so that a method it does not know is 405 with those that it does."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation
    routes = [
        Route(path.replace("{send}", "{send:send}"), _Endpoint(by_method, services), methods=list(by_method))
        for path, by_method in paths.items()
    ]
    for route in routes:
        (route.methods or set()).discard("HEAD")  # of a stream it would never end
    return routes


class _Endpoint:
    """ASGI, so that it may look at what is left of the body when it has answered."""

    def __init__(self, operations: dict[str, Operation], services: Services) -> None:
        self._operations, self._services = operations, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive)
        request = Request(scope, body.receive)
        body.waits_to_be_asked = request.headers.get("expect", "").lower() == "100-continue"
        operation = self._operations[request.method]
        started = time.monotonic()
        self._services.requests += 1
        try:
            response = await self._answer(operation, request)
            if not await body.is_drained():
                response.headers["Connection"] = "close"
            self._note(operation, request, response.status_code, time.monotonic() - started)
            await response(scope, body.receive, send)
        finally:
            self._services.requests -= 1

    async def _answer(self, operation: Operation, request: Request) -> Response:
        try:
            if self._services.requests > self._services.limits.requests:
                raise Problem(problems.BUSY, "too many requests are on their way", headers={"Retry-After": "1"})
            key = access.NOBODY
            if operation.scope is not None:
                key = await self._services.door.enter(request, time.monotonic(), time.time())
                access.demand(key, operation.scope, operation.operators)
            call = Call(request, key, self._services)
            value = await operation.handler(call)
            return _response(operation, value)
        except (SendEngineError, Problem) as error:
            problem = problem_of(error, "{" in operation.path)
            if problem.kind is problems.BUG:
                log.exception("api_bug", operation=operation.name)
            elif problem.kind is problems.AWAY:
                log.warning("api_without_redis", operation=operation.name, error=str(error))
            return problems.answer(problem)
        except ClientDisconnect:
            return problems.answer(Problem(problems.TIMED_OUT, "the sender is gone before the end of its body"))
        except Exception as error:
            log.exception("api_bug", operation=operation.name)
            return problems.answer(problem_of(error))

    def _note(self, operation: Operation, request: Request, status: int, seconds: float) -> None:
        self._services.meter.answered(operation.name, status, seconds)
        log.info("api_request", operation=operation.name, path=request.url.path[:200], status=status, ms=round(seconds * 1000, 1))


class _Body:
    """A request's body, and whether all of it was read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_ended = False
        self.waits_to_be_asked = False  # RFC 9110 10.1.1: nothing of it comes before it is read

    async def receive(self) -> Message:
        self.waits_to_be_asked = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._has_ended = True
        return message

    async def is_drained(self) -> bool:
        """A little of what nobody wants is read, so that the sender gets to our answer; of the rest the connection's end saves us."""
        if self.waits_to_be_asked:
            return False
        size = 0
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._has_ended and size < DRAINED:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass
        return self._has_ended


def _response(operation: Operation, value: Any) -> Response:
    if isinstance(value, Response):
        value.headers.update(HEADERS)
        return value
    reply = value if isinstance(value, Reply) else Reply(value, operation.status)
    return Response(msgspec.json.encode(reply.value), reply.status, {**HEADERS, **reply.headers}, JSON)


def _plain(made: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return made()

    return endpoint


def _readiness(services: Services) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        """Redis answers, and the process is not leaving."""
        try:
            await services.client.desk.api_key("")
        except SendEngineError as error:
            return problems.answer(problem_of(error))
        if services.stopping.is_set():
            return problems.answer(Problem(problems.BUSY, "the process leaves"))
        return Response(b"ok\n", media_type="text/plain")

    return endpoint


def _metrics(services: Services) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            if not services.limits.open_metrics:
                access.demand(await services.door.enter(request, time.monotonic(), time.time()), KeyScope.READ, True)
        except (SendEngineError, Problem) as error:
            return problems.answer(problem_of(error))
        text = services.meter.exposition(services.requests, services.door.uploads.held, services.door.streams.held)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return endpoint


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    kind = {404: problems.NOT_FOUND, 405: problems.NO_METHOD}.get(status, problems.BAD_REQUEST)
    detail = f"{request.method} {request.url.path[:200]}"
    return problems.answer(Problem(kind, detail, "/openapi.json has all that can be asked", getattr(error, "headers", None)))


async def _bug(request: Request, error: Exception) -> Response:
    return problems.answer(problem_of(error))
