"""The status pages on a real socket: who is answered there."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chatbot.runtime import status_pages
from chatbot.runtime.status_pages import serve_pages


async def page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("well")


BODY_WANTED = asyncio.Event()


async def slow(request: Request) -> PlainTextResponse:
    BODY_WANTED.set()
    return PlainTextResponse(await request.body())


async def large(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("x" * 8_000_000)


APP = Starlette(routes=[Route("/", page), Route("/slow", slow, methods=["POST"]), Route("/large", large)])


async def asked(address: str, host: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(address, headers={"Host": host}) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.1.2.3"])
async def test_on_loopback_requests_for_loopback_hosts_are_answered(host: str) -> None:
    async with serve_pages(APP, "127.0.0.1", 0) as address:
        assert await asked(address, host) == (200, "well")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1", "[", "x@127.0.0.1.example"]
)
async def test_a_web_page_that_rebinds_its_name_to_loopback_reads_nothing(host: str) -> None:
    async with serve_pages(APP, "127.0.0.1", 0) as address:
        code, text = await asked(address, host)

    assert code == 421
    assert "well" not in text
    assert "127.0.0.1 or localhost" in text


async def test_on_an_address_for_others_they_may_call_it_as_they_like() -> None:
    async with serve_pages(APP, "0.0.0.0", 0) as address:
        port = address.rpartition(":")[2]

        assert await asked(f"http://127.0.0.1:{port}", "bots.example") == (200, "well")


async def connect(address: str) -> socket.socket:
    """A connection that says nothing."""
    host, port = address.removeprefix("http://").split(":")
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    return client


async def is_cut(client: socket.socket) -> bool:
    """Waits until the other side ends the connection."""
    try:
        while await asyncio.get_running_loop().sock_recv(client, 65_536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    ("said", "count"),
    [
        pytest.param(b"", 70, id="silent"),
        pytest.param(b"", 200, id="many more than there is room for"),
        pytest.param(b"GET / HT", 70, id="half a request"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 70, id="silent after an answer"),
        pytest.param(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", 70, id="half a body"),
        pytest.param(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", 70, id="an answer nobody reads"),
    ],
)
async def test_however_many_connections_are_held_open_the_next_request_is_answered(said: bytes, count: int) -> None:
    async with serve_pages(APP, "127.0.0.1", 0) as address, AsyncExitStack() as held:
        for _ in range(count):
            client = held.enter_context(await connect(address))
            if said:
                await asyncio.get_running_loop().sock_sendall(client, said)

        assert [await asked(address, "localhost") for _ in range(3)] == [(200, "well")] * 3


@pytest.mark.parametrize("limit", ["REQUEST_SECONDS", "ANSWER_SECONDS", "IDLE_SECONDS"])
async def test_a_connection_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    said = {
        "REQUEST_SECONDS": b"",
        "ANSWER_SECONDS": b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        "IDLE_SECONDS": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
    }
    monkeypatch.setattr(status_pages, limit, 0.01)
    async with serve_pages(APP, "127.0.0.1", 0) as address:
        with await connect(address) as client:
            await asyncio.get_running_loop().sock_sendall(client, said[limit])

            assert await is_cut(client)


async def test_a_connection_whose_request_is_being_answered_outlives_silent_ones() -> None:
    async with serve_pages(APP, "127.0.0.1", 0) as address, AsyncExitStack() as held:
        client = held.enter_context(await connect(address))
        await asyncio.get_running_loop().sock_sendall(
            client, b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
        )
        await BODY_WANTED.wait()
        for _ in range(70):
            held.enter_context(await connect(address))
        await asked(address, "localhost")
        await asyncio.get_running_loop().sock_sendall(client, b"well")

        assert (await asyncio.get_running_loop().sock_recv(client, 65_536)).startswith(b"HTTP/1.1 200")
