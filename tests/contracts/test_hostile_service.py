"""A service that means harm, as bytes on a real socket: endless, huge, packed, dripping and misleading answers."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from chatbot.errors import OutcomeUnknown, ProtocolError, ServiceError
from chatbot.model import ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.credentials import StaticToken
from chatbot.service.policies import Timeouts
from chatbot.service.transport import MAX_ANSWER_BYTES

THREAD = ThreadId("19:x")
Answer = Callable[[SocketStream], Awaitable[None]]


class Server:
    """A server that answers every request with the same bytes.

    Attributes:
        requests: what was asked, headers included.
    """

    def __init__(self, answer: Answer) -> None:
        self.requests: list[bytes] = []
        self.port = 0
        self._answer = answer

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            try:
                self.requests.append(await stream.receive())
                await self._answer(stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                pass  # who asked has had enough


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel()


@asynccontextmanager
async def asking(server: Server, **timeouts: float) -> AsyncIterator[tuple[AcsResource, ChatService]]:
    async with AcsResource(
        f"http://127.0.0.1:{server.port}", access_key="a2V5", timeouts=Timeouts(**timeouts)
    ) as resource:
        yield resource, resource.chat(UserId("8:acs:x"), StaticToken("our-token"))


class Sent:
    """Counts what a server could send."""

    def __init__(self) -> None:
        self.bytes = 0

    async def send(self, stream: SocketStream, piece: bytes) -> None:
        await stream.send(piece)
        self.bytes += len(piece)


@pytest.mark.parametrize("is_declared", [True, False])
async def test_an_answer_without_end_is_left_and_not_kept(is_declared: bool) -> None:
    sent = Sent()

    async def answer(stream: SocketStream) -> None:
        length = b"Content-Length: 1099511627776\r\n" if is_declared else b"Transfer-Encoding: chunked\r\n"
        await stream.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        piece = b" " * 65536
        while True:
            await sent.send(stream, piece if is_declared else b"10000\r\n" + piece + b"\r\n")

    async with serving(answer) as server, asking(server) as (resource, chat):
        calls: list[Callable[[], Awaitable[Any]]] = [lambda: chat.list_messages(THREAD), resource.create_user]
        for call in calls:
            sent.bytes = 0
            with pytest.raises(ProtocolError, match="larger than 32 MiB"):
                await call()
            assert sent.bytes < 2 * MAX_ANSWER_BYTES  # what is above lay in the sockets' buffers


@pytest.mark.parametrize("status", [b"200 OK", b"503 Service Unavailable"])
async def test_an_answer_that_unpacks_to_gigabytes_is_left_and_not_kept(status: bytes) -> None:
    packed = gzip.compress(b" " * 2**20) * 2048  # 2 GiB in 2 MiB

    async def answer(stream: SocketStream) -> None:
        head = b"HTTP/1.1 " + status + b"\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        await stream.send(head + packed)
        await anyio.sleep_forever()

    async with serving(answer) as server, asking(server) as (_resource, chat):
        tracemalloc.start()
        try:
            with pytest.raises(ServiceError, match="larger than 32 MiB"):
                await chat.list_messages(THREAD)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 3 * MAX_ANSWER_BYTES


async def test_a_dripping_response_is_given_up_within_the_time_of_a_call() -> None:
    async def answer(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.01)

    async with serving(answer) as server, asking(server, total=0.3) as (resource, chat):
        for call in (lambda: chat.list_messages(THREAD), resource.create_user):
            with pytest.raises(OutcomeUnknown, match="no answer came"):
                await call()  # type: ignore[operator]


@pytest.mark.parametrize("status", [b"301 Moved Permanently", b"302 Found", b"307 Temporary", b"308 Permanent"])
async def test_a_redirect_is_not_followed_and_our_token_goes_nowhere_else(status: bytes) -> None:
    async def nothing(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(nothing) as elsewhere:

        async def answer(stream: SocketStream) -> None:
            place = b"Location: http://127.0.0.1:%d/\r\n" % elsewhere.port
            await stream.send(
                b"HTTP/1.1 " + status + b"\r\n" + place + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            )

        async with serving(answer) as server, asking(server) as (resource, chat):
            with pytest.raises(ServiceError):
                await chat.list_messages(THREAD)
            with pytest.raises(ServiceError):
                await chat.send_message(THREAD, "hi")
            with pytest.raises(ServiceError):
                await resource.create_user()

        assert len(server.requests) == 3
        assert elsewhere.requests == []


async def test_headers_without_end_are_left() -> None:
    sent = Sent()

    async def answer(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await sent.send(stream, b"X-Filler: " + b"x" * 65536)

    async with serving(answer) as server, asking(server) as (_resource, chat):
        with pytest.raises(ServiceError):
            await chat.list_messages(THREAD)

    assert sent.bytes < MAX_ANSWER_BYTES
