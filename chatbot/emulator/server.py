"""Serve an emulator on sockets: https for SDKs of other programs, and plain http for callers on this machine.

Uvicorn's protocol classes on listeners of our own, without `uvicorn.Server`: a taken port is an error of ours and no
`sys.exit`, signals stay with whoever owns the process, stopping waits for no idle connection, and nothing outlives the
`async with`. An answer leaves in one write, which halves the system calls of an idle poll.

The certificate authority for https is created at the first start and kept in the user's data directory. A client that
trusts it once can use every later emulator. Each server gets a new certificate from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import platformdirs
import uvicorn
from filelock import FileLock
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from chatbot.emulator.app import Emulator
from chatbot.emulator.routing import Receive, Scope, Send

if TYPE_CHECKING:
    import trustme


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority, and the file by which clients trust it (`SSL_CERT_FILE`,

    `REQUESTS_CA_BUNDLE`, `NODE_EXTRA_CA_CERTS`).
    """

    ca: trustme.CA
    ca_file: Path

    def server_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """Return a server's TLS context for these host names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ca.issue_cert(*names).configure_cert(context)
        return context


def default_directory() -> Path:
    """Return the default directory of the certificate authority."""
    return Path(platformdirs.user_data_dir("chatbot", appauthor=False)) / "emulator"


def authority(directory: Path | None = None) -> Authority:
    """Return the certificate authority in `directory`; create it if there is none."""
    import trustme  # here, because a start without TLS does not wait for it

    directory = directory or default_directory()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate, key = directory / "ca.pem", directory / "ca.key"
    with FileLock(directory / "ca.lock", timeout=30, mode=0o600):
        if certificate.exists() and key.exists():
            ca = trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
        else:
            ca = trustme.CA(organization_name="chatbot emulator")
            _write(key, ca.private_key_pem.bytes(), 0o600)
            _write(certificate, ca.cert_pem.bytes(), 0o644)
    return Authority(ca, certificate)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically, with its final mode from the start."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).chmod(mode)
    Path(name).replace(path)


_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class EmulatorConnection(HttpToolsProtocol):
    """One connection to the emulator."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the transport."""
        # Not through uvicorn's configuration: that would silence its logger for the whole process.
        self.access_log = False
        super().connection_made(_BatchingTransport(transport))  # type: ignore[arg-type]
        self.app = _ConnectionApp(self.app, transport)  # pyright: ignore[reportArgumentType] -- what the factory was given


class _ConnectionApp:
    """The application for one connection, which it can reset."""

    def __init__(self, emulator: Emulator, transport: asyncio.Transport) -> None:
        self._emulator = emulator
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._emulator(scope, receive, send)
        except ConnectionError:
            # Sends what was written, then resets the connection instead of closing it.
            await asyncio.sleep(0)
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:  # otherwise the client has already closed it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            while (await receive())["type"] != "http.disconnect":
                pass


class _BatchingTransport:
    """A transport that joins all writes within one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._later = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        """Write at the end of this turn."""
        if not self._parts:
            self._later(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Write pending data, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_GRACE_SECONDS = 0.2
_App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PortTakenError(OSError):
    """The port already belongs to another process; choose another one, or 0 for any that is free."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running emulator server.

    `endpoint` is its address for other programs, `http_endpoint` the one for its own process.
    """

    emulator: Emulator
    endpoint: str
    http_endpoint: str
    ca_file: Path | None

    @property
    def connection_string(self) -> str:
        """Connection string for SDKs of other programs."""
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
        await stack.enter_async_context(_listening(_check_host_header(emulator, host, public_host), main, context))
        if tls and plain:
            extra = stack.enter_context(_bind("127.0.0.1", 0))
            await stack.enter_async_context(
                _listening(_check_host_header(emulator, "127.0.0.1", public_host), extra, None)
            )
            plain_endpoint = _url("http", "127.0.0.1", extra.getsockname()[1])
        emulator.endpoint = endpoint
        if public_host:
            emulator.public_base = endpoint
        yield Running(emulator, endpoint, plain_endpoint, trust.ca_file if trust else None)


@contextlib.asynccontextmanager
async def _listening(app: _App, sock: socket.socket, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        http=EmulatorConnection,
        ws="wsproto",
        ws_max_size=64 * 1024,
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=150,  # longer than any SDK keeps an idle connection
    )
    config.load()
    state = ServerState()

    def connection() -> EmulatorConnection:
        return EmulatorConnection(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(connection, sock=sock, ssl=context, backlog=2048)
    try:
        yield
    finally:
        server.close()
        await _drain(state)


def _check_host_header(emulator: Emulator, host: str, public_host: str | None) -> _App:
    """On loopback, answer only requests whose Host header names loopback or the public host.

    An open web page can make the browser send requests to this machine under a host name of the page (DNS
    rebinding).
    """
    if not _is_loopback(host):
        return emulator
    public = _split(public_host)[0].lower() if public_host else None

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        asked = next((value for name, value in scope.get("headers", ()) if name == b"host"), b"").decode("latin-1")
        name = _name_in(asked)
        if scope["type"] == "lifespan" or _is_loopback(name) or (public is not None and name == public):
            await emulator(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
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
    """Wait briefly for running responses, then close every connection."""
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
    # The socket of a connection stays open until the event loop has reported its loss, a few turns later.
    while state.connections:  # noqa: ASYNC110 -- uvicorn's set has no event
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
