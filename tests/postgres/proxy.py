"""A TCP proxy between a store and its server: counts round trips, cuts connections, and swallows what is sent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeVar

P = TypeVar("P", bound="Proxy")


class Proxy:
    """What the network between both does.

    Attributes:
        server_port: where new connections lead.
        round_trips: how often the client spoke after the server had.
        is_refusing: new connections are reset.
        is_silent: nothing reaches the other side, and no error is reported.
        cuts_answer_to: the connection on which the client sends this breaks before the answer arrives, once.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.round_trips = 0
        self.is_refusing = False
        self.is_silent = False
        self.cuts_answer_to: bytes | None = None
        self.cuts = 0
        self.server_port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def noted(self, data: bytes) -> None:
        """For proxies that look at what the client sends."""

    def answered(self) -> None:
        """For proxies that do something when an answer of the server has been passed on."""

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with suppress(OSError, asyncio.CancelledError):
            try:
                if self.is_refusing:
                    raise ConnectionRefusedError
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
            except OSError:
                writer.transport.abort()
                return
            both = {writer, server_writer}
            self._writers |= both
            state = {"spoke": "server", "doomed": ""}
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, server_writer, "client", state))
                    group.create_task(self._pass(server_reader, writer, "server", state))
            except* (OSError, EOFError):
                pass
            finally:
                self._writers -= both
                for end in both:
                    end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str, state: dict[str, str]
    ) -> None:
        while data := await reader.read(65536):
            while self.is_silent:  # noqa: ASYNC110 the test says when
                await asyncio.sleep(0.05)
            if who == "client":
                self.noted(data)
                self.round_trips += state["spoke"] == "server"
                if self.cuts_answer_to is not None and self.cuts_answer_to in data:
                    self.cuts_answer_to, state["doomed"] = None, "yes"
            elif state["doomed"]:
                self.cuts += 1
                raise EOFError
            state["spoke"] = who
            writer.write(data)
            if who == "server":
                self.answered()
            await writer.drain()
        raise EOFError

    async def close(self) -> None:
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


@asynccontextmanager
async def served(proxy: P, listening: socket.socket | None = None) -> AsyncIterator[P]:
    """Serve a proxy until the block ends, on a port of its own, or on a socket that listens already."""
    server = await asyncio.start_server(proxy.serve, sock=listening or socket.create_server(("127.0.0.1", 0)))
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()


def proxied(port: int) -> AbstractAsyncContextManager[Proxy]:
    return served(Proxy(port))
