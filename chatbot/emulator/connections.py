"""Uvicorn's connections with two things added: answers leave in one piece, and a fault can cut the line.

Uvicorn writes an answer's head and body one after the other; gathered into one write, an idle poll costs half
the system calls. `ConnectionError` raised by the application is the network's fault, played (`faults.py`):
the connection is cut.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chatbot.emulator.app import Emulator
from chatbot.emulator.gate import Receive, Scope, Send

_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Connection(HttpToolsProtocol):
    """One connection to the emulator."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the transport, wrapped."""
        # Not through uvicorn's configuration: that would silence its logger for the whole process.
        self.access_log = False
        super().connection_made(_Gathering(transport))  # type: ignore[arg-type]
        self.app = _Cutting(self.app, transport)  # pyright: ignore[reportArgumentType] -- what the factory was given


class _Cutting:
    """The application, as one connection sees it."""

    def __init__(self, emulator: Emulator, transport: asyncio.Transport) -> None:
        self._emulator = emulator
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._emulator(scope, receive, send)
        except ConnectionError:
            # Lets what was written leave, then resets instead of closing politely.
            await asyncio.sleep(0)
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:  # else the client was quicker
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            while (await receive())["type"] != "http.disconnect":
                pass


class _Gathering:
    """A transport that joins what is written within one turn of the loop."""

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
        """Write what is waiting, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
