"""Serving an emulator on sockets: https for strangers' SDKs and, beside it, plain http for loopback callers.

Uvicorn's protocol classes on sockets and listeners of our own, without `uvicorn.Server`: a taken port is an
error of ours and no `sys.exit`, signals stay with whoever owns the process, stopping waits for no idle
connection, and nothing outlives the `async with`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import uvicorn
from uvicorn.server import ServerState

from chatbot.emulator.app import Emulator
from chatbot.emulator.certificates import Authority, authority
from chatbot.emulator.connections import Connection
from chatbot.emulator.gate import Receive, Scope, Send

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_GRACE_SECONDS = 0.2
_App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PortTakenError(OSError):
    """The port already belongs to another process; choose another one, or 0 for any that is free."""


@dataclass(frozen=True, slots=True)
class Running:
    """A serving emulator.

    Where strangers find it (`endpoint`), and where its own process does (`http_endpoint`).
    """

    emulator: Emulator
    endpoint: str
    http_endpoint: str
    ca_file: Path | None

    @property
    def connection_string(self) -> str:
        """The connection string for strangers' SDKs."""
        return f"endpoint={self.endpoint}/;accesskey={self.emulator.access_key}"


@contextlib.asynccontextmanager
async def serve(
    emulator: Emulator,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: bool = True,
    plain: bool = True,
    public_host: str | None = None,
    certificates: Path | None = None,
) -> AsyncIterator[Running]:
    """Serve until the block ends; entered when connections are accepted.

    With TLS, `port` is the https port and plain http listens on a port of its own, on 127.0.0.1 only; without, `port`
    is the http port. `public_host` is a name, or a name and a port, by which others reach it. `certificates` is the
    directory of the certificate authority.
    """
    async with contextlib.AsyncExitStack() as stack:
        main = stack.enter_context(_bind(host, port))
        trust = await anyio.to_thread.run_sync(authority, certificates) if tls else None
        own_name = host if host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104 -- compared only
        name, public_port = _split(public_host) if public_host else (own_name, None)
        context = await anyio.to_thread.run_sync(_context, trust, {name, host, *_LOOPBACK}) if trust else None
        endpoint = _url("https" if tls else "http", name, public_port or main.getsockname()[1])
        plain_endpoint = endpoint
        await stack.enter_async_context(_listening(_to_neighbours(emulator, host, public_host), main, context))
        if tls and plain:
            extra = stack.enter_context(_bind("127.0.0.1", 0))
            await stack.enter_async_context(_listening(_to_neighbours(emulator, "127.0.0.1", public_host), extra, None))
            plain_endpoint = _url("http", "127.0.0.1", extra.getsockname()[1])
        emulator.endpoint = endpoint
        if public_host:
            emulator.public_base = endpoint
        yield Running(emulator, endpoint, plain_endpoint, trust.ca_file if trust else None)


@contextlib.asynccontextmanager
async def _listening(app: _App, sock: socket.socket, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=150,  # longer than any SDK keeps an idle connection
    )
    config.load()
    state = ServerState()

    def connection() -> Connection:
        return Connection(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(connection, sock=sock, ssl=context, backlog=2048)
    try:
        yield
    finally:
        server.close()
        await _drain(state)


def _to_neighbours(emulator: Emulator, host: str, public_host: str | None) -> _App:
    """On loopback, answer only those who ask for loopback, or for the public host, by name.

    A web page that somebody has open can make their browser ask this machine under a name of the page's own (DNS
    rebinding).
    """
    if not _is_loopback(host):
        return emulator
    public = _split(public_host)[0].lower() if public_host else None

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        asked = next((value for name, value in scope.get("headers", ()) if name == b"host"), b"").decode("latin-1")
        name = _name_in(asked)
        if scope["type"] != "http" or _is_loopback(name) or (public is not None and name == public):
            await emulator(scope, receive, send)
            return
        text = b"this emulator is for this machine alone: ask for it as 127.0.0.1 or localhost\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 421, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return answer


def _name_in(asked: str) -> str:
    try:
        return (urlsplit(f"//{asked}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def _drain(state: ServerState) -> None:
    """Let answers in flight finish, briefly; then cut every connection."""
    for connection in list(state.connections):
        connection.shutdown()
    tasks = set(state.tasks)
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    for connection in list(state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.sleep(0)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, because asyncio sets TCP_NODELAY on nothing else, and without it every answer waits 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Windows would let two processes have the port; elsewhere a port is free as soon as its last owner is gone.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} of {host} is already in use"
            raise PortTakenError(errno.EADDRINUSE, msg) from error
        raise
    sock.setblocking(False)
    return sock


def _context(trust: Authority, names: set[str]) -> ssl.SSLContext:
    return trust.server_context(sorted(names - {"0.0.0.0", "::"}))  # noqa: S104 -- excluded


def _split(public_host: str) -> tuple[str, int | None]:
    """Name and port of NAME or NAME:PORT."""
    name, _, port = public_host.rpartition(":")
    if not name or not port.isdecimal() or name.endswith(":"):
        return public_host.strip("[]"), None
    return name.strip("[]"), int(port)


def _url(scheme: str, name: str, port: int) -> str:
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}:{port}"
