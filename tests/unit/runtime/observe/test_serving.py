"""The status pages on a real socket: who is answered there."""

from __future__ import annotations

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chatbot.runtime.observe.serving import serve_pages


async def page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("well")


APP = Starlette(routes=[Route("/", page)])


async def asked(address: str, host: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(address, headers={"Host": host}) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.1.2.3"])
async def test_on_loopback_whoever_asks_for_loopback_is_answered(host: str) -> None:
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
