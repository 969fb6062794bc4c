"""The transport carries a request to a real server and brings back the whole answer, or says what happened to it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from azure.core.exceptions import (
    AzureError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import AsyncHttpTransport, HttpRequest

from chatbot.errors import OutcomeUnknown, Unreachable
from chatbot.service.failures import from_exception
from chatbot.service.transport import open_transport

OK = b"HTTP/1.1 200 Fine\r\nMS-CV: abc.0\r\n"


class Server:
    """Answers every connection with the same bytes, and keeps what it was asked."""

    def __init__(self, *pieces: bytes, stays: bool = False) -> None:
        self.pieces = pieces
        self.stays = stays
        self.asked = b""
        self.url = ""
        self.connections = 0
        self.is_left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.asked = await reader.readuntil(b"\r\n\r\n")
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
            if self.stays:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side has had enough
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.is_left.set()

    @asynccontextmanager
    async def asked_by(self) -> AsyncIterator[AsyncHttpTransport[Any, Any]]:
        server = await asyncio.start_server(self, "127.0.0.1", 0)
        self.url = "http://{}:{}/x".format(*server.sockets[0].getsockname())
        async with server:
            async with open_transport(None) as transport:
                yield transport
            if self.connections:
                await self.is_left.wait()


def whole(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    "pieces",
    [
        (whole(b"hello, you"),),
        (whole(b"hello, you")[:-4], b" you"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello,\r\n", b"4\r\n you\r\n0\r\n\r\n"),
        (OK + b"Connection: close\r\n\r\nhello,", b" you"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"hello, you")),
         gzip.compress(b"hello, you")),
    ],
)  # fmt: skip
async def test_an_answer_is_read_whole_however_it_comes(pieces: tuple[bytes, ...]) -> None:
    server = Server(*pieces)
    async with server.asked_by() as transport:
        response = await transport.send(HttpRequest("GET", server.url))

    assert (response.status_code, response.reason, response.body()) == (200, "Fine", b"hello, you")
    assert response.headers["ms-cv"] == "abc.0"


async def test_only_what_the_sdk_says_goes_out() -> None:
    server = Server(whole(b""))
    async with server.asked_by() as transport:
        await transport.send(HttpRequest("POST", server.url, {"X-Own": "1"}))

    assert b"X-Own: 1" in server.asked
    assert b"content-type" not in server.asked.lower()
    assert b"cookie" not in server.asked.lower()


@pytest.mark.parametrize(("is_quoted", "asked"), [(True, b"GET /x%3Ay?t=%3A "), (False, b"GET /x:y?t=: ")])
async def test_an_address_that_is_quoted_goes_out_as_it_is(is_quoted: bool, asked: bytes) -> None:
    server = Server(whole(b""))
    async with server.asked_by() as transport:
        await transport.send(HttpRequest("GET", f"{server.url}%3Ay?t=%3A"), is_quoted=is_quoted)

    assert server.asked.startswith(asked)


@pytest.mark.parametrize("is_quoted", [True, False])
async def test_an_address_that_is_none_is_not_asked(is_quoted: bool) -> None:
    async with open_transport(None) as transport:
        with pytest.raises(ServiceRequestError):
            await transport.send(HttpRequest("GET", "nowhere"), is_quoted=is_quoted)


async def test_a_connection_is_used_again_only_if_its_answer_was_read_to_the_end() -> None:
    connections: list[asyncio.StreamWriter] = []
    answers = [whole(b"hello"), OK + b"Content-Length: 0\r\n\r\n", whole(b"hello")[:-1], whole(b"hello")]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answers.pop(0))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = "http://{}:{}/x".format(*server.sockets[0].getsockname())
    async with server, open_transport(None) as transport:
        for _ in range(2):
            await transport.send(HttpRequest("GET", url))
        with pytest.raises(ServiceResponseTimeoutError):
            await transport.send(HttpRequest("GET", url), read_timeout=0.05)
        assert len(connections) == 1
        await transport.send(HttpRequest("GET", url))

    assert len(connections) == 2


async def test_an_answer_that_switches_protocols_keeps_no_connection() -> None:
    asyncio.get_running_loop().set_debug(True)  # then aiohttp warns of a response that only its deletion has closed
    server = Server(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", stays=True)
    async with server.asked_by() as transport:
        response = await transport.send(HttpRequest("GET", server.url))
        await server.is_left.wait()

    assert response.status_code == 101


async def test_redirects_are_not_followed() -> None:
    server = Server(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
    async with server.asked_by() as transport:
        response = await transport.send(HttpRequest("GET", server.url))

    assert response.status_code == 302


@pytest.mark.parametrize("timeout", ["read_timeout", "total_timeout"])
@pytest.mark.parametrize("pieces", [(), (whole(b"hello")[:-1],)])
async def test_an_answer_that_does_not_come_in_time_is_given_up(timeout: str, pieces: tuple[bytes, ...]) -> None:
    server = Server(*pieces, stays=True)
    async with server.asked_by() as transport:
        with pytest.raises(ServiceResponseTimeoutError):
            await transport.send(HttpRequest("GET", server.url), **{timeout: 0.05})
        await server.is_left.wait()


@pytest.mark.parametrize("pieces", [(), (b"no http",), (OK,), (whole(b"hello")[:-1],)])
async def test_after_a_broken_connection_the_outcome_is_unknown(pieces: tuple[bytes, ...]) -> None:
    server = Server(*pieces)
    async with server.asked_by() as transport:
        with pytest.raises(AzureError) as caught:
            await transport.send(HttpRequest("GET", server.url))

    assert type(from_exception("ask", caught.value)) is OutcomeUnknown


async def test_where_nobody_listens_nothing_was_sent() -> None:
    server = Server()
    async with server.asked_by():
        pass
    async with open_transport(None) as transport:
        with pytest.raises(ServiceRequestError) as caught:
            await transport.send(HttpRequest("GET", server.url))

    assert type(from_exception("ask", caught.value)) is Unreachable


async def test_a_handshake_that_does_not_end_in_time_carried_no_request() -> None:
    server = Server(stays=True)
    async with server.asked_by() as transport:
        with pytest.raises(ServiceRequestTimeoutError) as caught:
            await transport.send(HttpRequest("GET", server.url.replace("http:", "https:")), connection_timeout=0.05)

    assert type(from_exception("ask", caught.value)) is Unreachable


async def test_closing_the_transport_closes_it_for_nobody() -> None:
    server = Server(whole(b"hello"))
    async with server.asked_by() as transport:
        async with transport:
            await transport.open()
        await transport.close()

        response = await transport.send(HttpRequest("GET", server.url))

    assert response.body() == b"hello"
