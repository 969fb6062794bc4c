"""The read-only status pages, /healthz, /readyz, /status and /metrics, and the HTTP server that serves them.

The content of the pages is read on the bots' event loop; if that does not answer in time, the pages say so.

A client can connect and send nothing. So every connection has a time limit for its next request and for its response,
and a new connection replaces the one that has been idle for longest once `MOST_CONNECTIONS` are open. A probe sends
its request at once, so it is answered however many idle connections there are.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from chatbot.dispatch.plugin_tasks import running_our_code
from chatbot.http_listener import CannotListen, bind_tcp, serve_app
from chatbot.runtime.observe.metrics import CONTENT_TYPE, render
from chatbot.runtime.observe.status import StatusMonitor, as_json
from chatbot.service.endpoint import is_loopback
from chatbot.worker_threads import run_in_thread

T = TypeVar("T")

HEALTH_SECONDS: Final = 0.5
"""Seconds /healthz waits for the bots' loop before it answers without it. Probes wait 1 s by default."""

READY_SECONDS: Final = 4.0
"""Seconds /readyz waits, unless the loop is known to be blocked. Includes time for a slow disk."""

SCRAPE_SECONDS: Final = 9.0
"""Seconds /metrics and /status wait. Prometheus waits 10 s by default."""

_UNCACHED = {"Cache-Control": "no-store"}


class BotsLoop:
    """Run functions on the event loop that created this object, from any event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def call(self, function: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Run the function on the bots' loop and return its result.

        Args:
            function: What to run.
            seconds: The time limit. It does not apply if the caller is on the bots' loop itself.

        Raises:
            TimeoutError: The loop did not finish the call in time.
        """
        if asyncio.get_running_loop() is self._loop:
            return await function()

        async def run() -> T:
            return await function()

        # This may be a thread of the server: what it does there, such as canceling the call, is no code of a plugin.
        with running_our_code():
            asked = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))
        async with asyncio.timeout(seconds):
            return await asked


def pages(status_monitor: StatusMonitor) -> Starlette:
    """Create the status pages as an ASGI application. Call this on the bots' event loop."""
    loop = BotsLoop()

    def patience() -> float:
        return HEALTH_SECONDS if status_monitor.is_blocked else READY_SECONDS

    async def healthz(_request: Request) -> Response:
        try:
            missed = await loop.call(status_monitor.read_missed, HEALTH_SECONDS)
        except TimeoutError:
            missed = status_monitor.missed_of_blocked()
        body = {"is_healthy": not missed, "missed": missed}
        return JSONResponse(body, status_code=503 if missed else 200, headers=_UNCACHED)

    async def readyz(_request: Request) -> Response:
        try:
            unready = await loop.call(status_monitor.unready, patience())
        except TimeoutError:
            unready = (status_monitor.why_no_answer(),)
        body = {"is_ready": not unready, "unready": unready, "is_emulator": status_monitor.is_emulator}
        return JSONResponse(body, status_code=503 if unready else 200, headers=_UNCACHED)

    async def status(_request: Request) -> Response:
        try:
            return JSONResponse(as_json(await loop.call(status_monitor.read_status, SCRAPE_SECONDS)), headers=_UNCACHED)
        except TimeoutError:
            return _no_answer(status_monitor)

    async def metrics(_request: Request) -> Response:
        try:
            found = await loop.call(status_monitor.read_status, SCRAPE_SECONDS)
        except TimeoutError:
            return _no_answer(status_monitor)
        text = await run_in_thread(render, found)
        return Response(text, headers={**_UNCACHED, "Content-Type": CONTENT_TYPE})

    endpoints = (healthz, readyz, status, metrics)
    return Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])


def _no_answer(status_monitor: StatusMonitor) -> Response:
    return JSONResponse({"error": status_monitor.why_no_answer()}, status_code=503, headers=_UNCACHED)


_GRACE_SECONDS: Final = 0.5
MOST_CONNECTIONS: Final = 64
"""Maximum number of connections. A further one closes the connection that has been idle for longest."""

REQUEST_SECONDS: Final = 10.0
"""Time limit from the start of a connection to the head of its first request."""

ANSWER_SECONDS: Final = 30.0
"""Time limit from the head of a request until the client has received the response."""

IDLE_SECONDS: Final = 20
"""Time limit from a response to the head of the next request."""


def serve_pages(app: Starlette, host: str, port: int) -> AbstractAsyncContextManager[str]:
    """Bind now, and serve while the block runs. The block receives the address as `http://HOST:PORT`.

    A loopback server answers only requests whose Host header names loopback. Otherwise a web page could read the
    pages through its visitor's browser, under a name of its own (DNS rebinding).

    Args:
        host: An IP address of this machine.
        port: 0 selects any free port.

    Raises:
        CannotListen: The port is taken, or this user cannot bind the address.
    """
    try:
        listener = bind_tcp(host, port)
    except OSError as error:
        message = f"nobody can listen at {host}:{port}: {error.strerror}; free it, or choose another"
        raise CannotListen(message) from error
    return _serving(_loopback_only(app) if is_loopback(host) else app, listener)


def _loopback_only(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if is_loopback(_host_of(Headers(scope=scope).get("host", ""))):
            await app(scope, receive, send)
        else:
            text = "this is for this machine alone: ask for it as 127.0.0.1 or localhost\n"
            await PlainTextResponse(text, status_code=421)(scope, receive, send)

    return answer


def _host_of(asked: str) -> str:
    try:
        return urlsplit(f"//{asked}").hostname or ""
    except ValueError:
        return ""


@asynccontextmanager
async def _serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[str]:
    host, port = listener.getsockname()[:2]
    async with serve_app(
        app, listener, _Connection, grace_seconds=_GRACE_SECONDS, ws="none", timeout_keep_alive=IDLE_SECONDS
    ):
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connection(H11Protocol):
    """HTTP connection that is aborted after a time limit, or when a new connection needs its place."""

    _limit: asyncio.TimerHandle | None = None
    _waits_since = 0.0
    _has_request = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first request, and close another connection if there are too many."""
        others = [other for other in self.connections if isinstance(other, _Connection)]
        super().connection_made(transport)
        self._wait(REQUEST_SECONDS, is_asking=False)
        if len(others) >= MOST_CONNECTIONS:
            # Idle connections go first; a request in progress is aborted only if every connection has one.
            min(others, key=lambda other: (other._has_request, other._waits_since)).abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit."""
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Start the time limit for the response once the head of a request has arrived."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._wait(ANSWER_SECONDS, is_asking=True)

    def on_response_complete(self) -> None:
        """Start the time limit for the next request."""
        self._wait(IDLE_SECONDS, is_asking=False)
        super().on_response_complete()

    def abort(self) -> None:
        """Abort the connection now, and discard unsent data."""
        # Not `close`: it waits until the client has read everything.
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, seconds: float, *, is_asking: bool) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._waits_since, self._has_request = self.loop.time(), is_asking
        self._limit = self.loop.call_later(seconds, self.abort)
