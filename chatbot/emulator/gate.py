"""From an ASGI scope to a request with its route; what the service does not have is refused here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chatbot.emulator import routes, versions
from chatbot.emulator.problems import ServiceError
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.request import MAX_BODY, Request, parse_path, parse_query
from chatbot.emulator.routes import ChatRoute, Route

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


def read(scope: Scope, public: str | None, fallback: str, now: int) -> Request:
    """The request of a scope, its body still to come.

    Links name the public base for requests that came by its scheme (plain http beside https is the own machine's
    way in), else the host the request came to.
    """
    headers = dict(scope["headers"])
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else scope["path"]
    query = scope.get("query_string", b"").decode("latin-1")
    scheme, host = scope.get("scheme", "https"), headers.get(b"host", b"").decode("latin-1")
    base = f"{scheme}://{host}" if host else fallback
    if public is not None and public.startswith(f"{scheme}:"):
        base = public
    return Request(
        method=scope["method"],
        segments=parse_path(path),
        query=parse_query(query),
        headers=headers,
        body=b"",
        base=base,
        target=f"{path}?{query}" if query else path,
        now=now,
    )


async def body(receive: Receive) -> bytes:
    """The whole body; 413 above the limit, without keeping what is too much."""
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionAbortedError
        chunk = event.get("body", b"")
        size += len(chunk)
        if size <= MAX_BODY:
            chunks.append(chunk)
        if not event.get("more_body", False):
            break
    if size > MAX_BODY:
        raise ServiceError(413, "RequestEntityTooLarge", "The request is too large.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def route(request: Request, quirks: Quirks) -> Route:
    """The operation asked for; notes the api-version in the request."""
    methods = routes.find(request.segments)
    if methods is None:
        raise ServiceError(404, "NotFound", "The requested resource does not exist.")
    found = methods.get(request.method)
    if found is None:
        allowed = (b"allow", ", ".join(methods).encode())
        text = f"The HTTP method '{request.method[:20]}' is not allowed here."
        raise ServiceError(405, "MethodNotAllowed", text, headers=(allowed,))
    _version(found, request, quirks)
    return found


def _version(found: Route, request: Request, quirks: Quirks) -> None:
    version = request.query.get("api-version", "")
    is_chat = isinstance(found, ChatRoute)
    known = versions.CHAT if is_chat else versions.IDENTITY
    if version in known:
        request.version = version
        return
    request.version = known[-1]
    if not version:
        text = "An API version is required, but was not specified."
        raise ServiceError(400, "ApiVersionUnspecified", text)
    if is_chat and quirks.unsupported_version == "accept":
        return
    shown = f"{request.base}{request.target}"[:300]
    text = (
        f"The HTTP resource that matches the request URI '{shown}' does not support the API version '{version[:40]}'."
    )
    raise ServiceError(400, "UnsupportedApiVersion", text)
