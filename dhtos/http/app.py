"""The ASGI application: whom to let in, what was asked, and the answer while somebody waits for it.

A request passes the guard, is read and parsed against its declaration, and is answered by a task
that ends when the client hangs up: whatever it asked of the fleet is freed with it.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import aclosing
from difflib import get_close_matches
from itertools import count
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dhtos.core.limits import HTTP_ANSWER_S, HTTP_BODY_S
from dhtos.errors import DhtosError
from dhtos.http import problems
from dhtos.http.openapi import document
from dhtos.http.problems import HttpError
from dhtos.http.routes import QUESTIONS, Question
from dhtos.http.service import Service
from dhtos.http.shapes import Nothing

_JSON = "application/json"
_TURN = 64  # lines between two turns of the loop


def application(service: Service, *, names: Iterable[str], version: str) -> ASGIApp:
    """The application of one node; `names` are hosts it may be addressed as."""
    told = msgspec.json.encode(document(version))
    by_path: dict[str, dict[str, ASGIApp]] = {}
    for question in QUESTIONS:
        by_path.setdefault(question.path, {})[question.method] = Endpoint(service, question)
    routes = [
        Route(path, ByMethod(methods), methods=list(methods)) for path, methods in by_path.items()
    ]

    async def openapi(_: Request) -> Response:
        return Response(told, media_type=_JSON)

    routes.append(Route("/openapi.json", openapi, methods=["GET"]))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    return Guard(app, service, names)


async def _no_route(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, with the nearest that there is."""
    assert isinstance(error, HTTPException)
    paths = [question.path for question in QUESTIONS] + ["/openapi.json"]
    if error.status_code == 405:
        allowed = dict(error.headers or {})
        told = f"{request.url.path} takes {allowed.get('Allow', 'GET')}, got {request.method}"
        return problems.answer(HttpError(405, told, headers=allowed))
    near = get_close_matches(request.url.path, paths, 1)
    hint = f"did you mean {near[0]}?" if near else "/openapi.json lists what there is"
    return problems.answer(HttpError(404, f"there is no {request.url.path}", hint))


class Guard:
    """Refuses what a web page of somebody else may have sent, and counts what is answered.

    A page can make a browser ask 127.0.0.1 under a name of its own (DNS rebinding), so names must
    be known; addresses cannot be rebound. A page of another origin is refused by its `Origin`.
    """

    def __init__(self, app: ASGIApp, service: Service, names: Iterable[str]) -> None:
        self._app = app
        self._service = service
        self._names = {"localhost", *(name.casefold() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._service.counters[str(message["status"])] += 1
            await send(message)

        try:
            self._check(Headers(scope=scope))
        except HttpError as error:
            await problems.answer(error)(scope, receive, counting)
        else:
            await self._app(scope, receive, counting)

    def _check(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_known(host):
            raise HttpError(
                403,
                f"Host must be an address, localhost or one of http_names, got {host!r}",
                "ask by address, or add the name to http_names",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise HttpError(
                403, f"pages of {origin!r} may not ask", "ask from a program instead of a web page"
            )

    def _is_known(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdecimal():
            name = host
        name = name.removeprefix("[").removesuffix("]").rstrip(".").casefold()
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class ByMethod:
    """The questions of one path; HEAD is GET without a body."""

    def __init__(self, methods: Mapping[str, ASGIApp]) -> None:
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a method that the path has."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._methods[method](scope, receive, send)


class Endpoint:
    """One question as an ASGI application."""

    def __init__(self, service: Service, question: Question) -> None:
        self._service = service
        self._question = question
        self._body: msgspec.json.Decoder[Any] | None = (
            msgspec.json.Decoder(question.takes) if question.has_body else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; says of a fault of our own only that it is one."""
        request = Request(scope, receive)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            asked = await self._asked(request)
            await attended(receive, self._respond(asked, scope, receive, sending))
        except DhtosError as error:
            await problems.answer(error)(scope, receive, send)
        except Exception as error:
            if started:
                raise
            self._service.node.on_warning(f"a fault while answering {request.url.path}: {error!r}")
            fault = HttpError(500, "a fault of dhtos itself", "report it with what was asked")
            await problems.answer(fault)(scope, receive, send)

    # --- what was asked ---------------------------------------------------------------------------

    async def _asked(self, request: Request) -> Any:  # noqa: ANN401 - what the question takes
        question = self._question
        if self._body is not None:
            return _parsed(self._body.decode, await self._read(request))
        given: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name in given:
                raise HttpError(400, f"the parameter {name!r} came twice", "give it once")
            given[name] = value
        if question.has_token:
            _parsed(lambda told: msgspec.convert(told, Nothing), given)
            return request.path_params["token"]
        return _parsed(lambda told: msgspec.convert(told, question.takes, strict=False), given)

    async def _read(self, request: Request) -> bytes:
        bytes_max = self._question.bytes_max
        kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
        if kind != _JSON:
            raise HttpError(
                415, f"Content-Type must be {_JSON}, got {kind or 'none'}", "say so in the header"
            )
        found = bytearray()
        try:
            async with asyncio.timeout(HTTP_BODY_S):
                async for part in request.stream():
                    found += part
                    if len(found) > bytes_max:
                        raise HttpError(
                            413, f"a body has at most {bytes_max} bytes", "ask for less"
                        )
        except TimeoutError as error:
            raise HttpError(408, f"the body did not come within {HTTP_BODY_S:g} s") from error
        return bytes(found)

    # --- the answer -------------------------------------------------------------------------------

    async def _respond(self, asked: object, scope: Scope, receive: Receive, send: Send) -> None:
        question = self._question
        try:
            async with asyncio.timeout(HTTP_ANSWER_S):
                answer = await question.handle(self._service, asked)
                first = await anext(answer) if question.is_stream else None
        except TimeoutError as error:
            raise HttpError(504, f"there was no answer within {HTTP_ANSWER_S:g} s") from error
        if first is not None:
            await _stream(first, answer, send)
            return
        if not isinstance(answer, Response):
            answer = self._document(answer)
        await answer(scope, receive, send)

    def _document(self, answer: object) -> Response:
        question = self._question
        if question.gives is None:
            return Response(status_code=question.status)
        headers = {}
        if question.status == 201 and isinstance(answer, dict):
            headers["Location"] = f"{question.path}/{answer['token']}"
        written = isinstance(answer, bytes)  # JSON already: whoever answers knew a faster way
        body = answer if written else msgspec.json.encode(answer)
        return Response(body, question.status, headers, _JSON)


def _parsed(parse: Any, told: object) -> Any:  # noqa: ANN401 - what the question takes
    """What was asked; raises HttpError where it is not what was declared."""
    try:
        return parse(told)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HttpError(400, str(error), "/openapi.json says what can be asked") from error


async def _stream(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]], send: Send) -> None:
    """Line after line, as fast as the client reads them; an error is the last one."""
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    encode = msgspec.json.Encoder().encode
    async with aclosing(rest):  # type: ignore[type-var]
        line = first
        try:
            for sent in count(1):
                body = encode(line) + b"\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if sent % _TURN == 0:  # neither sending nor what is at hand waits for anything
                    await asyncio.sleep(0)
                line = await anext(rest)
        except StopAsyncIteration:
            last = b""
        except DhtosError as error:
            last = encode({"error": problems.problem(error)}) + b"\n"
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def attended(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work as long as the client is there; hanging up cancels it."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Wait until the client is gone; what it still sends is dropped."""
    while (await receive())["type"] != "http.disconnect":
        continue
