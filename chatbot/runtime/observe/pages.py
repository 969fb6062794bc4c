"""What the status server shows: /healthz, /readyz, /status and /metrics. Nothing here can be changed from outside.

The pages may be asked on another event loop than the bots' own. What they show is read on the bots' loop; while that is
blocked, they say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatbot.runtime.observe.metrics import CONTENT_TYPE, render
from chatbot.runtime.observe.status import Observatory, as_json

T = TypeVar("T")

HEALTH_SECONDS: Final = 0.5
"""How long /healthz waits for the bots' loop before it answers without it: a probe waits a second by default."""

READY_SECONDS: Final = 4.0
"""How long /readyz does, unless the loop is known to be blocked; a slow disk counts as well."""

SCRAPE_SECONDS: Final = 9.0
"""How long /metrics and /status do: Prometheus waits ten seconds by default."""

_UNCACHED = {"Cache-Control": "no-store"}


class BotsLoop:
    """Calls, from any event loop, what belongs to the one that runs now."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def call(self, function: Callable[[], Awaitable[T]], seconds: float) -> T:
        """What the function returns.

        Raises:
            TimeoutError: the loop had no time for it within so many seconds; ours is waited for as long as it takes.
        """
        if asyncio.get_running_loop() is self._loop:
            return await function()

        async def run() -> T:
            return await function()

        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))


def pages(observatory: Observatory) -> Starlette:
    """The pages as an ASGI application. Call it on the bots' event loop."""
    loop = BotsLoop()

    def patience() -> float:
        return HEALTH_SECONDS if observatory.is_blocked else READY_SECONDS

    async def healthz(_request: Request) -> Response:
        try:
            missed = await loop.call(observatory.read_missed, HEALTH_SECONDS)
        except TimeoutError:
            missed = observatory.missed_of_blocked()
        body = {"is_healthy": not missed, "missed": missed}
        return JSONResponse(body, status_code=503 if missed else 200, headers=_UNCACHED)

    async def readyz(_request: Request) -> Response:
        try:
            unready = await loop.call(observatory.unready, patience())
        except TimeoutError:
            unready = (observatory.why_no_answer(),)
        body = {"is_ready": not unready, "unready": unready, "is_emulator": observatory.is_emulator}
        return JSONResponse(body, status_code=503 if unready else 200, headers=_UNCACHED)

    async def status(_request: Request) -> Response:
        try:
            return JSONResponse(as_json(await loop.call(observatory.look, SCRAPE_SECONDS)), headers=_UNCACHED)
        except TimeoutError:
            return _no_answer()

    async def metrics(_request: Request) -> Response:
        try:
            found = await loop.call(observatory.look, SCRAPE_SECONDS)
        except TimeoutError:
            return _no_answer()
        text = await anyio.to_thread.run_sync(render, found)
        return Response(text, headers={**_UNCACHED, "Content-Type": CONTENT_TYPE})

    def _no_answer() -> Response:
        return JSONResponse({"error": observatory.why_no_answer()}, status_code=503, headers=_UNCACHED)

    endpoints = (healthz, readyz, status, metrics)
    return Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])
