"""Who may reach the playground: this machine, by its own address, from its own page, with the token of the link."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from chatbot.emulator import Emulator, Quirks
from chatbot.playground import Notes, Playground, serve_playground

TOKEN = "the-token-of-the-link"


@asynccontextmanager
async def served() -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A playground over an emulator without bots; gives a client and the address."""
    notes = Notes(people=dict, save_people=lambda _people: None, save_offset=lambda _offset: None)
    playground = Playground(Emulator(), bots=None, stories=None, notes=notes, quirks=list(Quirks.describe()))
    async with serve_playground(playground, token=TOKEN) as link, aiohttp.ClientSession() as client:
        assert link.endswith(f"/#token={TOKEN}")
        yield client, link.partition("#")[0]


async def connected(client: aiohttp.ClientSession, address: str, headers: Mapping[str, str]) -> Any:
    return await client.ws_connect(f"{address}channel".replace("http:", "ws:"), headers=headers)


async def test_it_listens_on_loopback_only() -> None:
    async with served() as (_, address):
        assert urlsplit(address).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:1", "", "localhost.evil.example"]
)
async def test_a_name_that_is_not_its_own_gets_nothing(host: str) -> None:
    async with served() as (client, address), client.get(address, headers={"Host": host}) as answer:
        assert answer.status == 421
        assert "<html" not in await answer.text()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1", "http://127.0.0.1"])
async def test_a_page_of_another_site_cannot_open_the_channel(origin: str) -> None:
    async with served() as (client, address):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connected(client, address, {"Origin": origin} if origin else {})
        assert refused.value.status == 403


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example"])
async def test_a_page_under_a_name_of_another_site_cannot_open_the_channel(name: str) -> None:
    async with served() as (client, address):
        host = f"{name}:{urlsplit(address).port}"  # as after DNS rebinding: both name the other site
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connected(client, address, {"Host": host, "Origin": f"http://{host}"})
        assert refused.value.status == 403


@pytest.mark.parametrize("first", ['{"token": "wrong"}', '{"token": 7}', "{}", "[]", "nonsense", '{"do": "open"}', ""])
async def test_without_the_token_nothing_is_told(first: str) -> None:
    async with served() as (client, address):
        page = await connected(client, address, {"Origin": address.rstrip("/")})
        await page.send_str(first)
        answer = await page.receive()
        assert answer.type is aiohttp.WSMsgType.CLOSE
        assert page.close_code == 4401


async def test_with_the_token_it_answers_whatever_is_sent() -> None:
    async with served() as (client, address):
        page = await connected(client, address, {"Origin": address.rstrip("/")})
        await page.send_json({"token": TOKEN})
        assert (await page.receive_json())["push"] == "hello"
        for bad in ({"id": 1}, {"id": 1, "do": "run"}, {"id": 1, "do": "__init__"}, {"id": 1, "do": "send"}):
            await page.send_json(bad)
            assert "error" in await page.receive_json()
        await page.send_str("nonsense")
        await page.send_json({"id": 2, "do": "create_person", "name": "Ann"})
        answers = [await page.receive_json(), await page.receive_json()]
        assert any(answer.get("re") == 2 and "user" in answer["answer"] for answer in answers)
        await page.close()


async def test_the_page_may_load_and_run_nothing_but_its_own_files() -> None:
    async with served() as (client, address):
        async with client.get(address) as answer:
            policy, page = answer.headers["Content-Security-Policy"], await answer.text()
            assert "Set-Cookie" not in answer.headers
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert re.findall(r"<script(?![^>]*src=)|style=| on\w+=|https?://", page) == []
        for name in re.findall(r'(?:src|href)="([^"]+)"', page):
            async with client.get(address + name) as file:
                assert file.status == 200


@pytest.mark.parametrize("path", ["../page.py", "..%2fpage.py", "vendor/", "static/main.js", "main.js/", "//main.js"])
async def test_only_the_files_of_the_page_are_served(path: str) -> None:
    async with (
        served() as (client, address),
        client.get(aiohttp.client.URL(address + path, encoded=True)) as answer,
    ):
        assert answer.status == 404 or path == "//main.js"
        assert "serve_playground" not in await answer.text()


async def test_the_scripts_of_others_are_in_the_package_with_their_licenses() -> None:
    async with served() as (client, address):
        async with client.get(f"{address}vendor/LICENSES.txt") as answer:
            text = await answer.text()
        assert "MIT License" in text
        assert "Apache License" in text
