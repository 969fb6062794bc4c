"""The emulator as an ASGI application.

Written against ASGI itself, without a framework: an idle `list_messages` is answered several times faster
than through a full stack, so that a load test measures the bot. Needs no socket: tests call it in-process.
Order of a request: route, api-version, token, quota, operation; faults may strike before and after.
"""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from chatbot.emulator import auth, routes, versions
from chatbot.emulator.bodies import Dialect, chat_error, identity_error
from chatbot.emulator.cursors import http_date
from chatbot.emulator.operations import Chat
from chatbot.emulator.people import People
from chatbot.emulator.problems import ServiceError
from chatbot.emulator.request import MAX_BODY, Request, Response, parse_path, parse_query
from chatbot.emulator.routes import ChatRoute, Route
from chatbot.emulator.world import World

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ERROR_JSON = b"application/json"
_CACHE = (b"x-cache", b"CONFIG_NOCACHE")
_EXPOSE = (b"access-control-expose-headers", b"*")
_CONTEXT = (b"request-context", b"appId=")
_HSTS = (b"strict-transport-security", b"max-age=2592000")


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it was answered, for tests to look at; status 0 is no answer at all."""

    at: int
    operation: str
    method: str
    target: str
    status: int
    user: str


class Emulator(People):
    """An ASGI application over a `World`.

    All time comes from `clock` (Unix epoch seconds): ids, expiries, quotas, the `Date` header. `calls` keeps
    the latest requests.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        clock: Callable[[], float] = time.time,
        endpoint: str = "https://emulator.invalid",
        quotas: bool = True,
        public_base: str | None = None,
    ) -> None:
        super().__init__(world or World(), clock)
        self.endpoint = endpoint.rstrip("/")
        self.public_base = public_base
        self.calls: deque[Call] = deque(maxlen=10_000)
        self._dialects: dict[str, Dialect] = {}
        self._date = (0, b"")

    @property
    def access_key(self) -> str:
        """The resource's key, base64."""
        return self.world.resource.access_key

    @property
    def connection_string(self) -> str:
        """What SDKs take; names the endpoint this emulator was told it has."""
        return f"endpoint={self.endpoint}/;accesskey={self.access_key}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _decline(scope, receive, send)
            return
        request = self._read(scope)
        route: Route | None = None
        try:
            request.body = await _body(receive)
            route = self._route(request)
            response = self._run(route, request)
        except ServiceError as error:
            response = self._refuse(error, route, request)
        await self._answer(response, route, request, send)

    def _read(self, scope: Scope) -> Request:
        headers = dict(scope["headers"])
        raw = scope.get("raw_path")
        path = raw.decode("latin-1") if raw else scope["path"]
        query = scope.get("query_string", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        return Request(
            method=scope["method"],
            segments=parse_path(path),
            query=parse_query(query),
            headers=headers,
            body=b"",
            base=self.public_base or (f"{scope.get('scheme', 'https')}://{host}" if host else self.endpoint),
            target=f"{path}?{query}" if query else path,
            now=self.now(),
        )

    def _route(self, request: Request) -> Route:
        methods = routes.find(request.segments)
        if methods is None:
            raise ServiceError(404, "NotFound", "The requested resource does not exist.")
        route = methods.get(request.method)
        if route is None:
            allowed = (b"allow", ", ".join(methods).encode())
            text = f"The HTTP method '{request.method[:20]}' is not allowed here."
            raise ServiceError(405, "MethodNotAllowed", text, headers=(allowed,))
        self._version(route, request)
        return route

    def _version(self, route: Route, request: Request) -> None:
        version = request.query.get("api-version", "")
        is_chat = isinstance(route, ChatRoute)
        known = versions.CHAT if is_chat else versions.IDENTITY
        lenient = is_chat and version and self.world.quirks.unsupported_version == "accept"
        request.version = version if version in known else known[-1]
        if version in known or lenient:
            return
        if not version:
            text = "An API version is required, but was not specified."
            raise ServiceError(400, "ApiVersionUnspecified", text)
        shown = f"{request.base}{request.target}"[:300]
        text = (
            f"The HTTP resource that matches the request URI '{shown}' "
            f"does not support the API version '{version[:40]}'."
        )
        raise ServiceError(400, "UnsupportedApiVersion", text)

    def _run(self, route: Route, request: Request) -> Response:
        if isinstance(route, ChatRoute):
            request.caller = auth.chat(request, self.world, route.scopes)
            return route.run(Chat(self.world, request, self._dialect(request.version)))
        auth.identity(request, self.world)
        return route.run(self.world, request)

    def _dialect(self, version: str) -> Dialect:
        dialect = self._dialects.get(version)
        if dialect is None:
            dialect = self._dialects[version] = Dialect.of(version, self.world.quirks)
        return dialect

    def _refuse(self, error: ServiceError, route: Route | None, request: Request) -> Response:
        headers = list(error.headers)
        is_chat = (
            isinstance(route, ChatRoute) if route else request.segments[0].lower() not in {"identities", "teamsuser"}
        )
        if not is_chat:
            return Response(error.status, identity_error(error), headers, _ERROR_JSON)
        quirks = self.world.quirks
        if error.status == 401:
            if quirks.www_authenticate:
                headers.append((b"www-authenticate", b"Bearer"))
            if quirks.unauthorized_body == "empty":
                return Response(401, None, headers)
        return Response(error.status, chat_error(error, quirks), headers, _ERROR_JSON)

    async def _answer(self, response: Response, route: Route | None, request: Request, send: Send) -> None:
        name = route.name if route else ""
        self.calls.append(Call(request.now, name, request.method, request.target, response.status, request.caller))
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": self._headers(response, route, request),
            }
        )
        await send({"type": "http.response.body", "body": response.body or b""})

    def _headers(self, response: Response, route: Route | None, request: Request) -> list[tuple[bytes, bytes]]:
        headers = [(b"date", self._date_header(request.now)), (b"ms-cv", self._vector())]
        if response.body is not None:
            headers.append((b"content-type", response.content_type))
            headers.append((b"content-length", str(len(response.body)).encode()))
        elif response.status != 204:
            headers.append((b"content-length", b"0"))
        if isinstance(route, ChatRoute):
            headers += (versions.CHAT_HEADER, _CACHE, _EXPOSE)
        elif route is not None:
            if response.status < 400:
                headers.append(versions.TEAMS_HEADER if route.name == "exchange_token" else versions.IDENTITY_HEADER)
            headers.append(_CONTEXT)
            self._echo(request, headers)
        headers.append((b"x-processing-time", b"%dms" % (self.now() - request.now)))
        if request.base.startswith("https:") and not request.base.startswith("https://localhost"):
            headers.append(_HSTS)
        headers += response.headers
        return headers

    @staticmethod
    def _echo(request: Request, headers: list[tuple[bytes, bytes]]) -> None:
        sent = request.headers.get(b"x-ms-client-request-id")
        if sent and request.headers.get(b"x-ms-return-client-request-id", b"").lower() == b"true":
            headers.append((b"x-ms-client-request-id", sent))

    def _date_header(self, now: int) -> bytes:
        second = now // 1000
        if self._date[0] != second:
            self._date = (second, http_date(second).encode())
        return self._date[1]

    def _vector(self) -> bytes:
        return base64.b64encode(self.world.state.random.randbytes(16))[:22] + b".0"


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= MAX_BODY:
            chunks.append(chunk)
        if not message.get("more_body", False):
            break
    if size > MAX_BODY:
        raise ServiceError(413, "RequestEntityTooLarge", "The request is too large.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _decline(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.close"})
