"""Serve applications over HTTP with uvicorn's protocol classes, without `uvicorn.Server`.

A taken port is an error and no `sys.exit`, signals stay with the owner of the process, stopping waits for no idle
connection, and nothing outlives the block. The emulator, which shares nothing with the bots it serves, has its own
listeners.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # uvicorn is loaded once something is served, not by whoever only checks that a port is free
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.server import ServerState


class CannotListen(OSError):
    """The address cannot be bound; the text says why and what to do."""


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, and not listening yet.

    Args:
        host: an IP address of this machine, or a name of it.
        port: 0 selects any free port.

    Raises:
        OSError: the port is taken, or this user cannot bind the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is explicit because asyncio sets TCP_NODELAY only then, and without it every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Windows would let two processes have the port; elsewhere a port is free as soon as its last owner is gone.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serve_app(
    app: Callable[..., Any],
    listener: socket.socket,
    protocol: type[H11Protocol],
    *,
    grace_seconds: float,
    **settings: Any,
) -> AsyncIterator[None]:
    """Serve an ASGI application while the block runs; then let responses end, and abort every connection.

    Args:
        app: the application.
        listener: the bound socket.
        protocol: the class of the connections.
        grace_seconds: how long responses may take to end after the block.
        settings: further arguments of `uvicorn.Config`.
    """
    import uvicorn
    from uvicorn.server import ServerState

    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, server_header=False, **settings)
    config.load()
    state = ServerState()

    def connection() -> H11Protocol:
        made = protocol(config=config, server_state=state, app_state={})
        # Not in uvicorn's configuration: that would silence its logger for the whole process.
        made.access_log = False
        return made

    server = await asyncio.get_running_loop().create_server(connection, sock=listener)
    try:
        yield
    finally:
        server.close()
        await _end_connections(state, grace_seconds)


async def _end_connections(state: ServerState, grace_seconds: float) -> None:
    for connection in list(state.connections):
        connection.shutdown()
    if tasks := set(state.tasks):
        _, late = await asyncio.wait(tasks, timeout=grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    for connection in list(state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    # The socket of a connection stays open until the event loop has reported its loss, a few turns later.
    while state.connections:  # noqa: ASYNC110 -- uvicorn's set has no event
        await asyncio.sleep(0)
