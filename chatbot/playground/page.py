"""Serve the page of the playground, and its websocket, on loopback.

What protects it, from the outside in:

* It listens on 127.0.0.1 only.
* A request whose Host header names anything but this address is refused, so that a web page cannot reach it under a
  name of its own (DNS rebinding).
* A websocket needs an Origin header that names this address: browsers let any page open websockets anywhere.
* The first frame of a websocket carries the token of the link. Nothing is read or done before it. The token is in the
  link's fragment, which browsers send to nobody, and in no cookie, so that no other page can make a browser present it.
* The page may load nothing from elsewhere, run no inline script, and be framed by nobody (Content-Security-Policy).
"""

from __future__ import annotations

import hmac
import json
import mimetypes
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final

import anyio
from uvicorn.protocols.http.h11_impl import H11Protocol

from chatbot.http_listener import bind_tcp, serve_app
from chatbot.playground.channel import Playground
from chatbot.worker_threads import run_in_thread

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TOKEN_SECONDS: Final = 10.0
"""Seconds until a websocket must have sent its token."""

MAX_FRAME: Final = 256 * 1024
"""Size of the largest frame that a page may send: a message may have 28 KB."""

_GRACE_SECONDS: Final = 0.2
_FORBIDDEN, _WRONG_TOKEN = 1008, 4401
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self' {socket}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types playground",
    )
)
# fmt: off
_FILES: Final = (
    "index.html", "app.css", "fork.css", "icon.svg", "main.js", "attachments.js", "bots.js", "connection.js",
    "conversation.js", "focus.js", "fork.js", "inspector.js", "list.js", "sidebar.js", "tools.js",
    "vendor/preact-htm.js", "vendor/LICENSES.txt",
)
# fmt: on


class PlaygroundApp:
    """The page and its websocket as an ASGI application.

    Args:
        playground: What the page shows and does.
        token: Must come with the first frame of a websocket.
        port: The port that Host and Origin must name.
    """

    def __init__(self, playground: Playground, token: str, port: int) -> None:
        self._playground = playground
        self._token = token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one websocket."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        host = headers.get("host", "").lower()
        if scope["type"] == "websocket":
            await receive()
            if host not in self._hosts or headers.get("origin", "").lower() != f"http://{host}":
                await send({"type": "websocket.close", "code": _FORBIDDEN})  # answered with 403
            elif scope["path"] != "/channel":
                await send({"type": "websocket.close", "code": _FORBIDDEN})
            else:
                await self._serve(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, host, send)

    async def _answer(self, scope: Scope, host: str, send: Send) -> None:
        name = scope["path"].lstrip("/") or "index.html"
        status, kind, body = 200, "text/plain; charset=utf-8", b""
        if host not in self._hosts:
            status, body = 421, b"the playground is for this machine alone: ask for it as 127.0.0.1 or localhost\n"
        elif name not in _FILES:
            status, body = 404, b"there is no such page\n"
        elif scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b"only GET\n"
        else:
            kind, body = await run_in_thread(_file, name)
        headers = {
            "content-type": kind,
            "content-length": str(len(body)),
            "content-security-policy": _POLICY.format(socket=f"ws://{host}") if status == 200 else "default-src 'none'",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cache-control": "no-cache",
        }
        raw = [(header.encode(), value.encode("latin-1")) for header, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _serve(self, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        frame: object = None
        with anyio.move_on_after(TOKEN_SECONDS):
            frame = await _frame(receive)
        given = frame.get("token") if isinstance(frame, dict) else None
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(errors="replace"), self._token.encode()):
            await send({"type": "websocket.close", "code": _WRONG_TOKEN})
            return

        async def write(text: str) -> None:
            await send({"type": "websocket.send", "text": text})

        await self._playground.serve(lambda: _frame(receive), write)
        with anyio.CancelScope(shield=True):
            await send({"type": "websocket.close", "code": 1000})


async def _frame(receive: Receive) -> object:
    """Return the next frame as JSON; None when the page has gone. What is no JSON is an empty list."""
    event = await receive()
    if event["type"] != "websocket.receive":
        return None
    try:
        return json.loads(event.get("text") or "")
    except (ValueError, RecursionError):
        return []


@cache
def _file(name: str) -> tuple[str, bytes]:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if name.endswith(".js"):
        kind = "text/javascript"  # the system's own table may say something else, which browsers refuse
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return kind, files("chatbot.playground").joinpath("static", *name.split("/")).read_bytes()


@asynccontextmanager
async def serve_playground(playground: Playground, *, token: str, port: int = 0) -> AsyncIterator[str]:
    """Serve the playground on loopback while the block runs; it receives the link, which contains the token.

    Args:
        playground: What the page shows and does.
        token: The secret of the link.
        port: The preferred port; if it is taken, any free one.
    """
    listener = _bind(port)
    number = listener.getsockname()[1]
    app = PlaygroundApp(playground, token, number)
    serving = serve_app(app, listener, H11Protocol, grace_seconds=_GRACE_SECONDS, ws="wsproto", ws_max_size=MAX_FRAME)
    async with serving, playground:
        yield f"http://127.0.0.1:{number}/#token={token}"


def _bind(port: int) -> socket.socket:
    try:
        return bind_tcp("127.0.0.1", port)
    except OSError:
        return bind_tcp("127.0.0.1", 0)
