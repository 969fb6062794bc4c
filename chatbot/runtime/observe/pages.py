"""What the status server shows: /healthz, /readyz, /status and /metrics. Nothing here can be changed from outside."""

from __future__ import annotations

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatbot.runtime.observe.metrics import CONTENT_TYPE, render
from chatbot.runtime.observe.status import Observatory, as_json

_UNCACHED = {"Cache-Control": "no-store"}


def pages(observatory: Observatory) -> Starlette:
    """The pages as an ASGI application."""

    async def healthz(_request: Request) -> Response:
        missed = observatory.missed()
        body = {"is_healthy": not missed, "missed": missed}
        return JSONResponse(body, status_code=503 if missed else 200, headers=_UNCACHED)

    async def readyz(_request: Request) -> Response:
        unready = await observatory.unready()
        body = {"is_ready": not unready, "unready": unready, "is_emulator": observatory.is_emulator}
        return JSONResponse(body, status_code=503 if unready else 200, headers=_UNCACHED)

    async def status(_request: Request) -> Response:
        return JSONResponse(as_json(await observatory.look()), headers=_UNCACHED)

    async def metrics(_request: Request) -> Response:
        text = await anyio.to_thread.run_sync(render, await observatory.look())
        return Response(text, headers={**_UNCACHED, "Content-Type": CONTENT_TYPE})

    endpoints = (healthz, readyz, status, metrics)
    return Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])
