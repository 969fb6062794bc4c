"""Response headers of the service, and error responses in the envelope of chat or identity.

Headers as recorded in 2024 and 2025; earlier ones are quirks.
"""

from __future__ import annotations

from chatbot.emulator import serialization
from chatbot.emulator.cursors import http_date
from chatbot.emulator.errors import ErrorResponse
from chatbot.emulator.request import Request, Response
from chatbot.emulator.routing import ChatRoute, Route
from chatbot.emulator.serialization import chat_error, identity_error
from chatbot.emulator.world import World

Headers = list[tuple[bytes, bytes]]

_ERROR_JSON = b"application/json"
_CACHE = (b"x-cache", b"CONFIG_NOCACHE")
_EXPOSE = (b"access-control-expose-headers", b"*")
_ANY_ORIGIN = ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"Location"))
_CHUNKED = (b"transfer-encoding", b"chunked")
_CHANNEL = frozenset({"v3", "v4", "socket.io"})
_RANGES = (b"accept-ranges", b"bytes")
_HSTS = {
    "year": b"max-age=31536000;includeSubDomains",
    "year-spaced": b"max-age=31536000; includeSubDomains",
    "month": b"max-age=2592000",
}
_CONTEXT = (b"request-context", b"appId=")


def preflight(request: Request) -> Response:
    """Return the response to a CORS preflight."""
    headers = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", request.headers.get(b"access-control-request-headers", b"*")),
        (b"access-control-max-age", b"3600"),
    ]
    return Response(204, None, headers, is_beside=True)


class Answers:
    """Adds headers and envelopes to the responses of operations."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._date = (0, b"")

    def refusal(self, error: ErrorResponse, route: Route | None, request: Request) -> Response:
        """Return the response of an error."""
        headers = list(error.headers)
        if not _is_chat(route, request):
            return Response(error.status, identity_error(error), headers, _ERROR_JSON, error.is_versioned)
        quirks = self._world.quirks
        if error.status == 401:
            if quirks.www_authenticate:
                headers.append((b"www-authenticate", b"Bearer"))
            if quirks.unauthorized_body == "empty":
                return Response(401, None, headers)
        if error.status in {429, 503} and quirks.throttled_body == "empty":
            return Response(error.status, None, headers)
        return Response(error.status, chat_error(error, quirks), headers, _ERROR_JSON)

    def throttled(self, status: int, wait_seconds: float) -> ErrorResponse:
        """Return a 429 or 503, with a Retry-After according to the quirk; none is documented."""
        headers: tuple[tuple[bytes, bytes], ...] = ()
        match self._world.quirks.retry_after:
            case "seconds":
                headers = ((b"retry-after", b"%d" % -(-wait_seconds // 1)),)
            case "milliseconds":
                headers = ((b"x-ms-retry-after-ms", b"%d" % (wait_seconds * 1000)),)
        if status == 429:
            return ErrorResponse(429, "TooManyRequests", None, headers=headers)
        return ErrorResponse(status, "ServiceUnavailable", "The service is unavailable.", headers=headers)

    def headers(self, response: Response, route: Route | None, request: Request, took_ms: int) -> Headers:
        """Return the headers of a response."""
        quirks = self._world.quirks
        vector = self._world.state.new_vector().encode()
        is_chat = isinstance(route, ChatRoute)
        date = self._date_header(request.now - quirks.date_behind_seconds * 1000)
        end = b".0" if is_chat else b"." + quirks.identity_vector.encode()
        headers = [(b"date", date), (b"ms-cv", vector + end)]
        if response.body is not None:
            headers.append((b"content-type", response.content_type))
            # The service's errors come in chunks (all that were recorded), everything else with a length.
            is_chunked = response.content_type == _ERROR_JSON and route is not None
            headers.append(_CHUNKED if is_chunked else (b"content-length", b"%d" % len(response.body)))
        elif response.status != 204:
            headers.append((b"content-length", b"0"))
        if route is not None:
            headers += (_CACHE, (b"x-azure-ref", b"0" + vector))
            if quirks.edge_headers:
                headers.append((b"connection", b"keep-alive"))
                headers += [_RANGES] if response.status == 200 else []
        if isinstance(route, ChatRoute):
            headers += self._chat_headers(route, request)
        elif route is not None:
            headers += _identity_headers(response, route, request)
        elif not response.is_beside:  # not an operation: scripts in a browser must be able to read the error
            headers += _readable(request)
        headers.append((b"x-processing-time", b"%dms" % took_ms))
        if request.base.startswith("https:") and not request.base.startswith("https://localhost"):
            headers.append(
                (b"strict-transport-security", _HSTS[quirks.hsts])
            )  # a browser would force https on everything else at localhost
        headers += response.headers
        return headers

    def _chat_headers(self, route: ChatRoute, request: Request) -> Headers:
        is_typing = route.name == "send_typing_notification"
        headers: Headers = [serialization.TYPING_HEADER if is_typing else serialization.CHAT_HEADER]
        if self._world.quirks.mise_correlation:
            headers.append((b"mise-correlation-id", self._world.state.new_guid().encode()))
        _echo(request, headers)
        headers += _ANY_ORIGIN if b"origin" in request.headers else (_EXPOSE,)
        return headers

    def _date_header(self, now: int) -> bytes:
        second = now // 1000
        if self._date[0] != second:
            self._date = (second, http_date(second).encode())
        return self._date[1]


def _readable(request: Request) -> Headers:
    """What lets a script read an answer of no operation; of the real-time channel all of it, WWW-Authenticate too."""
    if b"origin" not in request.headers:
        return [_EXPOSE]
    is_channel = request.segments[0].lower() in _CHANNEL
    return [_ANY_ORIGIN[0], _EXPOSE if is_channel else _ANY_ORIGIN[1]]


def _is_chat(route: Route | None, request: Request) -> bool:
    if route is not None:
        return isinstance(route, ChatRoute)
    return request.segments[0].lower() not in {"identities", "teamsuser", "access"}


def _versions(route: Route, response: Response) -> tuple[bytes, bytes]:
    """The api-versions that identity advertises: by operation, and otherwise in refusals of tokens (recorded)."""
    if route.name == "exchange_token":
        return serialization.TEAMS_HEADER
    if route.name == "exchange_extension_token" or route.name.endswith("_assignment"):
        return serialization.EXTENSION_HEADER
    is_refusal = route.name == "issue_token" and response.status >= 400
    return serialization.ISSUE_ERRORS_HEADER if is_refusal else serialization.IDENTITY_HEADER


def _identity_headers(response: Response, route: Route, request: Request) -> Headers:
    headers: Headers = []
    if response.is_versioned:
        headers.append(_versions(route, response))
    headers.append(_CONTEXT)
    _echo(request, headers, is_asked=True)
    if b"origin" in request.headers:
        headers.append(_ANY_ORIGIN[0])
    return headers


def _echo(request: Request, headers: Headers, *, is_asked: bool = False) -> None:
    """Identity always repeats the request's id, chat where the request asks for it (recorded)."""
    sent = request.headers.get(b"x-ms-client-request-id")
    if sent and (is_asked or request.headers.get(b"x-ms-return-client-request-id", b"").lower() == b"true"):
        headers.append((b"x-ms-client-request-id", sent))
